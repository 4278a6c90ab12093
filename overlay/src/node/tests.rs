//! The node as a whole: what it refuses, and what it does not lose.

mod aim;
mod garbage;
mod moving;
mod trial;
mod trust;
mod world;

use std::time::Duration;

use super::*;
use crate::document::Whereabouts;
use crate::testing::{LOGIN, NOW, address, node};
use crate::wire::control::Message;
use world::{SUPER, World, virtual4};

const A: u8 = 1;
const B: u8 = 2;

/// A and B with a session, and their login server.
fn acquainted() -> World {
    let mut world = World::with_peers(&[A, B]);
    world.say(A, B);
    world.run(2000);
    assert_eq!(world.host(B).tun.len(), 1, "the packet arrives");
    assert!(world.hosts[&A].node.peers[&node(B)].path().is_some_and(|path| path.is_direct()));
    world
}

fn ping(peer: &str) -> Request {
    Request::Ping { peer: peer.to_owned(), timeout: Duration::from_secs(3) }
}

fn resolve(query: &str) -> Request {
    Request::Resolve { query: query.to_owned() }
}

/// What came of a request after ten seconds.
fn outcome(world: &mut World, request: Request) -> Answer {
    let id = world.request(A, request);
    world.run(10_000);
    world.host(A).answers.remove(&id).expect("every request is answered")
}

#[test]
fn nodes_become_ready_and_packets_arrive_in_order() {
    let mut world = acquainted();
    for n in [A, B, LOGIN] {
        assert!(world.host(n).events.contains(&Event::Ready), "node {n}");
    }
    for _ in 0..100 {
        world.say(A, B);
        world.say(B, A);
        world.run(50);
    }
    assert_eq!((world.host(A).tun.len(), world.host(B).tun.len()), (100, 101));
}

#[test]
fn requests_that_cannot_be_fulfilled_say_why() {
    let mut world = World::with_peers(&[A, B]);
    let failed = |why| Answer::Failed(why);
    let nobody = failed(Failed::NoSuchPeer("nobody".to_owned()));
    assert_eq!(outcome(&mut world, ping("nobody")), nobody);
    assert_eq!(outcome(&mut world, resolve("nobody")), nobody);
    let itself = failed(Failed::Senseless("10.93.1.1 is this node itself".to_owned()));
    assert_eq!(outcome(&mut world, ping("10.93.1.1")), itself);
    assert!(matches!(outcome(&mut world, ping("node1")), Answer::Failed(Failed::Senseless(_))));
    assert!(matches!(outcome(&mut world, ping("192.0.2.1")), Answer::Failed(Failed::NoSuchPeer(_))));
    let invitation =
        Invitation { roles: Roles::PEER, uses: 1, life: Duration::from_secs(60), name: None, address: None };
    assert_eq!(outcome(&mut world, Request::Invite(invitation)), failed(Failed::NotLogin));
    assert!(matches!(outcome(&mut world, ping("node2.mymed.internal")), Answer::Pong { .. }));
    assert!(matches!(outcome(&mut world, ping(&virtual4(B).to_string())), Answer::Pong { .. }));
    assert!(matches!(outcome(&mut world, ping(&node(B).to_string())), Answer::Pong { .. }));
    assert!(matches!(outcome(&mut world, resolve("NODE2")), Answer::Resolved(_)));
    world.cut.insert(B);
    world.run(20_000);
    assert!(matches!(
        outcome(&mut world, ping("node2")),
        Answer::Failed(Failed::TimedOut(_) | Failed::Unreachable(_))
    ));
}

#[test]
fn a_beginning_names_a_node_as_long_as_it_is_enough() {
    let mut world = acquainted();
    let beginning = node(B).to_string()[..10].to_owned();
    assert!(matches!(outcome(&mut world, ping(&beginning)), Answer::Pong { .. }));
    // A node whose ID begins alike; found by trying keys is out of reach, so the membership is planted.
    let mut twin = node(B);
    twin.0[31] ^= 1;
    let place = world.town.place(B, 1);
    world.host(A).node.resolver.plant(twin, &place.member());
    assert_eq!(outcome(&mut world, ping(&beginning)), Answer::Failed(Failed::Ambiguous(beginning)));
}

#[test]
fn goodbye_is_understood_and_the_way_back_is_found() {
    let mut world = acquainted();
    let id = world.request(B, Request::Stop);
    assert_eq!(world.host(B).answers.get(&id), Some(&Answer::Stopped));
    world.run(100);
    assert!(!world.hosts[&A].node.peers.contains_key(&node(B)));
    world.say(A, B);
    world.run(2000);
    assert_eq!(world.host(B).tun.len(), 2);
}

#[test]
fn a_ping_under_way_is_answered_when_the_peer_leaves() {
    let mut world = acquainted();
    world.cut.insert(B);
    let id = world.request(A, ping("node2"));
    world.tell(A, B, &Message::Bye);
    world.run(5000);
    assert!(matches!(world.host(A).answers.get(&id), Some(Answer::Failed(_))));
}

#[test]
fn pings_under_way_are_bounded() {
    let mut world = acquainted();
    world.cut.insert(B);
    let ids: Vec<_> = (0..=crate::limits::REQUESTS).map(|_| world.request(A, ping("node2"))).collect();
    assert_eq!(world.host(A).answers.get(ids.last().unwrap()), Some(&Answer::Failed(Failed::Busy)));
    world.run(5000);
    assert_eq!(world.host(A).answers.len(), ids.len());
}

#[test]
fn forged_hints_cost_a_handshake_a_second_and_no_packet() {
    let mut world = acquainted();
    let (began, heard) = (world.now, world.host(B).tun.len());
    for n in 0..500 {
        world.inject(A, address(B), wire::frame(wire::STRANGER, &[]));
        if n % 5 == 0 {
            world.say(A, B);
        }
        world.run(10);
    }
    world.run(100);
    assert!(
        world.initiations(A, began) <= 12,
        "{} in five seconds, on two ways",
        world.initiations(A, began)
    );
    assert_eq!(world.host(B).tun.len() - heard, 100);
    // From somewhere else a hint is nothing at all.
    let began = world.now;
    world.inject(A, address(77), wire::frame(wire::STRANGER, &[]));
    world.run(1000);
    assert_eq!(world.initiations(A, began), 0);
}

#[test]
fn a_handshake_that_overtakes_its_knock_is_answered() {
    let mut world = World::new();
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    world.run(10);
    world.cut.insert(LOGIN);
    world.start(A, Roles::PEER, &[LOGIN]);
    world.run(100);
    let sent = |world: &World, n: u8, is_it: fn(&wire::Frame<'_>) -> bool| {
        let mut all = world.hosts[&n].sent.iter().map(|(.., bytes)| bytes.clone());
        all.find(|bytes| wire::classify(bytes).is_some_and(|frame| is_it(&frame)))
    };
    let initiation = |frame: &wire::Frame<'_>| *frame == wire::Frame::Wireguard(wire::Wireguard::Initiation);
    let answer =
        |frame: &wire::Frame<'_>| matches!(frame, wire::Frame::Wireguard(wire::Wireguard::Answer(_)));
    let knock = |frame: &wire::Frame<'_>| matches!(frame, wire::Frame::Knock(_));
    let (initiation, knock) = (sent(&world, A, initiation).unwrap(), sent(&world, A, knock).unwrap());
    world.inject(LOGIN, address(A), initiation);
    assert_eq!(sent(&world, LOGIN, answer), None, "nobody knows whose it is");
    world.inject(LOGIN, address(A), knock);
    assert!(sent(&world, LOGIN, answer).is_some());
}

#[test]
fn a_home_that_forgot_everything_is_told_again() {
    let mut world = acquainted();
    world.run(10_000);
    let key = crate::id::RecordKey::whereabouts(&world.town.network.id, &node(A));
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    // The next keepalive finds a stranger.
    world.run(40_000);
    assert!(world.host(LOGIN).published.contains(&key));
}

#[test]
fn a_node_that_has_just_begun_says_where_it_is() {
    let mut world = World::new();
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    let contact = world.host(LOGIN).node.presence.contact().clone();
    let place = contact.verify(&world.town.network, world.clock().unix).unwrap();
    assert!(!place.whereabouts.candidates.is_empty(), "nobody has had time for anything");
}

#[test]
fn a_super_peer_that_is_nowhere_is_remembered_where_it_was() {
    let mut world = World::with_peers(&[A]);
    world.run(1000);
    let place = Whereabouts { sequence: u64::MAX, candidates: Vec::new(), ..world.town.whereabouts(LOGIN) };
    let contact = world.town.contact_at(LOGIN, SUPER.with(Roles::LOGIN), &place);
    world.tell(A, LOGIN, &Message::SuperPeer { contact });
    let known = world.hosts[&A].node.homes.place(&node(LOGIN)).unwrap();
    assert!(!known.whereabouts.candidates.is_empty());
}

#[test]
fn a_super_peer_that_moves_tells_those_whose_home_it_is() {
    let mut world = World::with_peers(&[A]);
    world.run(1000);
    let elsewhere = "198.51.100.77:51860".parse().unwrap();
    let now = world.clock();
    world.host(LOGIN).node.handle_links(vec![elsewhere], now);
    world.drain(LOGIN);
    world.run(1000);
    let known = world.hosts[&A].node.homes.place(&node(LOGIN)).unwrap();
    assert!(known.whereabouts.candidates.iter().any(|candidate| candidate.at == elsewhere));
}

#[test]
fn a_first_packet_that_control_sends_starts_the_probes() {
    let mut world = acquainted();
    world.run(20_000);
    let is_active = |world: &World| world.hosts[&B].node.peers[&node(A)].is_active(world.clock().instant);
    assert!(!is_active(&world));
    // B answers before its forwarding table knows of the session.
    world.except(B, Exception::Unroutable { packet: world::packet(B, A) });
    assert!(is_active(&world));
    world.run(600);
    let before = world.host(B).sent.len();
    world.run(1000);
    assert!(world.host(B).sent.len() >= before + 2, "two probes a second at least");
}

#[test]
fn a_home_with_a_new_tunnel_key_is_found_again() {
    let mut world = World::with_peers(&[A]);
    world.run(1000);
    world.start_with(LOGIN, SUPER.with(Roles::LOGIN), &[], TunnelKey([77; 32]));
    world.cut.insert(LOGIN);
    let contact = world.contact(LOGIN);
    world.tell(A, LOGIN, &Message::SuperPeer { contact: contact.clone() });
    let place = contact.verify(&world.town.network, world.clock().unix).unwrap();
    world.host(A).node.admit(place);
    world.host(A).node.finish();
    world.drain(A);
    assert_eq!(world.hosts[&A].node.homes.up(), 0, "the session with the old key is none with the new one");
    world.cut.clear();
    world.run(10_000);
    assert_eq!(world.hosts[&A].node.homes.up(), 1);
}

#[test]
fn a_super_peer_with_a_standing_session_can_become_a_home() {
    let mut world = World::new();
    for n in 100..103 {
        world.start(n, SUPER, &[]);
    }
    world.start(A, Roles::PEER, &[100, 101, 102]);
    world.run(2000);
    let spare = (100..103).find(|n| !world.hosts[&A].node.homes.ids().any(|home| home == node(*n))).unwrap();
    let other = (100..103).find(|n| *n != spare).unwrap();
    world.host(A).node.connect(node(spare));
    world.host(A).node.finish();
    world.drain(A);
    world.run(1000);
    world.cut.insert(other);
    world.run(60_000);
    assert!(world.hosts[&A].node.homes.ids().any(|home| home == node(spare)));
    assert_eq!(world.hosts[&A].node.homes.up(), 2);
}

#[test]
fn whereabouts_that_name_an_ordinary_node_as_home_make_nobody_dial_it() {
    const C: u8 = 3;
    let mut world = World::with_peers(&[A, B, C]);
    let homes = vec![node(C), node(LOGIN)];
    let place = Whereabouts { sequence: u64::MAX, homes, ..world.town.whereabouts(B) };
    let place = world.town.contact_at(B, Roles::PEER, &place).verify(&world.town.network, NOW).unwrap();
    let ordinary = world.contact(C).verify(&world.town.network, NOW).unwrap();
    let now = world.clock();
    world.host(A).node.resolver.learn_place(&ordinary, now);
    world.host(A).node.resolver.learn_place(&place, now);
    world.say(A, B);
    world.run(500);
    assert!(world.hosts[&A].node.peers.contains_key(&node(B)));
    assert!(!world.hosts[&A].node.peers.contains_key(&node(C)));
}

#[test]
fn a_passport_is_renewed_in_time_and_the_laws_hold() {
    let mut world = World::new();
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    let label = frejus_ipam::Label::parse("node100").unwrap();
    let now = world.clock().unix;
    world.host(LOGIN).node.login.as_mut().unwrap().issue_own(&label, SUPER.with(Roles::LOGIN), now).unwrap();
    let life = world.town.network.genesis.passport_life();
    world.now += life * 2 / 3;
    world.run(120_000);
    assert!(world.host(LOGIN).events.iter().any(|event| matches!(event, Event::Renewed { .. })));
}

#[test]
fn a_passport_is_renewed_by_a_login_server_that_is_no_home() {
    let mut world = World::new();
    for n in [101, 102] {
        world.start(n, SUPER, &[]);
    }
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    world.start(A, Roles::PEER, &[101, 102]);
    world.run(1000);
    let contact = world.contact(LOGIN);
    world.tell(A, 101, &Message::SuperPeer { contact });
    // A was enrolled there.
    let invitation =
        Invitation { roles: Roles::PEER, uses: 1, life: Duration::from_secs(60), name: None, address: None };
    let (network, clock) = (world.town.network.id, world.clock().unix);
    let (key, name) = (crate::testing::key(A), Some("node1".to_owned()));
    let request = wire::enrol::Request::new(&network, &key, TunnelKey([A; 32]), name, [1; 16], clock);
    let login = world.host(LOGIN).node.login.as_mut().unwrap();
    login.invite(&invitation, [1; 16], clock).unwrap();
    login.enrol(&request, clock).unwrap();
    assert!(!world.hosts[&A].node.homes.ids().any(|home| home == node(LOGIN)));
    world.now += world.town.network.genesis.passport_life() * 2 / 3;
    world.run(300_000);
    assert!(world.host(A).events.iter().any(|event| matches!(event, Event::Renewed { .. })));
}

#[test]
fn a_code_that_leads_nowhere_is_not_made() {
    let mut world = World::new();
    world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
    world.run(100);
    let invitation =
        Invitation { roles: Roles::PEER, uses: 1, life: Duration::from_secs(60), name: None, address: None };
    let invite = || Request::Invite(invitation.clone());
    let id = world.request(LOGIN, invite());
    world.run(100);
    assert!(matches!(world.host(LOGIN).answers.remove(&id), Some(Answer::Invited { .. })));
    let now = world.clock();
    world.host(LOGIN).node.handle_links(Vec::new(), now);
    world.run(3000);
    let id = world.request(LOGIN, invite());
    world.run(100);
    let answer = world.host(LOGIN).answers.remove(&id);
    assert_eq!(answer, Some(Answer::Failed(Failed::NoAddress)));
}

#[test]
fn publications_under_way_are_bounded() {
    let mut presence = Presence::new(Vec::new(), 0, Instant::ZERO);
    assert!(presence.publish_unanswered(1000) <= 64);
}

#[test]
fn no_secret_is_printed_by_accident() {
    let answer = Answer::Invited { code: "frejus1secret".to_owned() };
    assert!(!format!("{answer:?}").contains("secret"));
}
