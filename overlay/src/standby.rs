//! Making relays ready before they are needed.
//!
//! Owns: which relays are being tried for one peer, and when to try others. A relay is tried by opening a channel at it and,
//! a moment later, probing the peer through it; what answers is a path ([`crate::paths`]). Never: which relays there are,
//! or which is used.

use std::time::Duration;

use crate::limits::TICK_ACTIVE;
use crate::locator::Locator;
use crate::paths::RELAYS;
use crate::timing::Instant;

/// Relays are looked for this often as long as there are too few.
const AGAIN: Duration = Duration::from_secs(10);
/// A channel that was asked for is open after this long: a message to the relay, and what it takes to forward by it.
const OPENING: Duration = TICK_ACTIVE;
/// An answer is waited for this long.
const PATIENCE: Duration = Duration::from_secs(3);

/// A relay being tried.
#[derive(Clone, Copy, Debug)]
struct Trial {
    way: Locator,
    begun: Instant,
    /// The probe's token, and when it left.
    probe: Option<(u64, Instant)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Standby {
    trials: Vec<Trial>,
    next: Option<Instant>,
}

impl Standby {
    /// Whether it is time to look for further relays.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|at| at <= now)
    }

    /// Relays were looked for.
    pub(crate) fn looked(&mut self, now: Instant) {
        self.next = Some(now + AGAIN);
    }

    /// Look at once: other relays can be had.
    pub(crate) fn hurry(&mut self) {
        self.next = None;
    }

    /// Whether `way` may be tried: it is not being, and there is room.
    pub(crate) fn begin(&mut self, way: Locator, now: Instant) -> bool {
        self.trials.retain(|trial| now.since(trial.begun) < PATIENCE);
        if self.trials.len() >= RELAYS || self.trials.iter().any(|trial| trial.way == way) {
            return false;
        }
        self.trials.push(Trial { way, begun: now, probe: None });
        true
    }

    /// Ways whose channel is open by now; say with [`Self::sent`] that a probe left.
    pub(crate) fn open(&self, now: Instant) -> Vec<Locator> {
        let open = |trial: &&Trial| trial.probe.is_none() && now.since(trial.begun) >= OPENING;
        self.trials.iter().filter(open).map(|trial| trial.way).collect()
    }

    /// A probe with `token` left on `way`.
    pub(crate) fn sent(&mut self, way: Locator, token: u64, now: Instant) {
        if let Some(trial) = self.trials.iter_mut().find(|trial| trial.way == way) {
            trial.probe = Some((token, now));
        }
    }

    /// An answer came; which way it proves, and its round trip.
    pub(crate) fn answered(&mut self, token: u64, now: Instant) -> Option<(Locator, Duration)> {
        let is_it = |trial: &Trial| trial.probe.is_some_and(|(sent, _)| sent == token);
        let at = self.trials.iter().position(is_it)?;
        let trial = self.trials.swap_remove(at);
        let (_, sent) = trial.probe?;
        Some((trial.way, now.since(sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locator::Channel;
    use crate::testing::{address, at};

    fn relay(n: u8) -> Locator {
        Locator::Relayed { relay: address(n).into(), channel: Channel(1) }
    }

    #[test]
    fn a_relay_is_probed_once_its_channel_is_open_and_answers_once() {
        let mut standby = Standby::default();
        assert!(standby.is_due(at(0)) && standby.begin(relay(1), at(0)));
        assert!(!standby.begin(relay(1), at(0)), "under way");
        standby.looked(at(0));
        assert!(!standby.is_due(at(9_999)) && standby.is_due(at(10_000)));
        assert_eq!((standby.open(at(249)), standby.open(at(250))), (vec![], vec![relay(1)]));
        standby.sent(relay(1), 7, at(250));
        assert_eq!(standby.open(at(500)), []);
        assert_eq!(standby.answered(8, at(300)), None);
        assert_eq!(standby.answered(7, at(300)), Some((relay(1), Duration::from_millis(50))));
        assert_eq!(standby.answered(7, at(300)), None);
    }

    #[test]
    fn trials_are_bounded_and_end() {
        let mut standby = Standby::default();
        let begun = (1..100).filter(|n| standby.begin(relay(*n), at(0))).count();
        assert_eq!(begun, RELAYS);
        assert!(standby.begin(relay(100), at(3_000)), "those that did not answer make room");
        standby.hurry();
        assert!(standby.is_due(at(3_000)));
    }
}
