//! Where super peers see a peer.
//!
//! Owns: which super peer was asked that, what it said, and for how long that counts. A peer's own word names any
//! address, also a third party's; a super peer's word alone does not make anybody probe it either. Where both agree, one may
//! guess ports ([`crate::guess`]). Never: a probe.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::id::NodeId;
use crate::locator::Channel;
use crate::timing::Instant;

/// A question without an answer is repeated after this long,
const AGAIN: Duration = Duration::from_millis(500);
/// and what is known is asked for anew after this long.
const REFRESH: Duration = Duration::from_secs(10);
/// What was said counts for this long: searches ask twice in that time.
const LIFE: Duration = Duration::from_secs(60);
/// Super peers whose word is kept: the homes of both.
const MOST: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    asked: Option<(NodeId, Channel, Instant)>,
    seen: VecDeque<(NodeId, IpAddr, Instant)>,
}

impl Sight {
    /// Whether it is time to ask.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let known = self.seen.iter().any(|(_, _, at)| now.since(*at) < LIFE);
        let pause = if known { REFRESH } else { AGAIN };
        self.asked.is_none_or(|(_, _, at)| now.since(at) >= pause)
    }

    /// A super peer was asked about the other end of a channel.
    pub(crate) fn ask(&mut self, of: NodeId, channel: Channel, now: Instant) {
        self.asked = Some((of, channel, now));
    }

    /// Whether this is what was asked last.
    pub(crate) fn awaits(&self, of: &NodeId, channel: Channel) -> bool {
        self.asked.is_some_and(|(asked, about, _)| asked == *of && about == channel)
    }

    /// It said that it sees the peer there, or not at all.
    pub(crate) fn learn(&mut self, of: NodeId, at: Option<IpAddr>, now: Instant) {
        self.seen.retain(|(by, _, _)| *by != of);
        let Some(ip) = at else { return };
        if self.seen.len() == MOST {
            self.seen.pop_front();
        }
        self.seen.push_back((of, ip, now));
    }

    /// Whether a super peer sees the peer there.
    pub(crate) fn vouches(&self, ip: IpAddr, now: Instant) -> bool {
        self.seen.iter().any(|(_, seen, at)| *seen == ip && now.since(*at) < LIFE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, at, node};

    #[test]
    fn a_super_peers_word_counts_for_a_minute_and_its_newest_only() {
        let mut sight = Sight::default();
        assert!(sight.is_due(at(0)));
        sight.ask(node(9), Channel(1), at(0));
        assert!(!sight.is_due(at(499)) && sight.is_due(at(500)));
        assert!(sight.awaits(&node(9), Channel(1)));
        assert!(!sight.awaits(&node(8), Channel(1)) && !sight.awaits(&node(9), Channel(2)));
        sight.learn(node(9), Some(address(1).ip()), at(20));
        assert!(!sight.is_due(at(9_999)) && sight.is_due(at(10_000)));
        assert!(sight.vouches(address(1).ip(), at(60_019)) && !sight.vouches(address(1).ip(), at(60_020)));
        assert!(!sight.vouches(address(2).ip(), at(20)));
        sight.learn(node(9), Some(address(2).ip()), at(30));
        assert!(sight.vouches(address(2).ip(), at(30)) && !sight.vouches(address(1).ip(), at(30)));
        sight.learn(node(9), None, at(40));
        assert!(!sight.vouches(address(2).ip(), at(40)));
    }

    #[test]
    fn words_are_few() {
        let mut sight = Sight::default();
        (1..=100).for_each(|n| sight.learn(node(n), Some(address(n).ip()), at(0)));
        assert_eq!((1..=100).filter(|n| sight.vouches(address(*n).ip(), at(0))).count(), MOST);
    }
}
