//! Nodes that go away and come back: the super peer restarted or unreachable, a peer killed.

use std::time::Duration;

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{first_ping, join_by_file, wait_reconnected};
use frejus_netns::traffic::PingStream;
use frejus_netns::{Daemon, NatClass, Scene, wait_for};
use serde_json::Value;

/// Replies in twenty seconds of five pings a second.
const TWENTY_SECONDS: usize = 100;

#[test]
fn super_peer_restart() {
    let Some(mut scene) = Scene::two_homes("super_peer_restart") else { return };
    scene.go_direct();
    let (founder, to) = (scene.s.id(), scene.b.ipv4().to_string());
    let stream = PingStream::start(&scene.a.host, &to, 0.1);
    stream.wait_replies(10, LIMIT);
    scene.s.terminate();
    stream.wait_replies(20, LIMIT);
    scene.s.restart();
    scene.s.wait_ready();
    assert_eq!(scene.s.id(), founder, "a restart changes no identity");
    let took = wait_reconnected(&scene.a).max(wait_reconnected(&scene.b));
    eprintln!("A and B hear S again {took:?} after it is ready");
    let report = stream.finish();
    assert_eq!(report.lost(), 0, "the direct path does not need S: {report:?}");

    let c = scene.lab.home("c", NatClass::PortRestricted);
    let c = join_by_file(&c, &scene.s.invite(1));
    c.wait_ready();
    first_ping(&c.host, &to);
}

#[test]
fn super_peer_away_for_twenty_seconds() {
    let Some(scene) = Scene::two_homes("super_peer_away") else { return };
    scene.go_direct();
    let stream = PingStream::start(&scene.a.host, &scene.b.ipv4().to_string(), 0.2);
    stream.wait_replies(5, LIMIT);
    scene.lab.blackout(&scene.s.host);
    stream.wait_replies(TWENTY_SECONDS, LIMIT);
    let path = scene.a.path_to(&scene.b.id());
    assert_eq!(path.map(|path| path.kind).as_deref(), Some("direct"));
    scene.lab.light(&scene.s.host);
    let took = wait_reconnected(&scene.a).max(wait_reconnected(&scene.b));
    eprintln!("A and B hear S again {took:?} after it is back");
    let report = stream.finish();
    assert_eq!(report.lost(), 0, "the direct path does not need S: {report:?}");
}

#[test]
fn peer_killed_comes_back() {
    let Some(mut scene) = Scene::two_homes("peer_killed") else { return };
    scene.go_direct();
    let (id, addresses, to) = (scene.b.id(), scene.b.addresses(), scene.b.ipv4().to_string());
    scene.b.kill();
    scene.b.restart();
    let ready = scene.b.wait_ready();
    assert_eq!(scene.b.id(), id, "same node");
    assert_eq!(scene.b.addresses(), addresses, "same addresses");
    let a = &scene.a.host;
    let back = wait_for("A reaches B again", LIMIT, || a.run(&["ping", "-c", "1", "-W", "1", &to]).code == 0);
    eprintln!("B was ready {ready:?} after its start, and reached {back:?} later");
    let (_, direct) = scene.a.wait_path(&id, "direct");
    eprintln!("direct again {direct:?} later");
}

#[test]
fn last_known_super_peers_are_enough_to_start_again() {
    let Some(mut scene) = Scene::two_homes("start_again") else { return };
    scene.a.terminate();
    scene.b.terminate();
    for daemon in [&mut scene.a, &mut scene.b] {
        daemon.restart();
        let took = daemon.wait_ready();
        eprintln!("ready {took:?} after a start without a code");
        assert!(took < Duration::from_secs(30));
    }
    first_ping(&scene.a.host, &scene.b.ipv4().to_string());
}

#[test]
fn a_second_super_peer_takes_over() {
    let Some(mut scene) = Scene::two_homes("takes_over") else { return };
    let second = scene.lab.public("s2", "203.0.113.102");
    let invited = scene.s.verb(&["invite", "--role", "super-peer"]);
    let second = join_by_file(&second, invited.stdout.trim());
    second.wait_ready();
    for node in [&scene.a, &scene.b] {
        let took = wait_for("a second home", LIMIT, || homes(node) == 2);
        eprintln!("two homes {took:?} after the second super peer is ready");
    }
    scene.s.kill();
    let to = scene.b.ipv4().to_string();
    first_ping(&scene.a.host, &to);
    scene.b.kill();
    scene.b.restart();
    scene.b.wait_ready();
    wait_for("B is reached again, with the founder dead", LIMIT, || {
        scene.a.host.run(&["ping", "-c", "1", "-W", "1", &to]).code == 0
    });
}

fn homes(node: &Daemon) -> usize {
    let up = |status: &Value| {
        let homes = status["super_peers"].as_array().into_iter().flatten();
        homes.filter(|home| home["home"] == true && home["rtt_ms"].is_number()).count()
    };
    node.status().as_ref().map_or(0, up)
}
