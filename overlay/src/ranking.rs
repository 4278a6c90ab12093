//! The ranking of super peers: which are the best homes for this node.
//!
//! Owns: [`Standing`], what is known of one super peer; its [`Standing::cost`]; and [`Standing::beats`], which keeps a choice
//! from swinging. Never: who is chosen.
//!
//! What counts is time: the round trip, and what load and outages are worth in milliseconds. Equals are ordered by a hash
//! of both ends, so that the nodes of a network spread over its super peers instead of all meeting at one.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::id::NodeId;
use crate::timing::Instant;

/// What a super peer says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Nodes with a tunnel to it.
    pub nodes: u16,
    /// What it relays, in Mbit/s.
    pub mbits: u16,
}

impl Load {
    /// What it is worth: 5,500 users with two homes each at 50 super peers make 220 nodes each, which is fair and costs
    /// 22 ms; so does a fifth of a gigabit.
    const fn cost(self) -> Duration {
        Duration::from_micros(self.nodes as u64 * 100 + self.mbits as u64 * 100)
    }
}

/// Round trip of a super peer that was never measured: worse than any within a continent, better than one at the other end
/// of the world.
const UNMEASURED: Duration = Duration::from_millis(150);
/// What an outage is worth when it begins.
const OUTAGE: Duration = Duration::from_millis(200);
/// What is left of it halves in this time.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// Outages that still count: more cost no more.
const MAX_OUTAGES: f64 = 8.0;
/// Another must be this much better, absolutely, ...
const GAIN: Duration = Duration::from_millis(20);
/// ... and in proportion.
const SHARE: f64 = 0.7;

/// What is known of one super peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Smoothed round trip, as measured last.
    pub rtt: Option<Duration>,
    /// As it said last.
    pub load: Load,
    /// Outages, those of long ago for less.
    outages: f64,
    counted: Instant,
}

impl Standing {
    /// It does not answer any more.
    pub fn failed(&mut self, now: Instant) {
        self.outages = (self.outages_at(now) + 1.0).min(MAX_OUTAGES);
        self.counted = now;
    }

    fn outages_at(&self, now: Instant) -> f64 {
        let half_lives = now.since(self.counted).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.outages * (-half_lives).exp2()
    }

    /// The less the better.
    #[must_use]
    pub fn cost(&self, now: Instant) -> Duration {
        self.rtt.unwrap_or(UNMEASURED) + self.load.cost() + OUTAGE.mul_f64(self.outages_at(now))
    }

    /// Whether to leave `current` for this one, which was measured.
    #[must_use]
    pub fn beats(&self, current: &Self, now: Instant) -> bool {
        let (own, other) = (self.cost(now), current.cost(now));
        self.rtt.is_some() && own + GAIN < other && own < other.mul_f64(SHARE)
    }
}

/// Where `node` stands among equals as `by` sees it: different for every `by`, always the same for one.
#[must_use]
pub fn place(by: &NodeId, node: &NodeId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"frejus/1 place");
    hash.update(by.0);
    hash.update(node.0);
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(*digest.first_chunk().expect("a hash has 32 bytes"))
}

/// What two homes should not have in common, since it may fail as a whole: the /16 of an IPv4 address, the /32 of an
/// IPv6 one.
#[must_use]
pub fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            IpAddr::from([a, b, 0, 0])
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            IpAddr::from([a, b, 0, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, node};

    fn standing(rtt_ms: u64, nodes: u16) -> Standing {
        let load = Load { nodes, mbits: 0 };
        Standing { rtt: Some(Duration::from_millis(rtt_ms)), load, ..Standing::default() }
    }

    #[test]
    fn the_near_the_idle_and_the_reliable_come_first() {
        let now = at(0);
        assert!(standing(10, 0).cost(now) < standing(50, 0).cost(now));
        assert!(standing(10, 0).cost(now) < standing(10, 500).cost(now));
        assert!(standing(30, 10).beats(&standing(20, 800), now), "a busy one next door");
        let mut shaky = standing(10, 0);
        shaky.failed(now);
        assert!(standing(80, 0).beats(&shaky, now));
        assert!(shaky.cost(at(6_000_000)) < standing(12, 0).cost(now), "forgiven after ten half-lives");
        (0..1000).for_each(|_| shaky.failed(now));
        assert!(shaky.cost(now) < Duration::from_secs(2), "bounded");
    }

    #[test]
    fn a_choice_does_not_swing() {
        let now = at(0);
        assert!(!standing(20, 0).beats(&standing(35, 0), now), "less than 20 ms");
        assert!(!standing(200, 0).beats(&standing(250, 0), now), "less than a third");
        assert!(standing(20, 0).beats(&standing(60, 0), now));
        assert!(!Standing::default().beats(&standing(3000, 0), now), "a guess beats nothing");
    }

    #[test]
    fn equals_are_ordered_differently_for_each_node() {
        let firsts = (0..200).map(|by| (200..210).min_by_key(|n| place(&node(by), &node(*n))));
        let mut counts = std::collections::BTreeMap::new();
        firsts.for_each(|first| *counts.entry(first).or_insert(0) += 1);
        assert_eq!(counts.len(), 10, "every super peer is somebody's first choice");
        assert!(counts.values().all(|count| (5..50).contains(count)), "{counts:?}");
    }

    #[test]
    fn neighbours_share_a_prefix() {
        let of = |ip: &str| neighbourhood(ip.parse().unwrap());
        assert_eq!(of("203.0.113.1"), of("203.0.200.9"));
        assert_ne!(of("203.0.113.1"), of("203.1.113.1"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
    }
}
