//! What a node says and believes when it has moved, or has slept, and when somebody else has.

use super::*;
use crate::forward::Exception;
use crate::locator::{Endpoint, Locator};
use crate::packet::udp6::Udp6;
use crate::tunnel::{HEADER, OVERHEAD};
use crate::wire::RELAY_HEADER;

/// Where B is as well.
const ELSEWHERE: u8 = 77;

/// What node `n` told others since `since`, and where it went; the model seals nothing.
fn told(world: &World, n: u8, since: Instant) -> Vec<(SocketAddr, Message)> {
    let message = |sealed: &[u8]| {
        let packet = sealed.get(HEADER..sealed.len().checked_sub(OVERHEAD - HEADER)?)?;
        Message::decode(Udp6::parse(packet)?.payload)
    };
    let sent = world.hosts[&n].sent.iter().filter(|(at, ..)| *at >= since);
    let said = sent.filter_map(|(_, to, bytes)| {
        let front =
            if matches!(wire::classify(bytes), Some(wire::Frame::Relay(..))) { RELAY_HEADER } else { 0 };
        Some((*to, message(&bytes[front..])?))
    });
    said.collect()
}

fn is_moved((_, message): &(SocketAddr, Message)) -> bool {
    matches!(message, Message::Moved { .. })
}

fn paths(world: &World, n: u8, to: u8) -> &crate::paths::Paths {
    &world.hosts[&n].node.peers[&node(to)].paths
}

fn straight(n: u8) -> Locator {
    Locator::Direct(address(n).into())
}

#[test]
fn who_moves_says_so_to_everybody_and_trusts_no_path_until_it_answers() {
    let mut world = acquainted();
    let moved = world.clock();
    world.host(A).node.handle_moved(moved);
    world.drain(A);
    let told: Vec<_> =
        told(&world, A, moved.instant).into_iter().filter(is_moved).map(|(to, _)| to).collect();
    assert_eq!(told.first(), Some(&address(LOGIN)), "homes first");
    assert!(told.contains(&address(B)), "{told:?}");
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), Some(moved.instant));
    assert!(paths(&world, A, B).also(world.now).is_some(), "nothing goes one way alone");
    world.run(100);
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), None);
    assert!(paths(&world, A, B).also(world.now).is_none());
}

/// B says from another place that it has moved.
fn says_that_it_moved(world: &mut World) {
    let payload = Message::Moved { token: 7 }.encode();
    let (source, destination) = (B, A);
    let [source, destination] = [source, destination].map(|n| node(n).address6(&world.town.network.id));
    let port = wire::control::PORT;
    let datagram = Udp6 { source, destination, source_port: port, destination_port: port, payload: &payload };
    let mut packet = vec![0; 48 + payload.len()];
    datagram.write(&mut packet).expect("there is room");
    let slot = world.hosts[&A].node.peers[&node(B)].slot;
    let from = Locator::Direct(Endpoint::main(address(ELSEWHERE)));
    world.except(A, Exception::Control { slot, from, packet });
}

#[test]
fn whoever_hears_that_a_peer_moved_asks_all_its_places_once_a_second() {
    let mut world = acquainted();
    let began = world.now;
    says_that_it_moved(&mut world);
    let told = told(&world, A, began);
    let asked = |at: u8| {
        told.iter().any(|(to, message)| *to == address(at) && matches!(message, Message::Probe { .. }))
    };
    assert!(asked(B), "whether it is still where it was: {told:?}");
    assert!(asked(ELSEWHERE), "whether it is there: {told:?}");
    assert!(
        told.contains(&(address(ELSEWHERE), Message::ProbeAck { token: 7, seen: Some(address(ELSEWHERE)) }))
    );
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), Some(began));
    assert!(paths(&world, A, B).also(world.now).is_some());
    world.run(100);
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), None, "it answers where it was");
    says_that_it_moved(&mut world);
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), None, "said too soon after");
    world.run(1000);
    says_that_it_moved(&mut world);
    assert_eq!(paths(&world, A, B).distrusted(straight(B)), Some(world.now));
}

#[test]
fn a_machine_that_slept_has_moved() {
    let mut world = acquainted();
    world.now += Duration::from_secs(3600);
    let woken = world.now;
    world.run(0);
    let told = told(&world, A, woken);
    assert!(told.iter().any(is_moved), "{told:?}");
}

#[test]
fn what_was_due_long_ago_when_it_was_first_wanted_is_no_sleep() {
    let mut world = World::with_peers(&[A, B]);
    world.run(30_000);
    let began = world.now;
    // The size that their path takes is measured at once, then again after a long silence.
    world.say(A, B);
    world.run(2_000);
    world.run(400_000);
    world.say(A, B);
    world.run(2_000);
    assert_eq!(world.host(B).tun.len(), 2);
    for n in [A, B, LOGIN] {
        let told: Vec<_> = told(&world, n, began).into_iter().filter(is_moved).collect();
        assert_eq!(told, [], "node {n}");
    }
}
