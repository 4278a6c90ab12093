//! Crossings, carried out: who is asked where our port is seen, what the peers tell each other, and whom we connect to.
//!
//! Owns: how many cross at once, and whether a crossing is needed. What follows from what is [`crate::crossing`]'s; what
//! becomes of a stream that stands is [`super::stream`]'s.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Node, Output};
use crate::crossing::{Due, TRIES};
use crate::document::NatClass;
use crate::id::NodeId;
use crate::locator::StreamId;
use crate::peer::Peer;
use crate::stream::Across;
use crate::unproved::Trust;
use crate::wire::control::Message;

/// Peers with whom one crosses at once: each takes two connections to super peers for a few seconds.
const AT_ONCE: usize = 4;
/// Super peers that are asked where they see a port: two tell whether the NAT in front is symmetric.
const ASKED: usize = 2;
/// A round trip through a busy relay may have been measured longer than it is.
const MOST_AHEAD: Duration = Duration::from_millis(600);

impl Node {
    /// Whether a stream to a peer would do what datagrams can't: UDP does not pass here or there.
    pub(super) fn wants_stream(&self, node: NodeId) -> bool {
        let now = self.now.instant;
        let Some(peer) = self.peers.get(&node) else { return false };
        let says_so = peer.place.as_ref().is_some_and(|place| place.whereabouts.nat == NatClass::UdpBlocked);
        says_so || peer.crossing.was_called(now) || self.is_udp_blocked()
    }

    /// Whether a peer may be connected to at an address over TCP, by what was tried there in its name.
    pub(super) fn may_connect(&mut self, node: NodeId, at: SocketAddr) -> bool {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return false };
        let trust = if peer.sight.vouches(at.ip(), now) { Trust::Plausible } else { Trust::Word };
        // Login servers gave super peers their role.
        peer.is_super_peer() || peer.connected.admit(at, trust, now)
    }

    pub(super) fn on_crossing_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        let due = self.peer(node).and_then(|peer| peer.crossing.handle_timeout(now));
        self.cross(node, due.into_iter().collect());
    }

    fn cross(&mut self, node: NodeId, due: Vec<Due>) {
        for due in due {
            match due {
                Due::Begin => self.begin_crossing(node),
                Due::Tell { at, answer } => _ = self.send(node, &Message::Cross { at, answer }),
                Due::Connect { id, to, ahead } => self.connect_across(node, id, to, ahead),
                Due::GiveUp(id) => self.outputs.push_back(Output::CloseStream(id)),
            }
        }
    }

    fn begin_crossing(&mut self, node: NodeId) {
        let now = self.now.instant;
        let ask = self.who_sees_ports();
        let crossing = self.peers.values().filter(|peer| peer.crossing.id().is_some()).count();
        let is_needed = self.needs_crossing(node) && !ask.is_empty();
        let Some(peer) = self.peer(node) else { return };
        if !is_needed {
            peer.crossing.rest();
        } else if crossing >= AT_ONCE {
            peer.crossing.postpone(now);
        } else {
            let id = self.streams.next_id();
            if let Some(peer) = self.peer(node) {
                peer.crossing.begun(id, now);
            }
            self.outputs.push_back(Output::BeginCrossing { id, ask });
        }
    }

    /// Whether data flows through a relay, and a stream would help.
    fn needs_crossing(&self, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        let is_relayed = peer.path().is_some_and(|path| !path.is_direct());
        let serves = self.is_super_peer() || peer.is_super_peer();
        is_relayed && !serves && peer.is_active(self.now.instant) && self.wants_stream(node)
    }

    /// Where super peers take streams, one address each, our homes' first.
    fn who_sees_ports(&self) -> Vec<SocketAddr> {
        let me = self.me.passport.node;
        let homes: Vec<NodeId> = self.homes.ids().collect();
        let others = self.homes.known().map(|place| place.passport.node);
        let others = others.filter(|node| *node != me && !homes.contains(node));
        let mut hosts: Vec<IpAddr> = Vec::new();
        let mut ask = Vec::new();
        for node in homes.iter().copied().chain(others) {
            let at = self.trial_addresses(&node).into_iter().find(SocketAddr::is_ipv4);
            if let Some(at) = at.filter(|at| !hosts.contains(&at.ip())) {
                hosts.push(at.ip());
                ask.push(at);
            }
        }
        ask.truncate(ASKED);
        ask
    }

    /// Connect to where others see the peer's port, as often as that address may be tried.
    fn connect_across(&mut self, node: NodeId, id: StreamId, to: SocketAddr, ahead: bool) {
        let leads = self.me.passport.node > node;
        let allowed = (0..TRIES).take_while(|_| self.may_connect(node, to)).count();
        let tries = u8::try_from(allowed).unwrap_or(TRIES);
        if tries > 0 {
            let rtt = self.peers.get(&node).and_then(|peer| peer.paths.selected()?.rtt());
            let after = rtt.filter(|_| ahead).unwrap_or_default().min(MOST_AHEAD) / 2;
            let across = Across { to, leads, tries, after };
            return self.outputs.push_back(Output::Cross { id, across });
        }
        self.outputs.push_back(Output::CloseStream(id));
        let now = self.now.instant;
        if let Some(peer) = self.peer(node) {
            peer.crossing.failed(now);
        }
    }

    /// Whose crossing a port belongs to.
    pub(super) fn crossing_by(&self, id: StreamId) -> Option<NodeId> {
        self.peers.values().find(|peer| peer.crossing.id() == Some(id)).map(Peer::id)
    }

    /// Super peers have said where they see the port.
    pub(super) fn on_port_seen(&mut self, id: StreamId, at: &[SocketAddr]) {
        let now = self.now.instant;
        let Some(node) = self.crossing_by(id) else {
            return self.outputs.push_back(Output::CloseStream(id));
        };
        let due = self.peer(node).map(|peer| peer.crossing.seen(at, now)).unwrap_or_default();
        self.cross(node, due);
    }

    /// A peer says where others see its port.
    pub(super) fn on_called_across(&mut self, node: NodeId, at: SocketAddr, answer: bool) {
        let now = self.now.instant;
        let due = self.peer(node).map(|peer| peer.crossing.called(at, answer, now)).unwrap_or_default();
        self.cross(node, due);
        // It may be reachable without.
        if self.needs_crossing(node) {
            self.seek_stream(node);
        }
    }

    /// The way is open, or nobody looks for one: close what is under way.
    pub(super) fn stop_crossing(&mut self, node: NodeId, is_direct: bool) {
        let Some(peer) = self.peer(node) else { return };
        let left = if is_direct { peer.crossing.stop() } else { peer.crossing.rest() };
        self.outputs.extend(left.map(Output::CloseStream));
    }
}
