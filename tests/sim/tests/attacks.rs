//! Attacks on how paths are found: third parties that are to be sprayed, sockets that are to be opened, relays that are to
//! be aimed, and floods.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use frejus_overlay::document::{Candidate, CandidateKind, NatClass};
use frejus_overlay::guess::{Ports, Window};
use frejus_overlay::locator::Channel;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::stun::Errand;
use frejus_overlay::tunnel::OVERHEAD;
use frejus_overlay::verdict::Drop;
use frejus_overlay::wire;
use frejus_overlay::wire::control::{self, Message};
use frejus_sim::app::Kind;
use frejus_sim::forwarding::Deed;
use frejus_sim::nat::CLASSES;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
/// Probes to an address of which only the peer says that it is its own: ten, and one in thirty seconds.
const TEN: usize = 10;

/// `a` behind `class`, and a member gone bad, `m`, whose traffic with it stays on the relay; `x` is a third party.
fn stage(class: NatClass) -> World {
    let scenario = Scenario::new(1).super_peer("s").super_peer("t").super_peer("u").home("a", class);
    let mut world = scenario
        .home("b", NatClass::PortRestricted)
        .home("m", NatClass::Open)
        .home("x", NatClass::Open)
        .newcomer()
        .build();
    world.trace.capture = Some(Vec::new());
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world.set_cut("a", "m", true);
    // The survey of the NAT takes a second and a half.
    world.run_for(SECOND * 3);
    world
}

/// As [`stage`], with traffic between `a` and `m`.
fn acquainted(class: NatClass) -> World {
    let mut world = stage(class);
    world.stream("a", "m", TENTH, SECOND * 300);
    world.run_for(TENTH * 3);
    assert!(world.is_relayed("a", "m"), "{}", class.name());
    world
}

/// An inner packet that carries a control message.
fn packet(world: &World, from: &str, to: &str, message: &Message) -> (IpAddr, Vec<u8>) {
    let destination = world.host(to).virtual_address(true);
    let (IpAddr::V6(source), IpAddr::V6(own)) = (world.host(from).virtual_address(true), destination) else {
        panic!("asked for IPv6");
    };
    let payload = message.encode();
    let (source_port, destination_port) = (control::PORT, control::PORT);
    let datagram = Udp6 { source, destination: own, source_port, destination_port, payload: &payload };
    let mut packet = vec![0; 48 + payload.len() + OVERHEAD];
    let length = datagram.write(&mut packet).expect("room for it");
    packet.truncate(length);
    (destination, packet)
}

/// What an honest node would not say.
fn say(world: &mut World, from: &str, to: &str, message: &Message) {
    let (destination, packet) = packet(world, from, to, message);
    world.forge(world.id(from), destination, &packet);
}

/// Datagrams that `from` sent to that host so far, whatever the port.
fn heard(world: &World, from: &str, ip: IpAddr) -> usize {
    let from = world.id(from);
    world.trace.capture.iter().flatten().filter(|d| d.from == from && d.to.ip() == ip).count()
}

/// Bytes that `from` sent so far, to whomever `to` means.
fn bytes(world: &World, from: &str, to: impl Fn(SocketAddr) -> bool) -> usize {
    let from = world.id(from);
    let all = world.trace.capture.iter().flatten().filter(|d| d.from == from && to(d.to));
    all.map(|d| d.bytes.len()).sum()
}

/// Candidates at so many ports of one host.
fn candidates(ip: IpAddr, first: u16, ports: Ports) -> Message {
    let kinds = [CandidateKind::Host, CandidateKind::Reflexive, CandidateKind::Mapped];
    let one = |n: u16| Candidate { kind: kinds[usize::from(n) % 3], at: SocketAddr::new(ip, first + n) };
    Message::Candidates { candidates: (0..12).map(one).collect(), answer: false, ports }
}

#[test]
fn a_third_party_that_a_peer_names_hears_ten_packets() {
    for class in CLASSES {
        let mut world = acquainted(class);
        let victim = world.host("x").address.ip();
        for round in 0..250_u16 {
            let ports = [Ports::Counted(1), Ports::Scattered, Ports::Kept, Ports::Counted(-3)];
            let first = 1024 + round * 64;
            say(&mut world, "m", "a", &candidates(victim, first, ports[usize::from(round) % 4]));
            say(&mut world, "m", "a", &Message::Predicted(Window { ip: victim, first, step: 1, count: 24 }));
            say(&mut world, "m", "a", &Message::GuessOffer { ip: victim });
            say(&mut world, "m", "a", &Message::GuessAgreed);
            world.run_for(TENTH);
        }
        let sprayed = heard(&world, "a", victim);
        assert!((1..=TEN).contains(&sprayed), "{}: {sprayed} packets", class.name());
        assert!(world.host("a").dropped(Drop::BadMessage) > 0);
    }
}

#[test]
fn a_third_party_that_a_peer_wants_connected_to_gets_ten_syns() {
    let mut world = stage(NatClass::PortRestricted);
    let victim = world.host("x").address.ip();
    world.block_udp("a", true);
    world.run_for(SECOND * 60);
    world.stream("a", "m", TENTH, SECOND * 300);
    world.run_until(SECOND * 5, |world| world.is_relayed("a", "m")).expect("by way of a relay");
    world.run_until(SECOND * 5, |world| world.path("m", "a").is_some()).expect("both ways");
    for round in 0..250_u16 {
        for answer in [true, false] {
            let at = SocketAddr::new(victim, 1024 + round);
            say(&mut world, "m", "a", &Message::Cross { at, answer });
        }
        world.run_for(TENTH);
    }
    let syns = world.syns("a", victim);
    assert!((1..=TEN).contains(&syns), "{syns} SYNs");
}

#[test]
fn many_third_parties_hear_little_together() {
    let mut world = acquainted(NatClass::PortRestricted);
    let before = world.traffic("a").out;
    for round in 0..600_u32 {
        let one = |n: u32| {
            let ip = std::net::Ipv4Addr::from(0xc633_6400 + round * 12 + n);
            Candidate { kind: CandidateKind::Host, at: SocketAddr::new(ip.into(), 53) }
        };
        let candidates = (0..12).map(one).collect();
        let ports = Ports::Unknown;
        say(&mut world, "m", "a", &Message::Candidates { candidates, answer: false, ports });
        world.run_for(TENTH);
    }
    let is_third = |to: SocketAddr| to.port() == 53;
    let sprayed = bytes(&world, "a", is_third);
    let from = world.id("a");
    let count = world.trace.capture.iter().flatten().filter(|d| d.from == from && is_third(d.to)).count();
    assert!(count > 0 && count <= 2560, "{count} packets in a minute, {sprayed} bytes");
    assert!(world.traffic("a").out - before < 2_000_000);
}

#[test]
fn a_super_peer_alone_can_not_aim_a_guess() {
    for class in [NatClass::PortRestricted, NatClass::SymmetricSequential, NatClass::SymmetricRandom] {
        let mut world = acquainted(class);
        let victim = world.host("x").address.ip();
        let channels: Vec<Channel> = (0..64).map(Channel).collect();
        let before = world.host("a").dropped(Drop::BadMessage);
        for channel in &channels {
            say(&mut world, "s", "a", &Message::Sighted { channel: *channel, at: Some(victim) });
        }
        world.run_for(SECOND * 30);
        assert_eq!(world.host("a").dropped(Drop::BadMessage) - before, 64, "nobody asked");
        assert_eq!(heard(&world, "a", victim), 0, "{}", class.name());
    }
}

#[test]
fn a_super_peer_says_where_others_are_to_those_who_share_a_channel_with_them() {
    let mut world = acquainted(NatClass::PortRestricted);
    let before = world.host("s").dropped(Drop::UnknownChannel);
    for channel in 0..100 {
        say(&mut world, "m", "s", &Message::Sight { channel: Channel(channel) });
    }
    world.run_for(SECOND);
    assert_eq!(world.host("s").dropped(Drop::UnknownChannel) - before, 100);
    let letter = world.send("m", "s", Kind::Request);
    world.run_for(SECOND);
    assert!(world.answered(letter).is_some());
}

#[test]
fn sockets_are_opened_after_an_offer_only_and_guessed_at_where_ports_are_scattered_only() {
    let mut world = acquainted(NatClass::SymmetricRandom);
    let (ip, seen) = (world.host("m").address.ip(), world.host("m").address);
    let mut most = 0;
    for _ in 0..20 {
        say(&mut world, "m", "a", &candidates(ip, 40_000, Ports::Kept));
        say(&mut world, "m", "a", &Message::GuessAgreed);
        world.run_for(TENTH);
        most = most.max(world.host("a").doors.len());
    }
    assert!(most < 16, "{most} sockets within two seconds: nothing was offered");

    let mut world = acquainted(NatClass::PortRestricted);
    for _ in 0..100 {
        say(&mut world, "m", "a", &candidates(ip, 40_000, Ports::Kept));
        say(&mut world, "m", "a", &Message::GuessOffer { ip });
        world.run_for(TENTH);
    }
    let places: std::collections::BTreeSet<SocketAddr> = (world.trace.capture.iter().flatten())
        .filter(|d| d.from == world.id("a") && d.to.ip() == ip && d.to != seen)
        .map(|d| d.to)
        .collect();
    // Ten that its candidates name, and one for each round of a meeting of fresh sockets, which says where they are seen.
    assert!(places.len() <= 22, "{} ports of somebody who keeps its own", places.len());
}

/// A datagram that `from` seals for `to`, and keeps.
fn sealed(world: &mut World, from: &str, to: &str) -> Vec<u8> {
    let (destination, packet) = packet(world, from, to, &Message::Probe { token: 7 });
    let id = world.id(from);
    let deeds = world.hosts[id.0].forwarding.seal_unchecked(destination, &packet);
    let sent = deeds.into_iter().find_map(|deed| match deed {
        Deed::Send(_, bytes) | Deed::SendNear(_, bytes, _) => Some(bytes),
        Deed::Tun(_) | Deed::Ask(_) => None,
    });
    sent.expect("a session")
}

#[test]
fn a_relay_is_not_aimed_by_a_forged_source() {
    let mut world = acquainted(NatClass::SymmetricRandom);
    let relay = world.path("a", "m").expect("a path").via.expect("relayed");
    let place = world.path(&relay, "m").map(|path| path.locator);
    let x = world.host("x").address;
    let forged: Vec<SocketAddr> =
        ["127.0.0.1:53", "10.0.0.1:53", "192.168.1.1:80"].iter().map(|at| at.parse().unwrap()).collect();
    let begun = world.now();
    for _ in 0..40 {
        for from in forged.iter().chain([&x]) {
            let bytes = sealed(&mut world, "m", &relay);
            world.receive(world.id(&relay), *from, &bytes);
        }
        world.run_for(TENTH);
        assert_eq!(world.path(&relay, "m").map(|path| path.locator), place);
    }
    let id = world.id(&relay);
    for at in forged.iter().chain([&x]) {
        let all = world.trace.capture.iter().flatten();
        let sent: Vec<_> = all.filter(|d| d.from == id && d.to == *at && d.at >= begun).collect();
        assert!(sent.iter().all(|d| d.bytes[0] != wire::RELAY), "relayed to {at}");
        // An answer and a probe for each that came, as small as they.
        assert!(sent.len() <= 80, "{} to {at}", sent.len());
    }
    let letter = world.send("a", "m", Kind::Request);
    world.run_for(SECOND);
    assert!(world.answered(letter).is_some());
}

#[test]
fn a_frame_goes_round_no_loop_of_relays() {
    let mut world = stage(NatClass::Open);
    // Super peers have tunnels with each other; m opens the same channel at both, each with the other.
    let channel = Channel(0x600d);
    for (at, with) in [("s", "t"), ("t", "s")] {
        let letter = world.send("m", at, Kind::Request);
        world.run_for(SECOND);
        assert!(world.answered(letter).is_some());
        let with = world.peer(at, with).expect("super peers know each other").passport.node;
        say(&mut world, "m", at, &Message::Channel { channel, with });
    }
    world.run_for(SECOND);
    let inner = sealed(&mut world, "m", "s");
    let frame = [&wire::relay_header(channel)[..], &inner].concat();
    let to = world.host("s").address;
    for _ in 0..50 {
        world.transmit(world.id("m"), to, &frame);
    }
    world.run_for(SECOND * 5);
    let header = wire::relay_header(channel);
    let frames = world.trace.capture.iter().flatten().filter(|d| d.bytes.starts_with(&header)).count();
    assert_eq!(frames, 150, "from m to s, to t, and to the other end there: who opened the channel");
}

/// One of everything that may be said too often.
fn chatter(round: u32, to: SocketAddr) -> Vec<Message> {
    let token = u64::from(round);
    let transaction = [round as u8; 12];
    vec![
        Message::Moved { token },
        Message::Probe { token },
        candidates(to.ip(), 40_000 + (round % 1000) as u16, Ports::Counted(1)),
        Message::Predicted(Window { ip: to.ip(), first: round as u16, step: 7, count: 24 }),
        Message::GuessOffer { ip: to.ip() },
        Message::Load { nodes: round as u16, mbits: 0 },
        Message::Reflect { transaction, to, avoid: Vec::new() },
        Message::ReflectFor { errand: Errand::plain(transaction), to },
        Message::SuperPeers,
        Message::Sight { channel: Channel(token) },
        Message::Lookup { id: round, subject: frejus_overlay::id::Subject::Name(format!("n{round}")) },
    ]
}

#[test]
fn a_member_that_floods_is_answered_in_proportion_and_disturbs_nobody() {
    let mut world = acquainted(NatClass::PortRestricted);
    let letter = world.send("m", "s", Kind::Request);
    world.run_for(SECOND);
    assert!(world.answered(letter).is_some());
    let stream = world.stream("a", "b", TENTH, SECOND * 40);
    world.run_for(SECOND * 2);
    let (begun, own) = (world.now(), world.host("m").address);
    let is_m = |to: SocketAddr| to == own;
    let sent = |world: &World| bytes(world, "m", |_| true);
    let others = |world: &World, name: &str| bytes(world, name, |to| to != own);
    let (m, a, s) = (sent(&world), others(&world, "a"), bytes(&world, "s", is_m));
    for round in 0..2000 {
        for message in chatter(round, own) {
            say(&mut world, "m", "a", &message);
            say(&mut world, "m", "s", &message);
        }
        world.run_for(Duration::from_millis(10));
    }
    let (spent, from_a, from_s) = (sent(&world) - m, others(&world, "a") - a, bytes(&world, "s", is_m) - s);
    assert!(from_s <= 2 * spent, "{from_s} bytes for {spent}");
    assert!(from_a <= 2 * spent, "{from_a} bytes for {spent}");
    assert!(world.host("s").dropped(Drop::RateLimited) > 1000, "{:?}", world.host("s").drops());
    assert!(world.host("a").doors.len() < 16 && world.host("s").doors.len() < 16);
    world.run_for(SECOND * 5);
    assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0);
}
