//! The trial: whether TCP gets through to super peers, asked by a user.
//!
//! Owns: when it is tried, and to whom. Never: a stream that stays, which is [`super::stream`]'s, or how one is opened.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Node, Output};
use crate::document::CandidateKind;
use crate::id::NodeId;
use crate::locator::Locator;
use crate::peer::Peer;
use crate::stream::{TRIAL, Tried};
use crate::timing::{Instant, Now};

/// Whoever asks gets a result that is no older than this.
const FRESH: Duration = Duration::from_secs(5);
/// The result may come so much later than it was promised.
const SLACK: Duration = Duration::from_millis(150);
/// Super peers that are tried.
const SUPER_PEERS: usize = 2;
/// Addresses of each.
const ADDRESSES: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trial {
    begun: Option<Instant>,
    /// While it runs.
    deadline: Option<Instant>,
    nodes: Vec<NodeId>,
    found: Tried,
}

impl Trial {
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) const fn is_running(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether it went to this super peer.
    pub(super) fn concerns(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }
}

impl Node {
    /// What streams reached that were opened for [`Output::TryStreams`].
    pub fn handle_tried(&mut self, tried: Tried, now: Now) {
        self.advance(now);
        if self.trial.deadline.take().is_some() {
            self.trial.found = tried;
            self.answer_netchecks();
        }
        self.finish();
    }

    pub(super) fn on_trial_timeout(&mut self) {
        if self.trial.deadline.take_if(|at| *at <= self.now.instant).is_some() {
            self.answer_netchecks();
        }
    }

    /// Tries, unless that was done a moment ago.
    pub(super) fn begin_trial(&mut self) {
        let now = self.now.instant;
        if self.trial.begun.is_some_and(|begun| now.since(begun) < FRESH) {
            return;
        }
        let homes: Vec<NodeId> = self.homes.ids().collect();
        let me = self.me.passport.node;
        let others = self.homes.known().map(|place| place.passport.node);
        let others = others.filter(|node| *node != me && !homes.contains(node));
        let all = homes.iter().copied().chain(others);
        let to = all.map(|node| (node, self.trial_addresses(&node))).filter(|(_, to)| !to.is_empty());
        let (nodes, to): (Vec<NodeId>, Vec<Vec<SocketAddr>>) = to.take(SUPER_PEERS).unzip();
        let begun = (!nodes.is_empty()).then_some(now);
        let deadline = begun.map(|begun| begun + TRIAL + SLACK);
        self.trial = Trial { begun, deadline, nodes, found: Tried::default() };
        if self.trial.is_running() {
            self.outputs.push_back(Output::TryStreams(to.concat()));
        }
    }

    /// Where a super peer listens, the address in use first.
    pub(super) fn trial_addresses(&self, node: &NodeId) -> Vec<SocketAddr> {
        let Some(place) = self.homes.place(node) else { return Vec::new() };
        let used = self.peers.get(node).and_then(Peer::direct_remote);
        let used = used.map(|remote| remote.at.ip().to_canonical());
        let listens = place.whereabouts.candidates.iter().filter(|c| c.kind != CandidateKind::Relay);
        let mut all: Vec<SocketAddr> = listens.map(|candidate| candidate.at).collect();
        all.sort_by_key(|at| Some(at.ip().to_canonical()) != used);
        all.truncate(ADDRESSES);
        all
    }

    /// What the trial found, and what streams show that are in use.
    pub(super) fn reached_over_tcp(&self) -> Tried {
        let paths = self.homes.ids().filter_map(|home| self.peers.get(&home)?.path());
        let shown = paths.filter(Locator::is_direct).filter_map(|path| self.streams.shows(path.endpoint()));
        shown.fold(self.trial.found, Tried::or)
    }
}
