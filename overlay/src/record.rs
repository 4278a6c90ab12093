//! Records of the directory: what may lie under which key.
//!
//! Owns: the value format and [`check`], the one judgement that a storing node and a reader both apply. A record
//! that nobody could verify does not exist.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::{Contact, Credential, Invalid, Member, Network, Place, Verified};
use crate::id::{NodeId, RecordKey, Subject};
use crate::timing::UnixTime;

/// Largest value, in bytes: a contact needs about 700.
pub const MAX_RECORD: usize = 3072;

/// A record as it is stored: `version (1) ‖ postcard`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Under an address, a name or a node.
    Passport(Credential),
    /// Under a node's whereabouts key; with the passport, so that a stranger can judge it.
    Whereabouts(Contact),
}

/// A record whose chain, subject and validity were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Who.
    Member(Verified<Member>),
    /// Who and where.
    Place(Verified<Place>),
}

impl Checked {
    /// Grows with every issue for one key; the newer of two wins.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Member(member) => member.passport.serial,
            Self::Place(place) => place.whereabouts.sequence,
        }
    }

    /// How much longer it is true.
    #[must_use]
    pub fn expires_in(&self, now: UnixTime) -> Duration {
        match self {
            Self::Member(member) => member.passport.not_after.since(now),
            Self::Place(place) => place.whereabouts.expires.since(now),
        }
    }

    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match self {
            Self::Member(member) => member.passport.node,
            Self::Place(place) => place.passport.node,
        }
    }
}

impl Record {
    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![crate::document::VERSION];
        bytes.extend(postcard::to_stdvec(self).expect("records are plain data"));
        bytes
    }

    /// Read a value without believing it.
    ///
    /// # Errors
    /// [`Invalid::Oversize`] or [`Invalid::Malformed`].
    pub fn decode(value: &[u8]) -> Result<Self, Invalid> {
        if value.len() > MAX_RECORD {
            return Err(Invalid::Oversize);
        }
        let [crate::document::VERSION, body @ ..] = value else { return Err(Invalid::Malformed) };
        let (record, rest) = postcard::take_from_bytes(body).map_err(|_| Invalid::Malformed)?;
        if rest.is_empty() { Ok(record) } else { Err(Invalid::Malformed) }
    }
}

/// Judge `value` as found under `key`.
///
/// # Errors
/// [`Invalid::Subject`] if it is about something else than the key says; else the first link of its chain that
/// does not hold.
pub fn check(network: &Network, key: &RecordKey, value: &[u8], now: UnixTime) -> Result<Checked, Invalid> {
    let checked = match Record::decode(value)? {
        Record::Passport(credential) => Checked::Member(credential.verify(network, now)?),
        Record::Whereabouts(contact) => Checked::Place(contact.verify(network, now)?),
    };
    let fits = match &checked {
        Checked::Member(member) => keys(network, member).contains(key),
        Checked::Place(place) => RecordKey::whereabouts(&network.id, &place.passport.node) == *key,
    };
    if fits { Ok(checked) } else { Err(Invalid::Subject) }
}

/// The four keys a passport lies under.
#[must_use]
pub fn keys(network: &Network, member: &Member) -> [RecordKey; 4] {
    let passport = &member.passport;
    [
        Subject::Node(passport.node),
        Subject::Address4(passport.address4),
        Subject::Address6(passport.node.address6(&network.id)),
        Subject::Name(passport.name.clone()),
    ]
    .map(|subject| RecordKey::passport(&network.id, &subject))
}

#[cfg(test)]
mod tests;
