//! The port between the control plane and the directory: [`Command`] out, [`Reply`] in, nothing else.
//!
//! Behind it stand libp2p in the daemon and a model in the simulator. Values are opaque here; whoever stores
//! or reads one checks it with [`crate::record::check`].

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{NodeId, RecordKey};

/// Ties a [`Reply`] to its [`Command`].
pub type CommandId = u64;

/// What the control plane asks of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Walk the table for `key`: a [`Reply::Found`] for every value that passes the check, then one
    /// [`Reply::Finished`].
    Lookup {
        /// Comes back in the replies.
        id: CommandId,
        /// What to look for.
        key: RecordKey,
    },
    /// Stop a walk whose answer is no longer needed. No reply follows.
    Cancel {
        /// The look-up's.
        id: CommandId,
    },
    /// Store `value` at the nodes nearest to `key`, and keep it here; a [`Reply::Finished`] follows.
    Publish {
        /// Comes back in the reply.
        id: CommandId,
        /// Where.
        key: RecordKey,
        /// A checked record.
        value: Vec<u8>,
        /// How long it is worth keeping.
        life: Duration,
    },
    /// These nodes serve the directory at these addresses (TCP and QUIC at the same port number).
    Neighbours(Vec<(NodeId, Vec<SocketAddr>)>),
}

/// What the directory answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A value found for the key of the look-up, already checked once.
    Found {
        /// The look-up's.
        id: CommandId,
        /// The record.
        value: Vec<u8>,
    },
    /// The look-up or publication is over.
    Finished {
        /// The command's.
        id: CommandId,
        /// Look-up: something was found. Publication: at least one other node took it, or this node, being
        /// a super peer, keeps it itself.
        ok: bool,
    },
    /// How the directory stands; sent on every change.
    State {
        /// Whether this node stores records for others: a super peer always, a peer while it is reachable.
        server: bool,
        /// Nodes in the routing table.
        peers: usize,
    },
}
