//! Packets that wait: for an answer of the resolver, or for a tunnel. A bounded queue; the oldest go first.

use std::collections::VecDeque;

use crate::limits::BACKLOG;

/// What waits for one destination.
#[derive(Debug, Default)]
pub(crate) struct Backlog(VecDeque<Vec<u8>>);

impl Backlog {
    /// Let a packet wait; `false` if the queue was full and the oldest had to go.
    pub(crate) fn push(&mut self, packet: Vec<u8>) -> bool {
        let fits = self.0.len() < BACKLOG;
        if !fits {
            self.0.pop_front();
        }
        self.0.push_back(packet);
        fits
    }

    /// Everything that waits, in the order it came.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Vec<u8>> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut backlog = Backlog::default();
        for n in 0..BACKLOG {
            assert!(backlog.push(vec![n as u8]));
        }
        assert!(!backlog.push(vec![0xff]));
        let packets: Vec<_> = backlog.drain().collect();
        assert_eq!(
            (packets.len(), &packets[0][..], &packets[BACKLOG - 1][..]),
            (BACKLOG, &[1][..], &[0xff][..])
        );
    }
}
