//! Many nodes: cold starts, everybody talking, and the cost of silence.

use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_sim::app::Kind;
use frejus_sim::nat::CLASSES;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_hundred_nodes_start_at_once() {
    let mut scenario = Scenario::new(1).super_peer("s0").super_peer("s1").super_peer("s2");
    let names: Vec<String> = (3..300).map(|n| format!("n{n}")).collect();
    for (name, class) in names.iter().zip(CLASSES.iter().cycle()) {
        scenario = scenario.home(name, *class);
    }
    let mut world = scenario.build();
    world.run_for(SECOND * 2);
    let waiting = names.iter().filter(|name| !world.is_ready(name)).count();
    println!("300 nodes: {waiting} not ready after two seconds");
    world.run_for(SECOND * 8);
    assert!(names.iter().all(|name| world.is_ready(name)), "all ready after ten seconds");
    let letters: Vec<u64> = (0..60)
        .map(|_| {
            let mut any = || names[world.dice().below(names.len() as u64) as usize].clone();
            let (from, to) = (any(), any());
            (from, to)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .filter(|(from, to)| from != to)
        .map(|(from, to)| world.send(&from, &to, Kind::Request))
        .collect();
    world.run_for(SECOND * 10);
    let mut took: Vec<_> = letters.iter().map(|letter| world.answered(*letter).expect("an answer")).collect();
    took.sort();
    println!(
        "300 nodes: cold answers, median {:?}, slowest {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert!(took[took.len() - 1] <= SECOND * 2);
}

#[test]
fn ten_nodes_all_talk_to_each_other() {
    for seed in 1..=2 {
        let mut scenario = Scenario::new(seed).super_peer("s");
        let names: Vec<String> = (0..9).map(|n| format!("n{n}")).collect();
        for (name, class) in names.iter().zip(CLASSES.iter().cycle()) {
            scenario = scenario.home(name, *class);
        }
        let mut world = scenario.build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let everybody: Vec<&str> = names.iter().map(String::as_str).chain(["s"]).collect();
        let mut streams = Vec::new();
        for from in &everybody {
            for to in everybody.iter().filter(|to| to != &from) {
                streams.push(world.stream(from, to, Duration::from_millis(500), SECOND * 20));
            }
        }
        assert_eq!(streams.len(), 90);
        world.run_for(SECOND * 22);
        let lost: usize = streams.iter().map(|stream| world.unanswered(*stream, begun, world.now())).sum();
        assert_eq!(lost, 0);
        assert_eq!(world.duplicates(), 0);
    }
}

/// Average bits a second, both ways, IP and UDP headers included, over ten minutes in which nobody talks.
fn idle(world: &mut World, name: &str) -> u64 {
    let before = world.traffic(name);
    world.run_for(SECOND * 600);
    let after = world.traffic(name);
    (after.out + after.inward - before.out - before.inward) * 8 / 600
}

#[test]
fn silence_costs_little() {
    let scenario = Scenario::new(1).super_peer("s").super_peer("t").super_peer("u");
    let scenario = scenario.home("a", NatClass::PortRestricted).home("b", NatClass::PortRestricted);
    let mut world = scenario.build();
    world.run_for(SECOND * 30);
    let fresh = idle(&mut world, "a");
    let letter = world.send("a", "b", Kind::Request);
    world.run_for(SECOND * 20);
    assert!(world.answered(letter).is_some());
    let after_talk = idle(&mut world, "a");
    let before = world.traffic("s");
    world.run_for(SECOND * 600);
    let after = world.traffic("s");
    let super_peer = (after.out + after.inward - before.out - before.inward) * 8 / 600;
    println!("idle: {fresh} bit/s; after a talk {after_talk} bit/s; super peer of two {super_peer} bit/s");
    assert!(fresh.max(after_talk) <= 5000);
    assert!(fresh > 0 && super_peer <= 40_000);
}
