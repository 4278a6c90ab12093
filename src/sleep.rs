//! When the machine wakes up from suspend.
//!
//! Owns: a timer that never ends, which the kernel cancels when calendar time leaps, as it does after suspend, and a thread
//! that waits for it. The control thread's own deadlines are measured in time that stands still meanwhile. Never: a reading
//! of a clock.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// In two centuries and more.
const NEVER: Duration = Duration::from_secs(1 << 33);

/// Tell whenever the machine may have slept, for as long as `awake` says `true`. Whoever sets the clock makes it told as well.
///
/// # Errors
/// The kernel gives no such timer, or no thread.
pub(crate) fn watch(mut awake: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let timer = timer(TimerFlags::TFD_CLOEXEC)?;
    let wait = move || {
        // That the timer was cancelled comes as success: nix hides which it was, and it does not end in our time.
        while matches!(timer.wait(), Ok(()) | Err(Errno::ECANCELED | Errno::EINTR)) && awake() {}
    };
    std::thread::Builder::new().name("sleep".to_owned()).spawn(wait).map(|_| ())
}

fn timer(flags: TimerFlags) -> io::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
    let leaps = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(NEVER)), leaps)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_such_a_timer_and_it_does_not_end() {
        let timer = timer(TimerFlags::TFD_NONBLOCK).expect("Linux has had it since 3.0");
        assert_eq!(timer.wait(), Err(Errno::EAGAIN));
    }

    /// Whether the machine's clock was set, to what it shows already: what a resume does to such timers, as far as they can
    /// tell. Only root may.
    fn nudge_the_clock() -> bool {
        let clock = nix::time::ClockId::CLOCK_REALTIME;
        let set = nix::time::clock_gettime(clock).and_then(|now| nix::time::clock_settime(clock, now));
        let required = std::env::var("NETNS").is_ok_and(|value| value == "required");
        assert!(!required || set.is_ok(), "this machine's clock can't be set: {set:?}");
        set.is_ok()
    }

    #[test]
    fn a_leap_of_the_clock_is_told_each_time_until_nobody_listens() {
        let (tell, told) = crossbeam_channel::unbounded();
        watch(move || tell.send(()).is_ok()).expect("a timer and a thread");
        let patience = Duration::from_secs(10);
        for _ in 0..3 {
            if !nudge_the_clock() {
                println!("SKIPPED: only root may set the clock");
                return;
            }
            told.recv_timeout(patience).expect("it is told");
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "once");
        }
        drop(told);
    }
}
