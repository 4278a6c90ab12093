//! The figures, printed to be compared by eye. Nothing fails here but a hang.

use std::time::{Duration, Instant};

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{first_ping, join_by_file};
use frejus_netns::traffic::{PingStream, bytes, round_trip_ms};
use frejus_netns::wait::let_pass;
use frejus_netns::{Host, Lab, NatClass, Process, Quality, Scene, ability, wait_for};

/// One way on each home's link; A to B is 80 ms there and back.
const LINK_MS: u64 = 20;

/// Seconds of each throughput run.
const RUN: &str = "5";

#[test]
fn delays_on_slow_links() {
    let nats = [NatClass::PortRestricted.into(); 2];
    let Some(mut scene) = Scene::homes("figures_delay", nats, Quality::delayed(LINK_MS)) else { return };
    let c_host = scene.lab.home_with("c", NatClass::PortRestricted, Quality::delayed(LINK_MS));
    let Scene { s, a, b, .. } = &scene;
    eprintln!("enrolment and first readiness: {:?} (target 2 s)", scene.a_joined_in);
    let cold = round_trip_ms(&first_ping(&a.host, &b.ipv4().to_string()));
    let base = (4 * LINK_MS) as f64;
    eprintln!("first packet, nothing cached: {cold} ms, {:.1} round trips (target 8)", cold / base);

    let start = Instant::now();
    let stream = PingStream::start(&a.host, &b.ipv4().to_string(), 0.05);
    a.wait_path(&b.id(), "direct");
    eprintln!("relay to direct: {:?} after the first answer (target 1.5 s, 5 s at most)", start.elapsed());
    b.wait_path(&a.id(), "direct");
    stream.wait_replies(20, LIMIT);
    eprintln!("meanwhile: {:?}", stream.finish());

    let c = join_by_file(&c_host, &s.invite(1));
    c.wait_ready();
    a.json(&["resolve", &c.ipv4().to_string()]);
    let warm = round_trip_ms(&first_ping(&a.host, &c.ipv4().to_string()));
    eprintln!("first packet, whereabouts cached: {warm} ms, {:.1} round trips (target 2)", warm / base);
}

#[test]
fn idle_control_traffic_and_memory() {
    let Some(scene) = Scene::two_homes("figures_idle") else { return };
    scene.go_direct();
    let window = Duration::from_secs(20);
    let_pass("chatter that follows a join", Duration::from_secs(10));
    let before = bytes(&scene.a.host, "eth0");
    let_pass("the window that is measured", window);
    let carried = bytes(&scene.a.host, "eth0") - before;
    let kilobits = carried as f64 * 8.0 / 1000.0 / window.as_secs_f64();
    eprintln!("idle, one tunnel: {kilobits:.2} kbit/s both ways, frames counted (target 5)");
    eprintln!("resident memory of A: {} KiB", scene.a.resident_kib());
}

/// Megabits a second of one TCP stream, as iperf3 counts them at the receiver.
fn throughput(from: &Host, to: &Host, address: &str) -> f64 {
    let server = to.spawn("iperf3", &["iperf3", "-s", "-1", "-B", address]);
    wait_for("iperf3 listens", LIMIT, || to.ok(&["ss", "-Htln", "sport = :5201"]).contains("5201"));
    let json = from.ok(&["iperf3", "-c", address, "-t", RUN, "-J"]);
    drop(server);
    let report: serde_json::Value = serde_json::from_str(&json).expect("iperf3 -J speaks JSON");
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
}

#[test]
fn throughput_of_a_direct_path() {
    if !ability::program("throughput", "iperf3") {
        return;
    }
    let Some(mut scene) = Scene::two_homes("figures_throughput") else { return };
    scene.go_direct();
    scene.lab.stop_capture();
    let ours = throughput(&scene.a.host, &scene.b.host, &scene.b.ipv4().to_string());
    eprintln!("TCP through frejus, direct: {ours:.0} Mbit/s (an unoptimised build unless --release)");
    assert!(ours > 0.0, "iperf3 finished but measured nothing");
    if let Some(theirs) = boringtun_throughput() {
        eprintln!("TCP through boringtun-cli: {theirs:.0} Mbit/s; ratio {:.2} (target 3.5)", ours / theirs);
    }
}

/// The same run through `boringtun-cli`, where that and `wg` are installed.
fn boringtun_throughput() -> Option<f64> {
    if !ability::found("boringtun-cli") || !ability::found("wg") {
        eprintln!("no comparison: boringtun-cli and wg are not in the search path");
        return None;
    }
    let mut lab = Lab::new("figures_boringtun")?;
    let hosts = [lab.public("p", "203.0.113.111"), lab.public("q", "203.0.113.112")];
    lab.stop_capture();
    let secrets = [0, 1].map(|i: usize| hosts[i].ok(&["wg", "genkey"]).trim().to_owned());
    let publics = [0, 1].map(|i: usize| {
        hosts[i].run_with(&["wg", "pubkey"], &format!("{}\n", secrets[i]), LIMIT).stdout.trim().to_owned()
    });
    let _running =
        [0, 1].map(|i: usize| boringtun(&hosts[i], i, &secrets[i], &publics[1 - i], &hosts[1 - i]));
    Some(throughput(&hosts[0], &hosts[1], "10.9.9.2"))
}

/// A boringtun device; its name is unique on the machine, since its control socket is not in the namespace.
fn boringtun(host: &Host, i: usize, secret: &str, peer: &str, far: &Host) -> Process {
    let device = format!("bt{}{i}", std::process::id());
    let argv = ["boringtun-cli", "--foreground", "--disable-drop-privileges", &device];
    let process = host.spawn("boringtun", &argv);
    wait_for("boringtun listens", LIMIT, || host.run(&["wg", "show", &device]).code == 0);
    let file = host.scratch.join(format!("wg-{i}"));
    std::fs::write(&file, secret).expect("the scratch directory is writable");
    host.sh(&format!(
        "wg set {device} listen-port 51820 private-key {} peer {peer} allowed-ips 10.9.9.0/24 \
         endpoint {}:51820; ip addr add 10.9.9.{}/24 dev {device}; ip link set {device} mtu 1420 up",
        file.display(),
        far.public,
        i + 1
    ));
    process
}
