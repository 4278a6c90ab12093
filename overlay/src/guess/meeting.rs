//! A meeting of two fresh sockets whose ports both sides know beforehand.
//!
//! Owns: who speaks first, in which round. The caller announces the port of its socket, the other opens one, announces
//! that, and both probe what they were told. What is on the way through the relay in the meantime decides when the two
//! probes leave, unless one side waits.
//!
//! A router that takes a stray packet for its own must not see one before its own side has spoken: with one such router
//! that side speaks first, with two both must speak while the other's word is still on its way.

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
    Together,
    Caller,
    Called,
}

impl Turn {
    const ALL: [Self; 3] = [Self::Together, Self::Caller, Self::Called];

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
            Turn::Caller => on_its_way + LATER,
            Turn::Called => Duration::ZERO,
        };
        let is_called = matches!(self.plan, Some((Plan::Heed, _)));
        if let Some(volley) = self.volley.as_mut().filter(|_| is_called) {
            (volley.begun, volley.sent, volley.by) = (now + pause, 0, Some(door));
        }
        vec![Due::Announce(Window { ip: at.ip(), first: at.port(), step: 1, count: 1 })]
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
