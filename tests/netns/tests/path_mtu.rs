//! Links that take less than Ethernet, behind routers that say nothing: no black hole, and the right word to whoever asks.

use std::time::Duration;

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{first_ping, founder, join_by_file};
use frejus_netns::traffic::DownloadSite;
use frejus_netns::{Daemon, Host, Lab, NatClass, wait_for};

/// Around an inner packet on a direct path over IPv4: IP, UDP, the tunnel's header and tag.
const OVERHEAD: u64 = 20 + 8 + 32;

/// Two mebibytes, so that a flow has left slow start.
fn page() -> String {
    "no black hole, ".repeat((2 << 20) / 15)
}

/// Founder S, and homes A and B whose tunnel is direct; A's router takes `mtu` bytes towards the internet.
struct Story {
    _s: Daemon,
    a: Daemon,
    b: Daemon,
    lab: Lab,
}

impl Story {
    fn new(test: &str, mtu: u16) -> Option<Self> {
        let mut lab = Lab::new(test)?;
        let (s, code) = founder(&mut lab);
        let a_host = lab.home("a", NatClass::PortRestricted);
        let b_host = lab.home("b", NatClass::PortRestricted);
        lab.narrow(&a_host, mtu);
        let a = Daemon::join(&a_host, &code);
        a.wait_ready();
        let b = join_by_file(&b_host, &s.invite(1));
        b.wait_ready();
        first_ping(&a.host, &b.ipv4().to_string());
        a.wait_path(&b.id(), "direct");
        b.wait_path(&a.id(), "direct");
        Some(Self { _s: s, a, b, lab })
    }

    /// Waits until both know what the path takes, and says how long that took.
    fn measured(&self, expected: u64) {
        let there = self.a.wait_mtu(&self.b.id(), expected);
        let back = self.b.wait_mtu(&self.a.id(), expected);
        eprintln!("{expected} bytes found after {there:?} and {back:?}");
    }
}

/// `ping` with a packet of `size` bytes in all, not to be fragmented on the way (`do`) or at will (`dont`).
fn ping(from: &Host, to: &str, size: u64, fragment: &str) -> (bool, String) {
    let headers = if to.contains(':') { 48 } else { 28 };
    let size = (size - headers).to_string();
    let output =
        from.run(&["ping", "-n", "-c", "2", "-i", "0.2", "-W", "3", "-M", fragment, "-s", &size, to]);
    (output.code == 0, output.stdout + &output.stderr)
}

/// Whether ping says that so many bytes pass, by a router's word or by what the kernel remembers of it.
fn names(said: &str, mtu: u64) -> bool {
    said.replace([' ', ':', '='], "").to_lowercase().contains(&format!("mtu{mtu}"))
}

fn flows(story: &Story) {
    let page = page();
    for (from, to, address) in [
        (&story.a, &story.b, story.b.ipv4().into()),
        (&story.b, &story.a, story.a.ipv4().into()),
        (&story.a, &story.b, story.b.ipv6().into()),
    ] {
        let site = DownloadSite::open(&to.host, address, &page);
        assert!(site.fetch(&from.host) == page, "{} got another page from {address}", from.host.name);
    }
}

#[test]
fn narrow_links_carry_flows_and_tell_what_fits() {
    for mtu in [1280_u16, 1400, 1492] {
        let Some(story) = Story::new(&format!("path_mtu_{mtu}"), mtu) else { return };
        let Story { a, b, .. } = &story;
        let fits = (u64::from(mtu) - OVERHEAD).min(1420);
        flows(&story);
        story.measured(fits);
        let (v4, v6) = (b.ipv4().to_string(), b.ipv6().to_string());
        let (passed, said) = ping(&a.host, &v4, fits, "do");
        assert!(passed, "{fits} bytes: {said}");
        if fits < 1420 {
            // Larger sizes are still being asked for a moment, and what is too long is sent in hope meanwhile.
            let tells = |to: &str, size, mtu| {
                let (passed, said) = ping(&a.host, to, size, "do");
                assert!(!passed, "{size} bytes pass: {said}");
                names(&said, mtu)
            };
            wait_for("the word about what fits, over IPv4", LIMIT, || tells(&v4, fits + 1, fits));
            wait_for("the word about what fits, over IPv6", LIMIT, || tells(&v6, 1420, fits.max(1280)));
            let dropped = a.status().expect("status")["counters"]["dropped"]["too_big"].as_u64();
            assert!(dropped.is_some_and(|packets| packets > 0), "{dropped:?}");
        }
        let (passed, said) = ping(&a.host, &v4, 1410, "dont");
        assert!(passed, "in fragments: {said}");
        let (passed, said) = ping(&a.host, &v6, 1270, "dont");
        assert!(passed, "what IPv6 demands of every link: {said}");
        flows(&story);
    }
}

#[test]
fn a_flow_survives_a_link_that_shrinks() {
    let Some(story) = Story::new("path_mtu_shrinks", 1500) else { return };
    let Story { a, b, lab, .. } = &story;
    story.measured(1420);
    let page = page().repeat(4);
    let site = DownloadSite::open(&a.host, a.ipv4().into(), &page);
    let url = format!("http://{}:8000/page", a.ipv4());
    let argv = [
        "curl",
        "-sS",
        "--fail",
        "--noproxy",
        "*",
        "--limit-rate",
        "1M",
        "--max-time",
        "55",
        "-o",
        "/dev/null",
        &url,
    ];
    let mut flow = b.host.spawn("curl-slow", &argv);
    let begun = a.path_to(&b.id()).expect("a path").mtu;
    assert_eq!(begun, 1420);
    let sent = || {
        a.json(&["peers"])["peers"]
            .as_array()
            .and_then(|all| all.iter().find(|p| p["id"] == b.id())?["tx_bytes"].as_u64())
    };
    wait_for("the flow flows", LIMIT, || sent() > Some(2 << 20));
    lab.narrow(&a.host, 1300);
    let took = a.wait_mtu(&b.id(), 1300 - OVERHEAD);
    eprintln!("the shrunk link was measured after {took:?}");
    assert_eq!(flow.wait(Duration::from_secs(60)), 0, "{}", flow.stderr());
    assert!(a.path_to(&b.id()).is_some_and(|path| path.kind == "direct"), "the path is not to blame");
    drop(site);
}

#[test]
fn jumbo_frames_carry_large_packets() {
    let Some(mut lab) = Lab::new("path_mtu_jumbo") else { return };
    let s_host = lab.public("s", frejus_netns::scene::FOUNDER);
    let a_host = lab.public("a", "203.0.113.111");
    lab.widen(&[&s_host, &a_host], 9000);
    let s = Daemon::start(&s_host, &["--create", "mymed", "--mtu", "8900"]);
    s.wait_ready();
    let code = s.invite(1);
    let a = Daemon::start(&a_host, &["--join", &code, "--mtu", "8900"]);
    a.wait_ready();
    first_ping(&a.host, &s.ipv4().to_string());
    a.wait_mtu(&s.id(), 8900);
    s.wait_mtu(&a.id(), 8900);
    for to in [s.ipv4().to_string(), s.ipv6().to_string()] {
        let (passed, said) = ping(&a.host, &to, 8900, "do");
        assert!(passed, "{said}");
    }
}
