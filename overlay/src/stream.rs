//! Streams as the node sees them: TCP connections that carry datagrams where UDP does not pass.
//!
//! Owns: what is told about them. The bytes are in [`crate::wire::stream`].

use std::net::SocketAddr;

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// TCP to the node's own number.
    Tcp,
    /// TCP to 443.
    Tls,
    /// Either, through an HTTP proxy.
    Proxy,
}

impl Carrier {
    /// As scripts read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls | Self::Proxy => "tls",
        }
    }
}

/// What gets through from this node to the network; `None` for what was not tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Datagrams.
    pub udp: Option<bool>,
    /// TCP to a super peer's own number.
    pub tcp: Option<bool>,
    /// TLS to 443.
    pub tls443: Option<bool>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// It stands: one that we wanted, or one that somebody opened to us.
    Open {
        /// The other node's TCP address, or what is in front of it.
        at: SocketAddr,
        /// How.
        carrier: Carrier,
    },
    /// It is gone, or it never stood.
    Closed,
}
