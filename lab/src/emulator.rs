//! Links and rival flows as processes of their own, for a laboratory that outlives the command that built it.
//!
//! Owns: the control socket of a link, and the loops that such a process runs. Never: which process runs them.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::Host;
use crate::link::{Link, Quality};
use crate::trouble::{Kind, Result, Trouble};

/// How long a link may take to say that it has understood.
const ANSWER: Duration = Duration::from_secs(10);

/// Leaves the session, so that the terminal's end is not ours; then is a link until it is killed.
///
/// # Errors
/// The devices or the socket can't be made.
pub fn link(host: &Host, names: [&str; 2], control: &Path) -> Result<()> {
    // Fails for the leader of a session, who has left already.
    nix::unistd::setsid().ok();
    let link = Link::join(host, names, Quality::default())?;
    std::fs::remove_file(control).ok();
    let socket = UnixDatagram::bind(control).map_err(|error| Trouble::file(control, error))?;
    let mut words = [0; 256];
    loop {
        let (length, from) = socket.recv_from(&mut words).map_err(|error| Trouble::file(control, error))?;
        let answer: &[u8] = match serde_json::from_slice(&words[..length]) {
            Ok(quality) => {
                link.set(quality);
                b"ok"
            }
            Err(_) => b"not understood",
        };
        if let Some(path) = from.as_pathname() {
            socket.send_to(answer, path).ok();
        }
    }
}

/// Tells the link at `control` its quality; it has understood when this returns.
///
/// # Errors
/// Nobody is there, or it does not answer within ten seconds.
pub fn tell(control: &Path, quality: Quality) -> Result<()> {
    let ours = PathBuf::from(format!("{}.{}", control.display(), std::process::id()));
    std::fs::remove_file(&ours).ok();
    let socket = UnixDatagram::bind(&ours).map_err(|error| Trouble::file(&ours, error))?;
    let answer = exchange(&socket, control, quality);
    std::fs::remove_file(&ours).ok();
    match answer {
        Ok(answer) if answer == b"ok" => Ok(()),
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer).into_owned();
            Err(Trouble::other(format!("{}: {said}", control.display()), "build the laboratory again"))
        }
        Err(error) => {
            let what = format!("the link at {} does not answer: {error}", control.display());
            Err(Trouble::new(Kind::TimedOut, what, "frejus lab down, and up again"))
        }
    }
}

fn exchange(socket: &UnixDatagram, control: &Path, quality: Quality) -> std::io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(ANSWER))?;
    let words = serde_json::to_vec(&quality).expect("numbers alone");
    socket.send_to(&words, control)?;
    let mut answer = vec![0; 64];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Opens so many flows a second from inside `host` to `sink`, as a busy household does, until it is killed.
///
/// Each is a datagram from a port of its own, so that each takes a mapping. A tick that comes late is made up for: the
/// number counts, not the rhythm.
///
/// # Errors
/// The namespace is gone.
pub fn rivals(host: &Host, sink: Ipv4Addr, per_second: u32) -> Result<()> {
    host.enter()?;
    let pause = Duration::from_secs(1) / per_second.max(1);
    let mut next = std::time::Instant::now();
    loop {
        // The discard port (RFC 863). The socket is closed at once; its mapping stays.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
            socket.send_to(b"rival", (sink, 9)).ok();
        }
        next += pause;
        std::thread::sleep(next.saturating_duration_since(std::time::Instant::now()));
        if !Path::new("/run/netns").join(&host.namespace).exists() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("a.sock");
        let trouble = tell(&control, Quality::delayed(20)).unwrap_err();
        assert_eq!(trouble.kind, Kind::TimedOut);
        assert!(trouble.what.contains("a.sock"), "{trouble}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "our own socket is gone");
    }
}
