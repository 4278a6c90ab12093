//! The control thread: drives [`Node`], the state machine that thinks.
//!
//! Owns: the node, the questions of users under way, and the order in which the node's wishes are carried out. It
//! alone changes the forwarding table. Never: a packet that forwarding can decide, or a wait for anything but its
//! own queues and deadlines.

mod answer;
#[cfg(test)]
mod tests;
mod unsaved;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select};
use frejus_overlay::agreement::Cost;
use frejus_overlay::document::{Contact, Credential, Genesis, NatClass, Network, Roles};
use frejus_overlay::forward::{Exception, Table};
use frejus_overlay::locator::{DoorId, Endpoint, StreamId};
use frejus_overlay::login::Entry;
use frejus_overlay::mapping::{Mapped, MappingProtocol};
use frejus_overlay::node::{Answer, Event, Invitation, Node, Output, Persist, Request, RequestId};
use frejus_overlay::port::{Command, Reply};
use frejus_overlay::stream::{Across, StreamEvent, Tried};
use frejus_overlay::timing::Instant;
use frejus_overlay::verdict::{Counters, Drop};
use frejus_overlay::wire::{Frame, classify};

use crate::clock::Clock;
use crate::failure::Failure;
use crate::question::Question;
use crate::report::{self, Role, State};

use answer::Asked;
pub(crate) use answer::failure;
use unsaved::Unsaved;

/// What the control thread is told, besides exceptions and questions.
#[derive(Debug)]
pub enum News {
    /// The directory answered.
    Reply(Reply),
    /// Our UDP addresses on local interfaces, at the start and whenever they change.
    Links(Vec<SocketAddr>),
    /// The router opened a port for us, or has none for us any more.
    Mapped(Option<Mapped>),
    /// The router has an address on its far side that is not public, though it opens no port; or that is over.
    RouterAt(Option<IpAddr>),
    /// The router has forgotten every mapping, the NAT's own ones too.
    RouterRestarted,
    /// Datagrams leave another way than before, though our addresses may be the same.
    Moved,
    /// The machine has slept: deadlines may have passed unnoticed.
    Awake,
    /// What became of a stream.
    Stream(StreamId, StreamEvent),
    /// What TCP gets through to super peers.
    Tried(Tried),
    /// Say goodbye and end.
    Stop,
    /// As [`Self::Stop`], because something is gone that the node cannot do without.
    Lost(Failure),
}

/// News that may wait: replies of the directory come in bursts of a look-up's answers.
pub const NEWS: usize = 1024;

/// Exceptions handled before news and deadlines get a turn: a burst of a full queue must not starve them.
const EXCEPTIONS_AT_ONCE: usize = 256;

/// What the node's wishes are carried out with.
pub trait World {
    /// Send a datagram; `false` if the socket did not take it.
    fn send(&mut self, to: Endpoint, datagram: &[u8]) -> bool;
    /// Send a datagram with a hop limit; `false` if the socket did not take it, or there is none.
    fn send_near(&mut self, to: Endpoint, datagram: &[u8], hops: u8) -> bool;
    /// Open a further socket; one that can't be opened stays silent.
    fn open_door(&mut self, door: DoorId);
    /// Close it.
    fn close_door(&mut self, door: DoorId);
    /// Dial a stream; what becomes of it is told as [`News::Stream`].
    fn open_stream(&mut self, stream: StreamId, to: Vec<SocketAddr>);
    /// Open a TCP port and ask where super peers see it; told as [`News::Stream`].
    fn begin_crossing(&mut self, stream: StreamId, ask: Vec<SocketAddr>);
    /// Connect from it.
    fn cross(&mut self, stream: StreamId, across: Across);
    /// Close it, without a word.
    fn close_stream(&mut self, stream: StreamId);
    /// Find out where streams can be opened; that is told as [`News::Tried`].
    fn try_streams(&mut self, to: Vec<SocketAddr>);
    /// Whoever opened it to us may stay.
    fn trust_stream(&mut self, stream: StreamId);
    /// Write an IP packet to the TUN device; `false` if it did not take it.
    fn to_tun(&mut self, packet: &[u8]) -> bool;
    /// Forward by this table from now on.
    fn publish(&mut self, table: Arc<Table>);
    /// Hand a command to the directory; `false` if it cannot take it.
    fn command(&mut self, command: Command) -> bool;
    /// Put lines of the login server's ledger on disk, durably: all of them or none.
    ///
    /// # Errors
    /// What went wrong with which file.
    fn record(&mut self, entries: &[Entry]) -> Result<(), Failure>;
    /// Put our passport on disk.
    ///
    /// # Errors
    /// As [`Self::record`].
    fn keep_passport(&mut self, credential: &Credential) -> Result<(), Failure>;
    /// Put on disk whom to ask at the next start.
    ///
    /// # Errors
    /// As [`Self::record`].
    fn keep_super_peers(&mut self, contacts: &[Contact]) -> Result<(), Failure>;
    /// Tell whoever listens.
    fn tell(&mut self, event: &Event);
    /// Everything counted by the forwarding threads, by control and by the kernel.
    fn counters(&self) -> report::Counters;
    /// Where TCP is listened for, and how many streams there are.
    fn streams(&self) -> report::Streams;
    /// What the kernel does for the forwarding threads.
    fn offloading(&self) -> Offloading;
}

/// How the kernel helps, and where it does not.
#[derive(Clone, Debug, Default)]
pub struct Offloading {
    /// Every offload, by name.
    pub offload: BTreeMap<String, report::Offload>,
    /// What may wait at a socket.
    pub buffers: report::SocketBuffers,
    /// What an operator should look at.
    pub attention: Vec<report::Attention>,
}

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The network.
    pub network: Network,
    /// The device's name.
    pub tun: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Where the node listens.
    pub listen: Vec<SocketAddr>,
    /// What it offers for transport keys.
    pub ciphers: Vec<Cost>,
}

impl Facts {
    pub(crate) fn genesis(&self) -> &Genesis {
        &self.network.genesis
    }
}

/// The control thread's queues.
#[derive(Debug)]
pub struct Queues {
    /// From the forwarding threads.
    pub exceptions: Receiver<Exception>,
    /// From the directory, netlink, and whoever stops us.
    pub news: Receiver<News>,
    /// From the control socket.
    pub questions: Receiver<Question>,
}

/// See the module.
pub struct Control<W> {
    node: Node,
    clock: Clock,
    world: W,
    facts: Facts,
    counters: Arc<Counters>,
    asked: BTreeMap<RequestId, Asked>,
    next_request: RequestId,
    unsaved: Unsaved,
    lost: Option<Failure>,
    stopping: bool,
}

impl<W: World> Control<W> {
    /// Ready to run. `counters` is the set that the node counts in.
    #[must_use]
    pub fn new(node: Node, clock: Clock, world: W, facts: Facts, counters: Arc<Counters>) -> Self {
        Self {
            node,
            clock,
            world,
            facts,
            counters,
            asked: BTreeMap::new(),
            next_request: 0,
            unsaved: Unsaved::default(),
            lost: None,
            stopping: false,
        }
    }

    /// Run until told to stop, and take the world down.
    ///
    /// # Errors
    /// What was lost ([`News::Lost`]).
    pub fn run(mut self, queues: &Queues) -> Result<(), Failure> {
        self.carry_out();
        let mut questions = queues.questions.clone();
        while !self.stopping {
            let deadline = self.poll_timeout().map_or_else(never, |at| {
                let wait = at.since(self.clock.instant());
                after(wait.max(Duration::from_micros(100)))
            });
            select! {
                recv(queues.exceptions) -> exception => self.on_exceptions(exception.ok(), queues),
                recv(queues.news) -> news => self.on_news(news.unwrap_or(News::Stop)),
                recv(questions) -> question => match question {
                    Ok(question) => self.on_question(question),
                    // The control socket has failed; a closed queue would be ready for ever.
                    Err(_) => questions = never(),
                },
                recv(deadline) -> _ => {}
            }
            self.carry_out();
            self.on_deadlines();
        }
        if self.unsaved.failure().is_some() {
            self.save();
        }
        self.lost.map_or(Ok(()), Err)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.node.poll_timeout(), self.unsaved.poll_timeout()].into_iter().flatten().min()
    }

    fn on_deadlines(&mut self) {
        let now = self.clock.now();
        if self.unsaved.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.save();
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle_timeout(now);
            self.carry_out();
        }
    }

    fn on_exceptions(&mut self, first: Option<Exception>, queues: &Queues) {
        let Some(first) = first else {
            self.stopping = true;
            return;
        };
        self.node.handle_exception(first, self.clock.now());
        self.carry_out();
        for exception in queues.exceptions.try_iter().take(EXCEPTIONS_AT_ONCE) {
            self.node.handle_exception(exception, self.clock.now());
            self.carry_out();
        }
    }

    fn on_news(&mut self, news: News) {
        let now = self.clock.now();
        match news {
            News::Reply(reply) => self.node.handle_reply(reply, now),
            News::Links(local) => self.node.handle_links(local, now),
            News::Mapped(mapped) => self.node.handle_mapping(mapped, now),
            News::RouterAt(at) => self.node.handle_router(at, now),
            News::Moved | News::RouterRestarted => self.node.handle_moved(now),
            News::Awake => self.node.handle_timeout(now),
            News::Stream(stream, event) => self.node.handle_stream(stream, event, now),
            News::Tried(tried) => self.node.handle_tried(tried, now),
            News::Stop => self.request(Asked::Stop, Request::Stop),
            News::Lost(failure) => {
                self.lost = Some(failure);
                self.request(Asked::Stop, Request::Stop);
            }
        }
    }

    fn on_question(&mut self, question: Question) {
        let now = self.clock.now();
        match question {
            Question::Status { reply } => _ = reply.send(Ok(self.status())),
            Question::Peers { reply } => {
                let peers = self.node.peers(now).into_iter().map(answer::peer).collect();
                _ = reply.send(Ok(report::Peers { schema: report::SCHEMA, peers }));
            }
            Question::Netcheck { reply } => self.request(Asked::Netcheck(reply), Request::Netcheck),
            Question::Doctor { peer, reply } => self.request(Asked::Doctor(reply), Request::Examine { peer }),
            Question::Ping { peer, timeout, reply } => {
                self.request(Asked::Ping(reply), Request::Ping { peer, timeout });
            }
            Question::Resolve { query, reply } => {
                let request = Request::Resolve { query: query.clone() };
                self.request(Asked::Resolve(query, reply), request);
            }
            Question::Invite { request, reply } => {
                let invitation = Invitation {
                    roles: roles(request.role),
                    uses: request.uses,
                    life: request.expires,
                    name: request.name,
                    address: request.address,
                };
                self.request(Asked::Invite(reply), Request::Invite(invitation));
            }
            Question::Down { reply } => {
                _ = reply.send(Ok(()));
                self.request(Asked::Stop, Request::Stop);
            }
        }
    }

    fn request(&mut self, asked: Asked, request: Request) {
        self.next_request += 1;
        self.asked.insert(self.next_request, asked);
        self.node.handle_request(self.next_request, request, self.clock.now());
    }

    /// Do everything that the node wants. As long as the ledger lacks a line of this batch, the rest of the batch is
    /// not sent.
    fn carry_out(&mut self) {
        let (mut fresh, mut promises) = (false, false);
        while let Some(output) = self.node.poll_output() {
            if let Output::Persist(change) = output {
                promises |= matches!(change, Persist::Ledger(_));
                self.unsaved.add(change);
                fresh = true;
                continue;
            }
            if std::mem::take(&mut fresh) {
                self.save();
            }
            self.perform(output, promises && self.unsaved.ledger_failure().is_some());
        }
        if fresh {
            self.save();
        }
    }

    fn perform(&mut self, output: Output, withheld: bool) {
        match output {
            Output::Transmit { to, bytes } => {
                if withheld || self.is_premature(&bytes) || !self.world.send(to, &bytes) {
                    self.counters.count(Drop::SendFailed);
                }
            }
            Output::TransmitNear { to, bytes, hops } => {
                if withheld || !self.world.send_near(to, &bytes, hops) {
                    self.counters.count(Drop::SendFailed);
                }
            }
            Output::ToTun(packet) => {
                if !self.world.to_tun(&packet) {
                    self.counters.count(Drop::TunFailed);
                }
            }
            Output::OpenDoor(door) => self.world.open_door(door),
            Output::CloseDoor(door) => self.world.close_door(door),
            Output::OpenStream { id, to } => self.world.open_stream(id, to),
            Output::BeginCrossing { id, ask } => self.world.begin_crossing(id, ask),
            Output::Cross { id, across } => self.world.cross(id, across),
            Output::CloseStream(stream) => self.world.close_stream(stream),
            Output::TryStreams(to) => self.world.try_streams(to),
            Output::TrustStream(stream) => self.world.trust_stream(stream),
            Output::Table(table) => self.world.publish(table),
            Output::Command(command) => self.command(command),
            Output::Persist(change) => self.unsaved.add(change),
            Output::Event(event) => self.world.tell(&event),
            Output::Answer(id, answer) => self.answer(id, answer),
        }
    }

    /// Whether this lets a newcomer in whom the ledger does not know yet: asked again, the node answers from memory.
    fn is_premature(&self, datagram: &[u8]) -> bool {
        self.unsaved.ledger_failure().is_some() && matches!(classify(datagram), Some(Frame::EnrolAnswer(_)))
    }

    fn save(&mut self) {
        self.unsaved.save(&mut self.world, self.clock.instant());
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        let Some(asked) = self.asked.remove(&id) else { return };
        match (asked, self.unsaved.ledger_failure()) {
            // A code that the next start would not know.
            (Asked::Invite(reply), Some(failure)) if matches!(answer, Answer::Invited { .. }) => {
                _ = reply.send(Err(failure.clone()));
            }
            (asked, _) => self.stopping |= asked.answer(answer, self.clock.now().unix),
        }
    }

    /// A directory that cannot take a command has failed it: the node must not wait.
    fn command(&mut self, command: Command) {
        let id = match &command {
            Command::Lookup { id, .. } | Command::Publish { id, .. } => Some(*id),
            Command::Cancel { .. } | Command::Neighbours(_) => None,
        };
        if !self.world.command(command)
            && let Some(id) = id
        {
            self.node.handle_reply(Reply::Finished { id, ok: false }, self.clock.now());
        }
    }

    fn status(&self) -> report::Status {
        let status = self.node.status(self.clock.now());
        let state = if self.stopping {
            State::Stopping
        } else if status.ready {
            State::Ready
        } else if status.degraded {
            State::Degraded
        } else {
            State::Starting
        };
        let mut status = answer::status(status, state, &self.facts, self.world.counters());
        let offloading = self.world.offloading();
        status.streams = self.world.streams();
        status.offload = offloading.offload;
        status.socket_buffers = offloading.buffers;
        status.attention.extend(offloading.attention);
        status.attention.extend(
            self.unsaved
                .failure()
                .map(|failure| report::Attention { what: failure.what.clone(), mend: failure.mend.clone() }),
        );
        status
    }
}

pub(crate) const fn roles(role: Role) -> Roles {
    match role {
        Role::Peer => Roles::PEER,
        Role::SuperPeer => Roles::PEER.with(Roles::SUPER_PEER),
        Role::LoginServer => Roles::PEER.with(Roles::SUPER_PEER).with(Roles::LOGIN),
        Role::Client => Roles::CLIENT,
    }
}

pub(crate) const fn port_mapping(protocol: MappingProtocol) -> report::PortMapping {
    match protocol {
        MappingProtocol::Pcp => report::PortMapping::Pcp,
        MappingProtocol::NatPmp => report::PortMapping::NatPmp,
        MappingProtocol::Upnp => report::PortMapping::Upnp,
    }
}

pub(crate) const fn nat_class(class: NatClass) -> report::NatClass {
    match class {
        NatClass::Unknown => report::NatClass::Unknown,
        NatClass::Open => report::NatClass::Open,
        NatClass::Firewalled => report::NatClass::Firewalled,
        NatClass::FullCone => report::NatClass::FullCone,
        NatClass::AddressRestricted => report::NatClass::AddressRestricted,
        NatClass::PortRestricted => report::NatClass::PortRestricted,
        NatClass::SymmetricSequential => report::NatClass::SymmetricSequential,
        NatClass::SymmetricRandom => report::NatClass::SymmetricRandom,
        NatClass::UdpBlocked => report::NatClass::UdpBlocked,
    }
}
