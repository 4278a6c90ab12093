//! A network of as many members as a test wants, its documents signed as a login server would.
//!
//! Owns: [`Town`], and [`Client`], who comes to a node's door with real WireGuard. Never: a socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use frejus::clock::Clock;
use frejus::wireguard::Wireguard;
use frejus_overlay::document::{
    Candidate, CandidateKind, Contact, Credential, Genesis, Grant, NatClass, Network, Passport, Roles,
    Signed, Whereabouts,
};
use frejus_overlay::forward::{Exception, Table};
use frejus_overlay::id::{NodeId, TunnelKey};
use frejus_overlay::locator::Locator;
use frejus_overlay::node::{Config, Node, Output};
use frejus_overlay::timing::{Instant, Now, UnixTime};
use frejus_overlay::tunnel::{Crypto, HANDSHAKE_ROOM, Handshake, Opened, Purpose, SharedTunnel};
use frejus_overlay::verdict::Counters;
use frejus_overlay::wire;
use x25519_dalek::StaticSecret;

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);
/// Number of the super peer whose node is measured.
pub(crate) const SUPER: u32 = 0;
const LOGIN: u32 = 1 << 20;
const FOUNDER: u32 = LOGIN + 1;

pub(crate) fn key(n: u32) -> SigningKey {
    let mut seed = [0x5a; 32];
    seed[8..12].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn id(n: u32) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

pub(crate) fn now(millis: u64) -> Now {
    let passed = Duration::from_millis(millis);
    Now { instant: Instant::from_start(passed), unix: NOW + passed }
}

/// The virtual address of member `n`.
pub(crate) fn virtual4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a5d_0100 + n)
}

/// Where member `n` is on the Internet: every one in a prefix of its own.
pub(crate) fn home(n: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0b00_0001 + (n << 8)), 51860))
}

pub(crate) fn wireguard(n: u32, clock: &Clock) -> Wireguard {
    let mut secret = [0x5a; 32];
    secret[8..12].copy_from_slice(&n.to_le_bytes());
    Wireguard::new(StaticSecret::from(secret), clock.clone())
}

pub(crate) struct Town {
    genesis: Signed<Genesis>,
    pub(crate) network: Network,
    grant: Signed<Grant>,
}

impl Town {
    pub(crate) fn new() -> Self {
        let genesis = Genesis {
            name: "scale".to_owned(),
            prefix4: "10.93.0.0/16".parse().unwrap(),
            key: id(FOUNDER),
            created: NOW,
            passport_life_s: 30 * 86_400,
        };
        let genesis = genesis.sign(&key(FOUNDER));
        let network = Network::new(&genesis).unwrap();
        let grant = Grant {
            node: id(LOGIN),
            roles: Roles::PEER.with(Roles::SUPER_PEER),
            block: "10.93.0.0/16".parse().unwrap(),
            serial: 1,
            not_before: NOW,
            not_after: NOW + DAY * 365,
        };
        let grant = Signed::new(&grant, &network.id, &key(FOUNDER));
        Self { genesis, network, grant }
    }

    fn credential(&self, n: u32) -> Credential {
        let passport = Passport {
            node: id(n),
            name: format!("member-{n}"),
            roles: if n == SUPER { Roles::PEER.with(Roles::SUPER_PEER) } else { Roles::PEER },
            address4: virtual4(n),
            routes: Vec::new(),
            serial: u64::from(n) + 1,
            not_before: NOW,
            not_after: NOW + DAY * 30,
            issuer: id(LOGIN),
        };
        let passport = Signed::new(&passport, &self.network.id, &key(LOGIN));
        Credential { grant: self.grant.clone(), passport }
    }

    /// What member `n` says of itself: an address at home, one in front of its NAT, two homes and their relays.
    pub(crate) fn contact(&self, n: u32, tunnel_key: TunnelKey) -> Contact {
        let candidate = |kind, at| Candidate { kind, at };
        let relay = |last| SocketAddr::from(([203, 0, 113, last], 51860));
        let whereabouts = Whereabouts {
            node: id(n),
            sequence: 1,
            tunnel_key,
            candidates: vec![
                candidate(CandidateKind::Host, SocketAddr::from(([192, 168, 1, 7], 51860))),
                candidate(CandidateKind::Reflexive, home(n)),
                candidate(CandidateKind::Relay, relay(1)),
                candidate(CandidateKind::Relay, relay(2)),
            ],
            homes: vec![id(SUPER), id(LOGIN)],
            directory: Vec::new(),
            nat: NatClass::PortRestricted,
            issued: NOW,
            expires: NOW + Duration::from_secs(900),
        };
        let whereabouts = Signed::new(&whereabouts, &self.network.id, &key(n));
        Contact { credential: self.credential(n), whereabouts }
    }

    /// The super peer's node, with real cryptography.
    pub(crate) fn node(&self, clock: &Clock) -> Node {
        let config = Config {
            network: self.network.clone(),
            genesis: self.genesis.clone(),
            key: key(SUPER),
            credential: self.credential(SUPER),
            seed: [7; 32],
            known: Vec::new(),
            login: None,
            advertise: vec!["203.0.113.1:51860".parse().unwrap()],
            directory_port: 0,
            relay_rate: 125_000_000,
            mtu: 1280,
        };
        let counters = Arc::new(Counters::default());
        Node::new(config, Box::new(wireguard(SUPER, clock)), counters, now(0)).unwrap()
    }
}

/// What a node wanted, as far as these tests care.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) table: Option<Arc<Table>>,
    pub(crate) tables: usize,
}

/// Everything a node wants after an input.
pub(crate) fn drain(node: &mut Node) -> Wanted {
    let mut wanted = Wanted::default();
    while let Some(output) = node.poll_output() {
        match output {
            Output::Transmit { bytes, .. } => wanted.sent.push(bytes),
            Output::Table(table) => {
                wanted.table = Some(table);
                wanted.tables += 1;
            }
            _ => {}
        }
    }
    wanted
}

/// Somebody with a tunnel to the super peer.
pub(crate) struct Client {
    pub(crate) from: Locator,
    tunnel: SharedTunnel,
    knock: Vec<u8>,
}

impl Client {
    pub(crate) fn new(town: &Town, n: u32, clock: &Clock) -> Self {
        let server = wireguard(SUPER, clock).public();
        let mut crypto = wireguard(n, clock);
        let contact = postcard::to_stdvec(&town.contact(n, crypto.public())).unwrap();
        let knock = wire::frame(wire::KNOCK, &crypto.seal_to(&server, Purpose::Knock, &contact));
        Self { from: Locator::Direct(home(n).into()), tunnel: crypto.tunnel(&server, n), knock }
    }

    pub(crate) fn initiation(&self, at: Instant) -> Vec<u8> {
        let mut room = [0; HANDSHAKE_ROOM];
        let length = self.tunnel.initiate(&mut room, at).expect("the last one is old enough");
        room[..length].to_vec()
    }

    fn tell(&self, node: &mut Node, bytes: Vec<u8>, at: u64) -> Wanted {
        node.handle_exception(Exception::Datagram { from: self.from, bytes }, now(at));
        drain(node)
    }

    /// Knocks, so that the node knows whose handshakes come.
    pub(crate) fn knock(&self, node: &mut Node, at: u64) -> Wanted {
        self.tell(node, self.knock.clone(), at)
    }

    /// A session in both directions: knock, initiation, response, and the first data as forwarding would meet it.
    pub(crate) fn connect(&self, node: &mut Node, at: u64) {
        let table = self.knock(node, at).table.expect("a new peer");
        let wanted = self.tell(node, self.initiation(now(at).instant), at);
        let response = wanted.sent.iter().find(|bytes| bytes.len() == 92).expect("a known peer is answered");
        let mut room = [0; HANDSHAKE_ROOM];
        let Handshake::Reply(length) = self.tunnel.handshake(response, &mut room, now(at).instant) else {
            panic!("a response of our own")
        };
        let receiver = u32::from_le_bytes(room[4..8].try_into().unwrap());
        let slot = table.by_receiver(receiver).expect("the new peer has a slot");
        assert_eq!(slot.tunnel.open(&mut room[..length]), Opened::Keepalive);
        node.handle_exception(Exception::Established { slot: slot.id, from: self.from }, now(at));
        drain(node);
    }
}
