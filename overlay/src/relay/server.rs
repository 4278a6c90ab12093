//! The relay of a super peer: channels, who may use them, and how much.
//!
//! Owns: [`Channels`] (control's view: which two nodes share a channel) and [`RelayTable`] (forwarding's view:
//! which two endpoints). A frame is looked up, its source checked, its bytes charged, and sent on as it came.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::id::NodeId;
use crate::locator::{Channel, Endpoint};
use crate::timing::Instant;
use crate::verdict::Drop;
use crate::wire::control::Refusal;

/// Channels that one node may open at one super peer: it talks to a few dozen others at a time.
pub const MAX_CHANNELS_PER_NODE: usize = 256;
/// Channels of a super peer: 5,500 users, each relayed to a few; 2¹⁶ × ~200 B = 13 MB at the worst.
pub const MAX_CHANNELS: usize = 1 << 16;
/// A channel that nobody renewed is closed after this long; its ends renew it every minute.
pub const CHANNEL_LIFE: Duration = Duration::from_secs(300);
/// Default budget of a node, in bytes a second: 1 Gb/s.
pub const DEFAULT_RATE: u64 = 125_000_000;
/// A node may save up its budget for this long.
const BURST: Duration = Duration::from_secs(1);

/// What one node may still send through us; a token bucket that two threads may touch.
#[derive(Debug)]
pub struct Quota {
    rate: u64,
    /// Bytes charged so far, less what time has paid back.
    debt: AtomicU64,
    /// When the debt was last paid down, in microseconds.
    paid_at: AtomicU64,
    /// Bytes that were let through.
    charged: AtomicU64,
}

impl Quota {
    /// A budget of `rate` bytes a second.
    #[must_use]
    pub const fn new(rate: u64) -> Self {
        Self { rate, debt: AtomicU64::new(0), paid_at: AtomicU64::new(0), charged: AtomicU64::new(0) }
    }

    /// Charge `bytes`; `false` if the budget is used up.
    pub fn charge(&self, bytes: usize, now: Instant) -> bool {
        let micros = u64::try_from(now.since_start().as_micros()).unwrap_or(u64::MAX);
        let before = self.paid_at.load(Ordering::Relaxed);
        let paid = (u128::from(self.rate) * u128::from(micros.saturating_sub(before)) / 1_000_000) as u64;
        if paid > 0 {
            // Less than a byte's worth of time is left to add up.
            self.paid_at.store(micros, Ordering::Relaxed);
        }
        let debt = self.debt.load(Ordering::Relaxed).saturating_sub(paid);
        let fits = debt <= self.rate.saturating_mul(BURST.as_secs());
        self.debt.store(if fits { debt.saturating_add(bytes as u64) } else { debt }, Ordering::Relaxed);
        if fits {
            self.charged.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        fits
    }

    /// Bytes that were let through so far.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
struct Ends {
    places: [Endpoint; 2],
    /// Further ways by which each end has proved that it is there: it may have chosen another than we have.
    others: [Vec<Endpoint>; 2],
    quotas: [Arc<Quota>; 2],
}

/// What forwarding needs: the open channels whose two ends are both here.
#[derive(Clone, Debug, Default)]
pub struct RelayTable {
    channels: Arc<HashMap<Channel, Ends>>,
}

impl RelayTable {
    /// Where a frame of `bytes` bytes that came from `from` goes on to.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn forward(
        &self,
        channel: Channel,
        from: Endpoint,
        bytes: usize,
        now: Instant,
    ) -> Result<Endpoint, Drop> {
        let ends = self.channels.get(&channel).ok_or(Drop::UnknownChannel)?;
        let side = match from {
            from if from == ends.places[0] => 0,
            from if from == ends.places[1] => 1,
            from if ends.others[0].contains(&from) => 0,
            from if ends.others[1].contains(&from) => 1,
            _ => return Err(Drop::WrongChannelEnd),
        };
        if ends.quotas[side].charge(bytes, now) { Ok(ends.places[1 - side]) } else { Err(Drop::RelayQuota) }
    }

    /// Open channels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether nothing is relayed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

#[derive(Debug)]
struct Open {
    /// The first one opened it.
    ends: [NodeId; 2],
    renewed: Instant,
}

/// What one node has here.
#[derive(Debug)]
struct Account {
    /// Channels that it opened itself: what others open to it is not its doing.
    opened: usize,
    /// Channels that it is an end of.
    ends: usize,
    quota: Arc<Quota>,
}

/// Which nodes share which channel.
#[derive(Debug)]
pub struct Channels {
    open: BTreeMap<Channel, Open>,
    accounts: BTreeMap<NodeId, Account>,
    rate: u64,
    /// Bytes charged to accounts that are closed.
    closed: u64,
}

impl Channels {
    /// None yet; every node may relay `rate` bytes a second.
    #[must_use]
    pub const fn new(rate: u64) -> Self {
        Self { open: BTreeMap::new(), accounts: BTreeMap::new(), rate, closed: 0 }
    }

    /// `by` wants `channel` with `with`; opens or renews it. Whether anything changed that the table must know.
    ///
    /// # Errors
    /// [`Refusal::Taken`] or [`Refusal::Quota`].
    pub fn open(
        &mut self,
        channel: Channel,
        by: NodeId,
        with: NodeId,
        now: Instant,
    ) -> Result<bool, Refusal> {
        if let Some(open) = self.open.get_mut(&channel) {
            let same = open.ends == [by, with] || open.ends == [with, by];
            if same {
                open.renewed = now;
            }
            return if same { Ok(false) } else { Err(Refusal::Taken) };
        }
        let opened = self.accounts.get(&by).map_or(0, |account| account.opened);
        if by == with || opened >= MAX_CHANNELS_PER_NODE || self.open.len() >= MAX_CHANNELS {
            return Err(Refusal::Quota);
        }
        for end in [by, with] {
            let new = || Account { opened: 0, ends: 0, quota: Arc::new(Quota::new(self.rate)) };
            let account = self.accounts.entry(end).or_insert_with(new);
            account.ends += 1;
            account.opened += usize::from(end == by);
        }
        self.open.insert(channel, Open { ends: [by, with], renewed: now });
        Ok(true)
    }

    /// The other end of a channel that `node` is an end of.
    #[must_use]
    pub fn other_end(&self, channel: Channel, node: NodeId) -> Option<NodeId> {
        match self.open.get(&channel)?.ends {
            [a, b] if a == node => Some(b),
            [a, b] if b == node => Some(a),
            _ => None,
        }
    }

    /// Whether any channel ends at `node`.
    #[must_use]
    pub fn serve(&self, node: &NodeId) -> bool {
        self.accounts.contains_key(node)
    }

    /// Close what nobody renewed; whether anything was closed.
    pub fn expire(&mut self, now: Instant) -> bool {
        let stale: Vec<Channel> = self
            .open
            .iter()
            .filter(|(_, open)| now.since(open.renewed) > CHANNEL_LIFE)
            .map(|(channel, _)| *channel)
            .collect();
        for channel in &stale {
            self.close(*channel);
        }
        !stale.is_empty()
    }

    fn close(&mut self, channel: Channel) {
        let Some(open) = self.open.remove(&channel) else { return };
        for end in open.ends {
            let Some(account) = self.accounts.get_mut(&end) else { continue };
            account.ends -= 1;
            account.opened -= usize::from(end == open.ends[0]);
            if account.ends == 0 {
                self.closed += account.quota.charged();
                self.accounts.remove(&end);
            }
        }
    }

    /// Bytes relayed so far, for everybody.
    #[must_use]
    pub fn charged(&self) -> u64 {
        self.closed + self.accounts.values().map(|account| account.quota.charged()).sum::<u64>()
    }

    /// Forwarding's view; `place` says where a node's tunnel with us is, if it has one.
    #[must_use]
    pub fn table(&self, place: impl Fn(&NodeId) -> Option<Endpoint>) -> RelayTable {
        self.table_of_ways(place, |_| Vec::new())
    }

    /// As [`Self::table`], with `others`, by which a node may send as well.
    #[must_use]
    pub fn table_of_ways(
        &self,
        place: impl Fn(&NodeId) -> Option<Endpoint>,
        others: impl Fn(&NodeId) -> Vec<Endpoint>,
    ) -> RelayTable {
        let ends = |open: &Open| {
            let quota = |node| self.accounts.get(node).map(|account| Arc::clone(&account.quota));
            Some(Ends {
                places: [place(&open.ends[0])?, place(&open.ends[1])?],
                others: [others(&open.ends[0]), others(&open.ends[1])],
                quotas: [quota(&open.ends[0])?, quota(&open.ends[1])?],
            })
        };
        let channels = self.open.iter().filter_map(|(channel, open)| Some((*channel, ends(open)?))).collect();
        RelayTable { channels: Arc::new(channels) }
    }
}

#[cfg(test)]
mod tests;
