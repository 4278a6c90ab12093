//! IPv6 addresses that prove themselves: anyone who knows a node's key can tell its address, nobody leases it.
//!
//! Owns: the derivation of [`prefix6`] and [`address6`]. Never: an allocation, a table.

use std::net::Ipv6Addr;

use ipnetwork::Ipv6Network;

/// Bits of the network's IPv6 prefix: `fd` and a global ID of 40 bits (RFC 4193, section 3.1).
const PREFIX6_BITS: u8 = 8 + 40;

/// Bytes of that prefix.
const PREFIX6_BYTES: usize = PREFIX6_BITS as usize / 8;

/// The network's IPv6 prefix, a /48: `fd` and the first 40 bits of the network ID (RFC 4193).
#[must_use]
pub fn prefix6(network: &[u8; 32]) -> Ipv6Network {
    Ipv6Network::new(Ipv6Addr::from(prefix_bytes(network)), PREFIX6_BITS).expect("48 is at most 128")
}

/// The node's IPv6 address in the network: the prefix and 80 bits of a hash of the node ID. An impostor would have
/// to find another key with the same 80 bits.
#[must_use]
pub fn address6(network: &[u8; 32], node: &[u8; 32]) -> Ipv6Addr {
    let mut bytes = prefix_bytes(network);
    bytes[PREFIX6_BYTES..].copy_from_slice(&crate::hash("frejus/1 address6", node)[..16 - PREFIX6_BYTES]);
    Ipv6Addr::from(bytes)
}

/// The prefix, and zeros behind it.
fn prefix_bytes(network: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..PREFIX6_BYTES].copy_from_slice(&network[..PREFIX6_BYTES - 1]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_bytes_are_those_of_the_definition() {
        let mut network = [0; 32];
        network[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        let node = [7; 32];
        let digest = Sha256::digest([b"frejus/1 address6\0".as_slice(), &node].concat());
        let octets = address6(&network, &node).octets();
        assert_eq!(octets[..6], [0xfd, 1, 2, 3, 4, 5]);
        assert_eq!(octets[6..], digest[..10]);
        assert_eq!(prefix6(&network).to_string(), "fd01:203:405::/48");
    }

    proptest! {
        #[test]
        fn an_address_lies_in_its_networks_prefix(network: [u8; 32], node: [u8; 32]) {
            let address = address6(&network, &node);
            prop_assert!(prefix6(&network).contains(address));
            prop_assert!(address.is_unique_local());
        }

        #[test]
        fn the_host_part_depends_on_the_node_alone(one: [u8; 32], two: [u8; 32], node: [u8; 32], other: [u8; 32]) {
            prop_assume!(node != other);
            let host = |network, node| address6(network, node).octets()[PREFIX6_BYTES..].to_vec();
            prop_assert_eq!(host(&one, &node), host(&two, &node));
            prop_assert_ne!(host(&one, &node), host(&one, &other));
        }
    }
}
