//! What goes into a [`super::Node`] and what comes out of it.
//!
//! Owns: vocabulary only.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::doctor::{Diagnosis, Side};
use crate::document::{
    Candidate, Contact, Credential, Genesis, NatClass, Network, Passport, Roles, Signed, Whereabouts,
};
use crate::forward::Table;
use crate::id::NodeId;
use crate::locator::{DoorId, Endpoint, Locator, StreamId};
use crate::login::{Entry, LoginServer};
use crate::mapping::Mapped;
use crate::nat::Discovered;
use crate::port::Command;
use crate::stream::{Across, Carrier, Tried};
use crate::timing::UnixTime;
use crate::tunnel::Protection;

/// Everything a node is made of.
pub struct Config {
    /// The network.
    pub network: Network,
    /// Its genesis, to hand to those who join.
    pub genesis: Signed<Genesis>,
    /// The node's own key.
    pub key: SigningKey,
    /// Its own passport.
    pub credential: Credential,
    /// All of its randomness.
    pub seed: [u8; 32],
    /// Super peers to begin with: from the code, from the last run. Unchecked, old ones welcome.
    pub known: Vec<Contact>,
    /// Present with the login role.
    pub login: Option<LoginServer>,
    /// UDP addresses that the administrator says are ours.
    pub advertise: Vec<SocketAddr>,
    /// Port of our directory; published with our public addresses if we serve it.
    pub directory_port: u16,
    /// Of the TUN device, in bytes.
    pub mtu: u16,
    /// Bytes a second that we relay for one node.
    pub relay_rate: u64,
}

/// Ties an [`Answer`] to its [`Request`].
pub type RequestId = u64;

/// What a user asks of a running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One round trip through the data path.
    Ping {
        /// A name, a virtual address, a node ID or the beginning of one.
        peer: String,
        /// When to give up.
        timeout: Duration,
    },
    /// Both stages of resolution.
    Resolve {
        /// As for a ping.
        query: String,
    },
    /// A code for another node.
    Invite(Invitation),
    /// What stands between this node and the Internet.
    Netcheck,
    /// Why the path to a peer is what it is.
    Examine {
        /// As for a ping.
        peer: String,
    },
    /// Say goodbye to everybody.
    Stop,
}

/// What a code is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What its users will be.
    pub roles: Roles,
    /// How many nodes may use it.
    pub uses: u32,
    /// How long.
    pub life: Duration,
    /// The name its user gets; only with one use.
    pub name: Option<String>,
    /// The address its user gets; only with one use.
    pub address: Option<Ipv4Addr>,
}

/// What a node answers to a user.
#[derive(Clone, PartialEq)]
pub enum Answer {
    /// The echo came back.
    Pong {
        /// Who answered.
        name: String,
        /// Its virtual IPv4 address.
        address: Ipv4Addr,
        /// There and back.
        rtt: Duration,
        /// How.
        path: PathView,
        /// Whether a direct path may be found by going on.
        guessing: bool,
    },
    /// What was found.
    Resolved(Box<Resolution>),
    /// A code.
    Invited {
        /// One line, a secret.
        code: String,
    },
    /// What was found.
    Netcheck(Box<Netcheck>),
    /// Both sides of a path.
    Examined(Box<Examination>),
    /// The goodbyes are said.
    Stopped,
    /// It could not be done.
    Failed(Failed),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pong { name, address, rtt, path, guessing } => {
                let fields = (name, address, rtt, path, guessing);
                f.debug_tuple("Pong").field(&fields).finish()
            }
            Self::Resolved(resolution) => f.debug_tuple("Resolved").field(resolution).finish(),
            // Whoever reads a code can join.
            Self::Invited { .. } => f.debug_struct("Invited").finish_non_exhaustive(),
            Self::Netcheck(netcheck) => f.debug_tuple("Netcheck").field(netcheck).finish(),
            Self::Examined(examination) => f.debug_tuple("Examined").field(examination).finish(),
            Self::Stopped => f.write_str("Stopped"),
            Self::Failed(why) => f.debug_tuple("Failed").field(why).finish(),
        }
    }
}

/// Why a request could not be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Nobody is called that or holds that.
    #[error("no such peer: {0}")]
    NoSuchPeer(String),
    /// The beginning of an ID fits several nodes.
    #[error("{0} fits several peers")]
    Ambiguous(String),
    /// It exists, and does not answer.
    #[error("{0} does not answer")]
    Unreachable(String),
    /// Not in time.
    #[error("no answer from {0} in time")]
    TimedOut(String),
    /// This node issues no codes.
    #[error("this node has no login role")]
    NotLogin,
    /// Nobody could reach this node with a code of its making.
    #[error("this node has no address that others could reach, and a code without one is of no use")]
    NoAddress,
    /// The name is another node's, or promised to one.
    #[error("the name {0} is taken")]
    NameTaken(String),
    /// The address is another node's, or promised to one.
    #[error("the address {0} is taken")]
    AddressTaken(Ipv4Addr),
    /// The request makes no sense.
    #[error("{0}")]
    Senseless(String),
    /// Too many such requests at once.
    #[error("too many requests at once")]
    Busy,
}

/// How a path was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// The peer has a public address.
    Public,
    /// Both are in one network.
    Local,
    /// We have a public address and the peer dialled.
    Reversed,
    /// Both dialled at once.
    Punched,
    /// As punched, to ports that a NAT was expected to give out next.
    Predicted,
    /// As punched, by many sockets and many ports tried at random.
    Guessed,
    /// A router opened a port, the peer's or ours.
    Mapped,
    /// A router in front of both turns packets around: by the peer's outer address, which is ours as well.
    Hairpin,
    /// No direct way: through a relay.
    Relayed,
}

impl Method {
    /// As scripts read it; `None` for a relay, which has no method.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Public => Some("public"),
            Self::Local => Some("local"),
            Self::Reversed => Some("reversed"),
            Self::Punched => Some("punched"),
            Self::Predicted => Some("predicted"),
            Self::Guessed => Some("guessed"),
            Self::Mapped => Some("mapped"),
            Self::Hairpin => Some("hairpin"),
            Self::Relayed => None,
        }
    }
}

/// A path as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PathView {
    /// Where the datagrams go.
    pub locator: Locator,
    /// The relay's name.
    pub via: Option<String>,
    /// What carries the datagrams; `None`: UDP.
    pub carrier: Option<Carrier>,
    /// How it was found.
    pub method: Method,
    /// Smoothed round trip; `None` before the first answer.
    pub rtt: Option<Duration>,
    /// Share of probes unanswered, 0 to 1.
    pub loss: f64,
    /// The largest inner packet that it takes, in bytes.
    pub mtu: u16,
    /// How long it has been in use.
    pub age: Duration,
}

/// A peer as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Who it is.
    pub passport: Passport,
    /// Both virtual addresses.
    pub addresses: [IpAddr; 2],
    /// The path in use; `None` while there is no session.
    pub path: Option<PathView>,
    /// Since the last handshake.
    pub handshake_age_s: Option<u64>,
    /// What data is sealed with; `None` while there is no session, or no keys that may be used.
    pub protection: Option<Protection>,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
}

/// What both sides know about the path between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Examination {
    /// Our own name.
    pub name: String,
    /// The peer's.
    pub peer: String,
    /// The path in use; `None` while there is no session.
    pub path: Option<PathView>,
    /// Our side.
    pub here: Side,
    /// The peer's side; `None` if it did not answer.
    pub there: Option<Side>,
    /// What follows.
    pub diagnosis: Diagnosis,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Known already.
    Cache,
    /// A super peer said so.
    SuperPeer,
    /// The table said so.
    Dht,
}

/// Both stages of one resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    /// Who holds what was asked for.
    pub passport: Passport,
    /// Both virtual addresses.
    pub addresses: [IpAddr; 2],
    /// Where it is; `None` if nobody knows (it is off).
    pub whereabouts: Option<Whereabouts>,
    /// Where the passport came from, and how long that took.
    pub lease_stage: (Source, Duration),
    /// The same for the whereabouts.
    pub whereabouts_stage: Option<(Source, Duration)>,
}

/// What a node has to say about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether there is a home (or this is a super peer) and the whereabouts are published.
    pub ready: bool,
    /// It was ready and no super peer answers any more.
    pub degraded: bool,
    /// Our passport.
    pub passport: Passport,
    /// Both virtual addresses.
    pub addresses: [IpAddr; 2],
    /// What stands between us and the Internet.
    pub nat: NatClass,
    /// NAT classes of the nodes that a super peer knows, by name; empty elsewhere.
    pub nat_classes: BTreeMap<&'static str, usize>,
    /// The port that our router opened for us, if it did.
    pub mapped: Option<Mapped>,
    /// Where others see us.
    pub candidates: Vec<Candidate>,
    /// Super peers that we know of with a tunnel or a try at one: name, ID, round trip, whether a home.
    pub super_peers: Vec<SuperPeerView>,
    /// Whether this node serves the directory.
    pub directory_server: bool,
    /// Nodes in the directory's routing table.
    pub directory_peers: usize,
    /// Somebody keeps our passport in the directory.
    pub lease_published: bool,
    /// Somebody keeps our whereabouts.
    pub whereabouts_published: bool,
    /// Super peers whose clock says that ours is wrong, or similar: text and mend.
    pub attention: Vec<(String, String)>,
}

/// What a node found out about its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcheck {
    /// By STUN.
    pub found: Discovered,
    /// Where the outside sees the socket that the node listens on.
    pub external: Vec<SocketAddr>,
    /// The port that the router opened for us, if it did.
    pub mapped: Option<Mapped>,
    /// Super peers, the nearest first.
    pub servers: Vec<ServerView>,
    /// What TCP gets through to super peers.
    pub tried: Tried,
}

/// A super peer that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    /// Its name.
    pub name: String,
    /// To it and back; `None` if it does not answer.
    pub rtt: Option<Duration>,
}

/// A super peer as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SuperPeerView {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: NodeId,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// What carries the datagrams; `None`: UDP.
    pub carrier: Option<Carrier>,
    /// Whether it is up and one of our homes.
    pub home: bool,
}

/// What must be on disk before anything later is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Persist {
    /// A change of the login server's ledger.
    Ledger(Entry),
    /// Our passport was renewed.
    Passport(Credential),
    /// Super peers to begin with next time, at most 200.
    SuperPeers(Vec<Contact>),
}

/// A change of state that a user would like to read.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A super peer answered.
    HomeUp {
        /// Its name.
        name: String,
    },
    /// A super peer does not answer any more.
    HomeDown {
        /// Its name.
        name: String,
    },
    /// Ready for traffic.
    Ready,
    /// A peer's traffic goes another way.
    Path {
        /// Its name.
        name: String,
        /// Directly.
        direct: bool,
        /// Where to.
        remote: SocketAddr,
    },
    /// The passport was renewed.
    Renewed {
        /// Until then.
        until: UnixTime,
    },
}

/// What a node wants done, in this order.
#[derive(Clone)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// There.
        to: Endpoint,
        /// As it is.
        bytes: Vec<u8>,
    },
    /// Send this datagram by a further socket so that it dies on the way (RFC 791, time to live): it opens what stands in front
    /// of us, and the other side's NAT never sees it.
    TransmitNear {
        /// There, by a door, over IPv4.
        to: Endpoint,
        /// As it is.
        bytes: Vec<u8>,
        /// Routers that pass it on, and one.
        hops: u8,
    },
    /// Open a further UDP socket at any free IPv4 port; what cannot be opened stays silent.
    OpenDoor(DoorId),
    /// Close it, whether it could be opened or not.
    CloseDoor(DoorId),
    /// Dial a node that listens at some of these addresses; what becomes of it is told with
    /// [`super::Node::handle_stream`].
    OpenStream {
        /// Its number, even.
        id: StreamId,
        /// Where its UDP port is; TCP has the same number, or 443.
        to: Vec<SocketAddr>,
    },
    /// Open a fresh TCP port for IPv4 and connect from it to the streams of these super peers, to ask where they see it;
    /// that is told as [`crate::stream::StreamEvent::Seen`].
    BeginCrossing {
        /// The port's number, even, and that of the stream which it may become.
        id: StreamId,
        /// One address of each.
        ask: Vec<SocketAddr>,
    },
    /// Connect from that port; what becomes of it is told like that of a stream.
    Cross {
        /// The port's.
        id: StreamId,
        /// Whereto.
        across: Across,
    },
    /// Close a stream, or stop dialling. Nothing more is told of it.
    CloseStream(StreamId),
    /// Open streams to all of these addresses, and to 443 there, and close them as soon as they stand; what was reached
    /// within [`crate::stream::TRIAL`] is told with [`super::Node::handle_tried`].
    TryStreams(Vec<SocketAddr>),
    /// Whoever opened this stream to us is a member: it may stay.
    TrustStream(StreamId),
    /// Forward by this table.
    Table(Arc<Table>),
    /// Ask the directory.
    Command(Command),
    /// Write this to disk before anything later is carried out.
    Persist(Persist),
    /// Write this IP packet to the TUN device.
    ToTun(Vec<u8>),
    /// Tell whoever listens.
    Event(Event),
    /// Answer a user.
    Answer(RequestId, Answer),
}
