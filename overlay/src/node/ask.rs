//! Packets and users that wait for an answer of the resolver.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Node;
use crate::id::{NodeId, Subject};
use crate::limits::{BACKLOGS, LOOKUPS};
use crate::packet::IpPacket;
use crate::resolver::{Found, Known};
use crate::verdict::Drop;

/// Other nodes that asked this super peer, by what they asked for.
#[derive(Debug, Default)]
pub(super) struct Askers {
    waiting: BTreeMap<Subject, Vec<(NodeId, u32)>>,
    /// Answers that each node still waits for.
    owed: BTreeMap<NodeId, usize>,
}

/// Askers per subject; the home asks once per node, and a flash crowd is a few dozen at a time.
const MAX_ASKERS: usize = 64;
/// Answers that one node may wait for: no node takes more than an eighth of the look-ups.
const MAX_OWED: usize = LOOKUPS / 8;

impl Askers {
    /// Whether `node` must wait for an answer before it asks again.
    pub(super) fn is_greedy(&self, node: &NodeId) -> bool {
        self.owed.get(node).is_some_and(|owed| *owed >= MAX_OWED)
    }

    pub(super) fn add(&mut self, subject: Subject, node: NodeId, id: u32) {
        if self.waiting.len() >= LOOKUPS && !self.waiting.contains_key(&subject) {
            return;
        }
        let askers = self.waiting.entry(subject).or_default();
        if askers.len() < MAX_ASKERS && !askers.contains(&(node, id)) {
            askers.push((node, id));
            *self.owed.entry(node).or_default() += 1;
        }
    }

    fn take(&mut self, subject: &Subject) -> Vec<(NodeId, u32)> {
        let askers = self.waiting.remove(subject).unwrap_or_default();
        for (node, _) in &askers {
            if let Some(owed) = self.owed.get_mut(node) {
                *owed -= 1;
            }
        }
        self.owed.retain(|_, owed| *owed > 0);
        askers
    }
}

impl Node {
    /// A packet from the TUN device for which there is no session.
    pub(super) fn route(&mut self, packet: Vec<u8>) {
        let Ok(parsed) = IpPacket::parse(&packet) else { return self.drop(Drop::Malformed) };
        let Some(subject) = self.subject_of(parsed.destination()) else { return self.drop(Drop::NoRoute) };
        match self.resolver.resolve(&subject, self.homes.askable(), self.now) {
            Known::Yes(node) => self.deliver(node, packet),
            Known::No => self.refuse(&packet, Drop::Unresolved),
            Known::Soon => {
                if self.waiting.len() >= BACKLOGS && !self.waiting.contains_key(&subject) {
                    return self.drop(Drop::BacklogFull);
                }
                if !self.waiting.entry(subject).or_default().push(packet) {
                    self.drop(Drop::BacklogFull);
                }
            }
        }
    }

    /// Whose address it would be; `None` outside the network, and for our own.
    pub(super) fn subject_of(&self, address: IpAddr) -> Option<Subject> {
        match address {
            IpAddr::V4(v4) => {
                let prefix = self.network.genesis.prefix4;
                let host = prefix.contains(v4) && v4 != prefix.network() && v4 != prefix.broadcast();
                (host && v4 != self.me.passport.address4).then_some(Subject::Address4(v4))
            }
            IpAddr::V6(v6) => {
                let ours = self.network.prefix6().contains(v6) && v6 != self.own6;
                ours.then_some(Subject::Address6(v6))
            }
        }
    }

    /// Send a packet to a node whose place is known, or let it wait for the session.
    fn deliver(&mut self, node: NodeId, packet: Vec<u8>) {
        if node == self.me.passport.node {
            return self.drop(Drop::NoRoute);
        }
        if self.peers.get(&node).is_some_and(|peer| peer.path().is_some() && peer.has_session()) {
            return self.forward_now(node, &packet);
        }
        if !self.peers.contains_key(&node)
            && let Some(place) = self.resolver.place(&node, self.now)
        {
            self.admit(place);
        }
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return self.drop(Drop::BacklogFull) };
        peer.awaken(now);
        if !peer.backlog.push(packet) {
            self.drop(Drop::BacklogFull);
        }
        self.connect(node);
    }

    /// A look-up is over: serve everybody who waited for it.
    pub(super) fn on_resolved(&mut self, subject: &Subject, found: Option<Found>) {
        let reachable = found.filter(|found| found.whereabouts.is_some()).map(|found| found.node);
        let packets = self.waiting.remove(subject).map(|mut backlog| backlog.drain().collect::<Vec<_>>());
        for packet in packets.unwrap_or_default() {
            match (reachable, found) {
                (Some(node), _) => self.deliver(node, packet),
                (None, Some(_)) => self.refuse(&packet, Drop::Unreachable),
                (None, None) => self.refuse(&packet, Drop::Unresolved),
            }
        }
        for (node, id) in self.askers.take(subject) {
            self.answer_lookup(node, id, subject);
        }
        self.on_request_resolved(subject, found);
        self.redial_after_lookup(subject, reachable);
    }

    /// A look-up that a dial wanted: of a home to knock at, or of the peer's new whereabouts.
    fn redial_after_lookup(&mut self, subject: &Subject, node: Option<NodeId>) {
        let Some(node) = node.filter(|_| matches!(subject, Subject::Node(_))) else { return };
        let wanted = |home: NodeId| {
            self.peers.values().any(|peer| {
                let homes = peer.place.as_ref().map(|place| place.whereabouts.homes.contains(&home));
                peer.dial.is_some() && homes == Some(true)
            })
        };
        if self.peers.get(&node).is_some_and(|peer| peer.dial.is_some()) {
            if let Some(place) = self.resolver.place(&node, self.now) {
                self.admit(place);
            }
            self.attempt(node);
        } else if wanted(node) {
            self.reach(node);
        }
    }
}
