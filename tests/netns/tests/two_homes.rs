//! The main story: two commands, two homes, one network.

use frejus_netns::daemon::assert_refused;
use frejus_netns::scene::first_ping;
use frejus_netns::traffic::{DownloadSite, bytes};
use frejus_netns::{Scene, wait_for};

/// Pings of the flood that must not pass the super peer: three seconds at twenty a second.
const FLOOD: u64 = 60;

/// Bytes of payload in each; a relay would carry each four times: in and out, request and reply.
const PAYLOAD: u64 = 1000;

#[test]
fn the_first_packet_arrives_and_the_path_becomes_direct() {
    let Some(scene) = Scene::two_homes("two_homes") else { return };
    let Scene { s, a, b, .. } = &scene;
    let said = first_ping(&a.host, &b.ipv4().to_string());
    eprintln!("first packet, nothing cached: {}", said.lines().nth(1).unwrap_or_default());
    let (path, took) = a.wait_path(&b.id(), "direct");
    eprintln!("direct {took:?} later: {path:?}");
    assert!(path.remote.starts_with(&format!("{}:", b.host.public)), "B's router is the far end: {path:?}");
    assert_eq!(path.via, None, "a direct path has no relay");
    b.wait_path(&a.id(), "direct");

    let before = bytes(&s.host, "eth0");
    let (count, size, to) = (FLOOD.to_string(), PAYLOAD.to_string(), b.ipv4().to_string());
    let flood = a.host.ok(&["ping", "-n", "-i", "0.05", "-c", &count, "-s", &size, &to]);
    let carried = bytes(&s.host, "eth0") - before;
    eprintln!("S carried {carried} bytes while {} crossed between A and B", 2 * FLOOD * PAYLOAD);
    assert!(flood.contains(" 0% packet loss"), "{flood}");
    assert!(carried < FLOOD * PAYLOAD, "the super peer still carries the traffic: {carried} bytes");
}

#[test]
fn an_unmodified_web_server_is_reached_over_both_families() {
    let Some(scene) = Scene::two_homes("web_server") else { return };
    let Scene { a, b, .. } = &scene;
    let page = "a page from home, 200 times over\n".repeat(200);
    for address in b.addresses() {
        let site = DownloadSite::open(&b.host, address, &page);
        assert_eq!(site.fetch(&a.host), page, "through {address}");
    }
    assert_eq!(b.addresses().len(), 2, "one address a family");
    let six = a.host.run(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", &b.ipv6().to_string()]);
    assert_eq!(six.code, 0, "{six}");
}

#[test]
fn the_verbs_tell_what_is_going_on() {
    let Some(scene) = Scene::two_homes("verbs") else { return };
    let Scene { s, a, b, .. } = &scene;
    let status = a.json(&["status"]);
    assert_eq!(status["network"]["name"], "mymed");
    assert_eq!(status["super_peers"][0]["id"], s.id().as_str());
    assert!(s.json(&["status"])["node"]["roles"].to_string().contains("super-peer"));

    let ping = a.json(&["ping", &b.name(), "-c", "3"]);
    assert_eq!((&ping["sent"], &ping["received"]), (&3.into(), &3.into()), "{ping}");
    assert!(["direct", "relay"].iter().any(|kind| ping["replies"][0]["path"]["kind"] == *kind), "{ping}");
    let until = a.verb(&["ping", &b.id(), "--until-direct", "-c", "200"]);
    assert_eq!(until.code, 0, "{until}");
    let direct = a.verb(&["ping", &b.ipv4().to_string(), "-c", "1", "--require-direct"]);
    assert_eq!(direct.code, 0, "{direct}");
    let waited = a.verb(&["wait", "--peer", &b.id()[..12], "--direct", "--timeout", "30s"]);
    assert_eq!(waited.code, 0, "{waited}");

    let resolved = a.json(&["resolve", &b.ipv4().to_string()]);
    assert_eq!(resolved["node"]["id"], b.id().as_str(), "{resolved}");
    assert!(resolved["whereabouts"]["candidates"].as_array().is_some_and(|list| !list.is_empty()));
    let stages = resolved["stages"].as_array().cloned().unwrap_or_default();
    let has = |name: &str| stages.iter().any(|stage| stage["stage"] == name);
    assert!(has("lease") && has("whereabouts"), "both stages: {resolved}");

    assert_refused(&a.verb(&["ping", "nobody-of-this-name", "-c", "1"]), &[6], &["nobody-of-this-name"]);
}

#[test]
fn a_peer_that_goes_is_told_from_one_that_never_was() {
    let Some(mut scene) = Scene::two_homes("gone") else { return };
    first_ping(&scene.a.host, &scene.b.ipv4().to_string());
    let (id, name) = (scene.b.id(), scene.b.name());
    scene.b.terminate();
    assert_refused(&scene.a.verb(&["ping", &name, "-c", "2"]), &[7], &[&name]);
    assert_refused(&scene.a.verb(&["wait", "--peer", &id, "--timeout", "1s"]), &[9], &[]);
    assert_refused(&scene.b.verb(&["status"]), &[3], &[]);
}

#[test]
fn without_a_super_peer_a_node_says_that_it_is_degraded() {
    let Some(scene) = Scene::two_homes("degraded") else { return };
    assert_eq!(scene.a.verb(&["status", "--check", "ready"]).code, 0);
    scene.lab.blackout(&scene.s.host);
    let limit = frejus_netns::daemon::LIMIT * 2;
    wait_for("A is degraded", limit, || scene.a.is("degraded"));
    assert_eq!(scene.a.verb(&["status", "--check", "ready"]).code, 12);
    let attention = scene.a.json(&["status"])["attention"].clone();
    assert!(attention[0]["mend"].is_string(), "what needs attention, and what mends it: {attention}");
    scene.lab.light(&scene.s.host);
    wait_for("A is ready again", limit, || scene.a.is("ready"));
}
