//! Small signed documents and the chain of trust they form.
//!
//! Owns: the envelope every document travels in, [`Verified`], and the reasons to refuse one. The chain is
//! genesis → grant → passport → whereabouts; whoever uses a document checks every link of it, offline.
//!
//! Envelope: `version (1) ‖ kind (1) ‖ body (postcard) ‖ Ed25519 signature (64)`. The signature covers a domain
//! string, the network ID (zeros for the genesis, which defines it) and everything before the signature.

mod chain;
mod filed;
mod genesis;
mod grant;
mod passport;
mod whereabouts;

use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use chain::{Contact, Credential, Member, Place};
pub(crate) use filed::{FiledMember, FiledPlace, Grants};
pub use genesis::{Genesis, Network};
pub use grant::Grant;
pub use passport::{Passport, Roles};
pub use whereabouts::{Candidate, CandidateKind, NatClass, Whereabouts};

use crate::id::{NetworkId, NodeId};
use crate::timing::UnixTime;

/// Version of every envelope.
pub const VERSION: u8 = 1;

/// How far the clocks of two honest nodes may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

const SIGNATURE: usize = 64;

/// Why a document is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not an envelope, or not of the expected kind or version.
    #[error("not a document of this kind and version")]
    Malformed,
    /// Larger than any honest document.
    #[error("larger than any honest document")]
    Oversize,
    /// The signature does not fit.
    #[error("the signature does not fit")]
    Signature,
    /// It ended, or the grant behind it did.
    #[error("expired")]
    Expired,
    /// It begins in the future.
    #[error("not valid yet: one of the two clocks is wrong")]
    NotYet,
    /// It says more than its issuer may say: roles, block, validity.
    #[error("beyond what its issuer may sign")]
    Overreach,
    /// It belongs to another network.
    #[error("of another network")]
    Foreign,
    /// It is not about the subject it was found under.
    #[error("not about what it was found under")]
    Subject,
}

/// A kind of document.
pub trait Document: Serialize + DeserializeOwned {
    /// What the signature is for; no two kinds share it.
    const DOMAIN: &'static str;
    /// The second byte of the envelope.
    const KIND: u8;
    /// The largest envelope, in bytes.
    const MAX: usize;
}

/// A document in its envelope, as it travels: nothing in it is believed yet.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signed<T> {
    bytes: Vec<u8>,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.bytes.len())
    }
}

impl<T: Document> Signed<T> {
    /// Sign `document` for `network`.
    #[must_use]
    pub fn new(document: &T, network: &NetworkId, key: &SigningKey) -> Self {
        let mut bytes = vec![VERSION, T::KIND];
        bytes.extend(postcard::to_stdvec(document).expect("documents are plain data"));
        let signature = key.sign(&signed_part::<T>(network, &bytes)).to_bytes();
        bytes.extend(signature);
        Self { bytes, kind: PhantomData }
    }

    /// Take an envelope from outside.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, kind: PhantomData }
    }

    /// The envelope.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Read what it says without believing it: only to find out who should have signed it.
    ///
    /// # Errors
    /// [`Invalid::Oversize`] or [`Invalid::Malformed`].
    pub fn claim(&self) -> Result<T, Invalid> {
        if self.bytes.len() > T::MAX {
            return Err(Invalid::Oversize);
        }
        let (signed, _) = self.bytes.split_last_chunk::<SIGNATURE>().ok_or(Invalid::Malformed)?;
        let [VERSION, kind, body @ ..] = signed else { return Err(Invalid::Malformed) };
        if *kind != T::KIND {
            return Err(Invalid::Malformed);
        }
        let (document, rest) = postcard::take_from_bytes(body).map_err(|_| Invalid::Malformed)?;
        if rest.is_empty() { Ok(document) } else { Err(Invalid::Malformed) }
    }

    /// What it says, if `signer` signed it for `network`.
    ///
    /// # Errors
    /// As [`Self::claim`], or [`Invalid::Signature`].
    pub fn open(&self, network: &NetworkId, signer: &NodeId) -> Result<T, Invalid> {
        let document = self.claim()?;
        let (signed, signature) = self.bytes.split_last_chunk::<SIGNATURE>().ok_or(Invalid::Malformed)?;
        if signer.signed(&signed_part::<T>(network, signed), signature) {
            Ok(document)
        } else {
            Err(Invalid::Signature)
        }
    }
}

fn signed_part<T: Document>(network: &NetworkId, envelope: &[u8]) -> Vec<u8> {
    [T::DOMAIN.as_bytes(), &[0], &network.0, envelope].concat()
}

/// Something whose whole chain was checked. Only the checks in this module can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Whether `now` lies between the two, with room for differing clocks at the beginning.
fn check_validity(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Result<(), Invalid> {
    if now >= not_after {
        return Err(Invalid::Expired);
    }
    if now + CLOCK_SKEW < not_before {
        return Err(Invalid::NotYet);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
