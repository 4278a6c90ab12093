//! Whole networks whose bulk travels under transport keys: loss, reordering, restarts, and nodes that want none.

use std::collections::BTreeSet;
use std::time::Duration;

use frejus_overlay::agreement::is_transport;
use frejus_overlay::document::NatClass;
use frejus_overlay::tunnel::OVERHEAD;
use frejus_overlay::verdict::Drop;
use frejus_overlay::wire::{self, Frame, Wireguard};
use frejus_sim::app::Kind;
use frejus_sim::keys::Policy;
use frejus_sim::link::{Quality, WAN};
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn homes(seed: u64) -> Scenario {
    Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
}

/// With what each of two hosts does about transport keys.
fn with_policies(seed: u64, a: Policy, b: Policy) -> World {
    let mut world = Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .later()
        .home("b", NatClass::PortRestricted)
        .later()
        .build();
    for (name, policy) in [("a", a), ("b", b)] {
        let id = world.id(name);
        world.hosts[id.0].policy = policy;
        world.start(id);
    }
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world
}

fn is_keyed(world: &World, one: &str, other: &str) -> bool {
    let keyed = |from, to| {
        let protection = world.peer(from, to).and_then(|peer| peer.protection);
        protection.is_some_and(|protection| protection.post_quantum)
    };
    keyed(one, other) && keyed(other, one)
}

/// Receiver indices of all data messages that were sent so far, transport keys' or WireGuard's.
fn receivers(world: &World, keyed: bool) -> BTreeSet<u32> {
    let receiver = |bytes: &[u8]| match wire::classify(bytes) {
        Some(Frame::Wireguard(Wireguard::Data(receiver))) => Some(receiver),
        Some(Frame::Relay(_, inner)) => match wire::classify(inner) {
            Some(Frame::Wireguard(Wireguard::Data(receiver))) => Some(receiver),
            _ => None,
        },
        _ => None,
    };
    let all = world.trace.capture.iter().flatten().filter_map(|datagram| receiver(&datagram.bytes));
    all.filter(|receiver| is_transport(*receiver) == keyed).collect()
}

fn dropped(world: &World, name: &str, reason: Drop) -> u64 {
    world.host(name).forwarding.counters.dropped(reason)
}

#[test]
fn everybody_has_keys_soon_and_the_first_packets_are_not_lost_for_it() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let stream = world.stream("a", "b", TICK, SECOND * 5);
        let keyed = world.run_until(SECOND, |world| is_keyed(world, "a", "b")).expect("keys");
        println!("seed {seed}: keys {keyed:?} after the first packet, through the relay");
        assert!(keyed <= Duration::from_millis(500), "{keyed:?}");
        world.run_for(SECOND * 5);
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
        assert!(is_keyed(&world, "a", "s") && is_keyed(&world, "b", "s"));
    }
}

#[test]
fn nothing_is_lost_when_keys_change_though_a_fifth_of_all_overtakes() {
    for seed in SEEDS {
        let mut world = homes(seed).links(Quality { reorder: 0.2, ..WAN }).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        world.run_until(SECOND * 2, |world| world.peer("a", "s").is_some()).expect("a session");
        let stream = world.stream("a", "b", TICK, SECOND * 400);
        world.run_until(SECOND * 10, |world| is_keyed(world, "a", "b")).expect("keys");
        world.trace.capture = Some(Vec::new());
        let begun = world.now();
        world.run_for(SECOND * 390);
        assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0, "seed {seed}");
        let keys = receivers(&world, true).len();
        assert!(keys >= 2 * 4, "seed {seed}: {keys} keys in 390 s, two directions, one change in 120 s");
    }
}

#[test]
fn keys_change_under_30_percent_loss() {
    let mut without = 0;
    for seed in SEEDS {
        let mut world = homes(seed).links(Quality { loss: 0.3, ..WAN }).build();
        world.run_until(SECOND * 60, World::all_ready).expect("ready");
        let stream = world.stream("a", "b", TICK, SECOND * 700);
        world.run_until(SECOND * 60, |world| is_keyed(world, "a", "b")).expect("keys");
        let begun = world.now();
        for _ in 0..600 {
            world.run_for(SECOND);
            without += u32::from(!is_keyed(&world, "a", "b"));
        }
        // Over the relay a request and its answer cross eight lossy links: one in 17 comes back at the worst.
        let answers = world.answers_of(stream);
        let answered: Vec<_> =
            answers.iter().filter(|(at, took)| *at >= begun && took.is_some()).map(|(at, _)| *at).collect();
        let gap = answered.windows(2).map(|two| two[1].since(two[0])).max().expect("answers");
        println!("seed {seed}: longest silence {gap:?}");
        assert!(gap < SECOND * 5, "seed {seed}: no answer for {gap:?}");
    }
    println!("without keys {without} s of 3000");
    assert!(without < 300, "under WireGuard's keys for {without} s of 3000");
}

#[test]
fn a_side_that_restarts_is_talked_to_again_as_soon_as_a_session_stands() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        world.run_until(SECOND * 5, |world| is_keyed(world, "a", "b")).expect("keys");
        world.run_for(SECOND * 5);
        let b = world.id("b");
        world.kill(b);
        world.run_for(SECOND);
        world.start(b);
        let started = world.now();
        world.run_until(SECOND * 20, |world| is_keyed(world, "a", "b")).expect("keys again");
        world.run_for(SECOND * 5);
        let again = world.answered_again(stream, started).expect("it is answered").since(started);
        println!("seed {seed}: answered {again:?} after the start");
        assert!(again <= SECOND * 3, "seed {seed}: {again:?}");
        assert_eq!(
            world.unanswered(stream, started + again, world.now() - SECOND),
            0,
            "seed {seed}: for good"
        );
    }
}

#[test]
fn both_may_begin_at_the_same_moment() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let there = world.stream("a", "b", TICK, SECOND * 300);
        let back = world.stream("b", "a", TICK, SECOND * 300);
        world.run_until(SECOND * 2, |world| is_keyed(world, "a", "b")).expect("keys");
        world.run_for(SECOND * 299);
        let until = world.now() - SECOND;
        assert_eq!(
            world.unanswered(there, begun, until) + world.unanswered(back, begun, until),
            0,
            "seed {seed}"
        );
        assert!(is_keyed(&world, "a", "b"));
    }
}

#[test]
fn who_insists_gets_keys_before_the_first_packet_leaves() {
    const SIZE: usize = 777;
    for seed in SEEDS {
        let mut world = with_policies(seed, Policy::Require, Policy::Prefer);
        world.trace.capture = Some(Vec::new());
        let letter = world.send_sized("a", "b", Kind::Request, SIZE, false);
        world.run_until(SECOND * 2, |world| world.answered(letter).is_some()).expect("an answer");
        let a = world.id("a");
        let mut seen = 0;
        for datagram in world.trace.capture.iter().flatten().filter(|datagram| datagram.from == a) {
            let inner = match wire::classify(&datagram.bytes) {
                Some(Frame::Relay(_, inner)) => inner,
                _ => &datagram.bytes,
            };
            if inner.len() == SIZE + OVERHEAD {
                let Some(Frame::Wireguard(Wireguard::Data(receiver))) = wire::classify(inner) else {
                    panic!()
                };
                assert!(is_transport(receiver), "seed {seed}: data under WireGuard's keys");
                seen += 1;
            }
        }
        assert!(seen > 0, "the letter left");
        assert_eq!(dropped(&world, "a", Drop::NoTransportKeys), 0);
    }
}

#[test]
fn who_insists_tells_why_nothing_arrives_from_a_node_without_keys() {
    for seed in SEEDS {
        let mut world = with_policies(seed, Policy::Require, Policy::Wireguard);
        let letters = [world.send("a", "b", Kind::Request), world.send("b", "a", Kind::Request)];
        world.run_for(SECOND * 12);
        let again = world.send("a", "b", Kind::Request);
        world.run_for(SECOND);
        assert!(letters.into_iter().chain([again]).all(|letter| world.took(letter).is_none()));
        assert!(dropped(&world, "a", Drop::NoTransportKeys) >= 2, "out");
        assert!(dropped(&world, "a", Drop::WireguardKeys) >= 1, "in");
        let attention = world.status("a").expect("it runs").attention;
        assert!(attention.iter().any(|(what, _)| what.contains("transport keys") && what.contains('b')));
        assert_eq!(world.peer("a", "b").and_then(|peer| peer.protection), None);
    }
}

#[test]
fn a_node_without_keys_talks_to_everybody_else_as_before() {
    for seed in SEEDS {
        let mut world = with_policies(seed, Policy::Prefer, Policy::Wireguard);
        world.trace.capture = Some(Vec::new());
        let begun = world.now();
        let stream = world.stream("a", "b", TICK, SECOND * 140);
        world.run_for(SECOND * 140);
        assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0);
        let protection = world.peer("a", "b").and_then(|peer| peer.protection);
        assert!(protection.is_some_and(|protection| !protection.post_quantum));
    }
}
