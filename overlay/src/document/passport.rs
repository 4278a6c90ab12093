//! The passport: a login server says who a node is. It is also the lease of its IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::id::{NetworkId, NodeId};
use crate::timing::UnixTime;

/// What a node is allowed to be; a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Carries its own traffic.
    pub const PEER: Self = Self(1);
    /// Keeps records, rendezvous, relays; has a public address.
    pub const SUPER_PEER: Self = Self(2);
    /// Enrols nodes and renews passports.
    pub const LOGIN: Self = Self(4);
    /// A phone or a stock WireGuard client behind its super peer.
    pub const CLIENT: Self = Self(8);
    /// Everything a founder may give.
    pub const ALL: Self = Self(15);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::PEER, "peer"),
        (Self::SUPER_PEER, "super-peer"),
        (Self::LOGIN, "login"),
        (Self::CLIENT, "client"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every role of `other` is in this set.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, as scripts read them.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.into_iter().filter(|(role, _)| self.includes(*role)).map(|(_, name)| name).collect()
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("+"))
    }
}

/// Who a node is, what it is called, and which address it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// The holder.
    pub node: NodeId,
    /// A DNS label, unique in the network.
    pub name: String,
    /// What the holder may be.
    pub roles: Roles,
    /// The leased virtual IPv4 address.
    pub address4: Ipv4Addr,
    /// Subnets the holder may speak for.
    pub routes: Vec<IpNetwork>,
    /// Counts the issuer's passports; the newer of two wins.
    pub serial: u64,
    /// Valid from.
    pub not_before: UnixTime,
    /// Valid until.
    pub not_after: UnixTime,
    /// The login server that signed it.
    pub issuer: NodeId,
}

impl Document for Passport {
    const DOMAIN: &'static str = "frejus/1 passport";
    const KIND: u8 = 3;
    const MAX: usize = 1024;
}

impl Passport {
    /// Both virtual addresses.
    #[must_use]
    pub fn addresses(&self, network: &NetworkId) -> [IpAddr; 2] {
        [self.address4.into(), self.node.address6(network).into()]
    }
}
