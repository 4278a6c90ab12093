//! Clocks that are wrong, passports that end.

use std::time::Duration;

use frejus_overlay::document::{Invalid, NatClass};
use frejus_overlay::node::Event;
use frejus_sim::app::Kind;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const DAY: i64 = 86_400;

fn stage(seed: u64, ahead_s: i64) -> World {
    Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .clock_ahead(ahead_s)
        .home("b", NatClass::PortRestricted)
        .build()
}

#[test]
fn a_clock_that_is_a_day_slow_is_told_at_once() {
    let mut world = stage(1, -DAY);
    assert_eq!(world.host("a").refused, Some(Invalid::NotYet));
    world.run_for(SECOND * 10);
    assert!(world.is_ready("b"));
}

#[test]
fn a_clock_that_is_a_day_fast_is_not_believed_and_noticed() {
    for seed in 1..=3 {
        let mut world = stage(seed, DAY);
        world.run_for(SECOND * 30);
        assert!(!world.is_ready("a"));
        let attention = world.status("a").expect("it runs").attention;
        assert!(
            attention.iter().any(|(what, mend)| (what.clone() + mend).contains("clock")),
            "{attention:?}"
        );
        assert!(world.is_ready("b"));
        let letter = world.send("b", "a", Kind::Request);
        world.run_for(SECOND * 20);
        assert_eq!(world.answered(letter), None);
        assert!(world.peer("s", "a").is_none(), "the super peer believes nothing that it says");
    }
}

#[test]
fn a_few_minutes_do_not_matter() {
    for ahead in [-240, 240] {
        let mut world = stage(1, ahead);
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        let letter = world.send("a", "b", Kind::Request);
        world.run_until(SECOND * 5, |w| w.answered(letter).is_some()).expect("an answer");
    }
}

#[test]
fn passports_renew_themselves_and_nobody_notices() {
    for seed in 1..=3 {
        let mut world = Scenario::new(seed)
            .passport_life(SECOND * 3600)
            .super_peer("s")
            .home("a", NatClass::PortRestricted)
            .home("b", NatClass::FullCone)
            .build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let stream = world.stream("a", "b", SECOND * 60, SECOND * 4 * 3600);
        world.run_for(SECOND * (4 * 3600 + 10));
        for name in ["s", "a", "b"] {
            let host = world.host(name);
            let credential = &host.disk.as_ref().expect("enrolled").credential;
            let passport = credential.passport.claim().expect("a passport");
            assert!(passport.not_after > host.now(world.now()).unix, "{name} has a valid passport on disk");
            let renewed =
                host.events.iter().filter(|(_, event)| matches!(event, Event::Renewed { .. })).count();
            println!("seed {seed}: {name} renewed its passport {renewed} times in four hours");
            assert!((4..=16).contains(&renewed), "{name}: {renewed}");
        }
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
        let late = world.send("b", "a", Kind::Request);
        world.run_for(SECOND);
        assert!(world.answered(late).is_some());
    }
}

#[test]
fn the_shortest_passport_that_can_be_asked_for_is_renewed_in_time() {
    let mut world = Scenario::new(1)
        .passport_life(SECOND * 30)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::FullCone)
        .build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let begun = world.now();
    let stream = world.stream("a", "b", SECOND, SECOND * 300);
    world.run_for(SECOND * 310);
    for name in ["s", "a", "b"] {
        let host = world.host(name);
        let passport = host.disk.as_ref().expect("enrolled").credential.passport.claim().expect("a passport");
        assert!(passport.not_after > host.now(world.now()).unix, "{name} has a valid passport on disk");
    }
    assert_eq!(world.unanswered(stream, begun, world.now()), 0);
}

#[test]
fn an_absent_login_server_is_noticed_before_the_passport_ends() {
    let mut world = Scenario::new(1)
        .passport_life(SECOND * 3600)
        .super_peer("s")
        .super_peer("t")
        .home("a", NatClass::PortRestricted)
        .build();
    world.run_until(SECOND * 10, World::all_ready).expect("ready");
    world.run_for(SECOND * 10);
    world.kill(world.id("s"));
    world.run_for(SECOND * 3500);
    let attention = world.status("a").expect("it runs").attention;
    assert!(attention.iter().any(|(what, _)| what.contains("passport")), "{attention:?}");
    world.start(world.id("s"));
    world.run_for(SECOND * 60);
    let renewed = |event: &Event| matches!(event, Event::Renewed { .. });
    assert!(world.host("a").events.iter().any(|(_, event)| renewed(event)), "in the last minute");
}

#[test]
fn a_passport_that_ended_while_the_node_was_off_is_refused_with_its_reason() {
    let mut world = Scenario::new(1)
        .passport_life(SECOND * 3600)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .build();
    world.run_for(SECOND * 60);
    let a = world.id("a");
    world.kill(a);
    world.run_for(SECOND * 7200);
    world.start(a);
    assert_eq!(world.host("a").refused, Some(Invalid::Expired));
}
