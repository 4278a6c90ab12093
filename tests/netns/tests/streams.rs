//! Where UDP does not pass: TCP, TLS on 443, an HTTP proxy; and back to UDP when it passes again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use frejus_netns::daemon::{LIMIT, assert_refused, code_in, frejus, state_of, text};
use frejus_netns::link::Quality;
use frejus_netns::nat::Nat;
use frejus_netns::run::Process;
use frejus_netns::scene::{NO_UDP, ONLY_443, first_ping, founder, invited, join_by_file};
use frejus_netns::traffic::{DownloadSite, PingStream};
use frejus_netns::wait::let_pass;
use frejus_netns::{Daemon, Host, Lab, NatClass, ability, wait_for};

/// From the start of `up --join` to ready, by what passes.
const TCP: Duration = Duration::from_secs(3);
const HTTPS: Duration = Duration::from_secs(5);
const PROXY: Duration = Duration::from_secs(5);
/// The whole of `netcheck`.
const NETCHECK: Duration = Duration::from_secs(3);

/// Nothing through the router; the router itself has connections to the internet.
const NOTHING: &str = "table inet streams {
  chain pass { type filter hook forward priority -20; policy drop; }
}
insert rule ip boxfilter self ct state established,related accept
";

/// TCP alone is kept from passing.
const NO_TCP: &str = "table inet streams {
  chain pass { type filter hook forward priority -20;
  meta l4proto tcp drop;
  }
}
";

/// No UDP into this host or out of it.
const NO_UDP_HERE: &str = "table inet streams {
  chain in { type filter hook input priority -20; meta l4proto udp iifname != \"lo\" drop; }
  chain out { type filter hook output priority -20; meta l4proto udp oifname != \"lo\" drop; }
}
";

/// Every TCP connection gets another port, at random.
const SYMMETRIC: &str = "table ip streamnat {
  chain out { type nat hook postrouting priority srcnat - 5;
  oifname \"wan0\" meta l4proto tcp masquerade random,fully-random;
  }
}
";

/// A founder, and a home whose router has these rules.
fn behind(test: &str, rules: &str) -> Option<(Lab, Daemon, String, Host)> {
    let mut lab = Lab::new(test)?;
    let (s, code) = founder(&mut lab);
    let a = lab.home("a", NatClass::PortRestricted);
    lab.router(&a).nft(rules);
    Some((lab, s, code, a))
}

/// Waits until it is ready; the time since `began`.
fn ready(daemon: &Daemon, began: Instant) -> Duration {
    daemon.wait_ready();
    began.elapsed()
}

/// A page is fetched both ways, whole, and every verb says by what.
fn assert_carries(a: &Daemon, s: &Daemon, transport: &str) {
    assert_eq!(a.home_by().as_deref(), Some(transport));
    first_ping(&a.host, &s.ipv4().to_string());
    let page = "a page that fills many packets\n".repeat(30_000);
    for (server, client) in [(s, a), (a, s)] {
        let site = DownloadSite::open(&server.host, server.ipv4().into(), &page);
        assert!(site.fetch(&client.host) == page, "the page from {} is whole", server.host.name);
    }
    let ping = a.json(&["ping", &s.name(), "-c", "2"]);
    assert_eq!(ping["received"], 2, "{ping}");
    assert_eq!(ping["replies"][1]["path"]["transport"], transport, "{ping}");
    assert_eq!(a.path_to(&s.id()).map(|path| path.transport).as_deref(), Some(transport));
    assert_eq!(s.path_to(&a.id()).map(|path| path.transport).as_deref(), Some(transport));
}

#[test]
fn udp_is_blocked() {
    let Some((mut lab, s, code, host)) = behind("udp_blocked", NO_UDP) else { return };
    let began = Instant::now();
    let a = Daemon::join(&host, &code);
    let took = ready(&a, began);
    eprintln!("joined and up over TCP in {took:?}");
    assert!(took < TCP, "{took:?}");
    assert_carries(&a, &s, "tcp");

    // Somebody with UDP, through the super peer.
    let b_host = lab.home("b", NatClass::PortRestricted);
    let b = join_by_file(&b_host, &s.invite(1));
    b.wait_ready();
    first_ping(&a.host, &b.ipv4().to_string());
    first_ping(&b.host, &a.ipv4().to_string());
    let path = a.path_to(&b.id()).expect("a path");
    assert_eq!((path.kind.as_str(), path.transport.as_str()), ("relay", "tcp"));
    assert_eq!(b.home_by().as_deref(), Some("udp"));
    let site = DownloadSite::open(&b.host, b.ipv4().into(), &"relayed\n".repeat(100_000));
    assert_eq!(site.fetch(&a.host).len(), 800_000);

    // Somebody public: directly.
    let p_host = lab.public("p", "203.0.113.150");
    let p = join_by_file(&p_host, &s.invite(1));
    p.wait_ready();
    first_ping(&a.host, &p.ipv4().to_string());
    let pings = PingStream::start(&a.host, &p.ipv4().to_string(), 0.2);
    let (path, took) = a.wait_path(&p.id(), "direct");
    eprintln!("a direct stream {took:?} after the first packet: {path:?}");
    assert_eq!(path.transport, "tcp");
    p.wait_path(&a.id(), "direct");
    let report = pings.finish();
    assert!(report.lost() <= 1, "{report:?}");
}

/// Two super peers, and two homes behind such routers with these further rules.
fn two_homes(test: &str, nat: Nat, quality: Quality, rules: [&str; 2]) -> Option<(Lab, [Daemon; 4])> {
    let mut lab = Lab::new(test)?;
    let (s, _) = founder(&mut lab);
    let t_host = lab.public("t", "203.0.113.102");
    let t = join_by_file(&t_host, &invited(&s, "super-peer"));
    t.wait_ready();
    let [a, b] = [("a", rules[0]), ("b", rules[1])].map(|(name, rules)| {
        let host = lab.home_with(name, nat, quality);
        lab.router(&host).nft(rules);
        let node = join_by_file(&host, &s.invite(1));
        node.wait_ready();
        node
    });
    Some((lab, [s, t, a, b]))
}

/// Both connect to each other, nothing is lost, and every verb says how.
fn assert_crosses(test: &str, nat: Nat, quality: Quality, rules: [&str; 2]) {
    let Some((_lab, [_s, _t, a, b])) = two_homes(test, nat, quality, rules) else { return };
    first_ping(&a.host, &b.ipv4().to_string());
    let pings = PingStream::start(&a.host, &b.ipv4().to_string(), 0.2);
    for (here, there) in [(&a, &b), (&b, &a)] {
        let (path, took) = here.wait_path(&there.id(), "direct");
        eprintln!("{test}: direct {took:?} after the first packet: {path:?}");
        assert_eq!((path.transport.as_str(), path.method.as_str()), ("tcp", "punched"));
    }
    pings.wait_replies(10, LIMIT);
    let report = pings.finish();
    assert!(report.lost() <= 1, "{report:?}");
    let page = "a page that fills many packets\n".repeat(30_000);
    let site = DownloadSite::open(&b.host, b.ipv4().into(), &page);
    assert!(site.fetch(&a.host) == page, "the page is whole");
    for (verb, words) in [
        (&["doctor", &b.name()][..], "over TCP, since UDP does not pass at"),
        (&["peers"], ", punched, tcp"),
        (&["ping", &b.name(), "-c", "1"], ", punched, tcp"),
    ] {
        let said = a.verb(verb);
        eprintln!("{said}");
        assert!(said.code == 0 && said.stdout.contains(words), "{said}");
    }
}

#[test]
fn two_homes_without_udp_connect_to_each_other_at_once() {
    assert_crosses("cross", NatClass::PortRestricted.into(), Quality::default(), [NO_UDP, NO_UDP]);
}

#[test]
fn a_home_without_udp_and_one_with_it_connect_to_each_other_at_once() {
    assert_crosses("cross_a", NatClass::PortRestricted.into(), Quality::default(), [NO_UDP, ""]);
    assert_crosses("cross_b", NatClass::PortRestricted.into(), Quality::default(), ["", NO_UDP]);
}

#[test]
fn routers_that_refuse_what_nobody_asked_for_are_crossed() {
    let nat = Nat::from(NatClass::PortRestricted).rejecting();
    assert_crosses("cross_refused", nat, Quality::delayed(10), [NO_UDP, NO_UDP]);
}

#[test]
fn a_symmetric_router_is_not_crossed() {
    let symmetric = format!("{NO_UDP}{SYMMETRIC}");
    let nat = NatClass::PortRestricted.into();
    let Some((_lab, [_s, _t, a, b])) =
        two_homes("cross_symmetric", nat, Quality::default(), [&symmetric, NO_UDP])
    else {
        return;
    };
    first_ping(&a.host, &b.ipv4().to_string());
    let pings = PingStream::start(&a.host, &b.ipv4().to_string(), 0.2);
    // Long enough for two crossings.
    pings.wait_replies(50, LIMIT);
    let report = pings.finish();
    assert!(report.lost() <= 1, "{report:?}");
    let path = a.path_to(&b.id()).expect("a path");
    assert_eq!((path.kind.as_str(), path.transport.as_str()), ("relay", "tcp"));
    let said = a.verb(&["doctor", &b.name(), "--wait", "1s"]).stdout;
    assert!(said.contains("and no TCP connection of"), "{said}");
}

#[test]
fn a_public_node_without_udp_is_dialled() {
    let Some(mut lab) = Lab::new("dialled") else { return };
    let (s, _) = founder(&mut lab);
    let p_host = lab.public("p", "203.0.113.150");
    p_host.nft(NO_UDP_HERE);
    let p = join_by_file(&p_host, &s.invite(1));
    p.wait_ready();
    assert_eq!(p.home_by().as_deref(), Some("tcp"));
    let b_host = lab.home("b", NatClass::PortRestricted);
    let b = join_by_file(&b_host, &s.invite(1));
    b.wait_ready();
    assert_eq!(b.home_by().as_deref(), Some("udp"));
    first_ping(&p.host, &b.ipv4().to_string());
    let pings = PingStream::start(&p.host, &b.ipv4().to_string(), 0.2);
    let (path, took) = b.wait_path(&p.id(), "direct");
    eprintln!("dialled {took:?} after the first packet: {path:?}");
    assert_eq!((path.transport.as_str(), path.method.as_str()), ("tcp", "public"));
    p.wait_path(&b.id(), "direct");
    let report = pings.finish();
    assert!(report.lost() <= 1, "{report:?}");
}

#[test]
fn udp_comes_back() {
    let Some((lab, s, code, host)) = behind("udp_back", NO_UDP) else { return };
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    assert_eq!(a.home_by().as_deref(), Some("tcp"));
    let pings = PingStream::start(&a.host, &s.ipv4().to_string(), 0.2);
    pings.wait_replies(5, LIMIT);
    lab.router(&host).sh("nft delete table inet streams");
    let took = wait_for("UDP is used again", LIMIT, || a.home_by().as_deref() == Some("udp"));
    eprintln!("UDP is used again after {took:?}");
    assert!(took < Duration::from_secs(60));
    wait_for("the super peer uses UDP again", LIMIT, || {
        s.path_to(&a.id()).is_some_and(|path| path.transport == "udp")
    });
    pings.wait_replies(5, LIMIT);
    lab.router(&host).nft(NO_UDP);
    pings.wait_replies(5, LIMIT);
    let took = wait_for("TCP is used again", LIMIT, || a.home_by().as_deref() == Some("tcp"));
    eprintln!("and TCP again after {took:?}");
    let report = pings.finish();
    eprintln!("{report:?}");
    assert!(report.longest_gap < Duration::from_secs(6), "{report:?}");
}

#[test]
fn only_443_passes() {
    let Some((_lab, s, code, host)) = behind("only_443", ONLY_443) else { return };
    let began = Instant::now();
    let a = Daemon::join(&host, &code);
    let took = ready(&a, began);
    eprintln!("joined and up over 443 in {took:?}");
    assert!(took < HTTPS, "{took:?}");
    assert_carries(&a, &s, "tls");
}

/// What `netcheck` says of UDP, TCP and TLS on 443, and its notes.
fn assert_reach(node: &Daemon, reach: [bool; 3]) -> String {
    let output = node.verb(&["netcheck", "--json"]);
    assert_eq!(output.code, 0, "{output}");
    let found: serde_json::Value = serde_json::from_str(&output.stdout).expect("one JSON object");
    eprintln!("{reach:?} in {:?}: {found}", output.took);
    assert_eq!(
        ["udp", "tcp", "tls443"].map(|key| found[key].clone()),
        reach.map(serde_json::Value::from),
        "{found}"
    );
    assert!(output.took <= NETCHECK, "{:?}", output.took);
    found["notes"].to_string()
}

#[test]
fn netcheck_tells_what_passes() {
    for (rules, reach) in [
        ("", [true, true, true]),
        (NO_TCP, [true, false, false]),
        (NO_UDP, [false, true, true]),
        (ONLY_443, [false, false, true]),
    ] {
        let Some((_lab, s, code, host)) = behind("netcheck_reach", rules) else { return };
        let a = Daemon::join(&host, &code);
        a.wait_ready();
        let notes = assert_reach(&a, reach);
        assert!(!notes.contains("proxy"), "{notes}");
        let said = a.verb(&["netcheck"]);
        let line = |label: &str| said.stdout.lines().find(|line| line.starts_with(label)).unwrap_or_default();
        for (label, passes) in ["  udp ", "  tcp ", "  tls on 443 "].into_iter().zip(reach) {
            assert!(line(label).contains(if passes { " yes: " } else { " no: " }), "{said}");
        }
        let open = || s.json(&["status"])["streams"]["open"].as_u64();
        wait_for("what was tried is closed", LIMIT, || open() == Some(u64::from(!reach[0])));
        let said = s.verb(&["netcheck"]);
        assert!(
            said.code == 0 && said.stdout.contains("tcp           not tried: no super peer known."),
            "{said}"
        );
    }
}

#[test]
fn join_alone_enrols_over_tcp() {
    let Some((_lab, _s, code, host)) = behind("join_tcp", ONLY_443) else { return };
    let state = state_of(&host);
    let began = Instant::now();
    let output = frejus(&host, &["join", &code, "--state", text(&state)]);
    assert_eq!(output.code, 0, "{output}");
    eprintln!("enrolled over 443 in {:?}", began.elapsed());
    Daemon::start(&host, &[]).wait_ready();
}

/// `tinyproxy` on the router, for the LAN alone, with `more` in its configuration.
fn proxy(lab: &Lab, host: &Host, more: &str) -> Process {
    let (router, lan) = (lab.router(host), Ipv4Addr::from(u32::from(host.local) - 1));
    let file = lab.scratch().join("tinyproxy.conf");
    let config = format!(
        "User nobody\nGroup nogroup\nPort 8888\nListen {lan}\nTimeout 600\nMaxClients 20\nAllow {}\nConnectPort 443\n{more}\n",
        host.local
    );
    std::fs::write(&file, config).expect("the scratch directory is writable");
    let process = router.spawn("tinyproxy", &["tinyproxy", "-d", "-c", text(&file)]);
    wait_for("the proxy listens", LIMIT, || router.ok(&["ss", "-Htln", "sport = :8888"]).contains("8888"));
    process
}

#[test]
fn only_a_proxy_leads_out() {
    if !ability::program("only_a_proxy_leads_out", "tinyproxy") {
        return;
    }
    let Some((lab, s, code, host)) = behind("proxy", NOTHING) else { return };
    let _proxy = proxy(&lab, &host, "");
    let began = Instant::now();
    let variable = format!("https_proxy=http://192.168.{}.1:8888", host.local.octets()[2]);
    let a = Daemon::start_with(&host, &[&variable], &["--join", &code]);
    let took = ready(&a, began);
    eprintln!("joined and up through a proxy in {took:?}");
    assert!(took < PROXY, "{took:?}");
    assert_carries(&a, &s, "tls");
    let notes = assert_reach(&a, [false, false, true]);
    assert!(notes.contains("443 passes through the HTTP proxy alone"), "{notes}");
}

#[test]
fn a_proxy_that_wants_a_password() {
    if !ability::program("a_proxy_that_wants_a_password", "tinyproxy") {
        return;
    }
    let Some((lab, s, code, host)) = behind("proxy_password", NOTHING) else { return };
    let _proxy = proxy(&lab, &host, "BasicAuth eva hush-hush");
    let gateway = format!("192.168.{}.1:8888", host.local.octets()[2]);
    let refused = host.run_with(
        &[
            "env",
            &format!("ALL_PROXY=http://eva:wrong@{gateway}"),
            text(&frejus_netns::daemon::binary()),
            "join",
            &code,
            "--state",
            text(&state_of(&host)),
        ],
        "",
        LIMIT,
    );
    assert_refused(&refused, &[7], &["443"]);

    let (file, secret) = (lab.scratch().join("mymed.toml"), lab.scratch().join("password"));
    std::fs::write(&secret, "hush-hush\n").expect("the scratch directory is writable");
    host.sh(&format!("chmod 600 {}", text(&secret)));
    let config = format!("[proxy]\nurl = 'http://eva@{gateway}'\npassword_file = '{}'\n", text(&secret));
    std::fs::write(&file, config).expect("the scratch directory is writable");
    let began = Instant::now();
    let mut a = Daemon::start(&host, &["--config", text(&file), "--join", &code, "-v", "-v"]);
    let took = ready(&a, began);
    eprintln!("joined and up through a proxy with a password in {took:?}");
    assert!(took < PROXY, "{took:?}");
    assert_carries(&a, &s, "tls");
    let (out, err) = (a.process().stdout(), a.process().stderr());
    assert!(!out.contains("hush-hush") && !err.contains("hush-hush"), "a password was logged");
    let status = a.json(&["status"]).to_string();
    assert!(!status.contains("hush-hush"), "a password is shown");
    assert_eq!(code_in(&out), None);
}

/// `squid` on the router, for the LAN alone; `eva` must say her password if it wants one.
fn squid(lab: &Lab, host: &Host, wants_password: bool) -> Process {
    let (router, lan) = (lab.router(host), Ipv4Addr::from(u32::from(host.local) - 1));
    let (file, helper) = (lab.scratch().join("squid.conf"), lab.scratch().join("squid-passwords"));
    let known = "while read -r line; do [ \"$line\" = 'eva hush-hush' ] && echo OK || echo ERR; done\n";
    std::fs::write(&helper, known).expect("the scratch directory is writable");
    let who = if wants_password {
        format!(
            "auth_param basic program /bin/sh {}\nauth_param basic children 1 startup=1\n\
             acl known proxy_auth REQUIRED\nhttp_access deny !known\n",
            text(&helper)
        )
    } else {
        String::new()
    };
    let config = format!(
        "http_port {lan}:8888\npid_filename none\ncache deny all\ncache_mem 0 MB\naccess_log none\n\
         cache_log /dev/null\ncache_store_log none\nshutdown_lifetime 0 seconds\nnetdb_filename none\n\
         acl inside src {}\nacl https port 443\nhttp_access deny CONNECT !https\n{who}\
         http_access allow inside\nhttp_access deny all\n",
        host.local
    );
    std::fs::write(&file, config).expect("the scratch directory is writable");
    host.sh(&format!("chmod 755 {}; chmod 644 {} {}", text(lab.scratch()), text(&file), text(&helper)));
    let process = router.spawn("squid", &["squid", "-N", "-d", "1", "-f", text(&file)]);
    wait_for("the proxy listens", LIMIT, || router.ok(&["ss", "-Htln", "sport = :8888"]).contains("8888"));
    process
}

#[test]
fn squid_leads_out() {
    if !ability::program("squid_leads_out", "squid") {
        return;
    }
    for (test, who) in [("squid", ""), ("squid_password", "eva:hush-hush@")] {
        let Some((lab, s, code, host)) = behind(test, NOTHING) else { return };
        let _proxy = squid(&lab, &host, !who.is_empty());
        let gateway = format!("192.168.{}.1:8888", host.local.octets()[2]);
        let began = Instant::now();
        let a =
            Daemon::start_with(&host, &[&format!("https_proxy=http://{who}{gateway}")], &["--join", &code]);
        let took = ready(&a, began);
        eprintln!("joined and up through squid in {took:?}");
        assert!(took < PROXY, "{took:?}");
        assert_carries(&a, &s, "tls");
    }
}

#[test]
fn a_bulk_transfer_does_not_freeze_a_slow_stream() {
    let Some((lab, s, code, host)) = behind("slow_stream", NO_UDP) else { return };
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    let router = lab.router(&host);
    for device in ["wan0", "lan0"] {
        router.sh(&format!("tc qdisc add dev {device} root tbf rate 5mbit burst 16kb latency 100ms"));
    }
    let _server = s.host.spawn("iperf3", &["iperf3", "-s", "-B", &s.ipv4().to_string()]);
    wait_for("iperf3 listens", LIMIT, || s.host.ok(&["ss", "-Htln", "sport = :5201"]).contains("5201"));
    for direction in [&[][..], &["-R"]] {
        let pings = PingStream::start(&a.host, &s.ipv4().to_string(), 0.1);
        pings.wait_replies(3, LIMIT);
        let server = s.ipv4().to_string();
        let argv = [&["iperf3", "-c", &server, "-t", "10", "-f", "m"], direction].concat();
        let output = a.host.run(&argv);
        assert_eq!(output.code, 0, "{output}");
        pings.wait_replies(3, LIMIT);
        let said = a.host.scratch.join("logs").join(format!("a-ping-{server}.out"));
        let said = std::fs::read_to_string(said).expect("ping writes there");
        let report = pings.finish();
        let rtt = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok();
        let worst = said.lines().filter_map(rtt).fold(0.0, f64::max);
        let line = output.stdout.lines().rfind(|line| line.contains("receiver")).unwrap_or_default();
        eprintln!("{direction:?} {line}: worst ping {worst} ms, {report:?}");
        assert!(worst < 1000.0, "a ping took {worst} ms");
        assert!(report.longest_gap < Duration::from_secs(1), "{report:?}");
        assert!(report.lost() * 5 < report.sent, "{report:?}");
        let mbits: f64 =
            line.split(" Mbits/sec").next().and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0);
        assert!(mbits > 2.5, "the line carries 5 Mb/s, the stream {mbits}: {line}");
    }
    assert_eq!(a.home_by().as_deref(), Some("tcp"), "it never gave up");
}

#[test]
fn silent_and_slow_clients_keep_nobody_out() {
    let Some((mut lab, s, code, host)) = behind("silent_clients", NO_UDP) else { return };
    let before = s.resident_kib();
    let m = lab.public("m", "203.0.113.66");
    let connect = |bytes: &'static [u8], count: usize| {
        m.within(|| {
            let open = |_| {
                let mut socket = std::net::TcpStream::connect(("203.0.113.101", 51860)).expect("it listens");
                std::io::Write::write_all(&mut socket, bytes).expect("the kernel takes it");
                socket
            };
            (0..count).map(open).collect::<Vec<_>>()
        })
    };
    let silent = connect(b"", 300);
    // The beginning of a TLS record whose rest never comes, and something that is no TLS.
    let slow = connect(&[0x16, 3, 1, 2, 0, 1, 0, 1], 300);
    let noise = connect(b"GET / HTTP/1.1\r\n\r\n", 100);
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    assert_eq!(a.home_by().as_deref(), Some("tcp"));
    let grown = s.resident_kib().saturating_sub(before);
    eprintln!("700 strangers: {grown} KiB more");
    assert!(grown < 64 << 10, "{grown} KiB");
    let open = || s.json(&["status"])["streams"]["open"].as_u64().unwrap_or(u64::MAX);
    assert!(open() <= 130, "{} are open", open());
    let_pass("strangers have ten seconds", Duration::from_secs(1));
    wait_for("the strangers are gone", LIMIT, || open() <= 1);
    drop((silent, slow, noise));
    first_ping(&a.host, &s.ipv4().to_string());
}
