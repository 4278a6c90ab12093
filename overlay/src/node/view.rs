//! What a node has to say about itself.

use super::{Node, PathView, PeerView, Status, SuperPeerView};
use crate::id::NodeId;
use crate::locator::{Endpoint, Locator};
use crate::peer::Peer;
use crate::stream::Carrier;
use crate::timing::Now;
use std::sync::atomic::Ordering;

impl Node {
    /// Who and how this node is.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let rtt = |node: &NodeId| self.peers.get(node).and_then(|peer| peer.paths.selected()?.rtt());
        let blocked = self.is_udp_blocked().then_some(Carrier::Tcp);
        let carrier = |node: &NodeId| match self.peers.get(node).and_then(Peer::path) {
            Some(path) => self.streams.carrier(path.endpoint()),
            None => blocked,
        };
        let super_peers = self.homes.chosen().map(|(place, up)| SuperPeerView {
            name: place.passport.name.clone(),
            id: place.passport.node,
            rtt: rtt(&place.passport.node),
            carrier: carrier(&place.passport.node),
            home: up,
        });
        let ready = self.is_ready();
        Status {
            ready,
            degraded: !ready && self.homes.was_up(),
            passport: self.me.passport.clone(),
            addresses: self.me.passport.addresses(&self.network.id),
            nat: self.survey.class(),
            nat_classes: if self.is_super_peer() {
                self.resolver.nat_classes(now)
            } else {
                Default::default()
            },
            mapped: self.presence.mapped(),
            candidates: self.places_for_peers(),
            super_peers: super_peers.collect(),
            directory_server: self.presence.directory_server,
            directory_peers: self.presence.directory_peers,
            lease_published: self.presence.lease_published,
            whereabouts_published: self.presence.whereabouts_published,
            attention: self.attention(now),
        }
    }

    fn attention(&self, now: Now) -> Vec<(String, String)> {
        let mut attention = Vec::new();
        if !self.is_super_peer() && self.homes.up() == 0 {
            let names: Vec<String> = self.homes.known().map(|place| place.passport.name.clone()).collect();
            let what = format!("no super peer answers ({})", names.join(", "));
            let mend = "check this machine's network and its clock; then that one of them is up: frejus status there";
            attention.push((what, mend.to_owned()));
        }
        if self.is_super_peer() && !self.presence.is_open() {
            attention.push((
                "this super peer has no public address: nodes elsewhere cannot reach it".to_owned(),
                "frejus up --advertise ADDR:PORT, with the address that the others see".to_owned(),
            ));
        }
        let without_keys: Vec<&str> = self.without_keys().collect();
        if !without_keys.is_empty() {
            let what = format!("no transport keys could be agreed on with {}", without_keys.join(", "));
            let mend =
                "update frejus there, and allow transport keys there; or set transport = \"prefer\" here";
            attention.push((what, mend.to_owned()));
        }
        let left = self.me.passport.not_after.since(now.unix);
        if left < self.network.genesis.passport_life() / 6 {
            let what = format!("the passport ends in {} h and could not be renewed", left.as_secs() / 3600);
            attention.push((what, "see that a login server is up and reachable".to_owned()));
        }
        attention
    }

    /// Every peer with a tunnel.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        self.peers
            .values()
            .filter(|peer| peer.path().is_some())
            .map(|peer| self.peer_view(peer, now))
            .collect()
    }

    fn peer_view(&self, peer: &Peer, now: Now) -> PeerView {
        PeerView {
            passport: peer.member.passport.clone(),
            addresses: peer.member.passport.addresses(&self.network.id),
            path: self.path_view(peer.id(), now),
            handshake_age_s: peer.tunnel().session_age_s(),
            protection: peer.tunnel().protection(),
            rx_bytes: peer.counters.rx_bytes.load(Ordering::Relaxed),
            tx_bytes: peer.counters.tx_bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn path_view(&self, node: NodeId, now: Now) -> Option<PathView> {
        let path = self.peers.get(&node)?.paths.selected()?;
        let via = match path.locator {
            Locator::Direct(_) => None,
            Locator::Relayed { relay, .. } => self.name_at(relay),
        };
        Some(PathView {
            locator: path.locator,
            via,
            carrier: self.streams.carrier(path.locator.endpoint()),
            method: self.told_method(node, path.locator, path.method),
            rtt: path.rtt(),
            loss: path.loss(),
            mtu: path.mtu().bytes,
            age: now.instant.since(path.since),
        })
    }

    fn name_at(&self, relay: Endpoint) -> Option<String> {
        let node = self.by_remote.get(&relay)?;
        self.peers.get(node).map(|peer| peer.name().to_owned())
    }
}
