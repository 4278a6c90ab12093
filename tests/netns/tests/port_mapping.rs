//! Ports that a router opens when it is asked, with a real miniupnpd in the router; in a carrier's network, where that opens
//! none, with a few lines of NAT-PMP.

use std::net::Ipv4Addr;
use std::time::Duration;

use frejus_netns::daemon::LIMIT;
use frejus_netns::lab::Plan;
use frejus_netns::scene::{first_ping, founder, join_by_file};
use frejus_netns::traffic::PingStream;
use frejus_netns::{Daemon, Host, Lab, Nat, NatClass, Process, ability, wait_for};

/// The public network of the homes. miniupnpd maps nothing where its own address is one of those kept for
/// documentation, such as the laboratory's others.
const HOMES: [u8; 3] = [203, 0, 114];
/// The port of every node.
const PORT: u16 = 51860;
/// Ping replies that show steady traffic.
const STEADY: usize = 20;
/// Where miniupnpd keeps what it granted, in the scratch directory.
const LEASES: &str = "leases";

/// Chains that miniupnpd fills, hooked in beside the router's own; and the router's filter lets in what they translate.
const CHAINS: &str = "table inet miniupnpd {
  chain filter { type filter hook forward priority 5; jump miniupnpd; }
  chain miniupnpd { }
  chain inbound { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain outbound { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
  chain postrouting_miniupnpd { }
}
insert rule ip boxfilter gate iifname wan0 ct status dnat accept
";

/// What a router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Pcp,
    NatPmp,
    Upnp,
}

impl Speaks {
    const fn word(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }

    /// PCP and NAT-PMP share a port, and miniupnpd a switch: the other one, known by its version, is not let in.
    fn rules(self) -> String {
        let other = match self {
            Self::Pcp => "@th,64,8 0 drop",
            Self::NatPmp => "@th,64,8 2 drop",
            Self::Upnp => "drop",
        };
        format!(
            "table ip speaks {{\n  chain input {{ type filter hook input priority -10; udp dport 5351 {other}; }}\n}}\n"
        )
    }
}

/// A home's router that opens ports.
struct Opener<'a> {
    router: &'a Host,
    address: Ipv4Addr,
    daemon: Process,
}

impl<'a> Opener<'a> {
    /// The router of `home` speaks one protocol, from a public address of its own, and gives at most `life` seconds.
    fn new(lab: &'a Lab, home: &Host, speaks: Speaks, life: u32) -> Self {
        let [x, y, z] = HOMES;
        let address = Ipv4Addr::new(x, y, z, home.public.octets()[3]);
        lab.readdress(home, address);
        let router = lab.router(home);
        router.sh("ip route add 203.0.113.0/24 dev wan0");
        router.nft(CHAINS);
        router.nft(&speaks.rules());
        let yes = |on: bool| if on { "yes" } else { "no" };
        let leases = router.scratch.join(LEASES);
        std::fs::write(&leases, "").expect("the scratch directory is writable");
        let config = format!(
            "ext_ifname=wan0\nlistening_ip=lan0\nhttp_port=0\nenable_natpmp={}\nenable_upnp={}\nmin_lifetime=1\n\
             max_lifetime={life}\nsecure_mode=yes\nuuid=8a88de22-3581-49bc-9f47-279ee004ddd1\nlease_file={}\n\
             upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nupnp_forward_chain=miniupnpd\n\
             upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             allow 1024-65535 0.0.0.0/0 1024-65535\n",
            yes(speaks != Speaks::Upnp),
            yes(speaks == Speaks::Upnp),
            leases.display(),
        );
        std::fs::write(router.scratch.join("miniupnpd.conf"), config).expect("as above");
        Self { router, address, daemon: launch(router) }
    }

    /// Address and port that the router opens for its node.
    fn mapped(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    /// Whether the router sends what comes to the port into the home.
    fn is_open(&self) -> bool {
        let rules = self.router.ok(&["nft", "list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd"]);
        rules.contains(&format!("dport {PORT}"))
    }

    /// When the lease ends, by the router's own file.
    fn expires(&self) -> Option<u64> {
        let leases = std::fs::read_to_string(self.router.scratch.join(LEASES)).unwrap_or_default();
        let lease = leases.lines().find(|line| line.starts_with(&format!("UDP:{PORT}:")))?;
        lease.split(':').nth(4)?.parse().ok()
    }

    /// A power cut: every mapping, of both kinds, is gone.
    fn restart(&mut self, lab: &Lab, home: &Host) {
        self.daemon.signal(nix::sys::signal::Signal::SIGKILL);
        self.daemon.wait(LIMIT);
        self.router.sh(
            "nft flush chain inet miniupnpd prerouting_miniupnpd; nft flush chain inet miniupnpd miniupnpd",
        );
        std::fs::write(self.router.scratch.join(LEASES), "").expect("the scratch directory is writable");
        lab.reboot_router(home);
        assert!(!self.is_open());
        self.daemon = launch(self.router);
    }
}

fn launch(router: &Host) -> Process {
    let config = router.scratch.join("miniupnpd.conf");
    // Its own file of process ids: the usual one is the machine's, and several routers run here.
    let pid = router.scratch.join(format!("{}.pid", router.name));
    std::fs::remove_file(&pid).ok();
    let (config, pid) = (config.display().to_string(), pid.display().to_string());
    let daemon = router.spawn("miniupnpd", &["miniupnpd", "-d", "-f", &config, "-P", &pid]);
    // A line for each of its two halves; only one is switched on.
    let listens =
        |said: String| said.contains("HTTP listening") || said.contains("Listening for NAT-PMP/PCP");
    wait_for("miniupnpd listens", LIMIT, || listens(daemon.stderr()));
    daemon
}

/// A founder and two homes behind symmetric NATs with random ports, which nobody can punch.
fn stage(test: &str) -> Option<(Lab, Daemon, Host, Host)> {
    if !ability::program(test, "miniupnpd") {
        return None;
    }
    let mut lab = Lab::new(test)?;
    let (s, _) = founder(&mut lab);
    let (a, b) = (lab.home("a", NatClass::SymmetricRandom), lab.home("b", NatClass::SymmetricRandom));
    lab.router(&a).sh("ip route add 203.0.114.0/24 dev wan0");
    Some((lab, s, a, b))
}

fn wait_mapped(node: &Daemon, opener: &Opener<'_>, speaks: Speaks) {
    let says = || {
        let nat = node.status().map(|status| status["nat"].clone()).unwrap_or_default();
        nat["port_mapping"] == speaks.word() && nat["mapped"] == opener.mapped().as_str()
    };
    let took = wait_for(&format!("a port by {}", speaks.word()), LIMIT, says);
    eprintln!("{}: a port {took:?} after the node was ready", speaks.word());
    assert!(opener.is_open(), "the router has it open");
}

/// Both say that the path is direct because of the port.
fn assert_mapped_path(a: &Daemon, b: &Daemon, opener: &Opener<'_>) {
    let (there, took) = a.wait_path(&b.id(), "direct");
    let (back, _) = b.wait_path(&a.id(), "direct");
    eprintln!("direct {took:?} after the first packet: {there:?}");
    assert_eq!((there.remote, there.method.as_str()), (opener.mapped(), "mapped"));
    assert_eq!(back.method, "mapped", "{back:?}");
}

/// B's router speaks one protocol; the first packet comes from one side; at the end the port is given back.
fn story(test: &str, speaks: Speaks, from_the_mapped_side: bool) {
    let Some((lab, s, a, b)) = stage(test) else { return };
    let opener = Opener::new(&lab, &b, speaks, 7200);
    let (a, mut b) = (join_by_file(&a, &s.invite(1)), join_by_file(&b, &s.invite(1)));
    a.wait_ready();
    b.wait_ready();
    wait_mapped(&b, &opener, speaks);
    let (from, to) = if from_the_mapped_side { (&b, &a) } else { (&a, &b) };
    first_ping(&from.host, &to.ipv4().to_string());
    assert_mapped_path(&a, &b, &opener);
    assert_eq!(b.json(&["netcheck"])["port_mapping"], speaks.word());
    if speaks == Speaks::NatPmp {
        assert_eq!(b.terminate(), 0);
    } else {
        let down = b.verb(&["down"]);
        assert_eq!(down.code, 0, "{down}");
    }
    assert!(!opener.is_open() && opener.expires().is_none(), "the port was given back");
}

#[test]
fn two_random_homes_are_direct_by_pcp() {
    story("mapped_pcp", Speaks::Pcp, false);
}

#[test]
fn two_random_homes_are_direct_by_pcp_from_the_mapped_side() {
    story("mapped_pcp_back", Speaks::Pcp, true);
}

#[test]
fn two_random_homes_are_direct_by_nat_pmp() {
    story("mapped_nat_pmp", Speaks::NatPmp, false);
}

#[test]
fn two_random_homes_are_direct_by_upnp() {
    story("mapped_upnp", Speaks::Upnp, true);
}

#[test]
fn a_short_lease_is_renewed_and_a_restarted_router_asked_again() {
    let Some((lab, s, a, b)) = stage("mapped_renewed") else { return };
    let mut opener = Opener::new(&lab, &b, Speaks::Pcp, 8);
    let (a, b) = (join_by_file(&a, &s.invite(1)), join_by_file(&b, &s.invite(1)));
    a.wait_ready();
    b.wait_ready();
    wait_mapped(&b, &opener, Speaks::Pcp);
    first_ping(&a.host, &b.ipv4().to_string());
    assert_mapped_path(&a, &b, &opener);
    let first = opener.expires().expect("a lease");
    let renewed = || opener.expires().is_some_and(|expires| expires > first + 8);
    let took = wait_for("the lease is renewed beyond its first life", LIMIT, renewed);
    eprintln!("a lease of 8 s was renewed twice within {took:?}");

    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.1);
    stream.wait_replies(STEADY, LIMIT);
    opener.restart(&lab, &b.host);
    let took = wait_for("the router that restarted has the port again", LIMIT, || opener.is_open());
    eprintln!("a router that restarted had the port again after {took:?}");
    assert_mapped_path(&a, &b, &opener);
    stream.wait_replies(STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("traffic across the restart: {report:?}");
}

#[test]
fn a_router_that_announces_its_restart_is_asked_at_once() {
    let Some((lab, s, _, b)) = stage("mapped_announced") else { return };
    let mut opener = Opener::new(&lab, &b, Speaks::NatPmp, 7200);
    let b = join_by_file(&b, &s.invite(1));
    b.wait_ready();
    wait_mapped(&b, &opener, Speaks::NatPmp);
    opener.restart(&lab, &b.host);
    // Without the announcement it would be asked a minute later.
    let took = wait_for("the port is open again", Duration::from_secs(20), || opener.is_open());
    eprintln!("announced: the port was open again after {took:?}");
}

#[test]
fn a_node_that_gets_another_address_asks_again() {
    let Some((lab, s, _, b)) = stage("mapped_moved") else { return };
    let opener = Opener::new(&lab, &b, Speaks::NatPmp, 7200);
    let node = join_by_file(&b, &s.invite(1));
    node.wait_ready();
    wait_mapped(&node, &opener, Speaks::NatPmp);
    let [x, y, z, _] = b.local.octets();
    b.sh(&format!(
        "ip addr add {x}.{y}.{z}.77/24 dev eth0; ip addr del {}/24 dev eth0; ip addr show dev eth0 | grep -q .77/ || \
         ip addr add {x}.{y}.{z}.77/24 dev eth0; ip route replace default via {x}.{y}.{z}.1 dev eth0",
        b.local
    ));
    let inside = format!("dnat ip to {x}.{y}.{z}.77:{PORT}");
    let rules = || opener.router.ok(&["nft", "list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd"]);
    let took = wait_for("a port for the new address", LIMIT, || rules().contains(&inside));
    eprintln!("a port for the new address after {took:?}");
    // The old one still has the old number, until its lease ends: there is nobody left who could give it back.
    let told = || node.status().is_some_and(|status| status["nat"]["mapped"].is_string());
    wait_for("the node says so", LIMIT, told);
}

#[test]
fn a_router_is_left_alone_if_the_user_says_so() {
    let Some((lab, s, _, b)) = stage("mapped_not") else { return };
    let opener = Opener::new(&lab, &b, Speaks::Pcp, 7200);
    let file = b.scratch.join("code");
    std::fs::write(&file, s.invite(1)).expect("the scratch directory is writable");
    let node = Daemon::start(&b, &["--join", &format!("@{}", file.display()), "--no-port-mapping"]);
    node.wait_ready();
    let requests = || opener.daemon.stderr().matches("request received").count();
    wait_for("published", LIMIT, || {
        node.status().is_some_and(|s| s["directory"]["published"]["whereabouts"] == true)
    });
    assert!(!opener.is_open() && requests() == 0, "the router was asked");
    let mut node = node;
    node.terminate();
    // The same node, asked by nobody to keep still: the test can tell the difference.
    let node = Daemon::start(&b, &[]);
    node.wait_ready();
    wait_mapped(&node, &opener, Speaks::Pcp);
    assert!(requests() > 0);
}

/// What a home's router under a carrier answers by NAT-PMP (RFC 6886, sections 3.2 and 3.3): where it is, and yes to every
/// port. The thread ends with the process.
fn grant_inside(router: &Host, gateway: Ipv4Addr) {
    let (socket, router) = (router.udp(gateway, 5351), router.clone());
    socket.set_read_timeout(None).expect("a socket");
    std::thread::spawn(move || {
        let mut request = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut request) {
            let mut answer = vec![0, request[1] | 0x80, 0, 0, 0, 0, 0, 9];
            match (&request[..length], from.ip()) {
                ([0, 0, ..], _) => answer.extend(router.public.octets()),
                ([0, 1, _, _, inner @ ..], std::net::IpAddr::V4(host)) if inner.len() == 8 => {
                    let port = u16::from_be_bytes([inner[0], inner[1]]);
                    router.sh(&format!(
                        "nft add rule inet boxmap prerouting_miniupnpd iifname wan0 udp dport {port} dnat ip to {host}:{port}
                         nft add rule inet boxmap miniupnpd ct status dnat accept"
                    ));
                    answer.extend([inner[0], inner[1], inner[0], inner[1], 0, 0, 0x1c, 0x20]);
                }
                _ => continue,
            }
            socket.send_to(&answer, from).ok();
        }
    });
}

#[test]
fn two_random_homes_of_one_carrier_are_direct_by_a_port_in_its_network() {
    let Some(mut lab) = Lab::new("mapped_inside") else { return };
    let (s, _) = founder(&mut lab);
    lab.route(&Plan { carrier: true, ..Plan::home("carrier", NatClass::SymmetricRandom.into()) });
    let [a, b] = ["a", "b"].map(|name| {
        let nat = Nat::from(NatClass::SymmetricRandom).mapping();
        lab.route(&Plan { behind: Some("carrier"), ..Plan::home(&format!("router-{name}"), nat) });
        lab.behind(&format!("router-{name}"), name)
    });
    let ([x, y, z, _], router) = (b.local.octets(), lab.router(&b).clone());
    grant_inside(&router, Ipv4Addr::new(x, y, z, 1));
    let (a, b) = (join_by_file(&a, &s.invite(1)), join_by_file(&b, &s.invite(1)));
    a.wait_ready();
    b.wait_ready();
    let at = format!("{}:{PORT}", router.public);
    let says = || b.status().is_some_and(|status| status["nat"]["mapped"] == at.as_str());
    wait_for("a port in the carrier's network", LIMIT, says);
    first_ping(&a.host, &b.ipv4().to_string());
    let (there, took) = a.wait_path(&b.id(), "direct");
    let (back, _) = b.wait_path(&a.id(), "direct");
    eprintln!("direct {took:?} after the first packet: {there:?}");
    assert_eq!((there.remote, there.method.as_str()), (at, "mapped"));
    assert_eq!(back.method, "mapped", "{back:?}");
}
