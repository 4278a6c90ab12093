//! When things change: a path dies, a relay dies, a host moves, loses its cable, sleeps. What is measured is printed beside
//! what is promised; what is asserted tells a hang.

use std::time::Duration;

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{first_ping, join_by_file};
use frejus_netns::traffic::PingStream;
use frejus_netns::wait::let_pass;
use frejus_netns::{NatClass, Quality, Scene, wait_for};
use nix::sys::signal::Signal;

/// Ping replies that show steady traffic: two seconds of it.
const STEADY: usize = 40;
/// Several times what is promised: tells a hang, not a busy machine.
const GAP_LIMIT: Duration = Duration::from_secs(15);

/// Waits for the next reply, and for steady traffic; how long the first took.
fn flows_again(stream: &PingStream, what: &str, target: &str) {
    let before = stream.replies();
    let took = wait_for("a ping reply", LIMIT, || stream.replies() > before);
    eprintln!("{what}: traffic {took:?} later (target {target})");
    assert!(took < GAP_LIMIT, "{what}: {took:?}");
    stream.wait_replies(STEADY, LIMIT);
}

#[test]
fn a_direct_path_dies_and_comes_back() {
    let Some(scene) = Scene::two_homes("events_path") else { return };
    let Scene { a, b, lab, .. } = &scene;
    scene.go_direct();
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.05);
    stream.wait_replies(STEADY, LIMIT);
    lab.cut(&a.host, &b.host);
    a.wait_path(&b.id(), "relay");
    stream.wait_replies(STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("direct path dies: silent for {:?} (target 2 s), {report:?}", report.longest_gap);
    assert!(report.longest_gap < GAP_LIMIT && report.duplicates == 0, "{report:?}");
    lab.mend(&a.host, &b.host);
    first_ping(&a.host, &b.ipv4().to_string());
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.05);
    let (_, took) = a.wait_path(&b.id(), "direct");
    eprintln!("good path back: used {took:?} later (target 60 s), {:?}", stream.finish());
}

#[test]
fn a_relay_dies_and_the_other_takes_over() {
    let nats = [NatClass::SymmetricRandom.into(); 2];
    let Some(mut scene) = Scene::homes("events_relay", nats, Quality::default()) else { return };
    let second = scene.lab.public("s2", "203.0.113.102");
    let invited = scene.s.verb(&["invite", "--role", "super-peer"]);
    let mut second = join_by_file(&second, invited.stdout.trim());
    second.wait_ready();
    for node in [&scene.a, &scene.b] {
        wait_for("two homes", LIMIT, || {
            let status = node.status().unwrap_or_default();
            let homes = status["super_peers"].as_array().cloned().unwrap_or_default();
            homes.iter().filter(|home| home["home"] == true && home["rtt_ms"].is_number()).count() == 2
        });
    }
    let to = scene.b.ipv4().to_string();
    first_ping(&scene.a.host, &to);
    let stream = PingStream::start(&scene.a.host, &to, 0.05);
    // The second relay is made ready within seconds of traffic.
    stream.wait_replies(4 * STEADY, LIMIT);
    let (path, _) = scene.a.wait_path(&scene.b.id(), "relay");
    if path.via == Some(second.name()) {
        second.kill();
    } else {
        scene.s.kill();
    }
    stream.wait_replies(2 * STEADY, LIMIT);
    let report = stream.finish();
    eprintln!("relay {:?} dies: silent for {:?} (target 3 s), {report:?}", path.via, report.longest_gap);
    assert!(report.longest_gap < GAP_LIMIT, "{report:?}");
}

/// Another address on the same LAN, the old one gone.
const READDRESS: &str = "old=$(ip -o -4 addr show dev eth0 | awk '{ print $4 }'); net=${old%.*}; \
    ip addr del $old dev eth0; ip addr add $net.77/24 dev eth0; ip route add default via $net.1 dev eth0";

#[test]
fn one_host_moves_then_both() {
    let Some(scene) = Scene::two_homes("events_move") else { return };
    let Scene { a, b, .. } = &scene;
    scene.go_direct();
    let stream = PingStream::start(&b.host, &a.ipv4().to_string(), 0.05);
    stream.wait_replies(STEADY, LIMIT);
    a.host.sh(READDRESS);
    flows_again(&stream, "A's address changed", "1 s");
    a.wait_path(&b.id(), "direct");
    let back = READDRESS.replace(".77", ".78");
    a.host.sh(&back);
    b.host.sh(READDRESS);
    flows_again(&stream, "both addresses changed", "3 s");
    a.wait_path(&b.id(), "direct");
    let report = stream.finish();
    eprintln!("moves: {report:?}");
    assert!(report.longest_gap < GAP_LIMIT, "{report:?}");
}

#[test]
fn a_transfer_survives_a_cable_that_was_out() {
    let Some(scene) = Scene::two_homes("events_cable") else { return };
    let Scene { a, b, lab, .. } = &scene;
    scene.go_direct();
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.05);
    stream.wait_replies(STEADY, LIMIT);
    let route = a.host.ok(&["ip", "route", "show", "default"]);
    let device = route
        .split_whitespace()
        .skip_while(|word| *word != "dev")
        .nth(1)
        .expect("a default route")
        .to_owned();
    let to = b.ipv4();
    // One connection, a line every tenth of a second, which ends when all of them have come.
    let received = lab.scratch().join("received");
    let server =
        format!("socat -u TCP-LISTEN:9000,bind={to},reuseaddr SYSTEM:'cat > {}'", received.display());
    let lines = || std::fs::read_to_string(&received).map_or(0, |text| text.lines().count());
    let mut server = b.host.spawn("sink", &["sh", "-c", &server]);
    wait_for("the server listens", LIMIT, || b.host.ok(&["ss", "-Htln", "sport = :9000"]).contains("9000"));
    let feed =
        format!("(for i in $(seq 150); do echo line $i; sleep 0.1; done) | socat -u STDIN TCP:{to}:9000");
    let mut client = a.host.spawn("feed", &["sh", "-c", &feed]);
    wait_for("a part of the transfer has come", LIMIT, || lines() >= 20);
    a.host.sh(&format!("ip link set {device} down"));
    let_pass("the cable is out", Duration::from_secs(6));
    a.host.sh(&format!("ip link set {device} up; ip route replace {}", route.trim()));
    flows_again(&stream, "cable back after 6 s", "1 s");
    client.wait(LIMIT);
    server.wait(LIMIT);
    assert_eq!(lines(), 150, "the open connection survived");
}

#[test]
fn a_machine_that_slept_is_back_at_once() {
    let Some(mut scene) = Scene::two_homes("events_sleep") else { return };
    scene.go_direct();
    let to = scene.b.ipv4().to_string();
    for seconds in [5, 40] {
        let stream = PingStream::start(&scene.a.host, &to, 0.05);
        stream.wait_replies(STEADY, LIMIT);
        scene.a.process().signal(Signal::SIGSTOP);
        let_pass("asleep", Duration::from_secs(seconds));
        scene.lab.reboot_router(&scene.a.host);
        scene.a.process().signal(Signal::SIGCONT);
        flows_again(&stream, &format!("asleep for {seconds} s, every mapping gone"), "1 s");
        stream.finish();
        scene.a.wait_path(&scene.b.id(), "direct");
    }
}
