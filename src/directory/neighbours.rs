//! The nodes that the control plane named, and when to dial them again.
//!
//! They are the way into the table when it is empty, and back into it after an outage. Never dials itself, and
//! never forgets a neighbour because it does not answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

/// Neighbours remembered: as many as the daemon keeps on disk.
const NEIGHBOURS: usize = 200;

/// Neighbours dialled in one try: one that answers is enough, three rarely fail together.
const DIALLED_AT_ONCE: usize = 3;

/// The first wait after a loss.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest wait: a super peer that comes back is found again within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// A node and where it serves the directory.
pub(super) type Neighbour = (PeerId, Vec<Multiaddr>);

/// The named nodes, least recently tried first, and the back-off between tries.
pub(super) struct Neighbours {
    known: VecDeque<Neighbour>,
    wait: Duration,
    due: Option<Instant>,
}

impl Neighbours {
    pub(super) fn new() -> Self {
        Self { known: VecDeque::new(), wait: SHORTEST, due: None }
    }

    /// Remembers a node, or its new addresses; beyond the bound the oldest goes.
    pub(super) fn name(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.known.retain(|(known, _)| *known != peer);
        if self.known.len() >= NEIGHBOURS {
            self.known.pop_front();
        }
        self.known.push_back((peer, addresses));
    }

    pub(super) fn is_named(&self, peer: &PeerId) -> bool {
        self.known.iter().any(|(known, _)| known == peer)
    }

    /// All the addresses of all the named nodes.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        self.known.iter().flat_map(|(_, addresses)| addresses)
    }

    /// The next few to dial, in turn.
    pub(super) fn next_few(&mut self) -> Vec<Neighbour> {
        self.due = None;
        let few = self.known.len().min(DIALLED_AT_ONCE);
        let chosen = self.known.iter().take(few).cloned().collect();
        self.known.rotate_left(few);
        chosen
    }

    /// No connection is left, or a dial failed: the next try comes after a wait that doubles with each loss.
    /// `jitter` in 0..=255 stretches the wait by up to half, so that a crowd does not come back in step.
    pub(super) fn on_lost(&mut self, now: Instant, jitter: u8) {
        if self.due.is_none() && !self.known.is_empty() {
            self.due = Some(now + self.wait + self.wait * u32::from(jitter) / 512);
            self.wait = (self.wait * 2).min(LONGEST);
        }
    }

    /// Somebody serves us: no need to dial, and the next loss starts from the shortest wait.
    pub(super) fn on_connected(&mut self) {
        self.wait = SHORTEST;
        self.due = None;
    }

    /// When to take [`Self::next_few`], if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Neighbours {
        let mut neighbours = Neighbours::new();
        for _ in 0..count {
            neighbours.name(PeerId::random(), Vec::new());
        }
        neighbours
    }

    #[test]
    fn waits_double_up_to_a_minute_and_start_again() {
        let (mut neighbours, now) = (named(1), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            neighbours.on_lost(now, 0);
            neighbours.on_lost(now, 255);
            waits.push((neighbours.due().unwrap() - now).as_secs());
            neighbours.next_few();
            assert_eq!(neighbours.due(), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        neighbours.on_connected();
        neighbours.on_lost(now, 255);
        let wait = neighbours.due().unwrap() - now;
        assert!(wait > SHORTEST && wait < SHORTEST * 3 / 2, "jitter: {wait:?}");
    }

    #[test]
    fn everybody_gets_a_turn() {
        let mut neighbours = named(7);
        let mut tried: Vec<PeerId> = Vec::new();
        for _ in 0..3 {
            tried.extend(neighbours.next_few().into_iter().map(|(peer, _)| peer));
        }
        tried.sort();
        tried.dedup();
        assert_eq!(tried.len(), 7);
    }

    #[test]
    fn the_list_is_bounded_and_names_are_unique() {
        let mut neighbours = named(NEIGHBOURS);
        let peer = PeerId::random();
        neighbours.name(peer, vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()]);
        neighbours.name(peer, vec!["/ip4/192.0.2.2/tcp/1".parse().unwrap()]);
        assert_eq!(neighbours.known.len(), NEIGHBOURS);
        assert!(neighbours.is_named(&peer));
        let (_, addresses) = neighbours.known.back().unwrap();
        assert_eq!(addresses[0].to_string(), "/ip4/192.0.2.2/tcp/1");
    }

    #[test]
    fn nobody_to_dial_is_never_due() {
        let mut neighbours = named(0);
        neighbours.on_lost(Instant::now(), 0);
        assert_eq!(neighbours.due(), None);
    }
}
