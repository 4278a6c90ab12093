//! The libp2p node: its transports, its protocols, and every number that they are tuned by.
//!
//! Never handles an event: the task does.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::connection_limits::ConnectionLimits;
use libp2p::identity::Keypair;
use libp2p::kad::{self, BucketInserts, Caching, Mode, StoreInserts};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, connection_limits, identify, quic, yamux};

use super::reachability::Reachability;
use super::store::Store;
use super::transport::Apart;
use super::{Check, DirectoryConfig, DirectoryError, naming};

/// A walk that has not ended by then won't: about three hops, each with a dead entry or two.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// One request to a connected node; below half of [`QUERY_TIMEOUT`], so that a silent node doesn't use it up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Dialling one node, handshake included; likewise.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);

/// How often a super peer refreshes its buckets: 49 others at some 10 kB a connection are 3.3 kbit/s, and a promoted
/// peer, which all of them may then talk to, stays below 5 kbit/s too.
const BOOTSTRAP_SERVER: Duration = Duration::from_secs(1200);

/// How often a peer does, promoted or not: it learns from its walks, and must stay below 5 kbit/s in all.
const BOOTSTRAP_CLIENT: Duration = Duration::from_secs(3600);

/// Nodes that keep a record, and that a walk asks at its end. Half of 50 servers may vanish at once and a record
/// is lost once in 256 times; 20, the library's default, would have every node talk to nearly every server.
const REPLICAS: NonZeroUsize = NonZeroUsize::new(8).expect("eight");

/// How often a server hands its records on to nodes that came nearer to their keys.
const REPLICATION_INTERVAL: Duration = Duration::from_secs(3600);

/// The longest life of a record whose sender states none; its check shortens it.
const RECORD_LIFE: Duration = Duration::from_secs(48 * 3600);

/// A connection without a request for this long is closed: warm through a burst of look-ups, and nothing at night.
const IDLE_CLIENT: Duration = Duration::from_secs(60);

/// The same for servers; longer, so that it is the client that closes, and so knows that nothing broke.
const IDLE_SERVER: Duration = Duration::from_secs(90);

/// QUIC keep-alive while a connection stands; the shortest NAT mapping seen lives 30 s.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// QUIC gives a silent partner up after two lost keep-alives.
const QUIC_SILENCE_MS: u32 = 40_000;

/// Streams that a partner may open at once; Kademlia allows 32 each way.
const STREAMS: u32 = 64;

/// Receive windows: the largest answer is 16 KiB.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// Identify asks again this often; addresses change rarely and connections are short.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(3600);

/// TCP and QUIC from both sides at once make four for a moment.
const CONNECTIONS_PER_PEER: u32 = 4;

/// Handshakes under way, each way.
const PENDING: u32 = 128;

/// Connections of a server: 5,500 nodes with one connection a minute on 50 servers are 110, ten times over.
const CONNECTIONS_SERVER: u32 = 1024;

/// Connections of a client: walks under way; or of a promoted one: its share of the others' walks.
const CONNECTIONS_CLIENT: u32 = 192;

/// The protocols of a directory node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that a connection beyond the limits costs the others nothing.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) kad: kad::Behaviour<Store>,
    pub(super) reachability: Reachability,
}

/// Builds the node that will listen on `listening`. Must run in the context of the runtime that will drive it.
pub(super) fn build(
    config: &DirectoryConfig,
    listening: &[SocketAddr],
    check: Check,
) -> Result<Swarm<Behaviour>, DirectoryError> {
    let refused = |why: String| DirectoryError::Transport(why);
    let keys = Keypair::ed25519_from_bytes(config.key).map_err(|error| refused(error.to_string()))?;
    let idle = if config.server { IDLE_SERVER } else { IDLE_CLIENT };
    let behaviour = behaviour(config, listening, &keys, check);
    let builder = SwarmBuilder::with_existing_identity(keys)
        .with_tokio()
        .with_other_transport(|keys| Ok(Apart::new(keys, tune_quic, tune_yamux)?))
        .map_err(|error| refused(error.to_string()))?
        .with_behaviour(|_| behaviour)
        .map_err(|error| refused(error.to_string()))?;
    Ok(builder
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(idle))
        .with_connection_timeout(DIAL_TIMEOUT)
        .build())
}

fn behaviour(config: &DirectoryConfig, listening: &[SocketAddr], keys: &Keypair, check: Check) -> Behaviour {
    let peer = keys.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(peer, Store::new(check), kademlia(config));
    kad.set_mode(Some(if config.server { Mode::Server } else { Mode::Client }));
    let identify = identify::Config::new(naming::identity_protocol(&config.network), keys.public())
        .with_agent_version(concat!("frejus/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_interval(IDENTIFY_INTERVAL)
        .with_cache_size(0)
        // Nobody needs to dial a client, a promoted one is dialled where it was found reachable, and a server that
        // says where it is reached knows better than its sockets.
        .with_hide_listen_addrs(!config.server || !config.advertise.is_empty());
    Behaviour {
        limits: connection_limits::Behaviour::new(limits(config.server)),
        identify: identify::Behaviour::new(identify),
        kad,
        reachability: Reachability::new(peer, config, listening),
    }
}

fn kademlia(config: &DirectoryConfig) -> kad::Config {
    let refresh = if config.server { BOOTSTRAP_SERVER } else { BOOTSTRAP_CLIENT };
    let mut kademlia = kad::Config::new(naming::protocol_name(&config.network));
    kademlia
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(REQUEST_TIMEOUT)
        .set_replication_factor(REPLICAS)
        .disjoint_query_paths(true)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_caching(Caching::Disabled)
        .set_record_ttl(Some(RECORD_LIFE))
        .set_replication_interval(Some(REPLICATION_INTERVAL))
        // The control plane publishes anew whenever a record changes or nears its end.
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(refresh));
    kademlia
}

fn limits(server: bool) -> ConnectionLimits {
    let total = if server { CONNECTIONS_SERVER } else { CONNECTIONS_CLIENT };
    ConnectionLimits::default()
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER))
        .with_max_pending_incoming(Some(PENDING))
        .with_max_pending_outgoing(Some(PENDING))
        .with_max_established(Some(total))
        // A quarter is left for connections of our own choice: an eclipse needs all of them.
        .with_max_established_incoming(Some(total - total / 4))
}

/// The library would let a partner open 512 streams, each with a quarter of a MiB that waits unread.
fn tune_yamux() -> yamux::Config {
    let mut config = yamux::Config::default();
    // Counted are both sides' streams.
    config.set_max_num_streams(2 * STREAMS as usize);
    config
}

fn tune_quic(mut config: quic::Config) -> quic::Config {
    config.handshake_timeout = DIAL_TIMEOUT;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_idle_timeout = QUIC_SILENCE_MS;
    config.max_concurrent_stream_limit = STREAMS;
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = CONNECTION_WINDOW;
    // Its probes cost more than most connections here carry.
    config.disable_path_mtu_discovery()
}
