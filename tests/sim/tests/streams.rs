//! Where UDP does not pass, TCP does; where it passes again, it is used again.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::node::Method;
use frejus_overlay::stream::{Carrier, Reach};
use frejus_sim::app::Kind;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn homes(seed: u64) -> Scenario {
    Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
}

/// What carries the path from one host to the other; `None` if there is none.
fn carrier(world: &World, from: &str, to: &str) -> Option<Option<Carrier>> {
    Some(world.path(from, to)?.carrier)
}

fn reach(world: &World, of: &str) -> Reach {
    world.host(of).node.as_ref().expect("it runs").reachability()
}

#[test]
fn a_node_without_udp_is_ready_within_three_seconds() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.block_udp("a", true);
        let took = world.run_until(SECOND * 10, World::all_ready).expect("ready");
        assert!(took <= SECOND * 3, "{took:?}");
        assert_eq!(carrier(&world, "a", "s"), Some(Some(Carrier::Tcp)));
        assert_eq!(carrier(&world, "s", "a"), Some(Some(Carrier::Tcp)));
        assert_eq!(carrier(&world, "b", "s"), Some(None));
        let heard = Reach { udp: Some(false), tcp: Some(true), tls443: None };
        assert_eq!(reach(&world, "a"), heard);
        assert_eq!(reach(&world, "b").udp, Some(true));
        for (from, to) in [("a", "b"), ("b", "a"), ("a", "s"), ("s", "a")] {
            let letter = world.send(from, to, Kind::Request);
            world.run_until(SECOND * 3, |w| w.answered(letter).is_some()).expect("an answer");
        }
        assert_eq!(carrier(&world, "a", "b"), Some(Some(Carrier::Tcp)), "through the relay");
        assert!(world.is_relayed("a", "b"));
        world.run_for(SECOND * 60);
        assert_eq!(world.connections("s"), 1, "one is enough, and it stays");
    }
}

#[test]
fn a_node_without_udp_dials_public_peers() {
    for seed in SEEDS {
        let mut world = homes(seed).home("p", NatClass::Open).build();
        world.block_udp("a", true);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        let stream = world.stream("a", "p", Duration::from_millis(50), SECOND * 20);
        world.run_until(SECOND * 5, |w| w.is_direct("a", "p") && w.is_direct("p", "a")).expect("direct");
        assert_eq!(carrier(&world, "a", "p"), Some(Some(Carrier::Tcp)));
        world.run_for(SECOND * 25);
        assert!(world.answers_of(stream).iter().all(|(_, answer)| answer.is_some()), "nothing is lost");
        assert!(world.is_direct("a", "p"), "it stays");
    }
}

#[test]
fn a_public_node_without_udp_is_dialled_by_its_peers() {
    for seed in SEEDS {
        let mut world = homes(seed).home("p", NatClass::Open).build();
        world.block_udp("p", true);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        for (from, to) in [("a", "p"), ("p", "b")] {
            let stream = world.stream(from, to, Duration::from_millis(50), SECOND * 20);
            let begun = world.now();
            let direct = |w: &World| w.is_direct(from, to) && w.is_direct(to, from);
            world.run_until(SECOND * 5, direct).expect("direct");
            assert_eq!(carrier(&world, from, to), Some(Some(Carrier::Tcp)));
            let (other, method) = if from == "p" { (to, Method::Public) } else { (from, Method::Public) };
            assert_eq!(world.path(other, "p").map(|path| path.method), Some(method), "{from} to {to}");
            world.run_for(SECOND * 15);
            assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0, "nothing is lost");
            assert!(world.is_direct(from, to), "it stays");
        }
    }
}

/// Two homes without UDP, or one.
fn without_udp(seed: u64, classes: [NatClass; 2], blocked: &[&str]) -> World {
    let [a, b] = classes;
    let scenario = Scenario::new(seed).super_peer("s").super_peer("t");
    let mut world = scenario.home("a", a).home("b", b).build();
    blocked.iter().for_each(|host| world.block_udp(host, true));
    world.run_until(SECOND * 20, World::all_ready).expect("ready");
    world
}

#[test]
fn two_nodes_that_can_not_be_dialled_connect_to_each_other_at_once() {
    use NatClass::{AddressRestricted, Firewalled, FullCone, PortRestricted};
    for seed in SEEDS {
        for (classes, blocked) in [
            ([PortRestricted, PortRestricted], &["a", "b"][..]),
            ([PortRestricted, PortRestricted], &["a"]),
            ([PortRestricted, PortRestricted], &["b"]),
            ([FullCone, PortRestricted], &["a", "b"]),
            ([AddressRestricted, Firewalled], &["a", "b"]),
        ] {
            let mut world = without_udp(seed, classes, blocked);
            let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 40);
            let begun = world.now();
            let direct = |w: &World| w.is_direct("a", "b") && w.is_direct("b", "a");
            let took = world.run_until(SECOND * 5, direct);
            let took = took.unwrap_or_else(|| panic!("seed {seed}, {classes:?}, {blocked:?}: relayed"));
            for (from, to) in [("a", "b"), ("b", "a")] {
                let path = world.path(from, to).expect("a path");
                assert_eq!((path.carrier, path.method), (Some(Carrier::Tcp), Method::Punched));
            }
            world.run_for(SECOND * 30);
            assert!(direct(&world), "it stays");
            let lost = world.unanswered(stream, begun, world.now() - SECOND);
            assert_eq!(lost, 0, "{classes:?}, {blocked:?}, direct after {took:?}");
        }
    }
}

#[test]
fn symmetric_nats_are_not_crossed_and_the_relay_serves() {
    for class in [NatClass::SymmetricRandom, NatClass::SymmetricSequential] {
        let mut world = without_udp(1, [class, NatClass::PortRestricted], &["a", "b"]);
        let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 60);
        world.run_for(SECOND * 60);
        assert!(world.is_relayed("a", "b"), "{}", class.name());
        let outer = world.host("b").address.ip();
        assert_eq!(world.syns("a", outer), 0);
        assert_eq!(world.unanswered(stream, world.now() - SECOND * 50, world.now() - SECOND), 0);
        assert!(world.connections("a") <= 3, "{} connections", world.connections("a"));
    }
}

#[test]
fn a_crossed_stream_gives_way_to_udp() {
    for seed in SEEDS {
        let mut world = without_udp(seed, [NatClass::PortRestricted; 2], &["a", "b"]);
        let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 300);
        world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
        let free = world.now();
        world.block_udp("a", false);
        world.block_udp("b", false);
        world.run_until(SECOND * 90, |w| carrier(w, "a", "b") == Some(None)).expect("UDP again");
        world.run_for(SECOND * 100);
        assert_eq!(carrier(&world, "a", "b"), Some(None));
        assert_eq!(world.unanswered(stream, free, world.now() - SECOND), 0);
        assert_eq!(world.connections("a"), 0, "no stream is needed any more");
    }
}

#[test]
fn failover_to_tcp_and_back() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        assert_eq!(carrier(&world, "a", "s"), Some(None));
        let stream = world.stream("a", "s", Duration::from_millis(50), SECOND * 200);
        let moment = Duration::from_millis(world.dice().below(3000));
        world.run_for(SECOND * 3 + moment);

        let blocked = world.now();
        world.block_udp("a", true);
        world.run_for(SECOND * 10);
        let gap = world.answered_again(stream, blocked).expect("it works again").since(blocked);
        assert!(gap <= SECOND * 6, "{gap:?}");
        assert_eq!(carrier(&world, "a", "s"), Some(Some(Carrier::Tcp)));
        assert_eq!(world.unanswered(stream, blocked + SECOND * 6, world.now() - SECOND), 0);

        let free = world.now();
        world.block_udp("a", false);
        let again = world.run_until(SECOND * 60, |w| carrier(w, "a", "s") == Some(None)).expect("UDP again");
        println!("seed {seed}: UDP blocked → TCP {gap:?}; free → UDP {again:?}");
        world.run_for(SECOND * 100);
        assert_eq!(
            world.unanswered(stream, free, world.now() - SECOND),
            0,
            "nothing is lost on the way back"
        );
        assert_eq!(carrier(&world, "s", "a"), Some(None));
        assert_eq!(world.connections("a"), 0, "the stream is not needed any more");
    }
}

#[test]
fn udp_that_comes_and_goes_does_not_make_paths_swing() {
    let mut world = homes(1).build();
    world.block_udp("a", true);
    world.run_until(SECOND * 10, World::all_ready).expect("ready");
    let (mut switches, mut last) = (0, carrier(&world, "a", "s"));
    let minutes = 20;
    for second in 0..minutes * 60 {
        // Ten seconds of UDP in each half minute.
        world.block_udp("a", second % 30 >= 10);
        world.run_for(SECOND);
        let now = carrier(&world, "a", "s").or(last);
        switches += u64::from(now != last);
        last = now;
    }
    println!("{switches} switches in {minutes} minutes");
    assert!(switches < minutes, "less than one a minute");
}

#[test]
fn a_stream_that_breaks_is_made_anew() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.block_udp("a", true);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        let s = world.id("s");
        world.kill(s);
        world.run_for(SECOND * 5);
        world.start(s);
        // Until the other home has noticed too: it is idle, and asks every 24 seconds.
        world.run_for(SECOND * 60);
        assert!(world.all_ready());
        let letter = world.send("a", "b", Kind::Request);
        world.run_until(SECOND * 5, |w| w.answered(letter).is_some()).expect("an answer");
    }
}

#[test]
fn the_class_follows_what_becomes_of_udp() {
    let class = |world: &World| world.status("a").map(|status| status.nat);
    for seed in SEEDS {
        let stage = ["s", "t", "u"].into_iter().fold(Scenario::new(seed), Scenario::super_peer);
        let mut world = stage.home("a", NatClass::PortRestricted).build();
        world.block_udp("a", true);
        world.run_until(SECOND * 30, |w| class(w) == Some(NatClass::UdpBlocked)).expect("blocked");
        world.run_for(SECOND * 10);
        for (blocked, expected) in [(false, NatClass::PortRestricted), (true, NatClass::UdpBlocked)] {
            world.block_udp("a", blocked);
            let took =
                world.run_until(SECOND * 120, |w| class(w) == Some(expected)).expect("the class is found");
            println!("seed {seed}: {expected:?} after {took:?}");
            world.run_for(SECOND * 120);
            assert_eq!(class(&world), Some(expected), "and stays");
        }
    }
}
