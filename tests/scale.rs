//! What many peers cost one node: memory, handshakes, tables and timers, through the real types.
//!
//! Owns: the bounds that issue and design name for 5,500 known peers and 1,000 tunnels. Memory is counted by the
//! allocator, since what the kernel has given says little about what is held. Speeds are printed, and asserted where
//! a bound is named and the build is optimised: `cargo test --release --test scale -- --ignored --nocapture`.
#![expect(clippy::unwrap_used, reason = "what the tests make themselves is well-formed")]

#[path = "scale/counting.rs"]
mod counting;
#[path = "scale/town.rs"]
mod town;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frejus::clock::Clock;
use frejus_overlay::forward::{Exception, Slot, SlotId, Table};
use frejus_overlay::locator::Locator;
use frejus_overlay::node::Node;
use frejus_overlay::path_mtu::Mtu;
use frejus_overlay::relay::server::RelayTable;
use frejus_overlay::resolver::Resolver;
use frejus_overlay::tunnel::Crypto;
use town::{Client, Town, drain, now, wireguard};

const MIB: usize = 1 << 20;

/// Bytes per thing, with what the allocator needs for itself, of what `make` leaves behind.
fn held<T>(what: &str, count: usize, make: impl FnOnce() -> T) -> (T, usize) {
    let before = counting::live();
    let made = make();
    let bytes = counting::live() - before;
    eprintln!("{what}: {:.2} MiB, {} bytes each", bytes as f64 / MIB as f64, bytes / count);
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
    let (_tunnels, engines) = held("1,000 of boringtun's, no session yet", 1000, || {
        let mut crypto = wireguard(0, &clock);
        (0..1000).map(|n| crypto.tunnel(&key, n)).collect::<Vec<_>>()
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
    // boringtun keeps the schedules of eight sessions in each of its own, used or not.
    let ours = tunnels - engines;
    assert!(ours <= 8 * MIB, "1,000 tunnels hold {ours} bytes beside boringtun's {engines}");
}

/// Handshakes a second that one thread answers, bookkeeping of the node included.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn handshakes_a_second() {
    const CLIENTS: u32 = 50;
    let (town, clock) = (Town::new(), Clock::start());
    let mut node = town.node(&clock);
    drain(&mut node);
    let clients: Vec<Client> = (1..=CLIENTS).map(|n| Client::new(&town, n, &clock)).collect();
    let knocking = Instant::now();
    for client in &clients {
        client.knock(&mut node, 0);
    }
    eprintln!("a knock and its slot: {:?}", knocking.elapsed() / CLIENTS);
    let first = answered(&mut node, &clients, 1);
    eprintln!("first handshakes: {first:.0} a second as responder");
    let established: Vec<Client> = (101..=100 + CLIENTS).map(|n| Client::new(&town, n, &clock)).collect();
    for client in &established {
        client.connect(&mut node, 410_000);
    }
    let rekeys = answered(&mut node, &established, 42);
    eprintln!("rekeys from where the peer is: {rekeys:.0} a second as responder");
    assert!(rekeys >= 5000.0 && first >= 3500.0);
}

/// Initiations that a node answers in a second: 40 of each client, 10 s apart, from the tenth of seconds `base` on.
fn answered(node: &mut Node, clients: &[Client], base: u64) -> f64 {
    let mut messages = Vec::new();
    for round in base..base + 40 {
        for client in clients {
            messages.push((client.from, round * 10_000, client.initiation(now(round * 10_000).instant)));
        }
    }
    let (count, mut answers) = (messages.len(), 0);
    let begun = Instant::now();
    for (from, at, bytes) in messages {
        node.handle_exception(Exception::Datagram { from, bytes }, now(at));
        answers += drain(node).sent.iter().filter(|bytes| bytes.len() == 92).count();
    }
    let took = begun.elapsed();
    assert_eq!(answers, count, "everybody is answered");
    count as f64 / took.as_secs_f64()
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
    let [knock, initiation] =
        [("knock", knock), ("initiation without mac1", initiation)].map(|(what, bytes)| {
            let begun = Instant::now();
            for _ in 0..COUNT {
                let exception = Exception::Datagram { from: client.from, bytes: bytes.clone() };
                node.handle_exception(exception, now(1));
                drain(&mut node);
            }
            let cost = begun.elapsed() / COUNT;
            eprintln!("a bogus {what}: {cost:?}");
            cost
        });
    assert!(initiation * 10 < knock, "no public-key operation without mac1");
}

/// What one change of one peer costs control, with as many others; beside it, a table made from nothing.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn a_change_of_the_table() {
    for peers in [1, 1000, 5500] {
        let (town, clock) = (Town::new(), Clock::start());
        let slots = slots(&town, &clock, peers);
        let (own4, own6) = (town::virtual4(0), Ipv6Addr::LOCALHOST);
        let whole = timed(20, |_| Table::new(own4, own6, slots.iter().cloned(), RelayTable::default()));
        let mut table = Table::new(own4, own6, slots.iter().cloned(), RelayTable::default());
        let mut published = Arc::new(table.clone());
        let moved = timed(2000, |n| {
            let slot = slots[n * 7 % slots.len()].clone();
            table.set(Slot { path: Some(Locator::Direct(town::home(n as u32).into())), ..slot });
            published = Arc::new(table.clone());
        });
        let gone = timed(200, |n| {
            let slot = slots[n * 7 % slots.len()].clone();
            table.remove(slot.id);
            published = Arc::new(table.clone());
            table.set(slot);
            published = Arc::new(table.clone());
        });
        let destination = slots[slots.len() / 2].address4.into();
        let look_up = timed(100_000, |_| std::hint::black_box(published.outward(own4.into(), destination)));
        eprintln!(
            "{peers} peers: whole {whole:?}, a path moves {moved:?}, one goes and comes {gone:?}, look-up {look_up:?}"
        );
        assert!(peers < 5500 || moved * 20 < whole, "a change copies what it touches, not the table");
    }
}

fn timed<T>(count: usize, mut deed: impl FnMut(usize) -> T) -> Duration {
    let begun = Instant::now();
    (0..count).for_each(|n| drop(deed(n)));
    begun.elapsed() / u32::try_from(count).unwrap()
}

/// Slots of as many peers, all with one tunnel, which nobody uses.
fn slots(town: &Town, clock: &Clock, peers: u32) -> Vec<Slot> {
    let tunnel = wireguard(1, clock).tunnel(&wireguard(2, clock).public(), 1);
    let slot = |n: u32| Slot {
        id: SlotId(n as u16),
        index: n,
        tunnel: Arc::clone(&tunnel),
        path: None,
        also: None,
        address4: town::virtual4(n + 1),
        address6: town::id(n + 1).address6(&town.network.id),
        mtu: Mtu::UNKNOWN,
        counters: Arc::default(),
    };
    (0..peers).map(slot).collect()
}

/// CPU of a minute in which nothing happens, the peers having come a millisecond after each other.
#[test]
#[ignore = "a measurement: run it alone, with --release"]
fn an_idle_minute() {
    for peers in [100, 1000] {
        let (town, clock) = (Town::new(), Clock::start());
        let mut node = town.node(&clock);
        drain(&mut node);
        let begun = Instant::now();
        for n in 1..=peers {
            Client::new(&town, n, &clock).connect(&mut node, u64::from(n));
        }
        eprintln!("{peers} peers: connecting one takes both ends {:?}", begun.elapsed() / peers);
        idle(&mut node, peers);
    }
}

fn idle(node: &mut Node, peers: u32) {
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
    let took = begun.elapsed();
    eprintln!("{peers} peers: a minute takes {took:?}, {wakes} wakes");
    assert!(took < Duration::from_millis(600), "an idle node takes less than 1 % of a core");
}
