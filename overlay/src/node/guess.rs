//! Guessing, carried out: doors, questions to super peers, and what the two sides tell each other about it.

use std::net::{IpAddr, SocketAddr};

use rand_core::Rng;

use super::{Method, Node, Output};
use crate::document::CandidateKind;
use crate::guess::{Due, Ports, Window};
use crate::id::NodeId;
use crate::locator::{Channel, DoorId, Endpoint, Locator, Via, is_public};
use crate::paths::Path;
use crate::peer::Peer;
use crate::verdict::Drop;
use crate::wire::control::Message;

/// Places of a peer that are probed for a prediction: one for each of its homes.
const PLACES: usize = 2;

impl Node {
    /// How the NAT in front of us chooses ports.
    pub(super) fn own_ports(&self) -> Ports {
        self.survey.ports()
    }

    /// Traffic flows through a relay: guess, if punching can't help.
    pub(super) fn start_guessing(&mut self, node: NodeId) {
        let now = self.now.instant;
        let (ours, leads) = (self.own_ports(), self.me.passport.node < node);
        let Some(peer) = self.peer(node) else { return };
        if peer.is_active(now) && !peer.is_super_peer() && peer.path().is_some_and(|path| !path.is_direct()) {
            peer.guess.start(ours, leads, now);
            self.ask_sight(node);
        }
    }

    /// Ask the super peer through which a peer is reached where it sees that.
    fn ask_sight(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peers.get(&node).filter(|peer| peer.sight.is_due(now)) else { return };
        let Some(Locator::Relayed { relay, channel }) = peer.path() else { return };
        let Some(relay) = self.by_remote.get(&relay).copied() else { return };
        if let Some(peer) = self.peer(node) {
            peer.sight.ask(relay, channel, now);
        }
        self.send(relay, &Message::Sight { channel });
    }

    /// A super peer says where it sees the other end of a channel.
    pub(super) fn on_sighted(&mut self, from: NodeId, channel: Channel, at: Option<IpAddr>) {
        let now = self.now.instant;
        let node = self.peers.values().find(|peer| peer.sight.awaits(&from, channel)).map(Peer::id);
        match node.and_then(|node| self.peer(node)) {
            Some(peer) => peer.sight.learn(from, at, now),
            None => self.drop(Drop::BadMessage),
        }
    }

    /// There is a direct path, or nobody needs one.
    pub(super) fn stop_guessing(&mut self, node: NodeId) {
        if let Some(peer) = self.peer(node) {
            peer.guess.stop();
        }
        self.close_idle_doors(node);
    }

    pub(super) fn on_guess_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let due = peer.guess.handle_timeout(now);
        self.guess(node, due);
        self.close_idle_doors(node);
    }

    fn guess(&mut self, node: NodeId, due: Vec<Due>) {
        for due in due {
            match due {
                Due::Open => self.open_to_guess(node),
                Due::Ask(door, which) => self.ask_where(node, door, which),
                Due::ProbeKnown(door) => self.probe_known(node, door),
                Due::Probe(door, at) => {
                    let via = door.map_or(Via::Main, Via::Door);
                    let method = self.guessing_method(node);
                    self.try_at(node, Endpoint { via, at }, method);
                }
                Due::ProbeNear(door, at, hops) => self.probe_near(node, Endpoint::by_door(door, at), hops),
                Due::Announce(window) => _ = self.send(node, &Message::Predicted(window)),
                Due::Offer => self.offer(node),
                Due::Finish => {}
            }
        }
    }

    fn open_to_guess(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(door) = self.open_door() else { return };
        let due = self.peer(node).map(|peer| peer.guess.opened(door, now)).unwrap_or_default();
        self.guess(node, due);
        self.close_idle_doors(node);
    }

    /// Probe the places where others see the peer.
    fn probe_known(&mut self, node: NodeId, door: DoorId) {
        let (now, method) = (self.now.instant, self.guessing_method(node));
        let Some(peer) = self.peer(node) else { return };
        let seen = |at: &SocketAddr| at.is_ipv4() && peer.sight.vouches(at.ip(), now);
        let places: Vec<_> = peer.punch.outer().filter(seen).take(PLACES).collect();
        for at in places {
            self.try_at(node, Endpoint::by_door(door, at), method);
        }
    }

    /// Probe a place that hears nothing of it.
    fn probe_near(&mut self, node: NodeId, at: Endpoint, limit: u8) {
        let (queued, method) = (self.outputs.len(), self.guessing_method(node));
        self.try_at(node, at, method);
        for output in self.outputs.iter_mut().skip(queued) {
            if let Output::Transmit { to, bytes } = output {
                let (to, bytes) = (*to, std::mem::take(bytes));
                *output = Output::TransmitNear { to, bytes, hops: limit };
            }
        }
    }

    fn guessing_method(&self, node: NodeId) -> Method {
        self.peers.get(&node).map_or(Method::Predicted, |peer| peer.guess.finds_by())
    }

    /// One birthday guess at a time: it takes most of the doors, and many mappings of the router.
    fn is_guessing(&self) -> bool {
        self.peers.values().any(|peer| peer.guess.is_scattered())
    }

    fn offer(&mut self, node: NodeId) {
        let now = self.now.instant;
        if !self.is_guessing()
            && let Some(ip) = self.outer_address()
            && let Some(peer) = self.peer(node)
        {
            peer.guess.offer_sent(now);
            self.send(node, &Message::GuessOffer { ip });
        }
    }

    /// Our IPv4 address as others see it.
    fn outer_address(&self) -> Option<IpAddr> {
        let candidates = self.presence.candidates();
        let mut seen = candidates.iter().filter(|c| c.kind == CandidateKind::Reflexive).map(|c| c.at.ip());
        seen.find(|ip| ip.is_ipv4() && is_public(*ip))
    }

    /// The peer says which ports are its own.
    pub(super) fn on_predicted(&mut self, node: NodeId, window: &Window) {
        let now = self.now.instant;
        self.start_guessing(node);
        if !self.is_its_address(node, window.ip) {
            return self.drop(Drop::BadMessage);
        }
        let due = self.peer(node).map(|peer| peer.guess.announced(window, now)).unwrap_or_default();
        self.guess(node, due);
    }

    /// The peer would open many sockets for us to guess at.
    pub(super) fn on_guess_offer(&mut self, node: NodeId, ip: IpAddr) {
        let now = self.now.instant;
        self.start_guessing(node);
        if self.is_guessing() {
            return;
        }
        if !self.is_its_address(node, ip) {
            return self.drop(Drop::BadMessage);
        }
        let seed = self.rng.next_u64();
        if self.peer(node).is_some_and(|peer| peer.guess.offered(ip, seed, now)) {
            self.send(node, &Message::GuessAgreed);
        }
    }

    /// The peer guesses: open the sockets.
    pub(super) fn on_guess_agreed(&mut self, node: NodeId) {
        let now = self.now.instant;
        if self.is_guessing() {
            return;
        }
        if let Some(peer) = self.peer(node) {
            peer.guess.agreed(now);
        }
    }

    /// Whether an address is the one at which a super peer sees the peer, too.
    fn is_its_address(&self, node: NodeId, ip: IpAddr) -> bool {
        let now = self.now.instant;
        ip.is_ipv4() && self.peers.get(&node).is_some_and(|peer| peer.sight.vouches(ip, now))
    }

    /// A super peer says where it sees a door.
    pub(super) fn on_seen_at_door(&mut self, answer: &crate::stun::Answer) {
        let now = self.now.instant;
        let Some((node, door, which)) = self.answered_where(answer) else { return };
        let due = self.peer(node).map(|peer| {
            peer.guess.measured(peer.paths.selected().and_then(Path::rtt).unwrap_or_default());
            peer.guess.seen(door, which, answer.mapped, now)
        });
        self.guess(node, due.unwrap_or_default());
    }

    /// Close the doors of a search that neither it nor a path needs.
    pub(super) fn close_idle_doors(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let paths = &peer.paths;
        let used = |door| {
            let by = |locator: Locator| locator.endpoint().via == Via::Door(door);
            paths.iter().any(|path| by(path.locator))
        };
        let idle = peer.guess.leave(used);
        for door in idle {
            self.close_door(door);
        }
    }
}
