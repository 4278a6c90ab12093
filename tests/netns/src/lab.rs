//! The topology: namespaces, the bridge that plays the internet, cuts in it; and the removal of all of it.
//!
//! Owns every namespace named `fr-PID-N-ROLE` of this process, and sweeps those of processes that have died.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::link::{Link, Quality};
use crate::nat::{Nat, NatClass};
use crate::run::{Host, Process};
use crate::wait::wait_for;
use crate::{ability, evidence};

/// Per-namespace copies of files in /etc live here; `ip netns exec` mounts them over the real ones.
const ETC: &str = "/etc/netns";

/// The first home is 203.0.113.10 outside and 192.168.10.0/24 inside.
const FIRST_HOME: u8 = 10;

/// What a bridge of real wires does not know: pairs that no longer hear each other, addresses gone dark.
const BRIDGE_RULES: &str = "table bridge lab {
  set cut { type ipv4_addr . ipv4_addr; }
  set dark { type ipv4_addr; }
  chain pass { type filter hook forward priority 0;
    ether type ip ip saddr . ip daddr @cut drop
    ether type ip ip saddr @dark drop
    ether type ip ip daddr @dark drop
  }
}
";

/// A router that tells nobody that a packet was too big.
const QUIET_RULES: &str = "table inet quiet {
  chain out { type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
";

static LABS: AtomicU32 = AtomicU32::new(0);

/// One internet of its own for one test; everything in it goes when it is dropped, a panic included.
#[derive(Debug)]
pub struct Lab {
    test: String,
    tag: String,
    scratch: PathBuf,
    hosts: Vec<Host>,
    homes: Vec<Home>,
    links: Vec<Link>,
    capture: Option<Process>,
}

#[derive(Debug)]
struct Home {
    host: String,
    router: Host,
    lan: [u8; 3],
    members: u8,
}

impl Lab {
    /// An internet without hosts; `None`, after a loud word, where the machine can't have one.
    pub fn new(test: &str) -> Option<Self> {
        if !ability::present(test) {
            return None;
        }
        sweep();
        let tag = format!("fr-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(&tag);
        fs::create_dir_all(scratch.join("logs")).expect("the temporary directory is writable");
        let (hosts, homes, links) = (Vec::new(), Vec::new(), Vec::new());
        let mut lab = Self { test: test.to_owned(), tag, scratch, hosts, homes, links, capture: None };
        let wan = lab.namespace("wan", Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        wan.sh("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
        wan.nft(BRIDGE_RULES);
        lab.start_capture();
        Some(lab)
    }

    /// The namespace that plays the internet.
    pub fn wan(&self) -> &Host {
        &self.hosts[0]
    }

    /// Scratch directory: `logs/` is kept when the test fails, the rest never.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A host with the public address `address`.
    pub fn public(&mut self, name: &str, address: &str) -> Host {
        self.public_with(name, address, Quality::default())
    }

    /// As [`Lab::public`], on a link of this quality.
    pub fn public_with(&mut self, name: &str, address: &str, quality: Quality) -> Host {
        let address: Ipv4Addr = address.parse().expect("the story gives an IPv4 address");
        let host = self.namespace(name, address, address);
        self.attach(&host, "eth0", quality);
        host.sh(&format!("ip addr add {address}/24 dev eth0; ip route add default dev eth0"));
        host
    }

    /// A host behind a home router of its own.
    pub fn home(&mut self, name: &str, nat: impl Into<Nat>) -> Host {
        self.home_with(name, nat, Quality::default())
    }

    /// As [`Lab::home`], the router's public side on a link of this quality.
    pub fn home_with(&mut self, name: &str, nat: impl Into<Nat>, quality: Quality) -> Host {
        let nat = nat.into();
        let index = u8::try_from(self.homes.len()).expect("far fewer than 256 homes");
        let n = FIRST_HOME + index;
        let external = Ipv4Addr::new(203, 0, 113, n);
        let own = if nat.class.translates() { external } else { Ipv4Addr::new(203, 0, 113, 200 + index) };
        let router = self.namespace(&format!("router-{name}"), own, own);
        self.attach(&router, "wan0", quality);
        router.sh("ip link add lan0 type bridge mcast_snooping 0; ip link set lan0 up");
        router.sh(&format!("sysctl -qw {}", nat.settings().join(" ")));
        router.sh(&format!("ip addr add {own}/24 dev wan0"));
        let lan = [192, 168, n];
        let inside = if nat.class.translates() {
            router.sh(&format!("ip addr add 192.168.{n}.1/24 dev lan0"));
            format!("192.168.{n}.0/24")
        } else {
            router.sh(&format!("ip route add {external}/32 dev lan0"));
            format!("{external}/32")
        };
        router.nft(&nat.rules(external, &inside));
        let host = if nat.class.translates() {
            self.lan_host(
                name,
                &router,
                external,
                Ipv4Addr::new(192, 168, n, 2),
                &format!("via 192.168.{n}.1"),
            )
        } else {
            self.lan_host(name, &router, external, external, "")
        };
        self.homes.push(Home { host: name.to_owned(), router, lan, members: 1 });
        host
    }

    /// A further host in the home of `of`, on the same LAN.
    pub fn neighbour(&mut self, of: &Host, name: &str) -> Host {
        let home = self.homes.iter_mut().find(|home| home.host == of.name).expect("`of` is a home's host");
        assert_ne!(of.local, of.public, "a home without translation has one address, for one host");
        home.members += 1;
        let [x, y, z] = home.lan;
        let (router, local) = (home.router.clone(), Ipv4Addr::new(x, y, z, 1 + home.members));
        self.lan_host(name, &router, of.public, local, &format!("via {x}.{y}.{z}.1"))
    }

    /// The router of a home's first host.
    pub fn router(&self, of: &Host) -> &Host {
        let home = self.homes.iter().find(|home| home.host == of.name);
        &home.expect("`of` is the first host of a home").router
    }

    /// From here on the public addresses of `a` and `b` do not hear each other; silently.
    pub fn cut(&self, a: &Host, b: &Host) {
        self.pairs("add", a, b);
    }

    /// Undoes [`Lab::cut`].
    pub fn mend(&self, a: &Host, b: &Host) {
        self.pairs("delete", a, b);
    }

    /// From here on nothing passes from or to the public address of `host`; silently.
    pub fn blackout(&self, host: &Host) {
        self.wan().nft(&format!("add element bridge lab dark {{ {} }}\n", host.public));
    }

    /// Undoes [`Lab::blackout`].
    pub fn light(&self, host: &Host) {
        self.wan().nft(&format!("delete element bridge lab dark {{ {} }}\n", host.public));
    }

    /// From here on the link of the home's router to the internet takes no more than `mtu` bytes, and the router says
    /// nothing about what it drops.
    pub fn narrow(&self, of: &Host, mtu: u16) {
        let router = self.router(of);
        if !router.ok(&["nft", "list", "tables"]).contains("quiet") {
            router.nft(QUIET_RULES);
        }
        router.sh(&format!("ip link set wan0 mtu {mtu}"));
    }

    /// From here on every link between public hosts takes `mtu` bytes.
    pub fn widen(&self, hosts: &[&Host], mtu: u16) {
        let list = self.wan().ok(&["ip", "-br", "link"]);
        for port in
            list.lines().filter(|line| line.starts_with('p')).filter_map(|line| line.split(['@', ' ']).next())
        {
            self.wan().sh(&format!("ip link set {port} mtu {mtu}"));
        }
        self.wan().sh(&format!("ip link set br0 mtu {mtu}"));
        for host in hosts {
            host.sh(&format!("ip link set eth0 mtu {mtu}"));
        }
    }

    /// The home's router forgets every mapping and every open door, as after a power cut.
    pub fn reboot_router(&self, of: &Host) {
        let router = self.router(of);
        router.sh("conntrack -F; nft list maps | grep -q eim && nft flush map ip boxnat eim || true");
        router.sh("nft list sets | grep -q spoken && nft flush set ip boxfilter spoken || true");
    }

    /// The home's provider gives its router another public address; only for recipes that masquerade.
    pub fn readdress(&self, of: &Host, address: Ipv4Addr) {
        let router = self.router(of);
        let rules = router.ok(&["nft", "list", "ruleset"]);
        assert!(rules.contains("masquerade"), "this recipe names its address:\n{rules}");
        let old = of.public;
        router.sh(&format!("ip addr del {old}/24 dev wan0; ip addr add {address}/24 dev wan0; conntrack -F"));
    }

    /// Ends the capture on the bridge; before throughput is measured.
    pub fn stop_capture(&mut self) {
        self.capture = None;
    }

    fn pairs(&self, deed: &str, a: &Host, b: &Host) {
        let (a, b) = (a.public, b.public);
        self.wan().nft(&format!("{deed} element bridge lab cut {{ {a} . {b}, {b} . {a} }}\n"));
    }

    /// A namespace with loopback up; duplicate address detection is off, so an address is usable at once.
    fn namespace(&mut self, name: &str, public: Ipv4Addr, local: Ipv4Addr) -> Host {
        let namespace = format!("{}-{name}", self.tag);
        let etc = Path::new(ETC).join(&namespace);
        fs::create_dir_all(&etc).expect("root may write /etc/netns");
        fs::write(etc.join("resolv.conf"), "# no resolver in the laboratory\n").expect("as above");
        let host = Host { name: name.to_owned(), namespace, public, local, scratch: self.scratch.clone() };
        self.hosts.push(host.clone());
        plain("ip", &["netns", "add", &host.namespace]);
        host.sh(
            "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link set lo up",
        );
        host
    }

    /// Gives `host` the device `device` whose other end is a port of the bridge.
    fn attach(&mut self, host: &Host, device: &str, quality: Quality) {
        let port = format!("p{}", self.hosts.len());
        if quality.is_plain() {
            let (wan, inside) = (&self.wan().namespace, &host.namespace);
            let far = ["peer", "name", device, "netns", inside];
            let near = ["link", "add", "name", &port, "netns", wan, "type", "veth"];
            plain("ip", &[near.as_slice(), far.as_slice()].concat());
        } else {
            self.links.push(Link::join([(self.wan(), &port), (host, device)], quality));
        }
        self.wan().sh(&format!("ip link set {port} master br0 up"));
        host.sh(&format!("ip link set {device} up"));
    }

    fn lan_host(&mut self, name: &str, router: &Host, public: Ipv4Addr, local: Ipv4Addr, via: &str) -> Host {
        let host = self.namespace(name, public, local);
        let port = format!("p{}", self.hosts.len());
        let near = ["link", "add", "name", &port, "netns", &router.namespace, "type", "veth"];
        let far = ["peer", "name", "eth0", "netns", &host.namespace];
        plain("ip", &[near.as_slice(), far.as_slice()].concat());
        router.sh(&format!("ip link set {port} master lan0 up"));
        host.sh(&format!(
            "ip link set eth0 up; ip addr add {local}/24 dev eth0; ip route add default {via} dev eth0"
        ));
        host
    }

    /// Captures the public side; frames are shortened, contents are sealed anyway.
    fn start_capture(&mut self) {
        let file = self.scratch.join("logs/wan.pcap");
        let file = file.to_string_lossy();
        let argv =
            ["tcpdump", "--immediate-mode", "-i", "br0", "-n", "-U", "-s", "200", "-Z", "root", "-w", &file];
        let capture = self.wan().spawn("tcpdump", &argv);
        wait_for("tcpdump listens", std::time::Duration::from_secs(10), || {
            capture.stderr().contains("listening on")
        });
        self.capture = Some(capture);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut capture) = self.capture.take() {
            capture.interrupt();
        }
        if std::thread::panicking() {
            evidence::keep(&self.test, &self.scratch, &self.hosts);
        }
        self.links.clear();
        for host in &self.hosts {
            remove(&host.namespace);
        }
        fs::remove_dir_all(&self.scratch).ok();
    }
}

/// Removes what laboratories of dead processes left: processes in their namespaces, namespaces, files.
pub fn sweep() {
    for name in fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name()) {
        if let Some(name) = name.to_str().filter(|name| is_orphan(name)) {
            remove(name);
        }
    }
    for parent in [std::env::temp_dir(), PathBuf::from(ETC)] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_orphan) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// True for the name of something that a laboratory of a dead process made.
fn is_orphan(name: &str) -> bool {
    let mut parts = name.strip_prefix("fr-").into_iter().flat_map(|rest| rest.split('-'));
    let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    let number = parts.next().and_then(|number| number.parse::<u32>().ok());
    number.is_some() && pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Ends every process in a namespace of ours, then removes it; what is gone already is fine.
fn remove(namespace: &str) {
    let pids = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).output();
    let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status().ok();
    fs::remove_dir_all(Path::new(ETC).join(namespace)).ok();
}

fn plain(program: &str, argv: &[&str]) {
    let output = Command::new(program).args(argv).output().expect("the preflight found it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{program} {}` failed: {said}", argv.join(" "));
}

/// Makes a namespace that looks like a dead laboratory's, for the sweep's own test.
#[doc(hidden)]
pub fn abandon(dead_pid: u32) -> String {
    let name = format!("fr-{dead_pid}-0-left");
    plain("ip", &["netns", "add", &name]);
    name
}

/// True while the kernel knows a namespace of this name.
pub fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

impl From<&NatClass> for Nat {
    fn from(class: &NatClass) -> Self {
        (*class).into()
    }
}
