//! The chain: documents that travel together, and what is known once they are checked together.

use serde::{Deserialize, Serialize};

use super::genesis::Network;
use super::{Grant, Invalid, Passport, Signed, Verified, Whereabouts, check_validity};
use crate::timing::UnixTime;

/// A passport with the grant that allows it: everything to prove who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Signed by the network key.
    pub grant: Signed<Grant>,
    /// Signed by the grant's node.
    pub passport: Signed<Passport>,
}

/// A node that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub passport: Passport,
    /// The proof, to show to others.
    pub credential: Credential,
}

impl Credential {
    /// Check network key → grant → passport.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn verify(&self, network: &Network, now: UnixTime) -> Result<Verified<Member>, Invalid> {
        let grant = self.grant.verify(network, now)?;
        let passport = self.passport.open(&network.id, &grant.node)?;
        check_validity(passport.not_before, passport.not_after, now)?;
        let allowed = passport.issuer == grant.node
            && grant.roles.includes(passport.roles)
            && grant.block.contains(passport.address4)
            && passport.not_after <= grant.not_after
            && frejus_ipam::Label::parse(&passport.name).is_ok_and(|label| label.as_str() == passport.name);
        if !allowed {
            return Err(Invalid::Overreach);
        }
        Ok(Verified(Member { passport, credential: self.clone() }))
    }
}

/// A credential with whereabouts: everything to reach a node, checkable by a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Who it is.
    pub credential: Credential,
    /// Where it is, signed by the passport's node.
    pub whereabouts: Signed<Whereabouts>,
}

/// A node that proved who and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who.
    pub passport: Passport,
    /// Where.
    pub whereabouts: Whereabouts,
    /// The proof, to show to others.
    pub contact: Contact,
}

impl Contact {
    /// Check the whole chain, down to the whereabouts.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn verify(&self, network: &Network, now: UnixTime) -> Result<Verified<Place>, Invalid> {
        let place = self.verify_stale(network, now)?;
        check_validity(place.whereabouts.issued, place.whereabouts.expires, now)?;
        Ok(place)
    }

    /// As [`Self::verify`], but the whereabouts may have expired: where a super peer was is where it will most likely
    /// be, and the handshake proves it. Only for dialling.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn verify_stale(&self, network: &Network, now: UnixTime) -> Result<Verified<Place>, Invalid> {
        let member = self.credential.verify(network, now)?;
        let whereabouts = self.whereabouts.open(&network.id, &member.passport.node)?;
        if whereabouts.node != member.passport.node {
            return Err(Invalid::Subject);
        }
        whereabouts.check_bounds()?;
        Ok(Verified(Place { passport: member.passport.clone(), whereabouts, contact: self.clone() }))
    }
}

impl Verified<Place> {
    /// Who it is, without where.
    #[must_use]
    pub fn member(&self) -> Verified<Member> {
        Verified(Member { passport: self.passport.clone(), credential: self.contact.credential.clone() })
    }
}
