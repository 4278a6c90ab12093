//! The laws of the machine, asserted after every step of every story.
//!
//! Owns: [`Laws`]: what was seen so far, and the assertions. Never: a repair.

use std::collections::BTreeMap;

use frejus_overlay::timing::Instant;

use crate::app;
use crate::internet::HostId;

/// Inputs that one host may need at one instant before it is called a loop: a burst of packets, with room.
const SAME_INSTANT: u32 = 100_000;

/// Outputs that one input may have: a table change for each of thousands of peers would be a scan.
const OUTPUTS: usize = 4096;

/// What the laws remember.
#[derive(Clone, Debug, Default)]
pub struct Laws {
    now: Instant,
    /// When each host last had an input, and how many then.
    busy: BTreeMap<HostId, (Instant, u32)>,
    /// Steps judged.
    pub judged: u64,
}

impl Laws {
    /// Time never goes back.
    pub fn on_time(&mut self, now: Instant) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.now = now;
    }

    /// Before draining: queued output means a deadline that is not later than now.
    pub fn on_queued(&self, host: HostId, deadline: Option<Instant>) {
        let due = deadline.is_some_and(|deadline| deadline <= self.now);
        assert!(due, "host {} has output queued at {:?} and wants waking at {deadline:?}", host.0, self.now);
    }

    /// After draining.
    pub fn on_drained(&mut self, host: HostId, outputs: usize, was_timeout: bool, deadline: Option<Instant>) {
        self.judged += 1;
        assert!(outputs <= OUTPUTS, "host {} made {outputs} outputs of one input", host.0);
        if was_timeout {
            let later = deadline.is_none_or(|deadline| deadline > self.now);
            assert!(later, "host {} was woken at {:?} and wants waking at {deadline:?}", host.0, self.now);
        }
        let busy = self.busy.entry(host).or_default();
        *busy = if busy.0 == self.now { (self.now, busy.1 + 1) } else { (self.now, 1) };
        assert!(busy.1 < SAME_INSTANT, "host {} is in a loop at {:?}", host.0, self.now);
    }

    /// No plaintext leaves: neither an inner packet nor its payload.
    pub fn on_sent(&self, host: HostId, datagram: &[u8]) {
        // A data message's inner packet begins at 16, behind a relay header at 32; the mark behind its IP and UDP
        // headers.
        for begin in [0, 16, 32] {
            for header in [28, 48] {
                let mark = datagram.get(begin + header..).is_some_and(|rest| rest.starts_with(&app::MARK));
                assert!(!mark, "host {} sent plaintext at {:?}", host.0, self.now);
            }
        }
    }
}
