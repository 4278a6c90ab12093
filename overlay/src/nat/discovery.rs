//! Finding the class of the NAT in front, by the procedure of RFC 5780 with three super peers at once.
//!
//! Owns: [`Discovery`]: what is asked by which of three fresh sockets, when again, and what follows from the answers. Pure:
//! answers and time in, deeds out. Never: a socket of its own; and none of the three is used for anything else, so
//! that no earlier contact opens a filter.
//!
//! - [`Socket::Mapping`] asks every super peer, at both of its ports, where it is seen: what does the outer port depend
//!   on?
//! - [`Socket::Filtering`] talks to one super peer, the *anchor*, and nobody else. The anchor is asked, in the tunnel, to
//!   have a STUN answer sent there from its other port and by another super peer: who gets in? Only what the
//!   anchor confirms to have been sent counts as kept out.
//! - [`Socket::Hairpin`] and the first send to each other's outer endpoints.

mod careless;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::Rng;

use super::observers::{Observation, believed};
use super::ports::{Sequence, judge};
use super::{Dependence, Discovered, Gap, class};
use crate::document::NatClass;
use crate::id::NodeId;
use crate::stun::{self, Transaction};
use crate::timing::Instant;

/// All of it, silence included.
pub const LIMIT: Duration = Duration::from_millis(1400);
/// Super peers that take part.
pub const SERVERS: usize = 3;
/// A request without an answer is repeated after these times from its first sending (RFC 8489, section 6.2.1 is for
/// servers that one does not know; these have just answered in a tunnel).
const AGAIN: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(240),
    Duration::from_millis(420),
    Duration::from_millis(650),
    Duration::from_millis(950),
];
/// An anchor that has not answered by then gives its place to the next super peer.
const NEXT_ANCHOR: Duration = Duration::from_millis(450);
/// Reflections at the filter are asked for this often.
const ASK: Duration = Duration::from_millis(70);
/// So many confirmed and not arrived are enough to say that the filter keeps them out: with one packet in five lost, chance does
/// so once in 3,000 tries.
const ENOUGH: usize = 5;
/// So many must do when time is up.
const BARELY: usize = 3;
/// What was confirmed may still be on its way for so long, or for a round trip.
const GRACE: Duration = Duration::from_millis(120);
/// Tries of a hairpin; what comes back has not left the home, or the carrier's network.
const HAIRPIN_TRIES: usize = 4;
const HAIRPIN_AGAIN: Duration = Duration::from_millis(90);

/// One of the three fresh sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// Knows the anchor only.
    Filtering,
    /// Knows every super peer.
    Mapping,
    /// The other end of a hairpin.
    Hairpin,
}

impl Socket {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Filtering, Self::Mapping, Self::Hairpin];
}

/// A super peer that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Who.
    pub node: NodeId,
    /// Where it answers STUN: its main port.
    pub at: SocketAddr,
    /// Whether it can be asked in a tunnel, and so be the anchor.
    pub has_session: bool,
}

/// Who sent an answer to the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reflector {
    /// The anchor's other port.
    Alternate,
    /// A super peer that the filter has not seen.
    Stranger,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send this from one of the sockets.
    Send {
        /// Which.
        from: Socket,
        /// Where to.
        to: SocketAddr,
        /// A STUN message.
        bytes: Vec<u8>,
    },
    /// Ask a super peer, in the tunnel, to have STUN answers sent.
    Reflect {
        /// The anchor.
        anchor: NodeId,
        /// Of the answers.
        transaction: Transaction,
        /// Our outer endpoint.
        to: SocketAddr,
        /// Super peers that are no strangers.
        avoid: Vec<NodeId>,
    },
}

/// A request and its repetitions.
#[derive(Clone, Copy, Debug)]
struct Request {
    from: Socket,
    server: usize,
    to: SocketAddr,
    transaction: Transaction,
    begun: Instant,
    sent: usize,
    answer: Option<(SocketAddr, Instant)>,
}

/// Reflections of one kind.
#[derive(Debug, Default)]
struct Reflections {
    confirmed: BTreeSet<Transaction>,
    last: Option<Instant>,
    arrived: bool,
    /// The anchor says that it can't.
    impossible: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    servers: Vec<Server>,
    local: Vec<IpAddr>,
    begun: Instant,
    now: Instant,
    requests: Vec<Request>,
    anchors: Vec<usize>,
    /// The anchor that answered, our outer endpoint as it says, and since when.
    anchor: Option<(usize, SocketAddr, Instant)>,
    asked: BTreeSet<Transaction>,
    next_ask: Option<Instant>,
    alternate: Reflections,
    stranger: Reflections,
    hairpin: Hairpin,
}

#[derive(Debug, Default)]
struct Hairpin {
    transaction: Transaction,
    tries: usize,
    next: Option<Instant>,
    arrived: bool,
    over: bool,
}

impl Discovery {
    /// Begin. Those in a session go first among `servers`; of the others, those to whom we have no contact. `local`
    /// are our own addresses.
    #[must_use]
    pub fn new(mut servers: Vec<Server>, local: Vec<IpAddr>, now: Instant, rng: &mut impl Rng) -> Self {
        servers.truncate(SERVERS);
        let anchors = (0..servers.len()).filter(|at| servers[*at].has_session).collect();
        let mut hairpin = Hairpin::default();
        rng.fill_bytes(&mut hairpin.transaction);
        let mut discovery = Self {
            servers,
            local,
            begun: now,
            now,
            requests: Vec::new(),
            anchors,
            anchor: None,
            asked: BTreeSet::new(),
            next_ask: None,
            alternate: Reflections::default(),
            stranger: Reflections::default(),
            hairpin,
        };
        if let Some(first) = discovery.anchors.first().copied() {
            discovery.request(Socket::Filtering, first, discovery.servers[first].at, rng);
        }
        for server in 0..discovery.servers.len() {
            discovery.request(Socket::Mapping, server, discovery.servers[server].at, rng);
        }
        if !discovery.servers.is_empty() {
            let first = discovery.anchors.first().copied().unwrap_or(0);
            discovery.request(Socket::Hairpin, first, discovery.servers[first].at, rng);
        }
        discovery
    }

    fn request(&mut self, from: Socket, server: usize, to: SocketAddr, rng: &mut impl Rng) {
        let mut transaction = Transaction::default();
        rng.fill_bytes(&mut transaction);
        let begun = self.now;
        self.requests.push(Request { from, server, to, transaction, begun, sent: 0, answer: None });
    }

    /// A STUN answer came to one of the sockets.
    pub fn handle_answer(
        &mut self,
        socket: Socket,
        from: SocketAddr,
        answer: &stun::Answer,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.now = now;
        if answer.transaction == self.hairpin.transaction && self.hairpin.tries > 0 {
            self.hairpin.arrived = true;
        }
        if socket == Socket::Filtering && self.asked.contains(&answer.transaction) {
            return self.on_reflection(from);
        }
        let Some(at) = self.requests.iter().position(|request| {
            request.from == socket && request.transaction == answer.transaction && request.to == from
        }) else {
            return;
        };
        if self.requests[at].answer.is_some() {
            return;
        }
        self.requests[at].answer = Some((answer.mapped, now));
        let Request { from: socket, server, .. } = self.requests[at];
        match socket {
            Socket::Filtering if self.anchor.is_none() && self.is_newest(at) => {
                self.anchor = Some((server, answer.mapped, now));
                self.next_ask = Some(now);
            }
            Socket::Mapping => self.learn_alternate(server, answer.alternate, rng),
            Socket::Filtering | Socket::Hairpin => {}
        }
        self.begin_hairpin();
    }

    /// Whether no later anchor was asked.
    fn is_newest(&self, at: usize) -> bool {
        self.requests[at + 1..].iter().all(|request| request.from != Socket::Filtering)
    }

    /// A super peer's other port is asked as well.
    fn learn_alternate(&mut self, server: usize, port: Option<u16>, rng: &mut impl Rng) {
        let Some(port) = port else { return };
        let to = SocketAddr::new(self.servers[server].at.ip(), port);
        let known = |request: &Request| request.from == Socket::Mapping && request.to == to;
        if port != 0 && !self.requests.iter().any(known) {
            self.request(Socket::Mapping, server, to, rng);
        }
    }

    fn on_reflection(&mut self, from: SocketAddr) {
        let Some((anchor, ..)) = self.anchor.filter(|_| self.late_word().is_none()) else { return };
        let anchor = self.servers[anchor].at;
        if from.ip() != anchor.ip() {
            self.stranger.arrived = true;
        } else if from.port() != anchor.port() {
            self.alternate.arrived = true;
        }
    }

    /// A super peer confirms, in the tunnel, that an answer was sent past the filter; or that it can have none sent.
    pub fn handle_reflected(
        &mut self,
        anchor: NodeId,
        transaction: Transaction,
        by: Result<Reflector, Reflector>,
        now: Instant,
    ) {
        self.now = now;
        let is_anchor = self.anchor.is_some_and(|(at, ..)| self.servers[at].node == anchor);
        if !is_anchor || !self.asked.contains(&transaction) {
            return;
        }
        let (Ok(which) | Err(which)) = by;
        let reflections = match which {
            Reflector::Alternate => &mut self.alternate,
            Reflector::Stranger => &mut self.stranger,
        };
        reflections.impossible = by.is_err() && reflections.confirmed.is_empty();
        if by.is_ok() && reflections.confirmed.len() < ENOUGH {
            reflections.confirmed.insert(transaction);
            reflections.last = Some(now);
        }
    }

    /// Both ends of the hairpin know their outer endpoint.
    fn begin_hairpin(&mut self) {
        if self.hairpin.next.is_none()
            && !self.hairpin.over
            && self.hairpin_ends().is_some()
            && self.is_translated() == Some(true)
        {
            self.hairpin.next = Some(self.now);
        }
    }

    fn hairpin_ends(&self) -> Option<[SocketAddr; 2]> {
        let outer = |socket| {
            self.requests.iter().find(|request| request.from == socket && request.answer.is_some())?.answer
        };
        Some([outer(Socket::Mapping)?.0, outer(Socket::Hairpin)?.0])
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<Deed> {
        self.now = now;
        if self.is_over() {
            return Vec::new();
        }
        let mut deeds = Vec::new();
        self.replace_anchor(rng);
        self.ask_who_was_kept_out(rng);
        for request in &mut self.requests {
            if request.answer.is_none() && due(request).is_some_and(|at| at <= now) {
                request.sent = AGAIN.iter().filter(|pause| request.begun + **pause <= now).count();
                let bytes = stun::request(request.transaction);
                deeds.push(Deed::Send { from: request.from, to: request.to, bytes });
            }
        }
        if self.next_ask.is_some_and(|at| at <= now) {
            deeds.extend(self.ask(rng));
        }
        if self.hairpin.next.is_some_and(|at| at <= now) {
            deeds.extend(self.try_hairpin());
        }
        deeds
    }

    /// An anchor that does not answer, or that nobody else agrees with, gives way to the next one, once.
    fn replace_anchor(&mut self, rng: &mut impl Rng) {
        let tried = self.contacted().len();
        let late = self.anchor.is_none() && self.now >= self.begun + NEXT_ANCHOR;
        if tried == 1
            && (late || self.anchor_is_disbelieved())
            && let Some(next) = self.anchors.get(1).copied()
        {
            self.anchor = None;
            self.next_ask = None;
            self.asked.clear();
            (self.alternate, self.stranger) = (Reflections::default(), Reflections::default());
            self.request(Socket::Filtering, next, self.servers[next].at, rng);
        }
    }

    fn anchor_is_disbelieved(&self) -> bool {
        let believed = believed(&self.observations());
        self.anchor.is_some_and(|(_, at, _)| {
            !believed.is_empty() && believed.iter().all(|(other, _)| other.ip() != at.ip())
        })
    }

    fn ask(&mut self, rng: &mut impl Rng) -> Option<Deed> {
        let (anchor, to, _) = self.anchor?;
        if self.filtering_settled() {
            self.next_ask = None;
            return None;
        }
        self.next_ask = Some(self.now + ASK);
        let mut transaction = Transaction::default();
        rng.fill_bytes(&mut transaction);
        self.asked.insert(transaction);
        Some(Deed::Reflect { anchor: self.servers[anchor].node, transaction, to, avoid: self.contacted() })
    }

    /// Whom the filter may know: the anchors that it was opened for.
    fn contacted(&self) -> Vec<NodeId> {
        let asked = |request: &&Request| request.from == Socket::Filtering && !self.is_to_other_port(request);
        self.requests.iter().filter(asked).map(|request| self.servers[request.server].node).collect()
    }

    fn try_hairpin(&mut self) -> Vec<Deed> {
        let tries = self.hairpin.tries;
        let ends = self.hairpin_ends().filter(|_| tries < HAIRPIN_TRIES && !self.hairpin.arrived);
        let Some([mapping, hairpin]) = ends else {
            (self.hairpin.over, self.hairpin.next) = (true, None);
            return Vec::new();
        };
        self.hairpin.tries = tries + 1;
        self.hairpin.next = Some(self.now + HAIRPIN_AGAIN);
        let bytes = stun::answer(self.hairpin.transaction, mapping);
        let send = |from, to| Deed::Send { from, to, bytes: bytes.clone() };
        vec![send(Socket::Mapping, hairpin), send(Socket::Hairpin, mapping)]
    }

    /// When something is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let open = self.requests.iter().filter(|request| request.answer.is_none());
        let anchor = self.anchor.is_none().then_some(self.begun + NEXT_ANCHOR).filter(|at| *at > self.now);
        let settles =
            [&self.alternate, &self.stranger].map(|reflections| reflections.last.map(|at| at + self.grace()));
        open.filter_map(due)
            .chain(self.next_ask)
            .chain(self.hairpin.next)
            .chain(anchor)
            .chain(settles.into_iter().flatten().filter(|at| *at > self.now))
            .fold(self.begun + LIMIT, Instant::min)
    }

    /// Whether nothing more can be learnt, or time is up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let late = self.now >= self.begun + LIMIT;
        let answered = self.requests.iter().all(|request| request.answer.is_some());
        let hairpin = self.is_translated() == Some(false) || self.hairpin.arrived || self.hairpin.over;
        late || answered && hairpin && (self.anchors.is_empty() || self.filter_is_known())
    }

    fn grace(&self) -> Duration {
        let trips = self.requests.iter().filter_map(|request| Some(request.answer?.1.since(request.begun)));
        GRACE.max(trips.min().unwrap_or(GRACE))
    }

    /// Whether more reflections would teach nothing.
    fn filtering_settled(&self) -> bool {
        let settled = |reflections: &Reflections| {
            let enough = reflections.confirmed.len() >= ENOUGH;
            reflections.arrived
                || reflections.impossible && !self.asked.is_empty()
                || enough && reflections.last.is_some_and(|at| self.now >= at + self.grace())
        };
        self.stranger.arrived || settled(&self.alternate) && settled(&self.stranger)
    }

    /// What was found; final once [`Self::is_over`].
    #[must_use]
    pub fn result(&self) -> Discovered {
        let mut gaps = Vec::new();
        let seen = self.seen();
        let udp = self.requests.iter().any(|request| request.answer.is_some());
        let (mapping, sequence) = self.mapping(&seen, &mut gaps);
        let filtering = self.filtering(&mut gaps);
        let translated = self.is_translated();
        let class = if udp { class(translated, mapping, filtering, sequence) } else { NatClass::Unknown };
        if !udp {
            gaps = vec![Gap::NoAnswer];
        }
        let hairpin = (translated == Some(true) && self.hairpin.tries > 0).then_some(self.hairpin.arrived);
        let mut external: Vec<SocketAddr> = Vec::new();
        for (at, _) in believed(&self.observations()) {
            if !external.contains(&at) {
                external.push(at);
            }
        }
        gaps.sort_unstable();
        gaps.dedup();
        let (step, careless) = (sequence.step(), self.is_careless());
        Discovered { class, mapping, filtering, external, step, hairpin, careless, udp, gaps }
    }

    /// Round trips of the mapping socket's requests, first sending to answer.
    pub fn trips(&self) -> impl Iterator<Item = (NodeId, Duration)> + '_ {
        let mains = |request: &&Request| {
            request.from == Socket::Mapping
                && request.to == self.servers[request.server].at
                && request.sent <= 1
        };
        self.requests.iter().filter(mains).filter_map(|request| {
            Some((self.servers[request.server].node, request.answer?.1.since(request.begun)))
        })
    }

    /// Where each super peer that answered saw the mapping socket.
    #[must_use]
    pub fn observations(&self) -> Vec<Observation> {
        let answered = self.requests.iter().filter(|request| request.from == Socket::Mapping);
        answered
            .filter_map(|request| {
                let seen = request.answer?.0;
                Some(Observation { observer: request.to.ip(), seen })
            })
            .collect()
    }

    /// Outer endpoints by super peer: at its main port, and at its other one.
    fn seen(&self) -> BTreeMap<usize, (Option<SocketAddr>, Option<SocketAddr>)> {
        let mut seen = BTreeMap::<usize, (Option<SocketAddr>, Option<SocketAddr>)>::new();
        for request in self.requests.iter().filter(|request| request.from == Socket::Mapping) {
            let Some((mapped, _)) = request.answer else { continue };
            let (main, other) = seen.entry(request.server).or_default();
            *(if request.to == self.servers[request.server].at { main } else { other }) = Some(mapped);
        }
        seen
    }

    /// Whether the outside sees another address than ours; the majority's word.
    fn is_translated(&self) -> Option<bool> {
        let (own, other): (Vec<SocketAddr>, Vec<SocketAddr>) = self
            .seen()
            .values()
            .filter_map(|(main, other)| main.or(*other))
            .partition(|seen| self.local.contains(&seen.ip()));
        match own.len().cmp(&other.len()) {
            std::cmp::Ordering::Greater => Some(false),
            std::cmp::Ordering::Less => Some(true),
            std::cmp::Ordering::Equal => None,
        }
    }

    /// RFC 5780, section 4.3: the same socket, other destinations.
    fn mapping(
        &self,
        seen: &BTreeMap<usize, (Option<SocketAddr>, Option<SocketAddr>)>,
        gaps: &mut Vec<Gap>,
    ) -> (Dependence, Sequence) {
        if self.is_translated() == Some(false) {
            return (Dependence::Endpoint, Sequence::Unknown);
        }
        let mains: Vec<SocketAddr> = seen.values().filter_map(|(main, _)| *main).collect();
        let most =
            mains.iter().map(|at| mains.iter().filter(|other| *other == at).count()).max().unwrap_or(0);
        let both = || seen.values().filter_map(|(main, other)| Some((main.as_ref()?, other.as_ref()?)));
        let (same, differ) = (both().filter(|(a, b)| a == b).count(), both().filter(|(a, b)| a != b).count());
        if most >= 2 && most * 2 > mains.len() && differ <= same {
            return (Dependence::Endpoint, Sequence::Unknown);
        }
        let dependence = if differ > same {
            Dependence::AddressAndPort
        } else if mains.len() >= SERVERS && most == 1 && same >= 2 {
            Dependence::Address
        } else {
            let few = Gap::FewSuperPeers(u8::try_from(mains.len()).unwrap_or(u8::MAX));
            gaps.push(if mains.len() < 2 { few } else { Gap::Disagreement });
            Dependence::Unknown
        };
        let sequence =
            if dependence == Dependence::Unknown { Sequence::Unknown } else { judge(&self.ports()) };
        if dependence != Dependence::Unknown && sequence == Sequence::Unknown {
            gaps.push(Gap::FewSuperPeers(u8::try_from(mains.len()).unwrap_or(u8::MAX)));
        }
        (dependence, sequence)
    }

    /// Outer ports of all sockets, in the order in which the mappings were made.
    fn ports(&self) -> Vec<u16> {
        let believed: BTreeSet<IpAddr> =
            believed(&self.observations()).into_iter().map(|(at, _)| at.ip()).collect();
        let mut ports: Vec<u16> = Vec::new();
        for (mapped, _) in self.requests.iter().filter_map(|request| request.answer) {
            if believed.contains(&mapped.ip()) && !ports.contains(&mapped.port()) {
                ports.push(mapped.port());
            }
        }
        ports
    }

    /// RFC 5780, section 4.4: one contact, and others who send.
    fn filtering(&self, gaps: &mut Vec<Gap>) -> Dependence {
        let kept_out =
            |reflections: &Reflections| !reflections.arrived && reflections.confirmed.len() >= BARELY;
        if self.anchor_is_disbelieved() {
            gaps.push(Gap::Disagreement);
            return Dependence::Unknown;
        }
        if self.stranger.arrived {
            // Of only two super peers the second is no stranger: another socket of ours has spoken to it.
            if self.servers.len() >= SERVERS {
                return Dependence::Endpoint;
            }
            gaps.push(Gap::FewSuperPeers(u8::try_from(self.servers.len()).unwrap_or(u8::MAX)));
            return Dependence::Unknown;
        }
        if self.alternate.arrived && kept_out(&self.stranger) {
            return Dependence::Address;
        }
        if kept_out(&self.alternate) {
            return Dependence::AddressAndPort;
        }
        gaps.push(match (self.anchor, self.alternate.impossible, self.stranger.impossible) {
            (None, ..) => Gap::FewSuperPeers(0),
            (_, true, _) => Gap::NoAlternatePort,
            (_, _, true) => Gap::NoStranger,
            _ => Gap::Lossy,
        });
        Dependence::Unknown
    }
}

/// When a request that was not answered is sent again.
fn due(request: &Request) -> Option<Instant> {
    AGAIN.get(request.sent).map(|pause| request.begun + *pause)
}

#[cfg(test)]
mod tests;
