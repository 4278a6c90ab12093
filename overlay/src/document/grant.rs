//! The login grant: the network key lets a node issue passports, for some roles, out of one block.

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use super::{Document, Invalid, Roles, Signed, Verified, check_validity};
use crate::document::genesis::Network;
use crate::id::NodeId;
use crate::timing::UnixTime;

/// What a login server may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The login server.
    pub node: NodeId,
    /// It may issue passports for these roles.
    pub roles: Roles,
    /// It may lease these addresses; no two grants share one.
    pub block: Ipv4Network,
    /// Counts the grants of a network.
    pub serial: u64,
    /// Valid from.
    pub not_before: UnixTime,
    /// Valid until.
    pub not_after: UnixTime,
}

impl Document for Grant {
    const DOMAIN: &'static str = "frejus/1 grant";
    const KIND: u8 = 2;
    const MAX: usize = 512;
}

impl Signed<Grant> {
    /// Check signature, validity, and that the block lies inside the network's prefix.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, network: &Network, now: UnixTime) -> Result<Verified<Grant>, Invalid> {
        let grant = self.open(&network.id, &network.genesis.key)?;
        check_validity(grant.not_before, grant.not_after, now)?;
        if !grant.block.is_subnet_of(network.genesis.prefix4) {
            return Err(Invalid::Overreach);
        }
        Ok(Verified(grant))
    }
}
