//! A network's founder, in process: genesis, grant, passports and first contacts, as the daemon would have them on
//! disk after `create`, `invite` and `join`.
//!
//! Owns: [`Founder`]. Never: a packet; enrolment over the network has its own stories.

use std::net::SocketAddr;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use frejus_overlay::document::{
    Candidate, CandidateKind, Contact, Credential, Genesis, Grant, NatClass, Network, Roles, Signed,
    Whereabouts,
};
use frejus_overlay::id::{NodeId, TunnelKey};
use frejus_overlay::login::{Entry, LoginServer};
use frejus_overlay::node::Invitation;
use frejus_overlay::timing::UnixTime;
use frejus_overlay::wire::enrol::Request;

use crate::dice::derive;

/// When every world begins.
pub const EPOCH: UnixTime = UnixTime(1_800_000_000);

/// Ten years.
const GRANT_LIFE: Duration = Duration::from_secs(315_360_000);

/// The keys of one node.
#[derive(Clone)]
pub struct Keys {
    /// Its identity.
    pub key: SigningKey,
    /// Its tunnel key; the model needs no private half.
    pub tunnel_key: TunnelKey,
}

impl Keys {
    /// The keys that `seed` gives the node called `name`.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        let key = SigningKey::from_bytes(&derive(seed, &format!("node {name}")));
        Self { key, tunnel_key: TunnelKey(derive(seed, &format!("tunnel {name}"))) }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }
}

/// The founder, with the login server that it runs until the first super peer takes over its ledger.
pub struct Founder {
    seed: u64,
    /// What the network is.
    pub genesis: Signed<Genesis>,
    /// The same, checked.
    pub network: Network,
    /// The first super peer may issue passports.
    pub grant: Signed<Grant>,
    /// Its keys.
    pub login_keys: Keys,
    server: LoginServer,
    /// Every change of the ledger so far.
    pub ledger: Vec<Entry>,
    invited: u64,
}

impl Founder {
    /// A network whose first super peer and login server is `login`.
    #[must_use]
    pub fn new(seed: u64, login: &str, passport_life: Duration) -> Self {
        let network_key = SigningKey::from_bytes(&derive(seed, "network"));
        let genesis = Genesis {
            name: "sim".to_owned(),
            prefix4: "10.77.0.0/16".parse().expect("a prefix"),
            key: NodeId(network_key.verifying_key().to_bytes()),
            created: EPOCH,
            passport_life_s: u32::try_from(passport_life.as_secs()).expect("a life in seconds"),
        }
        .sign(&network_key);
        let network = Network::new(&genesis).expect("a genesis of our own");
        let login_keys = Keys::new(seed, login);
        let grant = Grant {
            node: login_keys.node(),
            roles: Roles::ALL,
            block: network.genesis.prefix4,
            serial: 1,
            not_before: EPOCH,
            not_after: EPOCH + GRANT_LIFE,
        };
        let grant = Signed::new(&grant, &network.id, &network_key);
        let server = LoginServer::new(network.clone(), grant.clone(), login_keys.key.clone(), [])
            .expect("a grant of our own");
        Self { seed, genesis, network, grant, login_keys, server, ledger: Vec::new(), invited: 0 }
    }

    /// The passport of the login server itself.
    pub fn enrol_self(&mut self, name: &str) -> Credential {
        let label = frejus_ipam::Label::parse(name).expect("a label");
        let roles = Roles::PEER.with(Roles::SUPER_PEER).with(Roles::LOGIN);
        let (credential, entries) = self.server.issue_own(&label, roles, EPOCH).expect("an empty network");
        self.ledger.extend(entries);
        credential
    }

    /// A passport for another node.
    pub fn enrol(&mut self, name: &str, roles: Roles) -> Credential {
        let secret = self.code_secret(roles, EPOCH);
        let keys = Keys::new(self.seed, name);
        let id = &self.network.id;
        let request = Request::new(id, &keys.key, keys.tunnel_key, Some(name.to_owned()), secret, EPOCH);
        let (credential, entries) = self.server.enrol(&request, EPOCH).expect("a fresh code");
        self.ledger.extend(entries);
        credential
    }

    /// The secret of a code for one node.
    pub fn code_secret(&mut self, roles: Roles, now: UnixTime) -> [u8; 16] {
        self.invited += 1;
        let secret = derive(self.seed, &format!("code {}", self.invited));
        let secret: [u8; 16] = secret[..16].try_into().expect("sixteen bytes");
        let invitation =
            Invitation { roles, uses: 1, life: Duration::from_secs(86_400), name: None, address: None };
        self.ledger.extend(self.server.invite(&invitation, secret, now).expect("a sensible invitation"));
        secret
    }

    /// The login server as its own node runs it, from a ledger.
    #[must_use]
    pub fn login_server(&self, ledger: &[Entry]) -> LoginServer {
        let (network, key) = (self.network.clone(), self.login_keys.key.clone());
        LoginServer::new(network, self.grant.clone(), key, ledger.to_vec()).expect("a grant of our own")
    }

    /// What a code or a cache says about a super peer at `at`.
    #[must_use]
    pub fn contact(&self, keys: &Keys, credential: &Credential, at: SocketAddr) -> Contact {
        let whereabouts = Whereabouts {
            node: keys.node(),
            sequence: 1,
            tunnel_key: keys.tunnel_key,
            candidates: vec![Candidate { kind: CandidateKind::Host, at }],
            homes: Vec::new(),
            directory: Vec::new(),
            nat: NatClass::Open,
            issued: EPOCH,
            expires: EPOCH + Whereabouts::MAX_LIFE,
        };
        let whereabouts = Signed::new(&whereabouts, &self.network.id, &keys.key);
        Contact { credential: credential.clone(), whereabouts }
    }
}
