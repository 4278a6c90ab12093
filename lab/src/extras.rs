//! What a router or host may have besides its NAT: IPv6, a proxy, a daemon that maps ports, rival flows.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::emulator;
use crate::host::Host;
use crate::lab::{Lab, Router};
use crate::recipe;
use crate::service::{Service, until};
use crate::trouble::{Kind, Result, Trouble};

/// The port of a router's proxy, as `tinyproxy` has it.
const PROXY_PORT: u16 = 8888;

/// Time for a daemon to listen.
const SOON: Duration = Duration::from_secs(10);

/// Who may use a proxy.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Lab {
    /// Gives a host a public IPv6 address: `2001:db8:113::/64` (RFC 3849) is the internet, on the same bridge.
    ///
    /// Behind a router the address is no different: the router answers for it, and lets in what the class lets in:
    /// all (open), or answers alone.
    ///
    /// # Errors
    /// The host is behind two routers, which would need a prefix each.
    pub fn give_ipv6(&mut self, name: &str) -> Result<Ipv6Addr> {
        let at = self.members.iter().position(|member| member.host.name == name);
        let at =
            at.ok_or_else(|| Trouble::usage(format!("there is no host `{name}`"), "see frejus lab status"))?;
        let host = self.members[at].host.clone();
        // The index is the same for nobody else.
        let number = u16::try_from(at + 1).expect("far fewer than 65,536 hosts");
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 1, number);
        match self.members[at].behind().map(str::to_owned) {
            None => {
                host.sh(&format!("ip -6 addr add {address}/64 dev eth0; ip -6 route add default dev eth0"))?;
            }
            Some(router) => {
                let index = self.router_index(&router)?;
                if self.routers[index].behind().is_some() {
                    let what = format!("{name} is behind two routers, there is no IPv6 for it");
                    return Err(Trouble::new(Kind::BadTopology, what, "leave ipv6 out there"));
                }
                self.prepare_ipv6(index)?;
                host.sh(&format!(
                    "ip -6 addr add {address}/128 dev eth0; ip -6 route add default via fe80::1 dev eth0"
                ))?;
                self.routers[index].host.sh(&format!(
                    "ip -6 route add {address}/128 dev lan0; ip -6 neigh add proxy {address} dev wan0"
                ))?;
            }
        }
        self.members[at].ipv6 = Some(address);
        Ok(address)
    }

    fn prepare_ipv6(&mut self, index: usize) -> Result<()> {
        if self.routers[index].ipv6 {
            return Ok(());
        }
        let router = &self.routers[index];
        let own = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 2, u16::try_from(index + 1).expect("a few"));
        router.host.sh(&format!(
            "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.wan0.proxy_ndp=1 net.ipv6.neigh.wan0.proxy_delay=0
             ip -6 addr add {own}/64 dev wan0; ip -6 addr add fe80::1/64 dev lan0; ip -6 route add default dev wan0"
        ))?;
        router.host.nft(&recipe::filter6(&router.nat))?;
        self.routers[index].ipv6 = true;
        Ok(())
    }

    /// The public IPv6 addresses that a name stands for.
    pub(crate) fn ipv6_behind(&self, name: &str) -> Vec<Ipv6Addr> {
        let ours = |member: &&crate::lab::Member| member.host.name == name || member.behind() == Some(name);
        self.members.iter().filter(ours).filter_map(|member| member.ipv6).collect()
    }

    /// Starts `tinyproxy` in the router, for those behind it; returns its URL.
    ///
    /// # Errors
    /// There is no `tinyproxy`, or it does not listen.
    pub fn start_proxy(&mut self, router: &str, who: Option<&Credentials>) -> Result<String> {
        let index = self.router_index(router)?;
        let (host, gateway) = (self.routers[index].host.clone(), self.routers[index].gateway());
        let basic = who.map(|who| format!("BasicAuth {} {}\n", who.user, who.password)).unwrap_or_default();
        let file = self.scratch.join(format!("{}-tinyproxy.conf", host.name));
        let text = format!("Port {PROXY_PORT}\nListen {gateway}\nTimeout 600\nMaxClients 100\n{basic}");
        private(&file, &text)?;
        let argv = ["setsid", "tinyproxy", "-d", "-c", &file.to_string_lossy()];
        self.service(&host, "tinyproxy", &argv)?;
        listening(&host, &format!("a proxy on {gateway}"), &["-Htln", &format!("sport = :{PROXY_PORT}")])?;
        let who = who.map(|who| format!("{}:{}@", who.user, who.password)).unwrap_or_default();
        let url = format!("http://{who}{gateway}:{PROXY_PORT}");
        self.routers[index].proxy = Some(url.clone());
        Ok(url)
    }

    /// Starts `miniupnpd` in the router: PCP, NAT-PMP and UPnP. Its leases are in `logs/ROUTER-leases`.
    ///
    /// The recipe must be one with [`crate::Nat::mapping`], and the internet none of RFC 5737
    /// ([`Lab::with_internet`]), which it takes for private.
    ///
    /// # Errors
    /// There is no `miniupnpd`, or it does not listen.
    pub fn map_ports(&mut self, router: &str) -> Result<()> {
        let index = self.router_index(router)?;
        let host = self.routers[index].host.clone();
        let leases = self.scratch.join("logs").join(format!("{}-leases", host.name));
        private(&leases, "")?;
        let file = self.scratch.join(format!("{}-miniupnpd.conf", host.name));
        let text = format!(
            "ext_ifname=wan0\nlistening_ip=lan0\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\n\
             upnp_table_name=boxmap\nupnp_nat_table_name=boxmap\nlease_file={}\nmin_lifetime=10\n\
             uuid=8a88de22-3581-49bc-9f47-{:012x}\nallow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            leases.display(),
            index
        );
        private(&file, &text)?;
        let pid_file = self.scratch.join(format!("{}-miniupnpd.pid", host.name));
        let (file, pid_file) = (file.to_string_lossy(), pid_file.to_string_lossy());
        self.service(&host, "miniupnpd", &["setsid", "miniupnpd", "-d", "-f", &file, "-P", &pid_file])?;
        listening(&host, "PCP and NAT-PMP on port 5351", &["-Huln", "sport = :5351"])
    }

    /// Ends the router's `miniupnpd` and forgets what it mapped; false where it has none.
    ///
    /// # Errors
    /// There is no such router.
    pub fn stop_mapping(&mut self, router: &str) -> Result<bool> {
        let router = self.router_of(router)?.clone();
        let title = format!("{} miniupnpd", router.host.name);
        let before = self.services.len();
        for service in self.services.iter().filter(|service| service.title == title) {
            service.end();
        }
        self.services.retain(|service| service.title != title);
        self.load(&router)?;
        Ok(self.services.len() < before)
    }

    /// From here on the router's line is used by others too: so many new flows a second take a mapping each.
    ///
    /// # Errors
    /// There is no such router.
    pub fn start_rivals(&mut self, router: &str, per_second: u32) -> Result<()> {
        let Router { host, .. } = self.router_of(router)?.clone();
        // Nobody has this address: frames to it are seen and heard by nobody.
        let [a, b, c, _] = host.public.octets();
        let sink = Ipv4Addr::new(a, b, c, 253);
        host.sh(&format!("ip neigh replace {sink} lladdr 02:00:00:00:00:fd dev wan0 nud permanent"))?;
        let Some(binary) = &self.binary else {
            std::thread::spawn(move || emulator::rivals(&host, sink, per_second).ok());
            return Ok(());
        };
        let binary = binary.to_string_lossy().into_owned();
        let (sink, rate) = (sink.to_string(), per_second.to_string());
        let argv = [binary.as_str(), "lab", "rivals", "--namespace", &host.namespace, "--rate", &rate, &sink];
        let wan = self.wan.clone();
        self.service(&wan, &format!("rivals-{}", host.name), &argv)
    }

    fn service(&mut self, host: &Host, name: &str, argv: &[&str]) -> Result<()> {
        self.services.push(Service::start(host, name, argv, &[])?);
        Ok(())
    }
}

/// Waits until `ss` lists a socket.
fn listening(host: &Host, what: &str, question: &[&str]) -> Result<()> {
    until(what, SOON, || Ok(!host.ok(&[&["ss"], question].concat())?.trim().is_empty()))
}

/// Writes a file that only root reads.
pub(crate) fn private(path: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| Trouble::file(path, error))
}
