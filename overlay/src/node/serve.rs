//! What a super peer does for others: keeps their whereabouts, answers look-ups, hands knocks on, opens channels,
//! enrols and renews. A node without the role refuses all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Node, Output, Persist};
use crate::document::{Contact, Credential, Place, Roles, Verified};
use crate::id::{NodeId, RecordKey, Subject};
use crate::limits::{LEASE_REFRESH, MEMBERS, WHEREABOUTS_LIFE};
use crate::locator::{Channel, Endpoint, Locator};
use crate::peer::Peer;
use crate::port::Command;
use crate::ranking::{self, Load};
use crate::record::{self, Record};
use crate::resolver::Known;
use crate::timing::Instant;
use crate::verdict::Drop;
use crate::wire::control::{Message, Refusal};

/// Channels nobody renews are looked for this often.
const SWEEP: Duration = Duration::from_secs(60);
/// Super peers whose numbers of nodes differ by less are equally busy.
const CROWD: u16 = 64;
/// A node is told of super peers once in this time: the answer is twenty times as long as the question.
const INTRODUCE_AGAIN: Duration = Duration::from_secs(1);
/// Super peers told of at once.
const INTRODUCTIONS: usize = 8;

#[derive(Debug)]
pub(super) struct Served {
    /// Whose passport was put into the directory, of which serial, and when.
    leases: BTreeMap<NodeId, (u64, Instant)>,
    sweep: Instant,
    /// Bytes relayed until the last sweep, and Mbit/s between the last two.
    charged: u64,
    mbits: u16,
    next_command: u64,
}

impl Served {
    pub(super) fn new(now: Instant) -> Self {
        Self { leases: BTreeMap::new(), sweep: now + SWEEP, charged: 0, mbits: 0, next_command: 0 }
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.sweep
    }
}

impl Node {
    pub(super) fn on_served_timeout(&mut self) {
        let now = self.now.instant;
        if self.served.sweep <= now {
            self.channels_changed |= self.channels.expire(now);
            let charged = self.channels.charged();
            let bits = charged.saturating_sub(self.served.charged).saturating_mul(8);
            self.served.charged = charged;
            self.served.mbits = u16::try_from(bits / SWEEP.as_secs() / 1_000_000).unwrap_or(u16::MAX);
            let unix = self.now.unix;
            let expired = self.login.as_mut().map(|login| login.expire(unix)).unwrap_or_default();
            self.outputs.extend(expired.into_iter().map(|entry| Output::Persist(Persist::Ledger(entry))));
            self.served.sweep = now + SWEEP;
        }
    }

    /// A message that only a super peer is asked, or that it answers with.
    pub(super) fn on_service_message(&mut self, from: NodeId, message: Message) {
        let from_super =
            self.peers.get(&from).is_some_and(|p| p.member.passport.roles.includes(Roles::SUPER_PEER));
        match message {
            Message::LookupAnswer { id, credential, whereabouts } if from_super => {
                self.resolver.handle_answer(from, id, credential.as_ref(), whereabouts, self.now);
            }
            Message::Published { sequence } if from_super => self.on_published(from, sequence),
            Message::Knocked { channel: _, sealed } if from_super => _ = self.on_knock(&sealed),
            Message::Refused { channel, why } if from_super => self.on_refused(channel, why),
            Message::Reflected { transaction, reflected } if from_super => {
                self.on_reflection_confirmed(from, transaction, reflected);
            }
            Message::Renewed { credential } if from_super => self.on_renewed(&credential),
            Message::Sighted { channel, at } if from_super => self.on_sighted(from, channel, at),
            Message::Load { nodes, mbits } if from_super => self.on_load(from, Load { nodes, mbits }),
            Message::SuperPeer { contact } => match contact.verify_stale(&self.network, self.now.unix) {
                Ok(place) => self.on_super_peer(place),
                Err(_) => self.drop(Drop::BadDocument),
            },
            other if self.is_super_peer() => self.serve(from, other),
            _ => self.drop(Drop::BadMessage),
        }
    }

    fn serve(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Lookup { id, subject } => self.serve_lookup(from, id, subject),
            Message::Publish { contact } => self.serve_publish(from, contact),
            Message::Knock { to, channel, sealed } => self.serve_knock(from, to, channel, sealed),
            Message::Channel { channel, with } => {
                self.open_channel(channel, from, with);
            }
            Message::Renew => {
                if let Some(credential) = self.renew(from) {
                    self.send(from, &Message::Renewed { credential });
                }
            }
            Message::SuperPeers => self.introduce(from),
            Message::Sight { channel } => self.serve_sight(from, channel),
            Message::Reflect { transaction, to, avoid } => self.serve_reflect(from, transaction, to, &avoid),
            Message::ReflectFor { errand, to } => self.serve_reflect_for(from, errand, to),
            _ => self.drop(Drop::BadMessage),
        }
    }

    fn serve_lookup(&mut self, from: NodeId, id: u32, subject: Subject) {
        if !self.resolver.is_known(&subject, self.now) && self.askers.is_greedy(&from) {
            return self.drop(Drop::RateLimited);
        }
        match self.resolver.resolve(&subject, 0, self.now) {
            Known::Soon => self.askers.add(subject, from, id),
            Known::Yes(_) | Known::No => self.answer_lookup(from, id, &subject),
        }
    }

    /// Say what is known.
    pub(super) fn answer_lookup(&mut self, to: NodeId, id: u32, subject: &Subject) {
        let node = self.resolver.node_of(subject, self.now);
        let credential =
            node.and_then(|node| Some(self.resolver.member(&node, self.now)?.credential.clone()));
        let whereabouts =
            node.and_then(|node| Some(self.resolver.place(&node, self.now)?.contact.whereabouts.clone()));
        self.send(to, &Message::LookupAnswer { id, credential, whereabouts });
    }

    fn serve_publish(&mut self, from: NodeId, contact: Contact) {
        let Ok(place) = contact.verify(&self.network, self.now.unix) else {
            return self.drop(Drop::BadDocument);
        };
        if place.passport.node != from {
            return self.drop(Drop::BadDocument);
        }
        let sequence = place.whereabouts.sequence;
        if self.resolver.learn_place(&place, self.now) {
            if place.passport.roles.includes(Roles::SUPER_PEER) {
                self.on_super_peer(place.clone());
            }
            self.admit(place);
            self.put_place(from, contact);
        }
        self.send(from, &Message::Published { sequence });
    }

    /// Put a node's whereabouts into the directory, and its passport if that is due.
    fn put_place(&mut self, node: NodeId, contact: Contact) {
        let now = self.now.instant;
        let key = RecordKey::whereabouts(&self.network.id, &node);
        let credential = contact.credential.clone();
        self.put(key, Record::Whereabouts(contact).encode(), WHEREABOUTS_LIFE);
        let Some(member) = self.resolver.member(&node, self.now) else { return };
        let serial = member.passport.serial;
        let fresh = |(known, at): &(u64, Instant)| *known == serial && now.since(*at) < LEASE_REFRESH;
        if self.served.leases.get(&node).is_some_and(fresh) {
            return;
        }
        if self.served.leases.len() >= MEMBERS {
            self.served.leases.pop_first();
        }
        self.served.leases.insert(node, (serial, now));
        let life = member.passport.not_after.since(self.now.unix).min(LEASE_REFRESH * 2);
        let value = Record::Passport(credential).encode();
        for key in record::keys(&self.network, &member) {
            self.put(key, value.clone(), life);
        }
    }

    fn put(&mut self, key: RecordKey, value: Vec<u8>, life: Duration) {
        self.served.next_command += 1;
        let id = super::presence::OWN_COMMAND << 1 | self.served.next_command;
        self.outputs.push_back(Output::Command(Command::Publish { id, key, value, life }));
    }

    fn serve_knock(&mut self, from: NodeId, to: NodeId, channel: Channel, sealed: Vec<u8>) {
        let here = self.peers.get(&to).is_some_and(|peer| peer.path().is_some() && peer.has_session());
        if !here {
            self.send(from, &Message::Refused { channel, why: Refusal::NotHere });
        } else if self.open_channel(channel, from, to) {
            self.send(to, &Message::Knocked { channel, sealed });
        }
    }

    /// Say where the other end of a channel is: what it says of itself may be somebody else's address.
    fn serve_sight(&mut self, from: NodeId, channel: Channel) {
        let Some(other) = self.channels.other_end(channel, from) else {
            return self.drop(Drop::UnknownChannel);
        };
        // The far end of a stream may be a proxy.
        let place = self.peers.get(&other).and_then(Peer::direct_remote).filter(Endpoint::is_main);
        let at = place.map(|place| place.at.ip().to_canonical());
        self.send(from, &Message::Sighted { channel, at });
    }

    /// Open or renew a channel, or say why not.
    fn open_channel(&mut self, channel: Channel, by: NodeId, with: NodeId) -> bool {
        let now = self.now.instant;
        match self.channels.open(channel, by, with, now) {
            Ok(changed) => self.channels_changed |= changed,
            Err(why) => {
                self.send(by, &Message::Refused { channel, why });
                return false;
            }
        }
        true
    }

    /// A super peer does not do what we asked: what we know of the other end is old.
    fn on_refused(&mut self, channel: Channel, why: Refusal) {
        tracing::debug!(?channel, ?why, "a super peer refuses");
        let node = self.peers.values().find(|peer| peer.channel == channel).map(|peer| peer.id());
        if let Some(node) = node {
            self.resolver.forget_place(&node);
            self.resolver.resolve(&Subject::Node(node), self.homes.askable(), self.now);
        }
    }

    /// Tell of ourselves and of the super peers we know.
    fn introduce(&mut self, to: NodeId) {
        let now = self.now.instant;
        let Some(asker) = self.peer(to) else { return };
        if asker.introduced.is_some_and(|at| now.since(at) < INTRODUCE_AGAIN) {
            return self.drop(Drop::RateLimited);
        }
        asker.introduced = Some(now);
        let mut known: Vec<Verified<Place>> =
            self.resolver.super_peers(self.now).filter(|place| place.passport.node != to).collect();
        known.sort_by_cached_key(|place| self.rank_for(&to, &place.passport.node));
        for place in known.into_iter().take(INTRODUCTIONS) {
            self.send(to, &Message::SuperPeer { contact: place.contact.clone() });
        }
        let Load { nodes, mbits } = self.own_load();
        self.send(to, &Message::Load { nodes, mbits });
    }

    /// Ourselves first: the asker may not have our newest whereabouts. Then those that are not busy, for each asker in
    /// another order.
    fn rank_for(&self, to: &NodeId, node: &NodeId) -> (bool, u16, u64) {
        let crowd = self.homes.load(node).nodes / CROWD;
        (*node != self.me.passport.node, crowd, ranking::place(to, node))
    }

    /// How busy we are.
    fn own_load(&self) -> Load {
        let nodes = self.peers.values().filter(|peer| peer.path().is_some()).count();
        Load { nodes: u16::try_from(nodes).unwrap_or(u16::MAX), mbits: self.served.mbits }
    }

    /// Somebody with a code.
    pub(super) fn on_enrol(&mut self, from: Locator, sealed: &[u8], frame_length: usize) {
        let contact = self.presence.contact().clone();
        let Some(login) = &mut self.login else { return self.drop(Drop::UnknownFrame) };
        let answer = crate::enrolment::answer(
            login,
            &self.genesis,
            &contact,
            sealed,
            self.crypto.as_mut(),
            self.now.unix,
        );
        let Some((bytes, entries)) = answer else { return self.drop(Drop::NotAuthentic) };
        debug_assert!(bytes.len() <= frame_length, "no answer is larger than its question");
        self.outputs.extend(entries.into_iter().map(|entry| Output::Persist(Persist::Ledger(entry))));
        self.transmit(from, &bytes);
    }

    fn renew(&mut self, node: NodeId) -> Option<Credential> {
        let (credential, entries) = self.login.as_mut()?.renew(&node, self.now.unix)?;
        self.outputs.extend(entries.into_iter().map(|entry| Output::Persist(Persist::Ledger(entry))));
        Some(credential)
    }

    /// A login server renews its own passport.
    pub(super) fn renew_own(&mut self) -> Option<Credential> {
        self.renew(self.me.passport.node)
    }
}
