//! What a topology file says: TOML, checked, and built in an order that works. Never runs anything itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::extras::Credentials;
use crate::lab::{Lab, RouterPlan};
use crate::link::Quality;
use crate::nat::{Nat, NatClass, Tcp};
use crate::trouble::{Kind, Result, Trouble};

/// The internet of a topology in which a router maps ports: `miniupnpd` maps none to an address of RFC 5737.
const ROUTABLE: Ipv4Addr = Ipv4Addr::new(20, 0, 113, 0);

/// What every laboratory is built with, and the Debian package that it is in.
const PROGRAMS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("sysctl", "procps"),
    ("conntrack", "conntrack"),
    ("timeout", "coreutils"),
    ("setsid", "util-linux"),
];

/// A described internet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The network that the founder makes.
    #[serde(default = "network")]
    pub network: String,
    /// Network address of the /24 that plays the internet.
    pub internet: Option<Ipv4Addr>,
    /// Routers.
    #[serde(default, rename = "nat")]
    pub nats: Vec<NatPlan>,
    /// Hosts.
    #[serde(default, rename = "host")]
    pub hosts: Vec<HostPlan>,
    /// Nodes of the network.
    #[serde(default, rename = "node")]
    pub nodes: Vec<NodePlan>,
}

/// `[[nat]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file, by its own name")]
pub struct NatPlan {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: NatClass,
    /// Its address outside.
    pub address: Option<Ipv4Addr>,
    /// The NAT behind which it is.
    pub behind: Option<String>,
    /// Inside hosts reach each other by outer addresses.
    #[serde(default)]
    pub hairpin: bool,
    /// Stray packets reach the router itself.
    #[serde(default)]
    pub careless: bool,
    /// What is not let in is answered with ICMP errors.
    #[serde(default)]
    pub rejects: bool,
    /// How long a mapping lives without traffic.
    #[serde(default, deserialize_with = "duration")]
    pub lifetime: Option<Duration>,
    /// Hosts of the LAN do not hear each other.
    #[serde(default)]
    pub isolation: bool,
    /// What the line to the outside takes, in bytes.
    pub mtu: Option<u16>,
    /// Whether UDP passes.
    #[serde(default = "yes")]
    pub udp: bool,
    /// The only ports that TCP may go to.
    pub tcp: Option<Vec<u16>>,
    /// Nothing passes but through an HTTP proxy in the router.
    #[serde(default)]
    pub proxy: Proxy,
    /// Hosts have IPv6 too, behind a stateful filter.
    #[serde(default)]
    pub ipv6: bool,
    /// The router maps ports when it is asked: PCP, NAT-PMP, UPnP.
    #[serde(default)]
    pub port_mapping: bool,
    /// New flows of others a second.
    #[serde(default)]
    pub rivals: u32,
    /// Its line to the outside.
    #[serde(default)]
    pub link: LinkPlan,
}

/// Whether there is a proxy, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Proxy {
    /// None.
    #[default]
    Absent,
    /// For everybody, if true.
    Open(bool),
    /// For those who know this.
    For(Credentials),
}

/// `[[host]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPlan {
    /// Its name.
    pub name: String,
    /// Its public address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// The NAT behind which it is.
    pub behind: Option<String>,
    /// A public host has IPv6 too.
    #[serde(default)]
    pub ipv6: bool,
    /// The line of a public host.
    #[serde(default)]
    pub link: LinkPlan,
}

/// `[[node]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// The host on which it runs.
    pub host: String,
    /// Its role.
    #[serde(default)]
    pub role: Role,
    /// It creates the network.
    #[serde(default)]
    pub founder: bool,
    /// Further options of `frejus up`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What a node is invited as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An ordinary machine.
    #[default]
    Peer,
    /// One that helps the others.
    SuperPeer,
    /// A phone.
    Client,
}

impl Role {
    /// As `frejus invite --role` takes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::SuperPeer => "super-peer",
            Self::Client => "client",
        }
    }
}

/// `link = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPlan {
    /// One-way delay.
    #[serde(default, deserialize_with = "duration")]
    pub delay: Option<Duration>,
    /// Frames lost out of a hundred.
    #[serde(default)]
    pub loss: u8,
    /// Bits a second: `10M`.
    #[serde(default, deserialize_with = "rate")]
    pub rate: Option<u64>,
}

impl LinkPlan {
    /// As the link takes it.
    pub fn quality(&self) -> Quality {
        Quality { delay: self.delay.unwrap_or_default(), loss_percent: self.loss, rate: self.rate }
    }
}

impl Topology {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, is no topology, or can't be built.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let mend = "examples are in lab/topologies, docs/lab.md explains them";
            Trouble::new(Kind::BadTopology, format!("{}: {error}", path.display()), mend)
        })?;
        Self::parse(&text).map_err(|mut trouble| {
            trouble.what = format!("{}: {}", path.display(), trouble.what);
            trouble
        })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is no topology, or can't be built.
    pub fn parse(text: &str) -> Result<Self> {
        let read: Self = toml::from_str(text).map_err(|error| {
            let place = place(text, error.span().map_or(0, |span| span.start), error.message());
            let said: Vec<&str> = error.message().lines().map(str::trim).collect();
            Trouble::new(Kind::BadTopology, format!("{place}: {}", said.join(", ")), "see docs/lab.md")
        })?;
        read.check()?;
        Ok(read)
    }

    /// Whether the machine has what it takes.
    ///
    /// # Errors
    /// A program is missing; its Debian package is said.
    pub fn check_programs(&self) -> Result<()> {
        let proxy = self.nats.iter().any(|nat| !matches!(nat.proxy, Proxy::Absent | Proxy::Open(false)));
        let mapping = self.nats.iter().any(|nat| nat.port_mapping);
        let extra = [(proxy, ("tinyproxy", "tinyproxy")), (mapping, ("miniupnpd", "miniupnpd-nftables"))];
        let extra = extra.into_iter().filter(|(wanted, _)| *wanted).map(|(_, program)| program);
        for (program, package) in PROGRAMS.into_iter().chain(extra) {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&paths).any(|directory| directory.join(program).is_file()) {
                let what = format!("there is no program `{program}`");
                return Err(Trouble::other(what, format!("install the package {package}")));
            }
        }
        if Path::new("/dev/net/tun").exists() {
            return Ok(());
        }
        Err(Trouble::other("there is no /dev/net/tun", "modprobe tun, or let this container have the device"))
    }

    /// Builds hosts and routers; `say` hears a line for each.
    ///
    /// # Errors
    /// What the machine refuses.
    pub fn build(&self, mut lab: Lab, say: &mut dyn FnMut(&str)) -> Result<Lab> {
        lab = lab.with_internet(self.internet());
        say(&format!("internet: {}/24", self.internet()));
        for plan in self.in_order()? {
            self.build_nat(&mut lab, plan)?;
            let router = lab.router_of(&plan.name)?;
            let behind = plan.behind.as_ref().map(|outer| format!(" behind {outer}")).unwrap_or_default();
            say(&format!(
                "nat {}: {}, {}{behind}, {} inside",
                plan.name,
                router.nat,
                router.host.public,
                router.lan()
            ));
        }
        for (at, plan) in self.hosts.iter().enumerate() {
            self.build_host(&mut lab, at, plan)?;
            let host = &lab.member(&plan.name)?.host;
            let behind = plan.behind.as_ref().map(|nat| format!(" behind {nat}")).unwrap_or_default();
            say(&format!("host {}: {}{behind}", plan.name, host.local));
        }
        // Rivals and proxies come last: their routers' surroundings must be there.
        for plan in &self.nats {
            match &plan.proxy {
                Proxy::Absent | Proxy::Open(false) => {}
                Proxy::Open(true) => drop(lab.start_proxy(&plan.name, None)?),
                Proxy::For(who) => drop(lab.start_proxy(&plan.name, Some(who))?),
            }
            if plan.port_mapping {
                lab.map_ports(&plan.name)?;
            }
            if plan.rivals > 0 {
                lab.start_rivals(&plan.name, plan.rivals)?;
            }
        }
        Ok(lab)
    }

    fn build_nat(&self, lab: &mut Lab, plan: &NatPlan) -> Result<()> {
        let carrier = self.nats.iter().any(|nat| nat.behind.as_deref() == Some(&plan.name));
        lab.router(&RouterPlan {
            name: &plan.name,
            nat: plan.nat()?,
            behind: plan.behind.as_deref(),
            address: plan.address,
            isolated: plan.isolation,
            carrier,
        })?;
        if let Some(mtu) = plan.mtu {
            lab.narrow(&plan.name, mtu)?;
        }
        lab.set_link(&plan.name, plan.link.quality())
    }

    fn build_host(&self, lab: &mut Lab, at: usize, plan: &HostPlan) -> Result<()> {
        let behind = plan.behind.as_deref();
        match behind {
            Some(nat) => drop(lab.behind(nat, &plan.name)?),
            None => {
                let last = 101 + u8::try_from(at).unwrap_or(u8::MAX - 101);
                lab.public(&plan.name, plan.address.unwrap_or_else(|| lab.at(last)))?;
                lab.set_link(&plan.name, plan.link.quality())?;
            }
        }
        let with_nat = behind.is_some_and(|nat| self.nats.iter().any(|plan| plan.name == nat && plan.ipv6));
        if plan.ipv6 || with_nat {
            lab.give_ipv6(&plan.name)?;
        }
        Ok(())
    }

    fn internet(&self) -> Ipv4Addr {
        let mapped = self.nats.iter().any(|nat| nat.port_mapping);
        self.internet.unwrap_or(if mapped { ROUTABLE } else { crate::lab::INTERNET })
    }

    fn check(&self) -> Result<()> {
        let bad = |what: String, mend: &str| Err(Trouble::new(Kind::BadTopology, what, mend));
        let mut names = BTreeSet::from(["wan"]);
        for name in self.nats.iter().map(|nat| &nat.name).chain(self.hosts.iter().map(|host| &host.name)) {
            if !is_label(name) {
                return bad(format!("`{name}` is no name"), "letters, digits and hyphens, at most 20");
            }
            if !names.insert(name) {
                return bad(
                    format!("the name `{name}` is taken"),
                    "give every host and NAT a name of its own",
                );
            }
        }
        let is_nat = |name: &str| self.nats.iter().any(|nat| nat.name == name);
        let inner = self.nats.iter().map(|nat| (&nat.name, &nat.behind));
        for (name, behind) in inner.chain(self.hosts.iter().map(|host| (&host.name, &host.behind))) {
            if let Some(missing) = behind.as_ref().filter(|behind| !is_nat(behind)) {
                return bad(
                    format!("{name} is behind `{missing}`, and there is no such NAT"),
                    "add a [[nat]]",
                );
            }
        }
        for host in &self.hosts {
            if host.behind.is_some() && (host.address.is_some() || host.link != LinkPlan::default()) {
                let what = format!("{} is behind a NAT and has an address or link of its own", host.name);
                return bad(what, "give them to the NAT");
            }
        }
        self.in_order()?;
        for nat in &self.nats {
            self.check_nat(nat)?;
        }
        self.check_nodes()
    }

    fn check_nat(&self, nat: &NatPlan) -> Result<()> {
        nat.nat()?;
        let nats = self.nats.iter().filter(|inner| inner.behind.as_deref() == Some(&nat.name)).count();
        let hosts = self.hosts.iter().filter(|inner| inner.behind.as_deref() == Some(&nat.name)).count();
        if !nat.class.translates() && (nats > 0 || hosts > 1) {
            let what = format!("{} is {}, so there is room for one host behind it", nat.name, nat.class);
            return Err(Trouble::new(Kind::BadTopology, what, "give each host a router of its own"));
        }
        if let Some(mtu) = nat.mtu.filter(|mtu| !(576..=1500).contains(mtu)) {
            let what = format!("{}: mtu = {mtu}", nat.name);
            return Err(Trouble::new(Kind::BadTopology, what, "say 576 to 1500"));
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for node in &self.nodes {
            if !self.hosts.iter().any(|host| host.name == node.host) || !seen.insert(&node.host) {
                let what = format!("a node on `{}`: no such host, or two nodes on it", node.host);
                return Err(Trouble::new(Kind::BadTopology, what, "one node a host"));
            }
        }
        let founders = self.nodes.iter().filter(|node| node.founder).count();
        if !self.nodes.is_empty() && founders != 1 {
            let what = format!("{founders} nodes are founders");
            return Err(Trouble::new(Kind::BadTopology, what, "say `founder = true` on one node"));
        }
        Ok(())
    }

    /// The NATs, the outer ones first.
    fn in_order(&self) -> Result<Vec<&NatPlan>> {
        let mut done: Vec<&NatPlan> = Vec::new();
        while done.len() < self.nats.len() {
            let is_done = |name: &str| done.iter().any(|nat| nat.name == name);
            let next =
                self.nats.iter().find(|nat| !is_done(&nat.name) && nat.behind.as_deref().is_none_or(is_done));
            match next {
                Some(nat) => done.push(nat),
                None => {
                    let mut left = self.nats.iter().filter(|nat| !is_done(&nat.name));
                    let name = left.next().map_or("", |nat| &nat.name);
                    let what = format!("`{name}` and others are behind each other in a circle");
                    return Err(Trouble::new(Kind::BadTopology, what, "let one be on the internet"));
                }
            }
        }
        Ok(done)
    }
}

impl NatPlan {
    /// As the recipe takes it.
    ///
    /// # Errors
    /// What is asked for does not go together.
    pub fn nat(&self) -> Result<Nat> {
        let mut nat = Nat::from(self.class);
        if self.hairpin {
            if !self.class.is_cone() {
                let what = format!("{}: a {} NAT has no hairpin", self.name, self.class);
                let mend = "take full-cone, address-restricted or port-restricted";
                return Err(Trouble::new(Kind::BadTopology, what, mend));
            }
            nat = nat.hairpin();
        }
        if self.careless {
            nat = nat.careless();
        }
        if self.rejects {
            nat = nat.rejecting();
        }
        if let Some(life) = self.lifetime {
            nat = nat.lifetime(u32::try_from(life.as_secs().max(1)).unwrap_or(u32::MAX));
        }
        if self.port_mapping {
            nat = nat.mapping();
        }
        if !self.udp {
            nat = nat.without_udp();
        }
        if let Some(ports) = &self.tcp {
            nat = nat.tcp(self.tcp_to(ports)?);
        }
        if !matches!(self.proxy, Proxy::Absent | Proxy::Open(false)) {
            nat = nat.without_udp().tcp(Tcp::None);
        }
        Ok(nat)
    }

    fn tcp_to(&self, ports: &[u16]) -> Result<Tcp> {
        let mut open = [0; 4];
        if ports.len() > open.len() || ports.contains(&0) {
            let what = format!("{}: tcp = {ports:?}", self.name);
            return Err(Trouble::new(Kind::BadTopology, what, "say at most four ports, from 1 on"));
        }
        open[..ports.len()].copy_from_slice(ports);
        Ok(if ports.is_empty() { Tcp::None } else { Tcp::To(open) })
    }
}

/// The line in which the byte `at` of `text` is, and the key whose value begins there, unless `said` names it.
fn place(text: &str, at: usize, said: &str) -> String {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let key = before.trim_ascii_end().strip_suffix(b"=").unwrap_or_default().trim_ascii_end();
    let begin = key.iter().rposition(|byte| !is_key(byte)).map_or(0, |other| other + 1);
    match std::str::from_utf8(&key[begin..]) {
        Ok(key) if !key.is_empty() && !said.contains(&format!("`{key}`")) => format!("line {line}, `{key}`"),
        _ => format!("line {line}"),
    }
}

/// True for a name that fits into the names of namespaces, files and nodes.
pub(crate) fn is_label(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=20).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-') && !name.ends_with('-')
}

fn network() -> String {
    "lab".to_owned()
}

const fn yes() -> bool {
    true
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Option<Duration>, D::Error> {
    read_with(input, read_duration)
}

fn rate<'de, D: Deserializer<'de>>(input: D) -> std::result::Result<Option<u64>, D::Error> {
    read_with(input, read_rate)
}

fn read_with<'de, D: Deserializer<'de>, T, E: fmt::Display>(
    input: D,
    read: impl Fn(&str) -> std::result::Result<T, E>,
) -> std::result::Result<Option<T>, D::Error> {
    let text = String::deserialize(input)?;
    read(&text).map(Some).map_err(serde::de::Error::custom)
}

/// `20ms`, `30s`.
///
/// # Errors
/// It is neither.
pub fn read_duration(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 20ms or 30s");
    let (number, unit): (&str, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, Duration::from_secs),
    };
    number.parse::<u32>().map(|number| unit(number.into())).map_err(|_| wrong())
}

/// `512K`, `10M`, `1G`: bits a second.
///
/// # Errors
/// It is none of these.
pub fn read_rate(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("`{text}` is no rate such as 512K, 10M or 1G");
    let units = [('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
    let unit = units.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
    let (number, unit) = unit.ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|rate| *rate > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
