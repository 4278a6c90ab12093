//! Which of the addresses that super peers say they see us at is believed.
//!
//! Owns: the vote. One super peer that lies must not make us publish a victim's address, to which everybody who wants
//! to talk to us would send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::locator::is_public;

/// What usually belongs to one operator: an IPv4 /16 or an IPv6 /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network([u8; 4], bool);

impl Network {
    /// The one that an address is in.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                Self([a, b, 0, 0], false)
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self([a, b, c, d], true)
            }
        }
    }
}

/// One super peer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where the super peer is.
    pub observer: IpAddr,
    /// Where it says that it sees us.
    pub seen: SocketAddr,
}

/// The endpoints whose address is believed, in order, and whether two super peers of different networks vouch for it.
///
/// An address needs two that agree, in different networks; where all observers of its family are in one network, two that
/// agree there; and where there is only one observer, its word is all there is. Addresses that are not public are no
/// stranger's: what a super peer sees in our own realm, or in a carrier's, contradicts nobody.
#[must_use]
pub fn believed(observations: &[Observation]) -> Vec<(SocketAddr, bool)> {
    let mut believed = Vec::new();
    let (public, near): (Vec<&Observation>, Vec<&Observation>) =
        observations.iter().partition(|seen| is_public(seen.seen.ip()));
    for four in [true, false] {
        let family: Vec<&Observation> =
            public.iter().filter(|seen| seen.seen.ip().is_ipv4() == four).copied().collect();
        let mut votes: BTreeMap<IpAddr, (BTreeSet<Network>, BTreeSet<IpAddr>)> = BTreeMap::new();
        for seen in &family {
            let (networks, observers) = votes.entry(seen.seen.ip()).or_default();
            networks.insert(Network::of(seen.observer));
            observers.insert(seen.observer);
        }
        let networks: BTreeSet<Network> = family.iter().map(|seen| Network::of(seen.observer)).collect();
        let observers: BTreeSet<IpAddr> = family.iter().map(|seen| seen.observer).collect();
        for seen in family {
            let (vouching, agreeing) = &votes[&seen.seen.ip()];
            let confirmed = vouching.len() >= 2;
            let passes = confirmed || networks.len() < 2 && (agreeing.len() >= 2 || observers.len() < 2);
            if passes && !believed.iter().any(|(at, _)| *at == seen.seen) {
                believed.push((seen.seen, confirmed));
            }
        }
    }
    for seen in near {
        if !believed.iter().any(|(at, _)| *at == seen.seen) {
            believed.push((seen.seen, false));
        }
    }
    believed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(observer: &str, at: &str) -> Observation {
        Observation { observer: observer.parse().unwrap(), seen: at.parse().unwrap() }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_alone_is_used_and_marked() {
        assert_eq!(believed(&[seen("203.0.113.1", "198.51.100.7:7")]), [(at("198.51.100.7:7"), false)]);
    }

    #[test]
    fn two_of_different_networks_are_believed_with_every_port() {
        let both = [seen("203.0.113.1", "198.51.100.7:7"), seen("192.0.2.1", "198.51.100.7:9")];
        assert_eq!(believed(&both), [(at("198.51.100.7:7"), true), (at("198.51.100.7:9"), true)]);
    }

    #[test]
    fn a_liar_is_outvoted_and_alone_against_one_convinces_nobody() {
        let (s1, s2) = (seen("203.0.113.1", "198.51.100.7:7"), seen("192.0.2.1", "198.51.100.7:7"));
        let liar = seen("192.88.99.1", "8.8.8.8:53");
        assert_eq!(believed(&[s1, s2, liar]), [(at("198.51.100.7:7"), true)]);
        assert_eq!(believed(&[s1, liar]), []);
    }

    #[test]
    fn liars_of_one_network_count_once() {
        let liars = [seen("192.88.99.1", "8.8.8.8:53"), seen("192.88.99.2", "8.8.8.8:53")];
        let honest = [seen("203.0.113.1", "198.51.100.7:7"), seen("192.0.2.1", "198.51.100.7:7")];
        assert_eq!(believed(&[liars, honest].concat()), [(at("198.51.100.7:7"), true)]);
        assert_eq!(believed(&[liars[0], liars[1], honest[0]]), []);
    }

    #[test]
    fn of_two_honest_and_two_that_lie_alike_the_networks_decide() {
        let honest = [seen("203.0.113.1", "198.51.100.7:7"), seen("192.0.2.1", "198.51.100.7:7")];
        for liars in [["192.88.99.1", "192.88.200.2"], ["203.0.113.9", "203.0.200.9"]] {
            let liars = liars.map(|liar| seen(liar, "8.8.8.8:53"));
            assert_eq!(believed(&[liars, honest].concat()), [(at("198.51.100.7:7"), true)]);
            assert_eq!(believed(&[honest, liars].concat()), [(at("198.51.100.7:7"), true)]);
        }
        // What is not promised: who holds super peers in two networks is believed.
        let apart = [seen("192.88.99.1", "8.8.8.8:53"), seen("192.89.99.1", "8.8.8.8:53")];
        assert_eq!(believed(&apart), [(at("8.8.8.8:53"), true)]);
    }

    #[test]
    fn of_ipv6_the_first_32_bits_are_one_network() {
        let honest = [seen("2001:db8::1", "[2001:db8:7::7]:7"), seen("2400:1::1", "[2001:db8:7::7]:7")];
        let liars = ["2600:1:1::1", "2600:1:2::2"].map(|liar| seen(liar, "[2606:4700::1111]:53"));
        assert_eq!(believed(&[liars, honest].concat()), [(at("[2001:db8:7::7]:7"), true)]);
        assert_eq!(believed(&[liars[0], liars[1], honest[0]]), []);
        let apart = ["2600:1::1", "2600:2::1"].map(|observer| seen(observer, "[2001:db8:7::7]:7"));
        assert_eq!(believed(&apart), [(at("[2001:db8:7::7]:7"), true)]);
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_no_network_of_its_own() {
        let liars = [seen("192.88.99.1", "8.8.8.8:53"), seen("::ffff:192.88.1.1", "8.8.8.8:53")];
        assert_eq!(believed(&[liars[0], liars[1], seen("203.0.113.1", "198.51.100.7:7")]), []);
    }

    #[test]
    fn in_one_network_two_that_agree_are_used_and_marked() {
        let near = [seen("203.0.113.1", "198.51.100.7:7"), seen("203.0.113.2", "198.51.100.7:7")];
        let liar = seen("203.0.113.3", "8.8.8.8:53");
        assert_eq!(believed(&[near[0], liar, near[1]]), [(at("198.51.100.7:7"), false)]);
        assert_eq!(believed(&[near[0], liar]), []);
    }

    #[test]
    fn a_super_peer_in_our_own_realm_contradicts_nobody() {
        let both = [seen("192.168.1.2", "192.168.1.9:7"), seen("203.0.113.1", "198.51.100.7:7")];
        assert_eq!(believed(&both).len(), 2);
    }

    #[test]
    fn families_do_not_mix() {
        let two = [seen("203.0.113.1", "198.51.100.7:7"), seen("2001:db8::1", "[2001:db8:7::7]:7")];
        assert_eq!(believed(&two).len(), 2);
    }
}
