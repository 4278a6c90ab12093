//! What is to be on disk, and is not yet.
//!
//! Owns: changes that the disk has not taken, when it is asked again, and that the failure is told once. Never: what
//! must not happen as long as they are missing; the control thread sees to that.

use std::time::Duration;

use frejus_overlay::document::{Contact, Credential};
use frejus_overlay::login::Entry;
use frejus_overlay::node::Persist;
use frejus_overlay::timing::Instant;

use super::World;
use crate::failure::Failure;

/// A disk that took nothing is asked again after this long, or when there is something new to write.
const AGAIN: Duration = Duration::from_secs(10);

/// See the module. The ledger's lines are bounded by what the login server itself keeps: a lease, a holder and a use
/// for each address of its block, and the codes.
#[derive(Default)]
pub(super) struct Unsaved {
    ledger: Vec<Entry>,
    passport: Option<Credential>,
    super_peers: Option<Vec<Contact>>,
    /// Why the last try failed, and when the next is due.
    failed: Option<(Failure, Instant)>,
}

impl Unsaved {
    pub(super) fn add(&mut self, change: Persist) {
        match change {
            Persist::Ledger(entry) => self.ledger.push(entry),
            Persist::Passport(credential) => self.passport = Some(credential),
            Persist::SuperPeers(contacts) => self.super_peers = Some(contacts),
        }
    }

    /// When to [`Self::save`] although nothing was added.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.failed.as_ref().map(|(_, again)| *again)
    }

    /// Why the disk has not taken everything.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failed.as_ref().map(|(failure, _)| failure)
    }

    /// Why the ledger lacks lines, if it does: nobody may be told what follows from them.
    pub(super) fn ledger_failure(&self) -> Option<&Failure> {
        self.failure().filter(|_| !self.ledger.is_empty())
    }

    /// Write down whatever is not: the ledger's lines all at once, since those of one deed belong together.
    pub(super) fn save(&mut self, world: &mut impl World, now: Instant) {
        let mut failed = None;
        let mut saved =
            |done: Result<(), Failure>| done.map_err(|failure| failed.get_or_insert(failure)).is_ok();
        if !self.ledger.is_empty() && saved(world.record(&self.ledger)) {
            self.ledger.clear();
        }
        if self.passport.as_ref().is_some_and(|passport| saved(world.keep_passport(passport))) {
            self.passport = None;
        }
        if self.super_peers.as_ref().is_some_and(|contacts| saved(world.keep_super_peers(contacts))) {
            self.super_peers = None;
        }
        match (&failed, self.failure()) {
            (Some(failure), told) if told != Some(failure) => tracing::error!("{failure}"),
            (None, Some(_)) => tracing::warn!("the state is on disk again"),
            _ => {}
        }
        self.failed = failed.map(|failure| (failure, now + AGAIN));
    }
}
