//! Punching: trying addresses of a peer that have not answered yet, from both sides at once.
//!
//! Owns: which addresses to try, when, and how often. The session stands already (over a relay), so every try is a
//! probe sealed in it, and whoever answers is the peer. Never: a path that has answered.
//!
//! One burst is a few probes to every target within half a second; the peer is told at the start of each, so that it
//! does the same (RFC 8445, section 6.1.4 has the pacing; 97.6 % of punches that succeed do so in the first round).
//! Bursts are repeated with growing pauses, for ever, while data flows.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::doctor::{Side, Tried};
use crate::document::{Candidate, CandidateKind};
use crate::locator::{Endpoint, is_elsewhere, is_public};
use crate::node::Method;
use crate::timing::Instant;
use crate::unproved::Unproved;

pub use crate::unproved::Trust;

/// Tries of one burst, after its start: the second crosses the first answer to "try me" on most paths.
const BURST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(60), Duration::from_millis(180), Duration::from_millis(420)];
/// Pauses between bursts; the last one repeats.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// A peer's call is followed at most this often, however often it calls: the addresses are its word alone, and may be a
/// third party's. Its own bursts are further apart.
const JOIN_AGAIN: Duration = Duration::from_millis(400);
/// Addresses tried at once: a whereabouts' candidates and a few that were seen.
const MAX_TARGETS: usize = 16;
/// Probes remembered: two bursts at all targets.
const MAX_OUTSTANDING: usize = 128;

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Tell the peer our candidates, so that it tries at the same time.
    Exchange,
    /// Send a probe there if [`Punch::admit`] allows it, and say so with [`Punch::sent`].
    Probe(SocketAddr),
}

/// A probe that has not been answered.
#[derive(Debug)]
struct Outstanding {
    token: u64,
    to: Endpoint,
    method: Method,
    sent: Instant,
}

/// The search for a direct path to one peer.
#[derive(Debug, Default)]
pub struct Punch {
    targets: BTreeMap<SocketAddr, Method>,
    outstanding: VecDeque<Outstanding>,
    /// What places have got that have not answered. Outlives the targets, which the peer may change.
    unproved: Unproved,
    /// The burst under way: its start and the tries made.
    burst: Option<(Instant, usize)>,
    next_burst: Option<Instant>,
    pauses: usize,
    /// When the peer's call was last followed.
    joined: Option<Instant>,
    /// For whoever wants to know why there is no direct path.
    tally: Vec<Tried>,
}

impl Punch {
    /// Nothing to try yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            targets: BTreeMap::new(),
            outstanding: VecDeque::new(),
            unproved: Unproved::new(),
            burst: None,
            next_burst: None,
            pauses: 0,
            joined: None,
            tally: Vec::new(),
        }
    }

    /// The peer says that it can be tried at these places. Relays are not tried.
    pub fn learn(&mut self, candidates: &[Candidate]) {
        let direct = |candidate: &&Candidate| candidate.kind != CandidateKind::Relay;
        for candidate in candidates.iter().filter(direct).filter(|candidate| is_elsewhere(candidate.at)) {
            let method = match candidate.kind {
                CandidateKind::Host if is_public(candidate.at.ip()) => Method::Public,
                CandidateKind::Host => Method::Local,
                CandidateKind::Mapped => Method::Mapped,
                CandidateKind::Reflexive | CandidateKind::Relay => Method::Punched,
            };
            self.add(candidate.at, method);
        }
    }

    /// Something authentic came from there: the peer's real port, whatever it says itself.
    pub fn saw(&mut self, at: SocketAddr, method: Method) {
        self.add(at, method);
    }

    fn add(&mut self, at: SocketAddr, method: Method) {
        if self.targets.len() < MAX_TARGETS {
            self.targets.entry(at).or_insert(method);
        }
    }

    /// Forget the targets: the peer has sent a new list.
    pub fn forget_targets(&mut self) {
        self.targets.clear();
    }

    /// Begin at once, with short pauses again.
    pub fn start(&mut self, now: Instant) {
        self.pauses = 0;
        self.burst = None;
        self.next_burst = Some(now);
    }

    /// Whether a search is under way or planned.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.burst.is_some() || self.next_burst.is_some()
    }

    /// The peer has begun: try at the same time, without asking it back.
    pub fn join(&mut self, now: Instant) {
        if self.joined.is_some_and(|at| now.since(at) < JOIN_AGAIN) {
            return;
        }
        self.joined = Some(now);
        self.burst = Some((now, 0));
    }

    /// One burst, beside a path that is good.
    pub fn try_once(&mut self, now: Instant) {
        self.burst = Some((now, 0));
    }

    /// Enough: there is a direct path, or nobody needs one.
    pub fn stop(&mut self) {
        self.burst = None;
        self.next_burst = None;
    }

    /// What came of each place, the latest first.
    pub fn tried(&self) -> impl Iterator<Item = Tried> + '_ {
        self.tally.iter().rev().copied()
    }

    /// A probe of the peer's came from there.
    pub fn heard(&mut self, at: SocketAddr) {
        self.tally(at).heard += 1;
    }

    /// The tally of a place; that of another is forgotten for it, if there are too many.
    fn tally(&mut self, at: SocketAddr) -> &mut Tried {
        let known = self.tally.iter().position(|tried| tried.at == at);
        let place = known.unwrap_or_else(|| {
            if self.tally.len() == Side::TRIED {
                // What nobody was heard at says least; a guess leaves hundreds of such.
                let silent = self.tally.iter().position(|tried| tried.answered + tried.heard == 0);
                self.tally.remove(silent.unwrap_or(0));
            }
            self.tally.push(Tried { at, sent: 0, answered: 0, heard: 0 });
            self.tally.len() - 1
        });
        &mut self.tally[place]
    }

    /// Where others see the peer, by what it says.
    pub fn outer(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let outer = |method: &Method| matches!(method, Method::Punched | Method::Public);
        self.targets.iter().filter(move |(_, method)| outer(method)).map(|(at, _)| *at)
    }

    /// How a place is found that the peer told of, or one of an address at which it says that it is seen.
    #[must_use]
    pub fn told(&self, at: &SocketAddr) -> Option<Method> {
        let seen = |(other, method): (&SocketAddr, &Method)| {
            other.ip() == at.ip() && matches!(method, Method::Punched | Method::Mapped)
        };
        let same_host = || self.targets.iter().any(seen).then_some(Method::Punched);
        self.targets.get(at).copied().or_else(same_host)
    }

    /// How a place was found.
    #[must_use]
    pub fn method(&self, at: &SocketAddr) -> Method {
        self.targets.get(at).copied().unwrap_or(Method::Punched)
    }

    /// A probe with `token` left, to a place found by `method`.
    pub fn sent(&mut self, token: u64, to: Endpoint, method: Method, now: Instant) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding { token, to, method, sent: now });
        self.tally(to.at).sent += 1;
    }

    /// Whether an address may be probed now; it is charged if so.
    pub fn admit(&mut self, at: SocketAddr, trust: Trust, now: Instant) -> bool {
        self.unproved.admit(at, trust, now)
    }

    /// An answer came: which target it proves, how that was found, and the round trip.
    pub fn answered(&mut self, token: u64, now: Instant) -> Option<(Endpoint, Method, Duration)> {
        let at = self.outstanding.iter().position(|probe| probe.token == token)?;
        let probe = self.outstanding.remove(at)?;
        self.unproved.answered(&probe.to.at);
        self.tally(probe.to.at).answered += 1;
        Some((probe.to, probe.method, now.since(probe.sent)))
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        if self.next_burst.is_some_and(|at| at <= now) {
            self.burst = Some((now, 0));
            let pause = PAUSES[self.pauses.min(PAUSES.len() - 1)];
            self.pauses += 1;
            self.next_burst = Some(now + BURST[BURST.len() - 1] + pause);
            due.push(Due::Exchange);
        }
        if let Some((start, tries)) = self.burst
            && start + BURST[tries] <= now
        {
            due.extend(self.targets.keys().copied().map(Due::Probe));
            // Woken late, we try once for all that was missed.
            let missed = BURST[tries..].iter().take_while(|pause| start + **pause <= now).count();
            self.burst = (tries + missed < BURST.len()).then_some((start, tries + missed));
        }
        due
    }

    /// When something is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let burst = self.burst.map(|(start, tries)| start + BURST[tries]);
        burst.into_iter().chain(self.next_burst).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn target() -> SocketAddr {
        "203.0.113.7:4000".parse().expect("an address")
    }

    #[test]
    fn a_burst_tells_the_peer_once_and_probes_four_times() {
        let mut punch = Punch::new();
        punch.saw(target(), Method::Punched);
        punch.start(at(0));
        let mut due = Vec::new();
        for ms in 0..500 {
            due.extend(punch.handle_timeout(at(ms)));
        }
        assert_eq!(due.iter().filter(|due| **due == Due::Exchange).count(), 1);
        assert_eq!(due.iter().filter(|due| **due == Due::Probe(target())).count(), 4);
    }

    #[test]
    fn a_late_timeout_tries_once_and_leaves_a_later_deadline() {
        let mut punch = Punch::new();
        punch.saw(target(), Method::Punched);
        punch.join(at(0));
        assert_eq!(punch.handle_timeout(at(200)), [Due::Probe(target())]);
        assert_eq!(punch.poll_timeout(), Some(at(420)));
        assert_eq!(punch.handle_timeout(at(2000)), [Due::Probe(target())]);
        assert_eq!(punch.poll_timeout(), None);
    }

    #[test]
    fn a_third_party_hears_little_whatever_the_peer_says() {
        let mut punch = Punch::new();
        let mut probes = Vec::new();
        for ms in (0..60_000).step_by(20) {
            // Another port of the same host in every list.
            let victim = SocketAddr::new(target().ip(), 1024 + ms as u16);
            punch.forget_targets();
            punch.saw(victim, Method::Punched);
            punch.join(at(ms));
            for due in punch.handle_timeout(at(ms)) {
                assert_eq!(due, Due::Probe(victim));
                if punch.admit(victim, Trust::Word, at(ms)) {
                    probes.push(ms);
                }
            }
        }
        assert_eq!(probes.iter().filter(|ms| **ms < 30_000).count(), 10, "{probes:?}");
        assert!(probes.len() <= 12, "{probes:?}");
    }

    #[test]
    fn a_plausible_place_gets_more_and_one_that_answers_all() {
        let mut punch = Punch::new();
        let all = (0..100).filter(|ms| punch.admit(target(), Trust::Plausible, at(*ms))).count();
        assert_eq!(all, 32);
        assert!(!punch.admit(target(), Trust::Word, at(100)));
        assert!(!punch.admit(target(), Trust::Plausible, at(4_000)));
        assert!(punch.admit(target(), Trust::Plausible, at(6_000)));
        punch.sent(1, target().into(), Method::Punched, at(6_000));
        assert!(punch.answered(1, at(6_010)).is_some());
        assert!(punch.admit(target(), Trust::Word, at(6_020)), "it is the peer's");
    }

    #[test]
    fn nobody_makes_us_talk_to_ourselves_or_to_everybody() {
        let mut punch = Punch::new();
        let places = ["127.0.0.1:9", "0.0.0.0:9", "255.255.255.255:9", "224.0.0.1:9", "192.0.2.1:0"];
        let six = ["[::1]:9", "[ff02::1]:9", "[::]:9", "[::ffff:127.0.0.1]:9"];
        let candidates: Vec<Candidate> = (places.iter().chain(&six))
            .map(|at| Candidate { kind: CandidateKind::Host, at: at.parse().expect("an address") })
            .collect();
        punch.learn(&candidates);
        assert!(punch.targets.is_empty(), "{:?}", punch.targets);
    }

    #[test]
    fn pauses_grow_and_never_end() {
        let mut punch = Punch::new();
        punch.start(at(0));
        let mut bursts = 0;
        let mut now = at(0);
        while now < at(120_000) {
            bursts += punch.handle_timeout(now).iter().filter(|due| **due == Due::Exchange).count();
            now = punch.poll_timeout().expect("never ends");
        }
        assert!((8..12).contains(&bursts), "{bursts} bursts in two minutes");
    }

    #[test]
    fn the_answer_names_the_place_that_was_probed() {
        let mut punch = Punch::new();
        punch.sent(7, target().into(), Method::Local, at(10));
        assert_eq!(
            punch.answered(7, at(30)),
            Some((target().into(), Method::Local, Duration::from_millis(20)))
        );
        assert_eq!(punch.answered(7, at(40)), None);
    }
}
