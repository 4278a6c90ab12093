//! A newcomer with a code.

use std::time::Duration;

use frejus_overlay::code::Code;
use frejus_overlay::document::{NatClass, Roles};
use frejus_overlay::enrolment::EnrolError;
use frejus_overlay::node::{Answer, Invitation, Request};
use frejus_overlay::wire::enrol::Refusal;
use frejus_sim::app::Kind;
use frejus_sim::link::{Quality, WAN};
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const DAY: i64 = 86_400;

fn stage(seed: u64) -> Scenario {
    Scenario::new(seed).super_peer("s").home("a", NatClass::PortRestricted)
}

/// A code, as a user of the running super peer gets it.
fn invite(world: &mut World, uses: u32, life: Duration) -> Code {
    let invitation = Invitation { roles: Roles::PEER, uses, life, name: None, address: None };
    let asked = world.request(world.id("s"), Request::Invite(invitation));
    world.run_for(Duration::from_millis(10));
    let Answer::Invited { code } = &world.host("s").answers[&asked].1 else { panic!("not invited") };
    code.parse().expect("a code that can be read")
}

#[test]
fn from_a_code_to_the_first_answer() {
    for seed in 1..=3 {
        let mut world = stage(seed).home("n", NatClass::PortRestricted).newcomer().build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let code = invite(&mut world, 1, SECOND * 3600);
        let begun = world.now();
        let enrolled = world.join("n", &code).expect("let in");
        world.start(world.id("n"));
        world.run_until(SECOND * 5, |w| w.is_ready("n")).expect("ready");
        let ready = world.now().since(begun);
        println!("seed {seed}: enrolled after {enrolled:?}, ready after {ready:?}");
        assert!(ready <= SECOND * 2);
        for (from, to) in [("n", "a"), ("a", "n")] {
            let letter = world.send(from, to, Kind::Request);
            world.run_for(SECOND * 2);
            assert!(world.answered(letter).is_some(), "{from} to {to}");
        }
        assert_eq!(world.duplicates(), 0);
    }
}

#[test]
fn a_code_is_good_for_its_uses_and_its_time() {
    let scenario = stage(1).home("n", NatClass::FullCone).newcomer();
    let mut world =
        scenario.home("o", NatClass::FullCone).newcomer().home("p", NatClass::FullCone).newcomer().build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let code = invite(&mut world, 1, SECOND * 3600);
    let mut altered = code.clone();
    altered.secret[3] ^= 1;
    assert!(matches!(world.join("n", &altered), Err(EnrolError::Refused(Refusal::UnknownCode))));
    world.join("n", &code).expect("let in");
    assert!(matches!(world.join("o", &code), Err(EnrolError::Refused(Refusal::UsedCode))));
    let code = invite(&mut world, 5, SECOND * 60);
    world.run_for(SECOND * 61);
    assert!(matches!(world.join("o", &code), Err(EnrolError::Refused(Refusal::ExpiredCode))));
    let code = invite(&mut world, 2, SECOND * 3600);
    world.join("o", &code).expect("let in");
    world.join("p", &code).expect("let in");
    let addresses: std::collections::BTreeSet<_> =
        ["s", "a", "n", "o", "p"].iter().map(|name| world.host(name).virtual_address(false)).collect();
    assert_eq!(addresses.len(), 5, "one address has one holder");
}

#[test]
fn a_code_survives_a_restart_of_its_login_server_and_a_burnt_one_stays_burnt() {
    let scenario = stage(1).home("n", NatClass::FullCone).newcomer();
    let mut world = scenario.home("o", NatClass::FullCone).newcomer().build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let code = invite(&mut world, 1, SECOND * 3600);
    let s = world.id("s");
    world.kill(s);
    assert!(matches!(world.join("n", &code), Err(EnrolError::Silent { .. })));
    world.start(s);
    world.join("n", &code).expect("let in");
    world.kill(s);
    world.start(s);
    assert!(matches!(world.join("o", &code), Err(EnrolError::Refused(Refusal::UsedCode))));
}

#[test]
fn a_clock_that_is_a_day_off_is_named() {
    for ahead in [-DAY, DAY] {
        let mut world = stage(1).home("n", NatClass::FullCone).newcomer().clock_ahead(ahead).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let code = invite(&mut world, 1, SECOND * 3600 * 48);
        let Err(EnrolError::Clock { ahead_s }) = world.join("n", &code) else { panic!("not the clock?") };
        assert!((ahead_s - ahead).abs() < 60, "{ahead_s}");
    }
}

#[test]
fn loss_does_not_burn_a_code() {
    for seed in 1..=10 {
        let scenario = stage(seed).links(Quality { loss: 0.3, ..WAN });
        let mut world = scenario.home("n", NatClass::PortRestricted).newcomer().build();
        world.run_for(SECOND * 5);
        let code = invite(&mut world, 1, SECOND * 3600);
        let took = world.join("n", &code).expect("let in");
        println!("seed {seed}: enrolled after {took:?} at 30 % loss");
    }
}
