//! Paths that die and come back, and pairs that can never be direct.

use std::net::Ipv4Addr;
use std::time::Duration;

use frejus_netns::daemon::{LIMIT, assert_refused};
use frejus_netns::scene::{first_ping, founder, join_by_file};
use frejus_netns::traffic::{Capture, DownloadSite, PingStream, contains};
use frejus_netns::wait::let_pass;
use frejus_netns::{Daemon, Lab, Nat, NatClass, Quality, Scene, wait_for};

/// Ping replies that show steady traffic: two seconds of it.
const STEADY: usize = 20;

/// The target is two seconds; this tells a hang.
const GAP_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn cut_and_mend() {
    let Some(scene) = Scene::two_homes("cut_and_mend") else { return };
    let Scene { a, b, lab, .. } = &scene;
    let (path, took) = scene.go_direct();
    eprintln!("direct after {took:?}: {path:?}");
    let to = b.ipv4().to_string();

    let stream = PingStream::start(&a.host, &to, 0.1);
    stream.wait_replies(STEADY, LIMIT);
    lab.cut(&a.host, &b.host);
    let (path, took) = a.wait_path(&b.id(), "relay");
    assert!(path.via.is_some(), "a relay has a name: {path:?}");
    stream.wait_replies(STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("cut: relay in use {took:?} later, silent for {:?} (target 2 s)", report.longest_gap);
    assert!(report.longest_gap < GAP_LIMIT, "{report:?}");

    let stream = PingStream::start(&a.host, &to, 0.1);
    stream.wait_replies(STEADY, LIMIT);
    lab.mend(&a.host, &b.host);
    let (_, took) = a.wait_path(&b.id(), "direct");
    stream.wait_replies(STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("mended: direct again {took:?} later, {report:?}");
    assert_eq!(report.lost(), 0, "a move up loses nothing: {report:?}");
}

#[test]
fn a_router_that_forgets_is_punched_again() {
    let Some(scene) = Scene::two_homes("router_reboot") else { return };
    let Scene { a, b, lab, .. } = &scene;
    scene.go_direct();
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.1);
    stream.wait_replies(STEADY, LIMIT);
    lab.reboot_router(&a.host);
    stream.wait_replies(STEADY, LIMIT);
    a.wait_path(&b.id(), "direct");
    let report = stream.finish();
    eprintln!("A's router forgot everything: {report:?}");
    assert!(report.longest_gap < GAP_LIMIT, "{report:?}");
}

#[test]
fn a_home_that_gets_another_address_keeps_its_network() {
    let Some(scene) = Scene::two_homes("readdressed") else { return };
    let Scene { a, b, lab, .. } = &scene;
    scene.go_direct();
    let stream = PingStream::start(&b.host, &a.ipv4().to_string(), 0.1);
    stream.wait_replies(STEADY, LIMIT);
    let place = Ipv4Addr::new(203, 0, 113, 150);
    lab.readdress(&a.host, place);
    stream.wait_replies(STEADY, LIMIT);
    let roamed = || b.path_to(&a.id()).is_some_and(|path| path.remote.starts_with(&format!("{place}:")));
    let took = wait_for("B sends to A's new address", LIMIT * 2, roamed);
    let report = stream.finish();
    eprintln!("A's address changed: B follows {took:?} later, {report:?}");
    assert!(report.longest_gap < GAP_LIMIT, "{report:?}");
}

#[test]
fn a_quiet_path_outlives_thirty_second_mappings() {
    let nats = [Nat::from(NatClass::PortRestricted).short_lived(); 2];
    let Some(scene) = Scene::homes("quiet_path", nats, Quality::default()) else { return };
    let Scene { a, b, .. } = &scene;
    scene.go_direct();
    let_pass("more than a mapping's life without traffic of ours", Duration::from_secs(45));
    let said = first_ping(&a.host, &b.ipv4().to_string());
    eprintln!("after 45 quiet seconds: {}", said.lines().nth(1).unwrap_or_default());
    let path = a.path_to(&b.id());
    assert_eq!(path.map(|path| path.kind).as_deref(), Some("direct"), "the mapping was held");
}

#[test]
fn neighbours_speak_over_their_own_lan() {
    let Some(mut lab) = Lab::new("same_lan") else { return };
    let (s, code) = founder(&mut lab);
    let home = lab.home("a", NatClass::PortRestricted);
    let a = Daemon::join(&home, &code);
    let b = join_by_file(&lab.neighbour(&home, "b"), &s.invite(1));
    a.wait_ready();
    b.wait_ready();
    first_ping(&a.host, &b.ipv4().to_string());
    let (path, took) = a.wait_path(&b.id(), "direct");
    eprintln!("same LAN: direct after {took:?}: {path:?}");
    assert!(path.remote.starts_with(&format!("{}:", b.host.local)), "not over the LAN: {path:?}");
}

#[test]
fn careless_routers_still_carry_everything() {
    let nats = [Nat::from(NatClass::PortRestricted).careless(); 2];
    let Some(scene) = Scene::homes("careless", nats, Quality::default()) else { return };
    let Scene { a, b, .. } = &scene;
    first_ping(&a.host, &b.ipv4().to_string());
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.1);
    stream.wait_replies(5 * STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("careless routers: {:?}, {report:?}", a.path_to(&b.id()));
    assert_eq!(report.lost(), 0, "punching in vain must not disturb the relay: {report:?}");
}

#[test]
fn a_symmetric_pair_stays_on_the_relay_which_reads_nothing() {
    let nats = [NatClass::SymmetricRandom.into(); 2];
    let Some(scene) = Scene::homes("symmetric_pair", nats, Quality::default()) else { return };
    let Scene { s, a, b, .. } = &scene;
    const MARKER: &str = "plaintext-marker-that-no-relay-may-see";
    let page = format!("{MARKER}\n").repeat(3000);
    let at_relay = Capture::start(&s.host, "eth0");
    let at_home = Capture::start(&b.host, &b.tun());

    first_ping(&a.host, &b.ipv4().to_string());
    for address in b.addresses() {
        let site = DownloadSite::open(&b.host, address, &page);
        assert_eq!(site.fetch(&a.host), page, "through {address}, over the relay");
    }
    let refused = a.verb(&["ping", &b.name(), "-c", "5", "--require-direct"]);
    assert_refused(&refused, &[8], &[&b.name()]);
    let (path, _) = a.wait_path(&b.id(), "relay");
    assert_eq!(path.via, Some(s.name()), "S is the only relay there is");

    let (relayed, inside) = (at_relay.finish(), at_home.finish());
    assert!(contains(&inside, MARKER), "the marker did cross B's device");
    assert!(relayed.len() > 2 * page.len(), "the pages did cross the relay: {} bytes", relayed.len());
    assert!(!contains(&relayed, MARKER), "the relay saw plaintext");
}
