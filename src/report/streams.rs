//! TCP in `status`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// TCP, for nodes whose UDP is blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Where the node listens.
    pub listen: Vec<SocketAddr>,
    /// Where it would have liked to, and why it does not.
    pub refused: Vec<String>,
    /// How many connections there are.
    pub open: usize,
}
