//! The login server's ledger on disk.
//!
//! Owns: [`Ledger`], rows in a redb file, one transaction a change, synced before it is said to be done. Never: what
//! the rows mean; [`frejus_overlay::login`] knows.

use std::path::{Path, PathBuf};

use frejus_overlay::login::Entry;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::failure::{ExitCode, Failure};

/// Every row: its key (kind, then what it is about) and the entry that wrote it.
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows 1");

/// Room for pages in memory: all rows of a few thousand nodes.
const CACHE: usize = 4 << 20;

const INVITATION: u8 = 1;
const USE: u8 = 2;
const HOLDER: u8 = 3;
const LEASE: u8 = 4;

/// A login server's ledger. One process at a time: the state directory's lock sees to that.
pub struct Ledger {
    /// None after an error: redb takes nothing more until its file is opened anew, whatever room there is.
    database: Option<Database>,
    path: PathBuf,
}

/// What a change does to the rows.
enum Row {
    Put(Vec<u8>),
    Strike(Vec<u8>),
    /// A code, and its uses.
    StrikeInvitation([u8; 32]),
}

impl Ledger {
    /// Begin a ledger.
    ///
    /// # Errors
    /// The file can't be made; it is named.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let database = Database::builder().set_cache_size(CACHE).create(path);
        let database = database.map_err(|error| failed(path, &error.into()))?;
        close_to_others(path)?;
        write(&database, &[]).map_err(|error| failed(path, &error))?;
        Ok(Self { database: Some(database), path: path.to_owned() })
    }

    /// Open a ledger that was begun before. A crash in the middle of a change is repaired to the state before it.
    ///
    /// # Errors
    /// The file can't be read, or is damaged, or gone; it is named. An empty one is not taken for a new one: all
    /// addresses would be given out again.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { database: Some(open(path)?), path: path.to_owned() })
    }

    /// Every row, as [`frejus_overlay::login::LoginServer::new`] takes them.
    ///
    /// # Errors
    /// The file can't be read, or a row is not one.
    pub fn load(&mut self) -> Result<Vec<Entry>, Failure> {
        let database = self.database()?;
        let read = || -> Result<Vec<Option<Entry>>, redb::Error> {
            let rows = database.begin_read()?.open_table(ROWS)?;
            let entries = rows.iter()?.map(|row| Ok(postcard::from_bytes(row?.1.value()).ok()));
            entries.collect()
        };
        let entries: Option<Vec<Entry>> =
            read().map_err(|error| failed(&self.path, &error))?.into_iter().collect();
        entries.ok_or_else(|| damaged(&self.path))
    }

    /// Make the entries of one deed last; all of them or none.
    ///
    /// # Errors
    /// They are not on disk: whatever was to follow from them must not happen.
    pub fn record(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        if entries.is_empty() {
            return Ok(());
        }
        let written = write(self.database()?, entries);
        written.map_err(|error| {
            self.database = None;
            failed(&self.path, &error)
        })
    }

    fn database(&mut self) -> Result<&Database, Failure> {
        let open = match self.database.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        Ok(self.database.insert(open))
    }
}

fn open(path: &Path) -> Result<Database, Failure> {
    let length = std::fs::metadata(path).map(|about| about.len());
    match length {
        Ok(0) => return Err(damaged(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged(path)),
        Err(error) => return Err(failed(path, &redb::Error::Io(error))),
        Ok(_) => {}
    }
    let database = Database::builder().set_cache_size(CACHE).open(path);
    database.map_err(|error| failed(path, &error.into()))
}

fn write(database: &Database, entries: &[Entry]) -> Result<(), redb::Error> {
    // The default durability of redb: synced when the commit returns.
    let change = database.begin_write()?;
    {
        let mut rows = change.open_table(ROWS)?;
        for entry in entries {
            match row(entry) {
                Row::Put(key) => {
                    let value = postcard::to_stdvec(entry).expect("entries are plain data");
                    rows.insert(key.as_slice(), value.as_slice())?;
                }
                Row::Strike(key) => _ = rows.remove(key.as_slice())?,
                Row::StrikeInvitation(digest) => {
                    rows.remove(key(INVITATION, &[&digest]).as_slice())?;
                    let first = key(USE, &[&digest, &[0; 32]]);
                    let last = key(USE, &[&digest, &[0xff; 32]]);
                    rows.retain_in(first.as_slice()..=last.as_slice(), |_, _| false)?;
                }
            }
        }
    }
    change.commit()?;
    Ok(())
}

fn row(entry: &Entry) -> Row {
    match entry {
        Entry::Invitation(digest, _) => Row::Put(key(INVITATION, &[&digest.0])),
        Entry::Use(digest, node) => Row::Put(key(USE, &[&digest.0, &node.0])),
        Entry::InvitationGone(digest) => Row::StrikeInvitation(digest.0),
        Entry::Holder(holder) => Row::Put(key(HOLDER, &[&holder.node.0])),
        Entry::HolderGone(node) => Row::Strike(key(HOLDER, &[&node.0])),
        Entry::Lease(lease) => Row::Put(key(LEASE, &[&lease.address.octets()])),
        Entry::LeaseGone(address) => Row::Strike(key(LEASE, &[&address.octets()])),
    }
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[kind], parts.concat().as_slice()].concat()
}

fn close_to_others(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|error| failed(path, &redb::Error::Io(error)))
}

fn failed(path: &Path, error: &redb::Error) -> Failure {
    use std::io::ErrorKind;
    let what = format!("{}: {error}", path.display());
    match error {
        redb::Error::Io(io) => match io.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Failure::other(what, "make room on that disk and try again; nothing was lost")
            }
            ErrorKind::PermissionDenied => {
                Failure::new(ExitCode::NotPermitted, what, "run frejus as the user that it belongs to")
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(path),
            _ => Failure::other(what, "check that disk"),
        },
        redb::Error::DatabaseAlreadyOpen => {
            Failure::new(ExitCode::Conflict, what, "stop the process that has it with frejus down")
        }
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => damaged(path),
        _ => Failure::other(what, "check that disk"),
    }
}

fn damaged(path: &Path) -> Failure {
    Failure::other(
        format!("the ledger {} is damaged", path.display()),
        "restore it from a backup: without it, addresses that are in use would be given out again",
    )
}

#[cfg(test)]
mod tests;
