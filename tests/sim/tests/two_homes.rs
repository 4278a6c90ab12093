//! Two machines behind two home routers, one super peer: the main job.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::node::{Answer, Method, Request, Source};
use frejus_sim::app::Kind;
use frejus_sim::link::{Quality, WAN};
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

/// There and back between two homes, and between a home and the super peer, at 20 ms a link.
const RTT: Duration = Duration::from_millis(40);
/// The same through the super peer, which is the way that a first packet takes.
const RELAYED_RTT: Duration = Duration::from_millis(80);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn homes(seed: u64) -> Scenario {
    Scenario::new(seed)
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
}

fn ready(scenario: Scenario) -> World {
    let mut world = scenario.build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world
}

fn rtts(took: Duration) -> f64 {
    took.as_secs_f64() / RTT.as_secs_f64()
}

#[test]
fn everybody_is_ready_soon() {
    for seed in SEEDS {
        let mut world = homes(seed).build();
        let took = world.run_until(SECOND * 5, World::all_ready).expect("ready within five seconds");
        println!("seed {seed}: all ready after {took:?}");
        assert!(took <= SECOND * 2);
    }
}

#[test]
fn nothing_is_lost_from_the_first_packet_to_the_direct_path() {
    for seed in SEEDS {
        let mut world = ready(homes(seed));
        let begun = world.now();
        let stream = world.stream("a", "b", TICK, SECOND * 12);
        let direct =
            world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct within five seconds");
        world.run_for(SECOND);
        let relayed = world.relayed("s");
        world.run_for(SECOND * 12);
        let answers = world.answers_of(stream);
        let first = answers[0].1.expect("the first packet is answered");
        println!("seed {seed}: cold answered in {:.1} round trips; direct after {direct:?}", rtts(first));
        assert!(first <= RTT * 8);
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
        assert_eq!(world.duplicates(), 0);
        assert_eq!(world.relayed("s"), relayed, "the super peer carries nothing of it any more");
        assert_eq!(world.path("a", "b").expect("a path").method, Method::Punched);
        assert_eq!(answers.last().and_then(|(_, took)| *took), Some(RTT));
    }
}

#[test]
fn with_whereabouts_cached_two_round_trips_do() {
    for seed in SEEDS {
        let mut world = ready(homes(seed));
        let asked = world.request(world.id("a"), Request::Resolve { query: "b".to_owned() });
        world.run_until(SECOND * 5, |w| w.host("a").answers.contains_key(&asked)).expect("resolved");
        let (_, Answer::Resolved(found)) = &world.host("a").answers[&asked] else { panic!("not resolved") };
        assert!(found.whereabouts.is_some());
        let first = world.send("a", "b", Kind::Request);
        world.run_until(SECOND * 5, |w| w.answered(first).is_some()).expect("an answer");
        let there = world.took(first).expect("it arrived");
        let back = world.answered(first).expect("it was answered");
        println!("seed {seed}: cached: there in {there:?}, answered in {back:?}, through the relay");
        assert!(there.max(back) <= RELAYED_RTT * 2, "there in {there:?}, answered in {back:?}");
        let again = world.request(world.id("a"), Request::Resolve { query: "b".to_owned() });
        world.run_for(SECOND);
        let (_, Answer::Resolved(found)) = &world.host("a").answers[&again] else { panic!("not resolved") };
        assert_eq!(found.lease_stage.0, Source::Cache);
    }
}

#[test]
fn both_families_and_all_sizes_get_through() {
    let mut world = ready(homes(1));
    for size in [60, 500, 1280] {
        for six in [false, true] {
            let letter = world.send_sized("a", "b", Kind::Request, size, six);
            world.run_for(SECOND);
            assert!(world.answered(letter).is_some(), "{size} bytes, IPv6 {six}");
        }
    }
}

#[test]
fn both_may_begin_at_once() {
    for seed in SEEDS {
        let mut world = ready(homes(seed));
        let (there, back) = (world.send("a", "b", Kind::Request), world.send("b", "a", Kind::Request));
        world
            .run_until(SECOND * 5, |w| w.answered(there).is_some() && w.answered(back).is_some())
            .expect("both");
        assert!(world.took(there).max(world.took(back)) <= Some(RTT * 8));
        world.run_until(SECOND * 5, |w| w.is_direct("a", "b")).expect("direct");
    }
}

#[test]
fn a_user_pings_by_name() {
    let mut world = ready(homes(1));
    let ping = |world: &mut World, peer: &str| {
        let request = Request::Ping { peer: peer.to_owned(), timeout: SECOND * 5 };
        let number = world.request(world.id("a"), request);
        world.run_for(SECOND * 6);
        world.host("a").answers[&number].1.clone()
    };
    assert!(matches!(ping(&mut world, "b"), Answer::Pong { .. }));
    let Answer::Pong { rtt, path, .. } = ping(&mut world, "b") else { panic!("no pong") };
    assert_eq!((rtt, path.locator.is_direct()), (RTT, true));
    assert!(matches!(ping(&mut world, "nobody"), Answer::Failed(_)));
}

#[test]
fn homes_with_the_same_private_addresses_do_not_confuse_each_other() {
    for seed in SEEDS {
        let mut world = ready(homes(seed).same_subnet());
        let stream = world.stream("a", "b", TICK, SECOND * 10);
        world.run_for(SECOND * 11);
        assert!(world.is_direct("a", "b"));
        assert!(world.answers_of(stream).iter().all(|(_, took)| took.is_some()));
    }
}

#[test]
fn in_one_home_the_path_is_local() {
    for seed in SEEDS {
        let world = Scenario::new(seed).super_peer("s").home("a", NatClass::SymmetricRandom).beside("b", "a");
        let mut world = ready(world);
        let stream = world.stream("a", "b", TICK, SECOND * 10);
        world.run_for(SECOND * 11);
        let path = world.path("a", "b").expect("a path");
        assert_eq!((path.locator.is_direct(), path.method), (true, Method::Local));
        assert!(world.answers_of(stream).iter().all(|(_, took)| took.is_some()));
    }
}

#[test]
fn lossy_jittery_links_delay_it_only() {
    let quality = Quality { loss: 0.1, jitter: Duration::from_millis(15), reorder: 0.02, ..WAN };
    for seed in SEEDS {
        let mut world = homes(seed).links(quality).build();
        world.run_until(SECOND * 20, World::all_ready).expect("ready");
        let stream = world.stream("a", "b", TICK, SECOND * 30);
        world.run_until(SECOND * 15, |w| w.is_direct("a", "b")).expect("direct");
        world.run_for(SECOND * 31);
        let answers = world.answers_of(stream);
        let answered = answers.iter().filter(|(_, took)| took.is_some()).count();
        // 0.9² of the requests and their answers, and the first few that waited.
        assert!(answered * 100 >= answers.len() * 70, "{answered} of {}", answers.len());
    }
}
