//! A handful of nodes in memory: every datagram takes ten milliseconds, tunnels and the directory are models.
//!
//! Owns: [`World`]. Whoever runs it has the laws checked at every timeout.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::document::{Contact, Roles};
use crate::forward::{Exception, Inward, Outward, Table};
use crate::id::{RecordKey, TunnelKey};
use crate::locator::Locator;
use crate::login::LoginServer;
use crate::node::{Answer, Config, Event, Node, Output, Request, RequestId};
use crate::packet::IpPacket;
use crate::packet::udp6::Udp6;
use crate::port::{Command, Reply};
use crate::testing::{LOGIN, NOW, Town, address, key, node, tunnel_key};
use crate::timing::{Instant, Now};
use crate::tunnel::{
    Content, Crypto, HANDSHAKE_ROOM, HEADER, Handshake, OVERHEAD, Opened, Purpose, SharedTunnel, seal_one,
};
use crate::tunnel_model::Exclusive;
use crate::verdict::{Counters, Drop};
use crate::wire::control::{self, Message};
use crate::wire::{self, Frame, Wireguard};

const DELAY: Duration = Duration::from_millis(10);
pub(super) const SUPER: Roles = Roles::PEER.with(Roles::SUPER_PEER);

pub(super) struct Host {
    pub(super) node: Node,
    pub(super) counters: Arc<Counters>,
    at: SocketAddr,
    table: Option<Arc<Table>>,
    /// Packets that reached the TUN device.
    pub(super) tun: Vec<Vec<u8>>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) events: Vec<Event>,
    /// Everything sent, by when and to whom.
    pub(super) sent: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// Keys that were published.
    pub(super) published: Vec<RecordKey>,
    /// Where it was to find out whether TCP passes; nothing becomes of it by itself.
    pub(super) tried: Vec<Vec<SocketAddr>>,
    requests: RequestId,
}

pub(super) struct World {
    pub(super) town: Town,
    pub(super) hosts: BTreeMap<u8, Host>,
    pub(super) now: Instant,
    wires: VecDeque<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    directory: BTreeMap<RecordKey, Vec<u8>>,
    replies: Vec<(u8, Reply)>,
    /// Whose datagrams are lost, both ways.
    pub(super) cut: BTreeSet<u8>,
    /// Nobody in the directory answers a look-up.
    pub(super) is_mute: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            town: Town::new(),
            hosts: BTreeMap::new(),
            now: Instant::ZERO,
            wires: VecDeque::new(),
            directory: BTreeMap::new(),
            replies: Vec::new(),
            cut: BTreeSet::new(),
            is_mute: false,
        }
    }

    /// A login server, and peers that know it; all ready.
    pub(super) fn with_peers(peers: &[u8]) -> Self {
        let mut world = Self::new();
        world.start(LOGIN, SUPER.with(Roles::LOGIN), &[]);
        for n in peers {
            world.start(*n, Roles::PEER, &[LOGIN]);
        }
        world.run(1000);
        world
    }

    pub(super) fn clock(&self) -> Now {
        Now { instant: self.now, unix: NOW + self.now.since_start() }
    }

    /// Start node `n`, or start it anew with nothing remembered but its keys.
    pub(super) fn start(&mut self, n: u8, roles: Roles, known: &[u8]) {
        self.start_with(n, roles, known, tunnel_key(n));
    }

    pub(super) fn start_with(&mut self, n: u8, roles: Roles, known: &[u8], tunnel_key: TunnelKey) {
        let is_super = roles.includes(Roles::SUPER_PEER);
        let known = known.iter().map(|n| self.contact(*n)).collect();
        let login = roles.includes(Roles::LOGIN).then(|| {
            let grant = self.town.sign_grant(&self.town.grant);
            LoginServer::new(self.town.network.clone(), grant, key(n), []).unwrap()
        });
        let config = Config {
            network: self.town.network.clone(),
            genesis: self.town.genesis.clone(),
            key: key(n),
            credential: self.town.credential(n, roles),
            seed: [n; 32],
            known,
            login,
            advertise: Vec::new(),
            directory_port: if is_super { 51861 } else { 0 },
            mtu: 1280,
            relay_rate: 1_000_000,
        };
        let counters = Arc::new(Counters::default());
        let crypto = Box::new(Model(tunnel_key));
        let mut node = Node::new(config, crypto, Arc::clone(&counters), self.clock()).unwrap();
        node.handle_links(vec![address(n)], self.clock());
        let host = Host {
            node,
            counters,
            at: address(n),
            table: None,
            tun: Vec::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            sent: Vec::new(),
            published: Vec::new(),
            tried: Vec::new(),
            requests: 0,
        };
        self.hosts.insert(n, host);
        self.drain(n);
    }

    /// What `n` says of itself; made up if it has not started.
    pub(super) fn contact(&self, n: u8) -> Contact {
        self.hosts
            .get(&n)
            .map_or_else(|| self.town.contact(n, SUPER), |host| host.node.presence.contact().clone())
    }

    pub(super) fn host(&mut self, n: u8) -> &mut Host {
        self.hosts.get_mut(&n).unwrap()
    }

    pub(super) fn dropped(&self, n: u8, reason: Drop) -> u64 {
        self.hosts[&n].counters.dropped(reason)
    }

    /// Let `ms` milliseconds pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let wire = self.wires.front().map(|(at, ..)| *at);
            let due = self.hosts.iter().filter_map(|(n, host)| Some((host.node.poll_timeout()?, *n))).min();
            let first = wire.into_iter().chain(due.map(|(at, _)| at)).min();
            let Some(first) = first.filter(|at| *at <= end) else { break };
            self.now = self.now.max(first);
            if wire.is_some_and(|at| at <= self.now) {
                let (_, from, to, bytes) = self.wires.pop_front().unwrap();
                self.receive(from, to, &bytes);
            } else if let Some((_, n)) = due {
                self.wake(n);
            }
        }
        self.now = end;
    }

    fn wake(&mut self, n: u8) {
        let clock = self.clock();
        self.host(n).node.handle_timeout(clock);
        if self.host(n).node.outputs.front().is_some() {
            assert!(self.host(n).node.poll_timeout() <= Some(clock.instant), "queued output means: at once");
        }
        self.carry_out(n);
        let next = self.host(n).node.poll_timeout();
        assert!(next > Some(clock.instant), "node {n}: {next:?} is not later than {:?}", clock.instant);
        self.deliver_replies();
    }

    /// Something that forwarding hands to control.
    pub(super) fn except(&mut self, n: u8, exception: Exception) {
        let clock = self.clock();
        self.host(n).node.handle_exception(exception, clock);
        self.drain(n);
    }

    /// A datagram as if it came from `from`.
    pub(super) fn inject(&mut self, n: u8, from: SocketAddr, bytes: Vec<u8>) {
        self.except(n, Exception::Datagram { from: Locator::Direct(from.into()), bytes });
    }

    /// A user's request.
    pub(super) fn request(&mut self, n: u8, request: Request) -> RequestId {
        let clock = self.clock();
        let host = self.host(n);
        host.requests += 1;
        let id = host.requests;
        host.node.handle_request(id, request, clock);
        self.drain(n);
        id
    }

    pub(super) fn drain(&mut self, n: u8) {
        self.carry_out(n);
        self.deliver_replies();
    }

    fn deliver_replies(&mut self) {
        while let Some((n, reply)) = self.replies.pop() {
            let clock = self.clock();
            self.host(n).node.handle_reply(reply, clock);
            self.carry_out(n);
        }
    }

    fn carry_out(&mut self, n: u8) {
        while let Some(output) = self.host(n).node.poll_output() {
            match output {
                Output::Transmit { to, bytes } | Output::TransmitNear { to, bytes, .. } => {
                    self.transmit(n, to.at, bytes);
                }
                Output::Table(table) => self.host(n).table = Some(table),
                Output::Command(command) => self.command(n, command),
                Output::ToTun(packet) => self.host(n).tun.push(packet),
                Output::Event(event) => self.host(n).events.push(event),
                Output::Answer(id, answer) => _ = self.host(n).answers.insert(id, answer),
                Output::Persist(_) | Output::OpenDoor(_) | Output::CloseDoor(_) => {}
                Output::OpenStream { .. } | Output::CloseStream(_) | Output::TrustStream(_) => {}
                Output::BeginCrossing { .. } | Output::Cross { .. } => {}
                Output::TryStreams(to) => self.host(n).tried.push(to),
            }
        }
    }

    fn transmit(&mut self, n: u8, to: SocketAddr, bytes: Vec<u8>) {
        let now = self.now;
        let host = self.host(n);
        host.sent.push((now, to, bytes.clone()));
        let from = host.at;
        let lost = |at| self.cut.iter().any(|n| address(*n) == at);
        if !lost(from) && !lost(to) {
            self.wires.push_back((now + DELAY, from, to, bytes));
        }
    }

    fn command(&mut self, n: u8, command: Command) {
        match command {
            Command::Publish { id, key, value, .. } => {
                self.host(n).published.push(key);
                self.directory.insert(key, value);
                self.replies.push((n, Reply::Finished { id, ok: true }));
            }
            Command::Lookup { .. } if self.is_mute => {}
            Command::Lookup { id, key } => {
                let value = self.directory.get(&key).cloned();
                self.replies.push((n, Reply::Finished { id, ok: value.is_some() }));
                self.replies.extend(value.map(|value| (n, Reply::Found { id, value })));
            }
            Command::Cancel { .. } | Command::Neighbours(_) => {}
        }
    }

    fn receive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(n) = self.hosts.iter().find(|(_, host)| host.at == to).map(|(n, _)| *n) else { return };
        match wire::classify(bytes) {
            Some(Frame::Relay(channel, inner)) => {
                let table = self.host(n).table.clone().unwrap();
                match table.relay.forward(channel, from.into(), bytes.len(), self.now) {
                    Ok(to) => self.transmit(n, to.at, bytes.to_vec()),
                    Err(_) => self.inward(n, Locator::Relayed { relay: from.into(), channel }, inner),
                }
            }
            Some(_) => self.inward(n, Locator::Direct(from.into()), bytes),
            None => self.host(n).counters.count(Drop::UnknownFrame),
        }
    }

    fn inward(&mut self, n: u8, from: Locator, bytes: &[u8]) {
        let Some(Frame::Wireguard(Wireguard::Data(receiver))) = wire::classify(bytes) else {
            return self.except(n, Exception::Datagram { from, bytes: bytes.to_vec() });
        };
        let table = self.host(n).table.clone().unwrap();
        let Some(slot) = table.by_receiver(receiver) else {
            return self.except(n, Exception::Stranger { from: from.endpoint() });
        };
        let mut message = bytes.to_vec();
        let opened = slot.tunnel.open(&mut message);
        match opened {
            Opened::Duplicate => return self.host(n).counters.count(Drop::Duplicate),
            Opened::Rejected | Opened::Refused | Opened::Partial(_) => {
                return self.host(n).counters.count(Drop::NotAuthentic);
            }
            Opened::Keepalive => {}
            Opened::Packet(length) => {
                let parsed = IpPacket::parse(&message[HEADER..HEADER + length]).unwrap();
                let is_control =
                    Udp6::parse(parsed.bytes()).is_some_and(|u| u.destination_port == control::PORT);
                match table.inward(slot, parsed.source(), parsed.destination(), is_control) {
                    Inward::Deliver => {
                        slot.counters.received(length as u64);
                        self.host(n).tun.push(parsed.bytes().to_vec());
                    }
                    Inward::Control => {
                        let packet = parsed.bytes().to_vec();
                        self.except(n, Exception::Control { slot: slot.id, from, packet });
                    }
                    Inward::Drop(reason) => self.host(n).counters.count(reason),
                }
            }
        }
        if slot.path.is_none() {
            self.except(n, Exception::Established { slot: slot.id, from });
        } else if slot.path != Some(from) {
            self.except(n, Exception::Strayed { slot: slot.id, from });
        }
    }

    /// A packet from an application on `n` to one on `to`.
    pub(super) fn say(&mut self, n: u8, to: u8) {
        let packet = packet(n, to);
        let table = self.host(n).table.clone().unwrap();
        let parsed = IpPacket::parse(&packet).unwrap();
        if let Outward::Send(slot, locator) = table.outward(parsed.source(), parsed.destination())
            && let Some(sealed) = seal_one(&*slot.tunnel, &packet)
        {
            let header = match locator {
                Locator::Direct(_) => Vec::new(),
                Locator::Relayed { channel, .. } => wire::relay_header(channel).to_vec(),
            };
            self.transmit(n, locator.remote(), [header, sealed].concat());
            if slot.counters.sent(packet.len() as u64) {
                self.except(n, Exception::Woken { slot: slot.id });
            }
            return;
        }
        self.except(n, Exception::Unroutable { packet });
    }

    /// A control message that `from` never sent, as if its tunnel with `n` had brought it.
    pub(super) fn tell(&mut self, n: u8, from: u8, message: &Message) {
        let source = node(from).address6(&self.town.network.id);
        self.tell_as(n, from, source, message);
    }

    pub(super) fn tell_as(&mut self, n: u8, from: u8, source: std::net::Ipv6Addr, message: &Message) {
        let payload = message.encode();
        let destination = node(n).address6(&self.town.network.id);
        let (source_port, destination_port) = (control::PORT, control::PORT);
        let datagram = Udp6 { source, destination, source_port, destination_port, payload: &payload };
        let mut packet = vec![0; 48 + payload.len()];
        datagram.write(&mut packet).unwrap();
        let slot = self.host(n).node.peers[&node(from)].slot;
        let from = Locator::Direct(address(from).into());
        self.except(n, Exception::Control { slot, from, packet });
    }

    /// Handshakes that `n` began since `since`.
    pub(super) fn initiations(&self, n: u8, since: Instant) -> usize {
        let is_one = |bytes: &[u8]| wire::classify(bytes) == Some(Frame::Wireguard(Wireguard::Initiation));
        self.hosts[&n].sent.iter().filter(|(at, _, bytes)| *at >= since && is_one(bytes)).count()
    }
}

/// An IPv4 packet of 28 bytes.
pub(super) fn packet(from: u8, to: u8) -> Vec<u8> {
    let mut bytes = vec![0; 28];
    bytes[0] = 0x45;
    bytes[3] = 28;
    (bytes[8], bytes[9]) = (64, 17);
    bytes[12..16].copy_from_slice(&[10, 93, 1, from]);
    bytes[16..20].copy_from_slice(&[10, 93, 1, to]);
    bytes
}

pub(super) fn virtual4(n: u8) -> IpAddr {
    [10, 93, 1, n].into()
}

/// A node's tunnel key in a model without secrets: sealing names the addressee and the purpose.
pub(super) struct Model(pub(super) TunnelKey);

impl Crypto for Model {
    fn public(&self) -> TunnelKey {
        self.0
    }
    fn tunnel(&mut self, peer: &TunnelKey, index: u32) -> SharedTunnel {
        let (own, peer) = (self.0, *peer);
        Arc::new(Mutex::new(ModelTunnel { own, peer, index, ..ModelTunnel::default() }))
    }
    fn initiator(&mut self, initiation: &[u8]) -> Option<TunnelKey> {
        (initiation[40..72] == self.0.0).then(|| TunnelKey(initiation[8..40].try_into().unwrap()))
    }
    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        [&to.0[..], &[purpose as u8; 16], plaintext].concat()
    }
    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        sealed.strip_prefix(&self.0.0)?.strip_prefix(&[purpose as u8; 16]).map(<[u8]>::to_vec)
    }
}

#[derive(Clone, Copy)]
struct Session {
    local: u32,
    remote: u32,
}

struct ModelTunnel {
    own: TunnelKey,
    peer: TunnelKey,
    index: u32,
    next: u8,
    pending: Option<(u32, Instant)>,
    /// A session that we answered for, until its first data.
    answered: Option<Session>,
    current: Option<Session>,
    sent: u64,
    /// When the peer's newest initiation was made: older ones are replays.
    newest: u128,
}

impl Default for ModelTunnel {
    fn default() -> Self {
        let none = TunnelKey([0; 32]);
        let (pending, answered, current) = (None, None, None);
        Self { own: none, peer: none, index: 0, next: 0, pending, answered, current, sent: 0, newest: 0 }
    }
}

impl ModelTunnel {
    fn next_index(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.index << 8 | u32::from(self.next)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Exclusive for ModelTunnel {
    fn seal(&mut self, _: Content, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let session = self.current?;
        self.sent += 1;
        let length = packet.len() + OVERHEAD;
        out[..length].fill(0);
        out[0] = 4;
        out[4..8].copy_from_slice(&session.remote.to_le_bytes());
        out[8..16].copy_from_slice(&self.sent.to_le_bytes());
        out[16..16 + packet.len()].copy_from_slice(packet);
        out[length - 16..length].copy_from_slice(&self.own.0[..16]);
        Some(length)
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        let ours = |session: &Session| session.local == word(datagram, 4);
        if let Some(session) = self.answered.take_if(|session| ours(session)) {
            self.current = Some(session);
        }
        let authentic = datagram[datagram.len() - 16..] == self.peer.0[..16];
        if !authentic || self.current.is_none_or(|session| !ours(&session)) {
            return Opened::Rejected;
        }
        let packet = &datagram[16..datagram.len() - 16];
        out[..packet.len()].copy_from_slice(packet);
        if packet.is_empty() { Opened::Keepalive } else { Opened::Packet(packet.len()) }
    }

    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if self.pending.is_some_and(|(_, at)| now.since(at) < Duration::from_millis(500)) {
            return None;
        }
        let local = self.next_index();
        self.pending = Some((local, now));
        out.fill(0);
        out[0] = 1;
        out[4..8].copy_from_slice(&local.to_le_bytes());
        out[8..40].copy_from_slice(&self.own.0);
        out[40..72].copy_from_slice(&self.peer.0);
        out[72..88].copy_from_slice(&now.since_start().as_nanos().to_be_bytes());
        Some(HANDSHAKE_ROOM)
    }

    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], _: Instant) -> Handshake {
        if datagram[0] == 1 && datagram[8..40] == self.peer.0 && datagram[40..72] == self.own.0 {
            let made = u128::from_be_bytes(datagram[72..88].try_into().unwrap());
            if made <= self.newest {
                return Handshake::Rejected;
            }
            self.newest = made;
            let session = Session { local: self.next_index(), remote: word(datagram, 4) };
            self.answered = Some(session);
            out[..92].fill(0);
            out[0] = 2;
            out[4..8].copy_from_slice(&session.local.to_le_bytes());
            out[8..12].copy_from_slice(&session.remote.to_le_bytes());
            out[12..44].copy_from_slice(&self.own.0);
            return Handshake::Reply(92);
        }
        let answers = self.pending.is_some_and(|(local, _)| datagram[0] == 2 && local == word(datagram, 8));
        if !answers || datagram[12..44] != self.peer.0 {
            return Handshake::Rejected;
        }
        self.pending = None;
        self.current = Some(Session { local: word(datagram, 8), remote: word(datagram, 4) });
        self.seal(Content::Control, &[], out).map_or(Handshake::Accepted, Handshake::Reply)
    }

    fn handle_timeout(&mut self, _: &mut [u8], _: Instant) -> Option<usize> {
        None
    }

    fn session_age_s(&self) -> Option<u64> {
        self.current.map(|_| 0)
    }
}
