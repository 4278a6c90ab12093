//! Checked documents, put away: for the thousands of nodes that are known and not talked to.
//!
//! Owns: [`FiledMember`] and [`FiledPlace`], the signed bytes and what is asked of them often; they are read again when
//! somebody needs the rest. Never: a document that was not checked.

use std::sync::Arc;

use super::{
    Contact, Credential, Grant, Member, NatClass, Passport, Place, Roles, Signed, Verified, Whereabouts,
};
use crate::timing::UnixTime;

const CHECKED: &str = "the documents were read when they were checked";

/// The grants behind the passports, each kept once: a network has few login servers.
#[derive(Debug, Default)]
pub(crate) struct Grants(Vec<Arc<Signed<Grant>>>);

impl Grants {
    fn share(&mut self, grant: &Signed<Grant>) -> Arc<Signed<Grant>> {
        if let Some(known) = self.0.iter().find(|known| ***known == *grant) {
            return Arc::clone(known);
        }
        self.0.retain(|known| Arc::strong_count(known) > 1);
        let shared = Arc::new(grant.clone());
        self.0.push(Arc::clone(&shared));
        shared
    }
}

/// A [`Member`], put away.
#[derive(Clone, Debug)]
pub(crate) struct FiledMember {
    grant: Arc<Signed<Grant>>,
    passport: Box<[u8]>,
    /// Of the passport.
    pub(crate) serial: u64,
    /// Of the passport.
    pub(crate) not_after: UnixTime,
    /// Of the passport.
    pub(crate) roles: Roles,
}

impl FiledMember {
    pub(crate) fn new(member: &Verified<Member>, grants: &mut Grants) -> Self {
        Self {
            grant: grants.share(&member.credential.grant),
            passport: member.credential.passport.as_bytes().into(),
            serial: member.passport.serial,
            not_after: member.passport.not_after,
            roles: member.passport.roles,
        }
    }

    fn read(&self) -> (Passport, Credential) {
        let passport = Signed::from_bytes(self.passport.to_vec());
        let credential = Credential { grant: (*self.grant).clone(), passport };
        (credential.passport.claim().expect(CHECKED), credential)
    }

    /// As it was put away.
    pub(crate) fn member(&self) -> Verified<Member> {
        let (passport, credential) = self.read();
        Verified(Member { passport, credential })
    }

    /// Together with the whereabouts of the same node.
    pub(crate) fn at(&self, place: &FiledPlace) -> Verified<Place> {
        let (passport, credential) = self.read();
        let signed = Signed::<Whereabouts>::from_bytes(place.whereabouts.to_vec());
        let whereabouts = signed.claim().expect(CHECKED);
        Verified(Place { passport, whereabouts, contact: Contact { credential, whereabouts: signed } })
    }
}

/// Whereabouts, put away; [`FiledMember::at`] makes a [`Place`] of them.
#[derive(Clone, Debug)]
pub(crate) struct FiledPlace {
    whereabouts: Box<[u8]>,
    /// Of the whereabouts.
    pub(crate) sequence: u64,
    /// Of the whereabouts.
    pub(crate) expires: UnixTime,
    /// Of the whereabouts.
    pub(crate) nat: NatClass,
}

impl FiledPlace {
    pub(crate) fn new(place: &Verified<Place>) -> Self {
        Self {
            whereabouts: place.contact.whereabouts.as_bytes().into(),
            sequence: place.whereabouts.sequence,
            expires: place.whereabouts.expires,
            nat: place.whereabouts.nat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Town;

    #[test]
    fn what_is_put_away_comes_back_whole() {
        let (town, mut grants) = (Town::new(), Grants::default());
        let place = town.place(7, 3);
        let filed = FiledMember::new(&place.member(), &mut grants);
        assert_eq!(filed.member(), place.member());
        assert_eq!(filed.at(&FiledPlace::new(&place)), place);
    }

    #[test]
    fn one_grant_behind_many_passports_is_kept_once() {
        let (town, mut grants) = (Town::new(), Grants::default());
        let filed: Vec<_> =
            (1..20).map(|n| FiledMember::new(&town.place(n, 1).member(), &mut grants)).collect();
        assert_eq!(grants.0.len(), 1);
        assert!(filed.iter().all(|member| Arc::ptr_eq(&member.grant, &grants.0[0])));
        drop(filed);
        let other = Grant { serial: 2, ..town.grant.clone() };
        grants.share(&town.sign_grant(&other));
        assert_eq!(grants.0.len(), 1, "a grant that nobody needs is forgotten");
    }
}
