//! Links that take less than Ethernet and say nothing: what fits arrives, what does not is told to its sender.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::id::NodeId;
use frejus_overlay::locator::Channel;
use frejus_overlay::wire::control::Message;
use frejus_sim::app::Kind;
use frejus_sim::link::{Quality, WAN};
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);

fn homes(seed: u64, mtu: usize) -> Scenario {
    Scenario::new(seed)
        .links(Quality { mtu, ..WAN })
        .super_peer("s")
        .home("a", NatClass::PortRestricted)
        .home("b", NatClass::PortRestricted)
}

/// Two homes that talk, directly, for so long.
fn talking(scenario: Scenario, time: Duration) -> World {
    let mut world = scenario.build();
    world.run_until(SECOND * 20, World::all_ready).expect("ready");
    world.stream("a", "b", TICK, time);
    world.run_until(SECOND * 5, |w| w.is_direct("a", "b") && w.is_direct("b", "a")).expect("direct");
    world
}

fn mtu(world: &World, from: &str, to: &str) -> u16 {
    world.path(from, to).map_or(0, |path| path.mtu)
}

/// Whether a letter of this size arrives.
fn passes(world: &mut World, size: usize, six: bool) -> bool {
    let letter = world.send_sized("a", "b", Kind::Note, size, six);
    world.run_for(SECOND);
    world.took(letter).is_some()
}

#[test]
fn what_a_path_takes_is_found_and_told() {
    for (seed, link, expected) in
        [(1, 1500, 1420), (2, 1492, 1420), (3, 1400, 1340), (4, 1320, 1260), (5, 1280, 1220)]
    {
        let mut world = talking(homes(seed, link), SECOND * 60);
        world.run_for(SECOND * 6);
        assert_eq!((mtu(&world, "a", "b"), mtu(&world, "b", "a")), (expected, expected), "link {link}");
        for size in [100, 576, usize::from(expected)] {
            assert!(passes(&mut world, size, false), "{size} bytes on a link of {link}");
        }
        if expected < 1420 {
            assert!(!passes(&mut world, usize::from(expected) + 1, false) && !passes(&mut world, 1420, true));
            assert_eq!(
                world.host("a").mail.told,
                [expected, expected.max(1280)],
                "IPv6 is told 1280 at the least"
            );
            assert_eq!(world.host("a").dropped(frejus_overlay::verdict::Drop::TooBig), 2);
        } else {
            assert!(world.host("a").mail.told.is_empty());
        }
    }
}

#[test]
fn a_relayed_path_has_sixteen_bytes_less() {
    let scenario = Scenario::new(1).links(Quality { mtu: 1472, ..WAN }).super_peer("s");
    let scenario = scenario.home("a", NatClass::SymmetricRandom).home("b", NatClass::SymmetricRandom);
    let mut world = scenario.build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world.stream("a", "b", TICK, SECOND * 20);
    world.run_for(SECOND * 8);
    assert!(world.is_relayed("a", "b"));
    assert_eq!(mtu(&world, "a", "b"), 1472 - 76);
}

#[test]
fn a_link_that_shrinks_in_flight_is_no_black_hole() {
    for (seed, before, after, expected) in
        [(1, 1500, 1400, 1340), (2, 1500, 1280, 1220), (3, 1400, 1300, 1240)]
    {
        let mut world = talking(homes(seed, before), SECOND * 120);
        let moment = Duration::from_millis(world.dice().below(2000));
        world.run_for(SECOND * 6 + moment);
        let (a, b) = (world.id("a"), world.id("b"));
        let place = |world: &World, id: frejus_sim::internet::HostId| (id, world.hosts[id.0].realm);
        let ends = world.internet.meeting(place(&world, a), place(&world, b));
        for link in world.internet.links(ends) {
            link.quality.mtu = after;
        }
        let shrunk = world.now();
        let big = usize::from(expected);
        while mtu(&world, "a", "b") != expected {
            assert!(world.now().since(shrunk) < SECOND * 8, "still {}", mtu(&world, "a", "b"));
            world.run_for(TICK);
        }
        println!("seed {seed}: {before} to {after} noticed and measured in {:?}", world.now().since(shrunk));
        assert!(world.is_direct("a", "b"), "the path is not blamed for its size");
        world.run_for(SECOND);
        assert!(passes(&mut world, big, false));
        assert!(!passes(&mut world, big + 1, false));
        assert_eq!(world.host("a").mail.told.last(), Some(&expected));
    }
}

#[test]
fn where_even_control_messages_do_not_fit_they_go_in_parts() {
    let mut world = homes(1, 700).build();
    let known = &world.host("a").disk.as_ref().expect("enrolled").known;
    // A knock has a contact in it, and who it is for.
    let sealed = Message::SuperPeer { contact: known[0].clone() }.encode();
    let knock = Message::Knock { to: NodeId([1; 32]), channel: Channel(u64::MAX), sealed }.encode();
    assert!(knock.len() + 48 > 576 - 60, "{} bytes would fit", knock.len());
    world.run_until(SECOND * 30, World::all_ready).expect("ready");
    let letter = world.send("a", "b", Kind::Request);
    world.run_until(SECOND * 10, |w| w.answered(letter).is_some()).expect("an answer");
    world.stream("a", "b", TICK, SECOND * 30);
    world.run_for(SECOND * 10);
    assert_eq!(mtu(&world, "a", "b"), 576 - 60);
    assert!(passes(&mut world, 516, false) && !passes(&mut world, 517, false));
}

#[test]
fn without_data_nothing_is_measured_after_the_first_search() {
    let mut world = homes(1, 1400).build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let letter = world.send("a", "b", Kind::Request);
    world.run_until(SECOND * 5, |w| w.answered(letter).is_some()).expect("an answer");
    world.run_for(SECOND * 30);
    let before = world.traffic("a").out;
    world.run_for(SECOND * 120);
    let bits = (world.traffic("a").out - before) * 8 / 120;
    assert!(bits < 1000, "{bits} bit/s of an idle node");
}
