//! A background process of the laboratory, known by its id and the moment of its start, and ended by them.
//!
//! A process outlives the command that started it, so nothing here holds a handle of it. Never ends a process that
//! merely has the same id.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::trouble::{Kind, Result, Trouble};

/// Time for an orderly end.
const END: Duration = Duration::from_secs(10);
/// Pause between two looks at a state.
const PAUSE: Duration = Duration::from_millis(20);

/// A process that runs on after us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Host and program: `router-a tinyproxy`.
    pub title: String,
    /// Process id.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine was: with the id, this names one process for ever.
    started: u64,
}

impl Service {
    /// Starts `argv` in `host`, with `environment`; its words go to `logs/HOST-NAME.log`.
    ///
    /// The program stays in our session; one that has no way to leave it is run through `setsid`.
    ///
    /// # Errors
    /// It can't be started, or the log can't be written.
    pub fn start(host: &Host, name: &str, argv: &[&str], environment: &[(String, String)]) -> Result<Self> {
        let log = host.scratch.join("logs").join(format!("{}-{name}.log", host.name));
        let title = format!("{} {name}", host.name);
        let file = append(&log)?;
        let second = file.try_clone().map_err(|error| Trouble::file(&log, error))?;
        // `ip netns exec` becomes the command, so the id is the command's own.
        let child = host
            .command(argv)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .spawn()
            .map_err(|error| Trouble::other(format!("{title}: {error}"), "install it"))?;
        let pid = i32::try_from(child.id()).expect("Linux process ids fit");
        Ok(Self { title, pid, started: start_time(pid).unwrap_or(0) })
    }

    /// True while it runs; a zombie has given back all but its number.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Asks for an orderly end, waits for it, and ends it for good after ten seconds.
    pub fn end(&self) {
        self.signal(Signal::SIGTERM);
        let start = Instant::now();
        while self.is_alive() && start.elapsed() < END {
            sleep(PAUSE);
        }
        self.signal(Signal::SIGKILL);
        while self.is_alive() && start.elapsed() < END + END {
            sleep(PAUSE);
        }
    }

    fn signal(&self, signal: Signal) {
        if self.is_alive() {
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }
}

/// Looks at `state` every few milliseconds until it is so.
///
/// # Errors
/// It is not so after `limit`, or looking fails.
pub fn until(what: &str, limit: Duration, mut state: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !state()? {
        if start.elapsed() >= limit {
            let what = format!("{what}: not after {limit:?}");
            return Err(Trouble::new(Kind::TimedOut, what, "look into the logs of the laboratory"));
        }
        sleep(PAUSE);
    }
    Ok(())
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create(true).open(path).map_err(|error| Trouble::file(path, error))
}

/// Clock ticks from the machine's start to the process's; none for what has ended (proc(5), fields 3 and 22).
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold parentheses and blanks.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_of_the_same_id_is_not_ours() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ours = Service { title: "sleep".into(), pid, started: start_time(pid).unwrap() };
        let other = Service { started: ours.started + 1, ..ours.clone() };
        other.end();
        assert!(ours.is_alive() && !other.is_alive());
        ours.end();
        assert!(!ours.is_alive(), "a zombie at most");
        child.wait().unwrap();
    }
}
