//! Transport keys with a peer: offers, answers, and packets that wait for them.
//!
//! Owns: what the node does about [`Agreement`](crate::agreement::exchange::Agreement). Never: when an offer is
//! repeated, or what is in it.

use super::Node;
use crate::agreement::exchange::{Due, Reply};
use crate::agreement::{Answer, Binding, Offer, Party};
use crate::id::NodeId;
use crate::locator::Locator;
use crate::peer::{Dial, Peer};
use crate::verdict::Drop;

impl Node {
    /// A session stands, or data flows in it: offer, if it is ours to. With a home nothing is exchanged but a few words of
    /// control, mostly: to agree on keys for each of its sessions, after the first, would cost more than all of them.
    pub(super) fn begin_agreement(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if peer.is_home && !peer.is_active(now) && peer.agreement.has_begun() {
            return;
        }
        let rtt = peer.paths.selected().and_then(crate::paths::Path::rtt);
        let tunnel = std::sync::Arc::clone(&peer.tunnel);
        if let Some(offer) = peer.agreement.begin(&*tunnel, rtt, now) {
            self.send(node, &offer);
        }
    }

    /// The peer offers. The answer goes back the way the offer came, which is known to carry messages of that size.
    pub(super) fn on_offer(&mut self, node: NodeId, from: Locator, offer: &Offer) {
        let now = self.now.instant;
        let us = self.party();
        let network = self.network.id;
        let Some(peer) = self.peer(node) else { return };
        let binding = Binding { network, offerer: peer.party(), answerer: us };
        let tunnel = std::sync::Arc::clone(&peer.tunnel);
        match peer.agreement.on_offer(&*tunnel, offer, &binding, now) {
            Reply::Answer(answer) => _ = self.send_along(node, from, &answer),
            Reply::Nothing => {}
            Reply::TooSoon => self.drop(Drop::RateLimited),
        }
    }

    /// The peer answered. A probe is the first that is sealed with the new keys, so that the peer switches at once.
    pub(super) fn on_agreed(&mut self, node: NodeId, answer: &Answer) {
        let now = self.now.instant;
        let us = self.party();
        let network = self.network.id;
        let Some(peer) = self.peer(node) else { return };
        let binding = Binding { network, offerer: us, answerer: peer.party() };
        let tunnel = std::sync::Arc::clone(&peer.tunnel);
        if !peer.agreement.on_answer(&*tunnel, answer, &binding, now) {
            return;
        }
        if let Some(path) = peer.path() {
            self.probe(node, path);
        }
        self.on_keys_ready(node);
    }

    /// Something came that may have been the proof that the peer has the keys: what waits for them may go.
    pub(super) fn on_keys_ready(&mut self, node: NodeId) {
        let Some(peer) = self.peer(node) else { return };
        if peer.tunnel().protection().is_none() {
            return;
        }
        peer.agreement.settle();
        if peer.path().is_some() {
            self.flush_backlog(node);
        }
    }

    /// A packet that may not go under WireGuard's keys.
    pub(super) fn wait_for_keys(&mut self, node: NodeId, packet: &[u8]) {
        let now = self.now.instant;
        self.begin_agreement_anyway(node);
        let Some(peer) = self.peer(node) else { return };
        if !peer.agreement.wait(now) {
            self.refuse(packet, Drop::NoTransportKeys);
        } else if !peer.backlog.push(packet.to_vec()) {
            self.drop(Drop::BacklogFull);
        }
    }

    /// Keys are needed at once. If it is the other side's to offer, and that did not, a session of our own makes it ours.
    fn begin_agreement_anyway(&mut self, node: NodeId) {
        let now = self.now.instant;
        // Only homes are kept without keys, so only a super peer can miss them.
        let serves = self.is_super_peer();
        let Some(peer) = self.peer(node) else { return };
        peer.awaken(now);
        let is_ours = peer.tunnel().initiated().is_some();
        if !is_ours && serves && !peer.agreement.is_waiting() && peer.dial.is_none() {
            peer.dial = Some(Dial::new(now));
            self.attempt(node);
        }
        self.begin_agreement(node);
    }

    pub(super) fn on_agreement_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        while let Some(due) = self.peer(node).and_then(|peer| peer.agreement.handle_timeout(now)) {
            match due {
                Due::Repeat(offer) => _ = self.send(node, &offer),
                Due::Impatient => self.refuse_backlog(node),
            }
        }
    }

    fn refuse_backlog(&mut self, node: NodeId) {
        let Some(peer) = self.peer(node).filter(|peer| peer.waits_for_keys()) else { return };
        let packets: Vec<_> = peer.backlog.drain().collect();
        for packet in packets {
            self.refuse(&packet, Drop::NoTransportKeys);
        }
    }

    /// Names of the peers that data must wait for keys to, in vain so far.
    pub(super) fn without_keys(&self) -> impl Iterator<Item = &str> {
        self.peers
            .values()
            .filter(|peer| peer.agreement.has_failed() && peer.waits_for_keys())
            .map(Peer::name)
    }

    fn party(&self) -> Party {
        Party { node: self.me.passport.node, key: self.crypto.public() }
    }
}

impl Peer {
    fn party(&self) -> Party {
        Party { node: self.id(), key: self.key }
    }
}
