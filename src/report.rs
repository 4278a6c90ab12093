//! What a node says about itself: the JSON that scripts rely on, field for field.
//!
//! Owns: the shapes and their words. Fields are only added; a change of meaning takes a new [`SCHEMA`]. Never:
//! how a table looks, nor where a value comes from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub mod offloading;
mod streams;
pub mod timestamp;
pub use offloading::{Offload, SocketBuffers};
pub use streams::Streams;
pub use timestamp::Timestamp;

/// The version of every report here.
pub const SCHEMA: u32 = 1;

/// A word of the contract: in JSON and in tables the same.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$what])* #[serde(rename = $word)] $variant,)+
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $word,)+ })
            }
        }
    };
}

pub mod doctor;
pub mod netcheck;

words! {
    /// How the node stands.
    State {
        /// Not all is up yet.
        Starting = "starting",
        /// All is up.
        Ready = "ready",
        /// Up, but something needs attention.
        Degraded = "degraded",
        /// On its way out.
        Stopping = "stopping",
    }
}

words! {
    /// What a node may do in the network.
    Role {
        /// Enrols nodes, renews passports, assigns addresses.
        LoginServer = "login-server",
        /// Keeps records, introduces nodes to each other, relays.
        SuperPeer = "super-peer",
        /// Carries its own traffic.
        Peer = "peer",
        /// Is looked after by a super peer.
        Client = "client",
    }
}

words! {
    /// The NAT in front of a node, from the easiest to the hardest.
    NatClass {
        /// A public address, nothing filtered.
        Open = "open",
        /// A public address behind a stateful filter.
        Firewalled = "firewalled",
        /// Endpoint-independent mapping and filtering.
        FullCone = "full-cone",
        /// Endpoint-independent mapping, address-dependent filtering.
        AddressRestricted = "address-restricted",
        /// Endpoint-independent mapping, address- and port-dependent filtering.
        PortRestricted = "port-restricted",
        /// A mapping for each destination, ports in sequence.
        SymmetricSequential = "symmetric-sequential",
        /// A mapping for each destination, ports at random.
        SymmetricRandom = "symmetric-random",
        /// No UDP gets out.
        UdpBlocked = "udp-blocked",
        /// Not known yet.
        Unknown = "unknown",
    }
}

words! {
    /// How the router was asked to open a port.
    PortMapping {
        /// RFC 6887.
        Pcp = "pcp",
        /// RFC 6886.
        NatPmp = "nat-pmp",
        /// UPnP Internet Gateway Device.
        Upnp = "upnp",
    }
}

words! {
    /// What carries the sealed packets.
    Transport {
        /// UDP datagrams.
        Udp = "udp",
        /// Frames over TCP.
        Tcp = "tcp",
        /// Frames over TLS.
        Tls = "tls",
    }
}

words! {
    /// Which way the packets go.
    PathKind {
        /// From node to node.
        Direct = "direct",
        /// Through a super peer.
        Relay = "relay",
    }
}

words! {
    /// How a direct path was found.
    Method {
        /// The other side has a public address.
        Public = "public",
        /// Both are in one network.
        Local = "local",
        /// The other side was asked to dial.
        Reversed = "reversed",
        /// Both opened their NAT at once.
        Punched = "punched",
        /// The next port of a NAT was predicted.
        Predicted = "predicted",
        /// The port of a NAT was guessed.
        Guessed = "guessed",
        /// The router was asked for a mapping.
        Mapped = "mapped",
        /// Through the NAT that both sit behind, and back.
        Hairpin = "hairpin",
    }
}

words! {
    /// How the node takes part in the directory.
    DirectoryMode {
        /// Stores records for others.
        Server = "server",
        /// Only asks.
        Client = "client",
    }
}

words! {
    /// Where a peer may be reached.
    CandidateKind {
        /// An address of the machine itself.
        Host = "host",
        /// What a super peer sees.
        Reflexive = "reflexive",
        /// What the router was asked for.
        Mapped = "mapped",
        /// A super peer that relays.
        Relay = "relay",
    }
}

words! {
    /// One of the two look-ups.
    Stage {
        /// Virtual address or name to node.
        Lease = "lease",
        /// Node to whereabouts.
        Whereabouts = "whereabouts",
    }
}

words! {
    /// Who answered a look-up.
    Source {
        /// Known already.
        Cache = "cache",
        /// The home super peer.
        SuperPeer = "super-peer",
        /// The table.
        Dht = "dht",
    }
}

words! {
    /// How packets are sealed.
    Cipher {
        /// RFC 8439.
        ChaCha20Poly1305 = "chacha20-poly1305",
        /// NIST SP 800-38D.
        Aes256Gcm = "aes-256-gcm",
    }
}

/// `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How the node stands.
    pub state: State,
    /// The network that it belongs to.
    pub network: Network,
    /// Who it is.
    pub node: Node,
    /// What is in front of it.
    pub nat: Nat,
    /// What a super peer has seen in front of the nodes that it knows: how many of each class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nat_classes: BTreeMap<String, usize>,
    /// The super peers in use.
    pub super_peers: Vec<SuperPeer>,
    /// The directory, seen from here.
    pub directory: Directory,
    /// Connections for those whose UDP is blocked.
    #[serde(default)]
    pub streams: Streams,
    /// What the kernel does in bulk, by name.
    #[serde(default)]
    pub offload: BTreeMap<String, Offload>,
    /// What may wait at the node's sockets.
    #[serde(default)]
    pub socket_buffers: SocketBuffers,
    /// The ciphers that transport keys may be used with, and what they cost.
    pub ciphers: Vec<CipherCost>,
    /// What needs attention; empty when all is well.
    pub attention: Vec<Attention>,
    /// Packets since the node started.
    pub counters: Counters,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name, a label.
    pub name: String,
    /// Its ID in full.
    pub id: String,
    /// Its IPv4 prefix, such as `10.93.0.0/16`.
    pub prefix: String,
    /// Its IPv6 prefix, a /48.
    pub prefix6: String,
}

/// The node that reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its ID in full.
    pub id: String,
    /// Its name, a label unique in the network.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Its virtual addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The name of its device.
    pub tun: String,
    /// The device's MTU in bytes.
    pub mtu: u16,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where it tells others to find it, beyond what it finds out itself.
    pub advertised: Vec<SocketAddr>,
}

/// What is known of the NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Its class.
    pub class: NatClass,
    /// What opened a port in it for this node, if anything did.
    #[serde(default)]
    pub port_mapping: Option<PortMapping>,
    /// That port, on the router's far side.
    #[serde(default)]
    pub mapped: Option<SocketAddr>,
}

/// A super peer in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuperPeer {
    /// Its name.
    pub name: String,
    /// Its node ID in full.
    pub id: String,
    /// Round trip in milliseconds; null before the first answer.
    pub rtt_ms: Option<f64>,
    /// How it is reached, or will be tried.
    pub transport: Transport,
    /// Whether it is the one asked first.
    pub home: bool,
}

/// The directory, seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Whether this node stores records for others.
    pub mode: DirectoryMode,
    /// Nodes in the routing table.
    pub peers: usize,
    /// What others can find of this node.
    pub published: Published,
}

/// What others can find of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its passport.
    pub lease: bool,
    /// Its whereabouts.
    pub whereabouts: bool,
}

/// What a cipher costs on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CipherCost {
    /// Which one.
    pub name: Cipher,
    /// To seal 1420 bytes, in nanoseconds, as measured at the start.
    pub seal_1420_ns: u16,
}

/// Something that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// What is not as it should be.
    pub what: String,
    /// The command that mends it.
    pub mend: String,
}

/// Packets since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// From the device into the network.
    pub packets_out: u64,
    /// From the network into the device.
    pub packets_in: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// `peers --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Every peer with a tunnel.
    pub peers: Vec<Peer>,
}

/// A peer with a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its node ID in full.
    pub id: String,
    /// Its virtual addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What it may do.
    pub roles: Vec<Role>,
    /// The path in use; null while there is none.
    pub path: Option<Path>,
    /// Seconds since the last handshake; null before the first.
    pub handshake_age_s: Option<u64>,
    /// What seals data to it; null without a session.
    pub cipher: Option<Cipher>,
    /// Whether data to it travels under transport keys; null without a session.
    pub post_quantum: Option<bool>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// A path to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Direct or through a relay.
    pub kind: PathKind,
    /// What carries it.
    pub transport: Transport,
    /// Where the datagrams are sent: the peer, or the relay.
    pub remote: SocketAddr,
    /// The relay's name; null for a direct path.
    pub via: Option<String>,
    /// How a direct path was found; null for a relayed one.
    pub method: Option<Method>,
    /// Round trip in milliseconds; null before the first answer.
    pub rtt_ms: Option<f64>,
    /// Share of probes that stayed unanswered, from 0 to 1.
    pub loss: f64,
    /// The largest packet that it takes inside the tunnel, in bytes.
    pub mtu: u16,
    /// Seconds since this path came into use.
    pub since_s: u64,
}

/// `ping --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The peer's name; what was asked for, if nobody answered.
    pub peer: String,
    /// Every echo that came back.
    pub replies: Vec<Echo>,
    /// How many were sent.
    pub sent: u32,
    /// How many came back.
    pub received: u32,
}

/// An echo that came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Echo {
    /// Counted from one.
    pub seq: u32,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
    /// The path that it came back by.
    pub path: Path,
}

/// A node's answer to one ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The peer's name.
    pub peer: String,
    /// The virtual address that answered.
    pub address: IpAddr,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
    /// The path that the echo came back by.
    pub path: Path,
    /// Whether a direct path may be found by going on.
    pub guessing: bool,
}

/// `resolve --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolve {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was asked for.
    pub query: String,
    /// The virtual address.
    pub address: IpAddr,
    /// Who holds it.
    pub node: NodeName,
    /// By what right; null when the whereabouts were found without it.
    pub lease: Option<Lease>,
    /// Where it is; null when nobody knows.
    pub whereabouts: Option<Whereabouts>,
    /// The look-ups, in order.
    pub stages: Vec<LookUp>,
}

/// A node by ID and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// Its ID in full.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// The right to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The login server that signed it: its name if known, else its node ID.
    pub issuer: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Grows with every record that the node signs.
    pub sequence: u64,
    /// Seconds since it was signed.
    pub age_s: u64,
    /// Where to try, best first.
    pub candidates: Vec<Candidate>,
}

/// A place to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// What it is.
    pub kind: CandidateKind,
    /// Where it is: an address and port; for a relay also a super peer's name.
    pub at: String,
}

/// One look-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookUp {
    /// What was looked for.
    pub stage: Stage,
    /// Who answered.
    pub source: Source,
    /// How long it took, in milliseconds.
    pub elapsed_ms: f64,
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests;
