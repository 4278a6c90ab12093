//! Stories' stages: who is where, behind what, enrolled by whom.
//!
//! Owns: [`Scenario`], a builder of a [`World`] whose hosts all run. Never: what happens then.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::document::{Contact, NatClass, Roles};

use crate::dice::Dice;
use crate::directory::Directory;
use crate::founder::{Founder, Keys};
use crate::host::Host;
use crate::internet::{HostId, Internet, PUBLIC, RealmId, RouterId};
use crate::link::{Quality, WAN};
use crate::nat::{Behaviour, Nat};
use crate::world::World;

/// The UDP port of every node.
pub const PORT: u16 = 51860;

/// Super peers that a newcomer knows of.
const KNOWN: usize = 3;

/// Where a host stands.
#[derive(Clone, Debug)]
enum Stand {
    /// On the public Internet; a super peer if so.
    Public { super_peer: bool },
    /// Behind a router of its own, which is in this router's realm, or public.
    Home { behaviour: Behaviour, within: Option<String> },
    /// In the realm of that host.
    Beside(String),
}

#[derive(Clone, Debug)]
struct Plan {
    name: String,
    stand: Stand,
    enrolled: bool,
    started: bool,
    clock_ahead_s: i64,
    /// Its public address, if it is to be a certain one.
    address: Option<Ipv4Addr>,
}

/// A stage being built. The first super peer is founder and login server.
pub struct Scenario {
    seed: u64,
    plans: Vec<Plan>,
    quality: Quality,
    passport_life: Duration,
    same_subnet: bool,
}

impl Scenario {
    /// An empty stage.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let passport_life = Duration::from_secs(30 * 86_400);
        Self { seed, plans: Vec::new(), quality: WAN, passport_life, same_subnet: false }
    }

    /// Every link that is not inside a home.
    #[must_use]
    pub const fn links(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// How long passports live.
    #[must_use]
    pub const fn passport_life(mut self, life: Duration) -> Self {
        self.passport_life = life;
        self
    }

    /// Every home uses the same private addresses, as homes do.
    #[must_use]
    pub const fn same_subnet(mut self) -> Self {
        self.same_subnet = true;
        self
    }

    fn plan(mut self, name: &str, stand: Stand) -> Self {
        let name = name.to_owned();
        self.plans.push(Plan { name, stand, enrolled: true, started: true, clock_ahead_s: 0, address: None });
        self
    }

    /// A super peer.
    #[must_use]
    pub fn super_peer(self, name: &str) -> Self {
        self.plan(name, Stand::Public { super_peer: true })
    }

    /// A peer behind a router of this class, or on the public Internet.
    #[must_use]
    pub fn home(self, name: &str, class: NatClass) -> Self {
        match Behaviour::of(class) {
            Some(behaviour) => self.behind(name, behaviour),
            None => self.plan(name, Stand::Public { super_peer: false }),
        }
    }

    /// A peer behind a router that behaves so.
    #[must_use]
    pub fn behind(self, name: &str, behaviour: Behaviour) -> Self {
        self.plan(name, Stand::Home { behaviour, within: None })
    }

    /// A peer behind a router of its own in the realm of `within`, as behind a carrier's NAT.
    #[must_use]
    pub fn nested(self, name: &str, class: NatClass, within: &str) -> Self {
        let behaviour = Behaviour::of(class).expect("a class with a NAT");
        self.plan(name, Stand::Home { behaviour, within: Some(within.to_owned()) })
    }

    /// A peer in the home of another.
    #[must_use]
    pub fn beside(self, name: &str, other: &str) -> Self {
        self.plan(name, Stand::Beside(other.to_owned()))
    }

    /// The last host is not started by [`Self::build`].
    #[must_use]
    pub fn later(mut self) -> Self {
        self.last().started = false;
        self
    }

    /// The last host has no passport yet, and is not started.
    #[must_use]
    pub fn newcomer(mut self) -> Self {
        self.last().enrolled = false;
        self.later()
    }

    /// The last host's wall clock is ahead by so many seconds.
    #[must_use]
    pub fn clock_ahead(mut self, seconds: i64) -> Self {
        self.last().clock_ahead_s = seconds;
        self
    }

    /// The last host, a public one, has this address; without it, all are in one /16.
    #[must_use]
    pub fn at(mut self, address: [u8; 4]) -> Self {
        self.last().address = Some(address.into());
        self
    }

    fn last(&mut self) -> &mut Plan {
        self.plans.last_mut().expect("a host to speak of")
    }

    /// Everybody runs, and nobody has said a word.
    #[must_use]
    pub fn build(self) -> World {
        self.build_with_founder().0
    }

    /// As [`Self::build`], with the founder, who can make codes.
    #[must_use]
    pub fn build_with_founder(self) -> (World, Founder) {
        let mut internet = Internet::new(self.quality, Dice::new(self.seed, "internet"));
        let mut hosts: Vec<Host> = Vec::new();
        for (at, plan) in self.plans.iter().enumerate() {
            let host = self.place(at, plan, &hosts, &mut internet);
            hosts.push(host);
        }
        let is_super = |plan: &Plan| matches!(plan.stand, Stand::Public { super_peer: true });
        let login = self.plans.iter().find(|plan| is_super(plan)).expect("a network has a super peer");
        let mut founder = Founder::new(self.seed, &login.name, self.passport_life);
        let mut known: Vec<Contact> = Vec::new();
        let (supers, others): (Vec<usize>, Vec<usize>) =
            (0..hosts.len()).partition(|at| is_super(&self.plans[*at]));
        for at in supers.into_iter().chain(others) {
            let (plan, host) = (&self.plans[at], &mut hosts[at]);
            if !plan.enrolled {
                continue;
            }
            let keys = Keys::new(self.seed, &plan.name);
            let roles = if is_super(plan) { Roles::PEER.with(Roles::SUPER_PEER) } else { Roles::PEER };
            let credential = if plan.name == login.name {
                founder.enrol_self(&plan.name)
            } else {
                founder.enrol(&plan.name, roles)
            };
            if is_super(plan) && known.len() < KNOWN {
                known.push(founder.contact(&keys, &credential, host.address));
            }
            host.advertised = is_super(plan);
            host.enrol(&founder, keys, credential, known.clone());
        }
        let login = hosts.iter_mut().find(|host| host.name == login.name).expect("the first super peer");
        login.disk.as_mut().expect("enrolled").ledger = Some(founder.ledger.clone());
        let directory = Directory::new(founder.network.clone(), Dice::new(self.seed, "directory"));
        let mut world = World::new(self.seed, hosts, internet, directory);
        for (at, _) in self.plans.iter().enumerate().filter(|(_, plan)| plan.started) {
            world.start(HostId(at));
        }
        (world, founder)
    }

    fn place(&self, at: usize, plan: &Plan, hosts: &[Host], internet: &mut Internet) -> Host {
        let id = HostId(at);
        let (high, low) = ((at / 250) as u8, (at % 250) as u8 + 1);
        let realm_of = |name: &str| {
            hosts.iter().find(|host| host.name == name).map(|host| host.realm).expect("a host named before")
        };
        let (realm, address) = match &plan.stand {
            Stand::Public { .. } => {
                (PUBLIC, plan.address.unwrap_or_else(|| Ipv4Addr::new(203, 0, 113 + high, low)))
            }
            Stand::Beside(other) => {
                let realm = realm_of(other);
                let there = hosts.iter().find(|host| host.name == *other).expect("found a line above");
                let base = match there.address.ip() {
                    std::net::IpAddr::V4(v4) => u32::from(v4),
                    std::net::IpAddr::V6(_) => panic!("the physical world is IPv4"),
                };
                (realm, Ipv4Addr::from(base + 1 + at as u32 % 200))
            }
            Stand::Home { behaviour, within } => {
                let outside = within.as_deref().map_or(PUBLIC, realm_of);
                let carrier = Ipv4Addr::new(100, 64, high, low);
                let outer = if within.is_some() { carrier } else { Ipv4Addr::new(198, 51, 100 + high, low) };
                let nat = Nat::new(*behaviour, outer, Dice::new(self.seed, &format!("nat of {}", plan.name)));
                let realm = internet.add_router(outside, nat).1;
                let inside = match (behaviour.mapping, self.same_subnet) {
                    (None, _) => Ipv4Addr::new(192, 0, 2 + high, low),
                    (Some(_), true) => Ipv4Addr::new(192, 168, 1, 10),
                    (Some(_), false) => Ipv4Addr::new(192, 168 + high, low, 10),
                };
                (realm, inside)
            }
        };
        internet.attach(id, realm, address);
        let mut host = Host::new(&plan.name, realm, SocketAddr::from((address, PORT)));
        host.clock_ahead_s = plan.clock_ahead_s;
        host
    }
}

/// The router in front of a realm that [`Scenario`] made: routers and their realms are numbered alike.
#[must_use]
pub const fn router_of(realm: RealmId) -> Option<RouterId> {
    match realm.0.checked_sub(1) {
        Some(router) => Some(RouterId(router)),
        None => None,
    }
}
