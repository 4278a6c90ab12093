//! Guessing: a direct path where a NAT gives every destination a port of its own.
//!
//! Owns: which of the two sides does what, the rounds of a prediction, the pace of a birthday guess, and how much of both
//! is spent. Probes are sealed in the session that stands over a relay, so whoever answers is the peer. Never: a path
//! that has answered, or a socket (doors are opened and closed by the node, and known here by their numbers).
//!
//! - *Prediction*, where the NAT counts its ports. The counting side asks two super peers, from a fresh socket, where they
//!   see it, and probes the peer between the two questions: the port in which the peer would see it lies between the two
//!   answers, and the peer probes just those. Where both count, each says which port comes next, and both send at
//!   once.
//! - *Birthday guess*, where ports are scattered and the other side keeps its port. The one opens many sockets towards
//!   the other, which probes ports at random: 256 against 64,512 meet after some 250 probes, and by 1,024 in 98 % of
//!   cases. It costs both routers hundreds of mappings, so it begins only after both have agreed, while traffic
//!   flows, and rarely.
//! - *Meeting*, where both keep their ports and punching was in vain: a careless router takes what comes before its own
//!   side has spoken for a flow to itself, and then sends our packets from another port. Such a mapping is lost; so both
//!   sides open a fresh socket, tell each other where a super peer sees it, and speak at the same moment, or one first
//!   and then the other.

mod meeting;
mod scatter;
mod window;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::locator::{DoorId, Endpoint, Via};
use crate::node::Method;
use crate::timing::Instant;

pub use scatter::{Scatter, Shot};
pub use window::{Window, between};

/// How the NAT in front of a node chooses outer ports (RFC 4787, sections 4.1 and 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ports {
    /// Not found out.
    #[default]
    Unknown,
    /// A socket keeps its outer port whatever the destination; also where there is no NAT.
    Kept,
    /// Every destination gets another, so much higher than the one before.
    Counted(i16),
    /// Every destination gets another, anywhere.
    Scattered,
}

/// What a side can do about a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Say which port the peer sees, from a measurement around the probe.
    Predict,
    /// Both count: begin a round.
    Lead,
    /// Answer what the peer begins or announces.
    Follow,
    /// Open many sockets towards the peer.
    Scatter,
    /// Probe ports at random.
    Shoot,
    /// Both keep their ports: begin a meeting.
    Call,
    /// Both keep their ports: answer a call.
    Heed,
}

/// What a side does about a pair; `None` where punching does, or nothing. Of two that count, one `leads`.
#[must_use]
pub const fn plan(ours: Ports, theirs: Ports, leads: bool) -> Option<Plan> {
    match (ours, theirs) {
        (Ports::Counted(_), Ports::Kept) => Some(Plan::Predict),
        (Ports::Kept, Ports::Counted(_)) => Some(Plan::Follow),
        (Ports::Counted(_), Ports::Counted(_)) => Some(if leads { Plan::Lead } else { Plan::Follow }),
        (Ports::Scattered, Ports::Kept) => Some(Plan::Scatter),
        (Ports::Kept, Ports::Scattered) => Some(Plan::Shoot),
        // Who does not know, may still keep its ports.
        (Ports::Kept | Ports::Unknown, Ports::Kept | Ports::Unknown) => {
            Some(if leads { Plan::Call } else { Plan::Heed })
        }
        _ => None,
    }
}

/// An ordinary punch gets this long first: where filters are lax it is all that is needed.
const PUNCH_FIRST: Duration = Duration::from_millis(550);
/// A birthday guess waits for a flow that lasts.
const FLOW_FIRST: Duration = Duration::from_millis(2500);
/// A round that found nothing is followed by the next after this long: two round trips to the far side of the world.
const ROUND: Duration = Duration::from_millis(600);
/// Punching gets this long before a meeting: two bursts.
const BURSTS_FIRST: Duration = Duration::from_millis(1000);
/// Rounds of a prediction in a row.
const ROUNDS: u8 = 10;
/// After them it is tried again after this long.
const RETRY: Duration = Duration::from_secs(60);
/// A birthday guess that found nothing, or a path that it found and that broke, is not repeated sooner.
const REST: Duration = Duration::from_secs(600);
/// A volley is sent so often: the first shots of one side come before the other has opened its own ports.
const VOLLEYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(70), Duration::from_millis(170), Duration::from_millis(330)];
/// Ports of a volley where both sides count.
const BOTH: u8 = 6;
/// Flows of others that take ports meanwhile, on both sides together, as the leader supposes them, by round.
const SKIPS: [u16; ROUNDS as usize] = [0, 0, 1, 0, 2, 1, 3, 0, 2, 1];
/// Announcements of a peer that are heeded: twice the rounds at once, and then one in so long a time.
const HEEDED: u32 = 2 * ROUNDS as u32;
const HEED: Duration = Duration::from_secs(3);
/// An offer can be agreed to for so long.
const CONSENT: Duration = Duration::from_secs(5);
/// A question to a super peer is repeated after this long, once.
const ASK_AGAIN: Duration = Duration::from_millis(150);

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Open a fresh door for the round, close the one before; say which with [`Guess::opened`].
    Open,
    /// Ask a super peer, by that door, where it is seen: the first that we know, or the second.
    Ask(DoorId, usize),
    /// Probe the peer's known places by that door.
    ProbeKnown(DoorId),
    /// Probe there, by that door or by the main socket.
    Probe(Option<DoorId>, SocketAddr),
    /// Probe there, by that door, so that the probe dies after so many hops.
    ProbeNear(DoorId, SocketAddr, u8),
    /// Tell the peer which ports are ours.
    Announce(Window),
    /// Ask the peer whether it would guess: we open many sockets.
    Offer,
    /// It is over, one way or the other: close what is not in use.
    Finish,
}

/// The search for a path to one peer by guessing.
#[derive(Debug, Default)]
pub struct Guess {
    theirs: Ports,
    plan: Option<(Plan, Ports)>,
    /// When the next round begins, or the offer is made.
    next: Option<Instant>,
    rounds: u8,
    round: Option<Round>,
    volley: Option<Volley>,
    scatter: Option<Scatter>,
    /// Doors of ours that nobody else looks after.
    doors: BTreeSet<DoorId>,
    /// The door of the round before: what was sent there may still be on its way.
    previous: Option<DoorId>,
    rest_until: Instant,
    /// We have offered a guess, and nobody has agreed.
    offered: Option<Instant>,
    /// Since when rounds are counted.
    counted: Option<Instant>,
    /// When the peer may announce ports again, if it has announced many.
    heeded: Instant,
    /// There and back through the relay.
    round_trip: Duration,
}

/// A measurement under way.
#[derive(Debug)]
struct Round {
    door: DoorId,
    seen: [Option<SocketAddr>; 2],
    /// Both sides count: only the next port is wanted.
    both: bool,
    again: Option<Instant>,
}

/// Ports of the peer that are probed again and again.
#[derive(Debug)]
struct Volley {
    begun: Instant,
    sent: usize,
    by: Option<DoorId>,
    targets: Vec<SocketAddr>,
}

impl Guess {
    /// What the peer says of its NAT.
    pub fn learn(&mut self, theirs: Ports) {
        self.theirs = theirs;
    }

    /// What the peer said of its NAT.
    #[must_use]
    pub const fn theirs(&self) -> Ports {
        self.theirs
    }

    /// Traffic flows through a relay and punching goes on; `ours` is how our NAT chooses ports. Does nothing while a
    /// search is under way.
    pub fn start(&mut self, ours: Ports, leads: bool, now: Instant) {
        let plan = plan(ours, self.theirs, leads).map(|plan| (plan, ours));
        if plan == self.plan && (self.next.is_some() || self.is_busy()) {
            return;
        }
        self.plan = plan;
        // A peer that says something else every time gets no more rounds by it.
        if self.counted.is_none_or(|at| now.since(at) >= RETRY) {
            (self.rounds, self.counted) = (0, Some(now));
        }
        self.next = plan.and_then(|(plan, _)| match plan {
            Plan::Predict | Plan::Lead => Some((now + PUNCH_FIRST).max(self.rest_until)),
            Plan::Call => Some((now + BURSTS_FIRST).max(self.rest_until)),
            Plan::Scatter => Some((now + FLOW_FIRST).max(self.rest_until)),
            Plan::Follow | Plan::Shoot | Plan::Heed => None,
        });
    }

    /// There is a direct path, or nobody needs one. [`Due::Finish`] follows if there is anything to close.
    pub fn stop(&mut self) {
        self.next = None;
        self.plan = None;
        self.round = None;
        self.previous = None;
        self.volley = None;
        self.scatter = None;
    }

    /// Whether sockets are open or probes under way.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.round.is_some() || self.volley.is_some() || self.scatter.is_some()
    }

    /// Whether more traffic may lead to a path: something is under way or soon to begin, here or at the peer.
    #[must_use]
    pub fn is_promising(&self, now: Instant) -> bool {
        let soon = self.next.is_some_and(|next| next <= now + FLOW_FIRST);
        let theirs = matches!(self.plan, Some((Plan::Follow | Plan::Shoot | Plan::Heed, _)));
        self.is_busy() || soon || theirs && self.rest_until <= now
    }

    /// Whether a birthday guess is under way: it takes all the doors that a node has.
    #[must_use]
    pub const fn is_scattered(&self) -> bool {
        self.scatter.is_some()
    }

    /// There and back through the relay takes so long.
    pub fn measured(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// How a place is found that is probed for this search.
    #[must_use]
    pub const fn finds_by(&self) -> Method {
        match self.plan {
            _ if self.is_scattered() => Method::Guessed,
            Some((Plan::Call | Plan::Heed, _)) => Method::Punched,
            _ => Method::Predicted,
        }
    }

    /// How a place at which the peer was heard has been found, if by guessing: through a door of ours, or at a port that
    /// it had announced.
    #[must_use]
    pub fn method(&self, at: Endpoint) -> Option<Method> {
        let shoots = self.scatter.is_some();
        let announced = self.volley.as_ref().is_some_and(|volley| volley.targets.contains(&at.at));
        let ours = matches!(at.via, Via::Door(door) if self.doors.contains(&door));
        (shoots || announced || ours).then_some(self.finds_by())
    }

    /// The doors that it holds.
    pub fn doors(&self) -> impl Iterator<Item = DoorId> + '_ {
        self.doors.iter().copied()
    }

    /// Doors that nobody needs any more, apart from those that `used` names. They are forgotten here.
    pub fn leave(&mut self, used: impl Fn(DoorId) -> bool) -> Vec<DoorId> {
        let round = self.round.as_ref().map(|round| round.door);
        let volley = self.volley.as_ref().and_then(|volley| volley.by);
        let (previous, scattered) = (self.previous, self.scatter.is_some());
        let idle: Vec<DoorId> = (self.doors.iter().copied())
            .filter(|door| !scattered && ![round, volley, previous].contains(&Some(*door)) && !used(*door))
            .collect();
        for door in &idle {
            self.doors.remove(door);
        }
        idle
    }

    /// A door was opened for [`Due::Open`], or for the sockets of a birthday guess.
    pub fn opened(&mut self, door: DoorId, now: Instant) -> Vec<Due> {
        self.doors.insert(door);
        if self.scatter.is_some() {
            return vec![Due::ProbeKnown(door)];
        }
        let both = self.plan.is_some_and(|(plan, _)| plan != Plan::Predict);
        if self.plan.is_some_and(|(plan, _)| matches!(plan, Plan::Lead | Plan::Call)) {
            self.volley = None;
        }
        self.previous = self.round.as_ref().map(|round| round.door);
        self.round = Some(Round { door, seen: [None; 2], both, again: Some(now + ASK_AGAIN) });
        if both {
            vec![Due::Ask(door, 0)]
        } else {
            // In this order, so that the port of the probe lies between the ports of the questions.
            vec![Due::Ask(door, 0), Due::ProbeKnown(door), Due::Ask(door, 1)]
        }
    }

    /// A super peer (the first, or the second) saw this door there.
    pub fn seen(&mut self, door: DoorId, which: usize, at: SocketAddr, now: Instant) -> Vec<Due> {
        if let Some((Plan::Call | Plan::Heed, _)) = self.plan {
            return self.met(door, at, now);
        }
        let Some((plan, Ports::Counted(step))) = self.plan else { return Vec::new() };
        let Some(round) = self.round.as_mut().filter(|round| round.door == door) else { return Vec::new() };
        round.seen[which.min(1)] = Some(at);
        let window = match (round.both, round.seen) {
            (true, [Some(first), _]) => Some(Window::after(first, step, BOTH)),
            (false, [Some(first), Some(second)]) => between(first, second, step),
            _ => return Vec::new(),
        };
        let Some(window) = window else { return Vec::new() };
        round.again = None;
        if plan == Plan::Follow {
            // We know the leader's ports already, and they are waiting.
            if let Some(volley) = &mut self.volley {
                volley.begun = now;
                volley.sent = 0;
                volley.by = Some(door);
            }
        }
        vec![Due::Announce(window)]
    }

    /// The peer says which ports are its own. Nothing comes of it if it says so too often.
    pub fn announced(&mut self, window: &Window, now: Instant) -> Vec<Due> {
        let full_at = self.heeded.max(now) + HEED;
        if full_at.since(now) > HEED * HEEDED {
            return Vec::new();
        }
        self.heeded = full_at;
        match (self.plan, &self.round) {
            (Some((Plan::Follow, Ports::Kept)), _) => {
                let targets = window.ports().map(|port| SocketAddr::new(window.ip, port)).collect();
                self.volley = Some(Volley { begun: now, sent: 0, by: None, targets });
                Vec::new()
            }
            // The leader's ports: measure our own at once; the volley begins with what we then say.
            (Some((Plan::Follow, Ports::Counted(_))), _) => {
                let targets = window.ports().map(|port| SocketAddr::new(window.ip, port)).collect();
                self.volley = Some(Volley { begun: now, sent: VOLLEYS.len(), by: None, targets });
                vec![Due::Open]
            }
            (Some((Plan::Lead, _)), Some(round)) => {
                let skip = SKIPS[usize::from(self.rounds.saturating_sub(1)) % SKIPS.len()];
                let aimed = window.shifted(skip);
                let targets = aimed.ports().map(|port| SocketAddr::new(aimed.ip, port)).collect();
                self.volley = Some(Volley { begun: now, sent: 0, by: Some(round.door), targets });
                Vec::new()
            }
            (Some((Plan::Call | Plan::Heed, _)), _) => self.summoned(window, now),
            _ => Vec::new(),
        }
    }

    /// The peer asks us to probe ports of that address at random. Whether we agree.
    pub fn offered(&mut self, ip: IpAddr, seed: u64, now: Instant) -> bool {
        if !matches!(self.plan, Some((Plan::Shoot, _))) || self.scatter.is_some() || now < self.rest_until {
            return false;
        }
        self.rest_until = now + REST;
        self.scatter = Some(Scatter::shoot(ip, seed, now));
        true
    }

    /// The peer was asked whether it would guess.
    pub fn offer_sent(&mut self, now: Instant) {
        self.offered = Some(now);
    }

    /// The peer agreed: open the sockets, if it was asked.
    pub fn agreed(&mut self, now: Instant) {
        let asked = self.offered.take().is_some_and(|at| now.since(at) < CONSENT);
        if asked && matches!(self.plan, Some((Plan::Scatter, _))) && self.scatter.is_none() {
            self.rest_until = now + REST;
            self.next = None;
            self.scatter = Some(Scatter::open(now));
        }
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        self.scattered(now, &mut due);
        self.fire(now, &mut due);
        self.ask_again(now, &mut due);
        if self.next.is_some_and(|at| at <= now) {
            self.begin(now, &mut due);
        }
        due
    }

    fn begin(&mut self, now: Instant, due: &mut Vec<Due>) {
        match self.plan {
            Some((Plan::Scatter, _)) => {
                self.next = Some(now + ROUND * 4);
                due.push(Due::Offer);
            }
            Some((Plan::Call, _)) if self.rounds < meeting::ROUNDS => {
                self.rounds += 1;
                self.next = Some(now + meeting::ROUND);
                due.push(Due::Open);
            }
            Some((Plan::Predict | Plan::Lead, _)) if self.rounds < ROUNDS => {
                self.rounds += 1;
                self.next = Some(now + ROUND);
                due.push(Due::Open);
            }
            Some((Plan::Predict | Plan::Lead | Plan::Call, _)) => {
                (self.rounds, self.round, self.previous, self.volley) = (0, None, None, None);
                self.next = Some(now + RETRY);
                due.push(Due::Finish);
            }
            _ => self.next = None,
        }
    }

    fn scattered(&mut self, now: Instant, due: &mut Vec<Due>) {
        let Some(scatter) = &mut self.scatter else { return };
        for shot in scatter.handle_timeout(now) {
            due.push(match shot {
                Shot::Open => Due::Open,
                Shot::At(at) => Due::Probe(None, at),
            });
        }
        if scatter.is_over(now) {
            self.scatter = None;
            due.push(Due::Finish);
        }
    }

    fn fire(&mut self, now: Instant, due: &mut Vec<Due>) {
        let Some(volley) = &mut self.volley else { return };
        while let Some(after) = VOLLEYS.get(volley.sent)
            && volley.begun + *after <= now
        {
            volley.sent += 1;
            due.extend(volley.targets.iter().map(|at| Due::Probe(volley.by, *at)));
        }
    }

    fn ask_again(&mut self, now: Instant, due: &mut Vec<Due>) {
        let Some(round) = self.round.as_mut().filter(|round| round.again.is_some_and(|at| at <= now)) else {
            return;
        };
        round.again = None;
        let wanted = if round.both { 1 } else { 2 };
        let unseen = (0..wanted).filter(|which| round.seen[*which].is_none());
        due.extend(unseen.map(|which| Due::Ask(round.door, which)));
    }

    /// When something is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let volley = self.volley.as_ref().and_then(|volley| Some(volley.begun + *VOLLEYS.get(volley.sent)?));
        let again = self.round.as_ref().and_then(|round| round.again);
        let scatter = self.scatter.as_ref().map(Scatter::poll_timeout);
        [self.next, volley, again, scatter].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
