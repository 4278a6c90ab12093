//! Networks that most stories begin with: a public founder and homes that have joined it.

use std::time::Duration;

use crate::daemon::{Daemon, PeerPath, code_in};
use crate::lab::Lab;
use crate::link::Quality;
use crate::nat::{Nat, NatClass};
use crate::run::Host;
use crate::wait::wait_for;

/// No UDP through the router, either way.
pub const NO_UDP: &str = "table inet streams {
  chain pass { type filter hook forward priority -20;
  meta l4proto udp drop;
  }
}
";
/// Nothing but TCP to 443 through the router.
pub const ONLY_443: &str = "table inet streams {
  chain pass { type filter hook forward priority -20;
  iifname \"lan0\" tcp dport != 443 drop
  meta l4proto != tcp drop;
  }
}
";
/// Public address of the founder.
pub const FOUNDER: &str = "203.0.113.101";

/// Founder S on a public machine, A and B at homes of their own; all ready, A and B have not spoken yet.
#[derive(Debug)]
pub struct Scene {
    /// The founder: first super peer, first login server.
    pub s: Daemon,
    /// A peer at home.
    pub a: Daemon,
    /// Another peer at another home.
    pub b: Daemon,
    /// From the start of A's `up --join` to its being ready.
    pub a_joined_in: Duration,
    /// The internet under them; dropped last, so that it can keep evidence.
    pub lab: Lab,
}

impl Scene {
    /// Two homes behind port-restricted NATs, the most common kind.
    pub fn two_homes(test: &str) -> Option<Self> {
        Self::homes(test, [NatClass::PortRestricted.into(); 2], Quality::default())
    }

    /// Two homes behind these NATs, on links of this quality.
    pub fn homes(test: &str, nats: [Nat; 2], quality: Quality) -> Option<Self> {
        let mut lab = Lab::new(test)?;
        let (s, code) = founder(&mut lab);
        let a_host = lab.home_with("a", nats[0], quality);
        let b_host = lab.home_with("b", nats[1], quality);
        let a = Daemon::join(&a_host, &code);
        let a_joined_in = a.wait_ready();
        let b = join_by_file(&b_host, &s.invite(1));
        b.wait_ready();
        Some(Self { s, a, b, a_joined_in, lab })
    }

    /// Sends one ping from A to B, which must be answered, and waits for both to be direct.
    pub fn go_direct(&self) -> (PeerPath, Duration) {
        first_ping(&self.a.host, &self.b.ipv4().to_string());
        let found = self.a.wait_path(&self.b.id(), "direct");
        self.b.wait_path(&self.a.id(), "direct");
        found
    }
}

/// The founder, ready, with its first code.
pub fn founder(lab: &mut Lab) -> (Daemon, String) {
    let host = lab.public("s", FOUNDER);
    let (daemon, code) = Daemon::create(&host, "mymed");
    daemon.wait_ready();
    (daemon, code)
}

/// The founder and two more super peers, all ready: two see a mapping, a third, never contacted, tests the filter.
pub fn three_super_peers(lab: &mut Lab) -> [Daemon; 3] {
    let hosts = [("s", FOUNDER), ("s2", "203.0.113.102"), ("s3", "203.0.113.103")]
        .map(|(name, address)| lab.public(name, address));
    let (s, _) = Daemon::create(&hosts[0], "mymed");
    s.wait_ready();
    let [second, third] = [1, 2].map(|at: usize| {
        let daemon = Daemon::join(&hosts[at], &invited(&s, "super-peer"));
        daemon.wait_ready();
        daemon
    });
    [s, second, third]
}

/// A code for one node of this role.
pub fn invited(founder: &Daemon, role: &str) -> String {
    let output = founder.verb(&["invite", "--role", role]);
    assert!(output.code == 0, "invite: {output}");
    code_in(&output.stdout).unwrap_or_else(|| panic!("no code in: {output}"))
}

/// The NAT class that a node says it is behind, once it knows.
pub fn class_of(daemon: &Daemon) -> Option<String> {
    let class = daemon.status()?["nat"]["class"].as_str()?.to_owned();
    (class != "unknown").then_some(class)
}

/// Joins with the code in a file, so that no process list shows it.
pub fn join_by_file(host: &Host, code: &str) -> Daemon {
    let file = host.scratch.join(format!("code-{}", host.name));
    std::fs::write(&file, code).expect("the scratch directory is writable");
    Daemon::join(host, &format!("@{}", file.display()))
}

/// One ping: the first packet between two nodes must not be lost. Returns ping's own words.
pub fn first_ping(from: &Host, to: &str) -> String {
    let output = from.run(&["ping", "-n", "-c", "1", "-W", "5", to]);
    assert!(output.code == 0, "the first packet from {} to {to} was lost: {output}", from.name);
    output.stdout
}

/// Waits until `a` hears a super peer again.
pub fn wait_reconnected(a: &Daemon) -> Duration {
    let what = format!("{} hears its super peer again", a.host.name);
    wait_for(&what, crate::daemon::LIMIT * 2, || a.hears_a_super_peer())
}
