//! The daemon's clock: monotonic time that counts suspend, and calendar time.
//!
//! Owns: [`Clock`], the only place that asks the kernel what time it is. Never: a timer, a sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use frejus_overlay::timing::{Instant, Now, UnixTime};
use nix::time::{ClockId, clock_gettime};

/// Stands at zero when it is made; clones share the origin and the last reading.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Duration,
    /// The last reading anybody took, in microseconds since the origin.
    latest: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that stands at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: boottime(), latest: Arc::new(AtomicU64::new(0)) }
    }

    /// Both readings.
    #[must_use]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Now { instant: self.instant(), unix: UnixTime(unix) }
    }

    /// Monotonic time since the start, suspend included.
    #[must_use]
    pub fn instant(&self) -> Instant {
        let elapsed = boottime().saturating_sub(self.origin);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.latest.fetch_max(micros, Ordering::Relaxed);
        Instant::from_start(elapsed)
    }

    /// The latest reading that any clone took: for whoever must not ask the kernel once a packet. Every batch of
    /// packets begins with a reading, so it is as old as the batch.
    #[must_use]
    pub fn latest(&self) -> Instant {
        Instant::from_start(Duration::from_micros(self.latest.load(Ordering::Relaxed)))
    }
}

fn boottime() -> Duration {
    let reading = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Duration::from(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_reading_is_shared_between_clones() {
        let clock = Clock::start();
        let other = clock.clone();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.latest(), Instant::ZERO);
        let read = other.instant();
        assert!(read >= Instant::from_start(Duration::from_millis(2)));
        assert!(read.since(clock.latest()) < Duration::from_micros(1));
        assert!(clock.now().unix > UnixTime(1_700_000_000));
    }
}
