//! The table as the threads see it, and what they remember of what they have told.
//!
//! Owns: [`Published`], [`Told`], [`Strangers`]. Never: an edit in place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use frejus_overlay::forward::{SLOT_BITS, Slot, Table};
use frejus_overlay::locator::Locator;
use frejus_overlay::timing::Instant;

/// The current table. Control swaps it whole; a thread holds a snapshot for one batch.
pub struct Published(ArcSwap<Table>);

impl Published {
    /// Begins with `table`.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        Self(ArcSwap::new(table))
    }

    /// What batches go by from now on.
    pub fn publish(&self, table: Arc<Table>) {
        self.0.store(table);
    }

    pub(super) fn snapshot(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }
}

/// For each peer the last place off its path that control was told of, so that it hears of a place once.
#[derive(Default)]
pub(super) struct Told(HashMap<u32, Locator>);

impl Told {
    /// Whether control has yet to hear that `slot`'s peer is at `from`.
    pub(super) fn is_news(&self, slot: &Slot, from: Locator) -> bool {
        self.0.get(&slot.index) != Some(&from)
    }

    /// Control knows. As many peers are remembered as there are slots.
    pub(super) fn remember(&mut self, slot: &Slot, from: Locator) {
        if self.0.len() >= 1 << SLOT_BITS && !self.0.contains_key(&slot.index) {
            self.0.clear();
        }
        self.0.insert(slot.index, from);
    }
}

/// Places remembered; two that fall together may both be told more than once a second.
const STRANGERS: usize = 256;
/// A stranger is told so once in this time.
const STRANGER_EVERY: Duration = Duration::from_secs(1);

/// Who was lately told that we don't know their session.
pub(super) struct Strangers {
    hash: RandomState,
    lately: Box<[Option<(SocketAddr, Instant)>]>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { hash: RandomState::new(), lately: vec![None; STRANGERS].into() }
    }
}

impl Strangers {
    /// Whether `from` may be told; if so, not again for a second.
    pub(super) fn admit(&mut self, from: SocketAddr, now: Instant) -> bool {
        let place = self.hash.hash_one(from) as usize % STRANGERS;
        let fresh = |(who, when): (SocketAddr, Instant)| who == from && now.since(when) < STRANGER_EVERY;
        if self.lately[place].is_some_and(fresh) {
            return false;
        }
        self.lately[place] = Some((from, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_once_a_second() {
        let mut strangers = Strangers::default();
        let from = "192.0.2.1:7".parse().unwrap();
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let told: Vec<_> = (0..30).filter(|n| strangers.admit(from, at(n * 100))).collect();
        assert_eq!(told, [0, 10, 20]);
        assert!(strangers.admit("192.0.2.1:8".parse().unwrap(), at(2950)));
    }
}
