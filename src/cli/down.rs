//! `frejus down`: the node stops, or what a killed one left behind goes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::screen;
use crate::api::{self, Remains};
use crate::client::Client;
use crate::failure::{ExitCode, Failure};

/// A node that has not ended after this time hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn run(socket: &Path) -> Result<(), Failure> {
    let client = Client::new(socket)?;
    let began = Instant::now();
    let mut process = None;
    let mut asked = false;
    while began.elapsed() < PATIENCE {
        let step = match client.pid() {
            Ok(pid) => {
                process = pid.or(process);
                if asked { Ok(()) } else { client.down() }
            }
            Err(failure) => Err(failure),
        };
        match step {
            Ok(()) => asked = true,
            Err(failure) if failure.code == ExitCode::NotRunning => match api::clean(socket)? {
                Remains::Nothing if asked => return ended(process, began),
                Remains::Nothing => return Err(failure),
                Remains::Removed => {
                    screen::say(format_args!(
                        "removed what a killed node left behind at {}",
                        socket.display()
                    ));
                    return ended(process, began);
                }
                Remains::Alive(pid) => {
                    process = pid.or(process);
                    asked = true;
                }
            },
            // A node on its way out may break off any answer.
            Err(failure) if failure.code == ExitCode::Other => asked = true,
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(INTERVAL);
    }
    Err(hangs(process))
}

/// Waits for the end of the process, which takes its device along.
fn ended(process: Option<u32>, began: Instant) -> Result<(), Failure> {
    while let Some(pid) = process.filter(|pid| alive(*pid)) {
        if began.elapsed() >= PATIENCE {
            return Err(hangs(Some(pid)));
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Whether the process is there and not a zombie, which has given back all but its number.
fn alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // proc(5): the state follows the name in parentheses, which may itself hold parentheses.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn hangs(process: Option<u32>) -> Failure {
    let mend =
        process.map_or_else(|| "look at its log".to_owned(), |pid| format!("kill -9 {pid}; frejus down"));
    let what = format!("the node has not ended after {}", screen::span(PATIENCE));
    Failure::new(ExitCode::TimedOut, what, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_there_is_not_running_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        assert_eq!(run(&socket).unwrap_err().code, ExitCode::NotRunning);
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert_eq!(run(&socket), Ok(()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert!(alive(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while alive(child.id()) {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", child.id())).exists(), "not waited for, so a zombie");
        child.wait().unwrap();
        assert!(!alive(child.id()));
    }
}
