//! The `frejus` binary on one host: start, stop, ask; nothing but its verbs, exit codes and JSON.
//!
//! Owns the process that it started and the path of its state directory. Never looks into that directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::evidence::profile_dir;
use crate::run::{Host, Output, Process};
use crate::wait::{wait_for, wait_for_timed};

/// Far beyond every figure of the project, and below a test runner's patience: tells a hang, not slowness.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Time for an orderly end.
const END_LIMIT: Duration = Duration::from_secs(15);

/// A node of a network, running on a host.
#[derive(Debug)]
pub struct Daemon {
    /// Where it runs.
    pub host: Host,
    state: PathBuf,
    process: Process,
}

/// The path in use to a peer, from `peers --json` and `ping --json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerPath {
    /// `direct` or `relay`.
    pub kind: String,
    /// Address and port that datagrams go to.
    pub remote: String,
    /// The relaying super peer's name.
    pub via: Option<String>,
    /// How the path was found.
    pub method: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// The largest inner packet that it takes, in bytes.
    pub mtu: u64,
}

/// The binary under test: `FREJUS_BIN`, else where cargo has put it for this profile.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("FREJUS_BIN").map_or_else(|| profile_dir().join("frejus"), PathBuf::from);
    assert!(
        path.is_file(),
        "no frejus binary at {}: build it with `cargo build --bin frejus`, or set FREJUS_BIN",
        path.display()
    );
    path
}

/// Runs a verb that talks to no running node of its own, such as `create` or a failing `up`.
pub fn frejus(host: &Host, argv: &[&str]) -> Output {
    let binary = binary();
    host.run_with(&[&[text(&binary)], argv].concat(), "", LIMIT)
}

/// The last word of the line that carries a code.
pub fn code_in(output: &str) -> Option<String> {
    let mut words = output.lines().filter_map(|line| line.split_whitespace().last());
    words.rfind(|word| word.starts_with("frejus1")).map(str::to_owned)
}

/// Asserts that a verb failed as promised: one of these exit codes, and one line that says what to do.
pub fn assert_refused(output: &Output, codes: &[i32], words: &[&str]) {
    assert!(codes.contains(&output.code), "expected exit code {codes:?}: {output}");
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("frejus: ")).collect();
    assert_eq!(errors.len(), 1, "expected one error line: {output}");
    assert!(errors[0].matches(": ").count() >= 2, "WHAT HAPPENED: WHAT TO DO is missing: {}", errors[0]);
    assert!(!output.stderr.contains("panicked"), "{output}");
    for word in words {
        assert!(errors[0].contains(word), "`{word}` is not named: {}", errors[0]);
    }
}

impl Daemon {
    /// `up --create NETWORK`; returns the first code with it.
    pub fn create(host: &Host, network: &str) -> (Self, String) {
        let daemon = Self::start(host, &["--create", network]);
        let (code, _) = wait_for_timed("the first code", LIMIT, || {
            daemon.assert_running();
            code_in(&daemon.process.stdout())
        });
        (daemon, code)
    }

    /// `up --join CODE`.
    pub fn join(host: &Host, code: &str) -> Self {
        Self::start(host, &["--join", code])
    }

    /// `up` with `options` and the host's state directory, in the foreground.
    pub fn start(host: &Host, options: &[&str]) -> Self {
        let state = state_of(host);
        let process = launch(host, &state, options);
        Self { host: host.clone(), state, process }
    }

    /// As [`Daemon::start`], with variables in its environment.
    pub fn start_with(host: &Host, variables: &[&str], options: &[&str]) -> Self {
        let (state, binary) = (state_of(host), binary());
        let up = [text(&binary), "up", "--state", text(&state)];
        let process = host.spawn("frejus", &[&["env"], variables, &up, options].concat());
        Self { host: host.clone(), state, process }
    }

    /// `up` once more on the same state; the old process has ended.
    pub fn restart(&mut self) {
        self.process.wait(END_LIMIT);
        self.process = launch(&self.host, &self.state, &[]);
    }

    /// State directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it without a chance to clean up.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(END_LIMIT);
    }

    /// SIGTERM; returns the exit code.
    pub fn terminate(&mut self) -> i32 {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(END_LIMIT)
    }

    /// `frejus VERB... --state DIR`.
    pub fn verb(&self, argv: &[&str]) -> Output {
        let binary = binary();
        self.host.run_with(&[&[text(&binary)], argv, &["--state", text(&self.state)]].concat(), "", LIMIT)
    }

    /// A reading verb's JSON object; panics unless it exits with 0 and speaks schema 1.
    pub fn json(&self, argv: &[&str]) -> Value {
        let output = self.verb(&[argv, &["--json"]].concat());
        assert!(output.code == 0, "{}: `frejus {}`: {output}", self.host.name, argv.join(" "));
        parse(&output)
    }

    /// `status --json`, once the node answers.
    pub fn status(&self) -> Option<Value> {
        let output = self.verb(&["status", "--json"]);
        (output.code == 0).then(|| parse(&output))
    }

    /// A code for `uses` nodes.
    pub fn invite(&self, uses: u32) -> String {
        let output = self.verb(&["invite", "--uses", &uses.to_string()]);
        assert!(output.code == 0, "invite: {output}");
        code_in(&output.stdout).unwrap_or_else(|| panic!("no code in: {output}"))
    }

    /// Waits until `status` says `ready`; returns how long that took.
    pub fn wait_ready(&self) -> Duration {
        wait_for(&format!("{} is ready", self.host.name), LIMIT, || {
            self.assert_running();
            self.is("ready")
        })
    }

    /// True when `status` says `state`.
    pub fn is(&self, state: &str) -> bool {
        self.status().is_some_and(|status| status["state"] == state)
    }

    /// Node ID.
    pub fn id(&self) -> String {
        self.node()["id"].as_str().expect("status names the node").to_owned()
    }

    /// Name, unique in the network.
    pub fn name(&self) -> String {
        self.node()["name"].as_str().expect("status names the node").to_owned()
    }

    /// Virtual IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.addresses()
            .iter()
            .find_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None })
            .expect("a node has a virtual IPv4 address")
    }

    /// Virtual IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.addresses()
            .iter()
            .find_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None })
            .expect("a node has a virtual IPv6 address")
    }

    /// Virtual addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let node = self.node();
        let addresses = node["addresses"].as_array().cloned().unwrap_or_default();
        addresses.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
    }

    /// Name of the TUN device.
    pub fn tun(&self) -> String {
        self.node()["tun"].as_str().expect("status names the device").to_owned()
    }

    /// What carries the datagrams to the first super peer that answers: `udp`, `tcp` or `tls`.
    pub fn home_by(&self) -> Option<String> {
        let status = self.status()?;
        let answers = |peer: &&Value| peer["rtt_ms"].is_number();
        let home = status["super_peers"].as_array()?.iter().find(answers)?;
        Some(home["transport"].as_str()?.to_owned())
    }

    /// True while `status` lists a super peer that answers.
    pub fn hears_a_super_peer(&self) -> bool {
        let answers = |peer: &Value| peer["rtt_ms"].is_number();
        self.status()
            .is_some_and(|s| s["super_peers"].as_array().is_some_and(|list| list.iter().any(answers)))
    }

    /// The path in use to the node `id`, if there is a tunnel.
    pub fn path_to(&self, id: &str) -> Option<PeerPath> {
        let output = self.verb(&["peers", "--json"]);
        let peers = if output.code == 0 { parse(&output) } else { return None };
        let peer = peers["peers"].as_array()?.iter().find(|peer| peer["id"] == id)?.clone();
        Some(PeerPath::of(&peer["path"]))
    }

    /// Waits until the path to the node `id` is of this kind; returns it, and how long that took.
    pub fn wait_path(&self, id: &str, kind: &str) -> (PeerPath, Duration) {
        let what = format!("{}: the path to {id} is `{kind}`", self.host.name);
        wait_for_timed(&what, LIMIT * 2, || self.path_to(id).filter(|path| path.kind == kind))
    }

    /// Waits until the path to the node `id` takes inner packets of `mtu` bytes; how long that took.
    pub fn wait_mtu(&self, id: &str, mtu: u64) -> Duration {
        let what = format!("{}: the path to {id} takes {mtu} bytes", self.host.name);
        wait_for(&what, LIMIT, || self.path_to(id).is_some_and(|path| path.mtu == mtu))
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    /// Panics with the node's last words when it has ended, so that nobody waits for the dead.
    fn assert_running(&self) {
        let (out, err) = (self.process.stdout(), self.process.stderr());
        assert!(!self.process.has_ended(), "{}: frejus has ended:\n{out}{err}", self.host.name);
    }

    fn node(&self) -> Value {
        self.json(&["status"])["node"].clone()
    }
}

impl Drop for Daemon {
    /// While a test fails, asks the living node a last time; the laboratory keeps the answers.
    fn drop(&mut self) {
        if std::thread::panicking() && self.process.is_alive() {
            for verb in ["status", "peers"] {
                let answer = self.verb(&[verb, "--json"]).to_string();
                let file = format!("{}-{verb}.json", self.host.name);
                std::fs::write(self.host.scratch.join("logs").join(file), answer).ok();
            }
        }
    }
}

impl PeerPath {
    /// From the JSON object `path`.
    pub fn of(path: &Value) -> Self {
        let word = |key: &str| path[key].as_str().unwrap_or_default().to_owned();
        Self {
            kind: word("kind"),
            remote: word("remote"),
            via: path["via"].as_str().map(str::to_owned),
            method: word("method"),
            transport: word("transport"),
            mtu: path["mtu"].as_u64().unwrap_or(0),
        }
    }
}

/// The state directory of a host's node; made by the product, as a user's would be.
pub fn state_of(host: &Host) -> PathBuf {
    host.scratch.join(format!("state-{}", host.name))
}

/// A path as an argument; the laboratory's own paths are UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the laboratory's paths are UTF-8")
}

fn launch(host: &Host, state: &Path, options: &[&str]) -> Process {
    let binary = binary();
    host.spawn("frejus", &[&[text(&binary), "up", "--state", text(state)], options].concat())
}

fn parse(output: &Output) -> Value {
    let value: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("not one JSON object: {error}: {output}"));
    assert_eq!(value["schema"], 1, "{output}");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_last_word_of_its_line() {
        let said = "network mymed created\njoin with: frejus up --join frejus1abc\nready\n";
        assert_eq!(code_in(said).as_deref(), Some("frejus1abc"));
        assert_eq!(code_in("frejus1abc is a code\n"), None);
    }

    #[test]
    fn a_path_is_read_from_json() {
        let json =
            serde_json::json!({"kind": "relay", "remote": "203.0.113.101:51860", "via": "s", "method": null});
        let path = PeerPath::of(&json);
        assert_eq!((path.kind.as_str(), path.via.as_deref(), path.method.as_str()), ("relay", Some("s"), ""));
    }
}
