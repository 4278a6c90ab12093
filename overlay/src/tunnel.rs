//! The seam behind which all cryptography of the data path stands.
//!
//! Owns: the traits [`Tunnel`] (one peer's keys) and [`Crypto`] (this node's keys). The daemon implements them
//! with boringtun and HPKE, the simulator with a model; one contract suite runs against both. Never: keys.

use std::sync::{Arc, Mutex};

use crate::id::TunnelKey;
use crate::timing::Instant;

/// One WireGuard tunnel; both forwarding threads and the control thread share it.
pub type SharedTunnel = Arc<Mutex<dyn Tunnel>>;

/// What sealing adds to an inner packet: header (16) and tag (16), WireGuard paper section 5.4.6.
pub const OVERHEAD: usize = 32;

/// Room that a buffer for a handshake message must have: an initiation, the largest.
pub const HANDSHAKE_ROOM: usize = 148;

/// What came of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An inner IP packet of this many bytes at the start of the buffer.
    Packet(usize),
    /// Authentic and empty: a keepalive.
    Keepalive,
    /// Not authentic, or replayed, or no session of that index.
    Rejected,
}

/// What came of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Authentic; this many bytes in the buffer go back the way the message came.
    Reply(usize),
    /// Authentic; nothing to send.
    Accepted,
    /// Not authentic, or replayed.
    Rejected,
}

/// All key pairs with one peer.
pub trait Tunnel: Send {
    /// Seal one inner packet into `out` as a WireGuard data message; `out` has room for `packet` and
    /// [`OVERHEAD`]. `None` if there is no session to seal with.
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize>;

    /// Open a WireGuard data message; `out` has room for the whole datagram.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened;

    /// Begin a handshake: an initiation in `out` ([`HANDSHAKE_ROOM`] bytes). `None` if the last one is too fresh
    /// to be repeated.
    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize>;

    /// An initiation, a response or a cookie reply.
    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake;

    /// Let the timers run; something to send if they say so (a rekey, a keepalive). Called at most every
    /// 250 ms while the tunnel is in use.
    fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize>;

    /// Age of the session that [`Self::seal`] would use, in whole seconds; `None` if there is none.
    fn session_age_s(&self) -> Option<u64>;
}

/// What a message is sealed for; a sealed message of one purpose never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A knock on a node's door.
    Knock,
    /// A request to a login server.
    EnrolRequest,
    /// Its answer.
    EnrolAnswer,
}

impl Purpose {
    /// The `info` string of RFC 9180, section 5.1.
    #[must_use]
    pub const fn info(self) -> &'static [u8] {
        match self {
            Self::Knock => b"frejus/1 knock",
            Self::EnrolRequest => b"frejus/1 enrol request",
            Self::EnrolAnswer => b"frejus/1 enrol answer",
        }
    }
}

/// This node's tunnel key and what can be done with it.
pub trait Crypto: Send {
    /// The public half.
    fn public(&self) -> TunnelKey;

    /// A tunnel to `peer`; `index` (24 bits) comes back in the upper bits of every message's receiver index.
    fn tunnel(&mut self, peer: &TunnelKey, index: u32) -> SharedTunnel;

    /// Who sent this initiation; `None` if it is not for us. The peer is not authenticated by this alone.
    fn initiator(&mut self, initiation: &[u8]) -> Option<TunnelKey>;

    /// Seal to `to` (RFC 9180, base mode): encapsulated key, then ciphertext.
    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8>;

    /// Open what was sealed to us; `None` if it was not.
    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>>;
}
