//! When the machine wakes up from suspend.
//!
//! Owns: a timer that never ends, which the kernel cancels when calendar time leaps, as it does after suspend. The control
//! thread's own deadlines are measured in time that stands still meanwhile. Never: a reading of a clock.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// In two centuries and more.
const NEVER: Duration = Duration::from_secs(1 << 33);

/// A timer that tokio can wait for.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Tell whenever the machine may have slept, for as long as the current tokio runtime lives. Whoever sets the clock makes it
/// told as well.
///
/// # Errors
/// The kernel gives no such timer.
pub(crate) fn watch(mut awake: impl FnMut() + Send + 'static) -> io::Result<()> {
    let timer = timer()?;
    tokio::spawn(async move {
        while let Ok(mut ready) = timer.readable().await {
            // The error says what happened, and clears it.
            _ = timer.get_ref().0.wait();
            ready.clear_ready();
            awake();
        }
    });
    Ok(())
}

fn timer() -> io::Result<AsyncFd<Timer>> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let leaps = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(NEVER)), leaps)?;
    AsyncFd::new(Timer(timer))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn as_long_as_the_clock_runs_evenly_nothing_is_told() {
        let timer = timer().expect("the kernel has such timers");
        tokio::task::yield_now().await;
        assert!(timer.readable().now_or_never().is_none());
    }
}
