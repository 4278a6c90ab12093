//! One machine of the laboratory: a network namespace, and what is run inside it.
//!
//! Never makes or removes the namespace, nor changes what it is wired to: that is [`crate::Lab`].

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use crate::trouble::{Result, Trouble};

/// Time limit of a command that names none.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What `timeout` returns for a command that it had to end.
pub const TIMED_OUT: i32 = 124;

static COMMANDS: AtomicU32 = AtomicU32::new(0);

/// A machine of the laboratory; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Name in the topology: `a`, `s`, `router-a`.
    pub name: String,
    /// Namespace, as `ip netns` knows it.
    pub namespace: String,
    /// The IPv4 address that the public side sees.
    pub public: Ipv4Addr,
    /// The IPv4 address on the machine's own device.
    pub local: Ipv4Addr,
    /// Directory of the laboratory; `logs/` in it holds what background processes say.
    pub scratch: PathBuf,
}

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + N after signal N; [`TIMED_OUT`].
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Wall-clock time from start to end.
    pub took: Duration,
}

impl Host {
    /// `argv` inside this machine, not started yet.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(argv).env("LC_ALL", "C");
        command
    }

    /// Runs `argv` with `input` on standard input, for `limit` at most.
    ///
    /// Output goes through files, so a child that outlives the command and keeps its output open can't block us.
    ///
    /// # Errors
    /// The command can't be started; a command that fails is an [`Output`].
    pub fn run(&self, argv: &[&str], input: &str, limit: Duration) -> Result<Output> {
        self.run_within(argv, input, limit, &[])
    }

    /// As [`Host::run`], with these variables in the environment, which `ps` shows to nobody else.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn run_within(
        &self,
        argv: &[&str],
        input: &str,
        limit: Duration,
        environment: &[(String, String)],
    ) -> Result<Output> {
        let number = COMMANDS.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{}-{number}", std::process::id());
        let [out, err, inp] = ["out", "err", "in"].map(|end| self.scratch.join(format!("{stem}.{end}")));
        std::fs::write(&inp, input).map_err(|error| Trouble::file(&inp, error))?;
        let open = |path: &Path| File::create(path).map_err(|error| Trouble::file(path, error));
        let seconds = limit.as_secs_f32().to_string();
        let start = Instant::now();
        let status = self
            .command(&[&["timeout", "-k", "2", &seconds], argv].concat())
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(File::open(&inp).map_err(|error| Trouble::file(&inp, error))?)
            .stdout(open(&out)?)
            .stderr(open(&err)?)
            .status()
            .map_err(|error| Trouble::other(format!("ip netns exec: {error}"), "install iproute2"))?;
        let took = start.elapsed();
        let output = Output { code: code(status), stdout: text(&out), stderr: text(&err), took };
        for file in [out, err, inp] {
            std::fs::remove_file(file).ok();
        }
        Ok(output)
    }

    /// Runs `argv`, for a minute at most, and returns its standard output.
    ///
    /// # Errors
    /// It can't be started, or it fails.
    pub fn ok(&self, argv: &[&str]) -> Result<String> {
        let output = self.run(argv, "", LIMIT)?;
        self.judge(&argv.join(" "), output)
    }

    /// Runs a shell script to its end.
    ///
    /// # Errors
    /// As [`Host::ok`].
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(&["sh", "-ec", script], "", LIMIT)?;
        self.judge(script, output)
    }

    /// Loads nft rules, all or none.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let output = self.run(&["nft", "-f", "-"], rules, LIMIT)?;
        self.judge("nft -f -", output).map(drop)
    }

    /// Runs `deed` on a thread that has entered this machine: sockets and devices that it opens stay in here.
    ///
    /// # Errors
    /// The namespace can't be entered.
    pub fn within<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                Ok(deed())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this machine for the rest of its life.
    ///
    /// # Errors
    /// The namespace is gone, or this is not root.
    pub fn enter(&self) -> Result<()> {
        let path = Path::new("/run/netns").join(&self.namespace);
        let cannot = |error: String| {
            Trouble::other(format!("{}: {error}", path.display()), "build the laboratory again")
        };
        let namespace = File::open(&path).map_err(|error| cannot(error.to_string()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| cannot(error.to_string()))
    }

    fn judge(&self, what: &str, output: Output) -> Result<String> {
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let said = output.stderr.lines().chain(output.stdout.lines()).take(3).collect::<Vec<_>>().join(" / ");
        let what = format!("{}: `{what}` exits with {}: {said}", self.name, output.code);
        Err(Trouble::other(what, "see docs/lab.md for what the laboratory needs"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit {} after {:?}", self.code, self.took)?;
        for (name, text) in [("out", &self.stdout), ("err", &self.stderr)] {
            for line in text.lines() {
                writeln!(f, "  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Runs a program outside every namespace.
///
/// # Errors
/// It can't be started, or it fails.
pub(crate) fn plain(program: &str, argv: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(argv)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Trouble::other(format!("{program}: {error}"), "install it"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let what = format!("`{program} {}` failed: {}", argv.join(" "), said.trim());
    Err(Trouble::other(what, "see docs/lab.md for what the laboratory needs"))
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
