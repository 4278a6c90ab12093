//! Members gone bad, strangers with captured packets, and noise.

use std::net::SocketAddr;
use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::tunnel::OVERHEAD;
use frejus_overlay::verdict::Drop;
use frejus_overlay::wire::{self, control};
use frejus_sim::app::{self, Kind, Letter};
use frejus_sim::internet::HostId;
use frejus_sim::scenario::Scenario;
use frejus_sim::trace::Captured;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// Two honest homes, a member `m` on the public Internet, and a stranger `x` who is no member at all.
fn stage(seed: u64) -> World {
    let mut world = Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
        .home("m", NatClass::Open)
        .home("x", NatClass::Open)
        .newcomer()
        .build();
    world.trace.capture = Some(Vec::new());
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world
}

fn captured(world: &World, wanted: impl Fn(&Captured) -> bool) -> Vec<Captured> {
    world.trace.capture.iter().flatten().filter(|datagram| wanted(datagram)).cloned().collect()
}

/// Traffic between the honest still flows.
fn assert_unharmed(world: &mut World) {
    let (there, back) = (world.send("a", "b", Kind::Request), world.send("b", "a", Kind::Request));
    world.run_for(SECOND);
    assert!(world.answered(there).is_some() && world.answered(back).is_some());
}

/// Bytes that `to` sent to this address.
fn bytes_to(world: &World, from: HostId, to: SocketAddr) -> usize {
    captured(world, |d| d.from == from && d.to == to).iter().map(|d| d.bytes.len()).sum()
}

#[test]
fn an_inner_source_that_is_not_the_senders_is_dropped_and_counted() {
    for seed in 1..=3 {
        let mut world = stage(seed);
        let letter = world.send("m", "b", Kind::Request);
        world.run_for(SECOND);
        assert!(world.answered(letter).is_some());
        for (count, six) in [(1, false), (2, true)] {
            let address = |world: &World, name: &str| world.host(name).virtual_address(six);
            let (source, destination) = (address(&world, "a"), address(&world, "b"));
            let forged = app::write(&Letter { source, destination, kind: Kind::Note, number: 666 }, 0);
            world.forge(world.id("m"), destination, &forged);
            world.run_for(SECOND);
            assert_eq!(world.host("b").dropped(Drop::SpoofedSource), count);
        }
        let (source, destination) =
            (world.host("m").virtual_address(false), world.host("a").virtual_address(false));
        let strayed = app::write(&Letter { source, destination, kind: Kind::Note, number: 667 }, 0);
        world.forge(world.id("m"), world.host("b").virtual_address(false), &strayed);
        world.run_for(SECOND);
        assert_eq!(world.host("b").dropped(Drop::ForeignDestination), 1);
        assert!(world.host("b").mail.arrived(Kind::Note, 666).is_none());
        assert!(world.host("a").mail.arrived(Kind::Note, 667).is_none());
    }
}

#[test]
fn an_application_can_not_send_in_anothers_name() {
    let mut world = stage(1);
    let (source, destination) =
        (world.host("b").virtual_address(false), world.host("m").virtual_address(false));
    let packet = app::write(&Letter { source, destination, kind: Kind::Note, number: 668 }, 0);
    world.from_tun(world.id("a"), &packet);
    world.run_for(SECOND);
    assert_eq!(world.host("a").dropped(Drop::ForeignSource), 1);
    assert!(world.host("m").mail.arrived(Kind::Note, 668).is_none());
}

#[test]
fn a_channel_serves_its_two_ends_only() {
    let scenario = Scenario::new(1).super_peer("s").home("a", NatClass::SymmetricRandom);
    let mut world = scenario
        .home("b", NatClass::SymmetricRandom)
        .home("m", NatClass::Open)
        .home("x", NatClass::Open)
        .newcomer()
        .build();
    world.trace.capture = Some(Vec::new());
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let letter = world.send("a", "b", Kind::Request);
    // Until nobody is active any more: no probe of theirs is to be counted below.
    world.run_for(SECOND * 8);
    assert!(world.answered(letter).is_some() && world.is_relayed("a", "b"));
    let a = world.id("a");
    let frames = captured(&world, |d| d.from == a && d.bytes.starts_with(&[wire::RELAY]));
    let frame = frames.last().expect("a relayed frame").clone();
    let (relayed, received) = (world.relayed("s"), world.traffic("b").inward);
    for thief in ["m", "x"] {
        world.transmit(world.id(thief), frame.to, &frame.bytes);
    }
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.host("s").dropped(Drop::WrongChannelEnd), 2);
    assert_eq!(world.relayed("s"), relayed);
    assert_eq!(world.traffic("b").inward, received, "nothing reached the other end");
    let mut nested = wire::relay_header(frejus_overlay::locator::Channel(99)).to_vec();
    nested.extend(&frame.bytes);
    world.transmit(world.id("m"), frame.to, &nested);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.host("s").dropped(Drop::UnknownFrame), 1, "no frame in a frame");
    assert_unharmed(&mut world);
}

#[test]
fn replayed_knocks_and_handshakes_change_nothing() {
    for seed in 1..=3 {
        let mut world = stage(seed);
        let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 60);
        world.run_for(SECOND * 10);
        let before = world.now();
        let all = captured(&world, |_| true);
        let x = world.id("x");
        let handshakes: Vec<_> = all.iter().filter(|d| matches!(d.bytes[0], 1 | 2 | wire::KNOCK)).collect();
        assert!(handshakes.len() >= 6);
        let paths =
            |world: &World| ["a", "b", "m"].map(|name| world.path("s", name).map(|path| path.locator));
        let were = paths(&world);
        for datagram in &handshakes {
            world.transmit(x, datagram.to, &datagram.bytes);
            world.run_for(Duration::from_millis(10));
        }
        world.run_for(SECOND * 20);
        assert_eq!(paths(&world), were);
        let spent: usize = handshakes.iter().map(|d| d.bytes.len()).sum();
        let address = world.host("x").address;
        let earned: usize = ["s", "m"].iter().map(|name| bytes_to(&world, world.id(name), address)).sum();
        assert!(earned <= spent, "{earned} bytes for {spent}");
        assert_eq!(world.unanswered(stream, before, world.now() - SECOND), 0);
        assert!(world.is_direct("a", "b"));
    }
}

#[test]
fn replayed_data_is_delivered_once_and_moves_no_path() {
    for seed in 1..=3 {
        let mut world = stage(seed);
        let letters: Vec<u64> = (0..20).map(|_| world.send("a", "m", Kind::Request)).collect();
        world.run_for(SECOND * 5);
        assert!(letters.iter().all(|letter| world.answered(*letter).is_some()));
        let (x, m, at) = (world.id("x"), world.id("m"), world.host("m").address);
        let path = world.path("m", "a").map(|path| path.locator);
        let refused = world.host("m").dropped(Drop::Duplicate);
        let data = captured(&world, |d| d.to == at && d.bytes[0] == 4);
        for datagram in &data {
            world.transmit(x, at, &datagram.bytes);
        }
        // And from the right address, as a neighbour on the path could.
        let from = world.path("m", "a").expect("a path").locator.remote();
        for datagram in &data {
            world.receive(m, from, &datagram.bytes);
        }
        world.run_for(SECOND * 5);
        assert_eq!(world.duplicates(), 0);
        assert_eq!(world.path("m", "a").map(|path| path.locator), path);
        assert!(world.host("m").dropped(Drop::Duplicate) - refused >= data.len() as u64);
        assert_unharmed(&mut world);
    }
}

#[test]
fn hints_from_anybody_cost_a_handshake_at_most() {
    let mut world = stage(1);
    let stream = world.stream("a", "m", Duration::from_millis(50), SECOND * 30);
    world.run_for(SECOND * 5);
    let begun = world.now();
    let (m, from) = (world.id("m"), world.path("m", "a").expect("a path").locator.remote());
    for _ in 0..500 {
        world.receive(m, from, &wire::frame(wire::STRANGER, &[]));
        world.run_for(Duration::from_millis(10));
    }
    let sent = captured(&world, |d| d.from == m && d.to == from && d.at >= begun);
    let handshakes = sent.iter().filter(|d| matches!(d.bytes[0], 1 | wire::KNOCK)).count();
    assert!(handshakes <= 20, "{handshakes} datagrams for five seconds of lies");
    world.run_for(SECOND * 2);
    assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0);
}

/// Noise with a plausible beginning, and captured datagrams, cut or altered.
fn noise(world: &mut World, seen: &[Captured]) -> Vec<u8> {
    let dice = world.dice();
    let mut bytes = match dice.below(3) {
        0 => {
            let size =
                [1, 3, 4, 15, 16, 20, 31, 32, 64, 92, 148, 1452, 9000, 65_507][dice.below(14) as usize];
            let mut bytes = vec![0; size];
            dice.fill(&mut bytes);
            bytes
        }
        _ => seen[dice.below(seen.len() as u64) as usize].bytes.clone(),
    };
    match dice.below(4) {
        0 => bytes.truncate(dice.below(bytes.len() as u64 + 1) as usize),
        1 => {
            let begin = [[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0], [4, 0, 0, 0]];
            let ours = [0x10_u8, 0x11, 0x12, 0x13, 0x14].map(|kind| [kind, 1, 0, 0]);
            let begin = [&begin[..], &ours[..]].concat();
            let head = begin[dice.below(begin.len() as u64) as usize];
            bytes.splice(..4.min(bytes.len()), head);
        }
        _ => {
            for _ in 0..=dice.below(4) {
                if !bytes.is_empty() {
                    let at = dice.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn noise_on_every_port_breaks_nothing() {
    for seed in 1..=3 {
        let mut world = stage(seed);
        let stream = world.stream("a", "b", Duration::from_millis(100), SECOND * 60);
        world.run_for(SECOND * 5);
        let begun = world.now();
        let seen = captured(&world, |_| true);
        let hosts = ["s", "a", "b", "m"].map(|name| world.id(name));
        let sources: Vec<SocketAddr> = seen.iter().map(|d| d.to).collect();
        for round in 0..3000 {
            let bytes = noise(&mut world, &seen);
            let to = hosts[round % hosts.len()];
            let from = sources[world.dice().below(sources.len() as u64) as usize];
            world.receive(to, from, &bytes);
            if round % 50 == 0 {
                world.run_for(Duration::from_millis(20));
            }
        }
        world.run_for(SECOND * 5);
        assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0);
        assert_unharmed(&mut world);
    }
}

#[test]
fn a_member_that_talks_nonsense_inside_the_tunnel_is_ignored() {
    for seed in 1..=3 {
        let mut world = stage(seed);
        let letter = world.send("m", "b", Kind::Request);
        world.run_for(SECOND);
        assert!(world.answered(letter).is_some());
        let before: u64 = ["s", "b"].iter().map(|name| world.host(name).dropped(Drop::BadMessage)).sum();
        for round in 0..1000 {
            let to = if round % 2 == 0 { "s" } else { "b" };
            let destination = world.host(to).virtual_address(true);
            let (std::net::IpAddr::V6(source), std::net::IpAddr::V6(own)) =
                (world.host("m").virtual_address(true), destination)
            else {
                panic!("asked for IPv6");
            };
            let mut payload = vec![0; 1 + world.dice().below(200) as usize];
            world.dice().fill(&mut payload);
            payload[0] = u8::from(round % 5 != 0);
            if let Some(kind) = payload.get_mut(1) {
                *kind %= 18;
            }
            let (source_port, destination_port) = (control::PORT, control::PORT);
            let datagram =
                Udp6 { source, destination: own, source_port, destination_port, payload: &payload };
            let mut packet = vec![0; 48 + payload.len() + OVERHEAD];
            let length = datagram.write(&mut packet).expect("room for it");
            world.forge(world.id("m"), destination, &packet[..length]);
            world.run_for(Duration::from_millis(5));
        }
        world.run_for(SECOND * 5);
        let after: u64 = ["s", "b"].iter().map(|name| world.host(name).dropped(Drop::BadMessage)).sum();
        assert!(after - before >= 300, "{} refused", after - before);
        assert_unharmed(&mut world);
        let letter = world.send("m", "b", Kind::Request);
        world.run_for(SECOND * 3);
        assert!(world.answered(letter).is_some(), "and forgiven");
    }
}

#[test]
fn packets_for_a_peer_that_is_off_wait_in_a_bounded_queue() {
    let mut world = stage(1);
    let b = world.id("b");
    world.kill(b);
    world.run_for(SECOND);
    for _ in 0..1000 {
        world.send("a", "b", Kind::Note);
    }
    world.run_for(SECOND * 60);
    let host = world.host("a");
    let reasons = [Drop::BacklogFull, Drop::Unreachable, Drop::Unresolved];
    let dropped: u64 = reasons.iter().map(|reason| host.dropped(*reason)).sum();
    assert_eq!(dropped, 1000, "every packet's fate is counted: {:?}", host.drops());
    let waited = frejus_overlay::limits::BACKLOG as u64;
    assert_eq!(host.dropped(Drop::BacklogFull), 1000 - waited);
    assert!(host.mail.strange > 0, "the sender is told by ICMP");
}

#[test]
fn nobody_holds_an_unknown_address() {
    let mut world = stage(1);
    let source = world.host("a").virtual_address(false);
    for last in 1..=200 {
        let destination = std::net::Ipv4Addr::new(10, 77, 255, last).into();
        let packet =
            app::write(&Letter { source, destination, kind: Kind::Note, number: u64::from(last) }, 0);
        world.from_tun(world.id("a"), &packet);
    }
    world.run_for(SECOND * 20);
    assert_eq!(world.host("a").dropped(Drop::Unresolved), 200, "{:?}", world.host("a").drops());
    assert_unharmed(&mut world);
}
