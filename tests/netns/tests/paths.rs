//! Paths that die and come back, and pairs that can never be direct.

use std::time::Duration;

use frejus_netns::daemon::{LIMIT, assert_refused};
use frejus_netns::scene::first_ping;
use frejus_netns::traffic::{Capture, DownloadSite, PingStream, contains};
use frejus_netns::{NatClass, Quality, Scene};

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
