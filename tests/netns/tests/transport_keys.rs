//! Two homes agree on transport keys, and the bulk travels under them.

use std::time::Duration;

use frejus_netns::scene::first_ping;
use frejus_netns::{Scene, wait_for};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// What `frejus peers` of `from` says about the node `id`.
fn peer(from: &frejus_netns::Daemon, id: &str) -> Option<Value> {
    let peers = from.json(&["peers"])["peers"].as_array().cloned()?;
    peers.into_iter().find(|peer| peer["id"] == id)
}

#[test]
fn both_ends_say_that_their_tunnel_is_post_quantum() {
    let Some(scene) = Scene::two_homes("transport_keys") else { return };
    let Scene { s, a, b, .. } = &scene;
    first_ping(&a.host, &b.ipv4().to_string());
    for (from, to) in [(a, b), (b, a), (a, s), (b, s)] {
        let is_keyed = || peer(from, &to.id()).is_some_and(|peer| peer["post_quantum"] == true);
        let took = wait_for("transport keys are in use", LIMIT, is_keyed);
        eprintln!("{} to {}: post-quantum {took:?} later", from.name(), to.name());
    }
    let ciphers = a.json(&["status"])["ciphers"].as_array().cloned().unwrap_or_default();
    let best = ciphers.iter().min_by_key(|cipher| cipher["seal_1420_ns"].as_u64());
    let best = best.map(|cipher| cipher["name"].clone());
    eprintln!("{ciphers:?}");
    assert_eq!(ciphers.len(), 2, "both were measured");
    assert!(best.is_some_and(|best| best.is_string()));
    let (there, back) = (peer(a, &b.id()).unwrap(), peer(b, &a.id()).unwrap());
    assert_eq!(there["cipher"], back["cipher"], "both seal with the cipher that they agreed on");
    let flood = a.host.ok(&["ping", "-n", "-i", "0.01", "-c", "100", "-s", "1200", &b.ipv4().to_string()]);
    assert!(flood.contains(" 0% packet loss"), "{flood}");
}
