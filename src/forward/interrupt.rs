//! Waking a thread that sleeps in a system call.
//!
//! Owns: the signal and its empty handler. Never: what the thread then does; it looks at a flag.
#![allow(unsafe_code, reason = "sigaction has no safe wrapper")]

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Nothing else in this program uses it.
pub(super) const WAKE: Signal = Signal::SIGUSR2;

extern "C" fn nothing(_: i32) {}

/// From here on [`WAKE`] makes a blocking call end with `EINTR`, and does nothing else.
///
/// # Errors
/// None that the kernel's documentation knows for this signal.
pub(super) fn install() -> io::Result<()> {
    // Without SA_RESTART the call is not begun again.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler touches nothing, so it is safe at any point of any thread.
    unsafe { sigaction(WAKE, &action) }?;
    Ok(())
}
