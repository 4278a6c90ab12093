//! Waiting for a state, never for time. The only place of the laboratory that sleeps between two looks.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two looks at a state: short against every figure that is printed, long against a look.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at `state` until it is there and returns it with the time that it took.
///
/// # Panics
/// When `limit` has passed; limits are generous, they tell a hang from slowness and nothing else.
pub fn wait_for_timed<T>(what: &str, limit: Duration, mut state: impl FnMut() -> Option<T>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return (found, start.elapsed());
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        sleep(PAUSE);
    }
}

/// As [`wait_for_timed`], where it is no failure that the state does not come; `None` after `limit`.
pub fn look_for<T>(limit: Duration, mut state: impl FnMut() -> Option<T>) -> Option<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return Some((found, start.elapsed()));
        }
        if start.elapsed() >= limit {
            return None;
        }
        sleep(PAUSE);
    }
}

/// As [`wait_for_timed`], for a condition.
pub fn wait_for(what: &str, limit: Duration, mut state: impl FnMut() -> bool) -> Duration {
    wait_for_timed(what, limit, || state().then_some(())).1
}

/// Lets real time pass where time itself is the state: a validity that ends, a NAT mapping that is forgotten.
pub fn let_pass(_why: &str, time: Duration) {
    sleep(time);
}
