//! Streams: TCP connections to nodes that UDP does not reach.
//!
//! Owns: when one is wanted and to whom, which stand and whose they are, and when UDP is tried again. Never: how a stream
//! is made, or a choice between it and other paths, which is [`crate::score`]'s.
//!
//! A super peer that does not answer over UDP for [`AFTER_UDP`] is dialled over TCP as well; once UDP is known to be
//! blocked here, at once. Where UDP is blocked at one of two peers, each also dials the other while they have traffic,
//! instead of punching, and [`super::crossing`] does what dialling can't. A stream stays until UDP has carried everything for [`LINGER`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Method, Node, Output};
use crate::document::{Candidate, CandidateKind};
use crate::id::NodeId;
use crate::limits::STREAMS;
use crate::locator::{Endpoint, Locator, StreamId, Via, is_elsewhere, is_public};
use crate::peer::Peer;
use crate::stream::{Carrier, HTTPS, Reach, StreamEvent, Tried};
use crate::timing::Instant;

/// How long UDP has to itself: two attempts and a round trip to the other side of the world.
const AFTER_UDP: Duration = Duration::from_millis(700);
/// Pauses after a stream that ended or never stood; the last one repeats.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// UDP is tried this soon after a stream has stood, and again after twice as long each time: its answer may only have been
/// slow, or lost;
const UDP_SOON: Duration = Duration::from_secs(2);
/// then this often for as long as the stream is used. Twice as seldom each time that it worked only for a while, so that
/// nothing swings.
const UDP_AGAIN: Duration = Duration::from_secs(30);
const UDP_SELDOM: Duration = Duration::from_secs(480);
/// A stream beside a UDP path that took over is kept this long.
const LINGER: Duration = Duration::from_secs(60);
/// Addresses of one node that are tried: as many as over UDP.
const MAX_ADDRESSES: usize = 6;
/// Streams that one node may have opened to us: the one in use, and one that a change of its address left behind.
const OF_ONE: usize = 2;
/// From one of our numbers to the next ([`StreamId::is_ours`]).
const OURS: u32 = 2;

/// A stream that stands.
#[derive(Clone, Copy, Debug)]
struct Open {
    at: Endpoint,
    carrier: Carrier,
    /// Whom we dialled, or who has proved to be at the other end.
    node: Option<NodeId>,
    /// Both sides have connected at once.
    is_crossed: bool,
}

/// A node that we want to reach by a stream.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// Standing, or being dialled.
    id: Option<StreamId>,
    /// When to look at it again; while it is dialled, an event will come.
    next: Option<Instant>,
    tries: usize,
    /// Between tries of UDP.
    udp_again: Duration,
    /// Until the next early try, while those go on.
    early: Option<Duration>,
    /// UDP carries everything since then.
    superseded: Option<Instant>,
}

impl Wanted {
    const NEW: Self =
        Self { id: None, next: None, tries: 0, udp_again: UDP_AGAIN, early: None, superseded: None };
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<StreamId, Open>,
    wanted: BTreeMap<NodeId, Wanted>,
    next: u32,
    reach: Reach,
}

impl Streams {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.wanted.values().filter_map(|wanted| wanted.next).min()
    }

    /// A stream that leads to `node`, the newest.
    pub(super) fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        let all = self.open.values().rev();
        all.filter(|open| open.node == Some(node)).map(|open| open.at).next()
    }

    /// What carries an endpoint's datagrams; `None` for UDP.
    pub(super) fn carrier(&self, endpoint: Endpoint) -> Option<Carrier> {
        let Via::Stream(id) = endpoint.via else { return None };
        Some(self.open.get(&id).map_or(Carrier::Tcp, |open| open.carrier))
    }

    /// What gets through, if we opened this one.
    pub(super) fn shows(&self, endpoint: Endpoint) -> Option<Tried> {
        let Via::Stream(id) = endpoint.via else { return None };
        let carrier = self.open.get(&id).filter(|_| id.is_ours())?.carrier;
        let is_https = carrier == Carrier::Tls || endpoint.at.port() == HTTPS;
        Some(Tried::by(carrier, !is_https, is_https))
    }

    /// Whether both sides made it by connecting at once.
    pub(super) fn is_crossed(&self, endpoint: Endpoint) -> bool {
        let Via::Stream(id) = endpoint.via else { return false };
        self.open.get(&id).is_some_and(|open| open.is_crossed)
    }

    /// A number of ours.
    pub(super) const fn next_id(&mut self) -> StreamId {
        self.next = self.next.wrapping_add(OURS);
        StreamId(self.next)
    }

    fn want(&mut self, node: NodeId, at: Instant) {
        self.wanted.entry(node).or_insert(Wanted { next: Some(at), ..Wanted::NEW });
    }

    fn dialled(&self, id: StreamId) -> Option<NodeId> {
        self.wanted.iter().find(|(_, wanted)| wanted.id == Some(id)).map(|(node, _)| *node)
    }

    fn worked(&mut self, carrier: Carrier) {
        match carrier {
            Carrier::Tcp => self.reach.tcp = Some(true),
            // The others had a head start.
            Carrier::Tls => (self.reach.tcp, self.reach.tls443) = (Some(false), Some(true)),
            Carrier::Proxy => (self.reach.tcp, self.reach.tls443) = (Some(false), Some(false)),
        }
    }
}

impl Node {
    /// What became of a stream: one of ours, or one that was opened to us.
    pub fn handle_stream(&mut self, id: StreamId, event: StreamEvent, now: crate::timing::Now) {
        self.advance(now);
        match event {
            StreamEvent::Seen { at } => {
                let at: Vec<SocketAddr> = at.into_iter().flatten().collect();
                self.on_port_seen(id, &at);
            }
            StreamEvent::Open { at, carrier } => match self.crossing_by(id) {
                Some(node) => self.on_crossed(node, id, at),
                None => self.on_stream_open(id, at, carrier),
            },
            StreamEvent::Closed => self.on_stream_closed(id),
        }
        self.finish();
    }

    /// What gets through from here, as far as it was tried.
    #[must_use]
    pub fn reachability(&self) -> Reach {
        let udp = if self.is_udp_blocked() { Some(false) } else { self.hears_udp().then_some(true) };
        Reach { udp, ..self.streams.reach }
    }

    /// Whether the homes can be reached, and none of them over UDP.
    #[must_use]
    pub fn is_udp_blocked(&self) -> bool {
        let ids: Vec<NodeId> = self.homes.ids().collect();
        let streams = |node: &NodeId| self.peers.get(node).is_some_and(uses_stream);
        // A super peer whose way to another is blocked still hears those who live with it.
        !ids.is_empty() && ids.iter().all(streams) && !(self.is_super_peer() && self.hears_udp())
    }

    fn hears_udp(&self) -> bool {
        self.peers.values().any(|peer| peer.path().is_some_and(|path| !is_stream(path)))
    }

    /// A super peer is being dialled over UDP: let it have a stream if that stays without an answer.
    pub(super) fn consider_stream(&mut self, node: NodeId) {
        let now = self.now.instant;
        let blocked = self.is_udp_blocked();
        let Some(peer) = self.peers.get(&node).filter(|peer| peer.is_super_peer()) else { return };
        if let Some(dial) = peer.dial.as_ref().filter(|_| peer.path().is_none()) {
            let after = if blocked { now } else { now.max(dial.begun + AFTER_UDP) };
            self.streams.want(node, after);
        }
    }

    /// A direct path to a peer would be good, and punching is no use where UDP does not pass.
    pub(super) fn seek_stream(&mut self, node: NodeId) {
        let now = self.now.instant;
        if !self.wants_stream(node) {
            return;
        }
        if !self.addresses(node).is_empty() {
            self.streams.want(node, now);
        }
        if let Some(peer) = self.peer(node) {
            peer.crossing.seek(now);
        }
    }

    /// Our links changed: what was known of UDP is no longer true.
    pub(super) fn on_links_changed_for_streams(&mut self) {
        let now = self.now.instant;
        self.peers.values_mut().for_each(|peer| peer.crossing.forget());
        for wanted in self.streams.wanted.values_mut() {
            wanted.udp_again = UDP_AGAIN;
            wanted.tries = 0;
            wanted.next = wanted.next.map(|_| now);
        }
    }

    pub(super) fn on_streams_timeout(&mut self) {
        let now = self.now.instant;
        let due = |wanted: &Wanted| wanted.next.is_some_and(|at| at <= now);
        let due: Vec<NodeId> =
            self.streams.wanted.iter().filter(|(_, wanted)| due(wanted)).map(|(node, _)| *node).collect();
        for node in due {
            match self.streams.wanted.get(&node).and_then(|wanted| wanted.id) {
                None => self.dial_stream(node),
                Some(id) => self.review_stream(node, id),
            }
        }
    }

    /// Wants a stream now, unless nobody needs it any more.
    fn dial_stream(&mut self, node: NodeId) {
        let needed = self.peers.get(&node).is_some_and(|peer| match peer.path() {
            None => peer.dial.is_some() && peer.is_super_peer(),
            Some(path) => !path.is_direct() && peer.is_active(self.now.instant) && self.wants_stream(node),
        });
        let mut to = self.addresses(node);
        if !needed || to.is_empty() || self.streams.endpoint(node).is_some() {
            self.streams.wanted.remove(&node);
            return;
        }
        // Each is tried at its own number and at 443.
        to.retain(|at| {
            self.may_connect(node, *at) && self.may_connect(node, SocketAddr::new(at.ip(), HTTPS))
        });
        if to.is_empty() {
            return self.pause_stream(node);
        }
        let id = self.streams.next_id();
        if let Some(wanted) = self.streams.wanted.get_mut(&node) {
            (wanted.id, wanted.next) = (Some(id), None);
        }
        self.outputs.push_back(Output::OpenStream { id, to });
    }

    /// Where a node may listen for streams: where it does for datagrams, but for what only a NAT knows.
    fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        let Some(peer) = self.peers.get(&node) else { return Vec::new() };
        let candidates = peer.place.as_ref().map(|place| place.whereabouts.candidates.as_slice());
        let listens = |candidate: &&Candidate| match candidate.kind {
            CandidateKind::Host | CandidateKind::Mapped => true,
            CandidateKind::Reflexive => peer.is_super_peer(),
            CandidateKind::Relay => false,
        };
        let all = candidates.unwrap_or_default().iter().filter(listens).map(|candidate| candidate.at);
        let all = all.filter(|at| is_elsewhere(*at));
        all.take(MAX_ADDRESSES).collect()
    }

    /// A stream stands: is it used, and does UDP work meanwhile?
    fn review_stream(&mut self, node: NodeId, id: StreamId) {
        let now = self.now.instant;
        let Some(peer) = self.peers.get(&node).filter(|peer| peer.path().is_some() || peer.dial.is_some())
        else {
            return self.end_stream(id);
        };
        let Some(wanted) = self.streams.wanted.get_mut(&node) else { return };
        if let Some(since) = wanted.superseded {
            if now.since(since) >= LINGER {
                return self.end_stream(id);
            }
            wanted.next = Some(since + LINGER);
            return;
        }
        let early = wanted.early.filter(|early| *early < wanted.udp_again);
        wanted.early = early.map(|early| early * 2);
        wanted.next = Some(now + early.unwrap_or(wanted.udp_again));
        let can_probe = peer.path().is_some();
        for at in self.addresses(node).into_iter().filter(|_| can_probe) {
            let at = Endpoint::main(at);
            let method = self.method(node, Locator::Direct(at));
            self.try_at(node, at, method);
        }
        self.punch_beside_stream(node);
    }

    /// UDP to a node behind a NAT passes only if both send at once.
    fn punch_beside_stream(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node).filter(|peer| !peer.is_super_peer() && uses_stream(peer)) else {
            return;
        };
        peer.punch.join(now);
        self.tell_candidates(node, true);
    }

    /// A peer's traffic goes another way from here on.
    pub(super) fn on_path_for_streams(&mut self, node: NodeId, path: Locator) {
        let now = self.now.instant;
        let Some(wanted) = self.streams.wanted.get_mut(&node).filter(|wanted| wanted.id.is_some()) else {
            return;
        };
        // While it is dialled, an event will come.
        let stands = wanted.next.is_some();
        if is_stream(path) {
            if wanted.superseded.take().is_some() {
                wanted.udp_again = UDP_SELDOM.min(wanted.udp_again * 2);
                wanted.next = Some(now + wanted.udp_again);
            }
        } else if path.is_direct() && stands {
            wanted.superseded = Some(now);
            wanted.next = Some(now + LINGER);
        }
    }

    /// Both sides have connected at once: a stream like one that we dialled, unless another stands already.
    fn on_crossed(&mut self, node: NodeId, id: StreamId, at: SocketAddr) {
        let now = self.now.instant;
        if let Some(peer) = self.peer(node) {
            peer.crossing.stop();
        }
        let stands = self.streams.endpoint(node).is_some_and(|other| other.via != Via::Stream(id));
        if stands || self.streams.open.len() >= STREAMS {
            return self.end_stream(id);
        }
        if let Some(dialled) = self.streams.wanted.get(&node).and_then(|wanted| wanted.id) {
            self.end_stream(dialled);
        }
        let wanted =
            Wanted { id: Some(id), early: Some(UDP_SOON), next: Some(now + UDP_SOON), ..Wanted::NEW };
        self.streams.wanted.insert(node, wanted);
        let endpoint = Endpoint { via: Via::Stream(id), at };
        let open = Open { at: endpoint, carrier: Carrier::Tcp, node: Some(node), is_crossed: true };
        self.streams.open.insert(id, open);
        self.use_stream(node, endpoint);
    }

    fn on_stream_open(&mut self, id: StreamId, at: SocketAddr, carrier: Carrier) {
        let node = self.streams.dialled(id);
        let known = self.streams.open.contains_key(&id);
        let nobodys = node.is_none() && id.is_ours();
        if nobodys || (!known && self.streams.open.len() >= STREAMS) {
            return self.end_stream(id);
        }
        let endpoint = Endpoint { via: Via::Stream(id), at };
        let new = Open { at: endpoint, carrier, node, is_crossed: false };
        let open = self.streams.open.entry(id).or_insert(new);
        open.carrier = carrier;
        let Some(node) = node else { return };
        self.streams.worked(carrier);
        if let Some(wanted) = self.streams.wanted.get_mut(&node) {
            wanted.early = (wanted.udp_again <= UDP_AGAIN).then_some(UDP_SOON);
            let after = wanted.early.unwrap_or(wanted.udp_again);
            (wanted.next, wanted.tries, wanted.superseded) = (Some(self.now.instant + after), 0, None);
        }
        self.use_stream(node, endpoint);
    }

    /// A stream to a node stands: is the node there?
    fn use_stream(&mut self, node: NodeId, endpoint: Endpoint) {
        let Endpoint { via: Via::Stream(id), at } = endpoint else { return };
        let Some(peer) = self.peers.get(&node) else { return self.end_stream(id) };
        let method = match is_public(at.ip()) {
            _ if self.streams.is_crossed(endpoint) => Method::Punched,
            true => Method::Public,
            false => Method::Local,
        };
        match peer.path() {
            None => self.attempt(node),
            // UDP was only slow.
            Some(path) if path.is_direct() && !is_stream(path) => self.end_stream(id),
            Some(_) => self.try_at(node, endpoint, method),
        }
    }

    fn on_stream_closed(&mut self, id: StreamId) {
        let now = self.now.instant;
        if let Some(node) = self.streams.dialled(id) {
            self.pause_stream(node);
        } else if let Some(node) = self.crossing_by(id)
            && let Some(peer) = self.peer(node)
        {
            peer.crossing.failed(now);
        }
        self.lose_stream(id);
    }

    /// It is dialled again later.
    fn pause_stream(&mut self, node: NodeId) {
        let now = self.now.instant;
        if let Some(wanted) = self.streams.wanted.get_mut(&node) {
            let pause = PAUSES[wanted.tries.min(PAUSES.len() - 1)];
            wanted.tries += 1;
            (wanted.id, wanted.next) = (None, Some(now + pause));
        }
    }

    /// Something authentic came from a node by a stream: now we know whose that is.
    pub(super) fn on_stream_used(&mut self, node: NodeId, from: Locator) {
        let Locator::Direct(at) = from else { return };
        let Via::Stream(id) = at.via else { return };
        if self.streams.open.get(&id).is_some_and(|open| open.node.is_some())
            || self.streams.open.len() >= STREAMS + OF_ONE
        {
            return;
        }
        // What came through it may overtake the word that it stands.
        let open = self.streams.open.entry(id).or_insert(Open {
            at,
            carrier: Carrier::Tcp,
            node: None,
            is_crossed: false,
        });
        open.node = Some(node);
        self.outputs.push_back(Output::TrustStream(id));
        let theirs = |(id, open): &(&StreamId, &Open)| open.node == Some(node) && !id.is_ours();
        let theirs: Vec<StreamId> = self.streams.open.iter().filter(theirs).map(|(id, _)| *id).collect();
        for old in theirs.iter().rev().skip(OF_ONE) {
            self.end_stream(*old);
        }
    }

    /// The way straight to its other end does not answer any more.
    pub(super) fn on_stream_path_died(&mut self, way: Locator) {
        if let Locator::Direct(Endpoint { via: Via::Stream(id), .. }) = way {
            self.end_stream(id);
        }
    }

    /// Closes a stream, whether it stands or not, and forgets that it was wanted.
    pub(super) fn end_stream(&mut self, id: StreamId) {
        self.outputs.push_back(Output::CloseStream(id));
        if let Some(node) = self.streams.dialled(id) {
            self.streams.wanted.remove(&node);
        }
        self.lose_stream(id);
    }

    /// All paths that lead by it are gone, to its other end and through it.
    fn lose_stream(&mut self, id: StreamId) {
        let Some(open) = self.streams.open.remove(&id) else { return };
        let leads = |peer: &&Peer| peer.paths.iter().any(|path| path.locator.endpoint() == open.at);
        let nodes: Vec<NodeId> = self.peers.values().filter(leads).map(Peer::id).collect();
        for node in nodes {
            let Some(peer) = self.peer(node) else { continue };
            let had_path = peer.path().is_some();
            let gone = peer.paths.iter().map(|path| path.locator);
            let gone: Vec<Locator> = gone.filter(|locator| locator.endpoint() == open.at).collect();
            for locator in gone {
                peer.paths.remove(locator);
            }
            self.unlisted.insert(node);
            self.reselect(node);
            if had_path && self.peers.get(&node).is_some_and(|peer| peer.path().is_none()) {
                self.on_path_lost(node);
            }
        }
    }
}

fn uses_stream(peer: &Peer) -> bool {
    peer.path().is_some_and(|path| path.is_direct() && is_stream(path))
}

fn is_stream(path: Locator) -> bool {
    matches!(path.endpoint().via, Via::Stream(_))
}
