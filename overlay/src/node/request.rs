//! What users ask of a running node, while it is under way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rand_core::Rng;

use super::{Answer, Failed, Invitation, Node, Output, Persist, Request, RequestId, Resolution, Source};
use crate::code::{Code, Door};
use crate::document::CandidateKind;
use crate::id::{NodeId, Subject};
use crate::limits::REQUESTS;
use crate::peer::Ping;
use crate::resolver::{Found, Known};
use crate::timing::Instant;
use crate::wire::control::Message;

/// Characters of a node ID that are enough to name it.
const MIN_PREFIX: usize = 8;

#[derive(Clone, Debug)]
enum Wanted {
    /// An echo, by then.
    Ping(Instant),
    Resolution,
    Examination,
}

/// Requests that wait for the resolver.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<RequestId, (String, Subject, Wanted)>,
}

impl Requests {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting
            .values()
            .filter_map(|(.., wanted)| match wanted {
                Wanted::Ping(deadline) => Some(*deadline),
                Wanted::Resolution | Wanted::Examination => None,
            })
            .min()
    }
}

impl Node {
    pub(super) fn on_request(&mut self, id: RequestId, request: Request) {
        match request {
            Request::Ping { peer, timeout } => {
                self.find(id, peer, Wanted::Ping(self.now.instant + timeout));
            }
            Request::Resolve { query } => self.find(id, query, Wanted::Resolution),
            Request::Invite(invitation) => {
                let answer =
                    self.invite(&invitation).map_or_else(Answer::Failed, |code| Answer::Invited { code });
                self.answer(id, answer);
            }
            Request::Netcheck => self.netcheck(id),
            Request::Examine { peer } => self.find(id, peer, Wanted::Examination),
            Request::Stop => {
                let peers: Vec<NodeId> = self.peers.keys().copied().collect();
                for node in peers {
                    self.send(node, &Message::Bye);
                }
                self.answer(id, Answer::Stopped);
            }
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        self.outputs.push_back(Output::Answer(id, answer));
    }

    fn fail(&mut self, id: RequestId, why: Failed) {
        self.answer(id, Answer::Failed(why));
    }

    /// Find whom the user means.
    fn find(&mut self, id: RequestId, text: String, wanted: Wanted) {
        let subject = match self.subject(&text) {
            Ok(subject) => subject,
            Err(why) => return self.fail(id, why),
        };
        let pings: usize = self.peers.values().map(|peer| peer.pings.len()).sum();
        if self.requests.waiting.len() + pings >= REQUESTS {
            return self.fail(id, Failed::Busy);
        }
        let began = self.resolver.resolve(&subject, self.homes.askable(), self.now);
        match began {
            Known::Soon => _ = self.requests.waiting.insert(id, (text, subject, wanted)),
            Known::No => self.fail(id, Failed::NoSuchPeer(text)),
            Known::Yes(node) => {
                let cached = (Source::Cache, std::time::Duration::ZERO);
                let found = Found { node, lease: cached, whereabouts: Some(cached) };
                self.found(id, text, &wanted, found);
            }
        }
    }

    /// A virtual address, a name (with or without the network's suffix), an ID or the beginning of one.
    fn subject(&self, text: &str) -> Result<Subject, Failed> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let own = self.me.passport.addresses(&self.network.id);
            if own.contains(&address) {
                return Ok(Subject::Node(self.me.passport.node));
            }
            let network = &self.network.genesis.name;
            return self
                .subject_of(address)
                .ok_or_else(|| Failed::NoSuchPeer(format!("{address} is no address of network {network}")));
        }
        if let Ok(node) = text.parse::<NodeId>() {
            return Ok(Subject::Node(node));
        }
        let suffix = format!(".{}.internal", self.network.genesis.name);
        let name = text.strip_suffix(&suffix).unwrap_or(text).to_ascii_lowercase();
        let by_name = Subject::Name(name.clone());
        if self.resolver.node_of(&by_name, self.now).is_some() || name.len() < MIN_PREFIX {
            return Ok(by_name);
        }
        let mut fitting = self.resolver.beginning_with(&name);
        match (fitting.next(), fitting.next()) {
            (Some(node), None) => Ok(Subject::Node(node)),
            (Some(_), Some(_)) => Err(Failed::Ambiguous(text.to_owned())),
            (None, _) => Ok(by_name),
        }
    }

    /// The resolver is done with a subject.
    pub(super) fn on_request_resolved(&mut self, subject: &Subject, found: Option<Found>) {
        let waiting: Vec<RequestId> =
            self.requests.waiting.iter().filter(|(_, (_, of, _))| of == subject).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some((text, _, wanted)) = self.requests.waiting.remove(&id) else { continue };
            match found {
                Some(found) => self.found(id, text, &wanted, found),
                None => self.fail(id, Failed::NoSuchPeer(text)),
            }
        }
    }

    fn found(&mut self, id: RequestId, text: String, wanted: &Wanted, found: Found) {
        match wanted {
            Wanted::Resolution => self.answer_resolution(id, text, found),
            Wanted::Ping(_) | Wanted::Examination if found.node == self.me.passport.node => {
                self.fail(id, Failed::Senseless(format!("{text} is this node itself")));
            }
            Wanted::Examination => self.examine(id, found.node),
            Wanted::Ping(_) if found.whereabouts.is_none() => self.fail(id, Failed::Unreachable(text)),
            Wanted::Ping(deadline) => self.begin_ping(id, found.node, *deadline),
        }
    }

    fn answer_resolution(&mut self, id: RequestId, text: String, found: Found) {
        let Some(member) = self.resolver.member(&found.node, self.now) else {
            return self.fail(id, Failed::NoSuchPeer(text));
        };
        let place = self.resolver.place(&found.node, self.now);
        let resolution = Resolution {
            addresses: member.passport.addresses(&self.network.id),
            passport: member.passport.clone(),
            whereabouts: place.map(|place| place.whereabouts.clone()),
            lease_stage: found.lease,
            whereabouts_stage: found.whereabouts,
        };
        self.answer(id, Answer::Resolved(Box::new(resolution)));
    }

    fn begin_ping(&mut self, request: RequestId, node: NodeId, deadline: Instant) {
        self.connect(node);
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else {
            return self.fail(request, Failed::Unreachable(node.short()));
        };
        let was_active = peer.is_active(now);
        peer.awaken(now);
        peer.pings.insert(request, Ping { request, deadline, sent: None });
        if peer.path().is_some() {
            if !was_active {
                self.awaken(node);
            }
            self.flush_pings(node);
        }
    }

    /// Send the echoes that waited for the session.
    pub(super) fn flush_pings(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peers.get(&node).filter(|peer| peer.path().is_some()) else { return };
        let unsent: Vec<RequestId> =
            peer.pings.values().filter(|ping| ping.sent.is_none()).map(|ping| ping.request).collect();
        for request in unsent {
            let token = self.rng.next_u64();
            self.send(node, &Message::Echo { token });
            if let Some(ping) = self.peer(node).and_then(|peer| peer.pings.get_mut(&request)) {
                ping.sent = Some((token, now));
            }
        }
    }

    /// A peer's user wants to know.
    pub(super) fn on_echo(&mut self, node: NodeId, token: u64) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if peer.is_active(now) {
            peer.awaken(now);
        } else {
            self.awaken(node);
        }
        self.send(node, &Message::EchoReply { token });
    }

    /// An echo came back; a second time, if it went two ways.
    pub(super) fn on_echo_reply(&mut self, node: NodeId, token: u64) {
        let now = self.now;
        let Some(peer) = self.peer(node) else { return };
        let sent = |ping: &&Ping| ping.sent.is_some_and(|(sent, _)| sent == token);
        let Some(Ping { request, sent: Some((_, sent)), .. }) = peer.pings.values().find(sent).copied()
        else {
            return;
        };
        peer.pings.remove(&request);
        let (name, address) = (peer.name().to_owned(), peer.member.passport.address4);
        let guessing = peer.guess.is_promising(now.instant);
        if let Some(path) = self.path_view(node, now) {
            let rtt = now.instant.since(sent);
            self.answer(request, Answer::Pong { name, address, rtt, path, guessing });
        }
    }

    /// Pings that nobody answered in time.
    pub(super) fn expire_pings(&mut self, node: NodeId) {
        let now = self.now.instant;
        self.end_pings(node, |ping| ping.deadline <= now);
    }

    /// The peer cannot be reached.
    pub(super) fn fail_pings(&mut self, node: NodeId) {
        self.end_pings(node, |_| true);
    }

    fn end_pings(&mut self, node: NodeId, over: impl Fn(&Ping) -> bool) {
        let Some(peer) = self.peer(node) else { return };
        let name = peer.name().to_owned();
        let ended: Vec<Ping> = peer.pings.values().filter(|ping| over(ping)).copied().collect();
        for ping in ended {
            if let Some(peer) = self.peer(node) {
                peer.pings.remove(&ping.request);
            }
            let why = match ping.sent {
                Some(_) => Failed::TimedOut(name.clone()),
                None => Failed::Unreachable(name.clone()),
            };
            self.fail(ping.request, why);
        }
    }

    pub(super) fn on_requests_timeout(&mut self) {
        let now = self.now.instant;
        let late = |wanted: &Wanted| matches!(wanted, Wanted::Ping(deadline) if *deadline <= now);
        let late: Vec<RequestId> =
            self.requests.waiting.iter().filter(|(_, (.., w))| late(w)).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((text, ..)) = self.requests.waiting.remove(&id) {
                self.fail(id, Failed::TimedOut(text));
            }
        }
    }

    fn invite(&mut self, invitation: &Invitation) -> Result<String, Failed> {
        let mut secret = [0; 16];
        self.rng.fill_bytes(&mut secret);
        let doors = self.presence.candidates().into_iter().filter(|c| c.kind != CandidateKind::Relay);
        let addresses: Vec<_> = doors.map(|candidate| candidate.at).take(4).collect();
        let login = self.login.as_mut().ok_or(Failed::NotLogin)?;
        if addresses.is_empty() {
            return Err(Failed::NoAddress);
        }
        let entries = login.invite(invitation, secret, self.now.unix)?;
        self.outputs.extend(entries.into_iter().map(|entry| Output::Persist(Persist::Ledger(entry))));
        let code = Code {
            network: self.network.id,
            network_name: self.network.genesis.name.clone(),
            secret,
            doors: vec![Door { tunnel_key: self.crypto.public(), addresses }],
            expires: self.now.unix + invitation.life,
        };
        Ok(code.reveal())
    }
}
