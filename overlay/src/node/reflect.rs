//! Reflection: STUN answers that a super peer sends on a member's behalf to a mapping that has not seen their sender.
//!
//! Owns: who may have that, how often and whereto, and who of the super peers is the stranger. Never: an answer to an
//! address that is not the asker's own, as the tunnel shows it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::Rng;

use super::Node;
use crate::id::NodeId;
use crate::limits::MEMBERS;
use crate::locator::{DoorId, Endpoint, Locator, Via, is_public};
use crate::nat::discovery::Reflector;
use crate::stun::{self, Errand, Port, Transaction};
use crate::timing::Instant;
use crate::verdict::Drop;
use crate::wire::control::{Message, Reflected};

/// Reflections that a member gets in [`WINDOW`]: a survey takes some ten, of two packets each.
const FOR_MEMBER: u32 = 60;
/// Those that another super peer gets for its members: ten surveys at once.
const FOR_SUPER_PEER: u32 = 200;
const WINDOW: Duration = Duration::from_secs(10);
/// Reflections by others whose confirmation is awaited.
const PENDING: usize = 512;

/// What this super peer reflects, and for whom.
#[derive(Debug, Default)]
pub(super) struct Reflections {
    /// Whether a second port is open.
    pub(super) has_alternate: bool,
    /// Since when, and how many.
    counted: BTreeMap<NodeId, (Instant, u32)>,
    pending: VecDeque<(Transaction, NodeId)>,
}

impl Reflections {
    fn admit(&mut self, node: NodeId, most: u32, now: Instant) -> bool {
        if self.counted.len() >= MEMBERS {
            self.counted.retain(|_, (since, _)| now.since(*since) < WINDOW);
        }
        let (since, count) = self.counted.entry(node).or_insert((now, 0));
        if now.since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= most
    }
}

impl Node {
    /// Whether the machine has given this super peer a second STUN port, by the door [`DoorId::STUN`].
    pub const fn set_alternate_port(&mut self, open: bool) {
        self.reflections.has_alternate = open;
    }

    /// A member wants to know who can reach its mapping.
    pub(super) fn serve_reflect(
        &mut self,
        from: NodeId,
        transaction: Transaction,
        to: SocketAddr,
        avoid: &[NodeId],
    ) {
        let now = self.now.instant;
        let own = self.peers.get(&from).and_then(crate::peer::Peer::direct_remote).map(|own| own.at.ip());
        // Whoever comes by another address could be having somebody else's doors tried.
        if own.map(|ip| ip.to_canonical()) != Some(to.ip()) || to.port() == 0 || avoid.len() > MOST_AVOIDED {
            return self.drop(Drop::BadMessage);
        }
        if !self.reflections.admit(from, FOR_MEMBER, now) {
            return self.drop(Drop::RateLimited);
        }
        if self.reflections.has_alternate {
            self.reflect(Endpoint::by_door(DoorId::STUN, to), &Errand::plain(transaction));
        }
        let alternate =
            if self.reflections.has_alternate { Reflected::FromAlternate } else { Reflected::NoAlternate };
        self.send(from, &Message::Reflected { transaction, reflected: alternate });
        match self.stranger(to, avoid) {
            Some(stranger) => {
                if self.reflections.pending.len() >= PENDING {
                    self.reflections.pending.pop_front();
                }
                self.reflections.pending.push_back((transaction, from));
                self.send(stranger, &Message::ReflectFor { errand: Errand::plain(transaction), to });
            }
            None => {
                _ = self.send(from, &Message::Reflected { transaction, reflected: Reflected::NoStranger })
            }
        }
    }

    /// A stock client wants its answer from another address: the one that OTHER-ADDRESS has told it. Members get it: who sends
    /// from a member's address has proved that it receives there.
    pub(super) fn serve_change_of_address(&mut self, from: Endpoint, errand: Errand) {
        let now = self.now.instant;
        let is_there = |node: &NodeId| {
            let remote = self.peers.get(node).and_then(crate::peer::Peer::direct_remote);
            remote.is_some_and(|remote| remote.at.ip() == from.at.ip())
        };
        let member = self.by_remote.values().find(|node| is_there(node)).copied();
        let is_ours = from.is_main() || from.via == Via::Door(DoorId::STUN);
        let Some(member) = member.filter(|_| is_ours && self.is_super_peer()) else {
            return self.drop(Drop::UnknownFrame);
        };
        if !self.reflections.admit(member, FOR_MEMBER, now) {
            return self.drop(Drop::RateLimited);
        }
        if let Some((other, _)) = self.other_stun() {
            self.send(other, &Message::ReflectFor { errand, to: from.at });
        }
    }

    /// Another super peer at the same port as ours, for clients that want to be answered from elsewhere.
    pub(super) fn other_stun(&self) -> Option<(NodeId, IpAddr)> {
        let port = self.presence.local().first().map(SocketAddr::port).filter(|_| self.is_super_peer())?;
        let remotes =
            self.homes.ids().filter_map(|home| Some((home, self.peers.get(&home)?.direct_remote()?)));
        let mut same = remotes.filter(|(_, at)| at.is_main() && at.at.is_ipv4() && at.at.port() == port);
        same.next().map(|(home, at)| (home, at.at.ip()))
    }

    /// Where this super peer answers STUN itself: the second port is of IPv4 alone, and so is a second address.
    pub(super) fn own_stun(&self) -> Vec<IpAddr> {
        let mut own: Vec<IpAddr> = Vec::new();
        for ip in self.presence.told_to_strangers().filter(IpAddr::is_ipv4) {
            if self.is_super_peer() && !own.contains(&ip) {
                own.push(ip);
            }
        }
        own
    }

    /// A super peer at hand that the mapping has not seen, at another address than ours.
    fn stranger(&mut self, to: SocketAddr, avoid: &[NodeId]) -> Option<NodeId> {
        let fits = |node: &&NodeId| {
            let Some(peer) = self.peers.get(node) else { return false };
            let remote = peer.direct_remote();
            peer.is_super_peer()
                && peer.has_session()
                && !avoid.contains(node)
                && remote
                    .is_some_and(|remote| remote.at.is_ipv4() == to.is_ipv4() && remote.at.ip() != to.ip())
        };
        let strangers: Vec<NodeId> = self.peers.keys().filter(fits).copied().collect();
        let count = u32::try_from(strangers.len()).ok().filter(|count| *count > 0)?;
        strangers.get((self.rng.next_u32() % count) as usize).copied()
    }

    /// Another super peer asks us to be the stranger.
    pub(super) fn serve_reflect_for(&mut self, from: NodeId, errand: Errand, to: SocketAddr) {
        let now = self.now.instant;
        let asker = self.peers.get(&from);
        let near = asker.and_then(crate::peer::Peer::direct_remote).is_some_and(|at| !is_public(at.at.ip()));
        if !asker.is_some_and(crate::peer::Peer::is_super_peer)
            || to.port() == 0
            || !(is_public(to.ip()) || near && is_private(to))
        {
            return self.drop(Drop::BadMessage);
        }
        if !self.reflections.admit(from, FOR_SUPER_PEER, now) {
            return self.drop(Drop::RateLimited);
        }
        // A service's port is not the client's.
        if errand.wanted.is_some_and(|port| port < stun::FIRST_CLIENT) {
            return self.drop(Drop::BadMessage);
        }
        let by = match errand.from {
            Port::Main => Endpoint::main(to),
            // From the other port it would tell the client that its NAT lets strangers in.
            Port::Alternate if !self.reflections.has_alternate => return,
            Port::Alternate => Endpoint::by_door(DoorId::STUN, to),
        };
        self.reflect(by, &errand);
        let transaction = errand.transaction;
        self.send(from, &Message::Reflected { transaction, reflected: Reflected::ByStranger });
    }

    fn reflect(&mut self, seen: Endpoint, errand: &Errand) {
        let at = SocketAddr::new(seen.at.ip(), errand.wanted.unwrap_or(seen.at.port()));
        self.transmit(Locator::Direct(Endpoint { at, ..seen }), &errand.answer(seen.at));
    }

    /// What became of a reflection: ours, or a member's.
    pub(super) fn on_reflection_confirmed(
        &mut self,
        by: NodeId,
        transaction: Transaction,
        reflected: Reflected,
    ) {
        let pending = &mut self.reflections.pending;
        let Some(at) = pending.iter().position(|(of, _)| *of == transaction) else {
            return self.on_reflected(by, transaction, reflected);
        };
        if reflected == Reflected::ByStranger
            && let Some((_, member)) = pending.remove(at)
        {
            self.send(member, &Message::Reflected { transaction, reflected });
        }
    }
}

/// Super peers that a survey may have spoken to: one anchor after the other.
const MOST_AVOIDED: usize = 4;

fn is_private(to: SocketAddr) -> bool {
    let ip = to.ip();
    !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
}

impl From<Reflected> for Result<Reflector, Reflector> {
    fn from(reflected: Reflected) -> Self {
        match reflected {
            Reflected::FromAlternate => Ok(Reflector::Alternate),
            Reflected::ByStranger => Ok(Reflector::Stranger),
            Reflected::NoAlternate => Err(Reflector::Alternate),
            Reflected::NoStranger => Err(Reflector::Stranger),
        }
    }
}
