//! `netcheck --json`: what a node found out about its own connection.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{NatClass, PortMapping};

words! {
    /// What a decision of a NAT depends on (RFC 4787).
    Dependence {
        /// On the inner endpoint alone.
        Endpoint = "endpoint-independent",
        /// On the remote address too.
        Address = "address-dependent",
        /// On the remote address and port.
        AddressAndPort = "address-and-port-dependent",
        /// Not found out.
        Unknown = "unknown",
    }
}

/// `netcheck --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Netcheck {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The class of the NAT.
    pub class: NatClass,
    /// What the outer port depends on.
    pub mapping: Dependence,
    /// Who may send to it.
    pub filtering: Dependence,
    /// Where the outside sees the node.
    pub external: Vec<SocketAddr>,
    /// Whether two sockets behind the NAT reach each other by their outer addresses; null where that was not found out.
    pub hairpin: Option<bool>,
    /// How the router was asked for a mapping; null if it gave none.
    pub port_mapping: Option<PortMapping>,
    /// Whether UDP passes.
    pub udp: bool,
    /// Whether a super peer is reached over TCP at its own number; false too if none is known.
    pub tcp: bool,
    /// Whether one is reached over TLS on port 443; false too if none is known.
    pub tls443: bool,
    /// Super peers, the nearest first; empty where none is known, so that nothing could be tried.
    pub super_peers: Vec<Server>,
    /// From one outer port to the next, where they are given out in sequence.
    pub step: Option<i32>,
    /// What could not be found out, and why; a sentence each.
    pub notes: Vec<String>,
}

/// A super peer that was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Round trip in milliseconds; null if it did not answer.
    pub rtt_ms: Option<f64>,
}
