//! Who gets a place in the routing table: so many nodes per address prefix, at so many plausible addresses.
//!
//! Whoever can rent one /24 or one /48 can make any number of node IDs; places counted by prefix keep such a
//! crowd from surrounding a key. Counted is the address of a connection, which can't be invented, never the
//! addresses that a node claims. Loopback and private addresses are not counted: a whole network may live
//! behind one of those prefixes. Never touches the table itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use libp2p::{Multiaddr, PeerId};

use super::naming;

/// Routing table entries per IPv4 /24 or IPv6 /48 unless configured otherwise: an office with a few super peers.
pub const NODES_PER_PREFIX: usize = 10;

/// Addresses kept per node: two families, two transports, public and private.
pub(super) const ADDRESSES_PER_NODE: usize = 8;

/// How far an address can be seen; smaller is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Loopback,
    Private,
    Global,
}

/// The places taken, by prefix.
pub(super) struct Admission {
    per_prefix: usize,
    places: HashMap<PeerId, Option<IpAddr>>,
}

impl Admission {
    pub(super) fn new(per_prefix: usize) -> Self {
        Self { per_prefix, places: HashMap::new() }
    }

    /// Takes a place for a node that is connected from or at `ip`; `false` if its prefix is full. A node that
    /// is `named` by the control plane always gets one, and counts for nobody else.
    pub(super) fn admit(&mut self, peer: PeerId, ip: IpAddr, named: bool) -> bool {
        if self.places.contains_key(&peer) {
            return true;
        }
        let counted = if named { None } else { prefix(ip) };
        if let Some(prefix) = counted {
            let taken = self.places.values().filter(|place| **place == Some(prefix)).count();
            if taken >= self.per_prefix {
                return false;
            }
        }
        self.places.insert(peer, counted);
        true
    }

    /// The node has left the table.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.places.remove(peer);
    }

    /// Keeps the places of `members` only.
    pub(super) fn retain(&mut self, members: impl Fn(&PeerId) -> bool) {
        self.places.retain(|peer, _| members(peer));
    }
}

/// Of the addresses that a node claims, those that can be true for one whose connection comes from `seen`: plain
/// TCP or QUIC, and no nearer than the connection itself. A node far away has no loopback address for us.
pub(super) fn plausible(claimed: Vec<Multiaddr>, seen: IpAddr) -> Vec<Multiaddr> {
    let Some(nearest) = reach(seen) else { return Vec::new() };
    let mut good: Vec<Multiaddr> = claimed
        .into_iter()
        .filter(|at| naming::ip_of(at).and_then(reach).is_some_and(|reach| reach >= nearest))
        .collect();
    good.truncate(ADDRESSES_PER_NODE);
    good
}

/// Whether `ip` can be seen from as far as the farthest of `others`: a private address serves a network whose super
/// peers have private ones only, and is a dead end for a network that spans the Internet.
pub(super) fn seen_as_far(ip: IpAddr, others: impl Iterator<Item = IpAddr>) -> bool {
    reach(ip).is_some_and(|own| others.filter_map(reach).all(|other| other <= own))
}

/// `None` for what nobody can be reached at.
fn reach(ip: IpAddr) -> Option<Reach> {
    let ip = ip.to_canonical();
    let (unusable, private) = match ip {
        IpAddr::V4(v4) => (v4.is_broadcast() || v4.is_link_local(), v4.is_private()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unique_local()),
    };
    if unusable || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    Some(match (ip.is_loopback(), private) {
        (true, _) => Reach::Loopback,
        (_, true) => Reach::Private,
        _ => Reach::Global,
    })
}

/// The /24 or /48 that the node is counted under; `None` where nobody is counted.
fn prefix(ip: IpAddr) -> Option<IpAddr> {
    if reach(ip) != Some(Reach::Global) {
        return None;
    }
    Some(match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_has_so_many_places() {
        let mut admission = Admission::new(2);
        let first = PeerId::random();
        assert!(admission.admit(first, ip("203.0.113.1"), false));
        assert!(admission.admit(PeerId::random(), ip("203.0.113.200"), false));
        assert!(!admission.admit(PeerId::random(), ip("203.0.113.3"), false));
        assert!(
            !admission.admit(PeerId::random(), ip("::ffff:203.0.113.3"), false),
            "the same in IPv6 clothes"
        );
        assert!(admission.admit(PeerId::random(), ip("203.0.114.3"), false), "another prefix");
        assert!(admission.admit(PeerId::random(), ip("203.0.113.4"), true), "named ones are exempt");
        assert!(admission.admit(first, ip("203.0.113.1"), false), "who has a place keeps it");
        admission.forget(&first);
        assert!(admission.admit(PeerId::random(), ip("203.0.113.5"), false), "a place was given back");
    }

    #[test]
    fn ipv6_is_counted_by_48_bits() {
        let mut admission = Admission::new(1);
        assert!(admission.admit(PeerId::random(), ip("2001:db8:1:ffff::1"), false));
        assert!(!admission.admit(PeerId::random(), ip("2001:db8:1:2::9"), false));
        assert!(admission.admit(PeerId::random(), ip("2001:db8:2::1"), false));
    }

    #[test]
    fn loopback_and_private_prefixes_are_not_counted() {
        let mut admission = Admission::new(1);
        for at in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "fd00::1", "::1"] {
            for _ in 0..3 {
                assert!(admission.admit(PeerId::random(), ip(at), false), "{at}");
            }
        }
    }

    #[test]
    fn a_private_address_serves_a_private_network_only() {
        let far = |own: &str, others: &[&str]| seen_as_far(ip(own), others.iter().map(|other| ip(other)));
        assert!(far("192.168.1.2", &["192.168.1.1", "127.0.0.1"]));
        assert!(far("203.0.113.2", &["192.168.1.1", "198.51.100.1"]));
        assert!(far("127.0.0.1", &["127.0.0.1"]));
        assert!(!far("192.168.1.2", &["192.168.1.1", "198.51.100.1"]));
        assert!(!far("127.0.0.1", &["10.0.0.1"]));
        assert!(!far("0.0.0.0", &[]));
    }

    #[test]
    fn claimed_addresses_are_no_nearer_than_the_connection() {
        let claimed = |ips: &[&str]| -> Vec<Multiaddr> {
            ips.iter().map(|ip| format!("/{ip}/tcp/51861").parse().unwrap()).collect()
        };
        let all =
            claimed(&["ip4/127.0.0.1", "ip4/192.168.1.2", "ip4/203.0.113.2", "ip4/0.0.0.0", "ip6/fe80::1"]);
        assert_eq!(plausible(all.clone(), ip("198.51.100.1")), claimed(&["ip4/203.0.113.2"]));
        assert_eq!(plausible(all.clone(), ip("10.0.0.1")), claimed(&["ip4/192.168.1.2", "ip4/203.0.113.2"]));
        assert_eq!(plausible(all, ip("127.0.0.1")).len(), 3);
        let many = claimed(&["ip4/203.0.113.2"; 50]);
        assert_eq!(plausible(many, ip("198.51.100.1")).len(), ADDRESSES_PER_NODE);
    }
}
