//! A meeting of two fresh sockets whose ports both sides know beforehand.
//!
//! Owns: who speaks first, in which round. The caller announces the port of its socket, the other opens one, announces
//! that, and both probe what they were told. What is on the way through the relay in the meantime decides when the two
//! probes leave, unless one side waits.
//!
//! A router that takes a stray packet for its own must not see one before its own side has spoken. So the called side speaks
//! first, with a hop limit at which its word dies behind its own NAT and before the caller's. How many routers of its own stand
//! in front of it, and how far the other's are, nobody knows; so several limits are tried. Where no router stands between
//! the two NATs, the side with such a one speaks first, or, if both are such, both while the other's word is on its way.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Due, Guess, Plan, Volley, Window};
use crate::locator::DoorId;
use crate::timing::Instant;

/// A round: a question to a super peer and an announcement by each side, and [`LATER`].
pub(super) const ROUND: Duration = Duration::from_millis(1000);
/// Every order twice.
pub(super) const ROUNDS: u8 = 2 * Turn::ALL.len() as u8;
/// Who speaks second, waits so much longer: more than a busy machine is late.
const LATER: Duration = Duration::from_millis(150);

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The called side, no further than so many hops.
    Near(u8),
    Together,
    Caller,
    Called,
}

impl Turn {
    /// Most homes have one router, which is the NAT: two hops. Some have two. Behind a carrier's NAT or a company's there are
    /// more, and from one home to another rarely fewer than eight.
    const ALL: [Self; 6] =
        [Self::Near(2), Self::Together, Self::Near(3), Self::Caller, Self::Called, Self::Near(5)];

    /// Of the round of this number; the first is 1. Both sides count for themselves.
    fn of(round: u8) -> Self {
        Self::ALL[usize::from(round.saturating_sub(1)) % Self::ALL.len()]
    }
}

impl Guess {
    /// The socket of this round is seen there: tell the peer. Who was called, has heard of the caller's before, and speaks
    /// when the caller will have heard of ours.
    pub(super) fn met(&mut self, door: DoorId, at: SocketAddr, now: Instant) -> Vec<Due> {
        let Some(round) = self.round.as_mut().filter(|round| round.door == door && round.seen[0].is_none())
        else {
            return Vec::new();
        };
        round.seen[0] = Some(at);
        round.again = None;
        let on_its_way = self.round_trip / 2;
        let pause = match Turn::of(self.rounds) {
            Turn::Together => on_its_way,
            Turn::Caller | Turn::Near(_) => on_its_way + LATER,
            Turn::Called => Duration::ZERO,
        };
        let is_called = matches!(self.plan, Some((Plan::Heed, _)));
        let mut due = Vec::new();
        if let Some(volley) = self.volley.as_mut().filter(|_| is_called) {
            (volley.begun, volley.sent, volley.by) = (now + pause, 0, Some(door));
            if let Turn::Near(hops) = Turn::of(self.rounds) {
                due.extend(volley.targets.iter().map(|at| Due::ProbeNear(door, *at, hops)));
            }
        }
        due.push(Due::Announce(Window { ip: at.ip(), first: at.port(), step: 1, count: 1 }));
        due
    }

    /// The peer says where its socket of this round is seen.
    pub(super) fn summoned(&mut self, window: &Window, now: Instant) -> Vec<Due> {
        let targets = window.ports().take(1).map(|port| SocketAddr::new(window.ip, port)).collect();
        let volley = |begun, sent, by| Some(Volley { begun, sent, by, targets });
        if let Some((Plan::Heed, _)) = self.plan {
            self.rounds = self.rounds % ROUNDS + 1;
            // It begins once our own socket is seen.
            self.volley = volley(now, super::VOLLEYS.len(), None);
            return vec![Due::Open];
        }
        // A caller's own port must be known, or it has called nobody.
        if let Some(round) = self.round.as_ref().filter(|round| round.seen[0].is_some()) {
            let pause = if Turn::of(self.rounds) == Turn::Called { LATER } else { Duration::ZERO };
            self.volley = volley(now + pause, 0, Some(round.door));
        }
        Vec::new()
    }
}
