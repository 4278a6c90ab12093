//! A port that the router opened for us.
//!
//! Owns: the vocabulary between whoever asks the router and the node that tells others. Never: the asking.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::locator::is_public;

/// What the router was asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MappingProtocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device, versions 1 and 2.
    Upnp,
}

impl MappingProtocol {
    /// In the order in which they are tried: the newest first.
    pub const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// As scripts read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// A mapping that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// UDP address of the router on its far side: what is sent there reaches our UDP port.
    pub at: SocketAddr,
    /// How it was got.
    pub protocol: MappingProtocol,
}

impl Mapped {
    /// Whether anybody on the Internet can send there. Behind a second NAT, such as a carrier's, only its other
    /// customers can.
    #[must_use]
    pub fn is_public(&self) -> bool {
        is_public(self.at.ip())
    }

    /// Whether a router may say that it maps there: a place that a datagram can be sent to, and not this machine.
    #[must_use]
    pub fn is_plausible(at: SocketAddr) -> bool {
        let special = match at.ip() {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
        };
        at.port() != 0 && !special && !at.ip().is_loopback() && !at.ip().is_multicast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_router_may_map_to_any_place_of_its_own() {
        for good in ["198.51.100.7:51860", "100.64.3.4:1024", "192.168.0.2:80", "[2001:db8::1]:51860"] {
            assert!(Mapped::is_plausible(at(good)), "{good}");
        }
        for bad in [
            "0.0.0.0:51860",
            "198.51.100.7:0",
            "127.0.0.1:51860",
            "224.0.0.1:51860",
            "255.255.255.255:51860",
            "169.254.1.1:51860",
            "[::]:51860",
            "[::1]:51860",
            "[fe80::1]:51860",
        ] {
            assert!(!Mapped::is_plausible(at(bad)), "{bad}");
        }
    }

    #[test]
    fn behind_a_carrier_a_mapping_is_not_public() {
        let mapped = |text| Mapped { at: at(text), protocol: MappingProtocol::Pcp };
        assert!(mapped("198.51.100.7:51860").is_public());
        assert!(!mapped("100.64.3.4:51860").is_public());
        assert!(!mapped("192.168.0.2:51860").is_public());
    }
}
