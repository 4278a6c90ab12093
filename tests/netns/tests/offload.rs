//! The kernel's help with packets: switched off, or gone from a link, traffic flows all the same, and one sees it.

use std::net::IpAddr;

use frejus_netns::daemon::text;
use frejus_netns::scene::{first_ping, founder, join_by_file};
use frejus_netns::traffic::DownloadSite;
use frejus_netns::{Daemon, Lab, NatClass, Scene};
use serde_json::{Value, json};

/// Everything that has a switch.
const ALL: [&str; 7] =
    ["tun_tso", "tun_uso", "tcp_coalescing", "udp_coalescing", "tun_checksum", "udp_gso", "udp_gro"];

fn status(node: &Daemon) -> Value {
    node.json(&["status"])
}

#[test]
fn what_is_switched_off_is_off_and_seen() {
    let Some(mut lab) = Lab::new("offload_switches") else { return };
    let (s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let config = lab.scratch().join("a.toml");
    let keys: String = ALL.iter().map(|key| format!("{key} = false\n")).collect();
    std::fs::write(&config, format!("[offload]\n{keys}")).expect("scratch can be written");
    let a = Daemon::start(&host, &["--join", &code, "--config", text(&config)]);
    a.wait_ready();
    let b = join_by_file(&lab.home("b", NatClass::PortRestricted), &s.invite(1));
    b.wait_ready();
    first_ping(&a.host, &b.ipv4().to_string());
    let page = "x".repeat(1 << 20);
    let site = DownloadSite::open(&b.host, IpAddr::V4(b.ipv4()), &page);
    assert!(site.fetch(&a.host) == page, "a download to a node without offloads");
    let site = DownloadSite::open(&a.host, IpAddr::V4(a.ipv4()), &page);
    assert!(site.fetch(&b.host) == page, "a download from a node without offloads");

    let (without, with) = (status(&a), status(&b));
    for key in ALL {
        assert_eq!(without["offload"][key]["on"], false, "{without}");
        assert_eq!(without["offload"][key]["why"], "switched off in the configuration");
        assert_eq!(with["offload"][key], json!({ "on": true, "why": null }), "{with}");
    }
    for report in [&without, &with] {
        assert_eq!(report["socket_buffers"], json!({ "send": 2 << 20, "receive": 8 << 20 }));
        assert_eq!(report["attention"], json!([]), "what was ordered is no trouble");
    }
    let shown = a.verb(&["status"]).stdout;
    assert!(
        shown
            .contains("not tcp_coalescing, tun_checksum, tun_tso, tun_uso, udp_coalescing, udp_gro, udp_gso"),
        "{shown}"
    );
}

#[test]
fn a_link_that_can_do_nothing_in_bulk_carries_everything() {
    let Some(scene) = Scene::two_homes("offload_poor_link") else { return };
    let Scene { a, b, .. } = &scene;
    scene.go_direct();
    for node in [a, b] {
        node.host.ok(&["ethtool", "-K", "eth0", "tx", "off", "gso", "off", "gro", "off"]);
    }
    let page = "y".repeat(4 << 20);
    for (from, to) in [(a, b), (b, a)] {
        let site = DownloadSite::open(&from.host, IpAddr::V6(from.ipv6()), &page);
        assert!(site.fetch(&to.host) == page, "a download over links without offloads");
    }
    for node in [a, b] {
        let dropped = &status(node)["counters"]["dropped"];
        for reason in ["send_failed", "tun_failed", "not_authentic", "malformed"] {
            assert_eq!(dropped[reason].as_u64().unwrap_or(0), 0, "{dropped}");
        }
    }
}
