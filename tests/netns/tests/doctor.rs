//! `doctor` says why a path is what it is, as both sides see it.

use frejus_netns::daemon::{LIMIT, assert_refused};
use frejus_netns::scene::{class_of, invited, three_super_peers};
use frejus_netns::{Daemon, Lab, Nat, NatClass, Quality, Scene, wait_for};
use serde_json::Value;

/// The verdict of A's node on its path to B.
fn doctor(a: &Daemon, b: &Daemon) -> Value {
    let output = a.verb(&["doctor", &b.name(), "--json"]);
    assert_eq!(output.code, 0, "{output}");
    serde_json::from_str(&output.stdout).expect("one JSON object")
}

fn word<'a>(found: &'a Value, path: &str) -> &'a str {
    found.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn scene(test: &str, classes: [NatClass; 2]) -> Option<Scene> {
    let scene = Scene::homes(test, classes.map(Into::into), Quality::default())?;
    Some(scene)
}

#[test]
fn two_random_routers_are_named_and_what_would_help() {
    let Some(scene) = scene("doctor_random", [NatClass::SymmetricRandom; 2]) else { return };
    let Scene { a, b, .. } = &scene;
    let class = |node: &Daemon| node.status().map(|status| status["nat"]["class"].clone());
    for node in [a, b] {
        wait_for("the class is found", LIMIT, || class(node) == Some("symmetric-random".into()));
    }
    let found = doctor(a, b);
    assert_eq!(
        (word(&found, "/path/kind"), word(&found, "/here/class")),
        ("relay", "symmetric-random"),
        "{found}"
    );
    assert_eq!(word(&found, "/there/class"), "symmetric-random", "{found}");
    assert!(word(&found, "/why").contains("random port, and so does"), "{found}");
    assert!(word(&found, "/mend/0").contains("UDP 51860"), "{found}");
    for (side, other) in [("/here", b), ("/there", a)] {
        let tried = found.pointer(&format!("{side}/candidates")).and_then(Value::as_array).expect("a list");
        let outer = format!("{}:", other.host.public);
        let probed = tried.iter().any(|place| {
            place["at"].as_str().is_some_and(|at| at.starts_with(&outer)) && place["sent"].as_u64() > Some(0)
        });
        assert!(probed, "{side} tried where the other is seen: {found}");
    }
    let said = a.verb(&["doctor", &b.name(), "--wait", "0s"]);
    assert!(said.code == 0 && said.stdout.contains("mend it:"), "{said}");
    eprintln!("{}", said.stdout);
}

/// Two of them and no line between: nothing but another router would help, and the user is told so.
#[test]
fn careless_routers_are_named() {
    let Some(mut lab) = Lab::new("doctor_careless") else { return };
    let nat = Nat::from(NatClass::PortRestricted).careless();
    let hosts = ["a", "b"].map(|name| lab.home(name, nat));
    let super_peers = three_super_peers(&mut lab);
    let [a, b] = hosts.each_ref().map(|host| Daemon::join(host, &invited(&super_peers[0], "peer")));
    for node in [&a, &b] {
        node.wait_ready();
        wait_for("the class is found", LIMIT, || class_of(node).as_deref() == Some("port-restricted"));
    }
    let found = doctor(&a, &b);
    if word(&found, "/path/kind") == "relay" {
        assert!(word(&found, "/why").starts_with("the routers of"), "{found}");
        assert!(word(&found, "/mend/0").contains("drop what nobody inside has asked for"), "{found}");
    } else {
        assert_eq!(word(&found, "/path/method"), "punched", "{found}");
    }
}

#[test]
fn a_punched_path_needs_no_mending_and_nobody_is_said_so() {
    let Some(scene) = scene("doctor_punched", [NatClass::PortRestricted; 2]) else { return };
    let Scene { a, b, .. } = &scene;
    let found = doctor(a, b);
    assert_eq!((word(&found, "/path/kind"), word(&found, "/path/method")), ("direct", "punched"), "{found}");
    assert_eq!(found["mend"].as_array().map(Vec::len), Some(0), "{found}");
    assert!(word(&found, "/why").contains("at the same time"), "{found}");
    assert_refused(&a.verb(&["doctor", "nobody"]), &[6], &["nobody"]);
}
