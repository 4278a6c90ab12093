//! Realms, routers, addresses and the links between sites: where a datagram goes and what it looks like there.
//!
//! Owns: [`Internet`]. A realm is a set of addresses that reach each other; realm 0 is the public Internet, every
//! other one hangs on a router. Translation on the way up happens when a datagram leaves, on the way down when it
//! arrives. Never: an event; the world carries a [`Flight`] from [`Internet::depart`] to [`Internet::arrive`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::timing::Instant;

use crate::dice::Dice;
use crate::link::{Link, Lost, Quality, WAN};
use crate::nat::Nat;

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A set of addresses that reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RealmId(pub usize);

/// A router with a NAT or a firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterId(pub usize);

/// What has an address in a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// A host.
    Host(HostId),
    /// A router, with what is behind it.
    Router(RouterId),
}

/// The public Internet.
pub const PUBLIC: RealmId = RealmId(0);

/// Inside a home.
const LAN: Quality = Quality { latency: Duration::from_micros(300), ..WAN };

/// A datagram on its way between two sites of one realm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// When it is there.
    pub arrival: Instant,
    /// In which realm.
    pub realm: RealmId,
    /// At which site.
    pub site: Site,
    /// Its source as that realm sees it.
    pub source: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
}

/// Why a datagram is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On the link.
    Lost(Lost),
    /// No such address.
    NoRoute,
    /// A NAT or firewall let it neither out nor in.
    Filtered,
    /// It had passed as many routers as it was allowed.
    Expired,
}

#[derive(Clone, Debug, Default)]
struct Realm {
    gateway: Option<RouterId>,
    addresses: BTreeMap<IpAddr, Site>,
}

#[derive(Clone, Debug)]
struct Router {
    nat: Nat,
    inside: RealmId,
    outside: RealmId,
}

/// Everything between the hosts.
#[derive(Clone, Debug)]
pub struct Internet {
    realms: Vec<Realm>,
    routers: Vec<Router>,
    links: BTreeMap<(Site, Site), Link>,
    default: Quality,
    dice: Dice,
}

impl Internet {
    /// An empty one; links that nobody described are of `default` quality.
    #[must_use]
    pub fn new(default: Quality, dice: Dice) -> Self {
        Self { realms: vec![Realm::default()], routers: Vec::new(), links: BTreeMap::new(), default, dice }
    }

    /// A new realm behind `nat`, which is in `outside` by its outer address.
    pub fn add_router(&mut self, outside: RealmId, nat: Nat) -> (RouterId, RealmId) {
        let (router, inside) = (RouterId(self.routers.len()), RealmId(self.realms.len()));
        self.realms[outside.0].addresses.insert(nat.outer().into(), Site::Router(router));
        self.realms.push(Realm { gateway: Some(router), addresses: BTreeMap::new() });
        self.routers.push(Router { nat, inside, outside });
        (router, inside)
    }

    /// Give `host` an address; a firewall's realm is announced outside as well.
    pub fn attach(&mut self, host: HostId, realm: RealmId, at: Ipv4Addr) {
        self.realms[realm.0].addresses.insert(at.into(), Site::Host(host));
        if let Some(gateway) = self.realms[realm.0].gateway {
            let router = &self.routers[gateway.0];
            if router.nat.is_transparent() {
                self.realms[router.outside.0].addresses.insert(at.into(), Site::Router(gateway));
            }
        }
    }

    /// Take an address away.
    pub fn detach(&mut self, realm: RealmId, at: Ipv4Addr) {
        self.realms[realm.0].addresses.remove(&IpAddr::from(at));
    }

    /// The translator of a router.
    pub fn nat(&mut self, router: RouterId) -> &mut Nat {
        &mut self.routers[router.0].nat
    }

    /// The router gets another outer address, and forgets its mappings.
    pub fn renumber(&mut self, router: RouterId, outer: Ipv4Addr) {
        let Router { nat, outside, .. } = &mut self.routers[router.0];
        let addresses = &mut self.realms[outside.0].addresses;
        addresses.remove(&IpAddr::from(nat.outer()));
        addresses.insert(outer.into(), Site::Router(router));
        nat.renumber(outer);
    }

    /// A datagram leaves `host`.
    ///
    /// # Errors
    /// Why it does not get anywhere.
    pub fn depart(
        &mut self,
        host: (HostId, RealmId),
        source: SocketAddr,
        to: SocketAddr,
        bytes: usize,
        now: Instant,
    ) -> Result<Flight, Fate> {
        let (mut site, mut realm, mut source) = (Site::Host(host.0), host.1, source);
        loop {
            if let Some(there) = self.realms[realm.0].addresses.get(&to.ip()).copied() {
                return self.cross(realm, (site, there), (source, to), bytes, now);
            }
            let gateway = self.realms[realm.0].gateway.ok_or(Fate::NoRoute)?;
            if !self.nat(gateway).is_transparent() && to.ip() == IpAddr::from(self.nat(gateway).outer()) {
                return self.hairpin(gateway, (source, to), bytes, now);
            }
            source = self.nat(gateway).outbound(source, to, now).ok_or(Fate::Filtered)?;
            (site, realm) = (Site::Router(gateway), self.routers[gateway.0].outside);
        }
    }

    /// A datagram leaves `host` that may pass one router less than `hops`. Between any two places of the public Internet stand
    /// more: only the NATs on its way out see it.
    ///
    /// # Errors
    /// As [`Self::depart`]; most often that it has died.
    pub fn depart_near(
        &mut self,
        host: (HostId, RealmId),
        (source, to): (SocketAddr, SocketAddr),
        hops: u8,
        bytes: usize,
        now: Instant,
    ) -> Result<Flight, Fate> {
        let (mut site, mut realm, mut source) = (Site::Host(host.0), host.1, source);
        // The last of them only sees it die.
        for _ in 1..hops {
            if realm == PUBLIC {
                break;
            }
            if let Some(there) = self.realms[realm.0].addresses.get(&to.ip()).copied() {
                return self.cross(realm, (site, there), (source, to), bytes, now);
            }
            let gateway = self.realms[realm.0].gateway.ok_or(Fate::NoRoute)?;
            source = self.nat(gateway).outbound(source, to, now).ok_or(Fate::Filtered)?;
            (site, realm) = (Site::Router(gateway), self.routers[gateway.0].outside);
        }
        Err(Fate::Expired)
    }

    fn cross(
        &mut self,
        realm: RealmId,
        (from, site): (Site, Site),
        (source, to): (SocketAddr, SocketAddr),
        bytes: usize,
        now: Instant,
    ) -> Result<Flight, Fate> {
        let default = if from == site || realm != PUBLIC { LAN } else { self.default };
        let link = self.links.entry((from, site)).or_insert_with(|| Link::new(default));
        let arrival = link.transit(bytes, now, &mut self.dice).map_err(Fate::Lost)?;
        Ok(Flight { arrival, realm, site, source, to })
    }

    fn hairpin(
        &mut self,
        gateway: RouterId,
        (source, to): (SocketAddr, SocketAddr),
        bytes: usize,
        now: Instant,
    ) -> Result<Flight, Fate> {
        let Router { nat, inside, .. } = &mut self.routers[gateway.0];
        let inside = *inside;
        if !nat.hairpins() {
            return Err(Fate::Filtered);
        }
        let outer = nat.outbound(source, to, now).ok_or(Fate::Filtered)?;
        let inner = nat.inbound(outer, to, now).ok_or(Fate::Filtered)?;
        let there = self.realms[inside.0].addresses.get(&inner.ip()).copied().ok_or(Fate::NoRoute)?;
        self.cross(inside, (Site::Router(gateway), there), (outer, inner), bytes, now)
    }

    /// A flight is over: which host gets it, from where, and at which of its addresses.
    ///
    /// # Errors
    /// Why nobody gets it.
    pub fn arrive(&mut self, flight: &Flight) -> Result<(HostId, SocketAddr, SocketAddr), Fate> {
        let (mut site, mut to) = (flight.site, flight.to);
        loop {
            match site {
                Site::Host(host) => return Ok((host, flight.source, to)),
                Site::Router(RouterId(router)) => {
                    let router = &mut self.routers[router];
                    to = router.nat.inbound(flight.source, to, flight.arrival).ok_or(Fate::Filtered)?;
                    let inside = &self.realms[router.inside.0];
                    site = inside.addresses.get(&to.ip()).copied().ok_or(Fate::NoRoute)?;
                }
            }
        }
    }

    /// The two sites by which these realms' hosts meet, and so the link between them.
    #[must_use]
    pub fn meeting(&self, one: (HostId, RealmId), other: (HostId, RealmId)) -> (Site, Site) {
        let (ours, theirs) = (self.way_up(one), self.way_up(other));
        let common = |(realm, site): &(RealmId, Site)| {
            theirs.iter().find(|(there, _)| there == realm).map(|(_, other)| (*site, *other))
        };
        ours.iter().find_map(common).expect("every way leads to the public Internet")
    }

    fn way_up(&self, (host, mut realm): (HostId, RealmId)) -> Vec<(RealmId, Site)> {
        let mut way = vec![(realm, Site::Host(host))];
        while let Some(gateway) = self.realms[realm.0].gateway {
            realm = self.routers[gateway.0].outside;
            way.push((realm, Site::Router(gateway)));
        }
        way
    }

    /// The link from one site to another.
    pub fn link(&mut self, ends: (Site, Site)) -> &mut Link {
        self.links.entry(ends).or_insert_with(|| Link::new(self.default))
    }

    /// The links between two sites, there and back.
    pub fn links(&mut self, (one, other): (Site, Site)) -> [&mut Link; 2] {
        let default = self.default;
        for ends in [(one, other), (other, one)] {
            self.links.entry(ends).or_insert_with(|| Link::new(default));
        }
        let mut found =
            self.links.iter_mut().filter(|(ends, _)| **ends == (one, other) || **ends == (other, one));
        let mut next = || found.next().expect("just inserted").1;
        [next(), next()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Behaviour;
    use frejus_overlay::document::NatClass;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
    const T: Instant = Instant::ZERO;

    fn home(class: NatClass, hairpin: bool) -> (Internet, RealmId) {
        let mut internet = Internet::new(WAN, Dice::new(1, "internet"));
        internet.attach(HostId(0), PUBLIC, SERVER);
        let mut behaviour = Behaviour::of(class).unwrap();
        behaviour.hairpin = hairpin;
        let nat = Nat::new(behaviour, Ipv4Addr::new(198, 51, 100, 1), Dice::new(1, "nat"));
        let (_, realm) = internet.add_router(PUBLIC, nat);
        internet.attach(HostId(1), realm, INSIDE);
        (internet, realm)
    }

    #[test]
    fn a_datagram_crosses_a_nat_and_its_answer_comes_back() {
        let (mut internet, realm) = home(NatClass::PortRestricted, false);
        let out =
            internet.depart((HostId(1), realm), at("192.168.1.10:7"), at("203.0.113.1:9"), 10, T).unwrap();
        assert_eq!(out.arrival.since_start(), WAN.latency);
        let (host, from, to) = internet.arrive(&out).unwrap();
        assert_eq!((host, to), (HostId(0), at("203.0.113.1:9")));
        assert_eq!(from.ip(), IpAddr::from([198, 51, 100, 1]));
        let back = internet.depart((HostId(0), PUBLIC), to, from, 10, out.arrival).unwrap();
        assert_eq!(internet.arrive(&back), Ok((HostId(1), to, at("192.168.1.10:7"))));
        let stray = internet.depart((HostId(0), PUBLIC), at("203.0.113.1:8"), from, 10, out.arrival).unwrap();
        assert_eq!(internet.arrive(&stray), Err(Fate::Filtered));
    }

    #[test]
    fn insiders_meet_at_home_and_by_hairpin_only_where_it_exists() {
        for hairpin in [false, true] {
            let (mut internet, realm) = home(NatClass::FullCone, hairpin);
            internet.attach(HostId(2), realm, Ipv4Addr::new(192, 168, 1, 11));
            let (one, other) = (at("192.168.1.10:7"), at("192.168.1.11:7"));
            let direct = internet.depart((HostId(1), realm), one, other, 10, T).unwrap();
            assert_eq!(internet.arrive(&direct), Ok((HostId(2), one, other)));
            let out = internet.depart((HostId(2), realm), other, at("203.0.113.1:9"), 10, T).unwrap();
            let outer = internet.arrive(&out).unwrap().1;
            let turned = internet.depart((HostId(1), realm), one, outer, 10, T);
            let arrived = turned.and_then(|flight| internet.arrive(&flight));
            assert_eq!(arrived.is_ok(), hairpin);
            if let Ok((host, from, to)) = arrived {
                assert_eq!((host, to), (HostId(2), other));
                assert_eq!(
                    from.ip(),
                    IpAddr::from([198, 51, 100, 1]),
                    "RFC 4787, REQ-9: the external source"
                );
            }
        }
    }

    #[test]
    fn a_firewalled_host_is_known_by_its_own_address() {
        let mut internet = Internet::new(WAN, Dice::new(1, "internet"));
        internet.attach(HostId(0), PUBLIC, SERVER);
        let wall = Behaviour::of(NatClass::Firewalled).unwrap();
        let nat = Nat::new(wall, Ipv4Addr::new(198, 51, 100, 1), Dice::new(1, "nat"));
        let (_, realm) = internet.add_router(PUBLIC, nat);
        let own = Ipv4Addr::new(198, 51, 100, 77);
        internet.attach(HostId(1), realm, own);
        let (server, inside) = (at("203.0.113.1:9"), SocketAddr::from((own, 7)));
        let unasked = internet.depart((HostId(0), PUBLIC), server, inside, 10, T).unwrap();
        assert_eq!(internet.arrive(&unasked), Err(Fate::Filtered));
        let asking = internet.depart((HostId(1), realm), inside, server, 10, T).unwrap();
        assert_eq!(internet.arrive(&asking), Ok((HostId(0), inside, server)));
        assert_eq!(internet.arrive(&unasked), Ok((HostId(1), server, inside)));
    }

    #[test]
    fn carrier_nats_nest_and_cuts_hit_the_right_link() {
        let (mut internet, carrier) = home(NatClass::FullCone, false);
        let nat = Nat::new(
            Behaviour::of(NatClass::PortRestricted).unwrap(),
            Ipv4Addr::new(100, 64, 0, 9),
            Dice::new(2, "nat"),
        );
        let (_, inner) = internet.add_router(carrier, nat);
        internet.attach(HostId(3), inner, INSIDE);
        let out =
            internet.depart((HostId(3), inner), at("192.168.1.10:7"), at("203.0.113.1:9"), 10, T).unwrap();
        assert_eq!(out.source.ip(), IpAddr::from([198, 51, 100, 1]));
        let ends = internet.meeting((HostId(3), inner), (HostId(0), PUBLIC));
        assert_eq!(ends, (Site::Router(RouterId(0)), Site::Host(HostId(0))));
        for link in internet.links(ends) {
            link.cut = true;
        }
        let lost = internet.depart((HostId(3), inner), at("192.168.1.10:7"), at("203.0.113.1:9"), 10, T);
        assert_eq!(lost, Err(Fate::Lost(Lost::Cut)));
    }
}
