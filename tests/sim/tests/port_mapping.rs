//! Ports that routers open: what nobody can punch is direct.

use std::time::Duration;

use frejus_overlay::document::{CandidateKind, NatClass};
use frejus_overlay::node::Method;
use frejus_sim::scenario::{Scenario, router_of};
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn ready(scenario: Scenario) -> World {
    let mut world = scenario.build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world
}

/// Two homes that stay on the relay without a mapping, as `nat_pairs` shows.
fn random_homes(seed: u64) -> World {
    let scenario = Scenario::new(seed).super_peer("s");
    ready(scenario.home("a", NatClass::SymmetricRandom).home("b", NatClass::SymmetricRandom))
}

fn methods(world: &World) -> [Method; 2] {
    [("a", "b"), ("b", "a")].map(|(from, to)| world.path(from, to).expect("a path").method)
}

#[test]
fn with_a_port_open_on_either_side_two_random_homes_are_direct() {
    for seed in SEEDS {
        for (from, to) in [("a", "b"), ("b", "a")] {
            let mut world = random_homes(seed);
            let at = world.open_port("a");
            world.run_for(SECOND);
            let begun = world.now();
            let stream = world.stream(from, to, TICK, SECOND * 5);
            let took = world.run_until(SECOND * 3, |w| w.is_direct("a", "b"));
            world.run_for(SECOND * 7);
            assert!(took.is_some(), "seed {seed}, from {from}: {}", world.story());
            assert_eq!(world.unanswered(stream, begun, world.now()), 0);
            assert_eq!(methods(&world), [Method::Mapped; 2], "seed {seed}, from {from}");
            assert_eq!(world.path("b", "a").expect("a path").locator.remote(), at);
        }
    }
}

#[test]
fn a_port_that_opens_late_ends_the_relaying() {
    for seed in SEEDS {
        let mut world = random_homes(seed);
        let begun = world.now();
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        world.run_for(SECOND * 20);
        assert!(world.is_relayed("a", "b"), "nothing else is possible yet");
        world.open_port("b");
        let took = world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
        println!("seed {seed}: direct {took:?} after the port opened");
        world.run_for(SECOND * 45);
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
    }
}

#[test]
fn a_router_that_restarts_and_opens_again_is_used_again() {
    for seed in SEEDS {
        let mut world = random_homes(seed);
        world.open_port("b");
        world.stream("a", "b", TICK, SECOND * 60);
        world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
        let router = router_of(world.host("b").realm).expect("behind a router");
        world.internet.nat(router).reboot();
        world.lose_port("b");
        world.run_until(SECOND * 5, |w| w.is_relayed("a", "b")).expect("the relay, meanwhile");
        world.open_port("b");
        world.run_until(SECOND * 10, |w| w.is_direct("a", "b")).expect("direct again");
        world.run_for(SECOND);
        assert_eq!(methods(&world), [Method::Mapped; 2], "seed {seed}");
    }
}

#[test]
fn under_one_carrier_the_port_of_the_middle_realm_is_used() {
    for seed in SEEDS {
        let random = NatClass::SymmetricRandom;
        let scenario = Scenario::new(seed).super_peer("s").home("carrier", random);
        let mut world = ready(scenario.nested("a", random, "carrier").nested("b", random, "carrier"));
        let at = world.open_port("b");
        world.run_for(SECOND);
        let status = world.host("b").node.as_ref().expect("it runs").status(world.host("b").now(world.now()));
        let told: Vec<_> = status.candidates.iter().filter(|c| c.kind == CandidateKind::Mapped).collect();
        assert_eq!(told.iter().map(|candidate| candidate.at).collect::<Vec<_>>(), [at]);
        assert!(!status.mapped.expect("a port").is_public());
        world.stream("a", "b", TICK, SECOND * 10);
        world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
        assert_eq!(world.path("a", "b").expect("a path").locator.remote(), at);
    }
}
