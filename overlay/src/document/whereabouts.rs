//! Whereabouts: a node says where it can be reached. They live minutes.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Document, Invalid};
use crate::id::{NodeId, TunnelKey};
use crate::timing::UnixTime;

/// How a candidate was found (RFC 8445, section 5.1.1, and RFC 6887 for `Mapped`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CandidateKind {
    /// An address of an interface.
    Host,
    /// What a super peer saw in front of our NAT.
    Reflexive,
    /// A port that the router opened for us.
    Mapped,
    /// A super peer that relays to us.
    Relay,
}

impl CandidateKind {
    /// As scripts read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Reflexive => "reflexive",
            Self::Mapped => "mapped",
            Self::Relay => "relay",
        }
    }
}

/// A place where a node may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// How it was found.
    pub kind: CandidateKind,
    /// UDP address: of the node, or of the relay.
    pub at: SocketAddr,
}

/// What stands between a node and the Internet (RFC 4787 terms, see interface.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NatClass {
    /// Not found out.
    #[default]
    Unknown,
    /// A public address that anyone can reach.
    Open,
    /// A public address behind a stateful filter.
    Firewalled,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Address-dependent filtering.
    AddressRestricted,
    /// Address-and-port-dependent filtering.
    PortRestricted,
    /// A new port for every destination, counting up.
    SymmetricSequential,
    /// A new port for every destination, at random.
    SymmetricRandom,
    /// No UDP at all.
    UdpBlocked,
}

impl NatClass {
    /// As scripts read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Open => "open",
            Self::Firewalled => "firewalled",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
            Self::UdpBlocked => "udp-blocked",
        }
    }
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The node, which also signs.
    pub node: NodeId,
    /// Grows with every issue; the newer of two wins.
    pub sequence: u64,
    /// For WireGuard, and for sealing to it.
    pub tunnel_key: TunnelKey,
    /// Where to try; at most [`Self::MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// Super peers that keep a tunnel with it; at most [`Self::MAX_HOMES`].
    pub homes: Vec<NodeId>,
    /// Where it serves the directory, TCP and QUIC; at most [`Self::MAX_HOMES`].
    pub directory: Vec<SocketAddr>,
    /// What stands in front of it.
    pub nat: NatClass,
    /// When it was signed.
    pub issued: UnixTime,
    /// When it stops being true.
    pub expires: UnixTime,
}

impl Whereabouts {
    /// Interfaces, reflexive and mapped addresses in both families, and a relay for each home.
    pub const MAX_CANDIDATES: usize = 12;
    /// Homes, and directory addresses.
    pub const MAX_HOMES: usize = 4;
    /// Longest life: a node that is gone is forgotten within the hour.
    pub const MAX_LIFE: Duration = Duration::from_secs(3600);

    /// Bounds that hold for every honest node.
    pub(super) fn check_bounds(&self) -> Result<(), Invalid> {
        let bounded = self.candidates.len() <= Self::MAX_CANDIDATES
            && self.homes.len() <= Self::MAX_HOMES
            && self.directory.len() <= Self::MAX_HOMES;
        if !bounded {
            return Err(Invalid::Oversize);
        }
        if self.expires.since(self.issued) > Self::MAX_LIFE { Err(Invalid::Overreach) } else { Ok(()) }
    }
}

impl Document for Whereabouts {
    const DOMAIN: &'static str = "frejus/1 whereabouts";
    const KIND: u8 = 5;
    const MAX: usize = 1024;
}
