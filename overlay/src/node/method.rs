//! How a path was found, in the words of [`Method`].
//!
//! Owns: the choice of the word. Never: a decision about a path.
//!
//! Who sent first is a matter of milliseconds; what was possible is not. So the words for straight paths follow from what
//! stands in front of both, as far as that is known, and both sides and every run say the same.

use super::{Method, Node};
use crate::document::{Candidate, CandidateKind, NatClass, Roles};
use crate::id::NodeId;
use crate::locator::{Endpoint, Locator, Via, is_public};

/// Whether whoever knows the address of a node of this class reaches it.
const fn reached_by_all(class: NatClass) -> bool {
    matches!(class, NatClass::Open | NatClass::FullCone)
}

impl Node {
    /// How a path that leads there must have been found.
    pub(super) fn method(&self, node: NodeId, at: Locator) -> Method {
        let Locator::Direct(at) = at else { return Method::Relayed };
        if self.streams.is_crossed(at) {
            return Method::Punched;
        }
        if !is_public(at.at.ip()) {
            self.method_inside(node, at)
        } else if self.is_reached_by_all(node, at) && self.is_super(node) {
            Method::Public
        } else if self.presence.is_outer(at.at.ip()) {
            Method::Hairpin
        } else if self.says_of_itself(node, at, CandidateKind::Mapped) {
            Method::Mapped
        } else if let Via::Stream(id) = at.via {
            // Whoever was dialled is reached by all, over TCP, whatever its class is for UDP.
            if id.is_ours() { Method::Public } else { Method::Reversed }
        } else if self.is_reached_by_all(node, at) {
            Method::Public
        } else if self.is_everybodys() {
            Method::Reversed
        } else if at.is_main()
            && self.presence.is_mapped()
            && !self.says_of_itself(node, at, CandidateKind::Reflexive)
        {
            // From a port that nobody could know, so nobody punched: it came in through our mapping.
            Method::Mapped
        } else {
            Method::Punched
        }
    }

    /// How a place was found at which the peer has just been heard.
    pub(super) fn method_at(&self, node: NodeId, at: Locator) -> Method {
        let guessed = self.peers.get(&node).and_then(|peer| peer.guess.method(at.endpoint()));
        guessed.unwrap_or_else(|| self.method(node, at))
    }

    /// How a place was found that has answered. A new list of candidates may have forgotten what it was when it was tried.
    pub(super) fn settle_method(&self, node: NodeId, at: Locator, tried: Method) -> Method {
        match (tried, self.method(node, at)) {
            (Method::Punched | Method::Mapped, Method::Hairpin) => Method::Hairpin,
            (Method::Punched | Method::Public | Method::Reversed, Method::Mapped) => Method::Mapped,
            _ => tried,
        }
    }

    /// What a user is told of a path: what is known of both NATs may be younger than the path.
    pub(super) fn told_method(&self, node: NodeId, at: Locator, found: Method) -> Method {
        match (found, self.method(node, at)) {
            _ if !at.is_direct() => Method::Relayed,
            (
                Method::Public | Method::Reversed | Method::Punched,
                known @ (Method::Public | Method::Reversed | Method::Punched),
            ) => known,
            _ => found,
        }
    }

    fn is_super(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.member.passport.roles.includes(Roles::SUPER_PEER))
    }

    /// Whether anybody could have sent there first.
    fn is_reached_by_all(&self, node: NodeId, at: Endpoint) -> bool {
        let place = self.peers.get(&node).and_then(|peer| peer.place.as_ref());
        let class = place.map_or(NatClass::Unknown, |place| place.whereabouts.nat);
        self.is_super(node)
            || reached_by_all(class)
            || class == NatClass::Unknown && self.says_of_itself(node, at, CandidateKind::Host)
    }

    /// Whether anybody could have sent to us first.
    fn is_everybodys(&self) -> bool {
        let class = self.survey.class();
        self.is_super_peer() || reached_by_all(class) || class == NatClass::Unknown && self.presence.is_open()
    }

    /// Whether that is a candidate of this kind in the peer's whereabouts.
    pub(super) fn says_of_itself(&self, node: NodeId, at: Endpoint, kind: CandidateKind) -> bool {
        let place = self.peers.get(&node).and_then(|peer| peer.place.as_ref());
        place.is_some_and(|place| place.whereabouts.candidates.contains(&Candidate { kind, at: at.at }))
    }
}
