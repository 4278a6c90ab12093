//! Links are cut, super peers go away, peers die, routers forget: traffic finds its way.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::node::Event;
use frejus_overlay::timing::Instant;
use frejus_sim::app::Kind;
use frejus_sim::nat::Behaviour;
use frejus_sim::scenario::{Scenario, router_of};
use frejus_sim::world::{StreamId, World};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn homes(seed: u64) -> Scenario {
    Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
}

/// Ready, talking for so long, and direct.
fn talking(scenario: Scenario, time: Duration) -> (World, StreamId) {
    let mut world = scenario.build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let stream = world.stream("a", "b", TICK, time);
    world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
    // Trouble comes at any moment.
    let moment = Duration::from_millis(world.dice().below(2000));
    world.run_for(SECOND * 5 + moment);
    (world, stream)
}

fn back_after(world: &World, stream: StreamId, event: Instant) -> Duration {
    world.answered_again(stream, event).expect("it works again").since(event)
}

#[test]
fn a_cut_path_is_left_within_two_seconds_and_taken_again() {
    for seed in SEEDS {
        let (mut world, stream) = talking(homes(seed), SECOND * 120);
        let cut = world.now();
        world.set_cut("a", "b", true);
        world.run_for(SECOND * 10);
        let gap = back_after(&world, stream, cut);
        assert!(gap <= SECOND * 2, "back after {gap:?}");
        assert!(world.is_relayed("a", "b"));
        assert_eq!(
            world.unanswered(stream, cut + SECOND * 2, world.now() - SECOND),
            0,
            "the relay loses nothing"
        );
        let mended = world.now();
        world.set_cut("a", "b", false);
        let again = world.run_until(SECOND * 60, |w| w.is_direct("a", "b")).expect("direct again");
        println!("seed {seed}: cut → relay {gap:?}; mended → direct {again:?}");
        world.run_for(SECOND * 5);
        assert_eq!(
            world.unanswered(stream, mended, world.now() - SECOND),
            0,
            "nothing is lost on the way up"
        );
    }
}

#[test]
fn paths_do_not_flap_when_nothing_happens() {
    for seed in SEEDS {
        let (mut world, _) = talking(homes(seed), SECOND * 10);
        world.stream("a", "b", Duration::from_millis(400), SECOND * 300);
        let calm = world.now();
        world.run_for(SECOND * 290);
        let about_b = |event: &Event| matches!(event, Event::Path { name, .. } if name == "b");
        assert_eq!(world.host("a").first_event(calm, about_b), None);
    }
}

#[test]
fn the_super_peer_may_restart_or_be_away_for_a_minute() {
    for (seed, away) in [(1, SECOND), (2, SECOND * 60), (3, SECOND * 60), (4, SECOND * 200)] {
        let (mut world, stream) = talking(homes(seed), SECOND * 280);
        let begun = world.now();
        let s = world.id("s");
        world.kill(s);
        world.run_for(away);
        world.start(s);
        let back = world.run_until(SECOND * 30, World::all_ready);
        println!("seed {seed}: away for {away:?}, ready again {back:?} later");
        back.expect("ready again");
        world.run_for(SECOND * 5);
        assert_eq!(world.unanswered(stream, begun, world.now() - SECOND), 0, "the direct path does not care");
        assert!(world.is_direct("a", "b"));
    }
}

#[test]
fn after_a_restart_the_super_peer_introduces_strangers_again() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let s = world.id("s");
        world.kill(s);
        world.run_for(SECOND * 10);
        world.start(s);
        world.run_until(SECOND * 30, |w| w.all_ready()).expect("ready again");
        world.run_for(SECOND * 30);
        let letter = world.send("a", "b", Kind::Request);
        world.run_until(SECOND * 5, |w| w.answered(letter).is_some()).expect("an answer");
    }
}

#[test]
fn a_relayed_pair_survives_a_restart_of_its_relay() {
    for seed in SEEDS {
        let scenario = Scenario::new(seed).super_peer("s");
        let mut world =
            scenario.home("a", NatClass::SymmetricRandom).home("b", NatClass::SymmetricRandom).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        let moment = Duration::from_millis(world.dice().below(2000));
        world.run_for(SECOND * 8 + moment);
        let s = world.id("s");
        world.kill(s);
        world.run_for(SECOND * 3);
        world.start(s);
        let started = world.now();
        world.run_for(SECOND * 30);
        let gap = back_after(&world, stream, started);
        println!("seed {seed}: relay back, traffic {gap:?} later");
        assert!(gap <= SECOND * 10, "{gap:?}");
    }
}

#[test]
fn with_two_super_peers_one_may_die_for_good() {
    for seed in SEEDS {
        let scenario = Scenario::new(seed).super_peer("s").super_peer("t");
        let mut world =
            scenario.home("a", NatClass::SymmetricRandom).home("b", NatClass::SymmetricRandom).build();
        world.run_until(SECOND * 10, World::all_ready).expect("ready");
        world.run_for(SECOND * 10);
        let stream = world.stream("a", "b", TICK, SECOND * 60);
        let moment = Duration::from_millis(world.dice().below(2000));
        world.run_for(SECOND * 8 + moment);
        let via = world.path("a", "b").and_then(|path| path.via).expect("a relay");
        let died = world.now();
        world.kill(world.id(&via));
        world.run_for(SECOND * 20);
        let gap = back_after(&world, stream, died);
        println!("seed {seed}: relay {via} died, the other one took over after {gap:?}");
        assert!(gap <= SECOND * 3, "{gap:?}");
        assert_eq!(world.unanswered(stream, died + SECOND * 5, world.now() - SECOND), 0);
    }
}

#[test]
fn a_killed_peer_is_back_in_seconds() {
    for seed in SEEDS {
        let (mut world, stream) = talking(homes(seed), SECOND * 120);
        let b = world.id("b");
        let address = world.host("b").virtual_address(false);
        world.kill(b);
        world.run_for(SECOND * 4);
        world.start(b);
        let started = world.now();
        world.run_for(SECOND * 20);
        let gap = back_after(&world, stream, started);
        println!("seed {seed}: traffic to the restarted peer {gap:?} after its start");
        assert!(gap <= SECOND * 5, "{gap:?}");
        assert_eq!(world.host("b").virtual_address(false), address);
        world.run_until(SECOND * 10, |w| w.is_direct("a", "b")).expect("direct again");
    }
}

/// Kill `b`, let it be away, start it; how long until its first letter was answered, sent when `then` says so.
fn speaks_first(seed: u64, then: impl Fn(&World) -> bool) -> Duration {
    let (mut world, _) = talking(homes(seed), SECOND * 10);
    let b = world.id("b");
    world.run_for(SECOND * 10);
    world.kill(b);
    world.run_for(SECOND);
    world.start(b);
    world.run_until(SECOND * 5, then).expect("ready");
    let letter = world.send("b", "a", Kind::Request);
    world.run_until(SECOND * 20, |w| w.answered(letter).is_some()).expect("an answer")
}

#[test]
fn a_killed_peer_may_speak_first() {
    for seed in SEEDS {
        let took = speaks_first(seed, |world| world.is_ready("b"));
        println!("seed {seed}: answered {took:?} after it was ready again");
        assert!(took <= SECOND * 3, "{took:?}");
    }
}

#[test]
fn what_an_application_sends_before_its_node_is_ready_waits() {
    for seed in SEEDS {
        let took = speaks_first(seed, |_| true);
        println!("seed {seed}: answered {took:?} after the start");
        assert!(took <= SECOND * 3, "{took:?}");
    }
}

#[test]
fn a_router_that_reboots_costs_seconds() {
    for seed in SEEDS {
        let (mut world, stream) = talking(homes(seed), SECOND * 120);
        let router = router_of(world.host("b").realm).expect("a home has a router");
        let now = world.now();
        world.internet.nat(router).reboot();
        world.run_for(SECOND * 20);
        let gap = back_after(&world, stream, now);
        println!("seed {seed}: traffic {gap:?} after the router's reboot");
        assert!(gap <= SECOND * 3, "{gap:?}");
        assert!(world.is_direct("a", "b"));
    }
}

fn short_lived(seed: u64) -> Scenario {
    let nat = Behaviour::of(NatClass::PortRestricted).expect("a NAT").life(SECOND * 30);
    Scenario::new(seed).super_peer("s").behind("a", nat).behind("b", nat)
}

#[test]
fn a_mapping_of_thirty_seconds_is_held_while_in_use() {
    for seed in SEEDS {
        let mut world = short_lived(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let first = world.stream("a", "b", TICK, SECOND * 5);
        world.run_for(SECOND * 10);
        assert!(world.answers_of(first).iter().all(|(_, took)| took.is_some()));
        let begun = world.now();
        let slow = world.stream("a", "b", SECOND * 60, SECOND * 600);
        world.run_for(SECOND * 610);
        assert_eq!(world.unanswered(slow, begun, world.now()), 0);
        let direct = Duration::from_millis(40);
        assert!(
            world.answers_of(slow).iter().all(|(_, took)| *took == Some(direct)),
            "never back to the relay"
        );
    }
}

#[test]
fn an_idle_home_is_still_reached_through_its_super_peer() {
    for seed in SEEDS {
        let mut world = short_lived(seed).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        for idle in [45, 300, 1000, 3600] {
            world.run_for(SECOND * idle);
            let letter = world.send("a", "b", Kind::Request);
            let took = world.run_until(SECOND * 5, |w| w.answered(letter).is_some());
            println!("seed {seed}: after {idle} s of silence answered in {took:?}");
            assert!(took.expect("an answer") <= SECOND);
            let stream = world.stream("a", "b", TICK, SECOND * 5);
            world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct again");
            world.run_for(SECOND * 6);
            assert!(world.answers_of(stream).iter().all(|(_, took)| took.is_some()));
        }
    }
}

#[test]
fn sessions_are_renewed_without_loss_for_an_hour() {
    let mut world = homes(1).build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let begun = world.now();
    let stream = world.stream("a", "b", SECOND * 2, SECOND * 3600);
    world.run_for(SECOND * 3610);
    assert_eq!(world.unanswered(stream, begun, world.now()), 0);
    assert!(world.peer("a", "b").and_then(|peer| peer.handshake_age_s).is_some_and(|age| age < 180));
}

#[test]
fn a_home_that_is_gone_is_replaced_soon() {
    for seed in SEEDS {
        let stage = ["s", "t", "u"].into_iter().fold(Scenario::new(seed), Scenario::super_peer);
        let mut world = stage.home("a", NatClass::PortRestricted).build();
        let homes = |world: &World| -> Vec<String> {
            let status = world.status("a").expect("it runs");
            status.super_peers.into_iter().filter(|home| home.home).map(|home| home.name).collect()
        };
        world.run_until(SECOND * 10, |w| homes(w).len() == 2).expect("two homes");
        world.run_for(SECOND * 5);
        let gone = homes(&world)[0].clone();
        let id = world.id(&gone);
        world.kill(id);
        // Nothing flows, and an idle home is asked every 24 seconds.
        world.run_until(SECOND * 27, |w| !homes(w).contains(&gone)).expect("its death is noticed");
        let took = world.run_until(SECOND * 20, |w| homes(w).len() == 2).expect("two homes again");
        println!("seed {seed}: another home {took:?} after the death of one was noticed");
        assert!(took <= SECOND * 6, "{took:?}");
    }
}
