//! Real directories in one process, over loopback: tens of libp2p nodes that publish, find, lie and come back.
//!
//! Waits for replies, never for time. Records are toys, signed by one key of the "network"; whether real ones
//! are valid is not this test's business.

mod directory {
    //! Nodes with their replies, toy records, a peer that follows no rules, and who is promoted.
    pub(crate) mod forwarder;
    pub(crate) mod liar;
    pub(crate) mod node;
    mod promotion;
    pub(crate) mod record;
}

use std::net::TcpListener;
use std::time::Duration;

use frejus::directory::{DirectoryConfig, DirectoryError, MAX_VALUE, Transports};
use frejus_overlay::id::{NetworkId, RecordKey};
use frejus_overlay::port::Reply;
use libp2p::kad::{Record, RecordKey as KadKey};

use directory::liar::Liar;
use directory::node::{Node, believing, config, runtime, server, strict};
use directory::record;

const NETWORK: NetworkId = NetworkId([1; 32]);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_one_publishes_everybody_finds() {
    let runtime = runtime();
    // TCP alone: unoptimised handshakes are slow, and two a pair would only test the reader's patience.
    let tcp = |seed| DirectoryConfig { transports: Transports::Tcp, ..server(NETWORK, seed) };
    let first = Node::start(&runtime, tcp(1), strict());
    let mut nodes = vec![first];
    for seed in 2..=24 {
        let node = Node::start(&runtime, tcp(seed), strict());
        node.knows(&nodes[..1]);
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait_for_peers(|peers| peers >= 15);
    }
    for (publisher, key) in [(0, RecordKey([11; 32])), (23, RecordKey([12; 32]))] {
        let value = record::signed(&key, 1, HOUR);
        assert!(nodes[publisher].publish(key, &value, HOUR));
        for node in &mut nodes {
            assert_eq!(node.look_up(key), (vec![value.clone()], true));
        }
    }
}

#[test]
fn clients_publish_and_find_over_tcp_and_quic() {
    let runtime = runtime();
    let key = RecordKey([21; 32]);
    let mut keeper = Node::start(&runtime, server(NETWORK, 1), strict());
    for (sequence, transports) in [(1, Transports::Tcp), (2, Transports::Quic), (3, Transports::Both)] {
        let start = |seed| {
            let client = DirectoryConfig { transports, ..config(NETWORK, seed) };
            let client = Node::start(&runtime, client, strict());
            client.knows(std::slice::from_ref(&keeper));
            client
        };
        let (mut author, mut reader) = (start(2), start(3));
        let value = record::signed(&key, sequence, HOUR);
        assert!(author.publish(key, &value, HOUR), "{transports:?}");
        assert_eq!(reader.look_up(key), (vec![value], true), "{transports:?}");
        assert_eq!(reader.state(), (false, 1), "a client is no server");
    }
    assert_eq!(keeper.state(), (true, 0), "clients have no place in the table");
    assert!(keeper.look_up(key).1);
}

#[test]
fn a_lone_server_keeps_what_it_publishes_and_a_lone_client_does_not() {
    let runtime = runtime();
    let key = RecordKey([31; 32]);
    let value = record::signed(&key, 1, HOUR);
    let mut alone = Node::start(&runtime, server(NETWORK, 1), strict());
    assert_eq!(alone.look_up(key), (vec![], false));
    assert!(alone.publish(key, &value, HOUR));
    assert_eq!(alone.look_up(key), (vec![value.clone()], true));
    let forged = record::forged(&key, 9);
    assert!(!alone.publish(key, &forged, HOUR), "not even its own user can make it keep a bad record");

    let mut client = Node::start(&runtime, config(NETWORK, 2), strict());
    assert!(!client.publish(key, &value, HOUR), "nobody took it");
}

#[test]
fn bad_records_are_neither_stored_nor_believed() {
    let runtime = runtime();
    let servers: Vec<Node> =
        (1..=3).map(|seed| Node::start(&runtime, server(NETWORK, seed), strict())).collect();
    let key = |index: u8| RecordKey([40 + index; 32]);
    let oversize = record::signed_with_body(&key(2), 1, HOUR, &[0; MAX_VALUE]);
    let bad = [
        record::forged(&key(0), 1),
        record::signed(&key(1), 1, Duration::ZERO),
        oversize,
        record::signed(&RecordKey([99; 32]), 1, HOUR),
    ];
    let good = record::signed(&key(4), 1, HOUR);
    let records: Vec<Record> = (0u8..)
        .zip(bad.iter().chain([&good]))
        .map(|(index, value)| Record::new(KadKey::new(&key(index).0), value.clone()))
        .collect();

    // The liar answers readers with all of these, and every server has acknowledged all of them.
    let liar = Liar::start(&runtime, NETWORK, 66, &servers, records);
    let mut reader = Node::start(&runtime, config(NETWORK, 7), strict());
    reader.names(vec![liar.neighbour()]);
    let mut gullible = Node::start(&runtime, config(NETWORK, 8), believing());
    gullible.names(vec![liar.neighbour()]);
    for index in 0..4 {
        assert_eq!(reader.look_up(key(index)), (vec![], false), "record {index} was believed");
    }
    assert_eq!(reader.look_up(key(4)), (vec![good.clone()], true), "the good one gets through");
    assert!(gullible.look_up(key(0)).1, "the liar does hand the bad ones out");

    drop(liar);
    let mut gullible = Node::start(&runtime, config(NETWORK, 9), believing());
    gullible.knows(&servers);
    for index in 0..4 {
        assert_eq!(gullible.look_up(key(index)), (vec![], false), "record {index} was stored");
    }
    assert_eq!(gullible.look_up(key(4)), (vec![good], true), "the good one was stored");
}

#[test]
fn the_newest_sequence_wins() {
    let runtime = runtime();
    let key = RecordKey([51; 32]);
    let (old, new) = (record::signed(&key, 1, HOUR), record::signed(&key, 2, HOUR));

    // Two servers that have never met hold different sequences: a reader gets to see the newer.
    let mut behind = Node::start(&runtime, server(NETWORK, 1), strict());
    assert!(behind.publish(key, &old, HOUR));
    let mut ahead = Node::start(&runtime, server(NETWORK, 2), strict());
    assert!(ahead.publish(key, &new, HOUR));
    let mut reader = Node::start(&runtime, config(NETWORK, 3), strict());
    reader.knows(&[&behind, &ahead]);
    let (mut found, ok) = reader.look_up(key);
    found.sort();
    assert!(ok);
    assert_eq!(found, [old.clone(), new.clone()], "both are valid; choosing is the reader's business");

    // Somebody publishes the old one again: it replaces nothing. The new one replaces the old.
    let mut author = Node::start(&runtime, config(NETWORK, 4), strict());
    author.knows(&[&behind, &ahead]);
    assert!(author.publish(key, &old, HOUR));
    assert_eq!(ahead.look_up_locally(key), Some(new.clone()));
    assert!(author.publish(key, &new, HOUR));
    author.wait_until(|author| {
        author.look_up(key);
        behind.look_up_locally(key) == Some(new.clone())
    });
    assert!(!author.publish(key, &old, HOUR), "nor does it replace one's own");
}

#[test]
fn networks_do_not_mix() {
    let runtime = runtime();
    let key = RecordKey([61; 32]);
    let value = record::signed(&key, 1, HOUR);
    let mut here = Node::start(&runtime, server(NETWORK, 1), strict());
    assert!(here.publish(key, &value, HOUR));
    let mut stranger = Node::start(&runtime, server(NetworkId([2; 32]), 2), strict());
    stranger.knows(std::slice::from_ref(&here));
    stranger.wait_for_peers(|peers| peers == 1);
    stranger.wait_for_peers(|peers| peers == 0);
    assert_eq!(stranger.look_up(key), (vec![], false));
    let theirs = record::signed(&RecordKey([62; 32]), 1, HOUR);
    assert!(stranger.publish(RecordKey([62; 32]), &theirs, HOUR), "its own server keeps it");
    assert_eq!(here.look_up(RecordKey([62; 32])), (vec![], false));
    assert_eq!(here.state(), (true, 0));
}

#[test]
fn records_expire() {
    let runtime = runtime();
    let (short, long) = (RecordKey([71; 32]), RecordKey([72; 32]));
    let mut keeper = Node::start(&runtime, server(NETWORK, 1), strict());
    let mut author = Node::start(&runtime, config(NETWORK, 2), strict());
    author.knows(std::slice::from_ref(&keeper));
    let life = Duration::from_secs(2);
    assert!(author.publish(short, &record::signed(&short, 1, HOUR), life), "the publisher wants it short");
    assert!(author.publish(long, &record::signed(&long, 1, HOUR), HOUR));
    assert!(keeper.look_up_locally(short).is_some());
    let mut reader = Node::start(&runtime, config(NETWORK, 3), strict());
    reader.knows(std::slice::from_ref(&keeper));
    assert!(reader.look_up(long).1);
    reader.wait_until(|reader| !reader.look_up(short).1);
    assert_eq!(keeper.look_up_locally(short), None);
    assert!(reader.look_up(long).1, "the other one is still there");
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let runtime = runtime();
    let key = RecordKey([81; 32]);
    // TCP alone: as long as the process lives, libp2p-quic may hold a port until a lost connection times out.
    let tcp = |config| DirectoryConfig { transports: Transports::Tcp, ..config };
    // An address of its own: elsewhere another test may take the port while it is free.
    let alone = vec!["127.0.81.1:0".parse().unwrap()];
    let first = DirectoryConfig { listen: alone, ..tcp(server(NETWORK, 1)) };
    let keeper = Node::start(&runtime, first, strict());
    let at = keeper.listening();
    let mut author = Node::start(&runtime, tcp(config(NETWORK, 2)), strict());
    author.knows(std::slice::from_ref(&keeper));
    assert!(author.publish(key, &record::signed(&key, 1, HOUR), HOUR));

    keeper.stop();
    author.wait_for_peers(|peers| peers == 0);
    assert!(!author.publish(key, &record::signed(&key, 2, HOUR), HOUR));
    let again = DirectoryConfig { listen: at, ..tcp(server(NETWORK, 1)) };
    let mut keeper = Node::start(&runtime, again, strict());
    author.wait_for_peers(|peers| peers == 1);

    let value = record::signed(&key, 3, HOUR);
    assert!(author.publish(key, &value, HOUR));
    assert_eq!(keeper.look_up_locally(key), Some(value));
}

#[test]
fn a_silent_neighbour_delays_nothing_but_its_own_answer() {
    let runtime = runtime();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(&runtime, server(NETWORK, 1), strict());
    let key = RecordKey([91; 32]);
    assert!(node.publish(key, &record::signed(&key, 1, HOUR), HOUR));
    node.names(vec![(record::node_id(2), vec![silent.local_addr().unwrap()])]);
    let cancelled = node.begin_look_up(key);
    let found = node.wait_for(|reply| matches!(reply, Reply::Found { id, .. } if *id == cancelled));
    assert!(matches!(found, Reply::Found { .. }), "the local record needs no walk");
    assert!(node.cancel(cancelled));
    let missing = node.begin_look_up(RecordKey([92; 32]));
    let mut seen = Vec::new();
    let end = node.wait_for(|reply| {
        seen.push(reply.clone());
        matches!(reply, Reply::Finished { id, .. } if *id == missing)
    });
    assert_eq!(end, Reply::Finished { id: missing, ok: false });
    let of_cancelled = |reply: &Reply| matches!(reply, Reply::Finished { id, .. } if *id == cancelled);
    assert!(!seen.iter().any(of_cancelled), "no reply follows a cancellation");
}

#[test]
fn a_taken_port_is_refused_by_name() {
    let runtime = runtime();
    let first = Node::start(&runtime, server(NETWORK, 1), strict());
    let at = first.listening();
    let second = DirectoryConfig { listen: at.clone(), ..server(NETWORK, 2) };
    let refused = Node::try_start(&runtime, second, strict()).err().expect("the port is taken");
    assert!(matches!(refused, DirectoryError::PortTaken(taken) if taken == at[0]), "{refused}");
}

#[test]
fn the_key_is_never_printed() {
    let config = DirectoryConfig::new(NETWORK, [0xab; 32]);
    let printed = format!("{config:?}");
    assert!(!printed.contains("171") && !printed.contains("abab"), "{printed}");
}
