//! What the tests of several modules need: a network's documents, made to order.
//!
//! Owns: [`Town`], which signs whatever a test wants to see refused. Never: part of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::document::{
    Candidate, CandidateKind, Contact, Credential, Genesis, Grant, Member, NatClass, Network, Passport,
    Place, Roles, Signed, Verified, Whereabouts,
};
use crate::id::{NodeId, TunnelKey};
use crate::timing::{Instant, Now, UnixTime};

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// The one who may issue passports.
pub(crate) const LOGIN: u8 = 100;
/// Whose key is the network's.
const NETWORK: u8 = 200;

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

pub(crate) fn tunnel_key(n: u8) -> TunnelKey {
    TunnelKey([n; 32])
}

pub(crate) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 51860))
}

pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

pub(crate) fn now(ms: u64) -> Now {
    Now { instant: at(ms), unix: NOW + Duration::from_millis(ms) }
}

/// A network in which node `n` has the keys, the name and the addresses that follow from `n`.
pub(crate) struct Town {
    pub(crate) genesis: Signed<Genesis>,
    pub(crate) network: Network,
    pub(crate) grant: Grant,
}

impl Town {
    pub(crate) fn new() -> Self {
        Self::named("mymed")
    }

    pub(crate) fn named(name: &str) -> Self {
        let genesis = Genesis {
            name: name.to_owned(),
            prefix4: "10.93.0.0/16".parse().unwrap(),
            key: node(NETWORK),
            created: NOW,
            passport_life_s: 30 * 86_400,
        };
        let genesis = genesis.sign(&key(NETWORK));
        let network = Network::new(&genesis).unwrap();
        let grant = Grant {
            node: node(LOGIN),
            roles: Roles::PEER.with(Roles::SUPER_PEER).with(Roles::LOGIN),
            block: "10.93.0.0/17".parse().unwrap(),
            serial: 1,
            not_before: NOW,
            not_after: NOW + DAY * 365,
        };
        Self { genesis, network, grant }
    }

    pub(crate) fn sign_grant(&self, grant: &Grant) -> Signed<Grant> {
        Signed::new(grant, &self.network.id, &key(NETWORK))
    }

    pub(crate) fn passport(&self, n: u8, roles: Roles) -> Passport {
        Passport {
            node: node(n),
            name: format!("node{n}"),
            roles,
            address4: Ipv4Addr::new(10, 93, 1, n),
            routes: Vec::new(),
            serial: 1,
            not_before: NOW,
            not_after: NOW + DAY * 30,
            issuer: node(LOGIN),
        }
    }

    pub(crate) fn sign_passport(&self, passport: &Passport) -> Credential {
        let passport = Signed::new(passport, &self.network.id, &key(LOGIN));
        Credential { grant: self.sign_grant(&self.grant), passport }
    }

    pub(crate) fn credential(&self, n: u8, roles: Roles) -> Credential {
        self.sign_passport(&self.passport(n, roles))
    }

    pub(crate) fn whereabouts(&self, n: u8) -> Whereabouts {
        Whereabouts {
            node: node(n),
            sequence: 1,
            tunnel_key: tunnel_key(n),
            candidates: vec![Candidate { kind: CandidateKind::Host, at: address(n) }],
            homes: Vec::new(),
            directory: Vec::new(),
            nat: NatClass::Unknown,
            issued: NOW,
            expires: NOW + Duration::from_secs(900),
        }
    }

    pub(crate) fn sign_whereabouts(&self, whereabouts: &Whereabouts, by: u8) -> Signed<Whereabouts> {
        Signed::new(whereabouts, &self.network.id, &key(by))
    }

    pub(crate) fn contact(&self, n: u8, roles: Roles) -> Contact {
        self.contact_at(n, roles, &self.whereabouts(n))
    }

    pub(crate) fn contact_at(&self, n: u8, roles: Roles, whereabouts: &Whereabouts) -> Contact {
        let whereabouts = self.sign_whereabouts(whereabouts, n);
        Contact { credential: self.credential(n, roles), whereabouts }
    }

    pub(crate) fn member(&self, passport: &Passport) -> Verified<Member> {
        self.sign_passport(passport).verify(&self.network, NOW).unwrap()
    }

    pub(crate) fn place(&self, n: u8, sequence: u64) -> Verified<Place> {
        let whereabouts = Whereabouts { sequence, ..self.whereabouts(n) };
        self.contact_at(n, Roles::PEER, &whereabouts).verify(&self.network, NOW).unwrap()
    }
}
