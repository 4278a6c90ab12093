//! The control plane's walks that are under way: which query serves which command, and what it has found.
//!
//! Reports each distinct value once. Never chooses between valid values: the control plane does.

use std::collections::{HashMap, HashSet};

use frejus_overlay::id::RecordKey;
use frejus_overlay::port::CommandId;
use libp2p::kad::QueryId;

/// Queries under way at most; each has up to three requests out, so this stays within a connection's streams.
const QUERIES: usize = 256;

/// Distinct values remembered per look-up: three paths of twenty answers. Beyond it only newer ones pass, so
/// that a flood of old but valid records can't hide the newest.
const VALUES: usize = 60;

/// A look-up under way.
pub(super) struct Lookup {
    pub(super) id: CommandId,
    pub(super) key: RecordKey,
    seen: HashSet<Vec<u8>>,
    newest: Option<u64>,
}

impl Lookup {
    pub(super) fn new(id: CommandId, key: RecordKey) -> Self {
        Self { id, key, seen: HashSet::new(), newest: None }
    }

    /// Whether this very value was reported already.
    pub(super) fn has_seen(&self, value: &[u8]) -> bool {
        self.seen.contains(value)
    }

    /// Notes a valid value; whether it is to be reported.
    pub(super) fn note(&mut self, value: &[u8], sequence: u64) -> bool {
        let newer = self.newest.is_none_or(|newest| sequence > newest);
        if !newer && (self.seen.len() >= VALUES || self.seen.contains(value)) {
            return false;
        }
        if newer {
            self.newest = Some(sequence);
        }
        self.seen.insert(value.to_vec())
    }

    pub(super) fn found(&self) -> bool {
        self.newest.is_some()
    }
}

/// A publication under way.
pub(super) struct Publication {
    pub(super) id: CommandId,
    /// This node keeps the record for others to find, whoever else takes it.
    pub(super) kept: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Queries {
    pub(super) lookups: HashMap<QueryId, Lookup>,
    pub(super) publications: HashMap<QueryId, Publication>,
}

impl Queries {
    pub(super) fn is_full(&self) -> bool {
        self.lookups.len() + self.publications.len() >= QUERIES
    }

    /// Forgets the look-up of a command; the query that served it.
    pub(super) fn cancel(&mut self, id: CommandId) -> Option<QueryId> {
        let query = self.lookups.iter().find(|(_, lookup)| lookup.id == id).map(|(query, _)| *query)?;
        self.lookups.remove(&query);
        Some(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distinct_value_is_reported_once() {
        let mut lookup = Lookup::new(1, RecordKey([0; 32]));
        assert!(!lookup.found());
        assert!(lookup.note(b"new", 5));
        assert!(!lookup.note(b"new", 5));
        assert!(lookup.note(b"old", 4));
        assert!(lookup.found());
    }

    #[test]
    fn a_flood_of_old_values_does_not_hide_a_new_one() {
        let mut lookup = Lookup::new(1, RecordKey([0; 32]));
        assert!(lookup.note(b"current", 1000));
        let passed = (0u64..1000).filter(|old| lookup.note(&old.to_be_bytes(), *old)).count();
        assert_eq!(passed, VALUES - 1);
        assert!(lookup.note(b"newer", 1001));
    }
}
