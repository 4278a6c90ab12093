//! A host: a node, its forwarding plane, its application, and what stays on its disk.
//!
//! Owns: [`Host`] and [`Disk`]. Never: time, or another host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use frejus_overlay::document::{Contact, Credential, Genesis, Invalid, Network, Signed};
use frejus_overlay::locator::{DoorId, Endpoint, Via};
use frejus_overlay::login::{Entry, LoginServer};
use frejus_overlay::node::{Answer, Config, Event, Node, Persist, RequestId};
use frejus_overlay::relay::server::DEFAULT_RATE;
use frejus_overlay::timing::{Instant, Now, UnixTime};
use frejus_overlay::verdict::Drop;

use crate::app::Mailbox;
use crate::dice::derive;
use crate::forwarding::Forwarding;
use crate::founder::{EPOCH, Founder, Keys};
use crate::internet::RealmId;
use crate::keys::Policy;

/// The directory's port of every node.
const DIRECTORY_PORT: u16 = 51861;

/// What survives a restart.
#[derive(Clone)]
pub struct Disk {
    /// The network.
    pub network: Network,
    /// Its genesis.
    pub genesis: Signed<Genesis>,
    /// The node's keys.
    pub keys: Keys,
    /// Its passport.
    pub credential: Credential,
    /// Super peers to begin with.
    pub known: Vec<Contact>,
    /// The login server's ledger, if it is one.
    pub ledger: Option<Vec<Entry>>,
}

/// Bytes on the host's own link, IP and UDP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub out: u64,
    /// Received.
    pub inward: u64,
}

/// One machine.
pub struct Host {
    /// Its name, and its node's.
    pub name: String,
    /// Where it is attached.
    pub realm: RealmId,
    /// Its UDP address there.
    pub address: SocketAddr,
    /// Suspended: nothing is done, and time passes.
    pub is_asleep: bool,
    /// Its cable is out: nothing leaves and nothing comes.
    pub is_unplugged: bool,
    /// Its further sockets.
    pub doors: BTreeMap<DoorId, SocketAddr>,
    /// Whether its administrator says that this address is public.
    pub advertised: bool,
    /// Its TUN device's MTU, in bytes.
    pub mtu: u16,
    /// Seconds by which its wall clock is ahead of the world's.
    pub clock_ahead_s: i64,
    /// What it does about transport keys.
    pub policy: Policy,
    /// What survives a restart.
    pub disk: Option<Disk>,
    /// The node while it runs.
    pub node: Option<Node>,
    /// Why it did not start.
    pub refused: Option<Invalid>,
    /// Starts so far: replies to an earlier life are not delivered.
    pub lives: u32,
    /// The data path.
    pub forwarding: Forwarding,
    /// The application.
    pub mail: Mailbox,
    /// What the node said, and when.
    pub events: Vec<(Instant, Event)>,
    /// What it answered its users, and when.
    pub answers: BTreeMap<RequestId, (Instant, Answer)>,
    /// On its link.
    pub traffic: Traffic,
    /// Datagrams for a host without a node: an enrolment reads them.
    pub unclaimed: Vec<(SocketAddr, Vec<u8>)>,
}

impl Host {
    /// A machine that does not run yet.
    #[must_use]
    pub fn new(name: &str, realm: RealmId, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            realm,
            address,
            doors: BTreeMap::new(),
            is_asleep: false,
            is_unplugged: false,
            advertised: false,
            mtu: 1420,
            clock_ahead_s: 0,
            policy: Policy::Prefer,
            disk: None,
            node: None,
            refused: None,
            lives: 0,
            forwarding: Forwarding::default(),
            mail: Mailbox::default(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            traffic: Traffic::default(),
            unclaimed: Vec::new(),
        }
    }

    /// Both readings as this host has them.
    #[must_use]
    pub fn now(&self, instant: Instant) -> Now {
        let unix = self.began().0 + instant.since_start().as_secs();
        Now { instant, unix: UnixTime(unix) }
    }

    /// Its wall clock when the world began.
    #[must_use]
    pub fn began(&self) -> UnixTime {
        UnixTime(EPOCH.0.saturating_add_signed(self.clock_ahead_s))
    }

    /// The configuration of its next life; `None` if it is not enrolled.
    #[must_use]
    pub fn config(&self, seed: u64) -> Option<Config> {
        let disk = self.disk.as_ref()?;
        let login = disk.ledger.as_ref().map(|ledger| {
            let grant = disk.credential.grant.clone();
            LoginServer::new(disk.network.clone(), grant, disk.keys.key.clone(), ledger.clone())
                .expect("our own ledger")
        });
        Some(Config {
            network: disk.network.clone(),
            genesis: disk.genesis.clone(),
            key: disk.keys.key.clone(),
            credential: disk.credential.clone(),
            seed: derive(seed, &format!("life {} of {}", self.lives, self.name)),
            known: disk.known.clone(),
            login,
            advertise: if self.advertised { vec![self.address] } else { Vec::new() },
            directory_port: DIRECTORY_PORT,
            mtu: self.mtu,
            relay_rate: DEFAULT_RATE,
        })
    }

    /// Open a further socket, at a port of its own.
    pub fn open_door(&mut self, door: DoorId, port: u16) {
        self.doors.insert(door, SocketAddr::new(self.address.ip(), port));
    }

    /// The address of one of its sockets.
    #[must_use]
    pub fn socket(&self, via: Via) -> Option<SocketAddr> {
        match via {
            Via::Main => Some(self.address),
            Via::Door(door) => self.doors.get(&door).copied(),
            Via::Stream(_) => None,
        }
    }

    /// What arrives at `to` from `from`, if a socket is there.
    #[must_use]
    pub fn endpoint(&self, from: SocketAddr, to: SocketAddr) -> Option<Endpoint> {
        if to == self.address {
            return Some(Endpoint::main(from));
        }
        self.doors.iter().find(|(_, at)| **at == to).map(|(door, _)| Endpoint::by_door(*door, from))
    }

    /// Enrolled by the founder, in process.
    pub fn enrol(&mut self, founder: &Founder, keys: Keys, credential: Credential, known: Vec<Contact>) {
        let (network, genesis) = (founder.network.clone(), founder.genesis.clone());
        self.disk = Some(Disk { network, genesis, keys, credential, known, ledger: None });
    }

    /// Write to disk.
    pub fn persist(&mut self, what: Persist) {
        let Some(disk) = &mut self.disk else { return };
        match what {
            Persist::Ledger(entry) => disk.ledger.get_or_insert_default().push(entry),
            Persist::Passport(credential) => disk.credential = credential,
            Persist::SuperPeers(known) => disk.known = known,
        }
    }

    /// Its virtual address of this family, from its passport.
    #[must_use]
    pub fn virtual_address(&self, six: bool) -> IpAddr {
        let disk = self.disk.as_ref().expect("enrolled");
        let claim = disk.credential.passport.claim().expect("a passport of the founder");
        claim.addresses(&disk.network.id)[usize::from(six)]
    }

    /// Packets dropped for this reason in this life.
    #[must_use]
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.forwarding.counters.dropped(reason)
    }

    /// Everything dropped in this life, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        let counted = Drop::ALL.iter().map(|reason| (reason.name(), self.dropped(*reason)));
        counted.filter(|(_, packets)| *packets > 0).collect()
    }

    /// When it first said this, after `since`.
    #[must_use]
    pub fn first_event(&self, since: Instant, is: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(at, event)| *at >= since && is(event)).map(|(at, _)| *at)
    }
}
