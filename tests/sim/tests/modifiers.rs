//! What stands beyond the pairs of classes, as on the kernel: one NAT around both, carriers, careless routers.

use std::time::Duration;

use frejus_overlay::document::{Candidate, NatClass};
use frejus_overlay::node::{Answer, Method, Request};
use frejus_sim::internet::Site;
use frejus_sim::link::{Quality, WAN};
use frejus_sim::nat::Behaviour;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// An ordinary punch takes less than one; a meeting in all its orders some more.
const SOON: Duration = Duration::from_secs(6);

/// A birthday guess takes at most 21 s, and waits for a flow that lasts.
const GUESS: Duration = Duration::from_secs(24);

fn three_super_peers(seed: u64) -> Scenario {
    Scenario::new(seed).super_peer("s").super_peer("t").super_peer("u")
}

fn behaviour(class: NatClass) -> Behaviour {
    Behaviour::of(class).expect("a class with a NAT")
}

/// `a` speaks first: how soon both are direct, and by which method on both sides. Nothing may be lost.
fn way(world: &mut World, patience: Duration) -> Option<(Duration, [Method; 2])> {
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    // The survey that follows takes a second and a half.
    world.run_for(SECOND * 3);
    let begun = world.now();
    let stream = world.stream("a", "b", Duration::from_millis(50), patience + SECOND);
    let direct = world.run_until(patience, |world| world.is_direct("a", "b") && world.is_direct("b", "a"));
    let method = |from, to| world.path(from, to).map(|path| path.method);
    let methods = method("a", "b").zip(method("b", "a")).map(|(one, other)| [one, other]);
    let left = patience + SECOND * 3 - world.now().since(begun);
    world.run_for(left);
    assert_eq!(world.unanswered(stream, begun, world.now()), 0, "{}", world.story());
    eprintln!("direct after {direct:?} by {methods:?}");
    Some((direct?, methods?))
}

#[test]
fn hosts_of_one_lan_speak_there_whatever_the_class() {
    for (seed, class) in (1..).zip([NatClass::SymmetricRandom, NatClass::SymmetricSequential]) {
        let mut world = three_super_peers(seed).home("a", class).beside("b", "a").build();
        let found = way(&mut world, SOON);
        assert_eq!(
            found.map(|(_, methods)| methods),
            Some([Method::Local; 2]),
            "{class:?}: {}",
            world.story()
        );
    }
}

/// Two hosts of one router who do not hear each other.
fn isolated(seed: u64, behaviour: Behaviour, patience: Duration) -> Option<(Duration, [Method; 2])> {
    let mut world = three_super_peers(seed).behind("a", behaviour).beside("b", "a").build();
    let ends = (Site::Host(world.id("a")), Site::Host(world.id("b")));
    for link in world.internet.links(ends) {
        link.cut = true;
    }
    way(&mut world, patience)
}

#[test]
fn isolated_hosts_meet_by_the_hairpin_or_have_a_relay() {
    for (seed, class) in (1..).zip([NatClass::FullCone, NatClass::PortRestricted]) {
        let found = isolated(seed, behaviour(class).hairpin(), SOON);
        assert_eq!(found.map(|(_, methods)| methods), Some([Method::Hairpin; 2]), "{class:?}");
        assert_eq!(isolated(seed, behaviour(class), SECOND * 12), None, "{class:?}: no hairpin");
    }
}

#[test]
fn homes_of_one_carrier_meet_where_it_hairpins() {
    for hairpin in [true, false] {
        let plain = behaviour(NatClass::PortRestricted);
        let carrier = if hairpin { plain.hairpin() } else { plain };
        let mut world = three_super_peers(1)
            .behind("carrier", carrier)
            .later()
            .nested("a", NatClass::PortRestricted, "carrier")
            .nested("b", NatClass::PortRestricted, "carrier")
            .build();
        let found = way(&mut world, SECOND * 12).map(|(_, methods)| methods);
        assert_eq!(found, hairpin.then_some([Method::Hairpin; 2]), "{}", world.story());
    }
}

#[test]
fn homes_of_one_carrier_whose_routers_say_where_they_are_meet_there() {
    for seed in 1..=5 {
        let class = NatClass::PortRestricted;
        let carrier = three_super_peers(seed).home("carrier", class).later();
        let mut world = carrier.nested("a", class, "carrier").nested("b", class, "carrier").build();
        let at = ["a", "b"].map(|name| world.router_says(name));
        let found = way(&mut world, SOON).map(|(_, methods)| methods);
        assert_eq!(found, Some([Method::Punched; 2]), "seed {seed}: {}", world.story());
        assert_eq!(world.path("a", "b").expect("a path").locator.remote().ip(), at[1]);
    }
}

#[test]
fn a_place_in_a_carriers_network_is_told_in_sessions_and_tried_by_who_may_be_there() {
    let class = NatClass::PortRestricted;
    let carrier = three_super_peers(1).home("carrier", class).later().nested("b", class, "carrier");
    let mut world = carrier.home("a", class).build();
    let at = world.router_says("b");
    world.trace.capture = Some(Vec::new());
    let found = way(&mut world, SOON).map(|(_, methods)| methods);
    assert_eq!(found, Some([Method::Punched; 2]), "{}", world.story());
    let told = |places: &[Candidate]| places.iter().any(|place| place.at.ip() == at);
    assert!(told(&world.status("b").expect("it runs").candidates), "to peers");
    let (s, query) = (world.id("s"), "b".to_owned());
    let asked = world.request(s, Request::Resolve { query });
    world.run_for(SECOND);
    match world.host("s").answers.get(&asked) {
        Some((_, Answer::Resolved(found))) => {
            let place = found.whereabouts.as_ref().expect("it is up");
            assert!(!told(&place.candidates), "in whereabouts: {place:?}");
        }
        other => panic!("{other:?}"),
    }
    let from = world.id("a");
    let tried = world.trace.capture.iter().flatten().filter(|sent| sent.from == from && sent.to.ip() == at);
    assert_eq!(tried.count(), 0, "a is elsewhere");
}

#[test]
fn a_cone_under_a_symmetric_carrier_is_as_good_as_the_carrier() {
    for (other, method, patience) in [
        (NatClass::AddressRestricted, Method::Punched, SOON),
        (NatClass::PortRestricted, Method::Guessed, GUESS),
    ] {
        let mut world = three_super_peers(2)
            .home("carrier", NatClass::SymmetricRandom)
            .later()
            .nested("a", NatClass::FullCone, "carrier")
            .home("b", other)
            .build();
        let found = way(&mut world, patience);
        assert_eq!(found.map(|(_, methods)| methods[0]), Some(method), "{other:?}: {}", world.story());
    }
}

#[test]
fn careless_routers_are_crossed_twenty_times_out_of_twenty() {
    let careful = behaviour(NatClass::PortRestricted);
    let careless = careful.careless();
    for (a, b) in [(careless, careful), (careful, careless), (careless, careless)] {
        for seed in 1..=20 {
            let mut world = three_super_peers(seed).behind("a", a).behind("b", b).build();
            let found = way(&mut world, SOON);
            let methods = found.map(|(_, methods)| methods);
            let which = [a.careless, b.careless];
            assert_eq!(methods, Some([Method::Punched; 2]), "{which:?}, seed {seed}: {}", world.story());
        }
    }
}

/// Next door to each other nobody can speak while the other's word is on its way; what dies on the way needs no distance.
#[test]
fn careless_routers_are_crossed_where_nothing_takes_time() {
    let careless = behaviour(NatClass::PortRestricted).careless();
    let far = Quality { jitter: Duration::from_millis(3), ..WAN };
    for seed in 1..=20 {
        let scenario = three_super_peers(seed).links(far);
        let mut world = scenario.behind("a", careless).behind("b", careless).build();
        world.set_quality("a", "b", Quality { latency: Duration::from_micros(20), ..WAN });
        let found = way(&mut world, SOON);
        let methods = found.map(|(_, methods)| methods);
        assert_eq!(methods, Some([Method::Punched; 2]), "seed {seed}: {}", world.story());
    }
}
