//! Two machines behind two home routers, one super peer: the main job.

use std::sync::atomic::Ordering;
use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_overlay::node::{Event, Method};
use frejus_sim::app::Kind;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

/// There and back between two homes, and between a home and the super peer, at 20 ms a link.
const RTT: Duration = Duration::from_millis(40);
const SECOND: Duration = Duration::from_secs(1);

fn homes(seed: u64) -> World {
    Scenario::new(seed).super_peer("s").home("a", NatClass::PortRestricted).home("b", NatClass::PortRestricted).build()
}

fn is_ready(world: &World, name: &str) -> bool {
    let host = world.host(name);
    host.node.as_ref().is_some_and(|node| node.status(host.now(world.now())).ready)
}

fn all_ready(world: &World) -> bool {
    world.names().all(|(name, _)| is_ready(world, name))
}

fn is_direct(world: &World, from: &str, to: &str) -> bool {
    let host = world.host(from);
    let Some(node) = &host.node else { return false };
    let peers = node.peers(host.now(world.now()));
    let path = peers.iter().find(|peer| peer.passport.name == to).and_then(|peer| peer.path.as_ref());
    path.is_some_and(|path| path.locator.is_direct())
}

#[test]
fn everybody_is_ready_soon() {
    for seed in 1..=3 {
        let mut world = homes(seed);
        let took = world.run_until(SECOND * 5, all_ready).expect("ready within five seconds");
        println!("seed {seed}: all ready after {took:?}");
        assert!(took <= SECOND * 2);
    }
}

#[test]
fn the_first_packet_is_not_lost_and_the_path_becomes_direct() {
    for seed in 1..=3 {
        let mut world = homes(seed);
        world.run_until(SECOND * 5, all_ready).expect("ready");
        let first = world.send("a", "b", Kind::Request);
        let answered = world.run_until(SECOND * 5, |w| w.answered(first).is_some()).expect("an answer");
        let took = world.took(first).expect("it arrived");
        println!("seed {seed}: cold: there in {:.1}, answered in {:.1} round trips", rtts(took), rtts(answered));
        assert!(took <= RTT * 8);
        let direct = world.run_until(SECOND * 5, |w| is_direct(w, "a", "b") && is_direct(w, "b", "a"));
        println!("seed {seed}: direct {:?} later", direct.expect("direct"));
        world.run_for(SECOND);
        let relayed = world.host("s").forwarding.counters.relayed.load(Ordering::Relaxed);
        let stream = world.stream("a", "b", Duration::from_millis(20), SECOND * 10);
        world.run_for(SECOND * 11);
        assert!(world.answers_of(stream).iter().all(|(_, took)| took.is_some_and(|took| took == RTT)));
        let after = world.host("s").forwarding.counters.relayed.load(Ordering::Relaxed);
        assert_eq!(after, relayed, "the super peer carries nothing of it any more");
    }
}

fn rtts(took: Duration) -> f64 {
    took.as_secs_f64() / RTT.as_secs_f64()
}
