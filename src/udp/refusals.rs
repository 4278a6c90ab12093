//! Where segmentation was refused.
//!
//! Owns: the destinations, and until when runs to them go one by one. Never: a send.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::offload::RETRY;

/// Destinations remembered; beyond that many segmentation is off for all.
const MAX: usize = 64;

/// Destinations that get every datagram by itself.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Length of the list, to ask without a lock.
    count: AtomicUsize,
    list: Mutex<Vec<(SocketAddr, Instant)>>,
}

impl Refusals {
    /// Whether segments to `to` are to be sent one by one. The clock is read only while something is refused.
    pub(super) fn hold(&self, to: SocketAddr) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.hold_at(to, Instant::now())
    }

    /// Segments to `to` were refused.
    pub(super) fn add(&self, to: SocketAddr) {
        self.add_at(to, Instant::now());
    }

    /// How many destinations there are, and whether all others are meant too.
    pub(super) fn count(&self) -> (usize, bool) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return (0, false);
        }
        let mut list = self.lock();
        self.forget(&mut list, Instant::now());
        (list.len(), list.len() == MAX)
    }

    fn hold_at(&self, to: SocketAddr, now: Instant) -> bool {
        let mut list = self.lock();
        self.forget(&mut list, now);
        list.len() == MAX || list.iter().any(|(refused, _)| *refused == to)
    }

    fn add_at(&self, to: SocketAddr, now: Instant) {
        let mut list = self.lock();
        if list.len() < MAX && !list.iter().any(|(refused, _)| *refused == to) {
            list.push((to, now + RETRY));
        }
        self.count.store(list.len(), Ordering::Relaxed);
    }

    /// What is due is tried again.
    fn forget(&self, list: &mut Vec<(SocketAddr, Instant)>, now: Instant) {
        list.retain(|(_, until)| now < *until);
        self.count.store(list.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(SocketAddr, Instant)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_destination_is_spared_for_minutes_and_then_tried_again() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        assert!(!refusals.hold(at(1)));
        refusals.add_at(at(1), begin);
        assert!(refusals.hold_at(at(1), begin + RETRY / 2));
        assert!(!refusals.hold_at(at(2), begin + RETRY / 2), "the others are not concerned");
        assert_eq!(refusals.count(), (1, false));
        assert!(!refusals.hold_at(at(1), begin + RETRY));
        assert_eq!(refusals.count(), (0, false));
        refusals.add_at(at(1), begin + RETRY);
        assert!(refusals.hold_at(at(1), begin + RETRY), "refused again");
    }

    #[test]
    fn where_too_many_refuse_nobody_is_asked() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        for port in 0..200 {
            refusals.add_at(at(port), begin);
        }
        assert!(refusals.hold_at(at(1000), begin));
        assert_eq!(refusals.count(), (MAX, true));
        assert!(!refusals.hold_at(at(1000), begin + RETRY));
    }
}
