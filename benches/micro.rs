//! The hot functions by the clock: `cargo bench --bench micro`, or with the beginning of a name behind it.
//! A noisy machine moves these by a tenth; `scripts/instructions.sh` shows smaller changes.

mod subjects;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

/// Runs that are prepared together; below the replay window, and within the second-level cache.
const CHUNK: u64 = 256;

fn timed(subject: &mut dyn subjects::Subject, runs: u64) -> Duration {
    let mut total = Duration::ZERO;
    let mut left = runs;
    while left > 0 {
        let chunk = left.min(CHUNK);
        subject.prepare(usize::try_from(chunk).expect("a chunk is small"));
        let start = Instant::now();
        for _ in 0..chunk {
            subject.run();
        }
        total += start.elapsed();
        left -= chunk;
    }
    total
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    for entry in subjects::all() {
        let (group, variant) = entry.name.split_once('/').unwrap_or((&entry.name, ""));
        let mut group = criterion.benchmark_group(group);
        if entry.bytes > 0 {
            group.throughput(Throughput::Bytes(entry.bytes));
        }
        group.bench_function(variant, |bencher| {
            let mut subject = (entry.make)();
            bencher.iter_custom(|runs| timed(&mut *subject, runs));
        });
        group.finish();
    }
    criterion.final_summary();
}
