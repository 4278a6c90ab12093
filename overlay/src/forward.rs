//! What the forwarding threads know: an immutable table, swapped whole by the control plane.
//!
//! Owns: [`Table`], [`Slot`], and the decisions about one packet that both planes must agree on. Never: a socket, a
//! device, an edit in place. The two threads read a batch, ask here, seal or open, send; what they cannot decide
//! becomes an [`Exception`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::agreement::TRANSPORT;
use crate::locator::Locator;
use crate::path_mtu::Mtu;
use crate::relay::server::RelayTable;
use crate::tunnel::SharedTunnel;
use crate::verdict::Drop;

/// Place of a peer in the table; the lower bits of the tunnel's 24-bit index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u16);

/// Bits of a tunnel index that name the slot; the nine above change with every tunnel, so that a late packet for
/// the last holder of a slot finds nobody. The topmost says whose keys a message is sealed with
/// ([`crate::agreement::TRANSPORT`]).
pub const SLOT_BITS: u32 = 14;
/// Bits of a tunnel index that change with every tunnel.
pub const GENERATION_BITS: u32 = 23 - SLOT_BITS;

/// What the forwarding threads count for one peer, and two flags by which they wake control once.
#[derive(Debug, Default)]
pub struct SlotCounters {
    /// Inner bytes sent.
    pub tx_bytes: AtomicU64,
    /// Inner bytes received.
    pub rx_bytes: AtomicU64,
    /// Set when data leaves; cleared by control when the peer falls idle. The thread that sets it tells control.
    pub awake: AtomicBool,
    /// Set when something is received on a session not yet in use. The thread that sets it tells control.
    pub announced: AtomicBool,
}

/// One peer, as forwarding sees it.
#[derive(Clone)]
pub struct Slot {
    /// Its place.
    pub id: SlotId,
    /// The 24-bit index that its messages carry, the topmost bit clear.
    pub index: u32,
    /// Its keys.
    pub tunnel: SharedTunnel,
    /// The path in use; `None` while there is no session.
    pub path: Option<Locator>,
    /// What that path takes.
    pub mtu: Mtu,
    /// Its addresses: the only sources it may use.
    pub address4: Ipv4Addr,
    /// See [`Self::address4`].
    pub address6: Ipv6Addr,
    /// Shared with control.
    pub counters: Arc<SlotCounters>,
}

impl Slot {
    /// Whether the peer may send from `source`.
    #[must_use]
    pub fn owns(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(v4) => v4 == self.address4,
            IpAddr::V6(v6) => v6 == self.address6,
        }
    }
}

/// Where an inner packet that was opened belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inward {
    /// To the TUN device.
    Deliver,
    /// To the control plane: a message of the peer.
    Control,
    /// Nowhere.
    Drop(Drop),
}

/// Where a packet from the TUN device goes.
pub enum Outward<'a> {
    /// To this peer, along its path.
    Send(&'a Slot, Locator),
    /// To control: no peer yet, or no session.
    Ask,
    /// Nowhere.
    Drop(Drop),
}

/// Everything the forwarding threads know.
#[derive(Clone)]
pub struct Table {
    /// Our own virtual addresses.
    pub own4: Ipv4Addr,
    /// See [`Self::own4`].
    pub own6: Ipv6Addr,
    slots: Vec<Option<Arc<Slot>>>,
    by_address: HashMap<IpAddr, SlotId>,
    /// Channels that we relay.
    pub relay: RelayTable,
}

impl Table {
    /// A table of these peers.
    #[must_use]
    pub fn new(
        own4: Ipv4Addr,
        own6: Ipv6Addr,
        peers: impl IntoIterator<Item = Slot>,
        relay: RelayTable,
    ) -> Self {
        let mut table = Self { own4, own6, slots: Vec::new(), by_address: HashMap::new(), relay };
        for slot in peers {
            let at = usize::from(slot.id.0);
            if table.slots.len() <= at {
                table.slots.resize(at + 1, None);
            }
            table.by_address.insert(slot.address4.into(), slot.id);
            table.by_address.insert(slot.address6.into(), slot.id);
            table.slots[at] = Some(Arc::new(slot));
        }
        table
    }

    /// The peer that a receiver index belongs to, whosever keys it names.
    #[must_use]
    pub fn by_receiver(&self, receiver: u32) -> Option<&Slot> {
        let index = (receiver & !TRANSPORT) >> 8;
        let at = index & ((1 << SLOT_BITS) - 1);
        self.slots.get(at as usize)?.as_deref().filter(|slot| slot.index == index)
    }

    /// Decide on a packet from the TUN device.
    #[must_use]
    pub fn outward(&self, source: IpAddr, destination: IpAddr) -> Outward<'_> {
        if source != IpAddr::V4(self.own4) && source != IpAddr::V6(self.own6) {
            return Outward::Drop(Drop::ForeignSource);
        }
        let slot = self.by_address.get(&destination).and_then(|id| self.slots[usize::from(id.0)].as_deref());
        match slot.and_then(|slot| slot.path.map(|path| (slot, path))) {
            Some((slot, path)) => Outward::Send(slot, path),
            None => Outward::Ask,
        }
    }

    /// Decide on an inner packet that `slot`'s peer sent us.
    #[must_use]
    pub fn inward(&self, slot: &Slot, source: IpAddr, destination: IpAddr, is_control: bool) -> Inward {
        if !slot.owns(source) {
            return Inward::Drop(Drop::SpoofedSource);
        }
        if destination == IpAddr::V6(self.own6) && is_control {
            return Inward::Control;
        }
        if destination == IpAddr::V4(self.own4) || destination == IpAddr::V6(self.own6) {
            Inward::Deliver
        } else {
            Inward::Drop(Drop::ForeignDestination)
        }
    }
}

/// What a forwarding thread cannot finish and hands to the control plane, through a bounded queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exception {
    /// A packet from the TUN for which [`Table::outward`] said [`Outward::Ask`], or that found no session.
    Unroutable {
        /// The IP packet.
        packet: Vec<u8>,
    },
    /// A handshake, a knock, an enrolment, a hint: everything that is neither data nor STUN. Not yet
    /// authenticated; relay header removed.
    Datagram {
        /// How it came.
        from: Locator,
        /// The rest.
        bytes: Vec<u8>,
    },
    /// A control message, opened.
    Control {
        /// Whose.
        slot: SlotId,
        /// How it came.
        from: Locator,
        /// The inner IPv6/UDP packet.
        packet: Vec<u8>,
    },
    /// Authentic data came on a session that had no path yet: the session stands.
    Established {
        /// Whose.
        slot: SlotId,
        /// How it came.
        from: Locator,
    },
    /// Authentic data came from another place than the path in use. Told once a place.
    Strayed {
        /// Whose.
        slot: SlotId,
        /// How it came.
        from: Locator,
    },
    /// The first data after a silence went out.
    Woken {
        /// Whose.
        slot: SlotId,
    },
    /// A data message for a session that is not ours: its sender should be told, once a second at most.
    Stranger {
        /// Who sent it.
        from: SocketAddr,
    },
}

impl SlotCounters {
    /// Count data that left; whether control must be told ([`Exception::Woken`]).
    pub fn sent(&self, bytes: u64) -> bool {
        self.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
        !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::Relaxed)
    }

    /// Count data that arrived.
    pub fn received(&self, bytes: u64) {
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
