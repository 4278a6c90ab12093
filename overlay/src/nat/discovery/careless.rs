//! Whether the router takes for its own what comes in before the inside has spoken.
//!
//! Owns: one question more. A filter that keeps ports apart has kept the anchor's other port out. A careful router has dropped
//! those packets; a careless one has let them through to itself and keeps them as a flow, so that what the inside then says
//! to that port must leave by another. That is how it spoils punching, and how it is known.

use rand_core::Rng;

use super::{BARELY, Discovery, Request, Socket};
use crate::nat::Dependence;

impl Discovery {
    /// Ask the anchor's other port once it is sure that it was kept out.
    pub(super) fn ask_who_was_kept_out(&mut self, rng: &mut impl Rng) {
        if let Some((server, to)) = self.anchor.map(|(at, ..)| at).zip(self.kept_out())
            && self.wants_to_know_carelessness()
        {
            self.request(Socket::Filtering, server, to, rng);
        }
    }

    /// Whether nothing more is to be learnt of the filter.
    pub(super) fn filter_is_known(&self) -> bool {
        self.filtering_settled() && !self.wants_to_know_carelessness()
    }

    /// Whether a request goes to a super peer's other port.
    pub(super) fn is_to_other_port(&self, request: &Request) -> bool {
        request.to != self.servers[request.server].at
    }

    /// Whether that question is to come.
    fn wants_to_know_carelessness(&self) -> bool {
        self.filtering_settled()
            && self.kept_out().is_some()
            && self.late_word().is_none()
            && self.is_translated() == Some(true)
            && self.mapping(&self.seen(), &mut Vec::new()).0 == Dependence::Endpoint
    }

    /// The anchor's other port, if it was kept out.
    fn kept_out(&self) -> Option<std::net::SocketAddr> {
        let (anchor, ..) = self.anchor?;
        let tried =
            !self.alternate.arrived && !self.stranger.arrived && self.alternate.confirmed.len() >= BARELY;
        let other = |request: &&Request| {
            request.from == Socket::Mapping && request.server == anchor && self.is_to_other_port(request)
        };
        self.requests.iter().find(other).map(|request| request.to).filter(|_| tried)
    }

    /// That question. From then on the filter lets the other port in, which says nothing any more.
    pub(super) fn late_word(&self) -> Option<&Request> {
        let late = |request: &&Request| request.from == Socket::Filtering && self.is_to_other_port(request);
        self.requests.iter().find(late)
    }

    /// What was found; `None` where nothing was kept out, or where every destination gets another port anyway.
    pub(super) fn is_careless(&self) -> Option<bool> {
        let (late, _) = self.late_word()?.answer?;
        Some(late.port() != self.anchor?.1.port())
    }
}
