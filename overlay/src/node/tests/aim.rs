//! Whom a node can be made to send to.

use super::*;
use crate::document::{Candidate, CandidateKind, Contact, Roles};
use crate::forward::Exception;
use crate::locator::{DoorId, Endpoint, Locator, StreamId, Via};
use crate::testing::tunnel_key;
use crate::tunnel::{Crypto, Purpose};
use crate::verdict::Drop;
use crate::wire;
use world::Model;

/// Where nobody of this network is.
const VICTIM: u8 = 77;

/// Datagrams that A sent there.
fn heard(world: &World, n: u8) -> usize {
    world.hosts[&A].sent.iter().filter(|(_, to, _)| *to == address(n)).count()
}

/// Whereabouts of B at a third party's address.
fn misplaced(world: &World) -> Contact {
    let candidates = vec![Candidate { kind: CandidateKind::Host, at: address(VICTIM) }];
    let whereabouts = Whereabouts { candidates, sequence: 50, ..world.town.whereabouts(B) };
    world.town.contact_at(B, Roles::PEER, &whereabouts)
}

#[test]
fn a_third_party_in_somebodys_whereabouts_hears_ten_datagrams() {
    let mut world = World::with_peers(&[A]);
    let (now, network) = (world.clock(), world.town.network.clone());
    let place = misplaced(&world).verify(&network, now.unix).expect("B signed it");
    world.host(A).node.resolver.learn_place(&place, now);
    world.say(A, B);
    world.run(20_000);
    let datagrams = heard(&world, VICTIM);
    assert!((2..=10).contains(&datagrams), "{datagrams}");
    assert_eq!(world.dropped(A, Drop::Unreachable), 1, "B is not there");
}

#[test]
fn a_node_is_not_made_to_talk_to_itself() {
    let mut world = World::with_peers(&[A]);
    let (now, network) = (world.clock(), world.town.network.clone());
    let own = ["127.0.0.1:53", "224.0.0.251:5353", "255.255.255.255:67"].map(|at| at.parse().unwrap());
    let candidates = own.map(|at| Candidate { kind: CandidateKind::Host, at }).to_vec();
    let whereabouts = Whereabouts { candidates, sequence: 50, ..world.town.whereabouts(B) };
    let contact = world.town.contact_at(B, Roles::PEER, &whereabouts);
    let place = contact.verify(&network, now.unix).expect("B signed it");
    world.host(A).node.resolver.learn_place(&place, now);
    world.say(A, B);
    world.run(20_000);
    assert!(world.hosts[&A].sent.iter().all(|(_, to, _)| !own.contains(to)));
}

#[test]
fn what_is_replayed_by_a_door_or_a_stream_is_answered_to_nobody() {
    let mut world = acquainted();
    let path = world.hosts[&A].node.peers[&node(B)].path();
    let contact = postcard::to_stdvec(&world.contact(B)).unwrap();
    let knock = Model(tunnel_key(B)).seal_to(&tunnel_key(A), Purpose::Knock, &contact);
    let mut replayed = vec![wire::frame(wire::KNOCK, &knock)];
    let to_a = world.hosts[&B].sent.iter().filter(|(_, to, _)| *to == address(A));
    let handshakes = to_a.map(|(.., bytes)| bytes.clone()).filter(|bytes| matches!(bytes[0], 1 | 2));
    replayed.extend(handshakes);
    let (sent, peers) = (heard(&world, VICTIM), world.hosts[&A].node.peers.len());
    for via in [Via::Main, Via::Door(DoorId(3)), Via::Stream(StreamId(5))] {
        for bytes in &replayed {
            let from = Locator::Direct(Endpoint { via, at: address(VICTIM) });
            world.except(A, Exception::Datagram { from, bytes: bytes.clone() });
        }
        world.run(5_000);
    }
    assert_eq!((heard(&world, VICTIM), world.hosts[&A].node.peers.len()), (sent, peers));
    assert_eq!(world.hosts[&A].node.peers[&node(B)].path(), path);
}
