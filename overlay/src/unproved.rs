//! What addresses get that have not answered: a peer's word names any address, also a third party's.
//!
//! Owns: how much each may get, and when more. One ledger is kept for the probes of a peer, another for the connections
//! that are tried in its name. Never: a probe, or a connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::timing::Instant;

/// What a host gets at once before it has answered, whatever the ports. It is the peer's word alone that the address
/// is its own, and it may be a third party's.
const UNPROVED: Allowance = Allowance { tries: 10, patience: Duration::from_secs(30) };
/// What each port of a host gets that a super peer sees there as well, or that the peer itself was heard from: bursts, and
/// the rounds of a prediction.
const PLAUSIBLE: Allowance = Allowance { tries: 32, patience: Duration::from_secs(5) };
/// Addresses that are counted. No further ones are tried until some were left alone for the longest patience.
const MOST: usize = 256;

/// What is known of an address that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The peer says that it is its own.
    Word,
    /// A super peer sees the peer at this host, or the peer was just heard from the address.
    Plausible,
}

/// So many tries at once, and then one in every so long a time: what came back is found, and a third party hears next to
/// nothing.
#[derive(Clone, Copy)]
struct Allowance {
    tries: u16,
    patience: Duration,
}

/// See the module: tries, and when the last was.
#[derive(Debug, Default)]
pub struct Unproved(BTreeMap<SocketAddr, (u16, Instant)>);

impl Unproved {
    /// Nothing was tried.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether an address may be tried now, by what it has got without an answer, for whatever purpose; it is charged if
    /// so.
    pub fn admit(&mut self, at: SocketAddr, trust: Trust, now: Instant) -> bool {
        let same = |other: &SocketAddr| match trust {
            Trust::Word => other.ip() == at.ip(),
            Trust::Plausible => *other == at,
        };
        let all = self.0.iter().filter(|(other, _)| same(other)).map(|(_, spent)| *spent);
        let spent = all.reduce(|one, other| (one.0.saturating_add(other.0), one.1.max(other.1)));
        let allowed = if trust == Trust::Word { UNPROVED } else { PLAUSIBLE };
        let fits = |(tries, last)| tries < allowed.tries || now.since(last) >= allowed.patience;
        if !spent.is_none_or(fits) || !self.make_room(at, now) {
            return false;
        }
        let (tries, last) = self.0.entry(at).or_insert((0, now));
        (*tries, *last) = (tries.saturating_add(1), now);
        true
    }

    /// The peer is there: its account is closed.
    pub fn answered(&mut self, at: &SocketAddr) {
        self.0.remove(at);
    }

    /// The peer is at this host, as it says: all of its accounts are closed.
    pub fn proved(&mut self, host: IpAddr) {
        self.0.retain(|at, _| at.ip() != host);
    }

    fn make_room(&mut self, at: SocketAddr, now: Instant) -> bool {
        if self.0.len() < MOST || self.0.contains_key(&at) {
            return true;
        }
        self.0.retain(|_, (_, last)| now.since(*last) < UNPROVED.patience);
        self.0.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_flood_of_addresses_is_not_followed_for_ever() {
        let mut unproved = Unproved::new();
        let place = |n: u32| SocketAddr::new(std::net::Ipv4Addr::from(0xc633_0000 + n).into(), 9);
        let tried = (0..10_000).filter(|n| unproved.admit(place(*n), Trust::Word, at(u64::from(*n)))).count();
        assert_eq!((tried, unproved.0.len()), (MOST, MOST));
        assert!(unproved.admit(place(20_000), Trust::Word, at(40_000)), "later there is room again");
    }

    #[test]
    fn a_host_gets_ten_tries_in_all_until_it_answers() {
        let mut unproved = Unproved::new();
        let place = |port: u16| SocketAddr::from(([198, 51, 100, 7], port));
        let tried = (0..100).filter(|n| unproved.admit(place(*n), Trust::Word, at(0))).count();
        assert_eq!(tried, 10);
        assert!(!unproved.admit(place(1), Trust::Word, at(29_999)));
        unproved.answered(&place(1));
        assert!(unproved.admit(place(1), Trust::Word, at(29_999)));
        unproved.proved(place(1).ip());
        assert!(unproved.0.is_empty());
    }
}
