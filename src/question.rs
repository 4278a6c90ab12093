//! What the control socket asks the control plane, each with the place for its answer.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::options::{Code, InviteRequest};
use crate::report::doctor::Doctor;
use crate::report::netcheck::Netcheck;
use crate::report::{Peers, PingReply, Resolve, Status};

/// Where an answer goes. Dropped unanswered, it tells the asker that the node is stopping.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// Questions that may wait for the control plane: a few people and scripts, each with one at a time. One more
/// is refused as busy.
pub const QUESTIONS: usize = 64;

/// A question to the control plane.
#[derive(Debug)]
pub enum Question {
    /// How the node stands.
    Status {
        /// Where the answer goes.
        reply: Answer<Status>,
    },
    /// Every peer with a tunnel.
    Peers {
        /// Where the answer goes.
        reply: Answer<Peers>,
    },
    /// What stands between the node and the Internet.
    Netcheck {
        /// Where the answer goes.
        reply: Answer<Netcheck>,
    },
    /// Both sides of the path to a peer.
    Doctor {
        /// As `peer` of a ping.
        peer: String,
        /// Where the answer goes.
        reply: Answer<Doctor>,
    },
    /// One echo through the data path.
    Ping {
        /// A name, a virtual address, or a node ID or an unambiguous prefix of one.
        peer: String,
        /// How long to wait for the echo before the answer is
        /// [`Unreachable`](crate::failure::ExitCode::Unreachable).
        timeout: Duration,
        /// Where the answer goes.
        reply: Answer<PingReply>,
    },
    /// Both look-ups.
    Resolve {
        /// As `peer` of a ping.
        query: String,
        /// Where the answer goes.
        reply: Answer<Resolve>,
    },
    /// A code for newcomers; only a login server makes one.
    Invite {
        /// What it is good for.
        request: InviteRequest,
        /// Where the answer goes.
        reply: Answer<Code>,
    },
    /// Stop, and leave nothing on the host.
    Down {
        /// Answered before the work begins.
        reply: Answer<()>,
    },
}
