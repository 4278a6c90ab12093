//! Leaving a further socket again, where the one that the node listens on does as well.
//!
//! A path may stand on sockets of its own because a punch was in vain when it was needed: the way was cut, or a router had
//! misfiled a packet. Each costs a descriptor, and a mapping that must be kept. Owns: when the other way is tried again.
//! Never: a probe, or the choice between the two ([`crate::score`] has it).

use std::time::Duration;

use crate::timing::Instant;

/// How long a path has been good, or the last try is over, before the next; the last one repeats. What a router has misfiled
/// is forgotten after 30 s to 180 s without a packet, and a try is one burst of probes.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(200), Duration::from_secs(600)];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct MoveBack {
    tries: usize,
    tried: Option<Instant>,
}

impl MoveBack {
    /// Whether to try now; it counts as tried then. The path has been in use `since`. A path that is lost and found again does
    /// not begin anew, so that one which is good for seconds only is not tried all the time.
    pub(crate) fn is_due(&mut self, since: Instant, now: Instant) -> bool {
        let from = self.tried.map_or(since, |tried| tried.max(since));
        if now.since(from) < PAUSES[self.tries.min(PAUSES.len() - 1)] {
            return false;
        }
        self.tries += 1;
        self.tried = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn it_is_tried_seldom_and_more_seldom() {
        let mut back = MoveBack::default();
        let tries: Vec<u64> = (10..2000).filter(|s| back.is_due(at(10_000), at(s * 1000))).collect();
        assert_eq!(tries, [25, 85, 285, 885, 1485]);
    }

    #[test]
    fn another_path_waits_from_its_own_beginning_and_no_less() {
        let mut back = MoveBack::default();
        assert!(back.is_due(at(0), at(15_000)));
        assert!(!back.is_due(at(70_000), at(129_000)));
        assert!(back.is_due(at(70_000), at(130_000)));
    }
}
