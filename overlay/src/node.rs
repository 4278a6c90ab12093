//! The node: one sans-IO state machine. Time and bytes in; datagrams, tables, commands and deadlines out.
//!
//! Owns: the peers and who wakes when; it routes inputs to the parts and carries out what they want. Never: a clock,
//! a socket, randomness beyond its seed.
//!
//! The contract: after every input, drain [`Node::poll_output`], then sleep until [`Node::poll_timeout`] and
//! call [`Node::handle_timeout`]. The laws are in the crate's documentation.

mod ask;
mod crossing;
mod dial;
mod doors;
mod early;
mod examine;
mod guess;
mod home;
mod io;
mod keys;
mod method;
mod presence;
mod realm;
mod reflect;
mod request;
mod serve;
mod session;
mod stream;
mod survey;
mod trial;
mod view;
mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::backlog::Backlog;
use crate::document::{Genesis, Invalid, Member, Network, Roles, Signed, Verified};
use crate::forward::{Exception, SlotId, Table};
use crate::id::{NodeId, Subject, TunnelKey};
use crate::limits::DIAL_LIMIT;
use crate::locator::{Endpoint, Locator};
use crate::login::LoginServer;
use crate::mapping::Mapped;
use crate::peer::Peer;
use crate::port::Reply;
use crate::relay::server::{Channels, RelayTable};
use crate::resolver::{self, Resolver};
use crate::timing::{Instant, Now};
use crate::tunnel::Crypto;
use crate::verdict::{Counters, Drop};
use crate::wire;

use ask::Askers;
use doors::Doors;
use early::Overtakers;
use examine::Examinations;
use home::Homes;
use presence::Presence;
use reflect::Reflections;
use request::Requests;
use serve::Served;
use stream::Streams;
use survey::Survey;
use trial::Trial;

pub use io::*;

/// Rounds of one timeout: a path dies, its peer dials, the dial asks the resolver; more is a defect.
const ROUNDS: usize = 8;

/// Whoever is called so much later than it wanted has slept with the whole machine, or was stopped: what was open may be
/// closed, and where we are may be elsewhere.
const SLEPT: Duration = Duration::from_secs(2);

/// See the module.
pub struct Node {
    network: Network,
    genesis: Signed<Genesis>,
    key: SigningKey,
    me: Verified<Member>,
    own6: Ipv6Addr,
    crypto: Box<dyn Crypto>,
    rng: ChaCha20Rng,
    counters: Arc<Counters>,
    /// Of the TUN device, in bytes.
    device_mtu: u16,
    now: Now,

    peers: BTreeMap<NodeId, Peer>,
    slots: Vec<Option<NodeId>>,
    by_key: BTreeMap<TunnelKey, NodeId>,
    by_remote: BTreeMap<Endpoint, NodeId>,
    /// Who knocked from where, lately: their handshakes are right behind.
    knockers: VecDeque<(Endpoint, NodeId)>,
    overtakers: Overtakers,
    wakes: BTreeSet<(Instant, NodeId)>,
    /// Peers whose deadline may have moved during this input.
    touched: BTreeSet<NodeId>,

    resolver: Resolver,
    waiting: BTreeMap<Subject, Backlog>,
    askers: Askers,
    requests: Requests,
    homes: Homes,
    streams: Streams,
    presence: Presence,
    served: Served,
    reflections: Reflections,
    survey: Survey,
    trial: Trial,
    channels: Channels,
    doors: Doors,
    examinations: Examinations,
    login: Option<LoginServer>,

    /// What forwarding knows; a copy is published whenever it changes.
    table: Table,
    /// Peers of whom it does not know the latest.
    unlisted: BTreeSet<NodeId>,
    /// Whether channels that we relay came or went.
    channels_changed: bool,
    /// Whether the table has changed since it was last published.
    table_stale: bool,
    outputs: VecDeque<Output>,
}

impl Node {
    /// A node that knows nobody yet but the super peers in `config`.
    ///
    /// # Errors
    /// The first link of its own credential that does not hold: expired, or this machine's clock is wrong.
    pub fn new(
        config: Config,
        crypto: Box<dyn Crypto>,
        counters: Arc<Counters>,
        now: Now,
    ) -> Result<Self, Invalid> {
        let me = config.credential.verify(&config.network, now.unix)?;
        if me.passport.node.0 != config.key.verifying_key().to_bytes() {
            return Err(Invalid::Subject);
        }
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let first_id = rng.next_u32() >> 1;
        let own6 = me.passport.node.address6(&config.network.id);
        let mut node = Self {
            table: Table::new(me.passport.address4, own6, [], RelayTable::default()),
            own6,
            resolver: Resolver::new(config.network.clone(), first_id),
            homes: Homes::new(&config.known, &config.network, me.passport.node, now),
            presence: Presence::new(config.advertise, config.directory_port, now.instant),
            served: Served::new(now.instant),
            reflections: Reflections::default(),
            survey: Survey::default(),
            trial: Trial::default(),
            channels: Channels::new(config.relay_rate),
            doors: Doors::default(),
            examinations: Examinations::default(),
            streams: Streams::default(),
            login: config.login,
            network: config.network,
            genesis: config.genesis,
            key: config.key,
            me,
            crypto,
            rng,
            counters,
            device_mtu: config.mtu,
            now,
            peers: BTreeMap::new(),
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            by_remote: BTreeMap::new(),
            knockers: VecDeque::new(),
            overtakers: Overtakers::default(),
            wakes: BTreeSet::new(),
            touched: BTreeSet::new(),
            waiting: BTreeMap::new(),
            askers: Askers::default(),
            requests: Requests::default(),
            unlisted: BTreeSet::new(),
            channels_changed: false,
            table_stale: true,
            outputs: VecDeque::new(),
        };
        node.issue_whereabouts();
        node.announce_neighbours();
        node.finish();
        Ok(node)
    }

    /// Something that forwarding could not finish.
    pub fn handle_exception(&mut self, exception: Exception, now: Now) {
        self.advance(now);
        match exception {
            Exception::Unroutable { packet } => self.route(packet),
            Exception::Datagram { from, bytes } => self.on_datagram(from, &bytes),
            Exception::Control { slot, from, packet } => self.on_control(slot, from, &packet),
            Exception::Established { slot, from } => {
                if let Some(node) = self.by_slot(slot) {
                    self.on_established(node, from);
                }
            }
            Exception::Strayed { slot, from } => self.on_strayed(slot, from),
            Exception::Woken { slot } => self.on_woken(slot),
            Exception::Stranger { from } => {
                self.transmit(Locator::Direct(from), &wire::frame(wire::STRANGER, &[]));
            }
        }
        self.finish();
    }

    /// The directory answered.
    pub fn handle_reply(&mut self, reply: Reply, now: Now) {
        self.advance(now);
        self.presence.handle_reply(&reply, now.instant);
        self.resolver.handle_reply(&reply, now);
        self.finish();
    }

    /// Our UDP addresses on local interfaces, at the start and whenever they change.
    pub fn handle_links(&mut self, local: Vec<SocketAddr>, now: Now) {
        self.advance(now);
        let first = self.presence.is_nowhere();
        if self.presence.set_local(local, now.instant) {
            if first {
                // Whoever calls meanwhile would be told that we are nowhere, and remember it.
                self.issue_whereabouts();
                self.presence.publish_soon(now.instant);
            }
            // The addresses at which STUN is answered stand in it.
            self.table_stale = true;
            self.on_moved();
            if !first {
                self.survey_anew();
            }
        }
        self.finish();
    }

    /// The router opened a port for us, or has none for us any more.
    pub fn handle_mapping(&mut self, mapped: Option<Mapped>, now: Now) {
        self.advance(now);
        self.presence.set_mapped(mapped, now.instant);
        self.finish();
    }

    /// Datagrams leave another way than before, as after a change of the default route, or the router has forgotten
    /// everything: whatever stands between us and the others knows nothing of us any more.
    pub fn handle_moved(&mut self, now: Now) {
        self.advance(now);
        self.on_moved();
        self.survey_anew();
        self.finish();
    }

    /// A user wants something; an [`Output::Answer`] follows.
    pub fn handle_request(&mut self, id: RequestId, request: Request, now: Now) {
        self.advance(now);
        self.on_request(id, request);
        self.finish();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.advance(now);
        // What is due may make something else due at once, in another part.
        for _ in 0..ROUNDS {
            self.on_due();
            self.finish();
            if self.deadline().is_none_or(|at| at > now.instant) {
                return;
            }
        }
        tracing::error!(at = ?self.deadline(), "a deadline does not move");
    }

    fn on_due(&mut self) {
        let now = self.now;
        while let Some((at, node)) = self.wakes.first().copied()
            && at <= now.instant
        {
            self.wakes.pop_first();
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.wake = None;
            }
            self.on_peer_timeout(node);
        }
        self.resolver.handle_timeout(now);
        self.on_homes_timeout();
        self.on_streams_timeout();
        self.on_presence_timeout();
        self.on_requests_timeout();
        self.on_examinations_timeout();
        self.on_served_timeout();
        self.on_survey_timeout();
        self.on_trial_timeout();
    }

    /// What is to be done next; drain it after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.outputs.is_empty() {
            return Some(self.now.instant);
        }
        self.deadline()
    }

    fn deadline(&self) -> Option<Instant> {
        let peers = self.wakes.first().map(|(at, _)| *at);
        [
            peers,
            self.resolver.poll_timeout(),
            Some(self.homes.poll_timeout()),
            self.streams.poll_timeout(),
            Some(self.presence.poll_timeout()),
            self.requests.poll_timeout(),
            self.examinations.poll_timeout(),
            Some(self.served.poll_timeout()),
            self.survey.poll_timeout(),
            self.trial.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn advance(&mut self, now: Now) {
        debug_assert!(now.instant >= self.now.instant, "time never runs backwards");
        let before = std::mem::replace(&mut self.now, now).instant;
        // What was due already when we were last called, such as the measuring of a path just chosen, says nothing.
        let slept = self.deadline().map_or(Duration::ZERO, |at| now.instant.since(at.max(before)));
        if slept >= SLEPT {
            self.on_moved();
        }
        if slept >= DIAL_LIMIT {
            self.on_long_absence(before);
        }
    }

    /// Let consequences have consequences, then bring deadlines and the table up to date.
    fn finish(&mut self) {
        while let Some(output) = self.resolver.poll_output() {
            match output {
                resolver::Output::Ask { id, subject } => self.ask_homes(id, &subject),
                resolver::Output::Command(command) => self.outputs.push_back(Output::Command(command)),
                resolver::Output::Done { subject, found } => self.on_resolved(&subject, found),
            }
        }
        self.announce_ready();
        for node in std::mem::take(&mut self.touched) {
            if self.peers.get_mut(&node).is_some_and(|peer| peer.is_news(self.now.instant)) {
                self.unlisted.insert(node);
            }
            self.rearm(node);
        }
        self.publish_table();
    }

    fn rearm(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let wake = peer.poll_timeout(self.now.instant);
        if peer.wake == Some(wake) {
            return;
        }
        if let Some(old) = peer.wake.replace(wake) {
            self.wakes.remove(&(old, node));
        }
        self.wakes.insert((wake, node));
    }

    /// Bring the table up to date, at the cost of what changed, and let forwarding have it.
    fn publish_table(&mut self) {
        for node in std::mem::take(&mut self.unlisted) {
            self.list(node);
        }
        if std::mem::take(&mut self.channels_changed) {
            let place = |node: &NodeId| self.peers.get(node)?.direct_remote();
            let others = |node: &NodeId| self.peers.get(node).map(Peer::other_ways).unwrap_or_default();
            self.table.relay = self.channels.table_of_ways(place, others);
            self.table_stale = true;
        }
        let own4 = self.me.passport.address4;
        self.table_stale |= std::mem::replace(&mut self.table.own4, own4) != own4;
        if std::mem::take(&mut self.table_stale) {
            (self.table.other_stun, self.table.own_stun) =
                (self.other_stun().map(|(_, at)| at), self.own_stun());
            self.outputs.push_back(Output::Table(Arc::new(self.table.clone())));
        }
    }

    fn list(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        self.table.set(peer.as_slot(&self.network.id, self.now.instant));
        self.table_stale = true;
        let remote = peer.direct_remote();
        let old = std::mem::replace(&mut peer.listed, remote);
        if old != remote {
            self.unlist_remote(node, old);
            self.by_remote.extend(remote.map(|remote| (remote, node)));
        }
    }

    /// A peer is not reached there any more; if it is an end of channels, those change too.
    fn unlist_remote(&mut self, node: NodeId, remote: Option<Endpoint>) {
        if let Some(remote) = remote
            && self.by_remote.get(&remote) == Some(&node)
        {
            self.by_remote.remove(&remote);
        }
        self.channels_changed |= self.channels.serve(&node);
    }

    fn peer(&mut self, node: NodeId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&node)?;
        self.touched.insert(node);
        Some(peer)
    }

    fn by_slot(&self, slot: SlotId) -> Option<NodeId> {
        self.slots.get(usize::from(slot.0)).copied().flatten()
    }

    fn transmit(&mut self, to: Locator, datagram: &[u8]) {
        let bytes = match to {
            Locator::Direct(_) => datagram.to_vec(),
            Locator::Relayed { channel, .. } => [&wire::relay_header(channel), datagram].concat(),
        };
        self.outputs.push_back(Output::Transmit { to: to.endpoint(), bytes });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn drop(&self, reason: Drop) {
        self.counters.count(reason);
    }

    fn is_super_peer(&self) -> bool {
        self.me.passport.roles.includes(Roles::SUPER_PEER)
    }
}

#[cfg(test)]
mod tests;
