//! A million STUN requests with forged sources: the tunnels with a super peer and through it stay, it does not grow, and
//! it sends no more than it was sent.
//!
//! `FLOOD_RATE` is requests a second: 100,000 unless it says otherwise, a third of what an unoptimised build reads on two
//! cores; 0 throws them as fast as one thread can.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use frejus_netns::daemon::LIMIT;
use frejus_netns::flood::{Flood, Sources, Thrown};
use frejus_netns::scene::{FOUNDER, Scene, first_ping};
use frejus_netns::traffic::PingStream;
use frejus_netns::{Host, NatClass, Quality};

/// Default port of a node.
const PORT: u16 = 51860;
/// Requests in all.
const REQUESTS: u64 = 1_000_000;
/// A /24 for each request, out of the addresses that nobody has (RFC 1112, section 4): to remember them would take
/// dozens of megabytes.
const SOURCES: Sources =
    Sources { within: "240.0.0.0/4", first: Ipv4Addr::new(240, 0, 0, 0), count: (1 << 20) - 1 };
/// Ethernet, IPv4 and UDP (RFC 768): what a frame is longer than a payload.
const HEADERS: u64 = 14 + 20 + 8;
/// By so many bytes answers to the unproved may be longer than their requests, at once and a second; docs/security.md.
const EXCESS: (u64, u64) = (100_000, 50_000);
/// What allocators, counters and queues that were never full before may take, in KiB.
const GROWTH_KIB: u64 = 4096;

/// A binding request with these attributes.
fn request(transaction: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).expect("it fits a datagram").to_be_bytes();
    [&[0, 1], &length[..], &[0x21, 0x12, 0xa4, 0x42], &[transaction; 12], attributes].concat()
}

/// An attribute (RFC 8489, section 14), padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("it fits a datagram").to_be_bytes();
    let padding = value.len().next_multiple_of(4) - value.len();
    [&kind.to_be_bytes()[..], &length, value, &[0; 3][..padding]].concat()
}

/// What is thrown, by name.
fn kinds() -> [(&'static str, Vec<Vec<u8>>); 6] {
    let garbage = |seed: usize, len: usize| (0..len).map(|at| (at * 7 + seed) as u8).collect::<Vec<u8>>();
    let change = |flags: u8| request(3, &attribute(0x0003, &[0, 0, 0, flags]));
    let empty = attribute(0x8022, &[]);
    // Lengths that lie, and a type and a cookie that are none.
    let broken = |at: usize| {
        let mut bytes = request(5, &attribute(0x8022, &garbage(5, 40)));
        bytes[at] ^= 0x15;
        bytes
    };
    [
        ("shortest", vec![request(1, &[])]),
        ("padded", vec![request(2, &attribute(0x8022, &garbage(2, 76)))]),
        ("CHANGE-REQUEST", vec![change(2), change(4), change(6)]),
        (
            "huge attributes",
            vec![request(4, &attribute(0x0026, &garbage(4, 1400))), request(4, &empty.repeat(300))],
        ),
        ("broken", [0, 3, 5, 23].map(broken).to_vec()),
        (
            "unknown attributes",
            vec![request(6, &[attribute(0x0027, &[0xd4, 0x31, 0, 0]), attribute(0x7777, &[])].concat())],
        ),
    ]
}

/// Frames and bytes that `host` sent and received so far.
fn counted(host: &Host) -> [u64; 4] {
    let text = host.sh("cd /sys/class/net/eth0/statistics; cat tx_packets tx_bytes rx_packets rx_bytes");
    let numbers: Vec<u64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    numbers.try_into().expect("four numbers")
}

/// Datagrams that programs of `host` read so far, and those for which a socket had no room (RFC 4113).
fn read_and_refused(host: &Host) -> [u64; 2] {
    let text = host.sh("cat /proc/net/snmp");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let [names, values] = [(); 2].map(|()| lines.next().unwrap_or_default().split_whitespace());
    let of: BTreeMap<&str, u64> = names.zip(values.filter_map(|value| value.parse().ok())).collect();
    [of["InDatagrams"], of["RcvbufErrors"]]
}

/// Payload that came back to `mallory` while `deed` ran, in bytes.
fn answered(mallory: &Host, deed: impl FnOnce() -> Thrown) -> (Thrown, u64) {
    let before = counted(mallory);
    let thrown = deed();
    let after = counted(mallory);
    let [frames, bytes] = [2, 3].map(|at| after[at] - before[at]);
    (thrown, bytes.saturating_sub(frames * HEADERS))
}

fn rate() -> Option<u64> {
    let rate =
        std::env::var("FLOOD_RATE").map_or(100_000, |rate| rate.parse().expect("FLOOD_RATE is a number"));
    (rate > 0).then_some(rate)
}

#[test]
fn a_million_bogus_requests_cost_existing_tunnels_next_to_nothing() {
    let Some(mut scene) =
        Scene::homes("stun_flood", [NatClass::SymmetricRandom.into(); 2], Quality::default())
    else {
        return;
    };
    scene.lab.stop_capture();
    let mallory = scene.lab.public("m", "203.0.113.103");
    let to = SocketAddrV4::new(FOUNDER.parse().expect("an address"), PORT);
    let flood = Flood { from: mallory, sources: SOURCES, to, rate: rate() };
    flood.ways(&scene.s.host, "203.0.113.103");

    let [with_s, with_b] = [&scene.s, &scene.b].map(|node| node.ipv4().to_string());
    first_ping(&scene.a.host, &with_b);
    let before_kib = scene.s.resident_kib();
    let streams = [with_s, with_b].map(|to| PingStream::start(&scene.a.host, &to, 0.02));
    streams.iter().for_each(|stream| stream.wait_replies(5, LIMIT));

    let arrived = read_and_refused(&scene.s.host);
    let (begun, kinds) = (Instant::now(), kinds());
    let (mut bytes_in, mut bytes_out) = (0, 0);
    let count = REQUESTS.div_ceil(kinds.len() as u64);
    for (at, (what, datagrams)) in kinds.iter().enumerate() {
        let (thrown, back) = answered(&flood.from, || flood.so_many(datagrams, at as u64 * count, count));
        eprintln!("{what}: {:.0} a second; {} bytes in, {back} out", thrown.rate(), thrown.bytes);
        let seconds = thrown.time.as_secs() + 1;
        assert!(
            back <= thrown.bytes + EXCESS.0 + EXCESS.1 * seconds,
            "{what}: {back} bytes for {}",
            thrown.bytes
        );
        (bytes_in, bytes_out) = (bytes_in + thrown.bytes, bytes_out + back);
        assert_eq!(scene.s.json(&["status"])["state"], "ready", "control answers: {what}");
    }
    let took = begun.elapsed();
    streams.iter().for_each(|stream| stream.wait_replies(1, LIMIT));
    let after_kib = scene.s.resident_kib();
    eprintln!(
        "{REQUESTS} in {took:?}: {bytes_in} bytes in, {bytes_out} out; memory {before_kib} to {after_kib} KiB"
    );
    let [read, refused] = read_and_refused(&scene.s.host);
    let [read, refused] = [read - arrived[0], refused - arrived[1]];
    eprintln!("S read {read} datagrams; {refused} found its socket full");
    assert!(read >= REQUESTS / 2, "a flood that does not arrive shows nothing: {read}");
    for (stream, which) in streams.into_iter().zip(["with S", "through S"]) {
        let report = stream.finish();
        eprintln!("{which}: {report:?}");
        assert!(report.lost() * 20 < report.sent, "{which}: {report:?}");
    }
    assert!(bytes_out <= bytes_in, "{bytes_out} bytes for {bytes_in}");
    assert!(after_kib <= before_kib + GROWTH_KIB, "{before_kib} KiB before, {after_kib} KiB after");
    assert_eq!(scene.a.path_to(&scene.b.id()).map(|path| path.kind).as_deref(), Some("relay"));
    let dropped = scene.s.json(&["status"])["counters"]["dropped"].clone();
    for reason in ["rate_limited", "unknown_frame"] {
        assert!(dropped[reason].as_u64().is_some_and(|count| count > 0), "{reason}: {dropped}");
    }
}
