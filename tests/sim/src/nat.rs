//! Network address translators by RFC 4787, pure in time.
//!
//! Owns: [`Behaviour`] (mapping × filtering × port assignment × lifetime × hairpin), the table of classes, and
//! [`Nat`], which translates one datagram at a time. Never: a link, an event, a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::timing::Instant;

use crate::dice::Dice;

/// The seven classes of the matrix, in the order of [`frejus_oracle::CLASSES`].
pub const CLASSES: [NatClass; 7] = [
    NatClass::Open,
    NatClass::Firewalled,
    NatClass::FullCone,
    NatClass::AddressRestricted,
    NatClass::PortRestricted,
    NatClass::SymmetricSequential,
    NatClass::SymmetricRandom,
];

/// What a decision depends on (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// On the inner endpoint alone.
    Endpoint,
    /// On the remote address too.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// What of `remote` counts.
    fn part(self, remote: SocketAddr) -> Option<(IpAddr, u16)> {
        match self {
            Self::Endpoint => None,
            Self::Address => Some((remote.ip(), 0)),
            Self::AddressAndPort => Some((remote.ip(), remote.port())),
        }
    }
}

/// How a mapping gets its outer port (RFC 4787, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inner port, or the next one that is free.
    Preserving,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
}

/// What a NAT does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// When an inner endpoint keeps its outer port; `None` leaves addresses alone: a firewall.
    pub mapping: Option<Dependence>,
    /// Who may answer.
    pub filtering: Dependence,
    /// Which outer port.
    pub ports: Ports,
    /// How long an unused mapping lasts.
    pub life: Duration,
    /// Whether inbound packets keep it alive too.
    pub inbound_refreshes: bool,
    /// Whether insiders reach each other by outer addresses.
    pub hairpin: bool,
    /// Whether UDP passes at all.
    pub udp: bool,
    /// Whether a stray packet is taken for a flow to the router itself, which pushes ours to another port.
    pub careless: bool,
}

/// Linux keeps a flow that nobody has answered for 30 s.
const STRAY: Duration = Duration::from_secs(30);

/// Linux keeps an answered UDP flow for 120 s.
pub const LIFE: Duration = Duration::from_secs(120);

impl Behaviour {
    /// The class table of interface.md; `None` where nothing stands in the way.
    #[must_use]
    pub const fn of(class: NatClass) -> Option<Self> {
        use Dependence::{Address, AddressAndPort, Endpoint};
        let (mapping, filtering, ports) = match class {
            NatClass::Open | NatClass::Unknown => return None,
            NatClass::Firewalled => (None, AddressAndPort, Ports::Preserving),
            NatClass::FullCone => (Some(Endpoint), Endpoint, Ports::Preserving),
            NatClass::AddressRestricted => (Some(Endpoint), Address, Ports::Preserving),
            NatClass::PortRestricted | NatClass::UdpBlocked => {
                (Some(Endpoint), AddressAndPort, Ports::Preserving)
            }
            NatClass::SymmetricSequential => (Some(AddressAndPort), AddressAndPort, Ports::Sequential),
            NatClass::SymmetricRandom => (Some(AddressAndPort), AddressAndPort, Ports::Random),
        };
        let udp = !matches!(class, NatClass::UdpBlocked);
        let (hairpin, careless) = (false, false);
        Some(Self { mapping, filtering, ports, life: LIFE, inbound_refreshes: true, hairpin, udp, careless })
    }

    /// With another lifetime.
    #[must_use]
    pub const fn life(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// Stray packets push the flows of insiders aside.
    #[must_use]
    pub const fn careless(self) -> Self {
        Self { careless: true, ..self }
    }

    /// With hairpinning.
    #[must_use]
    pub const fn hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }
}

/// Whose mapping: inner endpoint, and what of the remote counts.
type Key = (SocketAddr, Option<(IpAddr, u16)>);

#[derive(Clone, Debug)]
struct Mapping {
    outer: SocketAddr,
    expires: Instant,
    /// Where the inside sent to, and until when an answer may come.
    contacts: BTreeMap<SocketAddr, Instant>,
}

/// One translator (or firewall).
#[derive(Clone, Debug)]
pub struct Nat {
    behaviour: Behaviour,
    outer: Ipv4Addr,
    mappings: BTreeMap<Key, Mapping>,
    taken: BTreeMap<SocketAddr, Key>,
    /// Ports that an insider asked for: outer to inner.
    opened: BTreeMap<SocketAddr, SocketAddr>,
    /// Who came in through one: inner endpoint and remote, by which port, until when.
    visits: BTreeMap<(SocketAddr, SocketAddr), (SocketAddr, Instant)>,
    /// Strays that a careless router took for its own: outer endpoint and remote, until when.
    strays: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    next: u16,
    dice: Dice,
}

const LOWEST: u16 = 1024;

impl Nat {
    /// A translator with one outer address.
    #[must_use]
    pub fn new(behaviour: Behaviour, outer: Ipv4Addr, mut dice: Dice) -> Self {
        let next = 40_000 + dice.below(1000) as u16;
        Self {
            behaviour,
            outer,
            mappings: BTreeMap::new(),
            taken: BTreeMap::new(),
            opened: BTreeMap::new(),
            visits: BTreeMap::new(),
            strays: BTreeMap::new(),
            next,
            dice,
        }
    }

    /// What an insider asks for by PCP, NAT-PMP or UPnP: the outer endpoint from which everything reaches `inner`.
    pub fn open(&mut self, inner: SocketAddr) -> SocketAddr {
        let free = |port: &u16| {
            let outer = SocketAddr::from((self.outer, *port));
            !self.taken.contains_key(&outer) && self.opened.get(&outer).is_none_or(|other| *other == inner)
        };
        let port = (inner.port()..=u16::MAX).find(free).expect("a port is free");
        let outer = SocketAddr::from((self.outer, port));
        self.opened.insert(outer, inner);
        outer
    }

    /// A datagram from the inside: its source as the outside sees it; `None` drops it.
    pub fn outbound(&mut self, source: SocketAddr, to: SocketAddr, now: Instant) -> Option<SocketAddr> {
        if !self.behaviour.udp {
            return None;
        }
        self.forget(now);
        if let Some((outer, expires)) = self.visits.get_mut(&(source, to)) {
            *expires = now + self.behaviour.life;
            return Some(*outer);
        }
        let key = (source, self.behaviour.mapping.and_then(|mapping| mapping.part(to)));
        if !self.mappings.contains_key(&key) {
            let outer = self.assign(source)?;
            self.taken.insert(outer, key);
            self.mappings.insert(key, Mapping { outer, expires: now, contacts: BTreeMap::new() });
        }
        let key = self.pushed_aside(key, to).unwrap_or(key);
        let expires = now + self.behaviour.life;
        let mapping = self.mappings.get_mut(&key)?;
        mapping.expires = expires;
        mapping.contacts.insert(to, expires);
        Some(mapping.outer)
    }

    /// The mapping that a flow gets instead of `key`'s, if a stray of the same endpoints was there before it.
    fn pushed_aside(&mut self, key: Key, to: SocketAddr) -> Option<Key> {
        let aside = (key.0, Dependence::AddressAndPort.part(to));
        if !self.behaviour.careless || aside == key || self.mappings.contains_key(&aside) {
            return (self.behaviour.careless && self.mappings.contains_key(&aside)).then_some(aside);
        }
        let mapping = self.mappings.get(&key)?;
        let (outer, expires) = (mapping.outer, mapping.expires);
        if mapping.contacts.contains_key(&to) || !self.strays.contains_key(&(outer, to)) {
            return None;
        }
        let outer = self.assign_by(Ports::Random, key.0)?;
        self.taken.insert(outer, aside);
        self.mappings.insert(aside, Mapping { outer, expires, contacts: BTreeMap::new() });
        Some(aside)
    }

    /// A datagram from the outside: the inner endpoint it is for; `None` drops it.
    pub fn inbound(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> Option<SocketAddr> {
        if !self.behaviour.udp {
            return None;
        }
        self.forget(now);
        if let Some(inner) = self.opened.get(&to) {
            self.visits.insert((*inner, from), (to, now + self.behaviour.life));
            return Some(*inner);
        }
        let inner = self.let_in(from, to, now);
        if inner.is_none() && self.behaviour.careless {
            self.strays.insert((to, from), now + STRAY);
        }
        inner
    }

    /// Who has a mapping there, if its filter lets the remote in.
    fn let_in(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let key = *self.taken.get(&to)?;
        let Behaviour { filtering, inbound_refreshes, life, .. } = self.behaviour;
        let mapping = self.mappings.get_mut(&key)?;
        let wanted = filtering.part(from);
        let passes = match filtering {
            Dependence::Endpoint => true,
            Dependence::Address | Dependence::AddressAndPort => {
                mapping.contacts.keys().any(|contact| filtering.part(*contact) == wanted)
            }
        };
        if !passes {
            return None;
        }
        if inbound_refreshes {
            mapping.expires = now + life;
            if let Some(expires) = mapping.contacts.get_mut(&from) {
                *expires = now + life;
            }
        }
        Some(key.0)
    }

    /// Whether insiders reach each other by outer addresses.
    #[must_use]
    pub const fn hairpins(&self) -> bool {
        self.behaviour.hairpin
    }

    /// Whether addresses are left alone: a firewall.
    #[must_use]
    pub const fn is_transparent(&self) -> bool {
        self.behaviour.mapping.is_none()
    }

    /// The outer address.
    #[must_use]
    pub const fn outer(&self) -> Ipv4Addr {
        self.outer
    }

    /// Forget every mapping: a reboot.
    pub fn reboot(&mut self) {
        self.mappings.clear();
        self.taken.clear();
        self.opened.clear();
        self.visits.clear();
        self.strays.clear();
        self.next = self.next.wrapping_add(997).max(LOWEST);
    }

    /// Another router in its place, or other settings; every mapping is gone.
    pub fn replace(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
        self.reboot();
    }

    /// Take another outer address; every mapping is gone.
    pub fn renumber(&mut self, outer: Ipv4Addr) {
        self.outer = outer;
        self.reboot();
    }

    /// Mappings alive at `now`.
    pub fn len(&mut self, now: Instant) -> usize {
        self.forget(now);
        self.mappings.len()
    }

    fn forget(&mut self, now: Instant) {
        self.visits.retain(|_, (_, expires)| *expires > now);
        self.strays.retain(|_, expires| *expires > now);
        let mut gone = BTreeSet::new();
        self.mappings.retain(|_, mapping| {
            mapping.contacts.retain(|_, expires| *expires > now);
            let alive = mapping.expires > now;
            if !alive {
                gone.insert(mapping.outer);
            }
            alive
        });
        for outer in gone {
            self.taken.remove(&outer);
        }
    }

    fn assign(&mut self, source: SocketAddr) -> Option<SocketAddr> {
        if self.behaviour.mapping.is_none() {
            return Some(source);
        }
        self.assign_by(self.behaviour.ports, source)
    }

    fn assign_by(&mut self, ports: Ports, source: SocketAddr) -> Option<SocketAddr> {
        let free = |port: u16, taken: &BTreeMap<SocketAddr, Key>| {
            let outer = SocketAddr::from((self.outer, port));
            (port >= LOWEST && !taken.contains_key(&outer) && !self.opened.contains_key(&outer))
                .then_some(outer)
        };
        for attempt in 0..u16::MAX {
            let port = match ports {
                Ports::Preserving => source.port().wrapping_add(attempt),
                Ports::Sequential => {
                    self.next = self.next.checked_add(1).unwrap_or(LOWEST);
                    self.next
                }
                Ports::Random => LOWEST + self.dice.below(u64::from(u16::MAX - LOWEST)) as u16,
            };
            if let Some(outer) = free(port, &self.taken) {
                return Some(outer);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: &str = "192.168.1.10:7000";
    const OUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn seconds(s: u64) -> Instant {
        Instant::from_start(Duration::from_secs(s))
    }

    fn nat(class: NatClass) -> Nat {
        Nat::new(Behaviour::of(class).unwrap(), OUTER, Dice::new(1, "nat"))
    }

    /// The outer ports for s1:3478, s1:3479 and s2:3478, and who gets in afterwards: s1 at the same port, s1 at
    /// another, a stranger. The rows were measured on Linux with the recipes of the kernel lab.
    fn probe(class: NatClass) -> ([u16; 3], [bool; 3]) {
        let mut nat = nat(class);
        let now = seconds(1);
        let servers = ["203.0.113.101:3478", "203.0.113.101:3479", "203.0.113.102:3478"].map(at);
        let outer = servers.map(|server| nat.outbound(at(INSIDE), server, now).unwrap());
        let from = ["203.0.113.101:3478", "203.0.113.101:9", "203.0.113.103:3478"].map(at);
        (outer.map(|o| o.port()), from.map(|f| nat.inbound(f, outer[0], now) == Some(at(INSIDE))))
    }

    #[test]
    fn cones_keep_their_port_and_differ_in_whom_they_let_in() {
        assert_eq!(probe(NatClass::FullCone), ([7000; 3], [true, true, true]));
        assert_eq!(probe(NatClass::AddressRestricted), ([7000; 3], [true, true, false]));
        assert_eq!(probe(NatClass::PortRestricted), ([7000; 3], [true, false, false]));
        assert_eq!(probe(NatClass::Firewalled), ([7000; 3], [true, false, false]));
    }

    #[test]
    fn symmetric_ones_take_a_port_for_each_destination() {
        let (ports, who) = probe(NatClass::SymmetricSequential);
        assert_eq!(who, [true, false, false]);
        assert_eq!([ports[1] - ports[0], ports[2] - ports[1]], [1, 1]);
        let (ports, who) = probe(NatClass::SymmetricRandom);
        assert_eq!(who, [true, false, false]);
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert!(ports[0].abs_diff(ports[1]) > 1);
    }

    #[test]
    fn blocked_udp_goes_nowhere() {
        let mut nat = nat(NatClass::UdpBlocked);
        assert_eq!(nat.outbound(at(INSIDE), at("203.0.113.1:1"), seconds(0)), None);
    }

    #[test]
    fn a_mapping_lives_as_long_as_it_is_used() {
        let mut nat = Nat::new(
            Behaviour::of(NatClass::PortRestricted).unwrap().life(Duration::from_secs(30)),
            OUTER,
            Dice::new(1, "nat"),
        );
        let server = at("203.0.113.101:3478");
        let outer = nat.outbound(at(INSIDE), server, seconds(0)).unwrap();
        assert_eq!(nat.inbound(server, outer, seconds(29)), Some(at(INSIDE)));
        assert_eq!(nat.inbound(server, outer, seconds(58)), Some(at(INSIDE)), "inbound refreshes");
        assert_eq!(nat.inbound(server, outer, seconds(88)), None);
        assert_eq!(nat.len(seconds(88)), 0);
    }

    #[test]
    fn inbound_need_not_refresh() {
        let behaviour = Behaviour { inbound_refreshes: false, ..Behaviour::of(NatClass::FullCone).unwrap() };
        let mut nat = Nat::new(behaviour, OUTER, Dice::new(1, "nat"));
        let server = at("203.0.113.101:3478");
        let outer = nat.outbound(at(INSIDE), server, seconds(0)).unwrap();
        assert!(nat.inbound(server, outer, seconds(119)).is_some());
        assert!(nat.inbound(server, outer, seconds(120)).is_none());
    }

    #[test]
    fn two_insiders_never_share_an_outer_port() {
        let mut nat = nat(NatClass::PortRestricted);
        let server = at("203.0.113.101:3478");
        let first = nat.outbound(at(INSIDE), server, seconds(0)).unwrap();
        let second = nat.outbound(at("192.168.1.11:7000"), server, seconds(0)).unwrap();
        assert_ne!(first, second);
        assert_eq!(nat.inbound(server, second, seconds(1)), Some(at("192.168.1.11:7000")));
    }

    #[test]
    fn an_opened_port_lets_everybody_in_and_answers_leave_by_it() {
        let mut nat = nat(NatClass::SymmetricRandom);
        let (stranger, server) = (at("203.0.113.9:1"), at("203.0.113.101:3478"));
        let outer = nat.open(at(INSIDE));
        assert_eq!(outer, SocketAddr::from((OUTER, 7000)));
        assert_eq!(nat.open(at(INSIDE)), outer);
        assert_ne!(nat.open(at("192.168.1.11:7000")), outer);
        assert_eq!(nat.inbound(stranger, outer, seconds(0)), Some(at(INSIDE)));
        assert_eq!(nat.outbound(at(INSIDE), stranger, seconds(1)), Some(outer));
        assert_ne!(nat.outbound(at(INSIDE), server, seconds(1)), Some(outer));
        nat.reboot();
        assert_eq!(nat.inbound(stranger, outer, seconds(2)), None);
    }

    #[test]
    fn a_careless_router_pushes_aside_what_comes_after_a_stray() {
        let mut nat =
            Nat::new(Behaviour::of(NatClass::PortRestricted).unwrap().careless(), OUTER, Dice::new(1, "nat"));
        let (peer, other) = (at("203.0.113.9:1"), at("203.0.113.9:2"));
        let server = at("203.0.113.101:3478");
        let outer = nat.outbound(at(INSIDE), server, seconds(0)).unwrap();
        assert_eq!(nat.inbound(peer, outer, seconds(0)), None);
        let aside = nat.outbound(at(INSIDE), peer, seconds(1)).unwrap();
        assert_ne!(aside, outer);
        assert_eq!(nat.inbound(peer, outer, seconds(2)), None, "neither ever hears the other");
        assert_eq!(nat.inbound(peer, aside, seconds(2)), Some(at(INSIDE)));
        assert_eq!(nat.outbound(at(INSIDE), other, seconds(2)), Some(outer), "first to speak");
        assert_eq!(nat.inbound(other, outer, seconds(3)), Some(at(INSIDE)));
    }

    #[test]
    fn a_reboot_forgets() {
        let mut nat = nat(NatClass::FullCone);
        let server = at("203.0.113.101:3478");
        let outer = nat.outbound(at(INSIDE), server, seconds(0)).unwrap();
        nat.reboot();
        assert_eq!(nat.inbound(server, outer, seconds(0)), None);
    }

    #[test]
    fn a_firewall_changes_no_address() {
        let mut nat = nat(NatClass::Firewalled);
        let inside = at("203.0.113.50:7000");
        assert_eq!(nat.inbound(at("203.0.113.9:1"), inside, seconds(0)), None);
        assert_eq!(nat.outbound(inside, at("203.0.113.9:1"), seconds(0)), Some(inside));
        assert_eq!(nat.inbound(at("203.0.113.9:1"), inside, seconds(0)), Some(inside));
    }
}
