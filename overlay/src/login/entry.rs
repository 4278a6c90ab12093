//! The ledger of a login server, line by line.
//!
//! Owns: [`Entry`], one line written or struck, and what the lines hold. Never: where they are kept.
//!
//! Lines have keys (an invitation's digest, a node, an address): a later line replaces an earlier one of the same
//! key, and the order of lines with different keys does not matter. So a ledger is a set of rows, not a log.

use std::net::Ipv4Addr;

use frejus_ipam::{Label, Lease};
use serde::{Deserialize, Serialize};

use crate::document::Roles;
use crate::id::{NetworkId, NodeId, hash};
use crate::timing::UnixTime;

/// The hash of a code's secret: all that a login server keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of `secret`, for `network`. The secret has 128 random bits, so a plain hash can't be searched.
    #[must_use]
    pub fn of(network: &NetworkId, secret: &[u8; 16]) -> Self {
        Self(hash("frejus/1 invitation", &[&network.0, secret]))
    }
}

/// What a code is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What its users will be.
    pub roles: Roles,
    /// How many nodes may use it.
    pub uses: u32,
    /// Until then.
    pub expires: UnixTime,
    /// The name that its one user gets.
    pub name: Option<Label>,
    /// The address that its one user gets.
    pub address: Option<Ipv4Addr>,
}

/// A node that was enrolled, with all that its latest passport says beyond its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: Label,
    /// Its roles.
    pub roles: Roles,
    /// Serial of its latest passport.
    pub serial: u64,
    /// Beginning of that passport.
    pub issued: UnixTime,
    /// End of that passport.
    pub until: UnixTime,
}

/// One line of the ledger, written or struck. The entries that one deed returns may be persisted one by one: any
/// first part of them leaves a ledger that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A code was made.
    Invitation(Digest, Terms),
    /// A node used it.
    Use(Digest, NodeId),
    /// A code is forgotten, and its uses with it.
    InvitationGone(Digest),
    /// A node was enrolled, or its passport renewed.
    Holder(Holder),
    /// A node is forgotten, and its name free.
    HolderGone(NodeId),
    /// An address was leased, or its lease renewed.
    Lease(Lease),
    /// An address went back.
    LeaseGone(Ipv4Addr),
}
