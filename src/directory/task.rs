//! The task that drives the libp2p node: commands in, events in, replies out.
//!
//! Owns the routing table's membership (with [`Admission`]) and the way back after an outage (with
//! [`Neighbours`]). Never waits for anything but the next command, event or deadline.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use frejus_overlay::id::{NodeId, RecordKey};
use frejus_overlay::port::{Command, CommandId, Reply};
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::kad::{
    self, GetRecordOk, GetRecordResult, InboundRequest, Mode, PutRecordError, PutRecordResult, QueryId,
    QueryResult, Quorum, Record, RoutingUpdate,
};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::admission::{ADDRESSES_PER_NODE, Admission, plausible, seen_as_far};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::neighbours::Neighbours;
use super::queries::{Lookup, Publication, Queries};
use super::reachability::Finding;
use super::{DirectoryConfig, Replies, Transports, naming, store};

/// How often what has expired is swept out; it is not handed out in the meantime either.
const SWEEP: Duration = Duration::from_secs(30);

/// Everything that the running directory knows.
pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    replies: Replies,
    transports: Transports,
    /// What members of the network announce through identify, and their Kademlia protocol.
    identity: String,
    protocol: StreamProtocol,
    neighbours: Neighbours,
    admission: Admission,
    queries: Queries,
    /// Where each connected node's latest connection comes from or goes to.
    remotes: HashMap<PeerId, IpAddr>,
    /// Where super peers have dialled this node, while that makes it a server.
    promoted: Option<Multiaddr>,
    /// The last [`Reply::State`], and whether it may be out of date.
    reported: Option<(bool, usize)>,
    changed: bool,
}

impl Task {
    pub(super) fn new(swarm: Swarm<Behaviour>, config: &DirectoryConfig, replies: Replies) -> Self {
        Self {
            swarm,
            replies,
            transports: config.transports,
            identity: naming::identity_protocol(&config.network),
            protocol: naming::protocol_name(&config.network),
            neighbours: Neighbours::new(),
            admission: Admission::new(config.nodes_per_prefix),
            queries: Queries::default(),
            remotes: HashMap::new(),
            promoted: None,
            reported: None,
            changed: true,
        }
    }

    /// Runs until the other end of `commands` is dropped.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.report_state();
            let due = self.neighbours.due();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.handle_event(event),
                () = until(due), if due.is_some() => self.dial_neighbours(),
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Lookup { id, key } => self.look_up(id, key),
            Command::Cancel { id } => {
                if let Some(query) = self.queries.cancel(id)
                    && let Some(mut query) = self.kad().query_mut(&query)
                {
                    query.finish();
                }
            }
            Command::Publish { id, key, value, life } => self.publish(id, key, value, life),
            Command::Neighbours(named) => self.name_neighbours(named),
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kademlia(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.on_identified(peer_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Reachability(finding)) => self.on_finding(finding),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                self.on_connected(peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.on_disconnected(peer_id, cause.as_ref());
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.on_dial_failure(peer, &error);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener of the directory had an error");
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "a listener of the directory has closed: restart the node");
            }
            // The others tell of addresses, handshakes and transports: nothing depends on them.
            _ => {}
        }
    }

    // --- commands -----------------------------------------------------------------------------------------

    fn look_up(&mut self, id: CommandId, key: RecordKey) {
        if self.queries.is_full() {
            tracing::debug!(id, "too many queries under way");
            self.reply(Reply::Finished { id, ok: false });
            return;
        }
        self.enter_table();
        // A record of our own comes back as the query's first answer, before anybody is asked.
        let query = self.kad().get_record(store::kad_key(&key));
        self.queries.lookups.insert(query, Lookup::new(id, key));
    }

    fn publish(&mut self, id: CommandId, key: RecordKey, value: Vec<u8>, life: Duration) {
        let mut record = Record::new(store::kad_key(&key), value);
        record.publisher = Some(*self.swarm.local_peer_id());
        let now = Instant::now();
        record.expires = now.checked_add(life);
        let accepted = self.kad().store_mut().accept(record.clone(), now);
        if let Err(refusal) = &accepted {
            tracing::debug!(id, %refusal, "own record refused");
        }
        if accepted.is_err() || self.queries.is_full() {
            self.reply(Reply::Finished { id, ok: accepted.is_ok() && self.keeps() });
            return;
        }
        self.enter_table();
        let kept = self.keeps();
        match self.kad().put_record(record, Quorum::One) {
            Ok(query) => {
                self.queries.publications.insert(query, Publication { id, kept });
            }
            Err(error) => {
                tracing::debug!(id, %error, "own record not published");
                self.reply(Reply::Finished { id, ok: kept });
            }
        }
    }

    fn name_neighbours(&mut self, named: Vec<(NodeId, Vec<SocketAddr>)>) {
        let own = *self.swarm.local_peer_id();
        let cut_off = self.table_size() == 0;
        for (node, at) in named {
            let Some(peer) = naming::peer_id(&node).filter(|peer| *peer != own) else { continue };
            let over = self.transports;
            let mut addresses: Vec<_> = at.into_iter().flat_map(|at| naming::multiaddrs(at, over)).collect();
            addresses.truncate(ADDRESSES_PER_NODE);
            if addresses.is_empty() {
                continue;
            }
            self.neighbours.name(peer, addresses.clone());
            self.swarm.behaviour_mut().reachability.may_ask(peer, &addresses);
            self.insert(peer, addresses);
        }
        if cut_off {
            self.dial_neighbours();
        }
    }

    // --- events -------------------------------------------------------------------------------------------

    fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => match result {
                QueryResult::GetRecord(result) => self.on_lookup(id, result, step.last),
                QueryResult::PutRecord(result) => self.on_publication(id, &result),
                // Bootstrap shows in the table; nobody asks for closest nodes or providers.
                _ => {}
            },
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { source, record: Some(record), .. },
            } => {
                if let Err(refusal) = self.kad().store_mut().accept(record, Instant::now()) {
                    tracing::debug!(peer = %source, %refusal, "record refused");
                }
            }
            kad::Event::RoutablePeer { peer, address }
            | kad::Event::PendingRoutablePeer { peer, address } => {
                if let Some(ip) = naming::ip_of(&address) {
                    self.admit(peer, ip, vec![address]);
                }
            }
            kad::Event::RoutingUpdated { peer, addresses, old_peer, .. } => {
                if let Some(old) = old_peer {
                    self.admission.forget(&old);
                }
                self.settle(peer, addresses.first());
                self.changed = true;
            }
            kad::Event::ModeChanged { .. } => self.changed = true,
            kad::Event::InboundRequest { .. } | kad::Event::UnroutablePeer { .. } => {}
        }
    }

    fn on_lookup(&mut self, query: QueryId, result: GetRecordResult, last: bool) {
        let Some(mut lookup) = self.queries.lookups.remove(&query) else { return };
        if let Ok(GetRecordOk::FoundRecord(found)) = result {
            self.offer(&mut lookup, found.record.value);
        }
        if last {
            self.reply(Reply::Finished { id: lookup.id, ok: lookup.found() });
        } else {
            self.queries.lookups.insert(query, lookup);
        }
    }

    fn on_publication(&mut self, query: QueryId, result: &PutRecordResult) {
        let Some(Publication { id, kept }) = self.queries.publications.remove(&query) else { return };
        let taken = match result {
            Ok(_) => true,
            Err(PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. }) => {
                !success.is_empty()
            }
        };
        self.reply(Reply::Finished { id, ok: taken || kept });
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        if info.protocol_version != self.identity {
            tracing::debug!(%peer, "node of another network");
            self.remove(&peer);
            // It may have gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
            self.on_lost();
        } else if !info.protocols.contains(&self.protocol) {
            self.remove(&peer);
            self.on_lost();
        } else if let Some(&ip) = self.remotes.get(&peer) {
            self.neighbours.on_connected();
            self.admit(peer, ip, plausible(info.listen_addrs, ip));
        }
    }

    fn on_connected(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        tracing::debug!(%peer, "connected");
        if let Some(ip) = naming::ip_of(endpoint.get_remote_address()) {
            self.remotes.insert(peer, ip);
        }
    }

    fn on_disconnected(&mut self, peer: PeerId, cause: Option<&ConnectionError>) {
        tracing::debug!(%peer, ?cause, "disconnected");
        self.remotes.remove(&peer);
        // Nothing is lost when a connection ends because it was idle: the next query dials again.
        let idle = matches!(cause, Some(ConnectionError::KeepAliveTimeout));
        if !idle || self.table_size() == 0 {
            self.on_lost();
        }
    }

    fn on_dial_failure(&mut self, peer: PeerId, error: &DialError) {
        tracing::debug!(%peer, %error, "dial failed");
        let dead = match error {
            DialError::Transport(_)
            | DialError::NoAddresses
            | DialError::WrongPeerId { .. }
            | DialError::LocalPeerId { .. } => true,
            DialError::Aborted | DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) => false,
        };
        if dead && !self.swarm.is_connected(&peer) {
            self.remove(&peer);
        }
        self.on_lost();
    }

    // --- promotion ----------------------------------------------------------------------------------------

    /// Serves while super peers can dial this node, at an address that everybody can see who sees them.
    fn on_finding(&mut self, finding: Finding) {
        let address = match finding {
            Finding::Reachable(address) => Some(address),
            Finding::Unreachable => None,
        };
        let address = address.filter(|address| {
            let others = self.neighbours.addresses().filter_map(naming::ip_of);
            naming::ip_of(address).is_some_and(|ip| seen_as_far(ip, others))
        });
        if address == self.promoted {
            return;
        }
        match &address {
            Some(at) => tracing::info!(%at, "a super peer has reached this node: it serves the directory"),
            None => tracing::info!("super peers no longer reach this node: a client of the directory again"),
        }
        // The address first: identify tells both in one message.
        if let Some(address) = &address {
            self.swarm.add_external_address(address.clone());
        }
        if let Some(old) = self.promoted.take() {
            self.swarm.remove_external_address(&old);
        }
        let mode = if address.is_some() { Mode::Server } else { Mode::Client };
        self.kad().set_mode(Some(mode));
        self.promoted = address;
        self.changed = true;
    }

    // --- the routing table --------------------------------------------------------------------------------

    /// Gives a node that is known to serve the directory a place, if its prefix has one.
    fn admit(&mut self, peer: PeerId, ip: IpAddr, addresses: Vec<Multiaddr>) {
        let named = self.neighbours.is_named(&peer);
        if addresses.is_empty() || !self.admission.admit(peer, ip, named) {
            tracing::debug!(%peer, "no place in the routing table");
            return;
        }
        if !self.insert(peer, addresses) {
            self.admission.forget(&peer);
        }
    }

    /// Makes sure that whoever is in the table has a place: a node may have waited long for a full bucket.
    fn settle(&mut self, peer: PeerId, address: &Multiaddr) {
        let named = self.neighbours.is_named(&peer);
        let ip = self.remotes.get(&peer).copied().or_else(|| naming::ip_of(address));
        if !ip.is_some_and(|ip| self.admission.admit(peer, ip, named)) {
            self.remove(&peer);
        }
    }

    /// Drops expired records, and the places of nodes that have left the table or never got in.
    fn sweep(&mut self) {
        self.kad().store_mut().sweep(Instant::now());
        let members: HashSet<PeerId> = self
            .kad()
            .kbuckets()
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>())
            .collect();
        self.admission.retain(|peer| members.contains(peer));
    }

    /// Adds addresses up to the bound; `false` if the node is not in the table afterwards.
    fn insert(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let room = ADDRESSES_PER_NODE.saturating_sub(self.known_addresses(&peer));
        let mut inside = room < ADDRESSES_PER_NODE;
        for address in addresses.into_iter().take(room) {
            inside |= !matches!(self.kad().add_address(&peer, address), RoutingUpdate::Failed);
        }
        self.changed = true;
        inside
    }

    fn known_addresses(&mut self, peer: &PeerId) -> usize {
        let Some(bucket) = self.kad().kbucket(*peer) else { return 0 };
        bucket
            .iter()
            .find(|entry| entry.node.key.preimage() == peer)
            .map_or(0, |entry| entry.node.value.len())
    }

    fn remove(&mut self, peer: &PeerId) {
        self.kad().remove_peer(peer);
        self.admission.forget(peer);
        self.changed = true;
    }

    /// Lets a query that would find an empty table try neighbours at once, whatever the back-off says.
    fn enter_table(&mut self) {
        if self.table_size() == 0 {
            for (peer, addresses) in self.neighbours.next_few() {
                self.insert(peer, addresses);
            }
        }
    }

    fn table_size(&mut self) -> usize {
        self.kad().kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    // --- outages ------------------------------------------------------------------------------------------

    /// Plans the next try if this node is cut off. Connections that others made to it don't count when it knows
    /// nobody: a server that only clients have found is no part of the table.
    fn on_lost(&mut self) {
        if self.swarm.connected_peers().next().is_none() || self.table_size() == 0 {
            // Without randomness the crowd comes back in step, which is bad manners, not an error.
            let jitter = getrandom::u32().map_or(0, |random| random.to_le_bytes()[0]);
            self.neighbours.on_lost(Instant::now(), jitter);
        }
    }

    fn dial_neighbours(&mut self) {
        for (peer, addresses) in self.neighbours.next_few() {
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%peer, %error, "neighbour not dialled");
            }
        }
    }

    // --- replies ------------------------------------------------------------------------------------------

    /// Reports a value that passes the check, once. Most answers of a walk are copies of one record, and a check
    /// costs signatures.
    fn offer(&mut self, lookup: &mut Lookup, value: Vec<u8>) {
        if lookup.has_seen(&value) {
            return;
        }
        let check = self.kad().store_mut().check().clone();
        match store::verify(&check, &lookup.key, &value) {
            Ok(checked) if lookup.note(&value, checked.sequence) => {
                self.reply(Reply::Found { id: lookup.id, value });
            }
            Ok(_) => {}
            Err(refusal) => tracing::debug!(id = lookup.id, %refusal, "found record not believed"),
        }
    }

    fn report_state(&mut self) {
        if !self.changed {
            return;
        }
        self.changed = false;
        let state = (self.is_server(), self.table_size());
        if self.reported != Some(state) {
            self.reported = Some(state);
            self.reply(Reply::State { server: state.0, peers: state.1 });
        }
    }

    fn reply(&self, reply: Reply) {
        (self.replies)(reply);
    }

    /// Whether a record is safe with this node alone: a promoted one comes and goes.
    fn keeps(&self) -> bool {
        self.is_server() && self.promoted.is_none()
    }

    fn is_server(&self) -> bool {
        self.swarm.behaviour().kad.mode() == Mode::Server
    }

    fn kad(&mut self) -> &mut kad::Behaviour<store::Store> {
        &mut self.swarm.behaviour_mut().kad
    }
}

/// Waits for a deadline; for ever without one.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
