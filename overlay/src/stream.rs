//! Streams as the node sees them: TCP connections that carry datagrams where UDP does not pass.
//!
//! Owns: what is told about them. The bytes are in [`crate::wire::stream`].

use std::net::SocketAddr;
use std::time::Duration;

/// Ports that were tried for a user have been reached within this time, or count as blocked: four round trips to the
/// other side of the world.
pub const TRIAL: Duration = Duration::from_millis(1200);

/// The port that passes where nothing else does.
pub const HTTPS: u16 = 443;

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

/// How a port of a super peer is reached over TCP; the better, the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Passage {
    /// Not tried.
    #[default]
    Untried,
    /// Not at all.
    Blocked,
    /// Through an HTTP proxy alone.
    Proxy,
    /// Straight.
    Open,
}

impl Passage {
    /// Whether anything gets through.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Proxy | Self::Open)
    }
}

/// What gets through to super peers over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// To a super peer's own number.
    pub own: Passage,
    /// To 443.
    pub https: Passage,
}

impl Tried {
    /// What a standing stream shows, or one that stood for a moment: it leads to the own number if `is_own`, to 443 if
    /// `is_https`, or both.
    #[must_use]
    pub fn by(carrier: Carrier, is_own: bool, is_https: bool) -> Self {
        let passage = if carrier == Carrier::Proxy { Passage::Proxy } else { Passage::Open };
        let shown = |is_shown: bool| if is_shown { passage } else { Passage::Untried };
        Self { own: shown(is_own), https: shown(is_https) }
    }

    /// The better of each.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { own: self.own.max(other.own), https: self.https.max(other.https) }
    }
}

/// Where a port connects to, while the peer's port connects to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Across {
    /// Where others see the peer's port.
    pub to: SocketAddr,
    /// Whether we are TLS's client.
    pub leads: bool,
    /// So many times at most, one SYN each.
    pub tries: u8,
    /// So much later: until the peer knows where to connect to.
    pub after: Duration,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Of the port for a crossing: the super peers that answered see it there.
    Seen {
        /// One for each.
        at: [Option<SocketAddr>; 2],
    },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_way_to_each_port_is_told() {
        let nothing = Tried { own: Passage::Blocked, https: Passage::Blocked };
        let proxied = Tried::by(Carrier::Proxy, false, true);
        assert_eq!(proxied, Tried { own: Passage::Untried, https: Passage::Proxy });
        assert_eq!(nothing.or(proxied), Tried { own: Passage::Blocked, https: Passage::Proxy });
        let straight = Tried::by(Carrier::Tls, true, true);
        assert_eq!(straight.or(nothing).or(proxied), Tried { own: Passage::Open, https: Passage::Open });
        let passing =
            [Passage::Untried, Passage::Blocked, Passage::Proxy, Passage::Open].map(Passage::passes);
        assert_eq!(passing, [false, false, true, true]);
    }
}
