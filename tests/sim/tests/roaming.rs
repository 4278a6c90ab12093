//! A host moves: another address, another network, in the middle of a transfer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_sim::app::Kind;
use frejus_sim::internet::PUBLIC;
use frejus_sim::scenario::{PORT, Scenario, router_of};
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn stage(seed: u64) -> World {
    let mut world = Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
        .home("c", NatClass::AddressRestricted)
        .later()
        .build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world
}

fn at(address: [u8; 4]) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(address), PORT))
}

#[test]
fn a_laptop_changes_networks_in_the_middle_of_a_transfer() {
    for seed in SEEDS {
        for mover in ["a", "b"] {
            let mut world = stage(seed);
            let stream = world.stream("a", "b", TICK, SECOND * 60);
            world.run_for(SECOND * 8 + Duration::from_millis(seed * 137));
            assert!(world.is_direct("a", "b"));
            let moved = world.now();
            let elsewhere = world.host("c").realm;
            world.relocate(world.id(mover), elsewhere, at([192, 168, 4, 99]));
            world.run_for(SECOND * 20);
            let gap = world.answered_again(stream, moved).expect("it works again").since(moved);
            println!("seed {seed}: {mover} moved, traffic {gap:?} later");
            assert!(gap <= SECOND * 3, "{gap:?}");
            assert_eq!(world.unanswered(stream, moved + SECOND * 3, world.now() - SECOND), 0);
            assert!(world.is_direct("a", "b"), "direct again");
        }
    }
}

#[test]
fn both_move_at_once() {
    for seed in SEEDS {
        let mut world = stage(seed);
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        world.run_for(SECOND * 8 + Duration::from_millis(seed * 137));
        let moved = world.now();
        let elsewhere = world.host("c").realm;
        world.relocate(world.id("a"), elsewhere, at([192, 168, 4, 99]));
        world.relocate(world.id("b"), PUBLIC, at([203, 0, 113, 200]));
        world.run_for(SECOND * 20);
        let gap = world.answered_again(stream, moved).expect("it works again").since(moved);
        println!("seed {seed}: both moved, traffic {gap:?} later");
        assert!(gap <= SECOND * 5, "{gap:?}");
        assert!(world.is_direct("a", "b"), "direct again");
    }
}

#[test]
fn the_provider_renumbers_a_home() {
    for seed in SEEDS {
        let mut world = stage(seed);
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        world.run_for(SECOND * 8 + Duration::from_millis(seed * 137));
        let router = router_of(world.host("b").realm).expect("a home has a router");
        let moved = world.now();
        world.internet.renumber(router, Ipv4Addr::new(198, 51, 100, 250));
        world.run_for(SECOND * 4);
        let direct = world.run_until(SECOND * 40, |w| w.is_direct("a", "b"));
        let direct = direct.map(|_| world.now().since(moved));
        let gap = world.answered_again(stream, moved).expect("it works again").since(moved);
        println!("seed {seed}: renumbered, traffic {gap:?} later, direct {direct:?} later");
        assert!(gap <= SECOND * 3, "{gap:?}");
        assert!(direct.expect("direct again") <= SECOND * 10);
    }
}

#[test]
fn whoever_moved_while_nobody_talked_is_found() {
    for seed in SEEDS {
        let mut world = stage(seed);
        let letter = world.send("a", "b", Kind::Request);
        world.run_for(SECOND * 30);
        assert!(world.answered(letter).is_some());
        let elsewhere = world.host("c").realm;
        world.relocate(world.id("b"), elsewhere, at([192, 168, 4, 99]));
        world.run_for(SECOND * 10);
        // Whether an idle path was probed since is chance: what is sent before it is known to be dead may be lost, as
        // any packet may, so whoever wants an answer asks again.
        let asked = world.now();
        let stream = world.stream("a", "b", Duration::from_millis(250), SECOND * 10);
        world.run_for(SECOND * 10);
        let took = world.answered_again(stream, asked).expect("an answer").since(asked);
        println!("seed {seed}: answered {took:?} after the first packet since a silent move");
        assert!(took <= SECOND * 3, "seed {seed}: {took:?}");
        assert_eq!(world.unanswered(stream, asked + took, world.now() - SECOND), 0, "seed {seed}: for good");
    }
}
