//! What the forwarding threads know: an immutable table, swapped whole by the control plane.
//!
//! Owns: [`Table`], [`Slot`], and the decisions about one packet that both planes must agree on. Never: a socket, a
//! device, an edit of what a thread may be reading. The two threads read a batch, ask here, seal or open, send; what they cannot decide
//! becomes an [`Exception`].

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::agreement::TRANSPORT;
use crate::locator::{Endpoint, Locator};
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
    /// A second path that carries the same while the first is in doubt.
    pub also: Option<Locator>,
    /// What the path takes; both of them, if there are two.
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

    const fn addresses(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.address4), IpAddr::V6(self.address6)]
    }
}

/// Chunk of a slot, and its place therein.
fn place(id: SlotId) -> (usize, usize) {
    (usize::from(id.0) / CHUNK, usize::from(id.0) % CHUNK)
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

/// Slots that are copied together when one of them changes: 16,384 peers make 256 such chunks, so that a change copies
/// a few hundred pointers at most.
const CHUNK: usize = 64;

/// Neighbouring slots.
type Chunk = [Option<Arc<Slot>>; CHUNK];

/// Everything the forwarding threads know. A clone shares all but what is changed in it afterwards.
#[derive(Clone)]
pub struct Table {
    /// Our own virtual addresses.
    pub own4: Ipv4Addr,
    /// See [`Self::own4`].
    pub own6: Ipv6Addr,
    chunks: Vec<Arc<Chunk>>,
    /// Hashed with a secret of its own: strangers can't choose IPv4 addresses, but members could try keys until the
    /// IPv6 addresses that follow from them collide. It is asked once a super-packet.
    by_address: Arc<HashMap<IpAddr, SlotId>>,
    /// Addresses that more than one slot claims, as while a lease changes hands; nearly always none.
    contested: BTreeSet<IpAddr>,
    /// Channels that we relay.
    pub relay: RelayTable,
    /// Where another super peer answers STUN at the same ports as this one.
    pub other_stun: Option<IpAddr>,
    /// Addresses of this machine at which strangers may ask for behaviour discovery (RFC 5780).
    pub own_stun: Vec<IpAddr>,
}

impl Table {
    /// Where else a client may ask that has asked at `local`, and whether that is an address of this machine.
    #[must_use]
    pub fn elsewhere(&self, local: Option<IpAddr>) -> (Option<IpAddr>, bool) {
        let Some(local) = local.map(|local| local.to_canonical()) else { return (self.other_stun, false) };
        let second = |ip: &&IpAddr| **ip != local && ip.is_ipv4() == local.is_ipv4();
        let second = self.own_stun.iter().find(second).filter(|_| self.own_stun.contains(&local));
        second.map_or((self.other_stun, false), |ip| (Some(*ip), true))
    }

    /// A table of these peers.
    #[must_use]
    pub fn new(
        own4: Ipv4Addr,
        own6: Ipv6Addr,
        peers: impl IntoIterator<Item = Slot>,
        relay: RelayTable,
    ) -> Self {
        let (chunks, by_address) = (Vec::new(), Arc::default());
        let (contested, own_stun) = (BTreeSet::new(), Vec::new());
        let mut table = Self { own4, own6, chunks, by_address, contested, relay, other_stun: None, own_stun };
        for slot in peers {
            table.set(slot);
        }
        table
    }

    /// Put a peer into its slot, in place of whoever held it.
    pub fn set(&mut self, slot: Slot) {
        let (chunk, at) = place(slot.id);
        let addresses = slot.addresses();
        let old = self.at(slot.id).map(Slot::addresses);
        while self.chunks.len() <= chunk {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        let id = slot.id;
        Arc::make_mut(&mut self.chunks[chunk])[at] = Some(Arc::new(slot));
        if old == Some(addresses) {
            return;
        }
        old.into_iter().flatten().for_each(|address| self.release(address, id));
        let by_address = Arc::make_mut(&mut self.by_address);
        for address in addresses {
            if by_address.insert(address, id).is_some_and(|holder| holder != id) {
                self.contested.insert(address);
            }
        }
    }

    /// Empty a slot.
    pub fn remove(&mut self, id: SlotId) {
        let Some(addresses) = self.at(id).map(Slot::addresses) else { return };
        let (chunk, at) = place(id);
        Arc::make_mut(&mut self.chunks[chunk])[at] = None;
        addresses.into_iter().for_each(|address| self.release(address, id));
    }

    /// `id` has given up `address`: if others claimed it too, one of them gets it.
    fn release(&mut self, address: IpAddr, id: SlotId) {
        if self.by_address.get(&address) != Some(&id) {
            return;
        }
        let heir = if self.contested.contains(&address) { self.owner(address) } else { None };
        let by_address = Arc::make_mut(&mut self.by_address);
        match heir {
            Some(heir) => by_address.insert(address, heir),
            None => {
                self.contested.remove(&address);
                by_address.remove(&address)
            }
        };
    }

    /// Some slot that owns `address`, found by looking at each.
    fn owner(&self, address: IpAddr) -> Option<SlotId> {
        let mut slots = self.chunks.iter().flat_map(|chunk| chunk.iter().flatten());
        slots.find(|slot| slot.owns(address)).map(|slot| slot.id)
    }

    fn at(&self, id: SlotId) -> Option<&Slot> {
        let (chunk, at) = place(id);
        self.chunks.get(chunk)?[at].as_deref()
    }

    /// The peer that a receiver index belongs to, whosever keys it names.
    #[must_use]
    pub fn by_receiver(&self, receiver: u32) -> Option<&Slot> {
        let index = (receiver & !TRANSPORT) >> 8;
        let at = index & ((1 << SLOT_BITS) - 1);
        self.at(SlotId(at as u16)).filter(|slot| slot.index == index)
    }

    /// Decide on a packet from the TUN device.
    #[must_use]
    pub fn outward(&self, source: IpAddr, destination: IpAddr) -> Outward<'_> {
        if source != IpAddr::V4(self.own4) && source != IpAddr::V6(self.own6) {
            return Outward::Drop(Drop::ForeignSource);
        }
        let slot = self.by_address.get(&destination).and_then(|id| self.at(*id));
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
        from: Endpoint,
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
