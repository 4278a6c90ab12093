//! The state directory: what a node must still know after a crash.
//!
//! Owns: the files of one node of one network, their permissions, and how they are replaced. Never: what the
//! documents in them say; whether they are still valid.
//!
//! | file | what | secret |
//! | --- | --- | --- |
//! | `frejus-state` | marks the directory as ours, with the version of this layout | |
//! | `node.key` | Ed25519 seed, 32 bytes: the node's identity | yes |
//! | `tunnel.key` | X25519 key, 32 bytes | yes |
//! | `network.key` | Ed25519 seed of the network; with its founder only, and better kept elsewhere | yes |
//! | `genesis` | what the network is | |
//! | `passport` | passport and grant behind it; written last: with it, the directory holds a node | |
//! | `grant` | with the login role: what this node may issue | |
//! | `super-peers` | whom to ask at the next start | |
//! | `ledger.redb` | with the login role: [`crate::ledger`] | |
//! | `lock`, `pid` | held, and written, by the process that runs the node | |
//! | `control.sock` | of the running node, if the directory was named by hand | |
//!
//! A file is replaced by writing `.NAME.tmp` beside it, syncing, renaming and syncing the directory. After a crash
//! there is the old file or the new one, and perhaps a temporary one that nobody reads.

mod disk;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use frejus_overlay::document::{Contact, Credential, Genesis, Grant, Network, Passport, Signed};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use x25519_dalek::StaticSecret;

use crate::failure::{ExitCode, Failure};
pub(crate) use disk::open_private;
use disk::{Secret, failed};

const MARKER: &str = "frejus-state";
const MARK: &str = "frejus state 1\n";
const NODE_KEY: &str = "node.key";
const TUNNEL_KEY: &str = "tunnel.key";
const NETWORK_KEY: &str = "network.key";
const GENESIS: &str = "genesis";
const PASSPORT: &str = "passport";
const GRANT: &str = "grant";
const SUPER_PEERS: &str = "super-peers";
const LEDGER: &str = "ledger.redb";
const LOCK: &str = "lock";
const PID: &str = "pid";

/// A fresh file system has it in its root.
const FOREIGN_BUT_EMPTY: &str = "lost+found";

/// Super peers that are kept for the next start.
pub const MAX_SUPER_PEERS: usize = 200;

/// The state directory of one node.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Held by the process that runs the node, or changes what makes it; given back on drop or death.
#[derive(Debug)]
pub struct Lock {
    pid: PathBuf,
    _file: Flock<File>,
}

/// The two keys of a node. Both overwrite themselves on drop.
#[derive(Clone)]
pub struct Keys {
    /// Its identity.
    pub node: SigningKey,
    /// For WireGuard, and for sealing to it.
    pub tunnel: StaticSecret,
}

/// A node as it is on disk: signatures checked, validity not.
pub struct Saved {
    /// The envelope, to hand to those who join.
    pub genesis: Signed<Genesis>,
    /// The network.
    pub network: Network,
    /// The node's keys.
    pub keys: Keys,
    /// The node's passport, with the proof.
    pub credential: Credential,
    /// What the passport says.
    pub passport: Passport,
    /// With the login role: what this node may issue.
    pub grant: Option<Signed<Grant>>,
    /// Super peers to begin with; unchecked, and often out of date.
    pub super_peers: Vec<Contact>,
}

impl StateDir {
    /// The directory, made if it is not there: 0700, its files likewise ours alone.
    ///
    /// # Errors
    /// It holds something else, belongs to another user, or can't be made.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        disk::make_directory(path)?;
        let state = Self { path: path.to_owned() };
        if state.is_marked()? {
            disk::check_owner(path)?;
        } else {
            state.check_empty()?;
            disk::check_owner(path)?;
            disk::close_to_others(path)?;
            state.write(MARKER, MARK.as_bytes())?;
        }
        Ok(state)
    }

    /// The directory of a node that was made before.
    ///
    /// # Errors
    /// [`ExitCode::NotEnrolled`] if there is none; else as [`Self::create`].
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let state = Self { path: path.to_owned() };
        if !path.try_exists().map_err(|error| failed(path, &error))? || !state.is_marked()? {
            return Err(state.not_enrolled());
        }
        disk::check_owner(path)?;
        disk::close_to_others(path)?;
        Ok(state)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the login server's ledger is.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER)
    }

    /// Become the one process that uses this node, and write down its ID.
    ///
    /// # Errors
    /// [`ExitCode::Conflict`], naming the process that was faster.
    pub fn lock(&self) -> Result<Lock, Failure> {
        let path = self.path.join(LOCK);
        let file = open_private(&path).map_err(|error| failed(&path, &error))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => self.in_use(),
            other => failed(&path, &other.into()),
        })?;
        self.remove_leftovers()?;
        self.write(PID, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Lock { pid: self.path.join(PID), _file: file })
    }

    /// The process that runs the node, if it wrote its ID.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.path.join(PID)).ok()?.trim().parse().ok()
    }

    /// Whether a node was founded or enrolled here.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn holds_node(&self) -> Result<bool, Failure> {
        let path = self.path.join(PASSPORT);
        path.try_exists().map_err(|error| failed(&path, &error))
    }

    /// The network whose node this directory holds, if it holds one.
    ///
    /// # Errors
    /// It can't be read, or is damaged.
    pub fn network(&self) -> Result<Option<Network>, Failure> {
        if !self.holds_node()? {
            return Ok(None);
        }
        let genesis = Signed::from_bytes(self.require(GENESIS)?);
        Network::new(&genesis).map(Some).map_err(|_| self.damaged(GENESIS))
    }

    /// The node's keys, drawn and written down if there are none: before anything is done with them, so that a
    /// second try after a crash is made by the same node.
    ///
    /// # Errors
    /// They can't be read or written, or are damaged.
    pub fn keys(&self) -> Result<Keys, Failure> {
        let node = self.key(NODE_KEY)?;
        let tunnel = self.key(TUNNEL_KEY)?;
        Ok(Keys { node: SigningKey::from_bytes(&node), tunnel: StaticSecret::from(*tunnel) })
    }

    /// The network's key, drawn and written down if there is none. For the founder.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn network_key(&self) -> Result<SigningKey, Failure> {
        Ok(SigningKey::from_bytes(&*self.key(NETWORK_KEY)?))
    }

    /// Draw another network key in place of the one of an attempt that came to nothing.
    ///
    /// # Errors
    /// There is a node here, whose network must not lose its key; or a file can't be removed.
    pub fn forget_network_key(&self) -> Result<(), Failure> {
        if self.holds_node()? {
            return Err(Failure::other(
                format!("{} holds a node, and the key of its network", self.path.display()),
                "choose another directory with --state",
            ));
        }
        disk::remove(&self.path.join(NETWORK_KEY))
    }

    /// The node that this directory holds.
    ///
    /// # Errors
    /// [`ExitCode::NotEnrolled`] if it holds none; a damaged file is named.
    pub fn load(&self) -> Result<Saved, Failure> {
        if !self.holds_node()? {
            return Err(self.not_enrolled());
        }
        let keys = Keys {
            node: SigningKey::from_bytes(&*self.require_key(NODE_KEY)?),
            tunnel: StaticSecret::from(*self.require_key(TUNNEL_KEY)?),
        };
        let genesis = Signed::from_bytes(self.require(GENESIS)?);
        let network = Network::new(&genesis).map_err(|_| self.damaged(GENESIS))?;
        let credential: Credential =
            decode(&self.require(PASSPORT)?).ok_or_else(|| self.damaged(PASSPORT))?;
        let passport =
            signed_passport(&credential, &network, &keys.node).ok_or_else(|| self.damaged(PASSPORT))?;
        let grant = self.read(GRANT)?.map(Signed::from_bytes);
        if grant.as_ref().is_some_and(|grant| grant.open(&network.id, &network.genesis.key).is_err()) {
            return Err(self.damaged(GRANT));
        }
        let super_peers = self.super_peers()?;
        Ok(Saved { genesis, network, keys, credential, passport, grant, super_peers })
    }

    /// Write down what the network is.
    ///
    /// # Errors
    /// The disk is full, for instance; the file is named.
    pub fn write_genesis(&self, genesis: &Signed<Genesis>) -> Result<(), Failure> {
        self.write(GENESIS, genesis.as_bytes())
    }

    /// Write down what this login server may issue.
    ///
    /// # Errors
    /// As [`Self::write_genesis`].
    pub fn write_grant(&self, grant: &Signed<Grant>) -> Result<(), Failure> {
        self.write(GRANT, grant.as_bytes())
    }

    /// Write down who the node is; everything else that makes it must be there.
    ///
    /// # Errors
    /// As [`Self::write_genesis`].
    pub fn write_passport(&self, credential: &Credential) -> Result<(), Failure> {
        self.write(PASSPORT, &encode(credential))
    }

    /// Write down whom to ask at the next start; the first [`MAX_SUPER_PEERS`].
    ///
    /// # Errors
    /// As [`Self::write_genesis`].
    pub fn write_super_peers(&self, contacts: &[Contact]) -> Result<(), Failure> {
        self.write(SUPER_PEERS, &encode(&contacts[..contacts.len().min(MAX_SUPER_PEERS)]))
    }

    /// A node without any cannot find its network, so a damaged list is an error, and the way out is a code.
    fn super_peers(&self) -> Result<Vec<Contact>, Failure> {
        let Some(bytes) = self.read(SUPER_PEERS)? else { return Ok(Vec::new()) };
        let mut contacts: Vec<Contact> = decode(&bytes).ok_or_else(|| {
            let file = self.path.join(SUPER_PEERS);
            Failure::other(
                format!("{} is damaged", file.display()),
                "remove it; then, unless this is the founder, frejus join with a new code: name and addresses stay",
            )
        })?;
        contacts.truncate(MAX_SUPER_PEERS);
        Ok(contacts)
    }

    fn key(&self, name: &str) -> Result<Secret, Failure> {
        let path = self.path.join(name);
        if let Some(key) = disk::read_key(&path)? {
            return Ok(key);
        }
        let key = Secret::random()?;
        self.write(name, &*key)?;
        Ok(key)
    }

    fn require_key(&self, name: &str) -> Result<Secret, Failure> {
        disk::read_key(&self.path.join(name))?.ok_or_else(|| self.damaged(name))
    }

    fn require(&self, name: &str) -> Result<Vec<u8>, Failure> {
        self.read(name)?.ok_or_else(|| self.damaged(name))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        disk::read(&self.path.join(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        disk::replace(&self.path, name, |file| file.write_all(bytes))
    }

    fn is_marked(&self) -> Result<bool, Failure> {
        let path = self.path.join(MARKER);
        match disk::read(&path)? {
            None => Ok(false),
            Some(mark) if mark == MARK.as_bytes() => Ok(true),
            Some(mark) if mark.starts_with(b"frejus state ") => Err(Failure::other(
                format!("{} was made by another version of frejus", self.path.display()),
                "update frejus, or choose another directory with --state",
            )),
            Some(_) => Err(self.foreign(MARKER)),
        }
    }

    /// Refuse a directory in which others keep their things.
    fn check_empty(&self) -> Result<(), Failure> {
        for entry in std::fs::read_dir(&self.path).map_err(|error| failed(&self.path, &error))? {
            let name = entry.map_err(|error| failed(&self.path, &error))?.file_name();
            let name = name.to_string_lossy();
            if name != FOREIGN_BUT_EMPTY && name != disk::temporary(MARKER) {
                return Err(self.foreign(&name));
            }
        }
        Ok(())
    }

    /// What a crash left half-written. Only for whoever holds the lock.
    fn remove_leftovers(&self) -> Result<(), Failure> {
        for name in [MARKER, NODE_KEY, TUNNEL_KEY, NETWORK_KEY, GENESIS, PASSPORT, GRANT, SUPER_PEERS, PID] {
            disk::remove(&self.path.join(disk::temporary(name)))?;
        }
        Ok(())
    }

    fn in_use(&self) -> Failure {
        let who = self.pid().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        let path = self.path.display();
        Failure::new(
            ExitCode::Conflict,
            format!("{path} is in use by {who}"),
            format!("stop it with frejus down --state {path}, or choose another directory with --state"),
        )
    }

    fn not_enrolled(&self) -> Failure {
        Failure::new(
            ExitCode::NotEnrolled,
            format!("{} holds no node", self.path.display()),
            "frejus up --join CODE, or frejus up --create NETWORK",
        )
    }

    fn foreign(&self, name: &str) -> Failure {
        Failure::other(
            format!("{} is not a state directory of frejus: it holds {name}", self.path.display()),
            "choose an empty or a new directory with --state",
        )
    }

    fn damaged(&self, name: &str) -> Failure {
        disk::damaged(&self.path.join(name))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pid);
    }
}

/// The passport, if the network key's chain leads to it and it is this node's. When it is valid is another question.
fn signed_passport(credential: &Credential, network: &Network, key: &SigningKey) -> Option<Passport> {
    let grant = credential.grant.open(&network.id, &network.genesis.key).ok()?;
    let passport = credential.passport.open(&network.id, &grant.node).ok()?;
    (passport.node.0 == key.verifying_key().to_bytes()).then_some(passport)
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("documents are plain data")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
pub(crate) mod tests;
