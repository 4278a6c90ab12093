use std::net::Ipv4Addr;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

const MAIN: u16 = 51860;
const OTHER: u16 = 51862;
const OUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const TRIP: Duration = Duration::from_millis(20);

/// A NAT of one class, three super peers, and what is on its way; one-way delay [`TRIP`].
struct World {
    class: NatClass,
    hairpin: bool,
    careless: bool,
    /// What the router took for its own: our outer endpoint and whose.
    strays: BTreeSet<(SocketAddr, SocketAddr)>,
    servers: usize,
    sessions: usize,
    /// Percent of packets, tunnel messages included, that are lost.
    loss: u32,
    /// This super peer says that it sees us at a victim's address.
    liar: Option<usize>,
    alternates: bool,
    stranger: bool,
    mappings: Vec<(Socket, Option<SocketAddr>, SocketAddr)>,
    contacts: BTreeSet<(Socket, SocketAddr)>,
    next: u16,
    rng: ChaCha20Rng,
    coming: Vec<(Instant, Event)>,
}

enum Event {
    Answer(Socket, SocketAddr, stun::Answer),
    Reflected(NodeId, Transaction, Result<Reflector, Reflector>),
}

fn node(at: usize) -> NodeId {
    NodeId([at as u8 + 1; 32])
}

fn server(at: usize, port: u16) -> SocketAddr {
    SocketAddr::from(([203, at as u8, 113, 1], port))
}

impl World {
    fn new(class: NatClass, seed: u64) -> Self {
        Self {
            class,
            hairpin: false,
            careless: false,
            strays: BTreeSet::new(),
            servers: 3,
            sessions: 2,
            loss: 0,
            liar: None,
            alternates: true,
            stranger: true,
            mappings: Vec::new(),
            contacts: BTreeSet::new(),
            next: 40_000,
            rng: ChaCha20Rng::seed_from_u64(seed),
            coming: Vec::new(),
        }
    }

    fn is_lost(&mut self) -> bool {
        self.rng.next_u32() % 100 < self.loss
    }

    fn is_symmetric(&self) -> bool {
        matches!(self.class, NatClass::SymmetricSequential | NatClass::SymmetricRandom)
    }

    fn outbound(&mut self, from: Socket, to: SocketAddr) -> SocketAddr {
        self.contacts.insert((from, to));
        let key = self.is_symmetric().then_some(to);
        if let Some((.., outer)) = self.mappings.iter().find(|(socket, of, _)| *socket == from && *of == key)
        {
            let taken = self.strays.contains(&(*outer, to));
            return if taken { SocketAddr::new(OUTER, 39_259) } else { *outer };
        }
        self.next += 1;
        let port = match self.class {
            NatClass::SymmetricRandom => 1024 + (self.rng.next_u32() % 64_000) as u16,
            NatClass::SymmetricSequential => self.next,
            _ => 7000 + from as u16,
        };
        let outer = SocketAddr::new(OUTER, port);
        self.mappings.push((from, key, outer));
        outer
    }

    fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<Socket> {
        let (socket, of, _) = self.mappings.iter().find(|(.., outer)| *outer == to)?;
        let of_socket = || self.contacts.iter().filter(|(other, _)| other == socket);
        let passes = match self.class {
            NatClass::Open | NatClass::FullCone => true,
            NatClass::AddressRestricted => of_socket().any(|(_, at)| at.ip() == from.ip()),
            _ => of.map_or_else(|| of_socket().any(|(_, at)| *at == from), |of| of == from),
        };
        passes.then_some(*socket)
    }

    fn later(&mut self, now: Instant, trips: u32, event: Event) {
        if !self.is_lost() {
            self.coming.push((now + TRIP * trips, event));
        }
    }

    fn carry_out(&mut self, deed: Deed, now: Instant) {
        match deed {
            Deed::Send { from, to, bytes } => self.on_sent(from, to, &bytes, now),
            Deed::Reflect { anchor, transaction, to, avoid } => {
                if !self.is_lost() {
                    self.on_reflection(anchor, transaction, to, &avoid, now);
                }
            }
        }
    }

    fn on_sent(&mut self, from: Socket, to: SocketAddr, bytes: &[u8], now: Instant) {
        let lost = self.is_lost();
        if let Some(transaction) = stun::transaction_of_request(bytes) {
            let outer = self.outbound(from, to);
            let at =
                (0..self.servers).find(|at| server(*at, 0).ip() == to.ip()).expect("only servers are asked");
            if lost || self.class == NatClass::UdpBlocked || (to.port() == OTHER && !self.alternates) {
                return;
            }
            let mapped = if self.liar == Some(at) { "8.8.8.8:53".parse().unwrap() } else { outer };
            let alternate = self.alternates.then_some(OTHER);
            assert!(self.inbound(to, outer) == Some(from) || !self.strays.is_empty(), "answers come in");
            self.later(now, 2, Event::Answer(from, to, stun::Answer { transaction, mapped, alternate }));
        } else {
            let answer = stun::Answer::read(bytes).expect("a request or an answer");
            let outer = self.outbound(from, to);
            if self.hairpin
                && !lost
                && let Some(socket) = self.inbound(outer, to)
            {
                self.later(now, 0, Event::Answer(socket, outer, answer));
            }
        }
    }

    fn on_reflection(
        &mut self,
        anchor: NodeId,
        transaction: Transaction,
        to: SocketAddr,
        avoid: &[NodeId],
        now: Instant,
    ) {
        let at = (0..self.servers).find(|at| node(*at) == anchor).expect("an anchor");
        let stranger = (0..self.servers).find(|at| !avoid.contains(&node(*at))).filter(|_| self.stranger);
        let reflectors = [
            (Reflector::Alternate, self.alternates.then(|| server(at, OTHER)), 1),
            (Reflector::Stranger, stranger.map(|at| server(at, MAIN)), 2),
        ];
        for (reflector, from, trips) in reflectors {
            let by = from.map(|_| reflector).ok_or(reflector);
            self.later(now, trips + 1, Event::Reflected(anchor, transaction, by));
            if let Some(from) = from.filter(|from| self.careless && self.inbound(*from, to).is_none()) {
                self.strays.insert((to, from));
            }
            if let Some(from) = from
                && let Some(socket) = self.inbound(from, to)
            {
                let answer = stun::Answer { transaction, mapped: to, alternate: None };
                self.later(now, trips + 1, Event::Answer(socket, from, answer));
            }
        }
    }

    fn discover(&mut self) -> (Discovered, Duration) {
        let mut rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let servers = (0..self.servers)
            .map(|at| Server { node: node(at), at: server(at, MAIN), has_session: at < self.sessions })
            .collect();
        let untranslated = matches!(self.class, NatClass::Open | NatClass::Firewalled);
        let local = if untranslated { OUTER } else { "192.168.1.2".parse().unwrap() };
        let begun = Instant::from_start(Duration::from_secs(9));
        let mut now = begun;
        let mut discovery = Discovery::new(servers, vec![local], now, &mut rng);
        while !discovery.is_over() {
            for deed in discovery.handle_timeout(now, &mut rng) {
                self.carry_out(deed, now);
            }
            if discovery.is_over() {
                break;
            }
            let deadline = discovery.poll_timeout();
            assert!(deadline > now, "a deadline moves");
            let next = (0..self.coming.len()).min_by_key(|at| self.coming[*at].0);
            match next.filter(|at| self.coming[*at].0 <= deadline) {
                None => now = deadline,
                Some(at) => {
                    let (then, event) = self.coming.remove(at);
                    now = then.max(now);
                    match event {
                        Event::Answer(socket, from, answer) => {
                            discovery.handle_answer(socket, from, &answer, now, &mut rng);
                        }
                        Event::Reflected(by, transaction, what) => {
                            discovery.handle_reflected(by, transaction, what, now);
                        }
                    }
                }
            }
        }
        (discovery.result(), now.since(begun))
    }
}

const CLASSES: [NatClass; 7] = [
    NatClass::Open,
    NatClass::Firewalled,
    NatClass::FullCone,
    NatClass::AddressRestricted,
    NatClass::PortRestricted,
    NatClass::SymmetricSequential,
    NatClass::SymmetricRandom,
];

#[test]
fn every_class_is_found_with_three_super_peers() {
    for class in CLASSES {
        for seed in 0..20 {
            let (found, took) = World::new(class, seed).discover();
            assert_eq!((found.class, &found.gaps), (class, &Vec::new()), "{found:?}");
            assert!(took < Duration::from_millis(900), "{class:?}: {took:?}");
            assert_eq!(found.step, (class == NatClass::SymmetricSequential).then_some(1));
            assert_eq!(
                found.hairpin.is_some(),
                found.class != NatClass::Open && class != NatClass::Firewalled
            );
        }
    }
}

#[test]
fn lost_packets_mislead_nobody() {
    for class in CLASSES {
        let mut unknown = 0;
        for seed in 0..200 {
            let mut world = World::new(class, seed);
            world.loss = 15;
            let (found, took) = world.discover();
            assert!(took <= LIMIT);
            unknown += u32::from(found.class == NatClass::Unknown);
            assert!([class, NatClass::Unknown].contains(&found.class), "{class:?} (seed {seed}): {found:?}");
        }
        assert!(unknown <= 20, "{class:?}: unknown {unknown} times of 200");
    }
}

#[test]
fn with_fewer_super_peers_it_is_unknown_rather_than_wrong() {
    for class in CLASSES {
        for (servers, sessions) in [(0, 0), (1, 1), (2, 1), (2, 2)] {
            let mut world = World::new(class, 3);
            (world.servers, world.sessions) = (servers, sessions);
            let (found, _) = world.discover();
            assert!([class, NatClass::Unknown].contains(&found.class), "{servers}: {class:?}: {found:?}");
            assert_eq!(found.class == NatClass::Unknown, !found.gaps.is_empty(), "it says why: {found:?}");
        }
    }
}

#[test]
fn a_liar_changes_no_class_and_no_address() {
    for class in CLASSES {
        for liar in 0..3 {
            let mut world = World::new(class, 5);
            world.liar = Some(liar);
            let (found, took) = world.discover();
            assert_eq!(found.class, class, "liar {liar}: {found:?}");
            assert!(found.external.iter().all(|at| at.ip() == OUTER), "{found:?}");
            assert!(took <= LIMIT);
        }
    }
}

#[test]
fn what_the_anchor_can_not_do_is_not_taken_for_silence() {
    for class in [NatClass::AddressRestricted, NatClass::PortRestricted] {
        let mut world = World::new(class, 1);
        world.alternates = false;
        let (found, _) = world.discover();
        assert_eq!((found.class, found.gaps), (NatClass::Unknown, vec![Gap::NoAlternatePort]));
    }
    let mut world = World::new(NatClass::AddressRestricted, 1);
    world.stranger = false;
    let (found, _) = world.discover();
    assert_eq!((found.class, found.gaps), (NatClass::Unknown, vec![Gap::NoStranger]));
    let mut world = World::new(NatClass::PortRestricted, 1);
    world.stranger = false;
    assert_eq!(
        world.discover().0.class,
        NatClass::PortRestricted,
        "who keeps a port out keeps strangers out"
    );
}

#[test]
fn a_hairpin_is_found_where_there_is_one() {
    for class in [NatClass::FullCone, NatClass::AddressRestricted, NatClass::PortRestricted] {
        for hairpin in [false, true] {
            let mut world = World::new(class, 1);
            world.hairpin = hairpin;
            assert_eq!(world.discover().0.hairpin, Some(hairpin), "{class:?}");
        }
    }
}

#[test]
fn silence_of_all_is_no_class() {
    let (found, took) = World::new(NatClass::UdpBlocked, 1).discover();
    assert_eq!((found.class, found.udp, found.gaps), (NatClass::Unknown, false, vec![Gap::NoAnswer]));
    assert_eq!(took, LIMIT);
}

#[test]
fn a_careless_router_is_known_by_the_port_that_it_took() {
    for (class, said) in [
        (NatClass::PortRestricted, Some(true)),
        (NatClass::FullCone, None),
        (NatClass::AddressRestricted, None),
        (NatClass::SymmetricRandom, None),
        (NatClass::Firewalled, None),
    ] {
        for careless in [false, true] {
            let mut world = World { careless, ..World::new(class, 5) };
            let (found, took) = world.discover();
            assert_eq!((found.class, found.careless), (class, said.map(|_| careless)), "{found:?}");
            assert!(took <= LIMIT, "{took:?}");
        }
    }
}

#[test]
fn a_router_is_called_careless_for_no_loss() {
    for seed in 0..200 {
        let mut world = World { loss: 20, ..World::new(NatClass::PortRestricted, seed) };
        let (found, _) = world.discover();
        assert_ne!(found.careless, Some(true), "seed {seed}: {found:?}");
        // What comes in behind the question that opened the filter says nothing.
        assert!(
            [NatClass::PortRestricted, NatClass::Unknown].contains(&found.class),
            "seed {seed}: {found:?}"
        );
    }
}
