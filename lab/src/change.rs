//! What is changed while it runs: lines cut, hosts gone dark, NATs rebooted, renumbered or of another class, links.

use std::net::Ipv4Addr;

use crate::emulator;
use crate::host::Host;
use crate::lab::{Impaired, Lab, Plug, Router};
use crate::link::{Link, Quality};
use crate::nat::Nat;
use crate::recipe;
use crate::service::{Service, until};
use crate::trouble::{Result, Trouble};

/// A router that tells nobody that a packet was too big.
const QUIET_RULES: &str = "table inet quiet {
  chain out { type filter hook output priority 0;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
";

/// Time for a link to come up.
const LINK: std::time::Duration = std::time::Duration::from_secs(10);

impl Lab {
    /// From here on two hosts, or what is behind two NATs, do not hear each other; silently.
    ///
    /// They are cut where their ways first meet: for two homes that is the internet, for two homes of one carrier its
    /// network, for two hosts of one home the LAN. What others see of them goes on.
    ///
    /// # Errors
    /// There is no such host, or both are behind the same NAT and one of them is it.
    pub fn cut(&mut self, a: &str, b: &str) -> Result<()> {
        self.pairs("add", a, b)?;
        self.cuts.push((a.to_owned(), b.to_owned()));
        Ok(())
    }

    /// Undoes [`Lab::cut`].
    ///
    /// # Errors
    /// They are not cut.
    pub fn mend(&mut self, a: &str, b: &str) -> Result<()> {
        let same = |(x, y): &(String, String)| (x == a && y == b) || (x == b && y == a);
        let Some(index) = self.cuts.iter().position(same) else {
            return Err(Trouble::usage(format!("{a} and {b} are not cut"), "see frejus lab status"));
        };
        self.pairs("delete", a, b)?;
        self.cuts.remove(index);
        Ok(())
    }

    /// From here on nothing passes from or to a host; silently. Behind a NAT it is the NAT's line that is dark.
    ///
    /// # Errors
    /// There is no such host, or it is dark already.
    pub fn blackout(&mut self, name: &str) -> Result<()> {
        if self.dark.iter().any(|dark| dark == name) {
            return Err(Trouble::usage(format!("{name} is dark already"), "see frejus lab status"));
        }
        self.darkness("add", name)?;
        self.dark.push(name.to_owned());
        Ok(())
    }

    /// Undoes [`Lab::blackout`].
    ///
    /// # Errors
    /// It is not dark.
    pub fn light(&mut self, name: &str) -> Result<()> {
        let Some(index) = self.dark.iter().position(|dark| dark == name) else {
            return Err(Trouble::usage(format!("{name} is not dark"), "see frejus lab status"));
        };
        self.darkness("delete", name)?;
        self.dark.remove(index);
        Ok(())
    }

    /// From here on the NAT's line to the outside takes no more than `mtu` bytes, and the router says nothing about
    /// what it drops.
    ///
    /// # Errors
    /// There is no such NAT.
    pub fn narrow(&mut self, name: &str, mtu: u16) -> Result<()> {
        let index = self.router_index(name)?;
        let router = &self.routers[index];
        if !router.host.ok(&["nft", "list", "tables"])?.contains("quiet") {
            router.host.nft(QUIET_RULES)?;
        }
        router.host.sh(&format!("ip link set wan0 mtu {mtu}"))?;
        self.routers[index].mtu = Some(mtu);
        Ok(())
    }

    /// The NAT forgets every mapping and every open door, as after a power cut; its daemon that maps ports, too.
    ///
    /// A sequential NAT goes on counting: it would else hand out the very ports that it has forgotten.
    ///
    /// # Errors
    /// There is no such NAT, or the kernel refuses.
    pub fn reboot(&mut self, name: &str) -> Result<()> {
        let router = self.router_of(name)?.clone();
        if router.nat.mapping && self.stop_mapping(name)? {
            return self.map_ports(name);
        }
        router.host.sh("conntrack -F 2>&1
             if nft list maps | grep -q eim; then
               nft 'flush map ip boxnat eim; flush set ip boxnat owned; flush set ip boxnat mine'; fi
             if nft list sets | grep -q spoken; then nft flush set ip boxfilter spoken; fi")?;
        Ok(())
    }

    /// The provider gives the NAT another address outside.
    ///
    /// # Errors
    /// There is no such NAT; or it does not translate, so that the address is its host's.
    pub fn readdress(&mut self, name: &str, address: Ipv4Addr) -> Result<()> {
        let index = self.router_index(name)?;
        let mut router = self.routers[index].clone();
        let old = router.host.public;
        if !router.nat.class.translates() {
            let what = format!("{} does not translate, its address is its host's", router.host.name);
            return Err(Trouble::usage(what, "say it in the topology, and build it again"));
        }
        let taken = self.machines().any(|host| [host.public, host.local].contains(&address));
        if taken {
            return Err(Trouble::usage(format!("{address} is taken"), "see frejus lab status"));
        }
        // The way out goes with the address that it leaves from.
        let routes = router.host.ok(&["ip", "-4", "route", "show", "default"])?;
        router.host.sh(&format!("ip addr del {old}/24 dev wan0; ip addr add {address}/24 dev wan0"))?;
        if let Some(route) = routes.lines().next() {
            router.host.sh(&format!("ip route replace {route}"))?;
        }
        (router.host.public, router.host.local) = (address, address);
        self.load(&router)?;
        for member in self.members.iter_mut().filter(|member| member.host.public == old) {
            member.host.public = address;
        }
        self.routers[index] = router;
        Ok(())
    }

    /// The NAT becomes another; what it had mapped is gone.
    ///
    /// # Errors
    /// There is no such NAT; or one of both translates and the other does not: addresses would have to change.
    pub fn renat(&mut self, name: &str, nat: Nat) -> Result<()> {
        let index = self.router_index(name)?;
        let mut router = self.routers[index].clone();
        if router.nat.class.translates() != nat.class.translates() {
            let what = format!("{} can't become {} while it runs", router.host.name, nat.class);
            return Err(Trouble::usage(what, "one translates, the other does not: say it in the topology"));
        }
        router.nat = nat;
        self.load(&router)?;
        self.routers[index] = router;
        Ok(())
    }

    /// Puts a link of this quality in the way of a host, or of a NAT's line to the outside.
    ///
    /// Nothing changes at either end: the devices and addresses stay. A plain cable has its place in the bridge; any
    /// other link stands between the cable's port and the bridge.
    ///
    /// # Errors
    /// There is no such host, or the link can't be made.
    pub fn set_link(&mut self, name: &str, quality: Quality) -> Result<()> {
        let plug = self.plug_of(name)?.clone();
        if !self.links.iter().any(|link| link.port == plug.port) {
            if quality.is_plain() {
                return Ok(());
            }
            self.interpose(&plug)?;
            self.links.push(Impaired { port: plug.port.clone(), quality });
        }
        match self.threads.iter().find(|(port, _)| *port == plug.port) {
            Some((_, link)) => link.set(quality),
            None => emulator::tell(&self.control(&plug.port), quality)?,
        }
        let link = self.links.iter_mut().find(|link| link.port == plug.port);
        link.expect("interposed above, if it was not there").quality = quality;
        Ok(())
    }

    /// The quality of the line of a host or NAT.
    ///
    /// # Errors
    /// There is no such host or NAT.
    pub fn link_of(&self, name: &str) -> Result<Quality> {
        let port = &self.plug_of(name)?.port;
        let link = self.links.iter().find(|link| link.port == *port);
        Ok(link.map_or_else(Quality::default, |link| link.quality))
    }

    /// Pairs that are cut.
    pub fn cuts(&self) -> &[(String, String)] {
        &self.cuts
    }

    /// Names that are dark.
    pub fn dark(&self) -> &[String] {
        &self.dark
    }

    /// Where the line begins that a name stands for: a public host's own, or that of the NAT in front of a host.
    fn plug_of(&self, name: &str) -> Result<&Plug> {
        match self.members.iter().find(|member| member.host.name == name) {
            Some(member) if member.behind().is_none() => Ok(&member.plug),
            _ => Ok(&self.router_of(name)?.plug),
        }
    }

    fn control(&self, port: &str) -> std::path::PathBuf {
        self.scratch.join(format!("{port}.sock"))
    }

    fn interpose(&mut self, plug: &Plug) -> Result<()> {
        let (host, bridge) = self.bridge(plug.realm.as_deref())?;
        let host = host.clone();
        let port = &plug.port;
        let [near, far, joint] = ["x", "y", "l"].map(|letter| format!("{letter}{port}"));
        if let Some(binary) = &self.binary {
            let control = self.control(port);
            let (binary, place) = (binary.to_string_lossy(), control.to_string_lossy());
            let argv = [
                &*binary,
                "lab",
                "emulate",
                "--namespace",
                &host.namespace,
                "--near",
                &near,
                "--far",
                &far,
                &place,
            ];
            let service = Service::start(&self.wan, &format!("link-{port}"), &argv, &[])?;
            self.services.push(service.clone());
            until(&format!("the link at {}", control.display()), LINK, || {
                if service.is_alive() {
                    return Ok(control.exists());
                }
                let mend = format!("see {}/logs/wan-link-{port}.log", self.scratch.display());
                Err(Trouble::other(format!("the link at {} has ended", control.display()), mend))
            })?;
        } else {
            let link = Link::join(&host, [&near, &far], Quality::default())?;
            self.threads.push((port.clone(), link));
        }
        let isolated =
            plug.realm.as_deref().is_some_and(|name| self.router_of(name).is_ok_and(Router::isolated));
        let alone = if isolated { format!("; bridge link set dev {far} isolated on") } else { String::new() };
        host.sh(&format!(
            "ip link set {port} nomaster; ip link add {joint} type bridge mcast_snooping 0; ip link set {joint} up
             ip link set {port} master {joint}; ip link set {near} master {joint} up
             ip link set {far} master {bridge} up{alone}"
        ))?;
        Ok(())
    }

    /// Loads a router's rules anew; nothing that it knew is left.
    pub(crate) fn load(&self, router: &Router) -> Result<()> {
        let mut rules = String::new();
        for table in recipe::TABLES {
            // Added first, so that deleting it can't fail.
            rules.push_str(&format!("add table {table}\ndelete table {table}\n"));
        }
        rules.push_str(&router.nat.rules(router.host.public, &router.lan()));
        if router.ipv6 {
            rules.push_str(&recipe::filter6(&router.nat));
        }
        if router.mtu.is_some() {
            rules.push_str(QUIET_RULES);
        }
        router.host.nft(&rules)?;
        router.host.sh(&format!("sysctl -qw {}; conntrack -F 2>&1", router.nat.settings().join(" ")))?;
        Ok(())
    }

    fn darkness(&self, deed: &str, name: &str) -> Result<()> {
        let plug = self.plug_of(name)?;
        let address = self.address_in(name, plug.realm.as_deref()).unwrap_or(self.wan.public);
        let (host, _) = self.bridge(plug.realm.as_deref())?;
        host.nft(&format!("{deed} element bridge lab dark {{ {address} }}\n"))?;
        for address in self.ipv6_behind(name) {
            host.nft(&format!("{deed} element bridge lab dark6 {{ {address} }}\n"))?;
        }
        Ok(())
    }

    fn pairs(&self, deed: &str, a: &str, b: &str) -> Result<()> {
        let (realm, x, y) = self.meeting(a, b)?;
        let (host, _) = self.bridge(realm.as_deref())?;
        for family in ["bridge", "ip"] {
            host.nft(&format!("{deed} element {family} lab cut {{ {x} . {y}, {y} . {x} }}\n"))?;
        }
        for (x, y) in
            self.ipv6_behind(a).into_iter().flat_map(|x| self.ipv6_behind(b).into_iter().map(move |y| (x, y)))
        {
            self.wan.nft(&format!("{deed} element bridge lab cut6 {{ {x} . {y}, {y} . {x} }}\n"))?;
        }
        Ok(())
    }

    /// The innermost realm that both are in, and their addresses there.
    fn meeting(&self, a: &str, b: &str) -> Result<(Option<String>, Ipv4Addr, Ipv4Addr)> {
        for realm in self.realms(a)? {
            let ours = self.address_in(a, realm.as_deref());
            let theirs = self.address_in(b, realm.as_deref());
            if let (Some(x), Some(y)) = (ours, theirs)
                && x != y
            {
                return Ok((realm, x, y));
            }
        }
        self.realms(b)?;
        Err(Trouble::usage(format!("{a} and {b} have no line between them"), "say two hosts"))
    }

    /// The realms that a name is seen in, from the inside out.
    fn realms(&self, name: &str) -> Result<Vec<Option<String>>> {
        let own = match self.members.iter().find(|member| member.host.name == name) {
            Some(member) => &member.plug,
            None => &self.router_of(name)?.plug,
        };
        let mut realms = vec![own.realm.clone()];
        while let Some(Some(router)) = realms.last() {
            realms.push(self.router_of(router)?.plug.realm.clone());
        }
        Ok(realms)
    }

    /// The address by which the realm knows a host or NAT; none if it is not in it.
    fn address_in(&self, name: &str, realm: Option<&str>) -> Option<Ipv4Addr> {
        let (mut plug, mut address) = match self.members.iter().find(|member| member.host.name == name) {
            Some(member) => (&member.plug, member.host.local),
            None => self.routers.iter().find(|r| r.host.name == name).map(|r| (&r.plug, r.host.public))?,
        };
        while plug.realm.as_deref() != realm {
            let router = self.router_of(plug.realm.as_deref()?).ok()?;
            (plug, address) = (&router.plug, router.host.public);
        }
        Some(address)
    }

    /// The machine of the host, or of the NAT, of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn machine_of(&self, name: &str) -> Result<&Host> {
        match self.members.iter().find(|member| member.host.name == name) {
            Some(member) => Ok(&member.host),
            None => Ok(&self.router_of(name)?.host),
        }
    }
}
