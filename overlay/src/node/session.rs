//! A session that stands: control messages, probes, and what they bring.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use rand_core::Rng;

use super::{Method, Node};
use crate::document::{Candidate, Roles};
use crate::forward::SlotId;
use crate::guess::Ports;
use crate::id::NodeId;
use crate::locator::{Endpoint, Locator, Via};
use crate::nat::observers::Observation;
use crate::packet::udp6::Udp6;
use crate::path_mtu::BASE;
use crate::paths::RELAYS;
use crate::peer::Peer;
use crate::punch::Trust;
use crate::tunnel::{Content, seal_one_as};
use crate::verdict::Drop;
use crate::wire::control::{self, Message};
use crate::wire::part::{self, Part};

/// IPv6 (40) and UDP (8) headers.
pub(super) const HEADERS: usize = 48;

/// The way that something is sent, and perhaps a second one.
pub(super) type Ways = (Locator, Option<Locator>);

impl Node {
    /// Send a control message along the path in use, and a second one if that is in doubt; `false` if there is no session.
    pub(super) fn send(&mut self, to: NodeId, message: &Message) -> bool {
        let path = self.peers.get(&to).and_then(Peer::path);
        path.is_some_and(|path| self.send_twice(to, path, true, message))
    }

    /// Send a control message a certain way.
    pub(super) fn send_along(&mut self, to: NodeId, way: Locator, message: &Message) -> bool {
        self.send_twice(to, way, false, message)
    }

    /// `also`: the same bytes on the second path, too, if there is one.
    fn send_twice(&mut self, to: NodeId, way: Locator, also: bool, message: &Message) -> bool {
        let also = also.then(|| self.second_way(to)).flatten();
        let payload = message.encode();
        debug_assert!(payload.len() <= control::MAX, "{message:?} is too long");
        let mtu =
            self.peers.get(&to).and_then(|peer| peer.paths.find(way)).map_or(BASE, |path| path.mtu().bytes);
        let room = usize::from(mtu).saturating_sub(HEADERS);
        let content = match message {
            Message::Offer(_) | Message::Answer(_) => Content::Agreement,
            _ => Content::Control,
        };
        if payload.len() <= room {
            return self.send_payload(to, (way, also), content, &payload);
        }
        let parts = part::split(&payload, room, self.rng.next_u32() as u16);
        !parts.is_empty() && parts.into_iter().all(|part| self.send_payload(to, (way, also), content, &part))
    }

    /// The path that carries the same as the one in use, if any does.
    fn second_way(&self, to: NodeId) -> Option<Locator> {
        self.peers.get(&to)?.paths.also(self.now.instant).map(|path| path.locator)
    }

    /// Send the payload of one control packet a certain way, or two.
    pub(super) fn send_payload(&mut self, to: NodeId, ways: Ways, content: Content, payload: &[u8]) -> bool {
        let datagram = Udp6 {
            source: self.own6,
            destination: to.address6(&self.network.id),
            source_port: control::PORT,
            destination_port: control::PORT,
            payload,
        };
        let mut packet = vec![0; HEADERS + payload.len()];
        let Some(length) = datagram.write(&mut packet) else { return false };
        self.seal_along(to, ways, content, &packet[..length])
    }

    /// Seal an inner packet and send it a certain way, or two.
    fn seal_along(&mut self, to: NodeId, (way, also): Ways, content: Content, packet: &[u8]) -> bool {
        let Some(peer) = self.peers.get(&to) else { return false };
        let Some(sealed) = seal_one_as(peer.tunnel(), content, packet) else { return false };
        self.transmit(way, &sealed);
        if let Some(also) = also {
            self.transmit(also, &sealed);
        }
        true
    }

    /// The session stands: something authentic came this way.
    pub(super) fn on_established(&mut self, node: NodeId, from: Locator) {
        let now = self.now.instant;
        let method = self.method(node, from);
        self.on_stream_used(node, from);
        let Some(peer) = self.peer(node) else { return };
        peer.hear(now);
        peer.dial = None;
        peer.counters.announced.store(false, Ordering::Relaxed);
        let first = peer.path().is_none();
        let was_doubted = std::mem::take(&mut peer.is_doubted);
        peer.paths.confirm(from, method, now);
        self.channels_changed |= self.channels.serve(&node);
        let Some(peer) = self.peer(node) else { return };
        let candidates = peer.place.as_ref().map(|place| place.whereabouts.candidates.clone());
        peer.punch.learn(&candidates.unwrap_or_default());
        if peer.backlog.len() > 0 {
            peer.awaken(now);
        }
        self.reselect(node);
        self.begin_agreement(node);
        self.flush_backlog(node);
        if first {
            self.probe(node, from);
            self.flush_pings(node);
            self.on_session(node);
        } else if was_doubted {
            self.on_session_again(node);
        }
    }

    /// Send what waited for the session, and for keys if they are insisted on.
    pub(super) fn flush_backlog(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let packets: Vec<_> = peer.backlog.drain().collect();
        if !packets.is_empty() {
            peer.awaken(now);
        }
        for packet in packets {
            self.forward_now(node, &packet);
        }
    }

    /// Send a data packet along the path in use.
    pub(super) fn forward_now(&mut self, node: NodeId, packet: &[u8]) {
        if self.peers.get(&node).is_some_and(Peer::waits_for_keys) {
            return self.wait_for_keys(node, packet);
        }
        let path = self.peers.get(&node).and_then(Peer::path);
        let also = self.second_way(node);
        if path.is_some_and(|path| self.seal_along(node, (path, also), Content::Data, packet)) {
            self.counters.packets_out.fetch_add(1, Ordering::Relaxed);
            let now = self.now.instant;
            if let Some(peer) = self.peer(node) {
                // Forwarding will not tell of this first packet after a silence, since control sent it.
                peer.counters.sent(packet.len() as u64);
                peer.awaken(now);
            }
        } else {
            self.drop(Drop::Unreachable);
        }
    }

    /// Send a probe on a path that has proved itself; the token. On one that we have left it says so.
    pub(super) fn probe(&mut self, node: NodeId, way: Locator) -> u64 {
        let token = self.rng.next_u64();
        let moved = self.peers.get(&node).is_some_and(|peer| peer.has_moved_from(way));
        let message = if moved { Message::Moved { token } } else { Message::Probe { token } };
        self.send_along(node, way, &message);
        let now = self.now.instant;
        if let Some(peer) = self.peer(node) {
            peer.paths.sent(way, token, now);
        }
        token
    }

    /// A control message.
    pub(super) fn on_control(&mut self, slot: SlotId, from: Locator, packet: &[u8]) {
        let Some(node) = self.by_slot(slot) else { return };
        let udp = Udp6::parse(packet)
            .filter(|udp| udp.source == node.address6(&self.network.id) && udp.destination == self.own6);
        let Some(udp) = udp else { return self.drop(Drop::BadMessage) };
        let now = self.now.instant;
        self.on_stream_used(node, from);
        let Some(peer) = self.peer(node) else { return };
        peer.hear(now);
        self.on_keys_ready(node);
        let Some(peer) = self.peer(node) else { return };
        let message = match Part::decode(udp.payload) {
            None => Message::decode(udp.payload),
            Some(part) => match peer.assembly.add(&part) {
                None => return,
                Some(whole) => Message::decode(&whole),
            },
        };
        let Some(message) = message else { return self.drop(Drop::BadMessage) };
        match message {
            Message::Probe { token } => self.on_probe(node, from, token),
            Message::Moved { token } => self.on_peer_moved(node, from, token),
            Message::Echo { token } => self.on_echo(node, token),
            Message::EchoReply { token } => self.on_echo_reply(node, token),
            Message::ProbeAck { token, seen } => self.on_probe_ack(node, from, token, seen),
            Message::Candidates { candidates, answer, ports } => {
                self.on_candidates(node, &candidates, answer, ports);
            }
            Message::Predicted(window) => self.on_predicted(node, &window),
            Message::GuessOffer { ip } => self.on_guess_offer(node, ip),
            Message::GuessAgreed => self.on_guess_agreed(node),
            Message::Examine { id } => self.on_examine(node, id),
            Message::Examined { id, side } => self.on_examined(node, id, side),
            Message::Cross { at, answer } => self.on_called_across(node, at, answer),
            Message::Bye => self.on_bye(node),
            Message::Offer(offer) => self.on_offer(node, from, &offer),
            Message::Answer(answer) => self.on_agreed(node, &answer),
            other => self.on_service_message(node, other),
        }
    }

    fn on_probe(&mut self, node: NodeId, from: Locator, token: u64) {
        let seen = from.is_direct().then(|| from.remote());
        if let (Some(at), Some(peer)) = (seen, self.peers.get_mut(&node)) {
            peer.punch.heard(at);
        }
        self.send_along(node, from, &Message::ProbeAck { token, seen });
        let now = self.now.instant;
        let Locator::Direct(at) = from else { return };
        let method = self.method_at(node, from);
        let Some(peer) = self.peer(node) else { return };
        if peer.paths.find(from).is_none() {
            if at.is_main() {
                peer.punch.saw(at.at, method);
            }
            return self.try_back(node, at, method);
        }
        peer.paths.came(from, now);
        self.reselect(node);
    }

    /// The peer has another address: what we know of it may lead nowhere, or to somebody else.
    fn on_peer_moved(&mut self, node: NodeId, from: Locator, token: u64) {
        let now = self.now.instant;
        if let Some(peer) = self.peer(node) {
            peer.on_peer_moved(from, now);
        }
        self.on_probe(node, from, token);
        self.on_paths_timeout(node);
    }

    /// Probe a place that has not answered yet, unless it has got enough of that.
    pub(super) fn try_at(&mut self, node: NodeId, at: Endpoint, method: Method) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let trust = if peer.sight.vouches(at.at.ip(), now) { Trust::Plausible } else { Trust::Word };
        self.try_trusting(node, at, method, trust);
    }

    /// As [`Self::try_at`], where the peer was heard from: as many as came.
    fn try_back(&mut self, node: NodeId, at: Endpoint, method: Method) {
        self.try_trusting(node, at, method, Trust::Plausible);
    }

    fn try_trusting(&mut self, node: NodeId, at: Endpoint, method: Method, trust: Trust) {
        let now = self.now.instant;
        // Both have agreed on a guess and on its bounds; a connection has been accepted.
        let is_settled = method == Method::Guessed || matches!(at.via, Via::Stream(_));
        let Some(peer) = self.peer(node) else { return };
        if is_settled || peer.punch.admit(at.at, trust, now) {
            self.try_at_once(node, at, method);
        }
    }

    fn try_at_once(&mut self, node: NodeId, at: Endpoint, method: Method) {
        let token = self.rng.next_u64();
        self.send_along(node, Locator::Direct(at), &Message::Probe { token });
        let now = self.now.instant;
        if let Some(peer) = self.peer(node) {
            peer.punch.sent(token, at, method, now);
        }
    }

    fn on_probe_ack(&mut self, node: NodeId, from: Locator, token: u64, seen: Option<SocketAddr>) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let is_super_peer = peer.member.passport.roles.includes(Roles::SUPER_PEER);
        if let Some(seen) = seen.filter(|_| is_super_peer && from.endpoint().is_main()) {
            let observer = from.remote().ip();
            // A router has forgotten us, or is another one.
            if self.presence.observe(node, Observation { observer, seen }, now) {
                self.survey_anew();
            }
        }
        let Some(peer) = self.peer(node) else { return };
        if peer.paths.passed(token, now) {
            return;
        }
        if peer.paths.answered(token, now).is_some() {
            // What it says of the path is known.
        } else if let Some((at, method, rtt)) = peer.punch.answered(token, now) {
            let path = Locator::Direct(at);
            let method = self.settle_method(node, path, method);
            let Some(peer) = self.peer(node) else { return };
            if matches!(at.via, Via::Stream(_)) {
                peer.connected.proved(at.at.ip());
            }
            peer.paths.confirm(path, method, now);
            peer.paths.measured(path, rtt);
            // It may relay by this way before we use it ourselves.
            self.channels_changed |= self.channels.serve(&node);
            let Some(peer) = self.peer(node) else { return };
            peer.paths.came(path, now);
        } else if let Some((way, rtt)) = peer.standby.answered(token, now) {
            peer.paths.confirm(way, Method::Relayed, now);
            peer.paths.measured(way, rtt);
        } else {
            return;
        }
        self.reselect(node);
    }

    fn on_candidates(&mut self, node: NodeId, candidates: &[Candidate], answer: bool, ports: Ports) {
        let now = self.now.instant;
        let candidates = self.worth_trying(node, candidates);
        let Some(peer) = self.peer(node) else { return };
        peer.punch.forget_targets();
        peer.punch.learn(&candidates);
        peer.guess.learn(ports);
        if !peer.is_well_connected(now) {
            peer.punch.join(now);
        }
        if answer {
            self.tell_candidates(node, false);
        }
        self.start_guessing(node);
    }

    /// Tell a peer where to try us, and how our NAT chooses ports.
    pub(super) fn tell_candidates(&mut self, node: NodeId, answer: bool) {
        let (candidates, ports) = (self.places_for_peers(), self.own_ports());
        self.send(node, &Message::Candidates { candidates, answer, ports });
    }

    fn on_bye(&mut self, node: NodeId) {
        self.resolver.forget_place(&node);
        let Some(peer) = self.peer(node) else { return };
        if peer.is_home {
            self.on_path_lost(node);
        } else {
            self.remove_peer(node);
        }
    }

    /// Authentic data came from a place that is not the path in use.
    pub(super) fn on_strayed(&mut self, slot: SlotId, from: Locator) {
        let Some(node) = self.by_slot(slot) else { return };
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let known = peer.paths.find(from).is_some();
        let unasked = peer.paths.unasked();
        peer.paths.came(from, now);
        match from {
            Locator::Direct(at) if !known => {
                let method = self.method_at(node, from);
                self.try_back(node, at, method);
            }
            Locator::Direct(_) => _ = self.probe(node, from),
            Locator::Relayed { .. } if !known => {
                let now = self.now.instant;
                if let Some(peer) = self.peer(node) {
                    peer.paths.confirm(from, Method::Relayed, now);
                }
            }
            Locator::Relayed { .. } => {}
        }
        if let Some(path) = unasked {
            self.probe(node, path);
        }
    }

    /// Data flows again after a silence.
    pub(super) fn on_woken(&mut self, slot: SlotId) {
        if let Some(node) = self.by_slot(slot) {
            self.awaken(node);
        }
    }

    /// Data flows, or what counts as such.
    pub(super) fn awaken(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        peer.awaken(now);
        let (unasked, relayed) = (peer.paths.unasked(), peer.path().is_some_and(|path| !path.is_direct()));
        if let Some(path) = unasked {
            self.probe(node, path);
        }
        self.begin_agreement(node);
        if relayed {
            self.search(node);
        }
    }

    /// Everything that is due for one peer.
    pub(super) fn on_peer_timeout(&mut self, node: NodeId) {
        self.touched.insert(node);
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if !peer.is_home && peer.is_forgotten(now) {
            return self.remove_peer(node);
        }
        if peer.sample(now) {
            if !self.is_entitled(node) {
                self.drop(Drop::BadDocument);
                return self.remove_peer(node);
            }
            self.on_tick(node);
        }
        self.on_dial_timeout(node);
        self.on_agreement_timeout(node);
        self.on_paths_timeout(node);
        self.on_punch_timeout(node);
        self.on_guess_timeout(node);
        self.on_crossing_timeout(node);
        self.expire_pings(node);
        if self.peers.get(&node).is_some_and(|peer| !peer.is_home && peer.is_forgotten(now)) {
            self.remove_peer(node);
        }
    }

    /// Whether the peer's passport is still good, or a newer one is known. To be cut off from a home over a clock would
    /// leave nobody to ask, so a home's is only asked after.
    fn is_entitled(&mut self, node: NodeId) -> bool {
        self.ask_anew(node);
        let unix = self.now.unix;
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let (serial, ended) = (peer.member.passport.serial, peer.member.passport.not_after <= unix);
        let known = self.resolver.serial(&node, self.now);
        if known.is_some_and(|known| ended || known > serial)
            && let Some(newer) = self.resolver.member(&node, self.now)
        {
            peer.member = newer;
            self.unlisted.insert(node);
        }
        peer.is_home || peer.member.passport.not_after > unix
    }

    /// A passport is renewed when a third of its life is left. Whoever has seen only the old one by the last quarter asks
    /// for the new, so that no session ends with a passport that was renewed.
    fn ask_anew(&mut self, node: NodeId) {
        let (now, unix) = (self.now.instant, self.now.unix);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let passport = &peer.member.passport;
        let life = passport.not_after.since(passport.not_before);
        if passport.not_after.since(unix) > life / 4 || now.since(peer.asked_anew) < life / 60 {
            return;
        }
        peer.asked_anew = now;
        self.resolver.refresh(node, self.homes.askable(), self.now);
    }

    fn on_tick(&mut self, node: NodeId) {
        let now = self.now.instant;
        let serves = self.is_super_peer();
        let Some(peer) = self.peer(node) else { return };
        let mut message = [0; crate::tunnel::HANDSHAKE_ROOM];
        // An initiation that nobody could be sent would make the next attempt's too fresh.
        if peer.path().is_none() && peer.dial.is_some() {
            return;
        }
        // What we tell each other counts as data there, so that an idle pair would renew its session for ever.
        let is_kept = serves || peer.is_kept(now) || peer.dial.is_some();
        let due = is_kept.then(|| peer.tunnel().handle_timeout(&mut message, now)).flatten();
        let (path, has_session, active) = (peer.path(), peer.has_session(), peer.is_active(now));
        if !active {
            peer.punch.stop();
            self.stop_guessing(node);
            self.stop_crossing(node, false);
        }
        if let (Some(length), Some(path)) = (due, path) {
            self.transmit(path, &message[..length]);
        }
        match path {
            Some(_) if !has_session => self.on_path_lost(node),
            Some(path) if active && !path.is_direct() => self.search(node),
            _ => {}
        }
        if active && path.is_some() && has_session {
            self.begin_agreement(node);
            self.prepare_relays(node);
            self.move_back(node);
        }
    }

    /// Have more than one relay ready for a peer with whom data is exchanged: of the homes of both, as many as are kept.
    fn prepare_relays(&mut self, node: NodeId) {
        let now = self.now.instant;
        let serves = self.is_super_peer();
        let Some(peer) = self.peer(node) else { return };
        if serves || peer.is_super_peer() {
            return;
        }
        for way in peer.standby.open(now) {
            let token = self.rng.next_u64();
            self.send_along(node, way, &Message::Probe { token });
            if let Some(peer) = self.peer(node) {
                peer.standby.sent(way, token, now);
            }
        }
        let Some(peer) = self.peer(node) else { return };
        if !peer.standby.is_due(now) {
            return;
        }
        peer.standby.looked(now);
        let channel = peer.channel;
        let theirs = peer.place.as_ref().map(|place| place.whereabouts.homes.clone()).unwrap_or_default();
        let in_use: Vec<Endpoint> = peer.paths.relays().map(|way| way.endpoint()).collect();
        let ours: Vec<NodeId> = self.homes.ids().collect();
        let (mut ready, mut met) = (in_use.len(), BTreeSet::new());
        for relay in theirs.into_iter().chain(ours) {
            if ready >= RELAYS || relay == self.me.passport.node || !met.insert(relay) {
                continue;
            }
            let known = self.peers.get(&relay).filter(|peer| peer.has_session() && peer.is_super_peer());
            let Some(at) = known.and_then(Peer::direct_remote) else {
                if ready < 2 {
                    self.reach(relay);
                }
                continue;
            };
            let way = Locator::Relayed { relay: at, channel };
            let is_new = !in_use.contains(&at);
            if is_new && self.peer(node).is_some_and(|peer| peer.standby.begin(way, now)) {
                self.send(relay, &Message::Channel { channel, with: node });
                ready += 1;
            }
        }
    }
}
