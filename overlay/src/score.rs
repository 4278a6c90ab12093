//! The ranking of paths, and nothing else.
//!
//! Owns: [`Score`], ordered: the greater is better, and [`Score::beats`], which adds what keeps a choice from
//! swinging.

use std::time::Duration;

/// What kind of way it is; a later variant is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Did not answer what it should have answered long ago.
    Dead,
    /// Through a relay, and an end of it has moved.
    RelayInDoubt,
    /// Through a relay that TCP leads to: where one of its packets is lost, all of them wait.
    RelayByStream,
    /// Straight by TCP, with a probe unanswered for longer than it should be.
    StreamInDoubt,
    /// Straight, and answering, after it died several times within minutes.
    Unsteady,
    /// Through a relay.
    Relay,
    /// Straight by TCP, and answering.
    Stream,
    /// Straight, with a probe unanswered for longer than it should be, or an end of it has moved.
    DirectInDoubt,
    /// Straight, and answering.
    Direct,
}

/// How good a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// Decides first.
    pub tier: Tier,
    /// Smoothed round trip; decides within a tier.
    pub rtt: Duration,
}

/// A path of the same tier must be this much faster, absolutely: jitter on a home line is a few milliseconds.
const GAIN: Duration = Duration::from_millis(10);

impl Score {
    /// Whether to leave a path of score `current` for this one: a better tier at once, the same tier only for a
    /// round trip that is a fifth and [`GAIN`] shorter.
    #[must_use]
    pub fn beats(self, current: Self) -> bool {
        if self.tier != current.tier {
            return self.tier > current.tier;
        }
        self.rtt + GAIN < current.rtt && self.rtt.as_secs_f64() < current.rtt.as_secs_f64() * 0.8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(tier: Tier, ms: u64) -> Score {
        Score { tier, rtt: Duration::from_millis(ms) }
    }

    #[test]
    fn direct_beats_relay_however_slow() {
        assert!(score(Tier::Direct, 900).beats(score(Tier::Relay, 5)));
        assert!(!score(Tier::Relay, 5).beats(score(Tier::DirectInDoubt, 900)));
    }

    #[test]
    fn udp_beats_tcp_however_fast() {
        assert!(score(Tier::Direct, 900).beats(score(Tier::Stream, 5)));
        assert!(score(Tier::Stream, 900).beats(score(Tier::Relay, 5)), "the relay is spared");
        assert!(score(Tier::Relay, 900).beats(score(Tier::RelayByStream, 5)));
        assert!(score(Tier::Relay, 900).beats(score(Tier::StreamInDoubt, 5)));
    }

    #[test]
    fn equal_paths_never_swing() {
        assert!(!score(Tier::Direct, 20).beats(score(Tier::Direct, 24)));
        assert!(!score(Tier::Direct, 95).beats(score(Tier::Direct, 110)));
        assert!(score(Tier::Direct, 20).beats(score(Tier::Direct, 60)));
    }
}
