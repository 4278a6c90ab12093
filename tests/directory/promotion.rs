//! Clients that become servers, because a super peer could dial them, and stop being it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use frejus::directory::{DirectoryConfig, Transports};
use frejus_overlay::id::{NetworkId, RecordKey};

use super::forwarder::Forwarder;
use super::node::{Node, candidate, deaf, runtime, server, strict};
use super::record;

const NETWORK: NetworkId = NetworkId([1; 32]);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_reachable_client_serves_and_goes_on_when_the_super_peer_is_gone() {
    for transports in [Transports::Tcp, Transports::Quic] {
        let runtime = runtime();
        let keeper = Node::start(&runtime, server(NETWORK, 1), strict());
        let start = |config| {
            let node = Node::start(&runtime, DirectoryConfig { transports, ..config }, strict());
            node.knows(std::slice::from_ref(&keeper));
            node
        };
        let mut helper = start(candidate(NETWORK, 2));
        helper.wait_for_server(true);

        // Nobody names the helper to these two: they learn of it from the super peer.
        let (mut author, mut reader) = (start(deaf(NETWORK, 3)), start(deaf(NETWORK, 4)));
        for node in [&mut author, &mut reader] {
            node.wait_until(|node| {
                node.look_up(RecordKey([1; 32]));
                node.state().1 == 2
            });
            assert_eq!(node.state(), (false, 2), "who listens nowhere stays a client");
        }
        keeper.stop();
        let key = RecordKey([2; 32]);
        let value = record::signed(&key, 1, HOUR);
        assert!(author.publish(key, &value, HOUR), "{transports:?}");
        assert_eq!(helper.look_up_locally(key), Some(value.clone()), "{transports:?}");
        assert_eq!(reader.look_up(key), (vec![value], true), "{transports:?}");
        assert!(helper.state().0, "that nobody can confirm it is no reason to stop");
    }
}

#[test]
fn a_client_whose_port_others_do_not_reach_stays_one() {
    let runtime = runtime();
    // Its connections come from 127.0.0.1, where somebody else has the port that it listens on.
    let (listen, other) = inside_and_outside();
    let keeper = Node::start(&runtime, server(NETWORK, 1), strict());
    let config =
        DirectoryConfig { listen: vec![listen], transports: Transports::Tcp, ..candidate(NETWORK, 2) };
    let mut client = Node::start(&runtime, config, strict());
    client.knows(std::slice::from_ref(&keeper));
    for _ in 0..3 {
        // The answer to one question is there when the next is asked.
        drop(other.accept().expect("a dial-back"));
        assert!(!client.state().0);
    }
}

#[test]
fn a_server_that_is_no_longer_reached_becomes_a_client_again() {
    let runtime = runtime();
    let (listen, outside) = inside_and_outside();
    let forwarder = Forwarder::start(outside, listen);
    let mut keeper = Node::start(&runtime, server(NETWORK, 1), strict());
    let config =
        DirectoryConfig { listen: vec![listen], transports: Transports::Tcp, ..candidate(NETWORK, 2) };
    let mut client = Node::start(&runtime, config, strict());
    client.knows(std::slice::from_ref(&keeper));
    client.wait_for_server(true);
    keeper.wait_for_peers(|peers| peers == 1);
    forwarder.stop();
    client.wait_for_server(false);
    keeper.wait_for_peers(|peers| peers == 0);
}

#[test]
fn nothing_is_dialled_from_the_port_that_is_listened_on() {
    let runtime = runtime();
    let neighbour = TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = DirectoryConfig { transports: Transports::Tcp, ..candidate(NETWORK, 1) };
    let client = Node::start(&runtime, config, strict());
    client.names(vec![(record::node_id(2), vec![neighbour.local_addr().expect("bound")])]);
    let (_, from) = neighbour.accept().expect("a dial");
    assert_ne!(from.port(), client.listening()[0].port(), "a NAT would open it");
}

/// An address to listen on, and the same port at 127.0.0.1, from where its owner's connections come.
fn inside_and_outside() -> (SocketAddr, TcpListener) {
    let outside = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = outside.local_addr().expect("bound").port();
    (SocketAddr::from(([127, 0, 0, 2], port)), outside)
}
