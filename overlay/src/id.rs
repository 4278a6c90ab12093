//! Who is who: identifiers of networks and nodes, the two keys of a node, and what is derived from them.
//!
//! Owns: [`NetworkId`], [`NodeId`], [`TunnelKey`] and the record keys of the directory. Every derivation is a
//! SHA-256 over a domain string, so that no two of them can ever meet.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 over `domain`, a zero byte and the parts; the parts are of fixed length or come last.
pub(crate) fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(domain.as_bytes());
    hasher.update([0]);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// RFC 4648 base32 in lower case, without padding: what people read, type and say on the telephone.
pub(crate) fn base32() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    spec.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
    spec.encoding().expect("a valid base32 alphabet")
}

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: {0}")]
pub struct NotAnId(String);

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}…", &base32().encode(&self.0)[..8])
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let bytes = base32().decode(text.as_bytes()).map_err(|_| NotAnId(text.to_owned()))?;
                Ok(Self(bytes.try_into().map_err(|_| NotAnId(text.to_owned()))?))
            }
        }
    };
}

identifier!(
    /// The hash of a network's genesis.
    NetworkId
);
identifier!(
    /// A node: its Ed25519 public key (RFC 8032).
    NodeId
);
identifier!(
    /// A node's X25519 public key (RFC 7748), for WireGuard and for sealing to it.
    TunnelKey
);
identifier!(
    /// Where a record lies in the directory.
    RecordKey
);

impl NodeId {
    /// Whether this node signed `message`; strict about malleable and small-order keys.
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// The first eight characters: enough to tell nodes apart in a log.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// The node's virtual IPv6 address: `fd`, 40 bits of the network, 80 bits of the node.
    #[must_use]
    pub fn address6(&self, network: &NetworkId) -> Ipv6Addr {
        frejus_ipam::address6(&network.0, &self.0)
    }
}

/// What a passport is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// The holder of a virtual IPv4 address.
    Address4(Ipv4Addr),
    /// The holder of a key-derived IPv6 address.
    Address6(Ipv6Addr),
    /// The holder of a name.
    Name(String),
    /// The node itself.
    Node(NodeId),
}

impl RecordKey {
    /// Where the passport of `subject` lies.
    #[must_use]
    pub fn passport(network: &NetworkId, subject: &Subject) -> Self {
        Self(match subject {
            Subject::Address4(at) => hash("frejus/1 key address4", &[&network.0, &at.octets()]),
            Subject::Address6(at) => hash("frejus/1 key address6", &[&network.0, &at.octets()]),
            Subject::Name(name) => hash("frejus/1 key name", &[&network.0, name.as_bytes()]),
            Subject::Node(node) => hash("frejus/1 key node", &[&network.0, &node.0]),
        })
    }

    /// Where the whereabouts of `node` lie.
    #[must_use]
    pub fn whereabouts(network: &NetworkId, node: &NodeId) -> Self {
        Self(hash("frejus/1 key whereabouts", &[&network.0, &node.0]))
    }
}
