//! The records that this node keeps: each one checked, bounded in size, number and life.
//!
//! Of two valid records under a key the one with the higher sequence stays. Expired records are never handed
//! out, and make room when room is needed. Nothing gets in but through [`Store::accept`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use frejus_overlay::id::RecordKey;
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey as KadKey};

use super::{Check, Checked};

/// The largest value of a record, in bytes.
pub const MAX_VALUE: usize = 4096;

/// Records kept at most: five keys for each of 5,500 nodes on every server, twice over.
const MAX_RECORDS: usize = 65_536;

/// Bytes of values kept at most: [`MAX_RECORDS`] of a kilobyte.
const MAX_BYTES: usize = 64 << 20;

/// Why a record was not kept, or not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the key is not 32 bytes long")]
    Key,
    #[error("the value has {0} bytes, more than {MAX_VALUE}")]
    Oversize(usize),
    #[error("{0}")]
    Invalid(String),
    #[error("it has expired")]
    Expired,
    #[error("a record with sequence {held} is held, this one has {offered}")]
    Stale { held: u64, offered: u64 },
    #[error("the store is full")]
    Full,
}

/// Checks `value` as a record for `key`: its size first, since that is cheap, then all that `check` knows.
pub(super) fn verify(check: &Check, key: &RecordKey, value: &[u8]) -> Result<Checked, Refusal> {
    if value.len() > MAX_VALUE {
        return Err(Refusal::Oversize(value.len()));
    }
    let checked = check(key, value).map_err(Refusal::Invalid)?;
    if checked.expires_in.is_zero() {
        return Err(Refusal::Expired);
    }
    Ok(checked)
}

struct Held {
    record: Record,
    sequence: u64,
}

/// The store; see the module.
pub(super) struct Store {
    check: Check,
    records: HashMap<KadKey, Held>,
    bytes: usize,
    max_records: usize,
    max_bytes: usize,
}

impl Store {
    pub(super) fn new(check: Check) -> Self {
        Self { check, records: HashMap::new(), bytes: 0, max_records: MAX_RECORDS, max_bytes: MAX_BYTES }
    }

    /// Keeps `record` until it expires, unless it is refused. The life that came with it can only shorten the
    /// one that the check grants; the very same value again renews its life.
    pub(super) fn accept(&mut self, mut record: Record, now: Instant) -> Result<(), Refusal> {
        let key = key_of(&record.key).ok_or(Refusal::Key)?;
        let checked = verify(&self.check, &key, &record.value)?;
        let limit = now + checked.expires_in;
        let mut expires = record.expires.map_or(limit, |asked| asked.min(limit));
        if expires <= now {
            return Err(Refusal::Expired);
        }
        let mut replaced = 0;
        if let Some(held) = self.records.get(&record.key).filter(|held| !held.record.is_expired(now)) {
            let same = held.record.value == record.value;
            if checked.sequence < held.sequence || (checked.sequence == held.sequence && !same) {
                return Err(Refusal::Stale { held: held.sequence, offered: checked.sequence });
            }
            if same {
                expires = held.record.expires.map_or(expires, |until| until.max(expires));
            }
            replaced = held.record.value.len();
        }
        self.make_room(&record, replaced, now)?;
        record.expires = Some(expires);
        self.bytes += record.value.len();
        let sequence = checked.sequence;
        if let Some(old) = self.records.insert(record.key.clone(), Held { record, sequence }) {
            self.bytes -= old.record.value.len();
        }
        Ok(())
    }

    /// Drops what has expired.
    pub(super) fn sweep(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.records.retain(|_, held| {
            let keep = !held.record.is_expired(now);
            if !keep {
                *bytes -= held.record.value.len();
            }
            keep
        });
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    fn make_room(&mut self, record: &Record, replaced: usize, now: Instant) -> Result<(), Refusal> {
        if self.has_room(record, replaced) {
            return Ok(());
        }
        self.sweep(now);
        if self.has_room(record, replaced) { Ok(()) } else { Err(Refusal::Full) }
    }

    fn has_room(&self, record: &Record, replaced: usize) -> bool {
        let others = self.records.len() - usize::from(self.records.contains_key(&record.key));
        let bytes = self.bytes - replaced.min(self.bytes);
        others < self.max_records && bytes + record.value.len() <= self.max_bytes
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> = Box<dyn Iterator<Item = Cow<'a, Record>> + 'a>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &KadKey) -> Option<Cow<'_, Record>> {
        let held = self.records.get(key).filter(|held| !held.record.is_expired(Instant::now()))?;
        Some(Cow::Borrowed(&held.record))
    }

    fn put(&mut self, record: Record) -> StoreResult<()> {
        self.accept(record, Instant::now()).map_err(|refusal| match refusal {
            Refusal::Full => Error::MaxRecords,
            // The trait knows no refusal but for room; the caller only learns that it is one.
            Refusal::Key
            | Refusal::Oversize(_)
            | Refusal::Invalid(_)
            | Refusal::Expired
            | Refusal::Stale { .. } => Error::ValueTooLarge,
        })
    }

    fn remove(&mut self, key: &KadKey) {
        if let Some(held) = self.records.remove(key) {
            self.bytes -= held.record.value.len();
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        let now = Instant::now();
        let alive = self.records.values().filter(move |held| !held.record.is_expired(now));
        Box::new(alive.map(|held| Cow::Borrowed(&held.record)))
    }

    fn add_provider(&mut self, _: ProviderRecord) -> StoreResult<()> {
        // The network has no provider records: whoever sends one fills nothing.
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &KadKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &KadKey, _: &PeerId) {}
}

/// The record key in libp2p's form.
pub(super) fn kad_key(key: &RecordKey) -> KadKey {
    KadKey::new(&key.0)
}

/// The record key behind libp2p's form; `None` if it has another length.
pub(super) fn key_of(key: &KadKey) -> Option<RecordKey> {
    key.as_ref().try_into().ok().map(RecordKey)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    const KEY: RecordKey = RecordKey([5; 32]);

    /// Valid values are `key[0], sequence, life in seconds, anything`.
    fn toy() -> Check {
        Arc::new(|key, value| match value {
            [first, sequence, life, ..] if *first == key.0[0] => Ok(Checked {
                sequence: u64::from(*sequence),
                expires_in: Duration::from_secs(u64::from(*life)),
            }),
            _ => Err("forged".to_owned()),
        })
    }

    fn record(value: &[u8]) -> Record {
        Record::new(kad_key(&RecordKey([value.first().copied().unwrap_or(0); 32])), value.to_vec())
    }

    fn value_of(store: &Store, key: &RecordKey) -> Option<Vec<u8>> {
        store.get(&kad_key(key)).map(|record| record.value.clone())
    }

    #[test]
    fn the_newest_sequence_stays() {
        let (mut store, now) = (Store::new(toy()), Instant::now());
        store.accept(record(&[5, 7, 60]), now).unwrap();
        let refused = store.accept(record(&[5, 6, 60]), now);
        assert_eq!(refused, Err(Refusal::Stale { held: 7, offered: 6 }));
        assert_eq!(
            store.accept(record(&[5, 7, 61]), now),
            Err(Refusal::Stale { held: 7, offered: 7 }),
            "another value of the same sequence"
        );
        store.accept(record(&[5, 8, 60]), now).unwrap();
        assert_eq!(value_of(&store, &KEY), Some(vec![5, 8, 60]));
        assert_eq!(store.bytes, 3);
    }

    #[test]
    fn bad_records_stay_out() {
        let (mut store, now) = (Store::new(toy()), Instant::now());
        let mut huge = vec![0; MAX_VALUE + 1];
        huge[..3].copy_from_slice(&[5, 1, 60]);
        assert_eq!(store.accept(record(&huge), now), Err(Refusal::Oversize(MAX_VALUE + 1)));
        huge.truncate(MAX_VALUE);
        assert_eq!(store.accept(record(&[5]), now), Err(Refusal::Invalid("forged".to_owned())));
        assert_eq!(store.accept(record(&[5, 1, 0]), now), Err(Refusal::Expired));
        let misplaced = Record::new(kad_key(&RecordKey([6; 32])), vec![5, 1, 60]);
        assert_eq!(store.accept(misplaced, now), Err(Refusal::Invalid("forged".to_owned())));
        let short = Record::new(KadKey::new(&[5u8; 31]), vec![5, 1, 60]);
        assert_eq!(store.accept(short, now), Err(Refusal::Key));
        assert_eq!(value_of(&store, &KEY), None);
        assert_eq!(store.accept(record(&huge), now), Ok(()), "the limit itself is allowed");
    }

    #[test]
    fn expired_records_are_never_handed_out() {
        let (mut store, now) = (Store::new(toy()), Instant::now());
        let past = now.checked_sub(Duration::from_secs(10)).unwrap();
        store.accept(record(&[5, 9, 5]), past).unwrap();
        assert_eq!(value_of(&store, &KEY), None);
        assert_eq!(store.records().count(), 0);
        store.accept(record(&[5, 1, 60]), now).unwrap();
        assert_eq!(value_of(&store, &KEY), Some(vec![5, 1, 60]), "an expired record blocks nothing");
        store.sweep(now + Duration::from_secs(61));
        assert_eq!((store.records.len(), store.bytes), (0, 0));
    }

    #[test]
    fn the_same_value_again_renews_the_life() {
        let (mut store, now) = (Store::new(toy()), Instant::now());
        let mut first = record(&[5, 1, 60]);
        first.expires = Some(now + Duration::from_secs(10));
        store.accept(first.clone(), now).unwrap();
        first.expires = Some(now + Duration::from_secs(3600));
        store.accept(first, now).unwrap();
        let until = store.get(&kad_key(&KEY)).unwrap().expires.unwrap();
        assert_eq!(until, now + Duration::from_secs(60), "longer, and not beyond what the check grants");
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let (mut store, now) = (Store::new(toy()), Instant::now());
        (store.max_records, store.max_bytes) = (2, 10);
        store.accept(record(&[1, 1, 60]), now).unwrap();
        store.accept(record(&[2, 1, 1]), now).unwrap();
        assert_eq!(store.accept(record(&[3, 1, 60]), now), Err(Refusal::Full));
        store.accept(record(&[1, 2, 60]), now).unwrap();
        let later = now + Duration::from_secs(2);
        store.accept(record(&[3, 1, 60]), later).unwrap();
        assert_eq!(store.records.len(), 2, "what had expired made room");
        let wide = record(&[3, 2, 60, 0, 0, 0, 0, 0]);
        assert_eq!(store.accept(wide, later), Err(Refusal::Full), "11 bytes of 10");
        assert_eq!(store.bytes, 6);
    }
}
