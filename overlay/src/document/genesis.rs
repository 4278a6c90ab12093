//! The genesis: what a network is. Its hash is the network's ID, so nothing in it can ever change.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use super::{Document, Invalid, Signed, Verified};
use crate::id::{NetworkId, NodeId, hash};
use crate::timing::UnixTime;

/// A network's name, prefix and parameters, signed by its own key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// A DNS label, for people; it need not be unique in the world.
    pub name: String,
    /// All virtual IPv4 addresses lie in it.
    pub prefix4: Ipv4Network,
    /// The network key, Ed25519: it signs login grants and nothing else.
    pub key: NodeId,
    /// When the network was founded.
    pub created: UnixTime,
    /// How long a passport lives, in seconds.
    pub passport_life_s: u32,
}

impl Document for Genesis {
    const DOMAIN: &'static str = "frejus/1 genesis";
    const KIND: u8 = 1;
    const MAX: usize = 512;
}

const NONE: NetworkId = NetworkId([0; 32]);

impl Genesis {
    /// Sign it with the network key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Signed<Self> {
        Signed::new(self, &NONE, key)
    }

    /// How long a passport lives.
    #[must_use]
    pub const fn passport_life(&self) -> Duration {
        Duration::from_secs(self.passport_life_s as u64)
    }
}

impl Signed<Genesis> {
    /// The network's ID: the hash of the envelope.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId(hash("frejus/1 network", &[self.as_bytes()]))
    }

    /// Check a genesis against the ID that the reader already trusts.
    ///
    /// # Errors
    /// [`Invalid::Foreign`] if it hashes to another ID; else as [`Signed::open`].
    pub fn verify(&self, network: &NetworkId) -> Result<Verified<Genesis>, Invalid> {
        if self.network() != *network {
            return Err(Invalid::Foreign);
        }
        let genesis = self.open(&NONE, &self.claim()?.key)?;
        frejus_ipam::check_prefix4(genesis.prefix4).map_err(|_| Invalid::Overreach)?;
        Ok(Verified(genesis))
    }
}

/// A checked genesis with the ID that it hashes to: what every further check needs.
#[derive(Clone, Debug)]
pub struct Network {
    /// The hash of the genesis.
    pub id: NetworkId,
    /// The genesis.
    pub genesis: Verified<Genesis>,
}

impl Network {
    /// Check `genesis` and keep it.
    ///
    /// # Errors
    /// As [`Signed::verify`].
    pub fn new(genesis: &Signed<Genesis>) -> Result<Self, Invalid> {
        let id = genesis.network();
        Ok(Self { id, genesis: genesis.verify(&id)? })
    }

    /// The IPv6 prefix derived from the ID.
    #[must_use]
    pub fn prefix6(&self) -> Ipv6Network {
        frejus_ipam::prefix6(&self.id.0)
    }
}
