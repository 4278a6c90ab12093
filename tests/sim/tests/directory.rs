//! The directory fails in every way that a directory can; nothing false is believed, and traffic goes on.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::node::{Answer, Request};
use frejus_sim::app::Kind;
use frejus_sim::directory::Mode;
use frejus_sim::internet::PUBLIC;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn stage(seed: u64, mode: Mode) -> World {
    let scenario = Scenario::new(seed).super_peer("s").super_peer("t");
    let mut world =
        scenario.home("a", NatClass::PortRestricted).home("b", NatClass::AddressRestricted).build();
    world.directory.mode = mode;
    world
}

#[test]
fn a_lossy_table_is_made_up_for() {
    for seed in 1..=5 {
        let mut world = stage(seed, Mode::Lossy(0.5));
        world.run_until(SECOND * 60, World::all_ready).expect("ready");
        let letter = world.send("a", "b", Kind::Request);
        let took = world.run_until(SECOND * 10, |w| w.answered(letter).is_some());
        assert!(took.expect("an answer") <= SECOND * 2);
    }
}

#[test]
fn stale_whereabouts_delay_nobody_for_long() {
    for seed in 1..=5 {
        let mut world = stage(seed, Mode::Stale);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        world.run_for(SECOND * 5);
        let (b, address) = (world.id("b"), "203.0.113.200:51860".parse().expect("an address"));
        world.relocate(b, PUBLIC, address);
        world.run_for(SECOND * 10);
        let letter = world.send("a", "b", Kind::Request);
        let took = world.run_until(SECOND * 10, |w| w.answered(letter).is_some());
        println!("seed {seed}: answered after {took:?}");
        assert!(took.expect("an answer") <= SECOND * 3);
    }
}

#[test]
fn forged_records_are_not_believed() {
    for seed in 1..=5 {
        let mut world = stage(seed, Mode::Honest);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        world.run_for(SECOND * 5);
        world.directory.mode = Mode::Lying;
        let a = world.id("a");
        let unknown = world.request(a, Request::Resolve { query: "nobody".to_owned() });
        let known = world.request(a, Request::Resolve { query: "b".to_owned() });
        let letter = world.send("a", "b", Kind::Request);
        world.run_for(SECOND * 10);
        let answer = |number| &world.host("a").answers[number].1;
        assert!(matches!(answer(&unknown), Answer::Failed(_)), "{:?}", answer(&unknown));
        let Answer::Resolved(found) = answer(&known) else { panic!("{:?}", answer(&known)) };
        assert_eq!(found.passport.name, "b");
        assert_eq!(found.addresses[0], world.host("b").virtual_address(false));
        assert!(world.answered(letter).is_some());
        assert!(world.directory.lies > 0, "the directory had a chance to lie");
    }
}

#[test]
fn without_a_table_the_home_super_peer_knows() {
    for seed in 1..=5 {
        let mut world = stage(seed, Mode::Lossy(1.0));
        world.run_for(SECOND * 20);
        let letter = world.send("a", "b", Kind::Request);
        world.run_until(SECOND * 5, |w| w.answered(letter).is_some()).expect("an answer");
    }
}

#[test]
fn halves_of_a_partition_find_each_other_once_it_heals() {
    for seed in 1..=3 {
        let mut world = stage(seed, Mode::Honest);
        let pairs = [("s", "t"), ("s", "b"), ("t", "a"), ("a", "b")];
        for (one, other) in pairs {
            world.set_cut(one, other, true);
        }
        world.run_for(SECOND * 60);
        let lost = world.send("a", "b", Kind::Request);
        world.run_for(SECOND * 60);
        assert_eq!(world.answered(lost), None, "there is no way at all");
        for (one, other) in pairs {
            world.set_cut(one, other, false);
        }
        world.run_for(SECOND * 60);
        let letter = world.send("a", "b", Kind::Request);
        let took = world.run_until(SECOND * 10, |w| w.answered(letter).is_some());
        println!("seed {seed}: healed, answered after {took:?}");
        took.expect("an answer");
    }
}
