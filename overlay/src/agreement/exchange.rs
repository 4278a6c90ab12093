//! When to offer, to answer, to repeat and to give up: the agreement with one peer.
//!
//! Owns: [`Agreement`]. Whoever initiated the WireGuard session offers; a lost message is repeated by the offerer alone,
//! and a repeated offer gets the answer that it got. Two sessions at once are two agreements. Never: a key, a path.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::agreement::{Answer, Binding, Offer};
use crate::timing::Instant;
use crate::tunnel::Tunnel;
use crate::wire::control::Message;

/// An offer is repeated first after this long, or two round trips if they take longer.
const PAUSE: Duration = Duration::from_millis(250);
/// How often an offer is sent, each pause twice the last: with 30 % of all datagrams lost, all five fail once in
/// (1 − 0.7²)⁵ = 3.5 % of the sessions, and the next begins within two minutes.
const SENDS: u32 = 5;
/// An answer is kept for repetition as long as its offer may be repeated: 0.25 · (1 + 2 + 4 + 8 + 16) = 7.75 s, or 62
/// round trips.
const ANSWER_KEPT: Duration = Duration::from_secs(20);
/// Offers that differ come with sessions, at least a second apart. An answer costs some 0.1 ms; a hostile member gets
/// ten a second, 0.1 % of a core.
const ANSWER_EVERY: Duration = Duration::from_millis(100);
/// Packets wait for keys no longer than all offers take at the usual round trips.
const PATIENCE: Duration = Duration::from_secs(8);

/// The agreement with one peer, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreement {
    /// The session for which we offered last.
    session: Option<u64>,
    offered: Option<Box<Offered>>,
    answered: Option<Answered>,
    /// Until when packets wait for keys.
    patience: Option<Instant>,
    /// Offers or patience ran out, and no keys came since.
    failed: bool,
}

#[derive(Clone, Debug)]
struct Offered {
    offer: Offer,
    next: Instant,
    pause: Duration,
    left: u32,
}

#[derive(Clone, Debug)]
struct Answered {
    at: Instant,
    /// Hash of the offer.
    digest: [u8; 32],
    answer: Option<Box<Answer>>,
}

/// What an offer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Send this back.
    Answer(Message),
    /// Nothing: it was answered long ago, or this node wants no transport keys.
    Nothing,
    /// Nothing: it came too soon after another.
    TooSoon,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send this again.
    Repeat(Message),
    /// Packets have waited long enough.
    Impatient,
}

impl Agreement {
    /// A session stands; what to send if it is a new one of ours.
    pub(crate) fn begin(
        &mut self,
        tunnel: &dyn Tunnel,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<Message> {
        let session = tunnel.initiated()?;
        if self.session == Some(session) {
            return None;
        }
        self.session = Some(session);
        self.offered = None;
        let offer = tunnel.offer(now)?;
        let message = Message::Offer(offer.clone());
        let pause = PAUSE.max(rtt.unwrap_or_default() * 2);
        self.offered = Some(Box::new(Offered { offer, next: now + pause, pause, left: SENDS - 1 }));
        Some(message)
    }

    /// The peer offers.
    pub(crate) fn on_offer(
        &mut self,
        tunnel: &dyn Tunnel,
        offer: &Offer,
        binding: &Binding,
        now: Instant,
    ) -> Reply {
        let digest = Sha256::digest(Message::Offer(offer.clone()).encode()).into();
        if let Some(answered) = &self.answered {
            if answered.digest == digest {
                let answer = answered.answer.as_deref().cloned();
                return answer.map_or(Reply::Nothing, |answer| Reply::Answer(Message::Answer(answer)));
            }
            if now.since(answered.at) < ANSWER_EVERY {
                return Reply::TooSoon;
            }
        }
        let Some(answer) = tunnel.answer(offer, binding, now) else { return Reply::Nothing };
        self.answered = Some(Answered { at: now, digest, answer: Some(Box::new(answer.clone())) });
        Reply::Answer(Message::Answer(answer))
    }

    /// The peer answers; whether there are new keys.
    pub(crate) fn on_answer(
        &mut self,
        tunnel: &dyn Tunnel,
        answer: &Answer,
        binding: &Binding,
        now: Instant,
    ) -> bool {
        let ours = self.offered.as_ref().is_some_and(|offered| offered.offer.index == answer.offer);
        let accepted = ours && tunnel.accept(answer, binding, now);
        if accepted {
            self.offered = None;
        }
        accepted
    }

    /// Data can be sealed: nothing has to wait.
    pub(crate) const fn settle(&mut self) {
        self.patience = None;
        self.failed = false;
    }

    /// A packet waits for keys; `false` if that makes no sense any more.
    pub(crate) fn wait(&mut self, now: Instant) -> bool {
        if self.failed && self.offered.is_none() {
            return false;
        }
        self.patience.get_or_insert(now + PATIENCE);
        true
    }

    /// Whether anything was ever offered.
    pub(crate) const fn has_begun(&self) -> bool {
        self.session.is_some()
    }

    /// Whether packets wait for keys.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.patience.is_some()
    }

    /// Whether keys were wanted in vain.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let repeat = self.offered.as_ref().map(|offered| offered.next);
        let forget = self.answered.as_ref().filter(|answered| answered.answer.is_some());
        let forget = forget.map(|answered| answered.at + ANSWER_KEPT);
        [repeat, forget, self.patience].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if let Some(answered) = self.answered.as_mut().filter(|answered| answered.at + ANSWER_KEPT <= now) {
            answered.answer = None;
        }
        if self.patience.take_if(|until| *until <= now).is_some() {
            self.failed = true;
            return Some(Due::Impatient);
        }
        let offered = self.offered.as_mut().filter(|offered| offered.next <= now)?;
        if offered.left == 0 {
            self.offered = None;
            self.failed = true;
            return None;
        }
        offered.left -= 1;
        offered.pause *= 2;
        offered.next = now + offered.pause;
        Some(Due::Repeat(Message::Offer(offered.offer.clone())))
    }
}

#[cfg(test)]
mod tests;
