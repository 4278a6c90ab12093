//! `doctor --json`: both sides of a path, why it is what it is, and what would make it direct.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{NatClass, Path, PortMapping};

/// `doctor --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doctor {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The peer's name.
    pub peer: String,
    /// The path in use; null while there is no session.
    pub path: Option<Path>,
    /// This side.
    pub here: Side,
    /// The other side; null if it did not tell.
    pub there: Option<Side>,
    /// Why the path is what it is.
    pub why: String,
    /// What would make it direct, the easiest first.
    pub mend: Vec<String>,
}

/// What a side knows of itself, and what it tried towards the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The node's name.
    pub name: String,
    /// What stands in front of it.
    pub class: NatClass,
    /// Where others see it.
    pub external: Vec<SocketAddr>,
    /// How its router was asked for a port; null if it gave none.
    pub port_mapping: Option<PortMapping>,
    /// Whether super peers answer it by UDP.
    pub udp: bool,
    /// The other's places, and what came of each.
    pub candidates: Vec<Tried>,
}

/// A place of the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Where.
    pub at: SocketAddr,
    /// Probes sent there.
    pub sent: u32,
    /// Answers to them.
    pub answered: u32,
    /// Probes of the other side that came from there.
    pub heard: u32,
}
