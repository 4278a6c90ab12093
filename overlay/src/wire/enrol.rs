//! Enrolment on the wire: a sealed request to a login server, a sealed answer to the node that asks.
//!
//! Owns: both plaintexts and their encoding, `version (1) ‖ postcard ‖ zeros`. A request is padded so that no
//! answer is larger than its question (RFC 9000, section 8 has the reason).

use ed25519_dalek::{Signer, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::{Contact, Credential, Genesis, Signed};
use crate::id::{NetworkId, NodeId, TunnelKey};
use crate::timing::UnixTime;

const VERSION: u8 = 1;

/// Every request's plaintext is padded to this many bytes; an answer stays below.
pub const PADDED: usize = 1300;

/// "I have a code: let me in."
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asks.
    pub node: NodeId,
    /// The answer is sealed to it.
    pub tunnel_key: TunnelKey,
    /// The name that the node would like.
    pub name: Option<String>,
    /// The code's secret.
    pub secret: [u8; 16],
    /// The asker's clock.
    pub time: UnixTime,
    /// By `node` over all of the above and the network: it holds its key.
    pub signature: Vec<u8>,
}

/// What a login server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// "Welcome."
    Welcome {
        /// What the network is; its hash is in the code.
        genesis: Signed<Genesis>,
        /// The new passport.
        credential: Credential,
        /// A super peer to begin with.
        contact: Contact,
    },
    /// "No."
    Refused(Refusal),
}

/// Why a login server does not enrol a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No invitation has this secret.
    #[error("the login server does not know this code")]
    UnknownCode,
    /// Too late.
    #[error("the code has expired")]
    ExpiredCode,
    /// Others were faster.
    #[error("the code is used up")]
    UsedCode,
    /// Another node is called that.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// Not a DNS label.
    #[error("{0} is not a host name")]
    BadName(String),
    /// The clocks differ too much for documents to be valid.
    #[error("the clocks of this machine and of the login server differ by {ahead_s} s")]
    Clock {
        /// How far the asker's clock is ahead, in seconds.
        ahead_s: i64,
    },
    /// No address is left in the login server's block.
    #[error("no address is left")]
    Full,
}

impl Request {
    /// Ask, and sign that `key` is ours.
    #[must_use]
    pub fn new(
        network: &NetworkId,
        key: &SigningKey,
        tunnel_key: TunnelKey,
        name: Option<String>,
        secret: [u8; 16],
        time: UnixTime,
    ) -> Self {
        let node = NodeId(key.verifying_key().to_bytes());
        let mut request = Self { node, tunnel_key, name, secret, time, signature: Vec::new() };
        request.signature = key.sign(&request.signed_part(network)).to_bytes().to_vec();
        request
    }

    /// Whether the asker holds the key of the node it says it is.
    #[must_use]
    pub fn is_authentic(&self, network: &NetworkId) -> bool {
        <&[u8; 64]>::try_from(self.signature.as_slice())
            .is_ok_and(|signature| self.node.signed(&self.signed_part(network), signature))
    }

    fn signed_part(&self, network: &NetworkId) -> Vec<u8> {
        let unsigned = Self { signature: Vec::new(), ..self.clone() };
        let body = postcard::to_stdvec(&unsigned).expect("requests are plain data");
        [b"frejus/1 enrol\0", network.0.as_slice(), &body].concat()
    }

    /// As it is sealed, padded.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        bytes.resize(bytes.len().max(PADDED), 0);
        bytes
    }

    /// Read what was sealed to us.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

impl Answer {
    /// As it is sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Read what was sealed to us.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("messages are plain data")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let [VERSION, body @ ..] = bytes else { return None };
    let (message, rest) = postcard::take_from_bytes(body).ok()?;
    rest.iter().all(|byte| *byte == 0).then_some(message)
}
