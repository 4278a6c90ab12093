//! The world: hosts, the Internet between them, and virtual time.
//!
//! Owns: [`World`]: the events in the order of their time, and the deadlines that nodes report. Time advances to the
//! next event or deadline and nowhere else; only the node concerned is polled. Never: a decision of a node.

mod crossing;
mod currents;
mod story;

mod letters;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use frejus_overlay::forward::Exception;
use frejus_overlay::locator::{DoorId, Endpoint, Via};
use frejus_overlay::node::{Node, Output, Request, RequestId};
use frejus_overlay::port::Reply;
use frejus_overlay::stun::Here;
use frejus_overlay::timing::Instant;

use crate::crypto::{Clock, ModelCrypto};
use crate::dice::Dice;
use crate::directory::{Asker, Directory};
use crate::forwarding::{Deed, Forwarding};
use crate::host::{Host, Traffic};
use crate::internet::{Fate, Flight, HostId, Internet};
use crate::laws::Laws;
use crate::link::{HEADERS, Quality};
use crate::trace::{Note, Trace};

use crossing::{Crossed, Crossings};
use currents::{Current, Currents};

/// The lowest port of a further socket.
const EPHEMERAL: u16 = 32768;

/// What will happen.
enum Happening {
    /// A datagram reaches the site it flew to.
    Arrival(Flight, Arc<[u8]>),
    /// The directory answers a host in this life.
    Reply(HostId, u32, Reply),
    /// A stream's next letter.
    Tick(usize),
    /// Something about a TCP connection.
    Current(Current),
    /// Something about ports that connect to each other.
    Crossed(Crossed),
}

/// Letters sent at a fixed interval.
struct Stream {
    from: HostId,
    to: HostId,
    every: Duration,
    until: Instant,
    numbers: Vec<u64>,
}

/// A stream of letters, by which its numbers are found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(usize);

/// A letter that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Instant,
    /// By whom.
    pub from: HostId,
    /// To whom.
    pub to: HostId,
}

/// Everything.
pub struct World {
    /// What all of it follows from.
    pub seed: u64,
    /// The machines.
    pub hosts: Vec<Host>,
    /// Between them.
    pub internet: Internet,
    /// What super peers keep.
    pub directory: Directory,
    /// What happened.
    pub trace: Trace,
    /// What must hold.
    pub laws: Laws,
    now: Instant,
    clock: Clock,
    events: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    deadlines: BTreeSet<(Instant, HostId)>,
    wakes: BTreeMap<HostId, Instant>,
    streams: Vec<Stream>,
    letters: BTreeMap<u64, Sent>,
    requests: RequestId,
    names: BTreeMap<String, HostId>,
    /// Pairs between which nothing passes, for the directory's sake.
    severed: BTreeSet<(HostId, HostId)>,
    dice: Dice,
    currents: Currents,
    crossings: Crossings,
}

impl World {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(seed: u64, hosts: Vec<Host>, internet: Internet, directory: Directory) -> Self {
        let names = hosts.iter().enumerate().map(|(at, host)| (host.name.clone(), HostId(at))).collect();
        Self {
            seed,
            hosts,
            internet,
            directory,
            trace: Trace::default(),
            laws: Laws::default(),
            now: Instant::ZERO,
            clock: Clock::default(),
            events: BTreeMap::new(),
            sequence: 0,
            deadlines: BTreeSet::new(),
            wakes: BTreeMap::new(),
            streams: Vec::new(),
            letters: BTreeMap::new(),
            requests: 0,
            names,
            severed: BTreeSet::new(),
            dice: Dice::new(seed, "world"),
            currents: Currents::default(),
            crossings: Crossings::default(),
        }
    }

    /// What time it is.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Randomness for a story.
    pub const fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// The clock that models share.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The host of this name.
    #[must_use]
    pub fn id(&self, name: &str) -> HostId {
        *self.names.get(name).unwrap_or_else(|| panic!("no host is called {name}"))
    }

    /// The host of this name.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        &self.hosts[self.id(name).0]
    }

    /// Every host, by its name.
    pub fn names(&self) -> impl Iterator<Item = (&str, HostId)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id))
    }
}

/// Time.
impl World {
    /// Let the next thing happen, if it is not later than `limit`.
    fn step(&mut self, limit: Instant) -> bool {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let next = [event, deadline].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= limit) else {
            self.set_time(limit);
            return false;
        };
        self.set_time(next.max(self.now));
        if event == Some(next) {
            let (_, happening) = self.events.pop_first().expect("the event just seen");
            self.happen(happening);
        } else {
            let (_, host) = self.deadlines.pop_first().expect("the deadline just seen");
            self.wakes.remove(&host);
            let now = self.hosts[host.0].now(self.now);
            self.input(host, true, |node| node.handle_timeout(now));
        }
        true
    }

    fn set_time(&mut self, now: Instant) {
        self.laws.on_time(now);
        self.now = now;
        self.clock.set(now);
    }

    /// Let time pass.
    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now + time;
        while self.step(limit) {}
    }

    /// Let time pass until something is so; how long that took, or `None` if `patience` was not enough.
    pub fn run_until(&mut self, patience: Duration, so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (begun, limit) = (self.now, self.now + patience);
        loop {
            if so(self) {
                return Some(self.now.since(begun));
            }
            if !self.step(limit) {
                return so(self).then(|| self.now.since(begun));
            }
        }
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(flight, bytes) => self.arrive(&flight, &bytes),
            Happening::Reply(host, life, reply) => {
                let alive = self.hosts[host.0].lives == life && self.directory.is_wanted(host, &reply);
                if alive {
                    let now = self.hosts[host.0].now(self.now);
                    self.input(host, false, |node| node.handle_reply(reply, now));
                }
            }
            Happening::Tick(stream) => self.tick(stream),
            Happening::Current(current) => self.on_current(current),
            Happening::Crossed(what) => self.on_crossed(what),
        }
    }
}

/// Nodes.
impl World {
    /// Begin a life of this host's node. It may refuse; then [`Host::refused`] says why.
    pub fn start(&mut self, id: HostId) {
        let (seed, clock, at) = (self.seed, self.clock.clone(), self.now);
        let host = &mut self.hosts[id.0];
        assert!(host.node.is_none(), "{} runs already", host.name);
        host.lives += 1;
        host.forwarding = Forwarding::default();
        let config = host.config(seed).expect("enrolled");
        let purpose = format!("crypto of life {} of {}", host.lives, host.name);
        let tunnel_key = host.disk.as_ref().expect("enrolled").keys.tunnel_key;
        let crypto = ModelCrypto::new(tunnel_key, Dice::new(seed, &purpose), clock, host.began());
        let crypto = crypto.carrying(host.policy);
        let node_id = host.disk.as_ref().expect("enrolled").keys.node();
        let (advertised, counters) = (host.advertised, Arc::clone(&host.forwarding.counters));
        match Node::new(config, Box::new(crypto), counters, host.now(at)) {
            Ok(node) => host.node = Some(node),
            Err(invalid) => {
                host.refused = Some(invalid);
                return;
            }
        }
        let (now, address) = (host.now(at), host.address);
        if advertised {
            let port = address.port() + 2;
            host.open_door(DoorId::STUN, port);
            let ip = Some(address.ip());
            let (main, alternate) = (address.port(), Some(port));
            let here = Here { address: ip, main, alternate, ..Here::ALONE };
            host.forwarding.stun = Some(here);
        }
        if let Some(node) = &mut host.node {
            node.set_alternate_port(advertised);
        }
        self.directory.introduce(node_id, id);
        if advertised {
            self.directory.serve(id);
        }
        self.input(id, false, |_| ());
        self.input(id, false, |node| node.handle_links(vec![address], now));
    }

    /// `kill -9`: the node is gone, its disk stays.
    pub fn kill(&mut self, id: HostId) {
        self.hosts[id.0].node = None;
        self.close_streams_of(id);
        self.hosts[id.0].doors.clear();
        self.hosts[id.0].forwarding = Forwarding::default();
        self.directory.leave(id);
        if let Some(wake) = self.wakes.remove(&id) {
            self.deadlines.remove(&(wake, id));
        }
        self.trace.note(self.now, Note::Said(id, "killed".to_owned()));
    }

    /// A user asks a node.
    pub fn request(&mut self, id: HostId, request: Request) -> RequestId {
        self.requests += 1;
        let (number, now) = (self.requests, self.hosts[id.0].now(self.now));
        self.input(id, false, |node| node.handle_request(number, request, now));
        number
    }

    /// One input of one node, all that follows from it on this host, and the node's next deadline.
    pub(crate) fn input(&mut self, id: HostId, is_timeout: bool, handle: impl FnOnce(&mut Node)) {
        let host = &mut self.hosts[id.0];
        let Some(node) = host.node.as_mut().filter(|_| !host.is_asleep) else { return };
        handle(node);
        let mut deeds = VecDeque::new();
        self.drain(id, is_timeout, &mut deeds);
        self.carry_out(id, deeds);
    }

    /// Deeds in their order; those that ask control lead to further ones.
    fn carry_out(&mut self, id: HostId, mut deeds: VecDeque<Deed>) {
        while let Some(deed) = deeds.pop_front() {
            match deed {
                Deed::Send(to, bytes) => self.transmit_by(id, to, &bytes, None),
                Deed::SendNear(to, bytes, hops) => self.transmit_by(id, to, &bytes, Some(hops)),
                Deed::Tun(packet) => {
                    if let Some(reply) = self.hosts[id.0].mail.take(&packet, self.now) {
                        deeds.extend(self.hosts[id.0].forwarding.outward(&reply));
                    }
                }
                Deed::Ask(exception) => self.ask(id, exception, &mut deeds),
            }
        }
    }

    fn ask(&mut self, id: HostId, exception: Exception, deeds: &mut VecDeque<Deed>) {
        let now = self.hosts[id.0].now(self.now);
        if let Some(node) = self.hosts[id.0].node.as_mut() {
            node.handle_exception(exception, now);
            self.drain(id, false, deeds);
        }
    }

    fn drain(&mut self, id: HostId, is_timeout: bool, deeds: &mut VecDeque<Deed>) {
        let mut outputs = 0;
        loop {
            let Some(node) = self.hosts[id.0].node.as_mut() else { return };
            let deadline = node.poll_timeout();
            let Some(output) = node.poll_output() else {
                self.laws.on_drained(id, outputs, is_timeout, deadline);
                self.rearm(id, deadline);
                return;
            };
            self.laws.on_queued(id, deadline);
            outputs += 1;
            self.on_output(id, output, deeds);
        }
    }

    fn rearm(&mut self, id: HostId, deadline: Option<Instant>) {
        let old = self.wakes.get(&id).copied();
        if old == deadline {
            return;
        }
        if let Some(old) = old {
            self.deadlines.remove(&(old, id));
            self.wakes.remove(&id);
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
            self.wakes.insert(id, deadline);
        }
    }

    fn on_output(&mut self, id: HostId, output: Output, deeds: &mut VecDeque<Deed>) {
        let host = &mut self.hosts[id.0];
        match output {
            Output::Transmit { to, bytes } => deeds.push_back(Deed::Send(to, bytes)),
            Output::TransmitNear { to, bytes, hops } => deeds.push_back(Deed::SendNear(to, bytes, hops)),
            Output::OpenDoor(door) => {
                let port = EPHEMERAL + self.dice.below(u64::from(u16::MAX - EPHEMERAL)) as u16;
                host.open_door(door, port);
            }
            Output::CloseDoor(door) => _ = host.doors.remove(&door),
            Output::OpenStream { id: stream, to } => self.open_stream(id, stream, &to),
            Output::BeginCrossing { id: stream, ask } => self.begin_crossing(id, stream, &ask),
            Output::Cross { id: stream, across } => self.cross(id, stream, across),
            Output::CloseStream(stream) => self.close_stream(id, stream),
            Output::TryStreams(to) => self.try_streams(id, &to),
            Output::TrustStream(stream) => self.trust_stream(id, stream),
            Output::ToTun(packet) => deeds.push_back(Deed::Tun(packet)),
            Output::Table(table) => host.forwarding.table = Some(table),
            Output::Persist(what) => host.persist(what),
            Output::Event(event) => {
                self.trace.note(self.now, Note::Said(id, format!("{event:?}")));
                host.events.push((self.now, event));
            }
            Output::Answer(number, answer) => {
                self.trace.note(self.now, Note::Said(id, format!("answers {number}: {answer:?}")));
                host.answers.insert(number, (self.now, answer));
            }
            Output::Command(command) => {
                let (life, unix) = (host.lives, host.now(self.now).unix);
                let asker = Asker { host: id, now: self.now, unix };
                let (hosts, severed) = (&self.hosts, &self.severed);
                let reaches = |one: HostId, other: HostId| {
                    let up = |host: HostId| hosts[host.0].node.is_some();
                    up(one) && up(other) && !severed.contains(&(one.min(other), one.max(other)))
                };
                for (delay, reply) in self.directory.command(asker, command, reaches) {
                    self.schedule(self.now + delay, Happening::Reply(id, life, reply));
                }
            }
        }
    }
}

/// Datagrams.
impl World {
    /// Send a datagram from a host's own address, whoever made it.
    pub fn transmit(&mut self, from: HostId, to: SocketAddr, bytes: &[u8]) {
        self.transmit_by(from, to.into(), bytes, None);
    }

    /// Send a datagram by one of the host's sockets, perhaps with a hop limit.
    fn transmit_by(&mut self, from: HostId, to: Endpoint, bytes: &[u8], hops: Option<u8>) {
        if let Via::Stream(stream) = to.via {
            return self.send_along(from, stream, bytes);
        }
        let Some(source) = self.hosts[from.0].socket(to.via) else { return };
        let to = to.at;
        if self.is_udp_blocked(from) {
            return self.trace.note(self.now, Note::Refused(Fate::Filtered, source, to));
        }
        self.laws.on_sent(from, bytes);
        self.trace.sent(self.now, from, to, bytes);
        let host = &mut self.hosts[from.0];
        if host.is_unplugged {
            return;
        }
        host.traffic.out += (bytes.len() + HEADERS) as u64;
        let (place, length) = ((from, host.realm), bytes.len());
        let outcome = match hops {
            None => self.internet.depart(place, source, to, length, self.now),
            Some(hops) => self.internet.depart_near(place, (source, to), hops, length, self.now),
        };
        let bytes: Arc<[u8]> = bytes.into();
        self.trace.note(self.now, Note::Sent(from, to, Arc::clone(&bytes), outcome.as_ref().err().copied()));
        if let Ok(flight) = outcome {
            self.schedule(flight.arrival, Happening::Arrival(flight, bytes));
        }
    }

    fn arrive(&mut self, flight: &Flight, bytes: &Arc<[u8]>) {
        match self.internet.arrive(flight) {
            Ok((id, from, to)) if self.is_udp_blocked(id) => {
                self.trace.note(self.now, Note::Refused(Fate::Filtered, from, to));
            }
            Ok((id, from, to)) => {
                if let Some(from) = self.hosts[id.0].endpoint(from, to) {
                    self.deliver(id, from, bytes);
                }
            }
            Err(fate) => self.trace.note(self.now, Note::Refused(fate, flight.source, flight.to)),
        }
    }

    /// A datagram reaches a host's socket, as if from there: what an attacker who can forge a source does.
    pub fn receive(&mut self, id: HostId, from: SocketAddr, bytes: &[u8]) {
        self.deliver(id, from.into(), &bytes.into());
    }

    fn deliver(&mut self, id: HostId, from: Endpoint, bytes: &Arc<[u8]>) {
        self.trace.note(self.now, Note::Arrived(id, from.at, Arc::clone(bytes)));
        let host = &mut self.hosts[id.0];
        if host.is_asleep || host.is_unplugged {
            return;
        }
        host.traffic.inward += (bytes.len() + HEADERS) as u64;
        if host.node.is_none() {
            if host.disk.is_none() {
                host.unclaimed.push((from.at, bytes.to_vec()));
            }
            return;
        }
        let deeds = host.forwarding.inward(from, bytes, self.now);
        self.carry_out(id, deeds.into());
    }

    /// What a host has sent and received so far.
    #[must_use]
    pub fn traffic(&self, name: &str) -> Traffic {
        self.host(name).traffic
    }
}

/// Trouble.
impl World {
    /// Cut or mend what lies directly between two hosts.
    pub fn set_cut(&mut self, one: &str, other: &str, cut: bool) {
        let (one, other) = (self.id(one), self.id(other));
        let place = |id: HostId| (id, self.hosts[id.0].realm);
        let ends = self.internet.meeting(place(one), place(other));
        for link in self.internet.links(ends) {
            link.cut = cut;
        }
        let pair = (one.min(other), one.max(other));
        if cut {
            self.severed.insert(pair)
        } else {
            self.severed.remove(&pair)
        };
        let what = if cut { "cut from" } else { "mended with" };
        self.trace.note(self.now, Note::Said(one, format!("{what} {}", self.hosts[other.0].name)));
    }

    /// Cut or mend one direction of what lies directly between two hosts.
    pub fn set_one_way(&mut self, from: &str, to: &str, cut: bool) {
        let (from, to) = (self.id(from), self.id(to));
        let place = |id: HostId| (id, self.hosts[id.0].realm);
        let ends = self.internet.meeting(place(from), place(to));
        self.internet.link(ends).cut = cut;
    }

    /// Change what lies directly between two hosts, in both directions.
    pub fn set_quality(&mut self, one: &str, other: &str, quality: Quality) {
        let (one, other) = (self.id(one), self.id(other));
        let place = |id: HostId| (id, self.hosts[id.0].realm);
        let ends = self.internet.meeting(place(one), place(other));
        for link in self.internet.links(ends) {
            link.quality = quality;
        }
    }

    /// Suspend a host: whatever is sent to it is lost.
    pub fn sleep(&mut self, id: HostId) {
        self.hosts[id.0].is_asleep = true;
    }

    /// It wakes up: first of all its node sees what time it is.
    pub fn wake(&mut self, id: HostId) {
        self.hosts[id.0].is_asleep = false;
        let now = self.hosts[id.0].now(self.now);
        self.input(id, true, |node| node.handle_timeout(now));
    }

    /// Pull the host's cable out; its node is told.
    pub fn unplug(&mut self, id: HostId) {
        self.hosts[id.0].is_unplugged = true;
        let now = self.hosts[id.0].now(self.now);
        self.input(id, false, |node| node.handle_links(Vec::new(), now));
    }

    /// Plug it in again.
    pub fn plug(&mut self, id: HostId) {
        self.hosts[id.0].is_unplugged = false;
        let (now, address) = (self.hosts[id.0].now(self.now), self.hosts[id.0].address);
        self.input(id, false, |node| node.handle_links(vec![address], now));
    }

    /// The host's interface gets another address, perhaps elsewhere; its node is told.
    pub fn relocate(&mut self, id: HostId, realm: crate::internet::RealmId, address: SocketAddr) {
        let v4 = |at: SocketAddr| match at.ip() {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => panic!("the physical world is IPv4"),
        };
        let (old_realm, old) = (self.hosts[id.0].realm, self.hosts[id.0].address);
        self.internet.detach(old_realm, v4(old));
        self.internet.attach(id, realm, v4(address));
        let host = &mut self.hosts[id.0];
        (host.realm, host.address) = (realm, address);
        host.doors.values_mut().for_each(|at| at.set_ip(address.ip()));
        let now = self.hosts[id.0].now(self.now);
        self.input(id, false, |node| node.handle_links(vec![address], now));
    }
}
