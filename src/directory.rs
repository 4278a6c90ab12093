//! The directory: libp2p's Kademlia on a runtime of its own, behind the port of [`frejus_overlay::port`].
//!
//! Owns the libp2p node: its listeners, its routing table, the records that it keeps for others. It never
//! decides what a record means: a [`Check`] does, for every value that is stored and every value that is found.
//! It never speaks to the rest of the daemon but by [`Command`] and [`Reply`].

mod admission;
mod behaviour;
mod listen;
mod naming;
mod neighbours;
mod queries;
mod reachability;
mod store;
mod task;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc as ended;
use std::time::{Duration, Instant};

use frejus_overlay::id::{NetworkId, RecordKey};
use frejus_overlay::port::{Command, Reply};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use admission::NODES_PER_PREFIX;
pub use naming::{node_id, peer_id, protocol_name};
pub use reachability::PROBE_INTERVAL;
pub use store::MAX_VALUE;

/// Commands that may wait for the directory: every peer of a busy node asking at once, and no more.
const COMMANDS: usize = 1024;

/// How long [`DirectoryHandle::stop`] waits for the directory to let go of its sockets.
const STOPPING: Duration = Duration::from_secs(5);

/// How often it looks whether they are gone.
const DRAINING: Duration = Duration::from_millis(20);

/// What a record's check found out about a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Of two valid records under one key the higher one stays.
    pub sequence: u64,
    /// How long the record stays valid from now.
    pub expires_in: Duration,
}

/// Says whether a value is a valid record for a key, and if not, why.
pub type Check = Arc<dyn Fn(&RecordKey, &[u8]) -> Result<Checked, String> + Send + Sync>;

/// Takes the directory's replies. Called on the directory's runtime: it must not block.
pub type Replies = Box<dyn Fn(Reply) + Send>;

/// What the directory runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transports {
    /// TCP and QUIC at the same port number; whichever connects first is used.
    #[default]
    Both,
    /// TCP with Noise and yamux only.
    Tcp,
    /// QUIC only.
    Quic,
}

/// How a node takes part in the directory.
#[derive(Clone)]
pub struct DirectoryConfig {
    /// Nodes of other networks speak another protocol name, and never meet.
    pub network: NetworkId,
    /// The node key: the secret seed of its Ed25519 key pair (RFC 8032, section 5.1.5).
    pub key: [u8; 32],
    /// Where to listen; port 0 takes a free one. May be empty for a node that nobody dials.
    pub listen: Vec<SocketAddr>,
    /// Whether to keep records for others and answer their queries.
    pub server: bool,
    /// How often a client asks super peers to dial it back, to serve as long as they can; none: it stays a client.
    pub promotion: Option<Duration>,
    /// Where a server is reached from outside; empty: at the addresses it listens on.
    pub advertise: Vec<SocketAddr>,
    /// Routing table entries per IPv4 /24 or IPv6 /48, named neighbours apart.
    pub nodes_per_prefix: usize,
    /// What to run over.
    pub transports: Transports,
}

impl DirectoryConfig {
    /// A client that listens nowhere; the fields are there to be changed.
    #[must_use]
    pub fn new(network: NetworkId, key: [u8; 32]) -> Self {
        Self {
            network,
            key,
            listen: Vec::new(),
            server: false,
            promotion: None,
            advertise: Vec::new(),
            nodes_per_prefix: NODES_PER_PREFIX,
            transports: Transports::default(),
        }
    }
}

impl fmt::Debug for DirectoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryConfig")
            .field("network", &self.network)
            .field("listen", &self.listen)
            .field("server", &self.server)
            .field("promotion", &self.promotion)
            .field("advertise", &self.advertise)
            .field("nodes_per_prefix", &self.nodes_per_prefix)
            .field("transports", &self.transports)
            .finish_non_exhaustive()
    }
}

/// Why the directory did not start.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another program has the TCP or UDP port.
    #[error(
        "directory port {0} is in use: stop the other program, or choose another port with --directory-listen"
    )]
    PortTaken(SocketAddr),
    /// The address can't be listened on for another reason.
    #[error("cannot listen for the directory on {at}: {why}: check the address given to --directory-listen")]
    Listen {
        /// The address.
        at: SocketAddr,
        /// What the system or libp2p said.
        why: String,
    },
    /// The key is no Ed25519 seed, or the transport refused it.
    #[error("cannot set up the directory's transport: {0}: check the node key in the state directory")]
    Transport(String),
}

/// Starts directories.
#[derive(Debug)]
pub struct Directory;

impl Directory {
    /// Starts a directory on `runtime`; it ends when the handle is dropped.
    ///
    /// May be called from any thread. On return every listener is bound.
    ///
    /// # Errors
    /// [`DirectoryError::PortTaken`] if a port is in use, other errors if an address or the key can't be used.
    pub fn spawn(
        runtime: &Handle,
        config: DirectoryConfig,
        check: Check,
        replies: Replies,
    ) -> Result<DirectoryHandle, DirectoryError> {
        let _context = runtime.enter();
        let listening = listen::reserve(&config.listen, config.transports)?;
        let mut swarm = behaviour::build(&config, &listening, check)?;
        listen::listen(&mut swarm, &listening, config.transports)?;
        for &at in &config.advertise {
            for address in naming::multiaddrs(at, config.transports) {
                swarm.add_external_address(address);
            }
        }
        let (commands, queue) = mpsc::channel(COMMANDS);
        let (alive, ended) = ended::channel();
        let task = task::Task::new(swarm, &config, replies);
        runtime.spawn(async move {
            task.run(queue).await;
            drop(alive);
        });
        Ok(DirectoryHandle { commands, ended, listening, transports: config.transports })
    }
}

/// The control plane's end of a running directory; dropping it ends the directory.
#[derive(Debug)]
pub struct DirectoryHandle {
    commands: mpsc::Sender<Command>,
    /// Nothing is ever sent: the other end is dropped with the task.
    ended: ended::Receiver<()>,
    listening: Vec<SocketAddr>,
    transports: Transports,
}

impl DirectoryHandle {
    /// Hands a command over; `false` if the queue is full or the directory has ended. Never blocks.
    #[must_use]
    pub fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// The addresses of the configuration, with the ports that were taken in place of port 0.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Ends the directory and waits until its ports are free again, for at most five seconds.
    ///
    /// Blocks: not for use on the directory's own runtime.
    pub fn stop(self) {
        drop(self.commands);
        let deadline = Instant::now() + STOPPING;
        // The only answer is the disconnection; a time-out leaves the rest to the runtime's own end.
        let _ = self.ended.recv_timeout(STOPPING);
        // QUIC holds its socket until the closed connections have drained (RFC 9000, section 10.2).
        while listen::reserve(&self.listening, self.transports).is_err() && Instant::now() < deadline {
            std::thread::sleep(DRAINING);
        }
    }
}
