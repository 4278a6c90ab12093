//! The IPv4 prefix of a network: which one by default, which may be chosen, which clash with the routes of a host.
//!
//! Owns: [`check_prefix4`], [`overlap`] and [`suggest`]. Never: reads a routing table; routes are handed in.

use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

/// Private address space (RFC 1918, section 3): first address and prefix length.
const PRIVATE: [([u8; 4], u8); 3] = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];

/// Space shared by carriers and their subscribers (RFC 6598, section 7).
const SHARED: ([u8; 4], u8) = ([100, 64, 0, 0], 10);

/// The longest prefix that makes a network: a /29 has six addresses for nodes.
const LONGEST: u8 = 29;

/// The length of a prefix that is chosen for the user.
const CHOSEN: u8 = 16;

/// Routes up to this length are default routes, or the two halves that tunnels put over one (0.0.0.0/1 and
/// 128.0.0.0/1): they send the rest of the world somewhere and claim no prefix of their own.
const DEFAULT_ROUTE: u8 = 1;

/// Why a prefix can't be a network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// It lies in 100.64.0.0/10, or around it.
    #[error(
        "{0} meets 100.64.0.0/10, which carriers use for their subscribers (RFC 6598): \
         take a prefix inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    )]
    Shared(Ipv4Network),
    /// It is not, or not wholly, private space.
    #[error(
        "{0} is not private address space (RFC 1918): \
         take a prefix inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
    )]
    NotPrivate(Ipv4Network),
    /// It has no room for a network.
    #[error("{0} is too small for a network: take a prefix of length 8 to 29")]
    TooSmall(Ipv4Network),
}

/// The prefix of a network whose creator named none: `10.x.0.0/16`, x derived from `network` and between 2 and 254,
/// since 10.0 and 10.1 are what routers at home come with, and 10.255 is what people pick by hand. Before the genesis
/// is written there is no network ID, since the genesis names the prefix: `network` is then the network's public key.
#[must_use]
pub fn default_prefix4(network: &[u8; 32]) -> Ipv4Network {
    let digest = crate::hash("frejus/1 prefix4", network);
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let second = u8::try_from(2 + number % 253).expect("2 to 254");
    chosen(10, second)
}

/// The prefix with its host bits cleared, if a network may use it: private space (RFC 1918), length 8 to 29.
///
/// # Errors
/// [`PrefixError`], which names the prefix and says what to take.
pub fn check_prefix4(prefix: Ipv4Network) -> Result<Ipv4Network, PrefixError> {
    let prefix = normalised(prefix);
    if prefix.overlaps(fixed(SHARED)) {
        return Err(PrefixError::Shared(prefix));
    }
    if !PRIVATE.iter().any(|space| prefix.is_subnet_of(fixed(*space))) {
        return Err(PrefixError::NotPrivate(prefix));
    }
    if prefix.prefix() > LONGEST {
        return Err(PrefixError::TooSmall(prefix));
    }
    Ok(prefix)
}

/// The first of `routes` that shares an address with `prefix`. Default routes never count.
#[must_use]
pub fn overlap(prefix: impl Into<IpNetwork>, routes: &[IpNetwork]) -> Option<IpNetwork> {
    let prefix = prefix.into();
    routes.iter().copied().find(|route| clash(prefix, *route))
}

/// A prefix that overlaps none of `taken`, for the error that offers another: a `10.x.0.0/16` with the x of `wanted`
/// or the next one up that is free; where all of 10.0.0.0/8 is taken, a /16 of the other private spaces.
#[must_use]
pub fn suggest(taken: &[IpNetwork], wanted: Ipv4Network) -> Option<Ipv4Network> {
    let start = wanted.ip().octets()[1];
    let near = (0..=u8::MAX).map(|step| chosen(10, start.wrapping_add(step)));
    let far = (16..32).map(|second| chosen(172, second)).chain([chosen(192, 168)]);
    near.chain(far).find(|prefix| overlap(*prefix, taken).is_none())
}

/// Whether two prefixes share an address, and neither is a default route.
fn clash(one: IpNetwork, other: IpNetwork) -> bool {
    if one.prefix().min(other.prefix()) <= DEFAULT_ROUTE {
        return false;
    }
    one.contains(other.network()) || other.contains(one.network())
}

/// `first.second.0.0/16`.
fn chosen(first: u8, second: u8) -> Ipv4Network {
    fixed(([first, second, 0, 0], CHOSEN))
}

fn fixed((octets, length): ([u8; 4], u8)) -> Ipv4Network {
    Ipv4Network::new(Ipv4Addr::from(octets), length).expect("the length is at most 32")
}

/// The same prefix with its host bits cleared.
pub(crate) fn normalised(prefix: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(prefix.network(), prefix.prefix()).expect("the length comes from a prefix")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    fn routes(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn private_prefixes_pass_and_lose_their_host_bits() {
        for (given, kept) in [
            ("10.93.4.7/16", "10.93.0.0/16"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("172.31.255.0/24", "172.31.255.0/24"),
            ("192.168.9.14/29", "192.168.9.8/29"),
        ] {
            assert_eq!(check_prefix4(net(given)), Ok(net(kept)));
        }
    }

    #[test]
    fn other_prefixes_are_refused_by_name() {
        let refused = |text: &str| check_prefix4(net(text)).unwrap_err();
        assert_eq!(refused("100.64.0.0/16"), PrefixError::Shared(net("100.64.0.0/16")));
        assert_eq!(refused("100.127.255.0/24"), PrefixError::Shared(net("100.127.255.0/24")));
        assert_eq!(refused("100.128.0.0/16"), PrefixError::NotPrivate(net("100.128.0.0/16")));
        assert_eq!(refused("8.8.0.0/16"), PrefixError::NotPrivate(net("8.8.0.0/16")));
        assert_eq!(refused("172.32.0.0/16"), PrefixError::NotPrivate(net("172.32.0.0/16")));
        assert_eq!(refused("172.16.0.0/11"), PrefixError::NotPrivate(net("172.0.0.0/11")));
        assert_eq!(refused("10.0.0.0/7"), PrefixError::NotPrivate(net("10.0.0.0/7")));
        assert_eq!(refused("0.0.0.0/0"), PrefixError::Shared(net("0.0.0.0/0")));
        assert_eq!(refused("10.0.0.1/30"), PrefixError::TooSmall(net("10.0.0.0/30")));
        assert!(refused("8.8.0.0/16").to_string().starts_with("8.8.0.0/16 is not private"));
    }

    #[test]
    fn the_first_overlapping_route_is_named() {
        let table = routes(&["0.0.0.0/0", "192.168.1.0/24", "10.93.7.0/24", "10.0.0.0/8", "fe80::/64"]);
        assert_eq!(overlap(net("10.93.0.0/16"), &table), Some(table[2]));
        assert_eq!(overlap(net("10.94.0.0/16"), &table), Some(table[3]));
        assert_eq!(overlap(net("172.16.0.0/16"), &table), None);
        let six: IpNetwork = "fe80::/10".parse().unwrap();
        assert_eq!(overlap(six, &table), Some(table[4]));
    }

    #[test]
    fn default_routes_and_their_halves_never_count() {
        let table = routes(&["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(overlap(net("10.93.0.0/16"), &table), None);
        assert_eq!(overlap(net("10.0.0.0/8"), &routes(&["0.0.0.0/2"])), Some(routes(&["0.0.0.0/2"])[0]));
    }

    #[test]
    fn a_suggestion_is_the_next_free_one() {
        let wanted = net("10.93.0.0/16");
        assert_eq!(suggest(&[], wanted), Some(wanted));
        assert_eq!(suggest(&routes(&["10.93.7.0/24", "10.94.0.0/15"]), wanted), Some(net("10.96.0.0/16")));
        assert_eq!(suggest(&routes(&["10.255.0.0/16"]), net("10.255.0.0/16")), Some(net("10.0.0.0/16")));
        assert_eq!(suggest(&routes(&["10.0.0.0/8", "172.16.0.0/13"]), wanted), Some(net("172.24.0.0/16")));
        let everything = routes(&["10.0.0.0/8", "172.16.0.0/12", "192.168.4.0/24"]);
        assert_eq!(suggest(&everything, wanted), None);
    }

    fn any_network() -> impl Strategy<Value = IpNetwork> {
        prop_oneof![
            (any::<u32>(), 0..=32u8).prop_map(|(a, l)| Ipv4Network::new(a.into(), l).unwrap().into()),
            // Few first bits, so that overlaps are common.
            (0..8u32, 4..=20u8).prop_map(|(a, l)| Ipv4Network::new((a << 20).into(), l).unwrap().into()),
            (any::<u128>(), 0..=128u8)
                .prop_map(|(a, l)| IpNetwork::new(Ipv6Addr::from(a).into(), l).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn overlap_is_symmetric(one in any_network(), other in any_network()) {
            prop_assert_eq!(overlap(one, &[other]).is_some(), overlap(other, &[one]).is_some());
        }

        #[test]
        fn a_part_overlaps_its_whole(address: u32, length in 2..=32u8, deeper in 0..=30u8) {
            let whole = Ipv4Network::new(address.into(), length).unwrap();
            let part = Ipv4Network::new(address.into(), (length + deeper).min(32)).unwrap();
            prop_assert!(overlap(whole, &[part.into()]).is_some());
        }

        #[test]
        fn the_default_prefix_is_allowed_and_steady(network: [u8; 32]) {
            let prefix = default_prefix4(&network);
            prop_assert_eq!(check_prefix4(prefix), Ok(prefix));
            prop_assert_eq!(prefix, default_prefix4(&network));
            prop_assert!((2..=254).contains(&prefix.ip().octets()[1]));
        }

        #[test]
        fn a_suggestion_is_allowed_and_free(
            taken in proptest::collection::vec(any_network(), 0..8),
            second: u8,
        ) {
            let wanted = chosen(10, second);
            if let Some(offer) = suggest(&taken, wanted) {
                prop_assert_eq!(check_prefix4(offer), Ok(offer));
                prop_assert_eq!(overlap(offer, &taken), None);
            }
        }
    }
}
