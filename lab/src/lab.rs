//! The topology: namespaces, the bridge that plays the internet, routers and what is behind them; and its removal.
//!
//! Owns every namespace whose name begins with the laboratory's tag. What is changed later is in [`crate::change`].

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::host::{Host, plain};
use crate::link::{Link, Quality};
use crate::nat::Nat;
use crate::service::Service;
use crate::trouble::{Kind, Result, Trouble};

/// Per-namespace copies of files in /etc live here; `ip netns exec` mounts them over the real ones.
const ETC: &str = "/etc/netns";

/// The internet, unless somebody wants another: a block for documentation (RFC 5737).
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// The first router is INTERNET.10 outside and 192.168.10.0/24 inside.
const FIRST_ROUTER: u8 = 10;

/// A router without translation needs an address of its own: INTERNET.200 and on.
const FIRST_FIREWALL: u8 = 200;

/// What real wires do not know: pairs that no longer hear each other, addresses gone dark.
///
/// The bridge sees what its ports say to one another, the second table what a router forwards (a hairpin, too).
const RULES: &str = "table bridge lab {
  set cut { type ipv4_addr . ipv4_addr; }
  set cut6 { type ipv6_addr . ipv6_addr; }
  set dark { type ipv4_addr; }
  set dark6 { type ipv6_addr; }
  chain coming { type filter hook prerouting priority 0;
    ether type ip ip saddr @dark drop
    ether type ip6 ip6 saddr @dark6 drop
  }
  chain pass { type filter hook forward priority 0;
    ether type ip ip saddr . ip daddr @cut drop
    ether type ip6 ip6 saddr . ip6 daddr @cut6 drop
  }
  chain going { type filter hook postrouting priority 0;
    ether type ip ip daddr @dark drop
    ether type ip6 ip6 daddr @dark6 drop
  }
}
table ip lab {
  set cut { type ipv4_addr . ipv4_addr; }
  chain pass { type filter hook forward priority -20;
    ip saddr . ip daddr @cut drop
  }
}
";

/// One internet of its own.
///
/// It can be written down and read back: what runs is known by process ids and names of devices. Only links that are
/// threads of this process ([`Lab::new`] without a binary) end with it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lab {
    pub(crate) tag: String,
    pub(crate) scratch: PathBuf,
    /// The network address of the internet, a /24.
    pub(crate) internet: Ipv4Addr,
    pub(crate) wan: Host,
    pub(crate) routers: Vec<Router>,
    pub(crate) members: Vec<Member>,
    pub(crate) services: Vec<Service>,
    pub(crate) links: Vec<Impaired>,
    pub(crate) cuts: Vec<(String, String)>,
    pub(crate) dark: Vec<String>,
    pub(crate) ports: u32,
    /// The binary whose hidden verbs are links and rivals; none: threads of this process are.
    pub(crate) binary: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) threads: Vec<(String, Link)>,
}

/// Where something is plugged in: a port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plug {
    /// The router whose LAN it is; none for the internet.
    pub(crate) realm: Option<String>,
    pub(crate) port: String,
}

/// A router, with all that was said of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Router {
    /// Its machine; `public` is the address that is given to what is behind it.
    pub host: Host,
    /// What it does.
    pub nat: Nat,
    /// First three numbers of the LAN.
    pub(crate) lan: [u8; 3],
    pub(crate) plug: Plug,
    /// Hosts of the LAN do not hear each other.
    pub(crate) isolated: bool,
    pub(crate) hosts: u8,
    /// What the line to the outside takes, in bytes; it does not say so.
    pub(crate) mtu: Option<u16>,
    /// The proxy's URL, for the hosts behind.
    pub(crate) proxy: Option<String>,
    pub(crate) ipv6: bool,
}

/// A host, with where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its machine.
    pub host: Host,
    pub(crate) plug: Plug,
    /// Its public IPv6 address, if it has one.
    pub ipv6: Option<std::net::Ipv6Addr>,
}

/// A link that is not a plain cable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Impaired {
    pub(crate) port: String,
    pub(crate) quality: Quality,
}

/// How a router is to be.
#[derive(Clone, Debug)]
pub struct RouterPlan<'a> {
    /// Name of its machine.
    pub name: &'a str,
    /// What it does.
    pub nat: Nat,
    /// The router behind which it is; none: on the internet.
    pub behind: Option<&'a str>,
    /// Address outside; none: the next one.
    pub address: Option<Ipv4Addr>,
    /// Hosts of its LAN do not hear each other.
    pub isolated: bool,
    /// True for a provider's router, whose LAN is a block of RFC 6598.
    pub carrier: bool,
}

impl<'a> RouterPlan<'a> {
    /// A home router on the internet.
    pub const fn home(name: &'a str, nat: Nat) -> Self {
        Self { name, nat, behind: None, address: None, isolated: false, carrier: false }
    }
}

impl Router {
    /// The LAN as CIDR; for a router without translation, the one address behind it.
    pub fn lan(&self) -> String {
        let [a, b, c] = self.lan;
        if self.nat.class.translates() {
            format!("{a}.{b}.{c}.0/24")
        } else {
            format!("{}/32", self.host.public)
        }
    }

    /// Its own address in the LAN.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c] = self.lan;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// The router behind which it is.
    pub fn behind(&self) -> Option<&str> {
        self.plug.realm.as_deref()
    }

    /// True where the hosts of its LAN do not hear each other.
    pub const fn isolated(&self) -> bool {
        self.isolated
    }

    /// The URL of its proxy, for those behind; it may hold a password.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }
}

impl Member {
    /// The router behind which it is.
    pub fn behind(&self) -> Option<&str> {
        self.plug.realm.as_deref()
    }
}

impl Lab {
    /// An internet without hosts. Everything in it is named after `tag`, and written under `scratch`.
    ///
    /// With `binary`, links and rivals are processes of `BINARY lab …`, which outlive this one.
    ///
    /// # Errors
    /// Not root, a program is missing, or the tag is taken.
    pub fn new(tag: &str, scratch: &Path, binary: Option<&Path>) -> Result<Self> {
        let logs = scratch.join("logs");
        fs::create_dir_all(&logs).map_err(|error| Trouble::file(&logs, error))?;
        let wan = Host {
            name: "wan".into(),
            namespace: format!("{tag}-wan"),
            public: Ipv4Addr::UNSPECIFIED,
            local: Ipv4Addr::UNSPECIFIED,
            scratch: scratch.to_path_buf(),
        };
        let lab = Self {
            tag: tag.to_owned(),
            scratch: scratch.to_path_buf(),
            internet: INTERNET,
            wan,
            routers: Vec::new(),
            members: Vec::new(),
            services: Vec::new(),
            links: Vec::new(),
            cuts: Vec::new(),
            dark: Vec::new(),
            ports: 0,
            binary: binary.map(Path::to_path_buf),
            threads: Vec::new(),
        };
        namespace(&lab.wan)?;
        lab.wan.sh("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up")?;
        lab.wan.nft(RULES)?;
        Ok(lab)
    }

    /// Another /24 as the internet; before there is a host. `miniupnpd` maps no port to an address of RFC 5737.
    #[must_use]
    pub fn with_internet(mut self, internet: Ipv4Addr) -> Self {
        let [a, b, c, _] = internet.octets();
        self.internet = Ipv4Addr::new(a, b, c, 0);
        self
    }

    /// The address of the internet that ends so.
    pub fn at(&self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.internet.octets();
        Ipv4Addr::new(a, b, c, last)
    }

    /// The namespace that plays the internet.
    pub const fn wan(&self) -> &Host {
        &self.wan
    }

    /// Directory of the laboratory.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Every host that is no router.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Every router.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none; the names that there are, are said.
    pub fn member(&self, name: &str) -> Result<&Member> {
        self.members.iter().find(|member| member.host.name == name).ok_or_else(|| {
            let names: Vec<_> = self.members.iter().map(|member| member.host.name.as_str()).collect();
            Trouble::usage(format!("there is no host `{name}`"), format!("say one of {}", names.join(", ")))
        })
    }

    /// The router of this name, or the one in front of the host of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn router_of(&self, name: &str) -> Result<&Router> {
        Ok(&self.routers[self.router_index(name)?])
    }

    /// Every namespace, the internet first.
    pub fn machines(&self) -> impl Iterator<Item = &Host> {
        let routers = self.routers.iter().map(|router| &router.host);
        std::iter::once(&self.wan).chain(routers).chain(self.members.iter().map(|member| &member.host))
    }

    /// A host with the public address `address`.
    ///
    /// # Errors
    /// The name or address is taken.
    pub fn public(&mut self, name: &str, address: Ipv4Addr) -> Result<Host> {
        let host = self.machine(name, address, address)?;
        let plug = self.plug(None, &host, "eth0")?;
        host.sh(&format!("ip addr add {address}/24 dev eth0; ip route add default dev eth0"))?;
        self.members.push(Member { host: host.clone(), plug, ipv6: None });
        Ok(host)
    }

    /// A router, and nobody behind it yet.
    ///
    /// # Errors
    /// The name is taken, or the kernel refuses the rules.
    pub fn router(&mut self, plan: &RouterPlan<'_>) -> Result<Host> {
        let index = u8::try_from(self.routers.len()).unwrap_or(u8::MAX);
        if index >= FIRST_FIREWALL - FIRST_ROUTER - 100 {
            return Err(Trouble::new(Kind::BadTopology, "more than 90 routers", "build a smaller topology"));
        }
        let translates = plan.nat.class.translates();
        let gateway = plan.behind.map(|outer| self.router_of(outer).map(Router::gateway)).transpose()?;
        let [a, b, c, _] = gateway.unwrap_or(self.internet).octets();
        let siblings = self.routers.iter().filter(|router| router.behind() == plan.behind).count();
        // In a carrier's LAN the small numbers belong to hosts.
        let number =
            if gateway.is_some() { 100 + u8::try_from(siblings).unwrap_or(0) } else { FIRST_ROUTER + index };
        let external = plan.address.unwrap_or_else(|| Ipv4Addr::new(a, b, c, number));
        let own = if translates { external } else { Ipv4Addr::new(a, b, c, FIRST_FIREWALL + index) };
        let host = self.machine(plan.name, external, own)?;
        let plug = self.plug(plan.behind, &host, "wan0")?;
        host.sh("ip link add lan0 type bridge mcast_snooping 0; ip link set lan0 up")?;
        host.nft(RULES)?;
        host.sh(&format!("sysctl -qw {}; ip addr add {own}/24 dev wan0", plan.nat.settings().join(" ")))?;
        if let Some(gateway) = gateway {
            host.sh(&format!("ip route add default via {gateway} dev wan0"))?;
        }
        let n = FIRST_ROUTER + index;
        let lan = if plan.carrier { [100, 64, n] } else { [192, 168, n] };
        let router = Router {
            host: host.clone(),
            nat: plan.nat,
            lan,
            plug,
            isolated: plan.isolated,
            hosts: 0,
            mtu: None,
            proxy: None,
            ipv6: false,
        };
        host.sh(&if translates {
            format!("ip addr add {}/24 dev lan0", router.gateway())
        } else {
            format!("ip route add {external}/32 dev lan0")
        })?;
        host.nft(&plan.nat.rules(external, &router.lan()))?;
        self.routers.push(router);
        Ok(host)
    }

    /// A further host behind the router of this name; one without translation takes one.
    ///
    /// # Errors
    /// The name is taken, or there is no room.
    pub fn behind(&mut self, router: &str, name: &str) -> Result<Host> {
        let index = self.router_index(router)?;
        let at = &self.routers[index];
        let (translates, external, gateway) = (at.nat.class.translates(), at.host.public, at.gateway());
        let number = at.hosts + 1;
        if number > if translates { 90 } else { 1 } {
            let what = format!("no room for another host behind {}", at.host.name);
            return Err(Trouble::new(Kind::BadTopology, what, "give it a router of its own"));
        }
        let [a, b, c, _] = gateway.octets();
        let local = if translates { Ipv4Addr::new(a, b, c, 1 + number) } else { external };
        let via = if translates { format!("via {gateway}") } else { String::new() };
        let public = self.outermost(index);
        let name_of_router = self.routers[index].host.name.clone();
        let host = self.machine(name, public, local)?;
        let plug = self.plug(Some(&name_of_router), &host, "eth0")?;
        host.sh(&format!("ip addr add {local}/24 dev eth0; ip route add default {via} dev eth0"))?;
        self.routers[index].hosts = number;
        self.members.push(Member { host: host.clone(), plug, ipv6: None });
        Ok(host)
    }

    /// The address that the internet sees of what is behind this router.
    fn outermost(&self, mut index: usize) -> Ipv4Addr {
        while let Some(outer) = self.routers[index].behind() {
            index = self.router_index(outer).expect("a router is behind one that was built before");
        }
        self.routers[index].host.public
    }

    pub(crate) fn router_index(&self, name: &str) -> Result<usize> {
        let behind = self.members.iter().find(|member| member.host.name == name);
        let wanted = match behind {
            Some(member) => member.behind().ok_or_else(|| {
                Trouble::usage(format!("{name} has a public address and no router"), "say a host behind one")
            })?,
            None => name,
        };
        self.routers.iter().position(|router| router.host.name == wanted).ok_or_else(|| {
            let hosts =
                self.members.iter().filter(|member| member.behind().is_some()).map(|member| &member.host);
            let hosts = hosts.chain(self.routers.iter().map(|router| &router.host));
            let names: Vec<_> = hosts.map(|host| host.name.as_str()).collect();
            let mend = format!("say one of {}", names.join(", "));
            Trouble::usage(format!("there is no host or NAT `{name}`"), mend)
        })
    }

    /// The machine whose bridge plays this realm, and the bridge's name.
    pub(crate) fn bridge(&self, realm: Option<&str>) -> Result<(&Host, &'static str)> {
        realm.map_or(Ok((&self.wan, "br0")), |name| Ok((&self.router_of(name)?.host, "lan0")))
    }

    fn machine(&self, name: &str, public: Ipv4Addr, local: Ipv4Addr) -> Result<Host> {
        let namespace_name = format!("{}-{name}", self.tag);
        if self.machines().any(|host| host.name == name) {
            let what = format!("two machines are called `{name}`");
            return Err(Trouble::new(Kind::BadTopology, what, "give one another name"));
        }
        let scratch = self.scratch.clone();
        let host = Host { name: name.to_owned(), namespace: namespace_name, public, local, scratch };
        namespace(&host)?;
        Ok(host)
    }

    /// Gives `host` the device `device` whose other end is a port of the realm's bridge.
    fn plug(&mut self, realm: Option<&str>, host: &Host, device: &str) -> Result<Plug> {
        self.ports += 1;
        let port = format!("p{}", self.ports);
        let (outside, bridge) = self.bridge(realm)?;
        let isolated = realm.is_some_and(|name| self.router_of(name).is_ok_and(Router::isolated));
        let near = ["link", "add", "name", &port, "netns", &outside.namespace, "type", "veth"];
        let far = ["peer", "name", device, "netns", &host.namespace];
        plain("ip", &[near.as_slice(), far.as_slice()].concat())?;
        outside.sh(&format!("ip link set {port} master {bridge} up"))?;
        if isolated {
            outside.sh(&format!("bridge link set dev {port} isolated on"))?;
        }
        host.sh(&format!("ip link set {device} up"))?;
        Ok(Plug { realm: realm.map(str::to_owned), port })
    }

    /// Ends everything that runs in it, and removes its namespaces; what is gone already is fine.
    pub fn take_down(&mut self) {
        for service in self.services.drain(..) {
            service.end();
        }
        self.threads.clear();
        for host in self.machines() {
            remove(&host.namespace);
        }
    }
}

/// A namespace with loopback up; duplicate address detection is off, so an address is usable at once.
fn namespace(host: &Host) -> Result<()> {
    let etc = Path::new(ETC).join(&host.namespace);
    fs::create_dir_all(&etc)
        .and_then(|()| fs::write(etc.join("resolv.conf"), "# no resolver in the laboratory\n"))
        .map_err(|error| Trouble::file(&etc, error))?;
    plain("ip", &["netns", "add", &host.namespace])?;
    // Where the machine has br_netfilter, a bridge would hand its frames to the rules of IP a second time.
    host.sh(
        "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link set lo up
         for file in /proc/sys/net/bridge/bridge-nf-call-*tables; do [ ! -e $file ] || echo 0 >$file; done",
    )?;
    Ok(())
}

/// Removes every laboratory's remains whose namespaces', or files', names are `theirs`.
pub fn sweep(theirs: impl Fn(&str) -> bool, directories: &[PathBuf]) {
    for name in fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name()) {
        if let Some(name) = name.to_str().filter(|name| theirs(name)) {
            remove(name);
        }
    }
    for parent in directories.iter().map(PathBuf::as_path).chain([Path::new(ETC)]) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(&theirs) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

/// Ends every process in a namespace of ours, then removes it; what is gone already is fine.
fn remove(namespace: &str) {
    let pids = plain("ip", &["netns", "pids", namespace]).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    plain("ip", &["netns", "del", namespace]).ok();
    fs::remove_dir_all(Path::new(ETC).join(namespace)).ok();
}

/// True while the kernel knows a namespace of this name.
pub fn namespace_exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}
