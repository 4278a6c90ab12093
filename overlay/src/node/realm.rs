//! The realm between our router and the Internet: a carrier's network, in which the router has an address that is not public.
//!
//! Owns: which place of ours in it is told, and which of a peer's are tried. Such an address means something to those who are
//! in the same realm, and another machine to everybody else; so it stands in no whereabouts, is told in sessions only, and is
//! tried by who may be in that realm: whoever the Internet sees at the same address, or knows of a carrier above its
//! own router, since one carrier has many addresses outside.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Method, Node};
use crate::document::{Candidate, CandidateKind, Whereabouts};
use crate::id::NodeId;
use crate::locator::{Endpoint, is_public};
use crate::peer::Peer;
use crate::timing::Now;

impl Node {
    /// The router says that this is its address on the far side, though it opens no port; `None`: it says nothing, or has
    /// opened one. A public one teaches nothing: super peers see it, with the port.
    pub fn handle_router(&mut self, at: Option<IpAddr>, now: Now) {
        self.advance(now);
        self.presence.set_router(at.filter(|ip| !is_public(*ip)), now.instant);
        self.finish();
    }

    /// Where a peer in a session may try us.
    pub(super) fn places_for_peers(&self) -> Vec<Candidate> {
        let mut places = self.presence.candidates();
        if let Some(middle) = self.presence.middle() {
            places.truncate(Whereabouts::MAX_CANDIDATES - 1);
            places.push(middle);
        }
        places
    }

    /// Those of the places that a peer names which can be its own for us.
    pub(super) fn worth_trying(&self, node: NodeId, candidates: &[Candidate]) -> Vec<Candidate> {
        let seen = |candidate: &&Candidate| is_seen(candidate.kind);
        let theirs = outer(candidates.iter().filter(seen).map(|candidate| candidate.at.ip()));
        let ours = outer(self.presence.observed().into_iter().map(|at| at.ip()));
        let apart = !ours.is_empty() && !theirs.is_empty() && ours.is_disjoint(&theirs);
        let may_be_near = !apart || self.presence.middle().is_some();
        let tried = |candidate: &&Candidate| {
            may_be_near
                || !is_seen(candidate.kind)
                || is_public(candidate.at.ip())
                || self.says_of_itself(node, candidate.at.into(), candidate.kind)
        };
        candidates.iter().filter(tried).copied().collect()
    }

    /// How a path was found that leads to an address which is not public.
    pub(super) fn method_inside(&self, node: NodeId, at: Endpoint) -> Method {
        let told = self.peers.get(&node).and_then(|peer: &Peer| peer.punch.told(&at.at));
        let opened = at.is_main() && self.presence.is_mapped_inside();
        match told {
            Some(method) => method,
            // From a port that it did not tell: it came in through our mapping.
            None if opened && !self.says_of_itself(node, at, CandidateKind::Host) => Method::Mapped,
            None => Method::Local,
        }
    }
}

const fn is_seen(kind: CandidateKind) -> bool {
    matches!(kind, CandidateKind::Reflexive | CandidateKind::Mapped)
}

/// The public IPv4 addresses: the routers that we speak of know no others.
fn outer(places: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
    places.filter(|ip| ip.is_ipv4() && is_public(*ip)).collect()
}
