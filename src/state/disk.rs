//! Files that survive a crash and that nobody else can read.
//!
//! Owns: how a file is read, replaced and refused, and what is said about it. Never: which files there are.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::hint::black_box;
use std::io::{self, ErrorKind, Read};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{ExitCode, Failure};

/// Larger than every file of a state directory: 200 contacts of 1.5 KiB each.
const MAX_FILE: u64 = 1 << 20;

/// 32 bytes that overwrite themselves on drop.
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn random() -> Result<Self, Failure> {
        let mut secret = Self([0; 32]);
        getrandom::fill(&mut secret.0).map_err(|error| {
            Failure::other(format!("the kernel gives no random numbers: {error}"), "try again once it is up")
        })?;
        Ok(secret)
    }
}

impl Deref for Secret {
    type Target = [u8; 32];
    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // The compiler may not leave out a write that somebody looks at.
        black_box(&self.0);
    }
}

/// Make the directory, 0700, and those above it, 0755 as the mask allows; an existing one stays as it is.
pub(super) fn make_directory(path: &Path) -> Result<(), Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|error| failed(path, &error)),
    }
}

/// Refuse what belongs to another user: that one's node would lose its files to us, or read ours.
pub(super) fn check_owner(path: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(path).map_err(|error| failed(path, &error))?.uid();
    let us = nix::unistd::geteuid().as_raw();
    if owner == us {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::NotPermitted,
        format!("{} belongs to user {owner}, and this is user {us}", path.display()),
        "run frejus as that user, or choose another directory with --state",
    ))
}

/// Take the directory away from group and others.
pub(super) fn close_to_others(path: &Path) -> Result<(), Failure> {
    let mode = std::fs::metadata(path).map_err(|error| failed(path, &error))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|error| failed(path, &error))
}

/// A file for us alone, made if it is not there; a symbolic link is not followed.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}

/// The name under which a file is written until it is whole.
pub(super) fn temporary(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Replace a file so that there is the old one or the new one, whenever the power fails.
pub(super) fn replace(
    directory: &Path,
    name: &str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Failure> {
    let (path, half) = (directory.join(name), directory.join(temporary(name)));
    let written = write_new(&half, fill).and_then(|()| std::fs::rename(&half, &path));
    let synced = written.and_then(|()| File::open(directory)?.sync_all());
    synced.map_err(|error| {
        // Room on a full disk; whatever else, the next start removes it.
        let _ = std::fs::remove_file(&half);
        failed(&path, &error)
    })
}

fn write_new(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // A leftover of a crash may have other permissions, or be a link: it goes, whatever it is.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    fill(&mut file)?;
    file.sync_all()
}

/// The whole file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(path, &error))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
    if bytes.len() as u64 > MAX_FILE { Err(damaged(path)) } else { Ok(Some(bytes)) }
}

/// A key's 32 bytes, straight to where they are overwritten; `None` if there is no such file.
pub(super) fn read_key(path: &Path) -> Result<Option<Secret>, Failure> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| failed(path, &error))?,
    };
    let about = file.metadata().map_err(|error| failed(path, &error))?;
    if about.len() != 32 {
        return Err(damaged(path));
    }
    if about.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| failed(path, &error))?;
    }
    let mut secret = Secret([0; 32]);
    file.read_exact(&mut secret.0).map_err(|error| failed(path, &error))?;
    Ok(Some(secret))
}

/// Remove a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
}

/// What the operating system would not do, and the way out.
pub(super) fn failed(path: &Path, error: &io::Error) -> Failure {
    let file: PathBuf = path.to_owned();
    let what = format!("{}: {error}", file.display());
    match error.kind() {
        ErrorKind::PermissionDenied => Failure::new(
            ExitCode::NotPermitted,
            what,
            "run frejus as root, or choose a directory with --state",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Failure::other(what, "make room on that disk and try again; nothing was lost")
        }
        ErrorKind::ReadOnlyFilesystem => {
            Failure::other(what, "mount it writable, or choose another directory with --state")
        }
        _ => Failure::other(what, "choose another directory with --state"),
    }
}

/// A file that is not what was written, and the way out.
pub(super) fn damaged(path: &Path) -> Failure {
    let directory = path.parent().unwrap_or(path).display();
    Failure::other(
        format!("{} is damaged or missing", path.display()),
        format!("restore it from a backup, or remove {directory} and join again with a new code"),
    )
}
