//! All 28 pairs of NAT classes once, by the code of `frejus-matrix`: connected always, direct where the oracle says so.
//!
//! Who speaks first alternates from pair to pair; `scripts/nat-matrix.sh` runs both directions, many times.

use std::sync::Mutex;

use frejus_netns::NatClass;
use frejus_netns::matrix::drive;
use frejus_netns::matrix::record::{Record, expected};
use frejus_oracle::Best;

/// Laboratories at a time: two suit two cores.
const AT_A_TIME: usize = 2;

/// A single run of a pair that needs luck may fail; the campaign counts how often.
const fn needs_luck(best: Best) -> bool {
    matches!(best, Best::Predicted | Best::Guessed)
}

/// The seven classes with themselves and each other; of two, the first to speak is now the one, now the other.
fn pairs() -> Vec<[NatClass; 2]> {
    let all = NatClass::ALL;
    let unordered =
        (0..all.len()).flat_map(|row| (row..all.len()).map(move |column| [all[row], all[column]]));
    unordered
        .enumerate()
        .map(|(at, [one, other])| if at % 2 == 0 { [one, other] } else { [other, one] })
        .collect()
}

/// What is wrong with a run; none if nothing is.
fn wrong(record: &Record, best: Best) -> Option<String> {
    let direct = record.kind == "direct";
    let found = record.found.iter().zip([record.a, record.b]).all(|(found, class)| found == class.word());
    if record.failure.is_some()
        || !record.connected
        || record.lost > 0
        || direct != best.is_direct()
        || direct && record.method != best.method()
        || !found
    {
        return Some(format!("{} -> {}, {best:?} expected: {record:?}", record.a, record.b));
    }
    None
}

/// Runs a pair, and once more if it needs luck and had none.
fn run(pair: [NatClass; 2], best: Best) -> Option<Record> {
    let first = drive::run(pair, 1, None)?;
    if needs_luck(best) && wrong(&first, best).is_some() {
        eprintln!("{} -> {}: once more after {first:?}", pair[0], pair[1]);
        return drive::run(pair, 2, None);
    }
    Some(first)
}

#[test]
fn all_28_pairs_do_what_the_oracle_says() {
    let pairs = pairs();
    assert_eq!(pairs.len(), 28);
    // The slowest first, so that no core waits for them in the end.
    let mut todo: Vec<_> = pairs.into_iter().map(|pair| (pair, expected(pair))).collect();
    todo.sort_by_key(|(_, best)| *best);
    let (todo, failed) = (Mutex::new(todo), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().expect("nobody panics with it").pop();
                    let Some((pair, best)) = next else { return };
                    let Some(record) = run(pair, best) else { return };
                    let took = record.direct_ms.map(|ms| format!(" after {ms:.0} ms")).unwrap_or_default();
                    eprintln!("{} -> {}: {} {}{took}", pair[0], pair[1], record.kind, record.method);
                    failed.lock().expect("nobody panics with it").extend(wrong(&record, best));
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panicked with it");
    assert!(failed.is_empty(), "{} of 28 pairs:\n{}", failed.len(), failed.join("\n"));
}
