//! Where to send: straight to an address, or through a channel of a relay.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What two nodes share at one relay; chosen at random by the one that knocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Channel(pub u64);

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How a datagram goes out, or came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locator {
    /// To or from the node itself.
    Direct(SocketAddr),
    /// To or from a relay.
    Relayed {
        /// The relay's UDP address.
        relay: SocketAddr,
        /// The channel whose header stands in front.
        channel: Channel,
    },
}

impl Locator {
    /// The UDP address that datagrams are exchanged with.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        match self {
            Self::Direct(at) | Self::Relayed { relay: at, .. } => *at,
        }
    }

    /// Whether no relay is in between.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct(_))
    }
}

/// Whether the whole Internet could reach this address: not private (RFC 1918, 4193), shared (6598), local
/// (3927, 4291) or special.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || a >= 240
                || shared)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80)
        }
    }
}
