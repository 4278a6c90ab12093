//! One lease: an address, its holder, and until when.
//!
//! Owns: [`Lease`] and the three states it passes through. Never: other leases.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// An address in somebody's hands; the line of a login server's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What is leased.
    pub address: Ipv4Addr,
    /// The node ID of the holder.
    pub holder: [u8; 32],
    /// End of the latest passport that names the address, in seconds since 1970-01-01 UTC.
    pub until: u64,
    /// The holder has given the address up, though its passport may still be valid.
    pub released: bool,
}

/// How a lease stands at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// The holder uses the address.
    Held,
    /// Ended or released; the address is kept for its holder, since passports and caches may still name it.
    Grace,
    /// Anyone may have the address.
    Free,
}

impl Lease {
    /// The state at `now`, in seconds since 1970-01-01 UTC, with `grace` seconds of grace.
    #[must_use]
    pub fn state(&self, now: u64, grace: u64) -> LeaseState {
        if now >= self.free_at(grace) {
            LeaseState::Free
        } else if self.released || now >= self.until {
            LeaseState::Grace
        } else {
            LeaseState::Held
        }
    }

    /// When the address goes back, in seconds since 1970-01-01 UTC. A release does not bring it forward: the
    /// passport that names the address can't be taken back from those who have it.
    #[must_use]
    pub fn free_at(&self, grace: u64) -> u64 {
        self.until.saturating_add(grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(released: bool) -> Lease {
        Lease { address: Ipv4Addr::new(10, 93, 0, 1), holder: [1; 32], until: 100, released }
    }

    #[test]
    fn a_lease_is_held_then_in_grace_then_free() {
        for (now, state) in [
            (0, LeaseState::Held),
            (99, LeaseState::Held),
            (100, LeaseState::Grace),
            (149, LeaseState::Grace),
            (150, LeaseState::Free),
        ] {
            assert_eq!(lease(false).state(now, 50), state, "at {now}");
        }
    }

    #[test]
    fn a_release_begins_the_grace_but_does_not_shorten_it() {
        assert_eq!(lease(true).state(0, 50), LeaseState::Grace);
        assert_eq!(lease(true).state(149, 50), LeaseState::Grace);
        assert_eq!(lease(true).state(150, 50), LeaseState::Free);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let forever = Lease { until: u64::MAX, ..lease(false) };
        assert_eq!(forever.state(u64::MAX - 1, u64::MAX), LeaseState::Held);
    }
}
