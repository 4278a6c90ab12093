//! One host of the laboratory: commands, background processes and sockets inside its namespace.
//!
//! Owns the processes that it starts and ends them by their id. Never touches the namespace's topology.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for_timed;

/// Time limit of a command that names none.
const LIMIT: Duration = Duration::from_secs(60);

/// What `timeout` returns for a command that it had to end.
pub const TIMED_OUT: i32 = 124;

static COMMANDS: AtomicU32 = AtomicU32::new(0);

/// A machine of the laboratory; cheap to clone, removed by the [`Lab`](crate::Lab) that made it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Role in the story: `a`, `s`, `router-a`.
    pub name: String,
    /// Namespace, as `ip netns` knows it.
    pub namespace: String,
    /// The IPv4 address that the public side sees.
    pub public: Ipv4Addr,
    /// The IPv4 address on the host's own device.
    pub local: Ipv4Addr,
    /// Scratch directory of the laboratory; `logs/` in it is kept when the test fails.
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
    /// `argv` inside this host, not started yet.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(argv).env("LC_ALL", "C");
        command
    }

    /// Runs `argv` to its end, for a minute at most.
    pub fn run(&self, argv: &[&str]) -> Output {
        self.run_with(argv, "", LIMIT)
    }

    /// Runs `argv` with `input` on standard input, for `limit` at most.
    ///
    /// Output goes through files, so a child that outlives the command and keeps its output open can't block us.
    pub fn run_with(&self, argv: &[&str], input: &str, limit: Duration) -> Output {
        let number = COMMANDS.fetch_add(1, Ordering::Relaxed);
        let [out, err, inp] = ["out", "err", "in"].map(|end| self.scratch.join(format!("{number}.{end}")));
        std::fs::write(&inp, input).expect("the scratch directory is writable");
        let seconds = limit.as_secs_f32().to_string();
        let limited = [&["timeout", "-k", "2", &seconds], argv].concat();
        let start = Instant::now();
        let status = self
            .command(&limited)
            .stdin(File::open(&inp).expect("the input was written above"))
            .stdout(create(&out))
            .stderr(create(&err))
            .status()
            .expect("`ip` was found by the preflight");
        let output =
            Output { code: code(status), stdout: text(&out), stderr: text(&err), took: start.elapsed() };
        for file in [out, err, inp] {
            std::fs::remove_file(file).ok();
        }
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
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                deed()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A UDP socket of this host that gives up reading after two seconds.
    pub fn udp(&self, address: Ipv4Addr, port: u16) -> UdpSocket {
        self.within(|| {
            let socket = UdpSocket::bind((address, port)).expect("a fresh namespace has every port free");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("two seconds is not zero");
            socket
        })
    }

    /// Moves the calling thread into this host for the rest of its life.
    pub(crate) fn enter(&self) {
        let path = Path::new("/run/netns").join(&self.namespace);
        let namespace = File::open(&path).expect("the namespace lives as long as its laboratory");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace of its own");
    }

    /// Appends to the transcript that is kept when the test fails; standard input is left out.
    fn note(&self, argv: &[&str], output: &Output) {
        let file = OpenOptions::new().append(true).create(true).open(self.scratch.join("logs/commands.log"));
        if let Ok(mut file) = file {
            writeln!(file, "[{}] {}\n{output}", self.name, argv.join(" ")).ok();
        }
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

fn create(path: &Path) -> File {
    File::create(path).expect("the scratch directory is writable")
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("the scratch directory is writable")
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
