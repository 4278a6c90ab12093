//! How much of what anybody may send us we look at: a budget a source prefix, and one for all of them.
//!
//! Owns: [`Limiter`], which stands in front of everything that costs a public-key operation or an answer: what passes
//! the gate ([`crate::gate`]), and STUN; and [`Bucket`], one budget. Pure: time is an argument. Never: data of a tunnel, whose
//! authentication is cheap.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use frejus_overlay::timing::Instant;

/// Prefixes remembered in each of two generations: 2 × 2,048 × ~32 B = 128 KiB.
const GENERATION: usize = 2048;

/// A budget that refills steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Refill, in messages (or bytes) a second; at least one.
    pub per_second: u32,
    /// What can be saved up, in messages (or bytes); at least one.
    pub burst: u32,
}

impl Rate {
    /// For one source prefix. A household behind one address with a hundred peers starts them all at once.
    pub const PREFIX: Self = Self { per_second: 50, burst: 100 };
    /// For all sources together, of what costs some 10 µs: 2 % of a core.
    pub const GLOBAL: Self = Self { per_second: 2000, burst: 2000 };

    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// The generic cell rate algorithm (ITU-T I.371): when the bucket will be full again is all there is to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Whether one more message fits; it is charged if so.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(rate, 1, now)
    }

    /// As [`Self::take`], for so many at once, all or none; none always fit.
    pub fn take_many(&mut self, rate: Rate, amount: u32, now: Instant) -> bool {
        let begin = self.full_at.max(now);
        let spare = rate.burst.max(1).checked_sub(amount);
        let fits = spare.is_some_and(|spare| begin.since(now) <= rate.interval() * spare);
        if fits && amount > 0 {
            self.full_at = begin + rate.interval() * amount;
        }
        fits
    }
}

/// An IPv4 /24 or an IPv6 /48: what one customer usually gets, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix([u8; 6], bool);

impl Prefix {
    pub(crate) fn of(source: IpAddr) -> Self {
        match source.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self([a, b, c, 0, 0, 0], false)
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Self([a, b, c, d, e, f], true)
            }
        }
    }
}

/// Budgets of all sources; bounded, the prefixes longest unheard of are forgotten first.
#[derive(Debug)]
pub struct Limiter {
    prefix: Rate,
    global: Rate,
    all: Bucket,
    young: HashMap<Prefix, Bucket>,
    old: HashMap<Prefix, Bucket>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Rate::PREFIX, Rate::GLOBAL)
    }
}

impl Limiter {
    /// Full budgets.
    #[must_use]
    pub fn new(prefix: Rate, global: Rate) -> Self {
        Self { prefix, global, all: Bucket::default(), young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether one more message from `source` is looked at; it is charged if so. The prefix is asked first, so that
    /// a single flooder can't use up what is for all.
    pub fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        self.admit_many(source, 1, now)
    }

    /// As [`Self::admit`], for so many units at once.
    pub fn admit_many(&mut self, source: IpAddr, amount: u32, now: Instant) -> bool {
        if amount == 0 {
            return true;
        }
        let key = Prefix::of(source);
        let mut bucket = match self.young.get(&key) {
            Some(bucket) => *bucket,
            None => self.old.remove(&key).unwrap_or_default(),
        };
        let admitted = bucket.take_many(self.prefix, amount, now);
        if self.young.len() >= GENERATION && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, bucket);
        admitted && self.all.take_many(self.global, amount, now)
    }

    /// Prefixes remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nobody was heard of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SMALL: Rate = Rate { per_second: 10, burst: 3 };

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn v4(a: u8, d: u8) -> IpAddr {
        Ipv4Addr::new(a, 2, 3, d).into()
    }

    #[test]
    fn burst_then_rate() {
        let mut limiter = Limiter::new(SMALL, Rate::GLOBAL);
        let admitted = (0..10).filter(|_| limiter.admit(v4(1, 1), at(0))).count();
        assert_eq!(admitted, 3);
        assert!(!limiter.admit(v4(1, 1), at(99)));
        assert!(limiter.admit(v4(1, 1), at(100)));
        assert!(!limiter.admit(v4(1, 1), at(101)));
        let later = (0..10).filter(|_| limiter.admit(v4(1, 1), at(60_000))).count();
        assert_eq!(later, 3, "no more than the burst is saved up");
    }

    #[test]
    fn neighbours_share_a_budget_and_strangers_do_not() {
        let mut limiter = Limiter::new(SMALL, Rate::GLOBAL);
        assert_eq!((0..10).filter(|d| limiter.admit(v4(1, *d), at(0))).count(), 3);
        assert!(limiter.admit(v4(2, 1), at(0)));
        let in_48 = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 1, last, 0, 0, 0, 1).into();
        assert_eq!((0..10).filter(|d| limiter.admit(in_48(*d), at(0))).count(), 3);
    }

    #[test]
    fn one_flooder_leaves_the_rest_to_others() {
        let mut limiter = Limiter::new(SMALL, Rate { per_second: 10, burst: 5 });
        assert_eq!((0..1000).filter(|_| limiter.admit(v4(1, 1), at(0))).count(), 3);
        assert_eq!((2..100).filter(|a| limiter.admit(v4(*a, 1), at(0))).count(), 2);
    }

    #[test]
    fn memory_is_bounded_and_the_active_are_remembered() {
        let mut limiter = Limiter::new(SMALL, Rate { per_second: 1_000_000, burst: 1_000_000 });
        while limiter.admit(v4(1, 1), at(0)) {}
        for i in 0..20_000_u32 {
            limiter.admit(Ipv4Addr::from(0x0a00_0000 + (i << 8)).into(), at(0));
            assert!(!limiter.admit(v4(1, 1), at(0)), "forgotten after {i} others");
            assert!(limiter.len() <= 2 * GENERATION);
        }
    }
}
