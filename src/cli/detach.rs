//! `frejus up --detach`: the same binary once more, in a session of its own, until it is ready.
//!
//! Never: a secret in the arguments of that process; enrolment is over before it starts.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::{screen, up};
use crate::client::Client;
use crate::failure::{ExitCode, Failure};
use crate::offload::Offload;
use crate::options::UpOptions;
use crate::report::{State, Status};
use crate::stream::ENVIRONMENT;

/// How long the node may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(50);

/// Starts the node and waits until it is ready; with `founded`, prints a first code.
pub(super) fn run(options: &UpOptions, verbose: u8, founded: bool) -> Result<(), Failure> {
    let log_path = absolute(&options.state)?.join("frejus.log");
    let cannot =
        |error: std::io::Error| Failure::other(format!("{}: {error}", log_path.display()), "mend it");
    let mut log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(cannot)?;
    let began_at = log.seek(SeekFrom::End(0)).map_err(cannot)?;
    let mut child = command(options, verbose)?
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(cannot)?)
        .stderr(log.try_clone().map_err(cannot)?)
        .spawn()
        .map_err(|error| {
            Failure::other(format!("frejus can't start itself: {error}"), "start it without --detach")
        })?;
    let status = match ready(&mut child, &options.socket, &log_path)? {
        Outcome::Answers(status) => status,
        Outcome::Ended(status) => return Err(last_words(log, began_at, status, &log_path)),
    };
    if founded {
        up::hand_out(up::first_code(&options.socket));
    }
    screen::say(format_args!(
        "{} is {} in {}, in the background as process {}",
        status.node.name,
        status.state,
        status.network.name,
        child.id()
    ));
    match status.state {
        State::Ready => Ok(()),
        state => {
            let what = format!("the node runs, but is {state} after {}", screen::span(PATIENCE));
            Err(Failure::new(ExitCode::Degraded, what, "frejus status says what needs attention"))
        }
    }
}

/// `frejus up` with everything said, so that neither the directory nor the environment matters.
fn command(options: &UpOptions, verbose: u8) -> Result<Command, Failure> {
    // Not /proc/self/exe by name: that would be the name of the process for ps and killall.
    let program = std::env::current_exe().map_err(|error| {
        Failure::other(format!("frejus does not find itself: {error}"), "start it without --detach")
    })?;
    let mut command = Command::new(program);
    command.args(["up", "--background", "--state"]).arg(absolute(&options.state)?);
    command.arg("--socket").arg(absolute(&options.socket)?);
    for at in &options.listen {
        command.args(["--listen", &at.to_string()]);
    }
    if !options.https {
        command.arg("--no-https");
    }
    if let Some(proxy) = &options.proxy {
        // Not an argument: there may be a password in it.
        command.env(ENVIRONMENT, proxy.url());
    }
    if let Some(at) = &options.directory_listen {
        command.args(["--directory-listen", &at.to_string()]);
    }
    for at in &options.advertise {
        command.args(["--advertise", &at.to_string()]);
    }
    if let Some(rate) = &options.relay_rate {
        command.args(["--relay-rate", &rate.to_string()]);
    }
    if let Some(queues) = &options.queues {
        command.args(["--queues", &queues.to_string()]);
    }
    if let Some(name) = &options.tun {
        command.args(["--tun", name]);
    }
    if let Some(bytes) = &options.mtu {
        command.args(["--mtu", &bytes.to_string()]);
    }
    for which in Offload::ALL {
        let said = options.offload.of(*which).map(|on| if on { "--offload" } else { "--no-offload" });
        command.args(said.map(|word| [word, which.name()]).into_iter().flatten());
    }
    command.arg(if options.port_mapping { "--port-mapping" } else { "--no-port-mapping" });
    command.args(["--transport", &word(options.transport), "--cipher", &word(options.cipher)]);
    command.args((0..verbose).map(|_| "-v")).current_dir("/");
    Ok(command)
}

/// As the command line takes it.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).expect("no value is hidden")
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::other(format!("{}: {error}", path.display()), "say an absolute path"))
}

/// What came of a node in the background.
enum Outcome {
    /// It runs; ready, unless the time is over.
    Answers(Box<Status>),
    /// It has ended.
    Ended(ExitStatus),
}

fn ready(child: &mut Child, socket: &Path, log: &Path) -> Result<Outcome, Failure> {
    let client = Client::new(socket)?;
    let began = Instant::now();
    loop {
        let ended =
            child.try_wait().map_err(|error| Failure::other(error.to_string(), "see frejus status"))?;
        if let Some(status) = ended {
            return Ok(Outcome::Ended(status));
        }
        let late = began.elapsed() >= PATIENCE;
        // Another node may be at this socket, until ours finds that out and ends.
        let ours = client.pid().is_ok_and(|pid| pid == Some(child.id()));
        match if ours { client.status().ok() } else { None } {
            Some(status) if late || status.state == State::Ready => {
                return Ok(Outcome::Answers(Box::new(status)));
            }
            None if late => {
                let what = format!("process {} does not answer after {}", child.id(), screen::span(PATIENCE));
                let mend = format!("look at {}", log.display());
                return Err(Failure::new(ExitCode::TimedOut, what, mend));
            }
            _ => std::thread::sleep(INTERVAL),
        }
    }
}

/// The failure that the node wrote to its log before it ended.
fn last_words(mut log: File, from: u64, status: ExitStatus, path: &Path) -> Failure {
    let mut text = Vec::new();
    let read = log.seek(SeekFrom::Start(from)).and_then(|_| log.take(1 << 20).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().rev().find_map(|line| line.strip_prefix("frejus: ")?.rsplit_once(": "));
    let code = status.code().and_then(ExitCode::from_number).unwrap_or(ExitCode::Other);
    match (read, said) {
        (Ok(_), Some((what, mend))) => Failure::new(code, what, mend),
        _ => Failure::new(code, format!("the node ended ({status})"), format!("look at {}", path.display())),
    }
}

/// Makes this process the leader of a session of its own, so that it outlives the terminal.
pub(super) fn leave_the_session() -> Result<(), Failure> {
    nix::unistd::setsid().map(|_| ()).map_err(|error| {
        Failure::other(format!("no session of its own: {error}"), "leave --background to --detach")
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::offload::Wishes;
    use crate::options::{CipherChoice, TransportPolicy};
    use crate::stream::Proxy;

    #[test]
    fn the_failure_of_the_background_is_the_failure_of_the_foreground() {
        let mut log = tempfile::tempfile().unwrap();
        writeln!(log, "frejus: an old failure: of another run").unwrap();
        let from = log.stream_position().unwrap();
        writeln!(log, "asking 203.0.113.101…\nfrejus: port 0.0.0.0:51860: taken: say another --listen")
            .unwrap();
        let failure = last_words(log, from, ExitStatus::from_raw(11 << 8), Path::new("/log"));
        assert_eq!(failure.code, ExitCode::Conflict);
        assert_eq!(failure.to_string(), "port 0.0.0.0:51860: taken: say another --listen");
    }

    #[test]
    fn a_node_that_ended_without_a_word_points_to_the_log() {
        let log = tempfile::tempfile().unwrap();
        let failure = last_words(log, 0, ExitStatus::from_raw(9), Path::new("/log"));
        assert_eq!((failure.code, failure.mend.as_str()), (ExitCode::Other, "look at /log"));
    }

    #[test]
    fn the_background_gets_everything_said() {
        let options = UpOptions {
            state: "/s".into(),
            socket: "/s/control.sock".into(),
            listen: vec!["0.0.0.0:1".parse().unwrap(), "[::]:1".parse().unwrap()],
            directory_listen: Some("0.0.0.0:2".parse().unwrap()),
            advertise: vec!["192.0.2.1:1".parse().unwrap()],
            relay_rate: Some(500),
            queues: Some(3),
            tun: Some("vpn0".into()),
            mtu: Some(1400),
            offload: Wishes { tun_uso: Some(false), udp_gso: Some(true), ..Wishes::default() },
            port_mapping: false,
            https: false,
            proxy: Some(Proxy::parse("http://eva:hush@p:1").unwrap()),
            transport: TransportPolicy::Require,
            cipher: CipherChoice::Aes256Gcm,
        };
        let command = command(&options, 2).unwrap();
        let said: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            said.join(" "),
            "up --background --state /s --socket /s/control.sock --listen 0.0.0.0:1 --listen [::]:1 --no-https \
             --directory-listen 0.0.0.0:2 --advertise 192.0.2.1:1 --relay-rate 500 --queues 3 --tun vpn0 --mtu 1400 \
             --no-offload tun_uso --offload udp_gso --no-port-mapping \
             --transport require --cipher aes-256-gcm -v -v"
        );
        let secret = command.get_envs().find(|(name, _)| *name == ENVIRONMENT).and_then(|(_, value)| value);
        assert_eq!(secret.and_then(|url| url.to_str()), Some("http://eva:hush@p:1"));
    }
}
