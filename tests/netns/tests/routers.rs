//! Routers are what they say, beyond the seven classes: carriers, isolation, errors, blocks, proxies, mapping, rivals.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use frejus_netns::lab::Plan;
use frejus_netns::nat::Tcp;
use frejus_netns::probe::{address, heard, seen_at};
use frejus_netns::traffic::round_trip_ms;
use frejus_netns::wait::let_pass;
use frejus_netns::{Host, Lab, Nat, NatClass, Process, Quality, ability, wait_for};

const CONES: [NatClass; 3] = [NatClass::FullCone, NatClass::AddressRestricted, NatClass::PortRestricted];

/// Two public servers' sockets.
fn servers(lab: &mut Lab) -> (Host, [UdpSocket; 2]) {
    let [s1, s2] = [("s1", "203.0.113.101"), ("s2", "203.0.113.102")].map(|(name, at)| lab.public(name, at));
    let sockets = [s1.udp(s1.local, 3478), s2.udp(s2.local, 3478)];
    (s1, sockets)
}

/// True when a web server of `on` at `port` is reached from `from`; `how` goes to curl.
fn reached(from: &Host, on: &Host, port: u16, how: &[&str]) -> bool {
    let url = format!("http://{}:{port}/", on.public);
    let argv = ["curl", "-sS", "--fail", "--max-time", "3", "-o", "/dev/null", "--noproxy", "-", &url];
    from.run(&[&argv, how].concat()).code == 0
}

fn web(on: &Host, port: u16) -> Process {
    let number = port.to_string();
    let root = on.scratch.join("web");
    std::fs::create_dir_all(&root).expect("the scratch directory is writable");
    let argv = ["python3", "-m", "http.server", &number, "--directory", &root.to_string_lossy()];
    let process = on.spawn(&format!("web-{port}"), &argv);
    wait_for("a web server", Duration::from_secs(10), || {
        !on.ok(&["ss", "-Htln", &format!("sport = :{port}")]).trim().is_empty()
    });
    process
}

/// True when a word of `home` reaches a public server.
fn udp_passes(home: &Host, server: &UdpSocket) -> bool {
    home.udp(home.local, 0).send_to(b"hello", address(server)).ok();
    !heard(server).is_empty()
}

#[test]
fn two_hosts_of_one_port_have_two_mappings_that_keep() {
    for nat in CONES.map(Nat::from).into_iter().chain(CONES.map(|class| Nat::from(class).hairpin())) {
        let Some(mut lab) = Lab::new("same_port") else { return };
        let (_s1, [one, other]) = servers(&mut lab);
        let first = lab.home("a", nat);
        let second = lab.neighbour(&first, "a2");
        let sockets = [first.udp(first.local, 51860), second.udp(second.local, 51860)];
        let mappings = sockets.each_ref().map(|socket| seen_at(socket, &one));
        assert_ne!(mappings[0], mappings[1], "{nat}");
        for (socket, mapping) in sockets.iter().zip(mappings) {
            assert_eq!(seen_at(socket, &other), mapping, "{nat}: a cone keeps it for another server");
            one.send_to(b"back", mapping).expect("there is a route");
            assert_eq!(heard(socket), [address(&one)], "{nat}: to the host that asked, and to no other");
        }
    }
}

/// Two homes behind one carrier; what b hears of a through the carrier's own address, and directly.
fn siblings(test: &str, carrier: Nat) -> Option<(bool, bool)> {
    let mut lab = Lab::new(test)?;
    let (_s1, [server, _]) = servers(&mut lab);
    lab.route(&Plan { carrier: true, ..Plan::home("carrier", carrier) });
    let [a, b] = ["a", "b"].map(|name| {
        let router = format!("router-{name}");
        lab.route(&Plan { behind: Some("carrier"), ..Plan::home(&router, NatClass::PortRestricted.into()) });
        lab.behind(&router, name)
    });
    let sockets = [&a, &b].map(|host| host.udp(host.local, 51860));
    let mappings = sockets.each_ref().map(|socket| seen_at(socket, &server));
    assert!(mappings.iter().all(|seen| seen.ip() == Ipv4Addr::new(203, 0, 113, 10)), "{mappings:?}");
    assert_ne!(mappings[0], mappings[1]);
    assert_eq!((a.public, b.public), (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 10)));
    // Both punch, twice: the first word of one may find the other's door still shut.
    for _ in 0..2 {
        sockets[0].send_to(b"to b", mappings[1]).expect("there is a route");
        sockets[1].send_to(b"to a", mappings[0]).expect("there is a route");
    }
    let through = !heard(&sockets[0]).is_empty() && !heard(&sockets[1]).is_empty();
    let middle = |name: &str| SocketAddr::from((lab.machine(name).public, 51860));
    for _ in 0..2 {
        sockets[0].send_to(b"to b", middle("router-b")).expect("there is a route");
        sockets[1].send_to(b"to a", middle("router-a")).expect("there is a route");
    }
    let below = heard(&sockets[0]).contains(&middle("router-b")) && !heard(&sockets[1]).is_empty();
    lab.cut(&a, &b);
    sockets[0].send_to(b"to b", middle("router-b")).expect("there is a route");
    assert_eq!(heard(&sockets[1]), [], "cut in the carrier's network");
    assert_eq!(seen_at(&sockets[0], &server), mappings[0], "and nowhere else");
    lab.mend(&a, &b);
    sockets[0].send_to(b"to b", middle("router-b")).expect("there is a route");
    assert_eq!(heard(&sockets[1]).len(), 1);
    Some((through, below))
}

#[test]
fn homes_of_one_carrier_meet_in_its_network_and_where_it_hairpins_outside() {
    let Some(plain) = siblings("carrier", NatClass::PortRestricted.into()) else { return };
    assert_eq!(plain, (false, true), "no hairpin: by the middle addresses alone");
    let hairpin = siblings("carrier_hairpin", Nat::from(NatClass::PortRestricted).hairpin());
    assert_eq!(hairpin, Some((true, true)));
}

#[test]
fn a_cone_behind_a_symmetric_carrier_is_symmetric() {
    let Some(mut lab) = Lab::new("cone_under_symmetric") else { return };
    let (_s1, [one, other]) = servers(&mut lab);
    lab.route(&Plan { carrier: true, ..Plan::home("carrier", NatClass::SymmetricRandom.into()) });
    lab.route(&Plan { behind: Some("carrier"), ..Plan::home("inner", NatClass::FullCone.into()) });
    let home = lab.behind("inner", "a");
    let socket = home.udp(home.local, 7000);
    assert_ne!(seen_at(&socket, &one).port(), seen_at(&socket, &other).port());
}

#[test]
fn isolated_hosts_hear_the_internet_and_each_other_by_hairpin_alone() {
    for hairpin in [false, true] {
        let Some(mut lab) = Lab::new("isolated") else { return };
        let (_s1, [server, _]) = servers(&mut lab);
        let nat = Nat::from(NatClass::PortRestricted);
        let nat = if hairpin { nat.hairpin() } else { nat };
        lab.route(&Plan { isolated: true, ..Plan::home("cafe", nat) });
        let [a, b] = ["a", "b"].map(|name| lab.behind("cafe", name));
        let ping = a.run(&["ping", "-c", "1", "-W", "1", &b.local.to_string()]);
        assert_ne!(ping.code, 0, "isolated hosts do not hear each other: {ping}");
        let sockets = [&a, &b].map(|host| host.udp(host.local, 7000));
        let mappings = sockets.each_ref().map(|socket| seen_at(socket, &server));
        sockets[0].send_to(b"hairpin", mappings[1]).expect("there is a route");
        assert_eq!(heard(&sockets[1]), if hairpin { vec![mappings[0]] } else { vec![] });
    }
}

#[test]
fn a_rejecting_router_says_so_and_keeps_its_mappings() {
    for class in [NatClass::PortRestricted, NatClass::AddressRestricted, NatClass::Firewalled] {
        let Some(mut lab) = Lab::new("rejects") else { return };
        let (s1, [server, _]) = servers(&mut lab);
        let home = lab.home("a", Nat::from(class).rejecting());
        let stray = s1.udp(s1.local, 9000);
        stray.connect((home.public, 7000)).unwrap();
        stray.send(b"stray").unwrap();
        let answer = stray.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(answer.kind(), ErrorKind::ConnectionRefused, "{class}: ICMP port unreachable");
        assert_eq!(seen_at(&home.udp(home.local, 7000), &server).port(), 7000, "{class}");
    }
}

#[test]
fn a_lifetime_is_kept_by_cones_too() {
    for class in CONES {
        let Some(mut lab) = Lab::new("lifetime") else { return };
        let (_s1, [server, _]) = servers(&mut lab);
        let home = lab.home("a", Nat::from(class).lifetime(3));
        let socket = home.udp(home.local, 7000);
        let mapping = seen_at(&socket, &server);
        server.send_to(b"at once", mapping).expect("there is a route");
        assert_eq!(heard(&socket).len(), 1, "{class}");
        let_pass("more than the mapping's life", Duration::from_secs(5));
        server.send_to(b"too late", mapping).expect("there is a route");
        assert_eq!(heard(&socket), [], "{class}");
    }
    let Some(mut lab) = Lab::new("short_lived") else { return };
    let home = lab.home("a", Nat::from(NatClass::PortRestricted).short_lived());
    for kind in ["timeout", "timeout_stream"] {
        let setting = format!("net.netfilter.nf_conntrack_udp_{kind}");
        assert_eq!(lab.router(&home).ok(&["sysctl", "-n", &setting]).trim(), "30");
    }
}

#[test]
fn what_is_blocked_does_not_pass() {
    let plain = Nat::from(NatClass::PortRestricted);
    let only = Tcp::To([443, 0, 0, 0]);
    for (nat, udp, web_443, web_8000) in [
        (plain, true, true, true),
        (plain.without_udp(), false, true, true),
        (plain.without_udp().tcp(only), false, true, false),
        (plain.without_udp().tcp(Tcp::None), false, false, false),
    ] {
        let Some(mut lab) = Lab::new("blocked") else { return };
        let (s1, [server, _]) = servers(&mut lab);
        let home = lab.home("a", nat);
        let _sites = [443, 8000].map(|port| web(&s1, port));
        assert_eq!(udp_passes(&home, &server), udp, "{nat}: UDP");
        assert_eq!(reached(&home, &s1, 443, &[]), web_443, "{nat}: TCP 443");
        assert_eq!(reached(&home, &s1, 8000, &[]), web_8000, "{nat}: TCP 8000");
    }
}

#[test]
fn a_proxy_lets_through_who_asks_as_it_wants_it() {
    if !ability::program("proxy", "tinyproxy") {
        return;
    }
    for who in [None, Some(("clerk", "secret-of-the-lab"))] {
        let Some(mut lab) = Lab::new("proxy") else { return };
        let s1 = lab.public("s1", "203.0.113.101");
        let nat = Nat::from(NatClass::PortRestricted).without_udp().tcp(Tcp::None);
        let home = lab.home("a", nat);
        let url = lab.start_proxy(&home, who);
        let _site = web(&s1, 443);
        let naked = format!("http://{}", url.rsplit(['@', '/']).next().unwrap());
        assert!(!reached(&home, &s1, 443, &[]), "nothing passes beside the proxy");
        assert!(reached(&home, &s1, 443, &["-p", "-x", &url]), "CONNECT, with what the proxy wants to know");
        assert_eq!(
            reached(&home, &s1, 443, &["-p", "-x", &naked]),
            who.is_none(),
            "CONNECT without a password"
        );
    }
}

#[test]
fn ipv6_is_open_or_lets_answers_in() {
    let Some(mut lab) = Lab::new("ipv6") else { return };
    let (s, a) = (lab.public("s", "203.0.113.101"), lab.home("a", NatClass::PortRestricted));
    let (b, c) = (lab.home("b", NatClass::SymmetricRandom), lab.home("c", NatClass::Open));
    let sockets = [&s, &a, &b, &c].map(|host| host.udp(lab.give_ipv6(host), 7000));
    let [server, a, b, c] = &sockets;
    assert_eq!(seen_at(a, server), address(a), "no translation");
    for host in [a, b] {
        c.send_to(b"stray", address(host)).expect("there is a route");
        assert_eq!(heard(host), [], "unasked");
    }
    server.send_to(b"stray", address(c)).expect("there is a route");
    assert_eq!(heard(c), [address(server)], "open is open");
    a.send_to(b"to b", address(b)).expect("there is a route");
    b.send_to(b"to a", address(a)).expect("there is a route");
    assert_eq!(heard(a), [address(b)], "punched");
}

#[test]
fn a_narrow_line_drops_what_is_too_big_and_says_nothing() {
    let Some(mut lab) = Lab::new("narrow") else { return };
    let s = lab.public("s", "203.0.113.101");
    let home = lab.home("a", NatClass::PortRestricted);
    lab.narrow(&home, 1280);
    let ping = |size: &str| {
        let argv = ["ping", "-c", "1", "-W", "1", "-M", "do", "-s", size, &s.public.to_string()];
        home.run(&argv)
    };
    // 20 bytes of IPv4 and 8 of ICMP.
    assert_eq!(ping("1252").code, 0);
    let lost = ping("1253");
    assert!(lost.code != 0 && !lost.stdout.contains("Frag needed"), "{lost}");
}

#[test]
fn rivals_take_ports_of_a_sequential_nat() {
    let Some(mut lab) = Lab::new("rivals") else { return };
    let (_s1, [one, other]) = servers(&mut lab);
    let home = lab.home("a", NatClass::SymmetricSequential);
    let socket = home.udp(home.local, 7000);
    let before = seen_at(&socket, &one).port();
    lab.start_rivals(&home, 50);
    let flows = || lab.router(&home).ok(&["conntrack", "-C"]).trim().parse::<u32>().unwrap();
    wait_for("ten flows of others", Duration::from_secs(10), || flows() > 10);
    let after = seen_at(&socket, &other).port();
    assert!(after > before + 9, "from {before} to {after}");
}

/// NAT-PMP (RFC 6886, section 3.3): a mapping of UDP port 7000 for an hour; the port outside.
fn mapped(home: &Host, gateway: Ipv4Addr) -> u16 {
    let socket = home.udp(home.local, 0);
    let request = [0, 1, 0, 0, 0x1b, 0x58, 0x1b, 0x58, 0, 0, 0x0e, 0x10];
    socket.send_to(&request, (gateway, 5351)).expect("there is a route");
    let mut answer = [0; 16];
    assert_eq!(socket.recv(&mut answer).expect("the router answers"), 16);
    assert_eq!(answer[..4], [0, 129, 0, 0], "version, answer, success");
    u16::from_be_bytes([answer[10], answer[11]])
}

#[test]
fn a_mapped_port_lets_strangers_in_until_the_router_is_rebooted() {
    if !ability::program("mapping", "miniupnpd") {
        return;
    }
    for class in [NatClass::PortRestricted, NatClass::SymmetricRandom, NatClass::AddressRestricted] {
        let Some(mut lab) = Lab::on("mapping", Ipv4Addr::new(20, 0, 113, 0)) else { return };
        let s = lab.public("s", "20.0.113.101");
        let home = lab.home("a", Nat::from(class).mapping());
        lab.map_ports(&home);
        let (stranger, socket) = (s.udp(s.local, 3478), home.udp(home.local, 7000));
        let port = mapped(&home, Ipv4Addr::new(192, 168, 10, 1));
        stranger.send_to(b"in?", (home.public, port)).expect("there is a route");
        assert_eq!(heard(&socket), [address(&stranger)], "{class}");
        lab.reboot_router(&home);
        stranger.send_to(b"in?", (home.public, port)).expect("there is a route");
        assert_eq!(heard(&socket), [], "{class}: forgotten");
        assert_ne!(mapped(&home, Ipv4Addr::new(192, 168, 10, 1)), 0, "{class}: it can be asked again");
    }
}

#[test]
fn a_nat_and_a_line_are_changed_while_they_run() {
    let Some(mut lab) = Lab::new("change") else { return };
    let (s1, [one, other]) = servers(&mut lab);
    let home = lab.home("a", NatClass::FullCone);
    let socket = home.udp(home.local, 7000);
    assert_eq!(seen_at(&socket, &one), seen_at(&socket, &other));
    lab.renat(&home, NatClass::SymmetricRandom);
    let ports = [&one, &other].map(|server| seen_at(&socket, server).port());
    assert_eq!(BTreeSet::from(ports).len(), 2, "{ports:?}");
    lab.readdress(&home, Ipv4Addr::new(203, 0, 113, 150));
    assert_eq!(seen_at(&socket, &one).ip(), Ipv4Addr::new(203, 0, 113, 150));
    let ping = || round_trip_ms(&home.ok(&["ping", "-c", "3", "-i", "0.2", &s1.public.to_string()]));
    for (quality, least, most) in [(Quality::delayed(30), 60.0, 100.0), (Quality::default(), 0.0, 30.0)] {
        lab.set_link(&home, quality);
        assert!((least..most).contains(&ping()), "{quality}: {} ms", ping());
        let device = home.ok(&["ip", "-o", "link", "show", "eth0"]);
        assert!(device.contains("UP"), "{device}");
    }
}
