//! Where to send: by which of our sockets, to which address, straight or through a channel of a relay.

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

/// A further UDP socket that a node opened for a purpose: a mapping of its own in the NAT in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorId(pub u16);

impl DoorId {
    /// A super peer's second STUN port, open for as long as it runs.
    pub const STUN: Self = Self(u16::MAX);
    /// The first of the three by which a node finds out what NAT it is behind.
    pub const SURVEY: Self = Self(u16::MAX - 8);
}

/// A TCP or TLS connection that carries datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Whether this node opened it: such numbers are even, those of streams that were opened to it odd.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// Which of our sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// The UDP sockets that the node listens on.
    #[default]
    Main,
    /// A further UDP socket.
    Door(DoorId),
    /// A connection; its far end is the address beside it.
    Stream(StreamId),
}

/// An address of somebody else, and the socket of ours by which it is reached: behind a NAT the two belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Of ours.
    pub via: Via,
    /// Of theirs.
    pub at: SocketAddr,
}

impl Endpoint {
    /// By the sockets that the node listens on.
    #[must_use]
    pub const fn main(at: SocketAddr) -> Self {
        Self { via: Via::Main, at }
    }

    /// By a further socket.
    #[must_use]
    pub const fn by_door(door: DoorId, at: SocketAddr) -> Self {
        Self { via: Via::Door(door), at }
    }

    /// Whether it is reached by the sockets that the node listens on.
    #[must_use]
    pub const fn is_main(&self) -> bool {
        matches!(self.via, Via::Main)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(at: SocketAddr) -> Self {
        Self::main(at)
    }
}

/// How a datagram goes out, or came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locator {
    /// To or from the node itself.
    Direct(Endpoint),
    /// To or from a relay.
    Relayed {
        /// Where the relay is.
        relay: Endpoint,
        /// The channel whose header stands in front.
        channel: Channel,
    },
}

impl Locator {
    /// What datagrams are exchanged with.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        match self {
            Self::Direct(at) | Self::Relayed { relay: at, .. } => *at,
        }
    }

    /// The address that datagrams are exchanged with.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.endpoint().at
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

/// Whether another host may have this address: nobody makes us talk to ourselves, or to all neighbours at once.
#[must_use]
pub fn is_elsewhere(at: SocketAddr) -> bool {
    let ip = at.ip().to_canonical();
    let is_group = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    at.port() != 0 && !is_group && !ip.is_loopback() && !ip.is_unspecified()
}
