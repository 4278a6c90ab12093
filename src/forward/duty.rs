//! Who reads the device: while there is little to do, one thread serves both directions.
//!
//! Owns: [`Duty`], the hand-over between the two threads of a pair. A thread that sleeps is woken at a price (on a
//! virtual machine, tens of microseconds), and an answer that the kernel gives at once is read by the thread that has
//! just delivered the question. As soon as there is much to do, each direction has its thread. Never: a packet read by
//! both at once, so that the order of a flow is kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::Duration;

use frejus_overlay::timing::Instant;
use nix::errno::Errno;

use super::Stop;
use super::outward::Outward;

/// A batch of so many bytes or packets is much: a core is busy with it for ten microseconds and more.
const MUCH_BYTES: usize = 16 << 10;
const MUCH_PACKETS: usize = 16;
/// The threads work apart for at least this long after the last big batch, so that they don't swing.
const APART: Duration = Duration::from_millis(100);

/// What a batch amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) packets: usize,
    pub(super) bytes: usize,
}

impl Amount {
    const fn is_much(self) -> bool {
        self.bytes >= MUCH_BYTES || self.packets >= MUCH_PACKETS
    }
}

/// The outward half of a pair, and whose duty it is.
pub(super) struct Duty {
    outward: Mutex<Outward>,
    apart: AtomicBool,
    /// When there last was much to do, in milliseconds since the start.
    much: AtomicU64,
}

impl Duty {
    /// Begins apart: the inward thread takes over when it hears of it.
    pub(super) const fn new(outward: Outward) -> Self {
        Self { outward: Mutex::new(outward), apart: AtomicBool::new(true), much: AtomicU64::new(0) }
    }

    /// Whether the inward thread reads the device as well.
    pub(super) fn is_together(&self) -> bool {
        !self.apart.load(Ordering::Acquire)
    }

    /// Takes note of a batch.
    pub(super) fn note(&self, amount: Amount, now: Instant) {
        if amount.is_much() {
            self.much.store(millis(now), Ordering::Relaxed);
        }
    }

    /// The inward thread, together: what the device has is sent. With much to do, or with a device that gives errors, the
    /// outward thread takes over.
    pub(super) fn serve(&self, inward: Amount, outward_thread: &Thread) {
        let served = match self.outward.try_lock() {
            Ok(mut outward) => outward.forward_ready(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().forward_ready(),
            Err(TryLockError::WouldBlock) => return,
        };
        let part = match served {
            Ok(outward) => outward.is_much() || inward.is_much(),
            Err(Errno::EAGAIN) => inward.is_much(),
            Err(_) => true,
        };
        if part {
            self.apart.store(true, Ordering::Release);
            outward_thread.unpark();
        }
    }

    /// The outward thread: reads the device while they are apart, sleeps while they are together. Until the end, or until
    /// the device is `lost`.
    pub(super) fn run(&self, stop: &Stop, lost: impl FnOnce()) {
        while !stop.is_set() {
            if self.is_together() {
                std::thread::park();
                continue;
            }
            let mut outward = self.outward.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let (done, now) = outward.forward_next();
                match done {
                    // The kernel has detached us from a device that somebody deleted.
                    Err(Errno::EBADFD) => return lost(),
                    Err(_) => {}
                    Ok(amount) => self.note(amount, now),
                }
                if stop.is_set() {
                    return;
                }
                let quiet_for =
                    Duration::from_millis(millis(now).saturating_sub(self.much.load(Ordering::Relaxed)));
                if done.is_ok() && quiet_for > APART {
                    break;
                }
            }
            drop(outward);
            self.apart.store(false, Ordering::Release);
            stop.kick();
        }
    }
}

fn millis(at: Instant) -> u64 {
    u64::try_from(at.since_start().as_millis()).unwrap_or(u64::MAX)
}
