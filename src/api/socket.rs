//! The control socket as a thing on disk: made once, by one node, and gone when that node is gone.
//!
//! Owns: the socket's file, and beside it a file with the node's process ID, locked as long as the node lives.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::failure::{ExitCode, Failure};
use crate::paths_on_disk::pid_file_of;
use crate::state::open_private;

/// A control socket that this process listens on. Dropped, it takes its files along.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl ControlSocket {
    /// Makes the socket, mode 0660, and its directory, mode 0755, if that is missing. A socket that a killed
    /// node left behind is replaced.
    ///
    /// # Errors
    /// A node that runs has it already ([`ExitCode::Conflict`]), or it can't be made there.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| cannot_make(path, &error);
        if let Some(parent) =
            path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        {
            DirBuilder::new().mode(0o755).create(parent).map_err(cannot)?;
        }
        let lock = lock(path)?;
        if UnixStream::connect(path).is_ok() {
            return Err(running(path, None));
        }
        remove(path).map_err(cannot)?;
        let listener = UnixListener::bind(path).map_err(cannot)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        for file in [self.path.clone(), pid_file_of(&self.path)] {
            if let Err(error) = remove(&file) {
                tracing::warn!(file = %file.display(), %error, "left behind");
            }
        }
    }
}

/// Locks the file beside the socket and writes our process ID to it. The kernel lifts the lock with the
/// process, however that ends.
fn lock(socket: &Path) -> Result<File, Failure> {
    let path = pid_file_of(socket);
    let cannot = |error: std::io::Error| cannot_make(&path, &error);
    let mut file = open_private(&path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(running(socket, pid_in(&mut file))),
        Err(TryLockError::Error(error)) => return Err(cannot(error)),
    }
    file.set_len(0).map_err(cannot)?;
    writeln!(file, "{}", std::process::id()).map_err(cannot)?;
    Ok(file)
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn running(socket: &Path, pid: Option<u32>) -> Failure {
    let process = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
    let what = format!("a node is already running{process} at {}", socket.display());
    Failure::new(ExitCode::Conflict, what, "stop it with frejus down, or say another --state DIR")
}

fn cannot_make(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("control socket {}: {error}", path.display());
    match error.kind() {
        ErrorKind::PermissionDenied => Failure::new(ExitCode::NotPermitted, what, "run it as root"),
        ErrorKind::InvalidInput => Failure::usage(what, "choose a shorter path with --socket PATH"),
        _ => Failure::other(what, "choose another place with --socket PATH"),
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is at a control socket's place while nobody answers there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing at all.
    Nothing,
    /// What a killed node left behind; it is removed.
    Removed,
    /// A node that is starting or stopping.
    Alive(Option<u32>),
}

/// Removes what a killed node left behind at `socket`, if no node lives there.
///
/// # Errors
/// Something is there and can't be removed.
pub fn clean(socket: &Path) -> Result<Remains, Failure> {
    let pid_file = pid_file_of(socket);
    let cannot = |error: std::io::Error| cannot_make(socket, &error);
    match File::open(&pid_file) {
        Ok(mut file) => match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Remains::Alive(pid_in(&mut file))),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot(error)),
    }
    let left = std::fs::symlink_metadata(socket).is_ok() || pid_file.exists();
    if !left {
        return Ok(Remains::Nothing);
    }
    remove(socket).and_then(|()| remove(&pid_file)).map_err(cannot)?;
    Ok(Remains::Removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/mymed.sock");
        let first = ControlSocket::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let failure = ControlSocket::bind(&path).unwrap_err();
        assert_eq!(failure.code, ExitCode::Conflict);
        assert!(failure.what.contains(&format!("process {}", std::process::id())), "{failure}");
        assert_eq!(clean(&path).unwrap(), Remains::Alive(Some(std::process::id())));
        drop(first);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        assert_eq!(clean(&path).unwrap(), Remains::Nothing);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_or_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        std::fs::write(pid_file_of(&path), "1\n").unwrap();
        drop(ControlSocket::bind(&path).unwrap());
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(clean(&path).unwrap(), Remains::Removed);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_answers_without_a_lock_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _stranger = UnixListener::bind(&path).unwrap();
        assert_eq!(ControlSocket::bind(&path).unwrap_err().code, ExitCode::Conflict);
        assert!(path.exists());
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("control.sock"), dir.path().join("precious"));
        std::fs::write(&precious, "all of it").unwrap();
        std::os::unix::fs::symlink(&precious, pid_file_of(&path)).unwrap();
        ControlSocket::bind(&path).unwrap_err();
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "all of it");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let failure = ControlSocket::bind(&dir.path().join("x".repeat(120))).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage, "{failure}");
    }
}
