//! One laboratory for one test: built, captured, and removed with everything in it, a panic included.
//!
//! Owns the names of namespaces (`fr-PID-N-ROLE`) and the sweep of what died with its process. What an internet is
//! made of belongs to `frejus-lab`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use frejus_lab::{Credentials, RouterPlan, Trouble};

pub use frejus_lab::lab::namespace_exists;

use crate::link::Quality;
use crate::nat::Nat;
use crate::run::{Host, Process};
use crate::wait::wait_for;
use crate::{ability, evidence};

static LABS: AtomicU32 = AtomicU32::new(0);

/// One internet of its own for one test; everything in it goes when it is dropped, a panic included.
#[derive(Debug)]
pub struct Lab {
    test: String,
    scratch: PathBuf,
    /// The internet first.
    hosts: Vec<Host>,
    lab: Mutex<frejus_lab::Lab>,
    capture: Option<Process>,
}

/// A router that a story plugs in by itself, in front of its hosts.
pub type Plan<'a> = RouterPlan<'a>;

impl Lab {
    /// An internet without hosts; `None`, after a loud word, where the machine can't have one.
    pub fn new(test: &str) -> Option<Self> {
        Self::on(test, frejus_lab::INTERNET)
    }

    /// As [`Lab::new`], with another /24 as the internet: `miniupnpd` maps no port to an address of RFC 5737.
    pub fn on(test: &str, internet: Ipv4Addr) -> Option<Self> {
        if !ability::present(test) {
            return None;
        }
        sweep();
        let tag = format!("fr-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let scratch = std::env::temp_dir().join(&tag);
        let lab = ok(frejus_lab::Lab::new(&tag, &scratch, None)).with_internet(internet);
        let hosts = vec![lab.wan().clone().into()];
        let mut lab = Self { test: test.to_owned(), scratch, hosts, lab: Mutex::new(lab), capture: None };
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
        let host = ok(self.inner().public(name, address));
        ok(self.inner().set_link(name, quality));
        self.known(host)
    }

    /// A host behind a home router of its own.
    pub fn home(&mut self, name: &str, nat: impl Into<Nat>) -> Host {
        self.home_with(name, nat, Quality::default())
    }

    /// As [`Lab::home`], the router's public side on a link of this quality.
    pub fn home_with(&mut self, name: &str, nat: impl Into<Nat>, quality: Quality) -> Host {
        let router = format!("router-{name}");
        self.route(&Plan::home(&router, nat.into()));
        ok(self.inner().set_link(&router, quality));
        self.behind(&router, name)
    }

    /// A router, wherever the plan says.
    pub fn route(&mut self, plan: &Plan<'_>) -> Host {
        let host = ok(self.inner().router(plan));
        self.known(host)
    }

    /// A host behind a router that [`Lab::route`] or [`Lab::home`] made.
    pub fn behind(&mut self, router: &str, name: &str) -> Host {
        let host = ok(self.inner().behind(router, name));
        self.known(host)
    }

    /// A further host in the home of `of`, on the same LAN.
    pub fn neighbour(&mut self, of: &Host, name: &str) -> Host {
        let router = self.router(of).name.clone();
        self.behind(&router, name)
    }

    /// The host or router of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn machine(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).expect("the story names a machine that it made")
    }

    /// The router of a home's host.
    pub fn router(&self, of: &Host) -> &Host {
        let name = ok(self.inner().router_of(&of.name)).host.name.clone();
        self.machine(&name)
    }

    /// From here on `a` and `b` do not hear each other where their ways meet; silently.
    pub fn cut(&self, a: &Host, b: &Host) {
        ok(self.inner().cut(&a.name, &b.name));
    }

    /// Undoes [`Lab::cut`].
    pub fn mend(&self, a: &Host, b: &Host) {
        ok(self.inner().mend(&a.name, &b.name));
    }

    /// From here on nothing passes from or to the public side of `host`; silently.
    pub fn blackout(&self, host: &Host) {
        ok(self.inner().blackout(&host.name));
    }

    /// Undoes [`Lab::blackout`].
    pub fn light(&self, host: &Host) {
        ok(self.inner().light(&host.name));
    }

    /// From here on the link of the home's router to the internet takes no more than `mtu` bytes, and the router says
    /// nothing about what it drops.
    pub fn narrow(&self, of: &Host, mtu: u16) {
        ok(self.inner().narrow(&of.name, mtu));
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
        ok(self.inner().reboot(&of.name));
    }

    /// The home's provider gives its router another public address.
    pub fn readdress(&self, of: &Host, address: Ipv4Addr) {
        ok(self.inner().readdress(&of.name, address));
    }

    /// The home's router becomes another; what it had mapped is gone.
    pub fn renat(&self, of: &Host, nat: impl Into<Nat>) {
        ok(self.inner().renat(&of.name, nat.into()));
    }

    /// The line of a host, or of its router, becomes one of this quality; its devices and addresses stay.
    pub fn set_link(&self, of: &Host, quality: Quality) {
        ok(self.inner().set_link(&of.name, quality));
    }

    /// Gives a host a public IPv6 address; behind a router, with a stateful filter in front.
    pub fn give_ipv6(&self, host: &Host) -> Ipv6Addr {
        ok(self.inner().give_ipv6(&host.name))
    }

    /// Starts `tinyproxy` in the home's router; its URL. `user` and `password` if it wants them.
    pub fn start_proxy(&self, of: &Host, who: Option<(&str, &str)>) -> String {
        let who = who.map(|(user, password)| Credentials { user: user.into(), password: password.into() });
        ok(self.inner().start_proxy(&of.name, who.as_ref()))
    }

    /// Starts `miniupnpd` in the home's router, whose recipe is one with `mapping`.
    pub fn map_ports(&self, of: &Host) {
        ok(self.inner().map_ports(&of.name));
    }

    /// Ends the router's `miniupnpd`; what it mapped is forgotten.
    pub fn stop_mapping(&self, of: &Host) {
        ok(self.inner().stop_mapping(&of.name));
    }

    /// From here on so many flows of others a second take a mapping each in the home's router.
    pub fn start_rivals(&self, of: &Host, per_second: u32) {
        ok(self.inner().start_rivals(&of.name, per_second));
    }

    /// Ends the capture on the bridge; before throughput is measured.
    pub fn stop_capture(&mut self) {
        self.capture = None;
    }

    fn inner(&self) -> MutexGuard<'_, frejus_lab::Lab> {
        self.lab.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&mut self, host: frejus_lab::Host) -> Host {
        let host = Host::from(host);
        self.hosts.push(host.clone());
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
        self.inner().take_down();
        std::fs::remove_dir_all(&self.scratch).ok();
    }
}

/// Removes what laboratories of dead processes left: processes in their namespaces, namespaces, files.
pub fn sweep() {
    frejus_lab::lab::sweep(is_orphan, &[std::env::temp_dir()]);
}

/// True for the name of something that a laboratory of a dead process made.
fn is_orphan(name: &str) -> bool {
    let mut parts = name.strip_prefix("fr-").into_iter().flat_map(|rest| rest.split('-'));
    let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
    let number = parts.next().and_then(|number| number.parse::<u32>().ok());
    number.is_some() && pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// In a test, what can't be built fails.
fn ok<T>(built: Result<T, Trouble>) -> T {
    built.unwrap_or_else(|trouble| panic!("the laboratory: {trouble}"))
}

/// Makes a namespace that looks like a dead laboratory's, for the sweep's own test.
#[doc(hidden)]
pub fn abandon(dead_pid: u32) -> String {
    let name = format!("fr-{dead_pid}-0-left");
    let made = Command::new("ip").args(["netns", "add", &name]).status();
    assert!(made.is_ok_and(|status| status.success()), "root may add a namespace");
    name
}
