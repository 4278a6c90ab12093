//! What a node says about the kernel's help with its packets. See the parent.

use serde::{Deserialize, Serialize};

/// One offload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offload {
    /// Whether it is in use.
    pub on: bool,
    /// Why not; of one that is in use, where it is not. Null if there is nothing to say.
    pub why: Option<String>,
}

/// What may wait in the kernel at each socket, in bytes as they were granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketBuffers {
    /// To be sent.
    pub send: usize,
    /// To be read.
    pub receive: usize,
}
