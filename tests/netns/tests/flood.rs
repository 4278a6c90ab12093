//! Floods from many forged sources: an existing tunnel does not notice, and a newcomer still comes in.
//!
//! `FLOOD_RATE` is datagrams a second: 5,000 unless it says otherwise, which an unoptimised build can bear; with
//! `--release` set 50,000.

use std::net::{Ipv4Addr, SocketAddrV4};

use frejus_netns::daemon::LIMIT;
use frejus_netns::flood::{Flood, Sources};
use frejus_netns::scene::{FOUNDER, founder, join_by_file};
use frejus_netns::traffic::{Capture, PingStream};
use frejus_netns::{Daemon, Lab, ability, wait_for};

/// Default port of a node.
const PORT: u16 = 51860;
/// Where nobody reads: what a flood costs the machine whatever the node does.
const NOWHERE: u16 = 9;
/// Each in a prefix of its own.
const SOURCES: Sources = Sources { within: "198.18.0.0/15", first: Ipv4Addr::new(198, 18, 0, 0), count: 500 };

/// A super peer, a member with a tunnel to it, and a host that forges its sources.
struct Siege {
    lab: Lab,
    s: Daemon,
    code: String,
    a: Daemon,
    flood: Flood,
    /// Somebody's initiation, as it went over the wire: its mac1 is right.
    overheard: Vec<u8>,
}

impl Siege {
    fn new(test: &str) -> Option<Self> {
        let mut lab = Lab::new(test)?;
        let (s, _) = founder(&mut lab);
        let code = s.invite(5);
        let host = lab.public("a", "203.0.113.102");
        let capture = Capture::start(&s.host, "eth0");
        let a = join_by_file(&host, &code);
        a.wait_ready();
        s.wait_path(&a.id(), "direct");
        let overheard = initiation(&capture.finish()).expect("A made a handshake with S");
        let mallory = lab.public("m", "203.0.113.103");
        let to = SocketAddrV4::new(FOUNDER.parse().expect("an address"), PORT);
        let flood = Flood { from: mallory, sources: SOURCES, to, rate: Some(rate()) };
        flood.ways(&s.host, "203.0.113.103");
        Some(Self { lab, s, code, a, flood, overheard })
    }

    /// What is thrown at S: name, port, and datagrams that take turns.
    fn floods(&self) -> Vec<(&'static str, Vec<u8>)> {
        let garbage = |len: usize| (0..len).map(|at| (at * 7 + 13) as u8).collect::<Vec<u8>>();
        let beginning = |first: &[u8], len: usize| [first, &garbage(len - first.len())].concat();
        let stun = beginning(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20);
        vec![
            ("no mac1", beginning(&[1, 0, 0, 0], 148)),
            ("mac1 fits", self.overheard.clone()),
            ("knocks", beginning(&[0x11, 1, 0, 0], 700)),
            ("unknown session", beginning(&[4, 0, 0, 0], 200)),
            ("STUN", stun),
        ]
    }
}

/// The first WireGuard initiation in a capture.
fn initiation(capture: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = PORT.to_be_bytes();
    // UDP header (RFC 768): destination port, length 8 + 148, checksum; then the message's type.
    let is_one =
        |bytes: &[u8]| bytes.starts_with(&[high, low, 0, 156]) && bytes.get(6..10) == Some(&[1, 0, 0, 0][..]);
    let at = capture.windows(10).position(is_one)? + 6;
    capture.get(at..at + 148).map(<[u8]>::to_vec)
}

fn rate() -> u64 {
    std::env::var("FLOOD_RATE").map_or(5000, |rate| rate.parse().expect("FLOOD_RATE is a number"))
}

/// Throws `datagram` at S from [`SOURCES`] while `deed` runs; datagrams sent a second.
fn under_flood(siege: &Siege, datagram: &[u8], port: u16, deed: impl FnOnce()) -> f64 {
    let mut flood = siege.flood.clone();
    flood.to.set_port(port);
    flood.during(&[datagram.to_vec()], deed).rate()
}

#[test]
fn an_existing_tunnel_does_not_notice_a_flood() {
    let Some(siege) = Siege::new("flood") else { return };
    for (what, datagram) in siege.floods() {
        let achieved = under_flood(&siege, &datagram, PORT, || {
            let stream = PingStream::start(&siege.a.host, &siege.s.ipv4().to_string(), 0.02);
            stream.wait_replies(100, LIMIT);
            assert_eq!(siege.s.json(&["status"])["state"], "ready", "control answers: {what}");
            let report = stream.finish();
            eprintln!("{what}: {report:?}");
            assert_eq!(report.lost(), 0, "{what}: {report:?}");
        });
        eprintln!("{what}: {achieved:.0} a second");
        assert!(siege.a.path_to(&siege.s.id()).is_some(), "{what}: the tunnel stands");
    }
    let dropped = siege.s.json(&["status"])["counters"]["dropped"].clone();
    for reason in ["not_authentic", "rate_limited", "unknown_session"] {
        assert!(dropped[reason].as_u64().is_some_and(|count| count > 0), "{reason}: {dropped}");
    }
}

#[test]
fn a_newcomer_comes_in_during_a_flood() {
    let Some(mut siege) = Siege::new("flood_newcomer") else { return };
    let hosts = [siege.lab.public("b", "203.0.113.104"), siege.lab.public("c", "203.0.113.105")];
    let floods = siege.floods();
    for ((what, datagram), host) in floods[1..=2].iter().zip(&hosts) {
        under_flood(&siege, datagram, PORT, || {
            let newcomer = join_by_file(host, &siege.code);
            eprintln!("{what}: ready after {:?}", newcomer.wait_ready());
            siege.s.wait_path(&newcomer.id(), "direct");
        });
    }
}

/// Megabits a second of one TCP stream from A to S.
fn throughput(siege: &Siege) -> f64 {
    let (from, to, address) = (&siege.a.host, &siege.s.host, siege.s.ipv4().to_string());
    let server = to.spawn("iperf3", &["iperf3", "-s", "-1", "-B", &address]);
    wait_for("iperf3 listens", LIMIT, || to.ok(&["ss", "-Htln", "sport = :5201"]).contains("5201"));
    let json = from.ok(&["iperf3", "-c", &address, "-t", "2", "-J"]);
    drop(server);
    let report: serde_json::Value = serde_json::from_str(&json).expect("iperf3 -J speaks JSON");
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
}

/// Prints what each flood leaves of the throughput, of none and of the same flood at a port where nobody reads.
#[test]
#[ignore = "a measurement: an optimised build, a machine of its own, FLOOD_RATE=50000"]
fn throughput_under_floods() {
    if !ability::program("flood_throughput", "iperf3") {
        return;
    }
    let Some(mut siege) = Siege::new("flood_throughput") else { return };
    siege.lab.stop_capture();
    let _unread = siege.s.host.udp(Ipv4Addr::UNSPECIFIED, NOWHERE);
    for (what, datagram) in siege.floods() {
        let (mut of_quiet, mut of_nowhere, mut achieved) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..3 {
            let quiet = throughput(&siege);
            let (mut flooded, mut beside) = (0.0, 0.0);
            under_flood(&siege, &datagram, NOWHERE, || beside = throughput(&siege));
            achieved = under_flood(&siege, &datagram, PORT, || flooded = throughput(&siege));
            of_quiet.push(flooded / quiet);
            of_nowhere.push(flooded / beside);
        }
        let (of_quiet, of_nowhere) = (median(of_quiet), median(of_nowhere));
        eprintln!(
            "{what} at {achieved:.0}/s: {of_quiet:.2} of no flood, {of_nowhere:.2} of a flood that nobody reads"
        );
        assert!(of_nowhere > 0.8, "{what}: reading the flood costs the tunnel {of_nowhere:.2}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
