//! Questions about a world, as a user of its nodes would ask them.
//!
//! Owns: queries only. Never: a change.

use std::sync::atomic::Ordering;

use frejus_overlay::node::{PathView, PeerView, Status};
use frejus_overlay::timing::Instant;

use crate::world::{StreamId, World};

impl World {
    /// How a node says it stands; `None` if it does not run.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<Status> {
        let host = self.host(name);
        Some(host.node.as_ref()?.status(host.now(self.now())))
    }

    /// Whether this node says that it is ready.
    #[must_use]
    pub fn is_ready(&self, name: &str) -> bool {
        self.status(name).is_some_and(|status| status.ready)
    }

    /// Whether every node that runs says so.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.names().all(|(name, id)| self.hosts[id.0].node.is_none() || self.is_ready(name))
    }

    /// What a node says about a peer of this name.
    #[must_use]
    pub fn peer(&self, from: &str, to: &str) -> Option<PeerView> {
        let host = self.host(from);
        let peers = host.node.as_ref()?.peers(host.now(self.now()));
        peers.into_iter().find(|peer| peer.passport.name == to)
    }

    /// The path by which a node sends to a peer.
    #[must_use]
    pub fn path(&self, from: &str, to: &str) -> Option<PathView> {
        self.peer(from, to)?.path
    }

    /// Whether both send to each other directly.
    #[must_use]
    pub fn is_direct(&self, one: &str, other: &str) -> bool {
        let direct = |from, to| self.path(from, to).is_some_and(|path| path.locator.is_direct());
        direct(one, other) && direct(other, one)
    }

    /// Whether either of them sends through a relay.
    #[must_use]
    pub fn is_relayed(&self, one: &str, other: &str) -> bool {
        let relayed = |from, to| self.path(from, to).is_some_and(|path| !path.locator.is_direct());
        relayed(one, other) || relayed(other, one)
    }

    /// Frames that this super peer has relayed in this life.
    #[must_use]
    pub fn relayed(&self, name: &str) -> u64 {
        self.host(name).forwarding.counters.relayed.load(Ordering::Relaxed)
    }

    /// Letters of a stream sent in `[from, to)` that were never answered.
    #[must_use]
    pub fn unanswered(&self, stream: StreamId, from: Instant, to: Instant) -> usize {
        let answers = self.answers_of(stream);
        answers.iter().filter(|(at, took)| *at >= from && *at < to && took.is_none()).count()
    }

    /// When the first letter of a stream sent at `from` or later was sent that was answered.
    #[must_use]
    pub fn answered_again(&self, stream: StreamId, from: Instant) -> Option<Instant> {
        self.answers_of(stream).iter().find(|(at, took)| *at >= from && took.is_some()).map(|(at, _)| *at)
    }

    /// Letters that arrived twice, anywhere.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.hosts.iter().map(|host| host.mail.duplicates).sum()
    }
}
