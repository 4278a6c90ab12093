//! A directory, its replies, and questions that wait for their answers.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use frejus::directory::{
    Check, Checked, Directory, DirectoryConfig, DirectoryError, DirectoryHandle, Transports,
};
use frejus_overlay::id::{NetworkId, NodeId, RecordKey};
use frejus_overlay::port::{Command, CommandId, Reply};
use tokio::runtime::Runtime;

use super::record;

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A client on loopback.
pub(crate) fn config(network: NetworkId, seed: u8) -> DirectoryConfig {
    DirectoryConfig {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        transports: Transports::Both,
        ..DirectoryConfig::new(network, [seed; 32])
    }
}

pub(crate) fn server(network: NetworkId, seed: u8) -> DirectoryConfig {
    DirectoryConfig { server: true, ..config(network, seed) }
}

/// A client that may become a server; asks every two seconds, which super peers bear.
pub(crate) fn candidate(network: NetworkId, seed: u8) -> DirectoryConfig {
    DirectoryConfig { promotion: Some(Duration::from_secs(2)), ..config(network, seed) }
}

/// A client that nobody can dial.
pub(crate) fn deaf(network: NetworkId, seed: u8) -> DirectoryConfig {
    DirectoryConfig { listen: Vec::new(), ..candidate(network, seed) }
}

/// Believes what the network signed.
pub(crate) fn strict() -> Check {
    Arc::new(record::check)
}

/// Believes everything.
pub(crate) fn believing() -> Check {
    Arc::new(|_, _| Ok(Checked { sequence: 1, expires_in: Duration::from_secs(3600) }))
}

pub(crate) struct Node {
    handle: DirectoryHandle,
    replies: Receiver<Reply>,
    id: NodeId,
    next: CommandId,
    state: Option<(bool, usize)>,
}

impl Node {
    pub(crate) fn start(runtime: &Runtime, config: DirectoryConfig, check: Check) -> Self {
        Self::try_start(runtime, config, check).expect("a free port")
    }

    pub(crate) fn try_start(
        runtime: &Runtime,
        config: DirectoryConfig,
        check: Check,
    ) -> Result<Self, DirectoryError> {
        let (sender, replies) = channel();
        let id = record::node_id(config.key[0]);
        let forward = move |reply| {
            // A test that has its answer no longer listens.
            let _ = sender.send(reply);
        };
        let handle = Directory::spawn(runtime.handle(), config, check, Box::new(forward))?;
        Ok(Self { handle, replies, id, next: 0, state: None })
    }

    pub(crate) fn stop(self) {
        self.handle.stop();
    }

    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        self.handle.listening().to_vec()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn knows(&self, others: &[impl Borrow<Self>]) {
        self.names(others.iter().map(|other| (other.borrow().id, other.borrow().listening())).collect());
    }

    pub(crate) fn names(&self, neighbours: Vec<(NodeId, Vec<SocketAddr>)>) {
        assert!(self.handle.send(Command::Neighbours(neighbours)));
    }

    pub(crate) fn publish(&mut self, key: RecordKey, value: &[u8], life: Duration) -> bool {
        let id = self.new_id();
        assert!(self.handle.send(Command::Publish { id, key, value: value.to_vec(), life }));
        let end = self.wait_for(|reply| matches!(reply, Reply::Finished { id: of, .. } if *of == id));
        matches!(end, Reply::Finished { ok: true, .. })
    }

    /// All the values that a walk found, in order of arrival, and whether it says that it found any.
    pub(crate) fn look_up(&mut self, key: RecordKey) -> (Vec<Vec<u8>>, bool) {
        let id = self.begin_look_up(key);
        let mut values = Vec::new();
        let end = self.wait_for(|reply| match reply {
            Reply::Found { id: of, value } if *of == id => {
                values.push(value.clone());
                false
            }
            other => matches!(other, Reply::Finished { id: of, .. } if *of == id),
        });
        (values, matches!(end, Reply::Finished { ok: true, .. }))
    }

    /// The value that this node itself holds: it comes before any other.
    pub(crate) fn look_up_locally(&mut self, key: RecordKey) -> Option<Vec<u8>> {
        self.look_up(key).0.into_iter().next()
    }

    pub(crate) fn begin_look_up(&mut self, key: RecordKey) -> CommandId {
        let id = self.new_id();
        assert!(self.handle.send(Command::Lookup { id, key }));
        id
    }

    pub(crate) fn cancel(&self, id: CommandId) -> bool {
        self.handle.send(Command::Cancel { id })
    }

    /// The last state that was reported.
    pub(crate) fn state(&mut self) -> (bool, usize) {
        while let Ok(reply) = self.replies.try_recv() {
            self.note(&reply);
        }
        self.state.expect("a state is reported at the start")
    }

    pub(crate) fn wait_for_peers(&mut self, enough: impl Fn(usize) -> bool) {
        if self.state.is_some_and(|(_, peers)| enough(peers)) {
            return;
        }
        self.wait_for(|reply| matches!(reply, Reply::State { peers, .. } if enough(*peers)));
    }

    pub(crate) fn wait_for_server(&mut self, wanted: bool) {
        if self.state.is_none_or(|(server, _)| server != wanted) {
            self.wait_for(|reply| matches!(reply, Reply::State { server, .. } if *server == wanted));
        }
    }

    pub(crate) fn wait_for(&mut self, mut wanted: impl FnMut(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = self.replies.recv_timeout(left).unwrap_or_else(|error| {
                panic!("node {:?}: {error}; last state {:?}", self.id, self.state);
            });
            self.note(&reply);
            if wanted(&reply) {
                return reply;
            }
        }
    }

    /// Asks until the answer is yes.
    pub(crate) fn wait_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "node {:?}: it never came true", self.id);
        }
    }

    fn note(&mut self, reply: &Reply) {
        if let Reply::State { server, peers } = reply {
            self.state = Some((*server, *peers));
        }
    }

    fn new_id(&mut self) -> CommandId {
        self.next += 1;
        self.next
    }
}
