//! The laboratory is what it says: NAT classes, hairpins, cuts, delays, and nothing left behind.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use frejus_netns::evidence;
use frejus_netns::lab::{abandon, namespace_exists, sweep};
use frejus_netns::probe::{address, heard, seen_at};
use frejus_netns::run::TIMED_OUT;
use frejus_netns::traffic::{Capture, DownloadSite, PingStream, bytes, contains, round_trip_ms};
use frejus_netns::wait::let_pass;
use frejus_netns::{Host, Lab, Nat, NatClass, Quality, wait_for};

/// Three public servers' sockets: s1:3478, s1:3479, s2:3478.
fn servers(lab: &mut Lab) -> (Vec<Host>, [UdpSocket; 3]) {
    let s1 = lab.public("s1", "203.0.113.101");
    let s2 = lab.public("s2", "203.0.113.102");
    let sockets = [s1.udp(s1.local, 3478), s1.udp(s1.local, 3479), s2.udp(s2.local, 3478)];
    (vec![s1, s2], sockets)
}

/// Ports seen at the three servers, then who of the three gets in after a word to the first only.
fn classify(test: &str, nat: Nat) -> Option<(Vec<u16>, [bool; 3])> {
    let mut lab = Lab::new(test)?;
    let (_hosts, sockets) = servers(&mut lab);
    let home = lab.home("a", nat);
    let caller = home.udp(home.local, 7000);
    let ports = sockets.iter().map(|server| seen_at(&caller, server)).collect::<Vec<_>>();
    assert!(ports.iter().all(|seen| seen.ip() == home.public), "another address than promised: {ports:?}");

    let fresh = home.udp(home.local, 7001);
    let mapping = seen_at(&fresh, &sockets[0]);
    for server in &sockets {
        server.send_to(b"in?", mapping).expect("the bridge carries it");
    }
    let heard = heard(&fresh);
    let admitted = [0, 1, 2].map(|i: usize| heard.contains(&address(&sockets[i])));
    Some((ports.iter().map(SocketAddr::port).collect(), admitted))
}

fn assert_class(class: NatClass, same_port: bool, expected: [bool; 3]) {
    for (variant, nat) in [("", Nat::from(class)), ("_careless", Nat::from(class).careless())] {
        let Some((ports, admitted)) = classify(&format!("class_{}{variant}", class.word()), nat) else {
            return;
        };
        let distinct = ports.iter().collect::<std::collections::BTreeSet<_>>().len();
        if same_port {
            assert_eq!(ports, [7000; 3], "{class:?} keeps the port");
        } else {
            assert_eq!(distinct, 3, "{class:?} maps each destination anew: {ports:?}");
        }
        if class == NatClass::SymmetricSequential {
            assert_eq!(ports, [40000, 40001, 40002]);
        }
        assert_eq!(admitted, expected, "{class:?}{variant}: known endpoint, known address, stranger");
    }
}

#[test]
fn open_admits_everybody() {
    assert_class(NatClass::Open, true, [true, true, true]);
}

#[test]
fn firewalled_keeps_its_address_and_admits_answers() {
    assert_class(NatClass::Firewalled, true, [true, false, false]);
}

#[test]
fn full_cone_admits_everybody() {
    assert_class(NatClass::FullCone, true, [true, true, true]);
}

#[test]
fn address_restricted_admits_known_addresses() {
    assert_class(NatClass::AddressRestricted, true, [true, true, false]);
}

#[test]
fn port_restricted_admits_known_endpoints() {
    assert_class(NatClass::PortRestricted, true, [true, false, false]);
}

#[test]
fn symmetric_sequential_counts_its_ports() {
    assert_class(NatClass::SymmetricSequential, false, [true, false, false]);
}

#[test]
fn symmetric_random_scatters_its_ports() {
    assert_class(NatClass::SymmetricRandom, false, [true, false, false]);
}

/// A stray packet from the peer, before we have sent; returns the port that the peer then sees.
fn port_after_stray(test: &str, nat: Nat) -> Option<u16> {
    let mut lab = Lab::new(test)?;
    let (_hosts, [peer, ..]) = servers(&mut lab);
    let home = lab.home("a", nat);
    peer.send_to(b"stray", (home.public, 7000)).expect("the bridge carries it");
    let strays = || lab.router(&home).ok(&["conntrack", "-C"]).trim() != "0" || !nat_is_careless(&nat);
    wait_for("the stray packet is filed by the router", Duration::from_secs(5), strays);
    Some(seen_at(&home.udp(home.local, 7000), &peer).port())
}

fn nat_is_careless(nat: &Nat) -> bool {
    !nat.rules(Ipv4Addr::LOCALHOST, "127.0.0.0/8").contains("chain self")
}

#[test]
fn a_careless_router_is_pushed_to_another_port_by_a_stray_packet() {
    let Some(careless) = port_after_stray("stray_careless", Nat::from(NatClass::PortRestricted).careless())
    else {
        return;
    };
    assert_ne!(careless, 7000, "the trap of the careless router");
    let careful = port_after_stray("stray_careful", NatClass::PortRestricted.into());
    assert_eq!(careful, Some(7000), "dropped first, a stray packet changes nothing");
}

#[test]
fn hairpin_works_where_it_is_asked_for() {
    for class in [NatClass::FullCone, NatClass::AddressRestricted, NatClass::PortRestricted] {
        for (asked, nat) in [(true, Nat::from(class).hairpin()), (false, Nat::from(class))] {
            let Some(mut lab) = Lab::new("hairpin") else { return };
            let (_hosts, [server, ..]) = servers(&mut lab);
            let home = lab.home("a", nat);
            let neighbour = lab.neighbour(&home, "a2");
            let (one, other) = (home.udp(home.local, 7000), neighbour.udp(neighbour.local, 7002));
            let mapping = seen_at(&one, &server);
            other.send_to(b"hairpin", mapping).unwrap();
            let from = SocketAddr::V4(SocketAddrV4::new(home.public, 7002));
            assert_eq!(heard(&one), if asked { vec![from] } else { vec![] }, "{class:?}, asked: {asked}");
        }
    }
}

#[test]
fn fast_expiry_forgets_a_mapping_within_four_seconds() {
    let Some(mut lab) = Lab::new("fast_expiry") else { return };
    let (_hosts, [server, ..]) = servers(&mut lab);
    let home = lab.home("a", Nat::from(NatClass::SymmetricRandom).fast_expiry());
    let caller = home.udp(home.local, 7000);
    let first = seen_at(&caller, &server);
    let_pass("less than the mapping's life", Duration::from_secs(1));
    assert_eq!(seen_at(&caller, &server), first, "kept by traffic");
    let_pass("more than the mapping's life", Duration::from_secs(4));
    assert_ne!(seen_at(&caller, &server), first, "forgotten without traffic");
}

#[test]
fn a_rebooted_router_has_forgotten_and_a_readdressed_one_is_seen_elsewhere() {
    for class in [NatClass::FullCone, NatClass::AddressRestricted, NatClass::PortRestricted] {
        let Some(mut lab) = Lab::new("reboot") else { return };
        let (_hosts, [server, ..]) = servers(&mut lab);
        let home = lab.home("a", class);
        let caller = home.udp(home.local, 7000);
        let mapping = seen_at(&caller, &server);
        server.send_to(b"before", mapping).unwrap();
        assert_eq!(heard(&caller).len(), 1, "{class:?}");
        lab.reboot_router(&home);
        server.send_to(b"after", mapping).unwrap();
        assert_eq!(heard(&caller), [], "{class:?}: the way in was forgotten");
        if class == NatClass::PortRestricted {
            lab.readdress(&home, Ipv4Addr::new(203, 0, 113, 150));
            assert_eq!(seen_at(&caller, &server), "203.0.113.150:7000".parse().unwrap());
        }
    }
}

#[test]
fn neighbours_of_one_home_share_its_address() {
    let Some(mut lab) = Lab::new("neighbours") else { return };
    let (_hosts, [server, ..]) = servers(&mut lab);
    let home = lab.home("a", NatClass::PortRestricted);
    let neighbour = lab.neighbour(&home, "a2");
    let one = seen_at(&home.udp(home.local, 7000), &server);
    let other = seen_at(&neighbour.udp(neighbour.local, 7000), &server);
    assert_eq!((one.ip(), other.ip()), (home.public.into(), home.public.into()));
    assert_ne!(one.port(), other.port());
    neighbour.ok(&["ping", "-c", "1", "-W", "2", &home.local.to_string()]);
}

#[test]
fn cut_mend_and_blackout_are_silent_and_reversible() {
    let Some(mut lab) = Lab::new("cut") else { return };
    let s = lab.public("s", "203.0.113.101");
    let (a, b) = (lab.home("a", NatClass::Open), lab.home("b", NatClass::PortRestricted));
    let reaches = |from: &Host, to: &Host| {
        from.run(&["ping", "-c", "2", "-i", "0.2", "-W", "1", &to.public.to_string()]).code == 0
    };
    assert!(reaches(&b, &a) && reaches(&b, &s));
    lab.cut(&a, &b);
    assert!(!reaches(&b, &a) && reaches(&b, &s) && reaches(&a, &s), "only the pair is cut");
    lab.mend(&a, &b);
    assert!(reaches(&b, &a));
    lab.blackout(&s);
    assert!(!reaches(&b, &s) && !reaches(&a, &s) && reaches(&b, &a), "only the host is dark");
    lab.light(&s);
    assert!(reaches(&b, &s) && reaches(&a, &s));
}

#[test]
fn a_delayed_link_delays_and_carries_large_frames() {
    let Some(mut lab) = Lab::new("delay") else { return };
    let s = lab.public("s", "203.0.113.101");
    let a = lab.home_with("a", NatClass::PortRestricted, Quality::delayed(20));
    let site = DownloadSite::open(&s, s.local.into(), &"x".repeat(2_000_000));
    let rtt = round_trip_ms(&a.ok(&["ping", "-c", "5", "-i", "0.2", &s.public.to_string()]));
    eprintln!("20 ms each way: round trip {rtt} ms");
    assert!((40.0..60.0).contains(&rtt), "20 ms each way gave {rtt} ms");
    assert_eq!(site.fetch(&a).len(), 2_000_000, "TCP fills the link and arrives whole");
}

#[test]
fn a_lossy_link_loses_about_what_it_says() {
    let Some(mut lab) = Lab::new("loss") else { return };
    let s = lab.public("s", "203.0.113.101");
    let quality = Quality { loss_percent: 20, ..Quality::delayed(1) };
    let a = lab.home_with("a", NatClass::PortRestricted, quality);
    // A lost question for an address costs a second of pings, which the link has not lost.
    wait_for("each knows the other's address", Duration::from_secs(30), || {
        a.run(&["ping", "-c", "1", "-W", "1", &s.public.to_string()]).code == 0
    });
    let stream = PingStream::start(&a, &s.public.to_string(), 0.01);
    wait_for("two hundred replies", Duration::from_secs(20), || stream.replies() >= 200);
    let report = stream.finish();
    let lost = 100 * (report.sent - report.received) / report.sent;
    assert!((20..55).contains(&lost), "20 % each way should lose 36 % of round trips: {lost} %");
}

#[test]
fn pages_cross_over_both_families_and_a_capture_sees_them() {
    const MARKER: &str = "a-marker-in-clear";
    let Some(mut lab) = Lab::new("capture") else { return };
    let (s, a) = (lab.public("s", "203.0.113.101"), lab.public("a", "203.0.113.102"));
    for (host, last) in [(&s, 1), (&a, 2)] {
        host.ok(&["ip", "addr", "add", &format!("fd00::{last}/64"), "dev", "eth0"]);
    }
    let before = bytes(&s, "eth0");
    let capture = Capture::start(&s, "eth0");
    for address in ["203.0.113.101", "fd00::1"] {
        let site = DownloadSite::open(&s, address.parse().unwrap(), MARKER);
        assert_eq!(site.fetch(&a), MARKER);
    }
    let seen = capture.finish();
    assert!(contains(&seen, MARKER) && !contains(&seen, "another marker"));
    assert!(bytes(&s, "eth0") > before + 2 * MARKER.len() as u64);
}

#[test]
fn a_command_that_hangs_is_ended() {
    let Some(mut lab) = Lab::new("hang") else { return };
    let host = lab.public("s", "203.0.113.101");
    let output = host.run_with(&["sleep", "60"], "", Duration::from_secs(1));
    assert_eq!(output.code, TIMED_OUT);
    assert!(output.took < Duration::from_secs(10));
}

#[test]
fn resolver_configuration_is_the_namespaces_own() {
    let Some(mut lab) = Lab::new("resolver") else { return };
    let host = lab.public("s", "203.0.113.101");
    let before = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    host.sh("echo 'nameserver 203.0.113.9' > /etc/resolv.conf");
    assert!(host.ok(&["cat", "/etc/resolv.conf"]).contains("203.0.113.9"));
    assert_eq!(std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), before);
}

#[test]
fn a_panicking_test_leaves_evidence_and_nothing_else() {
    let mut left = None;
    let fate = catch_unwind(AssertUnwindSafe(|| {
        let Some(mut lab) = Lab::new("panic_on_purpose") else { return };
        let s = lab.public("s", "203.0.113.101");
        let a = lab.home_with("a", NatClass::PortRestricted, Quality::delayed(1));
        let stray = s.command(&["sleep", "600"]).spawn().unwrap();
        a.ok(&["ping", "-c", "1", &s.public.to_string()]);
        left = Some((lab.scratch().to_path_buf(), s.namespace.clone(), a.namespace.clone(), stray));
        panic!("on purpose, to see what a failing test leaves");
    }));
    let Some((scratch, s, a, mut stray)) = left else { return };
    assert!(fate.is_err());
    assert!(!namespace_exists(&s) && !namespace_exists(&a) && !scratch.exists());
    assert!(!std::path::Path::new("/etc/netns").join(&a).exists());
    wait_for("the forgotten process is ended", Duration::from_secs(5), || {
        stray.try_wait().is_ok_and(|end| end.is_some())
    });
    let kept = evidence::directory("panic_on_purpose");
    let router_rules = std::fs::read_to_string(kept.join("router-a.rules")).unwrap();
    assert!(router_rules.contains("masquerade"), "{router_rules}");
    assert!(std::fs::metadata(kept.join("wan.pcap")).unwrap().len() > 100, "the capture holds the ping");
    assert!(std::fs::read_to_string(kept.join("commands.log")).unwrap().contains("ping -c 1"));
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn leftovers_of_the_dead_are_swept_and_the_living_are_spared() {
    let Some(mut lab) = Lab::new("sweep") else { return };
    let living = lab.public("s", "203.0.113.101");
    let dead = std::process::Command::new("true").spawn().map(|mut child| {
        let pid = child.id();
        child.wait().unwrap();
        pid
    });
    let abandoned = abandon(dead.unwrap());
    assert!(namespace_exists(&abandoned));
    sweep();
    assert!(!namespace_exists(&abandoned) && namespace_exists(&living.namespace));
}
