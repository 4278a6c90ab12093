//! A world that does not cooperate: ports taken, no device, no permission, a prefix that clashes, garbage.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use frejus_netns::daemon::{LIMIT, assert_refused, binary, frejus, state_of, text};
use frejus_netns::scene::{FOUNDER, first_ping, founder};
use frejus_netns::traffic::PingStream;
use frejus_netns::{Daemon, Host, Lab, NatClass, ability, wait_for};

/// Default ports of a node: its own and the directory's.
const PORTS: [u16; 2] = [51860, 51861];

/// Conflict: an address, prefix, name or port is taken.
const CONFLICT: i32 = 11;

/// A prefix that the story may choose freely; its third of a clash is routed locally.
const PREFIX: &str = "10.77.0.0/16";
const CLASH: &str = "10.77.3.0/24";

#[test]
fn a_super_peer_whose_port_is_taken_stops() {
    let Some(mut lab) = Lab::new("port_super_peer") else { return };
    let host = lab.public("s", FOUNDER);
    let taken = host.udp(Ipv4Addr::UNSPECIFIED, PORTS[0]);
    let state = state_of(&host);
    let refused = frejus(&host, &["up", "--create", "mymed", "--state", text(&state)]);
    assert_refused(&refused, &[CONFLICT], &["51860"]);
    drop(taken);
}

#[test]
fn a_peer_whose_default_port_is_taken_takes_another() {
    let Some(mut lab) = Lab::new("port_peer") else { return };
    let (s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let _taken = host.udp(Ipv4Addr::UNSPECIFIED, PORTS[0]);
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    first_ping(&host, &s.ipv4().to_string());

    let other = lab.home("b", NatClass::PortRestricted);
    let _taken_too = other.udp(Ipv4Addr::UNSPECIFIED, PORTS[0]);
    let state = state_of(&other);
    let code = s.invite(1);
    let argv = ["up", "--join", &code, "--listen", "0.0.0.0:51860", "--state", text(&state)];
    assert_refused(&frejus(&other, &argv), &[CONFLICT], &["51860"]);
}

#[test]
fn without_a_tun_device_the_error_names_it() {
    let Some(mut lab) = Lab::new("no_tun") else { return };
    let host = lab.public("s", FOUNDER);
    let (binary, state) = (binary(), state_of(&host));
    let up = format!("{} up --create mymed --state {}", text(&binary), text(&state));
    let script = format!("mount -t tmpfs none /dev/net; exec {up}");
    let refused = host.run(&["unshare", "-m", "sh", "-ec", &script]);
    assert_refused(&refused, &[1, 4], &["/dev/net/tun"]);
}

#[test]
fn a_clock_that_is_wrong_by_a_day_is_named_and_burns_no_code() {
    let test = "wrong_clock";
    if !ability::program(test, "faketime") {
        return;
    }
    let Some(mut lab) = Lab::new(test) else { return };
    let (_s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let (binary, state) = (binary(), state_of(&host));
    let at = |shift: &str, verb: &[&str]| {
        let argv = ["faketime", "-f", shift, text(&binary)];
        host.run(&[&argv[..], verb, &["--state", text(&state)]].concat())
    };
    for (shift, word) in [("+1d", "fast"), ("-1d", "slow")] {
        assert_refused(&at(shift, &["join", &code]), &[1], &["clock", "24 h", word]);
    }
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    drop(a);
    assert_refused(&at("-1d", &["up"]), &[1], &["clock", text(&state)]);
    const EXPIRED: i32 = 5;
    assert_refused(&at("+400d", &["up"]), &[EXPIRED], &["clock", "passport", text(&state)]);
}

#[test]
fn without_permission_nothing_is_made() {
    let Some(mut lab) = Lab::new("no_permission") else { return };
    let host = lab.public("s", FOUNDER);
    let copy = lab.scratch().join("frejus");
    fs::copy(binary(), &copy).unwrap();
    let state = state_of(&host);
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let up = [text(&copy), "up", "--create", "mymed", "--state", text(&state)];
    assert_refused(&host.run(&[&nobody[..], &up].concat()), &[4], &[]);
    assert!(!host.ok(&["ip", "-br", "link"]).contains("frejus"), "no device is left");
}

#[test]
fn a_clashing_prefix_is_refused_when_a_network_is_made() {
    let Some(mut lab) = Lab::new("prefix_create") else { return };
    let host = lab.public("s", FOUNDER);
    host.ok(&["ip", "route", "add", CLASH, "dev", "eth0"]);
    let state = state_of(&host);
    let create = |prefix| frejus(&host, &["create", "mymed", "--prefix", prefix, "--state", text(&state)]);
    assert_refused(&create(PREFIX), &[CONFLICT], &[PREFIX, CLASH, "--prefix"]);
    let other = create("10.78.0.0/16");
    assert_eq!(other.code, 0, "another prefix is fine: {other}");
}

#[test]
fn a_clashing_prefix_is_refused_when_a_network_is_joined() {
    let Some(mut lab) = Lab::new("prefix_join") else { return };
    let public = lab.public("s", FOUNDER);
    let created =
        frejus(&public, &["create", "mymed", "--prefix", PREFIX, "--state", text(&state_of(&public))]);
    assert_eq!(created.code, 0, "{created}");
    let s = Daemon::start(&public, &[]);
    s.wait_ready();
    let host = lab.home("a", NatClass::PortRestricted);
    host.ok(&["ip", "route", "add", CLASH, "dev", "eth0"]);
    let (code, state) = (s.invite(1), state_of(&host));
    let join = || frejus(&host, &["join", &code, "--state", text(&state)]);
    assert_refused(&join(), &[CONFLICT], &[PREFIX, CLASH]);
    host.ok(&["ip", "route", "del", CLASH]);
    let joined = join();
    assert_eq!(joined.code, 0, "the refusal has burnt nothing: {joined}");
}

/// What no decoder expects: every first byte, every length up to the largest datagram, all from one seed.
fn garbage(socket: &UdpSocket, to: Ipv4Addr) {
    let mut dice = 7u64;
    for round in 0..600u32 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = match round % 6 {
            0 => 0,
            1 => 65_507,
            2 => 148, // a handshake initiation's length
            _ => usize::try_from((dice >> 33) % 1500).expect("below 1500"),
        };
        let mut datagram: Vec<u8> = (0..length).map(|i| (dice >> (i % 57)) as u8).collect();
        if let Some(first) = datagram.first_mut() {
            *first = round as u8;
        }
        for port in PORTS {
            socket.send_to(&datagram, (to, port)).ok();
        }
    }
}

/// Bytes that are neither TLS nor libp2p, then an end in the middle.
fn garbage_streams(from: &Host, to: Ipv4Addr) {
    for port in PORTS {
        from.within(|| {
            let address = (to, port).into();
            if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
                stream.write_all(&[0xff; 4000]).ok();
            }
        });
    }
}

#[test]
fn garbage_on_every_port_disturbs_nobody() {
    let Some(mut lab) = Lab::new("garbage") else { return };
    let (mut s, _) = founder(&mut lab);
    let code = s.invite(2);
    let (a_host, b_host) = (lab.home("a", NatClass::PortRestricted), lab.public("b", "203.0.113.102"));
    let a = Daemon::join(&a_host, &code);
    let mut b = Daemon::join(&b_host, &code);
    a.wait_ready();
    b.wait_ready();
    let vandal = lab.public("vandal", "203.0.113.199");
    let (socket, pids) = (vandal.udp(vandal.local, 4444), [s.process().pid(), b.process().pid()]);

    first_ping(&a.host, &b.ipv4().to_string());
    a.wait_path(&b.id(), "direct");
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.05);
    stream.wait_replies(20, LIMIT);
    for target in [&s.host, &b.host] {
        garbage(&socket, target.public);
        garbage_streams(&vandal, target.public);
    }
    stream.wait_replies(20, LIMIT);
    let report = stream.finish();
    eprintln!("under garbage: {report:?}");
    assert!(report.lost() * 20 <= report.sent, "more than 5 % lost under garbage: {report:?}");
    assert_eq!([s.process().pid(), b.process().pid()], pids);
    for daemon in [&mut s, &mut b] {
        assert!(daemon.process().is_alive(), "{}", daemon.process().stderr());
        wait_for("ready after garbage", LIMIT, || daemon.is("ready"));
    }
}
