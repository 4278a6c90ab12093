//! Getting a session: knocks, handshakes, and the ways they can take.

use std::time::Duration;

use rand_core::Rng;

use super::{Node, Output};
use crate::document::{Candidate, CandidateKind, Contact, Place, Roles, Verified};
use crate::forward::{GENERATION_BITS, SLOT_BITS, SlotId};
use crate::id::{NodeId, Subject, TunnelKey};
use crate::limits::{DIAL_LIMIT, KNOCKERS, PEERS, STRANGERS};
use crate::locator::{Channel, Endpoint, Locator, Via, is_elsewhere, is_public};
use crate::peer::{Dial, Fresh, Peer};
use crate::tunnel::{HANDSHAKE_ROOM, Handshake, Purpose};
use crate::verdict::Drop;
use crate::wire::control::Message;
use crate::wire::{self, Frame, Wireguard};

/// Pauses between attempts; the last one repeats. A datagram is lost now and then, a super peer takes seconds
/// to come back.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];
/// Addresses of one node tried at once.
const MAX_DOORS: usize = 6;
/// Attempts that go straight to an address that only the node itself says is its own, of two datagrams each: it may be a
/// third party's.
const STRAIGHT: u32 = 5;
/// A hint makes us doubt a session at most this often.
const DOUBT_AGAIN: Duration = Duration::from_secs(1);

/// A way that a handshake can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the node itself.
    Straight(Endpoint),
    /// Through this super peer, which is at that address.
    Through(NodeId, Endpoint),
}

impl Node {
    /// Want a session with a node whose place is known.
    pub(super) fn connect(&mut self, node: NodeId) {
        let known = self.resolver.place(&node, self.now).or_else(|| self.homes.place(&node).cloned());
        if let Some(place) = known {
            self.admit(place);
        }
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if peer.dial.is_none() && (peer.path().is_none() || !peer.has_session()) {
            peer.dial = Some(Dial::new(now));
            self.attempt(node);
        }
    }

    /// Make a peer of somebody, or bring what we know of it up to date. `None` if there is no room.
    pub(super) fn admit(&mut self, place: Verified<Place>) -> Option<NodeId> {
        let node = place.passport.node;
        let key = place.whereabouts.tunnel_key;
        if node == self.me.passport.node {
            return None;
        }
        if let Some(peer) = self.peer(node) {
            let newer = |old: &Verified<Place>| place.whereabouts.sequence > old.whereabouts.sequence;
            let is_news = peer.place.as_ref().is_none_or(newer);
            if peer.key == key {
                let moved = place.passport.address4 != peer.member.passport.address4;
                let is_newer = place.passport.serial >= peer.member.passport.serial;
                if is_newer {
                    peer.member = place.member();
                }
                if is_news {
                    peer.place = Some(place);
                }
                if is_newer && moved {
                    self.unlisted.insert(node);
                }
                return Some(node);
            }
            if !is_news {
                // An old contact, shown by whoever kept it, says nothing about today's key.
                return Some(node);
            }
        }
        if !self.claim(&key, node) {
            self.drop(Drop::BadDocument);
            return None;
        }
        let last = self.take_peer(node);
        let slot = self.free_slot()?;
        let generation = self.rng.next_u32() & ((1 << GENERATION_BITS) - 1);
        let index = generation << SLOT_BITS | u32::from(slot.0);
        let channel = Channel(self.rng.next_u64());
        let tunnel = self.crypto.tunnel(&key, index);
        let fresh = Fresh { key, slot, index, tunnel, channel, device_mtu: self.device_mtu };
        let mut peer = Peer::new(place.member(), fresh, self.now.instant);
        peer.place = Some(place);
        self.slots[usize::from(slot.0)] = Some(node);
        self.by_key.insert(key, node);
        self.peers.insert(node, peer);
        self.touched.insert(node);
        self.unlisted.insert(node);
        if let Some(last) = last {
            self.succeed(node, last);
        }
        Some(node)
    }

    /// A tunnel with another key follows the last one: whoever waited for that waits for this.
    fn succeed(&mut self, node: NodeId, last: Peer) {
        let now = self.now.instant;
        let wanted = last.is_home || last.dial.is_some() || last.is_active(now);
        let Some(peer) = self.peer(node) else { return };
        peer.is_home = last.is_home;
        peer.backlog = last.backlog;
        peer.pings = last.pings;
        peer.pings.values_mut().for_each(|ping| ping.sent = None);
        self.on_session_lost(node);
        if wanted && let Some(peer) = self.peer(node) {
            peer.dial = Some(Dial::new(now));
            self.attempt(node);
        }
    }

    /// Whether `node` may have the tunnel key that it says is its own. Whereabouts do not prove that it is: a
    /// handshake does, so the key stays with whoever made one, or is being asked for one.
    fn claim(&mut self, key: &TunnelKey, node: NodeId) -> bool {
        let Some(holder) = self.by_key.get(key).copied().filter(|holder| *holder != node) else {
            return *key != self.crypto.public();
        };
        let proved = self.peers.get(&holder).is_some_and(|p| p.path().is_some() || p.dial.is_some());
        if !proved {
            self.remove_peer(holder);
        }
        !proved
    }

    fn free_slot(&mut self) -> Option<SlotId> {
        let free = self.slots.iter().position(Option::is_none);
        if free.is_none() && self.slots.len() < PEERS {
            self.slots.push(None);
        }
        free.or_else(|| self.slots.iter().rposition(Option::is_none)).map(|at| SlotId(at as u16))
    }

    /// Forget a peer and everything about its tunnel.
    pub(super) fn remove_peer(&mut self, node: NodeId) {
        self.fail_pings(node);
        let Some(peer) = self.take_peer(node) else { return };
        self.counters.count_many(Drop::Unreachable, peer.backlog.len() as u64);
    }

    fn take_peer(&mut self, node: NodeId) -> Option<Peer> {
        let peer = self.peers.remove(&node)?;
        for door in peer.guess.doors() {
            self.close_door(door);
        }
        self.outputs.extend(peer.crossing.id().map(Output::CloseStream));
        self.slots[usize::from(peer.slot.0)] = None;
        self.by_key.remove(&peer.key);
        if let Some(wake) = peer.wake {
            self.wakes.remove(&(wake, node));
        }
        self.table.remove(peer.slot);
        self.table_stale = true;
        if peer.listed.is_some() {
            self.unlist_remote(node, peer.listed);
        }
        Some(peer)
    }

    /// One attempt at a handshake, on every way there is.
    pub(super) fn attempt(&mut self, node: NodeId) {
        let now = self.now.instant;
        let jitter = Duration::from_millis(u64::from(self.rng.next_u32() % 64));
        let Some(dial) = self.peer(node).and_then(|peer| peer.dial.as_mut()) else { return };
        dial.next = now + PAUSES[(dial.attempts as usize).min(PAUSES.len() - 1)] + jitter;
        dial.attempts += 1;
        let is_patient = dial.attempts > STRAIGHT;
        self.consider_stream(node);
        let mut ways = self.ways(node);
        if is_patient && !self.peers.get(&node).is_some_and(Peer::is_super_peer) {
            ways.retain(|way| !matches!(way, Way::Straight(at) if !matches!(at.via, Via::Stream(_))));
        }
        if ways.is_empty() {
            return;
        }
        let Some((initiation, key, channel)) = self.initiation(node) else { return };
        let contact = postcard::to_stdvec(self.presence.contact()).expect("contacts are plain data");
        let sealed = self.crypto.seal_to(&key, Purpose::Knock, &contact);
        for way in ways {
            let locator = match way {
                Way::Straight(at) => {
                    self.transmit(Locator::Direct(at), &wire::frame(wire::KNOCK, &sealed));
                    Locator::Direct(at)
                }
                Way::Through(home, relay) => {
                    let knock = Message::Knock { to: node, channel, sealed: sealed.clone() };
                    self.send(home, &knock);
                    Locator::Relayed { relay, channel }
                }
            };
            self.transmit(locator, &initiation);
        }
    }

    /// A new initiation, or the last one while that is fresh: it may have been lost.
    fn initiation(&mut self, node: NodeId) -> Option<(Vec<u8>, TunnelKey, Channel)> {
        let now = self.now.instant;
        let peer = self.peer(node)?;
        let mut room = [0; HANDSHAKE_ROOM];
        let made = peer.tunnel().initiate(&mut room, now);
        let (key, channel) = (peer.key, peer.channel);
        let dial = peer.dial.as_mut()?;
        if let Some(length) = made {
            dial.initiation = room[..length].to_vec();
        }
        (!dial.initiation.is_empty()).then(|| (dial.initiation.clone(), key, channel))
    }

    /// All ways to a node. Homes of it that we have no tunnel with are dialled; once they answer, this is asked again.
    fn ways(&mut self, node: NodeId) -> Vec<Way> {
        let Some(place) = self.peers.get(&node).and_then(|peer| peer.place.clone()) else {
            return Vec::new();
        };
        let is_super_peer = place.passport.roles.includes(Roles::SUPER_PEER);
        let direct = |c: &&Candidate| c.kind != CandidateKind::Relay && is_elsewhere(c.at);
        let doors = place.whereabouts.candidates.iter().filter(direct);
        let doors: Vec<Candidate> = doors.copied().take(MAX_DOORS).collect();
        if is_super_peer {
            let doors = doors.into_iter().map(|door| Endpoint::main(door.at));
            return doors.chain(self.streams.endpoint(node)).map(Way::Straight).collect();
        }
        let mut ways: Vec<Way> = self.streams.endpoint(node).map(Way::Straight).into_iter().collect();
        let me = self.me.passport.node;
        for home in place.whereabouts.homes.iter().filter(|home| **home != me) {
            let serves = |peer: &&Peer| peer.has_session() && peer.is_super_peer();
            match self.peers.get(home).filter(serves).and_then(Peer::direct_remote) {
                Some(relay) => ways.push(Way::Through(*home, relay)),
                None => self.reach(*home),
            }
        }
        // Behind a NAT, a stranger's packet at best goes nowhere: straight only to open addresses
        // and to ports that a router opened, or for want of a relay.
        let open = |door: &Candidate| {
            matches!(door.kind, CandidateKind::Host | CandidateKind::Mapped) && is_public(door.at.ip())
        };
        let relayed = ways.iter().any(|way| matches!(way, Way::Through(..)));
        ways.extend(
            doors.into_iter().filter(|door| open(door) || !relayed).map(|door| Way::Straight(door.at.into())),
        );
        ways
    }

    /// Want a session with a super peer that may not even be known. Somebody only says that it is one.
    pub(super) fn reach(&mut self, home: NodeId) {
        let place = self.resolver.place(&home, self.now).or_else(|| self.homes.place(&home).cloned());
        let known = self.peers.get(&home).map(|peer| &peer.member.passport);
        match known.or(place.as_ref().map(|place| &place.passport)).map(|passport| passport.roles) {
            Some(roles) if roles.includes(Roles::SUPER_PEER) => self.connect(home),
            Some(_) => {}
            None => _ = self.resolver.resolve(&Subject::Node(home), self.homes.askable(), self.now),
        }
    }

    /// A super peer answered: those who waited to knock through it may.
    pub(super) fn redial_through(&mut self, home: NodeId) {
        let lives_there = |peer: &&Peer| {
            let place = peer.place.as_ref();
            peer.dial.is_some() && place.is_some_and(|place| place.whereabouts.homes.contains(&home))
        };
        let waiting: Vec<NodeId> = self.peers.values().filter(lives_there).map(Peer::id).collect();
        for node in waiting {
            self.attempt(node);
        }
    }

    /// A datagram that is no data.
    pub(super) fn on_datagram(&mut self, from: Locator, bytes: &[u8]) {
        if let Some(to) = self.relayed_early(from) {
            return self.transmit(to, bytes);
        }
        match wire::classify(bytes) {
            Some(Frame::Wireguard(Wireguard::Initiation)) => self.on_initiation(from, bytes),
            Some(Frame::Wireguard(Wireguard::Answer(receiver))) => self.on_answer(from, receiver, bytes),
            Some(Frame::Knock(sealed)) if from.is_direct() => {
                let knocker = self.on_knock(sealed);
                self.remember_knock(from.endpoint(), knocker);
            }
            Some(Frame::EnrolRequest(sealed)) if from.is_direct() => self.on_enrol(from, sealed, bytes.len()),
            Some(Frame::Stun) if from.is_direct() => self.on_stun(from.endpoint(), bytes),
            Some(Frame::Stranger) => self.on_stranger(from.endpoint()),
            _ => self.drop(Drop::UnknownFrame),
        }
    }

    /// A handshake right behind the knock that opened its channel overtakes the table in which forwarding would find the
    /// channel. Where it goes on to, if it is such a one.
    fn relayed_early(&self, from: Locator) -> Option<Locator> {
        let Locator::Relayed { relay: source, channel } = from else { return None };
        let sender = self.by_remote.get(&source)?;
        let other = self.channels.other_end(channel, *sender)?;
        Some(Locator::Relayed { relay: self.peers.get(&other)?.direct_remote()?, channel })
    }

    fn on_initiation(&mut self, from: Locator, bytes: &[u8]) {
        // Who it is costs a public-key operation that its tunnel then repeats; mostly the place tells.
        if from.is_direct()
            && let Some(node) = self.expected_at(from.endpoint())
            && self.took_handshake(node, from, bytes, false)
        {
            return;
        }
        let Some(key) = self.crypto.initiator(bytes) else { return self.drop(Drop::UnknownPeer) };
        match self.by_key.get(&key).copied() {
            Some(node) => self.on_handshake(node, from, bytes, false),
            None => {
                let dropped = self.overtakers.keep(key, from, bytes, self.now.instant);
                self.counters.count_many(Drop::UnknownPeer, dropped);
            }
        }
    }

    /// Who is there, or knocked from there a moment ago.
    fn expected_at(&self, at: Endpoint) -> Option<NodeId> {
        let knocker = || self.knockers.iter().rev().find(|(door, _)| *door == at).map(|(_, node)| *node);
        self.by_remote.get(&at).copied().or_else(knocker)
    }

    fn remember_knock(&mut self, at: Endpoint, knocker: Option<NodeId>) {
        let Some(node) = knocker else { return };
        if self.knockers.len() == KNOCKERS {
            self.knockers.pop_front();
        }
        self.knockers.push_back((at, node));
    }

    fn on_answer(&mut self, from: Locator, receiver: u32, bytes: &[u8]) {
        let index = receiver >> 8;
        let slot = SlotId((index & ((1 << SLOT_BITS) - 1)) as u16);
        let node = self.by_slot(slot).filter(|node| self.peers.get(node).is_some_and(|p| p.index == index));
        match node {
            Some(node) => self.on_handshake(node, from, bytes, bytes[0] == 2),
            None => self.drop(Drop::UnknownSession),
        }
    }

    fn on_handshake(&mut self, node: NodeId, from: Locator, bytes: &[u8], completes: bool) {
        if !self.took_handshake(node, from, bytes, completes) {
            self.drop(Drop::NotAuthentic);
        }
    }

    /// Whether the message is of this peer; it is answered then.
    fn took_handshake(&mut self, node: NodeId, from: Locator, bytes: &[u8], completes: bool) -> bool {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return false };
        let mut answer = [0; HANDSHAKE_ROOM];
        let outcome = peer.tunnel().handshake(bytes, &mut answer, now);
        if outcome == Handshake::Rejected {
            return false;
        }
        // Who is about to be forgotten, and comes back at that moment, is not.
        peer.hear(now);
        let established = completes && peer.has_session();
        if let Handshake::Reply(length) = outcome {
            self.transmit(from, &answer[..length]);
        }
        if established {
            self.on_established(node, from);
        }
        true
    }

    /// Somebody seals to us who and where they are; their handshake is right behind. Who, if they are let in.
    pub(super) fn on_knock(&mut self, sealed: &[u8]) -> Option<NodeId> {
        let opened = self.crypto.open_sealed(Purpose::Knock, sealed);
        let contact = opened.and_then(|bytes| postcard::from_bytes::<Contact>(&bytes).ok());
        let Some(contact) = contact else {
            self.drop(Drop::NotAuthentic);
            return None;
        };
        let Ok(place) = contact.verify(&self.network, self.now.unix) else {
            self.drop(Drop::BadDocument);
            return None;
        };
        self.resolver.learn_place(&place, self.now);
        let node = place.passport.node;
        let strangers = || self.peers.values().filter(|peer| peer.path().is_none()).count();
        if !self.peers.contains_key(&node) && strangers() >= STRANGERS {
            self.drop(Drop::RateLimited);
            return None;
        }
        let key = place.whereabouts.tunnel_key;
        let admitted = self.admit(place)?;
        if let Some((from, initiation)) = self.overtakers.take(&key, self.now.instant) {
            self.on_handshake(admitted, from, &initiation, false);
        }
        Some(admitted)
    }

    /// Somebody says that it does not know what we send it. It may be anybody who says so: ask again, no more.
    fn on_stranger(&mut self, remote: Endpoint) {
        let Some(node) = self.by_remote.get(&remote).copied() else { return };
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if peer.doubted.is_some_and(|at| now.since(at) < DOUBT_AGAIN) {
            return;
        }
        peer.doubted = Some(now);
        peer.is_doubted = true;
        if peer.dial.is_none() {
            peer.dial = Some(Dial::new(now));
            self.attempt(node);
        }
    }

    /// An attempt is due, or it has been tried for long enough.
    pub(super) fn on_dial_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        let Some(begun) = peer.dial.as_ref().filter(|dial| dial.next <= now).map(|dial| dial.begun) else {
            return;
        };
        if peer.is_home || now.since(begun) < DIAL_LIMIT {
            return self.attempt(node);
        }
        peer.dial = None;
        let packets: Vec<_> = peer.backlog.drain().collect();
        self.resolver.forget_place(&node);
        for packet in packets {
            self.refuse(&packet, Drop::Unreachable);
        }
        self.fail_pings(node);
    }

    /// Tell the sender of a packet, in ICMP, that it cannot be delivered.
    pub(super) fn refuse(&mut self, packet: &[u8], reason: Drop) {
        use crate::packet::{IpPacket, icmp};
        self.drop(reason);
        let Ok(parsed) = IpPacket::parse(packet) else { return };
        let from = if parsed.is_v6() { self.own6.into() } else { self.me.passport.address4.into() };
        let mut answer = [0; icmp::LONGEST];
        if let Some(length) = icmp::unreachable(packet, from, icmp::Unreachable::Host, &mut answer) {
            self.outputs.push_back(Output::ToTun(answer[..length].to_vec()));
        }
    }
}
