//! Whom a node believes what.

use super::*;
use crate::document::{Contact, Passport};
use crate::id::TunnelKey;
use crate::testing::{key, tunnel_key};
use crate::tunnel::{Crypto, Purpose};
use crate::wire::control::Refusal;
use world::Model;

fn knock(to: u8, contact: &Contact) -> Vec<u8> {
    let contact = postcard::to_stdvec(contact).unwrap();
    wire::frame(wire::KNOCK, &Model(tunnel_key(9)).seal_to(&tunnel_key(to), Purpose::Knock, &contact))
}

#[test]
fn a_knock_is_as_good_as_its_chain() {
    let mut world = World::with_peers(&[A]);
    let peers = world.hosts[&A].node.peers.len();
    let mut contact = world.town.contact(9, Roles::PEER);
    let good = contact.clone();
    contact.whereabouts = world.town.sign_whereabouts(&world.town.whereabouts(9), 8);
    world.inject(A, address(9), knock(A, &contact));
    let foreign = crate::testing::Town::named("other").contact(9, Roles::PEER);
    world.inject(A, address(9), knock(A, &foreign));
    assert_eq!(world.dropped(A, Drop::BadDocument), 2);
    world.inject(A, address(9), knock(B, &good));
    world.inject(A, address(9), wire::frame(wire::KNOCK, &[]));
    assert_eq!(world.dropped(A, Drop::NotAuthentic), 2);
    assert_eq!(world.hosts[&A].node.peers.len(), peers);
    world.inject(A, address(9), knock(A, &good));
    assert!(world.hosts[&A].node.peers.contains_key(&node(9)));
    world.run(40_000);
    assert!(!world.hosts[&A].node.peers.contains_key(&node(9)), "who knocks and runs away is forgotten");
}

#[test]
fn an_old_contact_does_not_end_a_session() {
    let mut world = acquainted();
    let old = Whereabouts { sequence: 1, tunnel_key: TunnelKey([99; 32]), ..world.town.whereabouts(B) };
    let old = world.town.contact_at(B, Roles::PEER, &old);
    world.inject(A, address(9), knock(A, &old));
    let peer = &world.hosts[&A].node.peers[&node(B)];
    assert_eq!((peer.key, peer.path().is_some()), (tunnel_key(B), true));
}

#[test]
fn a_new_tunnel_key_takes_along_what_waits() {
    let mut world = World::with_peers(&[A]);
    let now = world.clock();
    let place = world.town.place(B, 1);
    world.host(A).node.resolver.learn_place(&place, now);
    world.say(A, B);
    let id = world.request(A, ping("node2"));
    world.start_with(B, Roles::PEER, &[LOGIN], TunnelKey([99; 32]));
    world.run(100);
    let contact = world.contact(B);
    world.inject(A, address(B), knock(A, &contact));
    world.run(2000);
    assert_eq!(world.host(B).tun.len(), 1, "the packet");
    assert!(matches!(world.host(A).answers.get(&id), Some(Answer::Pong { .. })), "the ping");
}

#[test]
fn nobody_takes_over_a_tunnel_key() {
    let mut world = acquainted();
    let thief = Whereabouts { tunnel_key: tunnel_key(B), ..world.town.whereabouts(9) };
    let thief = world.town.contact_at(9, Roles::PEER, &thief);
    world.inject(A, address(9), knock(A, &thief));
    assert_eq!(world.hosts[&A].node.by_key.get(&tunnel_key(B)), Some(&node(B)));
    assert_eq!(world.dropped(A, Drop::BadDocument), 1);
    // Before there is a session, the last to knock has the key: its handshake is right behind.
    let mut world = World::with_peers(&[A]);
    world.inject(A, address(9), knock(A, &thief));
    world.start(B, Roles::PEER, &[LOGIN]);
    world.run(1000);
    world.say(B, A);
    world.run(2000);
    assert_eq!(world.host(A).tun.len(), 1);
}

#[test]
fn a_control_message_comes_from_its_senders_own_address() {
    let mut world = acquainted();
    let other = node(9).address6(&world.town.network.id);
    world.tell_as(A, B, other, &Message::Bye);
    assert_eq!(world.dropped(A, Drop::BadMessage), 1);
    assert!(world.hosts[&A].node.peers.contains_key(&node(B)));
}

#[test]
fn only_a_super_peer_serves_and_only_a_super_peer_answers() {
    let mut world = acquainted();
    let contact = world.town.contact(B, Roles::PEER);
    let channel = crate::locator::Channel(1);
    let messages = [
        Message::LookupAnswer { id: 1, credential: None, whereabouts: None },
        Message::Published { sequence: 1 },
        Message::Knocked { channel, sealed: vec![] },
        Message::Refused { channel, why: Refusal::NotHere },
        Message::Renewed { credential: contact.credential.clone() },
        Message::Lookup { id: 1, subject: Subject::Name("x".to_owned()) },
        Message::Publish { contact: contact.clone() },
        Message::Knock { to: node(LOGIN), channel, sealed: vec![] },
        Message::Channel { channel, with: node(LOGIN) },
        Message::Renew,
        Message::SuperPeers,
    ];
    for (n, message) in messages.iter().enumerate() {
        world.tell(A, B, message);
        assert_eq!(world.dropped(A, Drop::BadMessage), n as u64 + 1, "{message:?}");
    }
    world.tell(A, B, &Message::SuperPeer { contact });
    assert!(!world.hosts[&A].node.homes.known().any(|place| place.passport.node == node(B)));
}

#[test]
fn a_super_peer_keeps_the_senders_own_whereabouts_only() {
    let mut world = World::with_peers(&[A, B]);
    let contact = world.town.contact(9, Roles::PEER);
    world.tell(LOGIN, A, &Message::Publish { contact });
    assert_eq!(world.dropped(LOGIN, Drop::BadDocument), 1);
    let mut forged = world.contact(A);
    forged.whereabouts = world.town.sign_whereabouts(&world.town.whereabouts(A), 9);
    world.tell(LOGIN, A, &Message::Publish { contact: forged });
    assert_eq!(world.dropped(LOGIN, Drop::BadDocument), 2);
}

#[test]
fn a_session_ends_with_the_passport_unless_a_newer_one_is_known() {
    let mut world = acquainted();
    let short = Passport { not_after: NOW + Duration::from_secs(30), ..world.town.passport(B, Roles::PEER) };
    let short = world.town.member(&short);
    world.host(A).node.peers.get_mut(&node(B)).unwrap().member = short.clone();
    let keep_talking = |world: &mut World| {
        for _ in 0..400 {
            world.say(B, A);
            world.run(100);
        }
    };
    keep_talking(&mut world);
    assert_eq!(world.host(A).tun.len(), 400, "the resolver knew a newer passport");

    let mut world = acquainted();
    world.host(A).node.peers.get_mut(&node(B)).unwrap().member = short.clone();
    world.host(A).node.resolver.plant(node(B), &short);
    // Nobody answers A, which asks for a newer one before the end.
    world.is_mute = true;
    world.cut.insert(LOGIN);
    keep_talking(&mut world);
    assert_eq!(world.dropped(A, Drop::BadDocument), 1);
    // B, told that it is a stranger, has knocked with the passport that it really has.
    let unix = world.clock().unix;
    assert!(world.hosts[&A].node.peers[&node(B)].member.passport.not_after > unix);
    assert!(world.host(A).tun.len() > 390);
}

#[test]
fn one_node_does_not_use_up_the_look_ups_of_all() {
    let mut world = World::with_peers(&[A, B]);
    world.is_mute = true;
    for id in 0..1000 {
        world.tell(LOGIN, A, &Message::Lookup { id, subject: Subject::Name(format!("nobody{id}")) });
    }
    assert!(world.dropped(LOGIN, Drop::RateLimited) > 900);
    let known = world.dropped(LOGIN, Drop::RateLimited);
    world.tell(LOGIN, A, &Message::Lookup { id: 1, subject: Subject::Node(node(B)) });
    world.tell(LOGIN, B, &Message::Lookup { id: 1, subject: Subject::Name("other".to_owned()) });
    assert_eq!(world.dropped(LOGIN, Drop::RateLimited), known, "what is known, and what others ask for");
    world.run(10_000);
    world.tell(LOGIN, A, &Message::Lookup { id: 1, subject: Subject::Name("later".to_owned()) });
    assert_eq!(
        world.dropped(LOGIN, Drop::RateLimited),
        known,
        "and when the answers are given it may ask again"
    );
}

#[test]
fn enrolment_is_for_login_servers() {
    let mut world = World::with_peers(&[A]);
    let sent = world.hosts[&A].sent.len();
    world.inject(A, address(9), wire::frame(wire::ENROL_REQUEST, &[0; 1400]));
    assert_eq!(world.dropped(A, Drop::UnknownFrame), 1);
    assert_eq!(world.hosts[&A].sent.len(), sent, "and no answer");
    let dropped = world.dropped(LOGIN, Drop::NotAuthentic);
    world.inject(LOGIN, address(9), wire::frame(wire::ENROL_REQUEST, &[0; 1400]));
    assert_eq!(world.dropped(LOGIN, Drop::NotAuthentic), dropped + 1);
}

#[test]
fn a_node_does_not_start_with_the_passport_of_another() {
    let world = World::new();
    let config = Config {
        network: world.town.network.clone(),
        genesis: world.town.genesis.clone(),
        key: key(A),
        credential: world.town.credential(B, Roles::PEER),
        seed: [0; 32],
        known: Vec::new(),
        login: None,
        advertise: Vec::new(),
        directory_port: 0,
        mtu: 1280,
        relay_rate: 0,
    };
    let crypto = Box::new(Model(tunnel_key(A)));
    let made = Node::new(config, crypto, Arc::new(Counters::default()), world.clock());
    assert_eq!(made.err(), Some(Invalid::Subject));
}
