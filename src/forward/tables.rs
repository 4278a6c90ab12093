//! The table as the threads see it, and what they remember of what they have told.
//!
//! Owns: [`Published`], [`Told`], [`Talkers`], [`Strangers`]. Never: an edit in place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use frejus_overlay::forward::{SLOT_BITS, Slot, Table};
use frejus_overlay::locator::Locator;
use frejus_overlay::timing::Instant;

use crate::limiter::{Bucket, Limiter, Rate};

/// The current table. Control swaps it whole; a thread holds a snapshot for one batch.
pub struct Published(ArcSwap<Table>);

impl Published {
    /// Begins with `table`.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self(ArcSwap::new(table))
    }

    /// What batches go by from now on.
    pub fn publish(&self, table: Arc<Table>) {
        self.0.store(table);
    }

    pub(super) fn snapshot(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }
}

/// For each peer the last place off its path that control was told of, and when, so that it hears of a place once a
/// second at most.
#[derive(Default)]
pub(super) struct Told(HashMap<u32, (Locator, Instant)>);

impl Told {
    /// Whether control has yet to hear that `slot`'s peer is at `from`.
    pub(super) fn is_news(&self, slot: &Slot, from: Locator, now: Instant) -> bool {
        let told = |(place, at): &(Locator, Instant)| *place == from && now.since(*at) < TELL_AGAIN;
        !self.0.get(&slot.index).is_some_and(told)
    }

    /// Control knows. As many peers are remembered as there are slots.
    pub(super) fn remember(&mut self, slot: &Slot, from: Locator, now: Instant) {
        if self.0.len() >= 1 << SLOT_BITS && !self.0.contains_key(&slot.index) {
            self.0.clear();
        }
        self.0.insert(slot.index, (from, now));
    }
}

/// How much each peer lately told control. A member of the network may be hostile too, and must not keep the others'
/// words out of the queue.
#[derive(Default)]
pub(super) struct Talkers(HashMap<u32, Bucket>);

impl Talkers {
    /// Whether control listens to one more message of `slot`'s peer.
    pub(super) fn admit(&mut self, slot: &Slot, now: Instant) -> bool {
        if self.0.len() >= 1 << SLOT_BITS && !self.0.contains_key(&slot.index) {
            self.0.clear();
        }
        self.0.entry(slot.index).or_default().take(TALK, now)
    }
}

/// Control messages of one peer: a client that asks its super peer for everything sends some tens a second, and a
/// publication, the dearest, costs 0.2 ms, so that one peer takes 4 % of a core.
const TALK: Rate = Rate { per_second: 200, burst: 400 };
/// A peer that goes on sending from a place off its path is told of again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Places remembered; two that fall together may both be told more than once a second.
const STRANGERS: usize = 256;
/// A stranger is told so once in this time.
const STRANGER_EVERY: Duration = Duration::from_secs(1);

/// Who was lately told that we don't know their session.
pub(super) struct Strangers {
    /// Sources are easily forged, and each would get an answer and a place in the queue.
    limiter: Limiter,
    hash: RandomState,
    lately: Box<[Option<(SocketAddr, Instant)>]>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { limiter: Limiter::default(), hash: RandomState::new(), lately: vec![None; STRANGERS].into() }
    }
}

impl Strangers {
    /// Whether `from` may be told; if so, not again for a second.
    pub(super) fn admit(&mut self, from: SocketAddr, now: Instant) -> bool {
        let place = self.hash.hash_one(from) as usize % STRANGERS;
        let fresh = |(who, when): (SocketAddr, Instant)| who == from && now.since(when) < STRANGER_EVERY;
        if self.lately[place].is_some_and(fresh) || !self.limiter.admit(from.ip(), now) {
            return false;
        }
        self.lately[place] = Some((from, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_stranger_is_told_once_a_second() {
        let mut strangers = Strangers::default();
        let from = "192.0.2.1:7".parse().unwrap();
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let told: Vec<_> = (0..30).filter(|n| strangers.admit(from, at(n * 100))).collect();
        assert_eq!(told, [0, 10, 20]);
        assert!(strangers.admit("192.0.2.1:8".parse().unwrap(), at(2950)));
    }

    #[test]
    fn a_crowd_of_strangers_is_told_no_more_than_control_can_take() {
        let mut strangers = Strangers::default();
        let crowd = (0..20_000_u32).map(|n| SocketAddr::from((Ipv4Addr::from(n << 8), 7)));
        let told = crowd.filter(|from| strangers.admit(*from, Instant::ZERO)).count();
        assert_eq!(told, 2000, "one second's budget for all");
    }
}
