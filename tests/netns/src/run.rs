//! One host of the laboratory: commands, background processes and sockets inside its namespace.
//!
//! Owns the processes that it starts and ends them by their id. Never touches the namespace's topology.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for_timed;

pub use frejus_lab::host::{Output, TIMED_OUT};

/// Time limit of a command that names none.
const LIMIT: Duration = frejus_lab::host::LIMIT;

/// A machine of the laboratory, on which everything must work: what does not is a failed test.
///
/// Its fields are those of the laboratory's host. Cheap to clone, removed by the [`Lab`](crate::Lab) that made it.
#[derive(Clone, Debug)]
pub struct Host(frejus_lab::Host);

impl Deref for Host {
    type Target = frejus_lab::Host;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<frejus_lab::Host> for Host {
    fn from(host: frejus_lab::Host) -> Self {
        Self(host)
    }
}

impl Host {
    /// Runs `argv` to its end, for a minute at most.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.run_with(argv, "", LIMIT)
    }

    /// Runs `argv` with `input` on standard input, for `limit` at most.
    pub fn run_with(&self, argv: &[&str], input: &str, limit: Duration) -> Output {
        let output = self.0.run(argv, input, limit).unwrap_or_else(|trouble| panic!("{trouble}"));
        self.note(argv, &output);
        output
    }

    /// Runs `argv` and returns its standard output.
    ///
    /// # Panics
    /// When it fails, with both outputs.
    pub fn ok(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert!(output.code == 0, "{}: `{}` failed: {output}", self.name, argv.join(" "));
        output.stdout
    }

    /// Runs a shell script to its end; panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        self.ok(&["sh", "-ec", script])
    }

    /// Loads nft rules; panics with the rules when the kernel refuses them.
    pub fn nft(&self, rules: &str) {
        let output = self.run_with(&["nft", "-f", "-"], rules, LIMIT);
        assert!(output.code == 0, "{}: nft refused:\n{rules}\n{output}", self.name);
    }

    /// Starts `argv` in the background; its outputs become `logs/HOST-NAME.out` and `.err`.
    pub fn spawn(&self, name: &str, argv: &[&str]) -> Process {
        let file = |end: &str| self.scratch.join("logs").join(format!("{}-{name}.{end}", self.name));
        let (out, err) = (file("out"), file("err"));
        let child = self
            .command(argv)
            .stdin(Stdio::null())
            .stdout(append(&out))
            .stderr(append(&err))
            .spawn()
            .expect("`ip` was found by the preflight");
        Process { title: format!("{} {name}", self.name), child, out, err, ended: None }
    }

    /// Runs `deed` on a thread that has entered this host: sockets that it opens stay in here.
    pub fn within<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        self.0.within(deed).unwrap_or_else(|trouble| panic!("{trouble}"))
    }

    /// A UDP socket of this host that gives up reading after two seconds.
    pub fn udp(&self, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
        let address = address.into();
        self.within(|| {
            let socket = UdpSocket::bind((address, port)).expect("a fresh namespace has every port free");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("two seconds is not zero");
            socket
        })
    }

    /// Appends to the transcript that is kept when the test fails; standard input is left out.
    fn note(&self, argv: &[&str], output: &Output) {
        let file = OpenOptions::new().append(true).create(true).open(self.scratch.join("logs/commands.log"));
        if let Ok(mut file) = file {
            writeln!(file, "[{}] {}\n{output}", self.name, argv.join(" ")).ok();
        }
    }
}

/// A background process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    title: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Process id: `ip netns exec` becomes the command, so it is the command's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child is ours to wait for");
        }
        self.ended.is_none()
    }

    /// True once it has ended, also while nobody has waited for it yet.
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        self.ended.is_some() || matches!(state, None | Some('Z' | 'X'))
    }

    /// Sends `signal` unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_alive() {
            let pid = i32::try_from(self.child.id()).expect("Linux process ids fit");
            kill(Pid::from_raw(pid), signal).expect("the child is not reaped yet");
        }
    }

    /// Waits for the end and returns the exit code.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let title = format!("the end of {}", self.title);
        let (status, _) = wait_for_timed(&title, limit, || {
            self.is_alive();
            self.ended
        });
        code(status)
    }

    /// Asks for an orderly end and waits for it; never panics, so that evidence can be gathered while one passes.
    pub(crate) fn interrupt(&mut self) {
        if let (None, Ok(pid)) = (self.ended, i32::try_from(self.child.id())) {
            kill(Pid::from_raw(pid), Signal::SIGINT).ok();
            self.ended = self.child.wait().ok();
        }
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.out)
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("the scratch directory is writable")
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
