//! The survey: which NAT stands in front of this node.
//!
//! Owns: when the class is looked for, with which super peers and by which sockets, and what follows from the result.
//! How it is found is [`crate::nat::discovery`]'s.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::Rng;

use super::{Answer, Failed, Netcheck, Node, Output, RequestId, ServerView};
use crate::document::{CandidateKind, NatClass};
use crate::guess::Ports;
use crate::id::NodeId;
use crate::locator::{DoorId, Endpoint, Locator, Via};
use crate::nat::discovery::{Deed, Discovery, SERVERS, Server, Socket};
use crate::nat::observers::{Network, Observation};
use crate::nat::{Discovered, Gap};
use crate::stun;
use crate::timing::Instant;
use crate::wire::control::{Message, Reflected};

/// Homes come up one after the other, and tell of further super peers: look once for all of them.
const SETTLE: Duration = Duration::from_millis(300);
/// By itself a node looks at most this often in [`WINDOW`]: once a minute, and a few times in a row when links flap.
const OFTEN: usize = 3;
const WINDOW: Duration = Duration::from_secs(180);
/// A class that could not be found is looked for again after this time, four times as long after each further failure, up
/// to the longest: a machine is busy and super peers are not yet known for seconds, a line is bad for hours.
const RETRY: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(960));
/// Whoever asks gets a result that is no older than this.
const FRESH: Duration = Duration::from_secs(5);
/// Users who wait for one result.
const WAITING: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Survey {
    running: Option<Discovery>,
    servers: Vec<Server>,
    found: Discovered,
    finished: Option<Instant>,
    /// Round trips of STUN, by super peer.
    trips: BTreeMap<NodeId, Duration>,
    /// When a look by itself is due.
    due: Option<Instant>,
    /// When the last ones began.
    begun: VecDeque<Instant>,
    failures: u32,
    waiting: Vec<RequestId>,
    /// Whether a home was heard over UDP when it was last looked at.
    heard: Option<bool>,
    pub(super) observations: Vec<Observation>,
}

impl Survey {
    /// What is known.
    pub(super) const fn class(&self) -> NatClass {
        self.found.class
    }

    /// Whether any answer came over UDP last time.
    pub(super) const fn hears_udp(&self) -> bool {
        self.found.udp
    }

    /// Whether the router takes for its own what comes in too early.
    pub(super) fn is_careless(&self) -> bool {
        self.found.careless == Some(true)
    }

    /// How our NAT chooses ports.
    pub(super) fn ports(&self) -> Ports {
        self.found.ports()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().map(Discovery::poll_timeout).or(self.due)
    }

    /// Look again soon: something has changed.
    pub(super) fn soon(&mut self, now: Instant) {
        while self.begun.front().is_some_and(|begun| now.since(*begun) >= WINDOW) {
            self.begun.pop_front();
        }
        let allowed = (self.begun.len() >= OFTEN).then(|| self.begun[self.begun.len() - OFTEN] + WINDOW);
        let at = allowed.map_or(now + SETTLE, |at| at.max(now + SETTLE));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

const fn door(socket: Socket) -> DoorId {
    DoorId(DoorId::SURVEY.0 + socket as u16)
}

fn socket(door: DoorId) -> Option<Socket> {
    Socket::ALL.into_iter().find(|socket| self::door(*socket) == door)
}

impl Node {
    /// A home came up: another super peer can be asked.
    pub(super) fn survey_with_new_home(&mut self) {
        if self.survey.class() == NatClass::Unknown {
            self.survey.soon(self.now.instant);
        }
    }

    /// Our addresses changed, and with them what stands in front of them.
    pub(super) fn survey_anew(&mut self) {
        self.survey.soon(self.now.instant);
    }

    /// The homes are heard over UDP again, or not any more: what was found before may be over.
    pub(super) fn survey_if_udp_changed(&mut self) {
        let paths = self.homes.ids().filter_map(|home| self.peers.get(&home)?.path());
        let by_udp = paths.filter(Locator::is_direct).map(|path| path.endpoint().is_main());
        let Some(heard) = by_udp.reduce(|one, other| one || other) else { return };
        let changed = self.survey.heard.replace(heard).is_some_and(|before| before != heard);
        let wrong = heard && self.survey.class() == NatClass::UdpBlocked;
        if (changed || wrong) && self.survey.running.is_none() {
            self.survey.soon(self.now.instant);
        }
    }

    pub(super) fn on_survey_timeout(&mut self) {
        let now = self.now.instant;
        if self.survey.running.is_none() && self.survey.due.is_some_and(|due| due <= now) {
            self.survey.due = None;
            self.begin_survey();
        }
        let Some(running) = &mut self.survey.running else { return };
        let deeds = running.handle_timeout(now, &mut self.rng);
        for deed in deeds {
            self.carry_out_survey(deed);
        }
        self.finish_survey();
    }

    fn begin_survey(&mut self) {
        let now = self.now.instant;
        let servers = self.survey_servers();
        if servers.is_empty() {
            return;
        }
        if self.survey.begun.len() >= OFTEN {
            self.survey.begun.pop_front();
        }
        self.survey.begun.push_back(now);
        self.survey.servers.clone_from(&servers);
        for socket in Socket::ALL {
            self.outputs.push_back(Output::OpenDoor(door(socket)));
        }
        let local = self.presence.local().iter().map(|at| at.ip().to_canonical()).collect();
        self.survey.running = Some(Discovery::new(servers, local, now, &mut self.rng));
    }

    /// Super peers to ask: those in a session first, then, as a stranger, one that we have none with; in different networks
    /// where possible, since such ones are believed more.
    fn survey_servers(&mut self) -> Vec<Server> {
        let me = self.me.passport.node;
        let known: Vec<NodeId> =
            self.homes.known().map(|place| place.passport.node).filter(|node| *node != me).collect();
        let mut all: Vec<(bool, u32, Server)> = Vec::new();
        for node in known {
            let Some(at) = self.stun_address(&node) else { continue };
            let has_session =
                self.peers.get(&node).is_some_and(|peer| peer.path().is_some() && peer.has_session());
            all.push((has_session, self.rng.next_u32(), Server { node, at, has_session }));
        }
        all.sort_unstable_by_key(|(has_session, chance, _)| (!has_session, *chance));
        let mut chosen: Vec<Server> = Vec::new();
        while chosen.len() < SERVERS {
            let sessions = chosen.iter().filter(|server| server.has_session).count();
            let rank = |server: &Server| {
                let same_address = chosen.iter().any(|other| other.at.ip() == server.at.ip());
                let near =
                    chosen.iter().any(|other| Network::of(other.at.ip()) == Network::of(server.at.ip()));
                // Two that can be asked, then one that has not heard of us.
                let wanted = if sessions < 2 { server.has_session } else { !server.has_session };
                (same_address, !wanted, near)
            };
            let next = (0..all.len()).min_by_key(|at| rank(&all[*at].2));
            let Some(next) = next.filter(|next| !rank(&all[*next].2).0) else { break };
            chosen.push(all.remove(next).2);
        }
        chosen
    }

    /// Where a super peer answers STUN over IPv4, which is what our further sockets speak.
    fn stun_address(&self, node: &NodeId) -> Option<SocketAddr> {
        let direct = self.peers.get(node).and_then(crate::peer::Peer::direct_remote);
        let direct = direct.filter(Endpoint::is_main).map(|remote| remote.at);
        let place = self.homes.place(node)?;
        let candidates = place.whereabouts.candidates.iter().filter(|c| c.kind != CandidateKind::Relay);
        let mut places = candidates.map(|candidate| candidate.at).filter(SocketAddr::is_ipv4);
        direct.filter(SocketAddr::is_ipv4).or_else(|| places.next())
    }

    fn carry_out_survey(&mut self, deed: Deed) {
        match deed {
            Deed::Send { from, to, bytes } => {
                let to = Endpoint::by_door(door(from), to);
                self.outputs.push_back(Output::Transmit { to, bytes });
            }
            Deed::Reflect { anchor, transaction, to, avoid } => {
                self.send(anchor, &Message::Reflect { transaction, to, avoid });
            }
        }
    }

    /// A STUN message that forwarding did not answer.
    pub(super) fn on_stun(&mut self, from: Endpoint, bytes: &[u8]) {
        let asked =
            if from.via == Via::Door(DoorId::STUN) { stun::Port::Alternate } else { stun::Port::Main };
        match stun::Errand::read(bytes, asked) {
            Some(errand) => self.serve_change_of_address(from, errand),
            None => self.on_stun_answer(from, bytes),
        }
    }

    /// A STUN answer came in, perhaps to a question of ours.
    fn on_stun_answer(&mut self, from: Endpoint, bytes: &[u8]) {
        let now = self.now.instant;
        let Via::Door(door) = from.via else { return self.drop(crate::verdict::Drop::UnknownFrame) };
        let Some(answer) = stun::Answer::read(bytes) else {
            return self.drop(crate::verdict::Drop::UnknownFrame);
        };
        let Some(socket) = socket(door) else { return self.on_seen_at_door(&answer) };
        let Some(running) = &mut self.survey.running else { return };
        running.handle_answer(socket, from.at, &answer, now, &mut self.rng);
        self.on_survey_timeout();
    }

    /// A super peer says what it did for the survey.
    pub(super) fn on_reflected(&mut self, by: NodeId, transaction: stun::Transaction, reflected: Reflected) {
        let now = self.now.instant;
        let Some(running) = &mut self.survey.running else { return };
        running.handle_reflected(by, transaction, reflected.into(), now);
        self.on_survey_timeout();
    }

    fn finish_survey(&mut self) {
        let now = self.now.instant;
        let Some(running) = self.survey.running.take_if(|running| running.is_over()) else { return };
        for socket in Socket::ALL {
            self.outputs.push_back(Output::CloseDoor(door(socket)));
        }
        let mut found = running.result();
        if !found.udp && self.is_heard_by_stream() {
            found.class = NatClass::UdpBlocked;
            found.gaps.clear();
        }
        let survey = &mut self.survey;
        survey.trips = running.trips().collect();
        survey.observations = running.observations();
        survey.finished = Some(now);
        let class_before = std::mem::replace(&mut survey.found, found).class;
        if survey.class() == NatClass::Unknown {
            let again = (RETRY.0 * (1 << (2 * survey.failures.min(5)))).min(RETRY.1);
            survey.failures += 1;
            // A super peer that came up meanwhile is asked sooner.
            survey.due = Some(survey.due.map_or(now + again, |due| due.min(now + again)));
        } else {
            survey.failures = 0;
        }
        self.presence.surveyed(survey.observations.clone(), now);
        if class_before != self.survey.class() {
            self.presence.homes_changed(now);
        }
        self.answer_netchecks();
    }

    /// Whether super peers are heard, though not by UDP.
    fn is_heard_by_stream(&self) -> bool {
        let mut paths = self.homes.ids().filter_map(|home| self.peers.get(&home)?.path());
        paths.any(|path| path.is_direct() && matches!(path.endpoint().via, Via::Stream(_)))
    }

    /// A user wants to know; the answer comes from a look and a trial that have just ended, or end soon.
    pub(super) fn netcheck(&mut self, id: RequestId) {
        let now = self.now.instant;
        let fresh = self.survey.finished.is_some_and(|at| now.since(at) < FRESH);
        if self.survey.running.is_none() && !(fresh && self.survey.class() != NatClass::Unknown) {
            self.begin_survey();
            if self.survey.running.is_none() {
                self.survey.found = Discovered { gaps: vec![Gap::FewSuperPeers(0)], ..Discovered::default() };
            }
        }
        self.begin_trial();
        if self.survey.waiting.len() >= WAITING {
            return self.outputs.push_back(Output::Answer(id, Answer::Failed(Failed::Busy)));
        }
        self.survey.waiting.push(id);
        self.on_survey_timeout();
        self.answer_netchecks();
    }

    /// Answers those who wait, once there is nothing to wait for.
    pub(super) fn answer_netchecks(&mut self) {
        if self.survey.running.is_none() && !self.trial.is_running() {
            for id in std::mem::take(&mut self.survey.waiting) {
                self.answer_netcheck(id);
            }
        }
    }

    fn answer_netcheck(&mut self, id: RequestId) {
        let mut external = self.presence.observed();
        if external.is_empty() {
            external.clone_from(&self.survey.found.external);
        }
        let found = self.survey.found.clone();
        let (servers, tried) = (self.server_views(), self.reached_over_tcp());
        let mapped = self.presence.mapped();
        let view = Netcheck { found, external, mapped, servers, tried };
        self.outputs.push_back(Output::Answer(id, Answer::Netcheck(Box::new(view))));
    }

    /// Super peers by their round trip, those that do not answer last.
    fn server_views(&self) -> Vec<ServerView> {
        let mut views: Vec<ServerView> = Vec::new();
        for place in self.homes.known() {
            let node = place.passport.node;
            let home = self.homes.ids().any(|home| home == node);
            let asked = self.survey.servers.iter().any(|server| server.node == node);
            if home || asked || self.trial.concerns(&node) {
                let path = self.peers.get(&node).and_then(|peer| peer.paths.selected()?.rtt());
                let rtt = path.filter(|_| home).or_else(|| self.survey.trips.get(&node).copied());
                views.push(ServerView { name: place.passport.name.clone(), rtt });
            }
        }
        views.sort_by_key(|view| (view.rtt.is_none(), view.rtt));
        views
    }
}
