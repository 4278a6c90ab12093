//! Handshakes that overtook the knock by which we would know who they are from.
//!
//! A relay forwards what comes through a channel that is open already, and hands a knock to its control first; and packets
//! change places on the way. Owns: the last few such initiations, for a moment. Never: an answer to one of them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::TunnelKey;
use crate::locator::Locator;
use crate::timing::Instant;

/// Initiations kept: those that come within a moment. 16 × 200 B.
const KEPT: usize = 16;
/// A knock is this far behind at most; then its sender tries again.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Early {
    at: Instant,
    key: TunnelKey,
    from: Locator,
    initiation: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Overtakers(VecDeque<Early>);

impl Overtakers {
    /// Keep an initiation by whoever holds `key`; how many others have waited in vain.
    pub(super) fn keep(&mut self, key: TunnelKey, from: Locator, initiation: &[u8], now: Instant) -> u64 {
        let before = self.0.len();
        self.0.retain(|early| now.since(early.at) < PATIENCE);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        let dropped = before - self.0.len();
        self.0.push_back(Early { at: now, key, from, initiation: initiation.to_vec() });
        dropped as u64
    }

    /// What the holder of `key` sent ahead of its knock, and which way it came; the latest, if there are several.
    pub(super) fn take(&mut self, key: &TunnelKey, now: Instant) -> Option<(Locator, Vec<u8>)> {
        let is_its = |early: &Early| early.key == *key && now.since(early.at) < PATIENCE;
        let place = self.0.iter().rposition(is_its)?;
        self.0.remove(place).map(|early| (early.from, early.initiation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, at, tunnel_key};

    #[test]
    fn what_came_early_waits_a_moment_and_few_do() {
        let from = Locator::Direct(address(1).into());
        let mut early = Overtakers::default();
        assert_eq!(early.keep(tunnel_key(1), from, &[1], at(0)), 0);
        assert_eq!(early.take(&tunnel_key(2), at(10)), None);
        assert_eq!(early.take(&tunnel_key(1), at(499)), Some((from, vec![1])));
        assert_eq!(early.take(&tunnel_key(1), at(499)), None, "once");
        early.keep(tunnel_key(1), from, &[2], at(1000));
        assert_eq!(early.take(&tunnel_key(1), at(1500)), None, "too late");
        assert_eq!(early.keep(tunnel_key(3), from, &[3], at(1500)), 1, "counted when it makes room");
        let dropped: u64 = (0..100).map(|_| early.keep(tunnel_key(4), from, &[4], at(1600))).sum();
        assert_eq!((early.0.len(), dropped), (KEPT, 100 + 1 - KEPT as u64));
    }
}
