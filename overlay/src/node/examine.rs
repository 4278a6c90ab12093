//! Examinations: a user asks why the path to a peer is what it is, and both sides are asked what they know.
//!
//! Owns: the questions under way. What follows from the answers is [`crate::doctor`]'s.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Answer, Examination, Failed, Node, Output, RequestId};
use crate::doctor::{Found, Side, diagnose};
use crate::id::NodeId;
use crate::limits::REQUESTS;
use crate::peer::Peer;
use crate::timing::Instant;
use crate::wire::control::Message;

/// A peer's answer is waited for so long; through a busy relay it takes a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// Users who wait for a peer's answer.
#[derive(Debug, Default)]
pub(super) struct Examinations {
    waiting: BTreeMap<u32, (RequestId, NodeId, Instant)>,
    next: u32,
}

impl Examinations {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.values().map(|(.., deadline)| *deadline).min()
    }
}

impl Node {
    /// A user wants to know about the path to `node`.
    pub(super) fn examine(&mut self, request: RequestId, node: NodeId) {
        if self.examinations.waiting.len() >= REQUESTS {
            return self.outputs.push_back(Output::Answer(request, Answer::Failed(Failed::Busy)));
        }
        let id = self.examinations.next;
        self.examinations.next = id.wrapping_add(1);
        if !self.send(node, &Message::Examine { id }) {
            return self.answer_examination(request, node, None);
        }
        self.examinations.waiting.insert(id, (request, node, self.now.instant + PATIENCE));
    }

    /// A peer's user wants to know.
    pub(super) fn on_examine(&mut self, by: NodeId, id: u32) {
        let side = self.side_towards(by);
        self.send(by, &Message::Examined { id, side });
    }

    /// The peer told of its side.
    pub(super) fn on_examined(&mut self, node: NodeId, id: u32, mut side: Side) {
        let asked = self.examinations.waiting.get(&id).filter(|(_, of, _)| *of == node);
        let Some((request, ..)) = asked.copied() else { return };
        self.examinations.waiting.remove(&id);
        side.external.truncate(Side::PLACES);
        side.tried.truncate(Side::TRIED);
        self.answer_examination(request, node, Some(side));
    }

    pub(super) fn on_examinations_timeout(&mut self) {
        let now = self.now.instant;
        let waiting = &self.examinations.waiting;
        let late = waiting.iter().filter(|(_, (.., deadline))| *deadline <= now);
        let late: Vec<(u32, RequestId, NodeId)> =
            late.map(|(id, (request, node, _))| (*id, *request, *node)).collect();
        for (id, request, node) in late {
            self.examinations.waiting.remove(&id);
            self.answer_examination(request, node, None);
        }
    }

    /// What we know of ourselves, and tried towards `node`.
    fn side_towards(&self, node: NodeId) -> Side {
        let mut external = self.presence.observed();
        external.truncate(Side::PLACES);
        let tried = self.peers.get(&node).map(|peer| peer.punch.tried().take(Side::TRIED).collect());
        Side {
            class: self.survey.class(),
            ports: self.own_ports(),
            external,
            mapped: self.presence.mapped().map(|mapped| mapped.protocol),
            careless: self.survey.is_careless(),
            udp: self.hears_super_peers_by_udp(),
            tried: tried.unwrap_or_default(),
        }
    }

    fn hears_super_peers_by_udp(&self) -> bool {
        self.is_super_peer()
            || self.survey.hears_udp()
            || self.homes.ids().any(|home| {
                let way = self.peers.get(&home).and_then(Peer::direct_remote);
                way.is_some_and(|way| way.is_main())
            })
    }

    fn answer_examination(&mut self, request: RequestId, node: NodeId, there: Option<Side>) {
        let path = self.path_view(node, self.now);
        let found = match &path {
            Some(path) if path.locator.is_direct() => {
                Found::Direct { method: path.method, over_tcp: path.carrier.is_some() }
            }
            Some(_) => Found::Relay,
            None => Found::Nothing,
        };
        let member = self.resolver.member(&node, self.now);
        let peer = member.map_or_else(|| node.short(), |member| member.passport.name.clone());
        let here = self.side_towards(node);
        let name = self.me.passport.name.clone();
        let diagnosis = diagnose(found, (&name, &here), (&peer, there.as_ref()));
        let view = Examination { name, peer, path, here, there, diagnosis };
        self.outputs.push_back(Output::Answer(request, Answer::Examined(Box::new(view))));
    }
}
