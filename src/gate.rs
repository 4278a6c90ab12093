//! The gate to control: which of the datagrams that nobody authenticated it hears of.
//!
//! Owns: [`Gate`], on the inward thread. First what is cheap and can't be forged without effort (the message names our
//! key in its mac1), then a budget by source, and where that is used up, proof of the source: WireGuard's cookies
//! (WireGuard paper, section 5.4.7). Never: a public-key operation, or a decision about a peer.

use std::collections::HashMap;
use std::time::Duration;

use frejus_overlay::id::TunnelKey;
use frejus_overlay::locator::Locator;
use frejus_overlay::timing::Instant;
use frejus_overlay::verdict::Drop as Reason;
use frejus_overlay::wire::{Frame, Wireguard};

use crate::limiter::{Bucket, Limiter, Rate};
use crate::wireguard::{COOKIE_REPLY, Macs};

/// Initiations of sources that may be forged: everybody at once after a restart, then few. 250 of 120 µs, if they are
/// copies of a member's, are 3 % of a core, and more go the way of the cookie.
const UNPROVED: Rate = Rate { per_second: 250, burst: 2000 };
/// Initiations and knocks of sources that have proved to receive what we send them.
const PROVED: Rate = Rate { per_second: 2000, burst: 2000 };
/// Knocks of sources that may be forged; opening one that is sealed takes 100 µs: 3 % of a core.
const SEALED: Rate = Rate { per_second: 300, burst: 600 };
/// Enrolments, whose senders have no tunnel key that could prove anything: 2 % of a core, whatever knocks.
const ENROLMENTS: Rate = Rate { per_second: 200, burst: 400 };
/// Responses and cookie replies for an index that we gave out.
const ANSWERS: Rate = Rate { per_second: 2000, burst: 2000 };
/// What costs control a look into a table: hints, answers for an index of nobody, and handshakes for others whose
/// channel forwarding does not know yet.
const HINTS: Rate = Rate { per_second: 500, burst: 500 };
/// Cookies given: 8,000 of 4 µs, most of it the kernel's, are 3 % of a core. In a forged flood of 50,000 a second an
/// honest newcomer gets one with every sixth attempt.
const COOKIES: Rate = Rate { per_second: 8000, burst: 1000 };
/// Whoever proved its address may knock for this long.
const PROOF_LIFE: Duration = Duration::from_secs(30);
/// Proofs remembered in each of two generations: 2 × 1,024 × ~60 B.
const PROOFS: usize = 1024;
/// So long after a knock had to be refused, initiations must prove where they come from: knocks themselves can't.
const CROWDED: Duration = Duration::from_secs(2);

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Control hears of it.
    Admitted,
    /// The sender gets this many bytes of the buffer, and may come again with what they say.
    Cookie(usize),
    /// Dropped.
    Refused(Reason),
}

/// See the module.
pub struct Gate {
    macs: Macs,
    unproved: Limiter,
    proved: Limiter,
    sealed: Limiter,
    enrolments: Limiter,
    answers: Limiter,
    hints: Limiter,
    cookies: Bucket,
    proofs: Proofs,
    crowded: Option<Instant>,
}

impl Gate {
    /// The gate of whoever holds this key.
    #[must_use]
    pub fn new(key: &TunnelKey) -> Self {
        let limiter = |all| Limiter::new(Rate::PREFIX, all);
        Self {
            macs: Macs::new(key),
            unproved: limiter(UNPROVED),
            proved: limiter(PROVED),
            sealed: limiter(SEALED),
            enrolments: limiter(ENROLMENTS),
            answers: limiter(ANSWERS),
            hints: limiter(HINTS),
            cookies: Bucket::default(),
            proofs: Proofs::default(),
            crowded: None,
        }
    }

    /// Judge `bytes`, which are a `frame`. `knows` says whether forwarding knows a receiver index; a cookie is written
    /// to `reply`.
    pub fn judge(
        &mut self,
        from: Locator,
        frame: &Frame<'_>,
        bytes: &[u8],
        knows: impl Fn(u32) -> bool,
        now: Instant,
        reply: &mut [u8; COOKIE_REPLY],
    ) -> Passage {
        let source = from.remote().ip();
        let budget = match frame {
            Frame::Wireguard(Wireguard::Initiation | Wireguard::Answer(_)) if !self.macs.name_us(bytes) => {
                // Through a relay that has just opened the channel it may be for the other end.
                if from.is_direct() {
                    return Passage::Refused(Reason::NotAuthentic);
                }
                &mut self.hints
            }
            Frame::Wireguard(Wireguard::Initiation) => return self.initiation(from, bytes, now, reply),
            Frame::Wireguard(Wireguard::Answer(receiver)) if knows(*receiver) => &mut self.answers,
            Frame::Wireguard(Wireguard::Answer(_)) | Frame::Stranger => &mut self.hints,
            Frame::Knock(_) => return self.knock(from, now),
            Frame::EnrolRequest(_) => &mut self.enrolments,
            // An answer; whether to a question of ours, control knows.
            Frame::Stun => &mut self.hints,
            _ => return Passage::Refused(Reason::UnknownFrame),
        };
        if budget.admit(source, now) { Passage::Admitted } else { Passage::Refused(Reason::RateLimited) }
    }

    /// An initiation for us.
    fn initiation(
        &mut self,
        from: Locator,
        bytes: &[u8],
        now: Instant,
        reply: &mut [u8; COOKIE_REPLY],
    ) -> Passage {
        let crowded = self.crowded.is_some_and(|since| now.since(since) < CROWDED);
        let source = from.remote().ip();
        if !crowded && self.unproved.admit(source, now) {
            return Passage::Admitted;
        }
        if self.macs.prove(from, bytes) {
            self.proofs.remember(from, now);
            let fits = self.proved.admit(source, now);
            return if fits { Passage::Admitted } else { Passage::Refused(Reason::RateLimited) };
        }
        if !self.cookies.take(COOKIES, now) {
            return Passage::Refused(Reason::RateLimited);
        }
        self.macs.cookie(from, bytes, reply).map_or(Passage::Refused(Reason::NotAuthentic), Passage::Cookie)
    }

    /// A knock.
    fn knock(&mut self, from: Locator, now: Instant) -> Passage {
        let source = from.remote().ip();
        if self.sealed.admit(source, now) {
            return Passage::Admitted;
        }
        self.crowded = Some(now);
        if self.proofs.hold(from, now) && self.proved.admit(source, now) {
            Passage::Admitted
        } else {
            Passage::Refused(Reason::RateLimited)
        }
    }
}

/// Places from which a cookie came back lately; bounded, the oldest are forgotten first.
#[derive(Default)]
struct Proofs {
    young: HashMap<Locator, Instant>,
    old: HashMap<Locator, Instant>,
}

impl Proofs {
    fn remember(&mut self, from: Locator, now: Instant) {
        if self.young.len() >= PROOFS && !self.young.contains_key(&from) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(from, now);
    }

    fn hold(&self, from: Locator, now: Instant) -> bool {
        let proof = self.young.get(&from).or_else(|| self.old.get(&from));
        proof.is_some_and(|at| now.since(*at) < PROOF_LIFE)
    }
}

#[cfg(test)]
mod tests;
