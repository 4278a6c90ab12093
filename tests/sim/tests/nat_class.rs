//! What NAT is in front of a node: found with three super peers, unknown rather than wrong with fewer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::document::{Candidate, CandidateKind, NatClass};
use frejus_overlay::nat::Dependence;
use frejus_overlay::node::{Answer, Netcheck, Request};
use frejus_overlay::stream::{Passage, Tried};
use frejus_sim::link::{Quality, WAN};
use frejus_sim::nat::Behaviour;
use frejus_sim::nat::CLASSES;
use frejus_sim::scenario::{Scenario, router_of};
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// The target for the class.
const LIMIT: Duration = Duration::from_millis(1500);

fn stage(seed: u64, supers: usize) -> Scenario {
    ["s", "t", "u"].into_iter().take(supers).fold(Scenario::new(seed), Scenario::super_peer)
}

/// A user of `name` asks; the answer, and how long it took.
fn netcheck(world: &mut World, name: &str) -> (Netcheck, Duration) {
    let id = world.id(name);
    let request = world.request(id, Request::Netcheck);
    let begun = world.now();
    let answered = |world: &World| world.host(name).answers.contains_key(&request);
    world.run_until(SECOND * 3, answered).expect("an answer within three seconds");
    let (at, answer) = world.host(name).answers[&request].clone();
    let Answer::Netcheck(found) = answer else { panic!("{answer:?}") };
    (*found, at.since(begun))
}

#[test]
fn each_class_is_found_in_time_and_published() {
    for seed in 1..=5 {
        for class in CLASSES {
            let mut world = stage(seed, 3).home("a", class).build();
            world.run_until(SECOND * 5, World::all_ready).expect("ready");
            let (found, took) = netcheck(&mut world, "a");
            let label = format!("{} (seed {seed}): {found:?}", class.name());
            assert_eq!(found.found.class, class, "{label}");
            assert!(took <= LIMIT, "{label}: {took:?}");
            assert_eq!(found.servers.iter().filter(|server| server.rtt.is_some()).count(), 3, "{label}");
            let translated = !matches!(class, NatClass::Open | NatClass::Firewalled);
            assert_eq!(found.found.hairpin, translated.then_some(false), "{label}");
            assert_eq!(found.found.step, (class == NatClass::SymmetricSequential).then_some(1), "{label}");
            assert!(found.found.udp && !found.external.is_empty(), "{label}");
            assert_eq!(found.tried, Tried { own: Passage::Open, https: Passage::Blocked }, "{label}");
            world.run_for(SECOND * 2);
            let seen = ["s", "t", "u"].map(|name| world.status(name).expect("it runs").nat_classes);
            assert!(seen.iter().any(|seen| seen.contains_key(class.name())), "{label}: seen {seen:?}");
        }
    }
}

#[test]
fn by_itself_a_node_finds_out_within_seconds_of_its_start() {
    for class in CLASSES {
        let mut world = stage(1, 3).home("a", class).build();
        let is_known = |world: &World| world.status("a").is_some_and(|status| status.nat == class);
        assert!(
            world.run_until(SECOND * 15, is_known).is_some(),
            "{}: {:?}",
            class.name(),
            world.status("a")
        );
    }
}

#[test]
fn hairpins_are_found_where_there_are_any() {
    for class in [NatClass::FullCone, NatClass::AddressRestricted, NatClass::PortRestricted] {
        let behaviour = Behaviour::of(class).expect("a NAT").hairpin();
        let mut world = stage(2, 3).behind("a", behaviour).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let (found, _) = netcheck(&mut world, "a");
        assert_eq!((found.found.class, found.found.hairpin), (class, Some(true)), "{found:?}");
    }
}

#[test]
fn with_fewer_super_peers_it_is_unknown_rather_than_wrong_and_says_why() {
    for supers in 1..=2 {
        for class in CLASSES {
            let mut world = stage(3, supers).home("a", class).build();
            world.run_until(SECOND * 5, World::all_ready).expect("ready");
            let (found, took) = netcheck(&mut world, "a");
            let label = format!("{supers} super peers, {}: {found:?}", class.name());
            assert!([class, NatClass::Unknown].contains(&found.found.class), "{label}");
            assert_eq!(found.found.class == NatClass::Unknown, !found.found.gaps.is_empty(), "{label}");
            assert!(took <= LIMIT, "{label}");
        }
    }
}

#[test]
fn lost_packets_mislead_nobody() {
    let links = Quality { loss: 0.1, ..WAN };
    let mut unknown = 0;
    for seed in 1..=8 {
        for class in CLASSES {
            let mut world = stage(seed, 3).links(links).home("a", class).build();
            world.run_until(SECOND * 30, World::all_ready).expect("ready");
            let (found, took) = netcheck(&mut world, "a");
            let label = format!("{} (seed {seed}): {found:?}", class.name());
            assert!([class, NatClass::Unknown].contains(&found.found.class), "{label}");
            assert!(took <= LIMIT, "{label}: {took:?}");
            unknown += u32::from(found.found.class == NatClass::Unknown);
        }
    }
    assert!(unknown <= 8, "unknown {unknown} times of 56");
}

#[test]
fn a_super_peer_that_lies_changes_neither_class_nor_candidates() {
    let victim = "8.8.8.8:53".parse().expect("an address");
    for liar in ["s", "t", "u"] {
        for class in CLASSES {
            let mut world = stage(4, 3).home("a", class).build();
            let id = world.id(liar);
            world.hosts[id.0].forwarding.lie = Some(victim);
            world.run_until(SECOND * 5, World::all_ready).expect("ready");
            let (found, took) = netcheck(&mut world, "a");
            let label = format!("{liar} lies, {}: {found:?}", class.name());
            assert_eq!(found.found.class, class, "{label}");
            assert!(!found.external.contains(&victim) && !found.found.external.contains(&victim), "{label}");
            assert!(took <= LIMIT, "{label}: {took:?}");
            let candidates = world.status("a").expect("it runs").candidates;
            assert!(candidates.iter().all(|candidate| candidate.at != victim), "{label}");
            assert!(candidates.iter().any(|candidate| candidate.kind != CandidateKind::Relay), "{label}");
        }
    }
}

/// Two of one /16 lie alike, `honest` do not; what A, behind this NAT, thinks of itself.
fn among_liars(honest: &[[u8; 4]], class: NatClass) -> (Netcheck, World) {
    let mut scenario = Scenario::new(10).super_peer("s").super_peer("t");
    for (name, address) in ["u", "v"].into_iter().zip(honest) {
        scenario = scenario.super_peer(name).at(*address);
    }
    let mut world = scenario.home("a", class).build();
    for liar in ["s", "t"] {
        let id = world.id(liar);
        world.hosts[id.0].forwarding.lie = Some(VICTIM);
    }
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let (found, _) = netcheck(&mut world, "a");
    (found, world)
}

/// Whom liars name.
const VICTIM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), 53);

#[test]
fn two_of_one_network_that_lie_alike_are_not_believed() {
    for class in CLASSES {
        for honest in [&[[192, 88, 99, 1], [198, 18, 0, 1]][..], &[[192, 88, 99, 1]]] {
            let (found, world) = among_liars(honest, class);
            let label = format!("{} among {} honest: {found:?}", class.name(), honest.len());
            assert!(!found.external.contains(&VICTIM), "{label}");
            assert!(!found.found.external.contains(&VICTIM), "{label}");
            assert!([class, NatClass::Unknown].contains(&found.found.class), "{label}");
            let candidates = world.status("a").expect("it runs").candidates;
            assert!(candidates.iter().all(|candidate| candidate.at.ip() != VICTIM.ip()), "{label}");
        }
    }
}

#[test]
fn two_of_different_networks_that_agree_are_believed_against_a_liar() {
    let scenario = Scenario::new(11).super_peer("s").super_peer("t").at([192, 88, 99, 1]);
    let mut world = scenario.super_peer("u").at([192, 89, 1, 1]).home("a", NatClass::PortRestricted).build();
    let id = world.id("s");
    world.hosts[id.0].forwarding.lie = Some(VICTIM);
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    let (found, _) = netcheck(&mut world, "a");
    let outer: IpAddr = Ipv4Addr::new(198, 51, 100, 4).into();
    assert!(found.found.external.iter().any(|at| at.ip() == outer), "{found:?}");
    assert!(!found.found.external.contains(&VICTIM), "{found:?}");
    let candidates = world.status("a").expect("it runs").candidates;
    let reflexive = |candidate: &Candidate| candidate.kind == CandidateKind::Reflexive;
    assert!(candidates.iter().any(|candidate| reflexive(candidate) && candidate.at.ip() == outer));
}

#[test]
fn blocked_udp_is_told_by_the_stream_that_gets_through() {
    let mut world = stage(5, 3).home("a", NatClass::UdpBlocked).build();
    world.run_for(SECOND * 2);
    let (found, took) = netcheck(&mut world, "a");
    assert_eq!((found.found.class, found.found.udp), (NatClass::UdpBlocked, false));
    assert_eq!(found.found.mapping, Dependence::Unknown);
    assert_eq!(found.tried.own, Passage::Open);
    assert!(took <= LIMIT, "{took:?}");
}

#[test]
fn who_reaches_nobody_is_told_so_in_time() {
    let mut world = stage(9, 3).home("a", NatClass::PortRestricted).build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    ["s", "t", "u"].into_iter().for_each(|other| world.set_cut("a", other, true));
    let (found, took) = netcheck(&mut world, "a");
    assert_eq!(found.tried, Tried { own: Passage::Blocked, https: Passage::Blocked });
    assert!(!found.found.udp && took <= LIMIT, "{took:?}: {found:?}");
}

#[test]
fn a_node_in_another_network_looks_again() {
    let mut world = stage(6, 3).home("a", NatClass::PortRestricted).home("b", NatClass::FullCone).build();
    let is =
        |name: &'static str, class| move |world: &World| world.status(name).is_some_and(|s| s.nat == class);
    world.run_until(SECOND * 15, is("a", NatClass::PortRestricted)).expect("found");
    let (id, realm) = (world.id("a"), world.host("b").realm);
    world.relocate(id, realm, "192.168.77.77:51860".parse().expect("an address"));
    let took = world.run_until(SECOND * 15, is("a", NatClass::FullCone));
    assert!(took.is_some(), "{:?}", world.status("a"));
}

#[test]
fn a_look_leaves_no_socket_open_and_costs_little() {
    let mut world = stage(7, 3).home("a", NatClass::PortRestricted).build();
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    world.run_for(SECOND * 20);
    assert!(world.host("a").doors.is_empty());
    let before = world.traffic("a").out;
    let (_, took) = netcheck(&mut world, "a");
    let spent = world.traffic("a").out - before;
    assert!(world.host("a").doors.is_empty() && spent < 8000, "{spent} bytes in {took:?}");
}

/// Somebody changes the router's settings; nothing on the machine itself says so.
#[test]
fn the_class_follows_the_router() {
    for (seed, [first, then]) in (1..).zip([
        [NatClass::SymmetricRandom, NatClass::PortRestricted],
        [NatClass::PortRestricted, NatClass::SymmetricSequential],
        [NatClass::PortRestricted, NatClass::SymmetricRandom],
    ]) {
        let mut world = stage(seed, 3).home("a", first).build();
        let class = |world: &World| world.status("a").map(|status| status.nat);
        world.run_until(SECOND * 10, |world| class(world) == Some(first)).expect("found");
        world.run_for(SECOND * 30);
        let router = router_of(world.host("a").realm).expect("a home has a router");
        world.internet.nat(router).replace(Behaviour::of(then).expect("a NAT"));
        // An idle home is asked every 24 s.
        let took = world.run_until(SECOND * 40, |world| class(world) == Some(then));
        println!("{} to {} after {took:?}", first.name(), then.name());
        assert!(took.is_some(), "{} to {}: {:?}", first.name(), then.name(), class(&world));
        world.run_for(SECOND * 60);
        assert_eq!(class(&world), Some(then), "and stays");
    }
}
