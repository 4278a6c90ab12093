//! What many peers cost one node: memory, handshakes, tables and timers, through the real types.
//!
//! Owns: the bounds that issue and design name for 5,500 known peers and 1,000 tunnels. Memory is counted by the
//! allocator, since what the kernel has given says little about what is held. Speeds are printed, and asserted where
//! a bound is named and the build is optimised: `cargo test --release --test scale -- --ignored --nocapture`.

#[path = "scale/counting.rs"]
mod counting;
#[path = "scale/town.rs"]
mod town;

use std::time::{Duration, Instant};

use frejus::clock::Clock;
use frejus_overlay::forward::Exception;
use frejus_overlay::resolver::Resolver;
use frejus_overlay::tunnel::Crypto;
use town::{Client, Town, drain, now, wireguard};

const MIB: usize = 1 << 20;

/// Bytes per thing, with what the allocator needs for itself, of what `make` leaves behind.
fn held<T>(what: &str, count: usize, make: impl FnOnce() -> T) -> (T, usize) {
    let before = counting::live();
    let made = make();
    let bytes = counting::live() - before;
    println!("{what}: {:.2} MiB, {} bytes each", bytes as f64 / MIB as f64, bytes / count);
    (made, bytes)
}

#[test]
fn memory_of_known_peers_and_of_tunnels() {
    let (town, clock) = (Town::new(), Clock::start());
    let key = wireguard(1, &clock).public();
    let (_resolver, known) = held("5,500 known peers", 5500, || {
        let mut resolver = Resolver::new(town.network.clone(), 0);
        for n in 1..=5500 {
            let place = town.contact(n, key).verify(&town.network, town::NOW).unwrap();
            resolver.learn_place(&place, now(0));
        }
        resolver
    });
    let (node, tunnels) = held("1,000 tunnels", 1000, || {
        let mut node = town.node(&clock);
        drain(&mut node);
        for n in 1..=1000 {
            Client::new(&town, n, &clock).connect(&mut node, u64::from(n));
        }
        node
    });
    assert_eq!(node.peers(now(1000)).len(), 1000);
    assert!(known <= 8 * MIB, "5,500 known peers hold {known} bytes");
    assert!(tunnels <= 8 * MIB, "1,000 tunnels hold {tunnels} bytes");
}

/// Handshakes a second that one thread answers, bookkeeping of the node included.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn handshakes_a_second() {
    const CLIENTS: u32 = 50;
    const EACH: u64 = 40;
    let (town, clock) = (Town::new(), Clock::start());
    let mut node = town.node(&clock);
    drain(&mut node);
    let clients: Vec<Client> = (1..=CLIENTS).map(|n| Client::new(&town, n, &clock)).collect();
    let knocking = Instant::now();
    for client in &clients {
        client.knock(&mut node, 0);
    }
    println!("a knock and its slot: {:?}", knocking.elapsed() / CLIENTS);
    let mut messages = Vec::new();
    for round in 1..=EACH {
        for client in &clients {
            messages.push((client.from, round * 10_000, client.initiation(now(round * 10_000).instant)));
        }
    }
    let count = messages.len();
    let mut crypto = wireguard(town::SUPER, &clock);
    let begun = Instant::now();
    assert!(messages.iter().all(|(_, _, bytes)| crypto.initiator(bytes).is_some()));
    println!("who initiates: {:?} each", begun.elapsed() / count as u32);
    let mut answered = 0;
    let begun = Instant::now();
    for (from, at, bytes) in messages {
        node.handle_exception(Exception::Datagram { from, bytes }, now(at));
        answered += drain(&mut node).sent.iter().filter(|bytes| bytes.len() == 92).count();
    }
    let took = begun.elapsed();
    assert_eq!(answered, count);
    let rate = f64::from(count as u32) / took.as_secs_f64();
    println!("{rate:.0} handshakes a second as responder, {:?} each", took / count as u32);
}

/// Garbage that costs a public-key operation, and garbage that should not.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn what_garbage_costs_control() {
    const COUNT: u32 = 2000;
    let (town, clock) = (Town::new(), Clock::start());
    let mut node = town.node(&clock);
    drain(&mut node);
    let client = Client::new(&town, 1, &clock);
    let knock = frejus_overlay::wire::frame(frejus_overlay::wire::KNOCK, &[9; 700]);
    let mut initiation = vec![7; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    for (what, bytes) in [("knock", knock), ("initiation without mac1", initiation)] {
        let begun = Instant::now();
        for _ in 0..COUNT {
            let exception = Exception::Datagram { from: client.from, bytes: bytes.clone() };
            node.handle_exception(exception, now(1));
            drain(&mut node);
        }
        println!("a bogus {what}: {:?}", begun.elapsed() / COUNT);
    }
}

/// What one change of one peer costs control, with as many others.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn a_change_of_the_table() {
    for peers in [1, 1000, 5500] {
        let (town, clock) = (Town::new(), Clock::start());
        let mut node = town.node(&clock);
        drain(&mut node);
        let begun = Instant::now();
        for n in 1..=peers {
            Client::new(&town, n, &clock).connect(&mut node, 1);
        }
        let each = begun.elapsed() / peers;
        // The last one's path dies and comes back.
        let late = Client::new(&town, peers + 1, &clock);
        late.connect(&mut node, 2);
        let mut spent = Duration::ZERO;
        let slot = frejus_overlay::forward::SlotId(peers as u16);
        let mut tables = 0;
        for n in 0..200_u64 {
            let at = late.from;
            let begun = Instant::now();
            node.handle_exception(Exception::Established { slot, from: at }, now(3 + n));
            let wanted = drain(&mut node);
            spent += begun.elapsed();
            tables += wanted.tables;
        }
        println!(
            "{peers} peers: connecting one {each:?}, {tables} events without news {:?} each",
            spent / 200
        );
        idle(&mut node, peers);
    }
}

/// CPU of a minute in which nothing happens.
fn idle(node: &mut frejus_overlay::node::Node, peers: u32) {
    let end = now(70_000).instant;
    let (begun, mut wakes) = (Instant::now(), 0);
    let mut last = now(4000);
    while let Some(at) = node.poll_timeout()
        && at < end
    {
        let millis = u64::try_from(at.since_start().as_micros().div_ceil(1000)).unwrap();
        last = if now(millis).instant > last.instant { now(millis) } else { last };
        node.handle_timeout(last);
        drain(node);
        wakes += 1;
    }
    println!("{peers} peers: a minute takes {:?}, {wakes} wakes", begun.elapsed());
}
