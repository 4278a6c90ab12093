//! Crossing: two nodes behind NATs connect to each other over TCP at the same moment.
//!
//! Owns: when that is tried with one peer, what the two tell each other, and when it is given up. Pure; the node carries
//! out what is due. Never: a socket, or how often an address may be tried (that is [`crate::unproved`]).
//!
//! TCP has it as simultaneous open (RFC 9293, section 3.5), and NATs must let it pass (RFC 5382, section 4.2): each side's
//! SYN opens its own NAT for the other's. Each side asks super peers by STUN where they see a fresh port of its, tells the
//! other through the session, and connects from that port as soon as it knows both. A NAT that shows two super peers two
//! ports would show the peer a third one, so that nothing is tried.

use std::net::SocketAddr;
use std::time::Duration;

use crate::locator::{StreamId, is_elsewhere};
use crate::timing::Instant;

/// Connections that one crossing may try: the first crosses where packets that nobody waits for are dropped; where they
/// are refused, some more until both sides are at it.
pub const TRIES: u8 = 5;
/// A path by a stream that needs no crossing is found in this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Two super peers have said where they see a port, after TCP, TLS and a question; or they don't answer.
const LOOK: Duration = Duration::from_secs(6);
/// The peer has found out the same after our call.
const ANSWER: Duration = Duration::from_secs(8);
/// All tries, TLS and the greeting.
const CONNECT: Duration = Duration::from_secs(12);
/// Pauses after a crossing that came to nothing; the last one repeats.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600)];
/// While others cross, one waits for so long.
const LATER: Duration = Duration::from_secs(3);
/// A peer's call is followed at most this often.
const CALL_AGAIN: Duration = Duration::from_secs(5);
/// A call that comes so soon after the last word is the same crossing's: both sides have called.
const SAME: Duration = Duration::from_secs(2);
/// Whoever called wanted a stream; that counts for as long as such a node may be without UDP.
const WANTED: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask super peers where they see a fresh port; then [`Crossing::begun`], or [`Crossing::postpone`].
    Begin,
    /// Tell the peer.
    Tell {
        /// Where others see the port.
        at: SocketAddr,
        /// Whether the peer's is wanted in return.
        answer: bool,
    },
    /// Connect.
    Connect {
        /// From this port.
        id: StreamId,
        /// To the peer's.
        to: SocketAddr,
        /// Whether the peer hears of ours just now: it can't connect before half a round trip has passed.
        ahead: bool,
    },
    /// Close whatever it has become.
    GiveUp(StreamId),
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Idle,
    /// Super peers are being asked about the port.
    Looking,
    /// The peer knows where others see it.
    Called(SocketAddr),
    /// Both know both.
    Connecting,
}

/// The crossings with one peer, one at a time.
#[derive(Debug, Default)]
pub struct Crossing {
    state: State,
    /// The port, or what it has become.
    id: Option<StreamId>,
    /// Of the state: since when, and until when at the latest.
    since: Instant,
    until: Option<Instant>,
    /// Where others see the peer's port.
    theirs: Option<SocketAddr>,
    /// When to begin, and when at the earliest after what failed.
    next: Option<Instant>,
    pause: Option<Instant>,
    failures: usize,
    /// When the peer last called, and when that was last followed.
    called: Option<Instant>,
    followed: Option<Instant>,
}

impl Crossing {
    /// One would be good, unless something simpler helps.
    pub fn seek(&mut self, now: Instant) {
        if self.id.is_none() && self.next.is_none() {
            let soon = now + PATIENCE;
            self.next = Some(self.pause.map_or(soon, |pause| pause.max(soon)));
        }
    }

    /// The port that is being prepared or connected from.
    #[must_use]
    pub const fn id(&self) -> Option<StreamId> {
        self.id
    }

    /// Whether the peer has lately called us to cross: it wants a stream, since UDP does not pass there or here.
    #[must_use]
    pub fn was_called(&self, now: Instant) -> bool {
        self.called.is_some_and(|at| now.since(at) < WANTED)
    }

    /// When something is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.id.is_some() { self.until } else { self.next }
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        match self.id {
            Some(id) => {
                self.failed(now);
                Some(Due::GiveUp(id))
            }
            None => {
                self.next = None;
                Some(Due::Begin)
            }
        }
    }

    /// Super peers are being asked about the port `id`.
    pub fn begun(&mut self, id: StreamId, now: Instant) {
        self.id = Some(id);
        self.enter(State::Looking, LOOK, now);
    }

    /// Too many others cross.
    pub fn postpone(&mut self, now: Instant) {
        self.theirs = None;
        self.next = Some(now + LATER);
    }

    /// Super peers have said where they see the port.
    pub fn seen(&mut self, at: &[SocketAddr], now: Instant) -> Vec<Due> {
        let (State::Looking, Some(id)) = (self.state, self.id) else { return Vec::new() };
        let Some(at) = agreed(at) else {
            // It would be as symmetric next time.
            self.failures = PAUSES.len();
            self.failed(now);
            return vec![Due::GiveUp(id)];
        };
        let mut due = vec![Due::Tell { at, answer: self.theirs.is_none() }];
        match self.theirs {
            Some(to) => due.push(self.connect(id, to, true, now)),
            None => self.enter(State::Called(at), ANSWER, now),
        }
        due
    }

    /// The peer says where others see its port, and whether it wants to know ours.
    pub fn called(&mut self, at: SocketAddr, answer: bool, now: Instant) -> Vec<Due> {
        if !is_usable(at) {
            return Vec::new();
        }
        self.called = Some(now);
        match (self.state, self.id) {
            (State::Looking, _) => self.theirs = Some(at),
            (State::Called(ours), Some(id)) => {
                let told = answer.then_some(Due::Tell { at: ours, answer: false });
                return told.into_iter().chain([self.connect(id, at, false, now)]).collect();
            }
            (State::Connecting, _) if now.since(self.since) < SAME => {}
            _ if answer && self.follows(now) => {
                let old = self.id.take().map(Due::GiveUp);
                (self.theirs, self.next) = (Some(at), None);
                return old.into_iter().chain([Due::Begin]).collect();
            }
            _ => {}
        }
        Vec::new()
    }

    /// There is a direct path: what is under way is to be closed, if anything.
    pub fn stop(&mut self) -> Option<StreamId> {
        self.forget();
        self.rest()
    }

    /// Nobody needs one just now: what is under way is to be closed, if anything.
    pub fn rest(&mut self) -> Option<StreamId> {
        (self.state, self.until, self.theirs, self.next) = (State::Idle, None, None, None);
        self.id.take()
    }

    /// What stands in the way may be something else from here on.
    pub const fn forget(&mut self) {
        (self.pause, self.failures) = (None, 0);
    }

    /// It came to nothing.
    pub fn failed(&mut self, now: Instant) {
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        self.rest();
        self.pause = Some(now + pause);
        self.next = self.pause;
    }

    fn follows(&mut self, now: Instant) -> bool {
        let follows = self.followed.is_none_or(|at| now.since(at) >= CALL_AGAIN);
        if follows {
            self.followed = Some(now);
        }
        follows
    }

    fn enter(&mut self, state: State, life: Duration, now: Instant) {
        (self.state, self.since, self.until) = (state, now, Some(now + life));
    }

    fn connect(&mut self, id: StreamId, to: SocketAddr, ahead: bool, now: Instant) -> Due {
        self.enter(State::Connecting, CONNECT, now);
        Due::Connect { id, to, ahead }
    }
}

/// Where a port is seen by all who were asked; `None` if they do not agree, or nobody else could use it.
fn agreed(all: &[SocketAddr]) -> Option<SocketAddr> {
    let first = *all.first()?;
    (is_usable(first) && all.iter().all(|at| *at == first)).then_some(first)
}

/// Ports are opened over IPv4 alone.
fn is_usable(at: SocketAddr) -> bool {
    at.is_ipv4() && is_elsewhere(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, at};

    const ID: StreamId = StreamId(2);

    fn looking() -> Crossing {
        let mut crossing = Crossing::default();
        crossing.seek(at(0));
        assert_eq!(crossing.handle_timeout(at(999)), None, "something simpler may help");
        assert_eq!(crossing.handle_timeout(at(1000)), Some(Due::Begin));
        crossing.begun(ID, at(1000));
        crossing
    }

    #[test]
    fn who_calls_connects_when_it_is_answered() {
        let mut crossing = looking();
        let tell = Due::Tell { at: address(1), answer: true };
        assert_eq!(crossing.seen(&[address(1); 2], at(1200)), [tell]);
        assert_eq!(
            crossing.called(address(2), false, at(1400)),
            [Due::Connect { id: ID, to: address(2), ahead: false }]
        );
        assert_eq!(crossing.called(address(2), false, at(1401)), [], "once");
        assert_eq!(crossing.handle_timeout(at(13_400)), Some(Due::GiveUp(ID)));
        assert_eq!(crossing.poll_timeout(), Some(at(18_400)), "later again");
    }

    #[test]
    fn who_is_called_looks_answers_and_connects() {
        let mut crossing = Crossing::default();
        assert_eq!(crossing.called(address(1), true, at(0)), [Due::Begin]);
        crossing.begun(ID, at(0));
        assert!(crossing.was_called(at(1)));
        let tell = Due::Tell { at: address(2), answer: false };
        let connect = Due::Connect { id: ID, to: address(1), ahead: true };
        assert_eq!(crossing.seen(&[address(2)], at(200)), [tell, connect]);
        assert_eq!(crossing.stop(), Some(ID));
        assert_eq!(crossing.poll_timeout(), None);
        assert_eq!(crossing.called(address(1), true, at(4_999)), [], "not as often as it calls");
        assert_eq!(crossing.called(address(1), false, at(9_000)), [], "an answer to nothing");
        assert_eq!(crossing.called(address(1), true, at(9_000)), [Due::Begin]);
    }

    #[test]
    fn both_may_call_at_once() {
        let mut crossing = looking();
        crossing.seen(&[address(1)], at(1200));
        let due = crossing.called(address(2), true, at(1210));
        let tell = Due::Tell { at: address(1), answer: false };
        assert_eq!(due, [tell, Due::Connect { id: ID, to: address(2), ahead: false }]);
        assert_eq!(crossing.called(address(2), false, at(1400)), []);
        assert_eq!(crossing.called(address(3), true, at(1500)), [], "the same crossing");
        let anew = crossing.called(address(3), true, at(4_000));
        assert_eq!(anew, [Due::GiveUp(ID), Due::Begin], "the peer has begun anew");
    }

    #[test]
    fn a_call_that_comes_while_we_look_is_kept() {
        let mut crossing = looking();
        assert_eq!(crossing.called(address(2), true, at(1100)), []);
        let due = crossing.seen(&[address(1)], at(1200));
        let tell = Due::Tell { at: address(1), answer: false };
        assert_eq!(due, [tell, Due::Connect { id: ID, to: address(2), ahead: true }]);
    }

    #[test]
    fn a_symmetric_nat_is_not_crossed() {
        let mut crossing = looking();
        assert_eq!(crossing.seen(&[address(1), address(2)], at(1200)), [Due::GiveUp(ID)]);
        assert_eq!(crossing.poll_timeout(), Some(at(601_200)));
        crossing.rest();
        crossing.seek(at(2_000));
        assert_eq!(crossing.poll_timeout(), Some(at(601_200)), "whatever happens meanwhile");
        crossing.forget();
        crossing.rest();
        crossing.seek(at(2_000));
        assert_eq!(crossing.poll_timeout(), Some(at(3_000)), "behind another NAT");
        let mut crossing = looking();
        assert_eq!(crossing.seen(&[], at(1200)), [Due::GiveUp(ID)], "nobody saw it");
    }

    #[test]
    fn nobody_makes_us_connect_to_ourselves_or_to_everybody() {
        for place in
            ["127.0.0.1:9", "0.0.0.0:9", "255.255.255.255:9", "224.0.0.1:9", "192.0.2.1:0", "[2001:db8::1]:9"]
        {
            let place = place.parse().expect("an address");
            assert_eq!(Crossing::default().called(place, true, at(0)), []);
        }
    }

    #[test]
    fn pauses_grow_while_one_is_sought() {
        let mut crossing = Crossing::default();
        let (mut begun, mut now) = (0, at(0));
        while now < at(3_600_000) {
            crossing.seek(now);
            now = crossing.poll_timeout().expect("it is sought");
            if crossing.handle_timeout(now) == Some(Due::Begin) {
                crossing.begun(ID, now);
                begun += 1;
            }
        }
        assert!((7..12).contains(&begun), "{begun} in an hour");
    }
}
