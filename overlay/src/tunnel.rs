//! The seam behind which all cryptography of the data path stands.
//!
//! Owns: the traits [`Tunnel`] (one peer's keys, WireGuard's and those agreed inside it) and [`Crypto`] (this node's keys). The daemon implements them
//! with boringtun and HPKE, the simulator with a model; one contract suite runs against both. Never: keys.

use std::sync::Arc;

use crate::agreement::{Answer, Binding, Cipher, Offer};
use crate::id::TunnelKey;
use crate::timing::Instant;

/// One WireGuard tunnel; the forwarding threads and the control thread share it.
pub type SharedTunnel = Arc<dyn Tunnel>;

/// Header of a data message: type, receiver index, counter (WireGuard paper, section 5.4.6). The sealed packet
/// stands behind it.
pub const HEADER: usize = 16;

/// What sealing adds to an inner packet: [`HEADER`] and tag (16), WireGuard paper section 5.4.6.
pub const OVERHEAD: usize = HEADER + 16;

/// Room that a buffer for a handshake message must have: an initiation, the largest.
pub const HANDSHAKE_ROOM: usize = 148;

/// What came of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An inner IP packet of this many bytes, behind the [`HEADER`].
    Packet(usize),
    /// The same, with a [partial checksum](crate::packet::partial).
    Partial(usize),
    /// Authentic and empty: a keepalive.
    Keepalive,
    /// Not authentic, or no session of that index.
    Rejected,
    /// A message of this counter came already, or might have: it is too old to tell. Nothing says that this copy is
    /// authentic.
    Duplicate,
    /// Authentic data under WireGuard's keys, where transport keys are insisted on.
    Refused,
}

/// What a message carries, which says under whose keys it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Somebody's packet: under transport keys; without any under WireGuard's, unless that is forbidden.
    Data,
    /// The same with a [partial checksum](crate::packet::partial): only under transport keys of two nodes that agreed on
    /// such packets.
    Partial,
    /// What nodes tell each other: under transport keys, else under WireGuard's.
    Control,
    /// What transport keys are agreed with: under WireGuard's, which a peer that was started anew has, too.
    Agreement,
}

/// What protects the packets to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// The cipher in use.
    pub cipher: Cipher,
    /// Whether who keeps the packets until there is a quantum computer will not be able to read them.
    pub post_quantum: bool,
}

impl Protection {
    /// WireGuard's own keys.
    pub const WIREGUARD: Self = Self { cipher: Cipher::ChaCha20Poly1305, post_quantum: false };
    /// Transport keys.
    #[must_use]
    pub const fn transport(cipher: Cipher) -> Self {
        Self { cipher, post_quantum: true }
    }
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

/// All key pairs with one peer. Several threads seal and open at once; what must be exclusive is locked inside.
pub trait Tunnel: Send + Sync {
    /// Seal the inner packet of `len` bytes that stands behind the [`HEADER`] in `buffer`, which has room for
    /// [`OVERHEAD`] more: a WireGuard data message, whose length is returned, begins at its front. `None` if there is
    /// no session to seal with; the packet is intact then.
    fn seal(&self, buffer: &mut [u8], len: usize) -> Option<usize> {
        self.seal_as(Content::Data, buffer, len)
    }

    /// [`Self::seal`] for other than [`Content::Data`], too.
    fn seal_as(&self, content: Content, buffer: &mut [u8], len: usize) -> Option<usize>;

    /// Open a WireGuard data message where it stands. What is rejected may be garbled.
    fn open(&self, datagram: &mut [u8]) -> Opened;

    /// Begin a handshake: an initiation in `out` ([`HANDSHAKE_ROOM`] bytes). `None` if the last one is too fresh
    /// to be repeated.
    fn initiate(&self, out: &mut [u8], now: Instant) -> Option<usize>;

    /// An initiation, a response or a cookie reply.
    fn handshake(&self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake;

    /// Let the timers run; something to send if they say so (a rekey, a keepalive). Called at most every
    /// 250 ms while the tunnel is in use.
    fn handle_timeout(&self, out: &mut [u8], now: Instant) -> Option<usize>;

    /// Age of the session that [`Self::seal`] would use, in whole seconds; `None` if there is none.
    fn session_age_s(&self) -> Option<u64>;

    /// Which session WireGuard would seal with, counted from the first, if we initiated it: then transport keys are
    /// ours to offer.
    fn initiated(&self) -> Option<u64>;

    /// Make an offer of transport keys; the one before it can no longer be answered. `None` if this node wants none.
    fn offer(&self, now: Instant) -> Option<Offer>;

    /// Answer an offer of the peer. The new keys open at once, and seal as soon as something came under them. `None` if
    /// this node wants no transport keys, or the offer is not sound.
    fn answer(&self, offer: &Offer, binding: &Binding, now: Instant) -> Option<Answer>;

    /// Take the answer to our last offer: the new keys open and seal at once. `false` if it is not that, or not sound.
    fn accept(&self, answer: &Answer, binding: &Binding, now: Instant) -> bool;

    /// What [`Content::Data`] is protected by; `None` if there is nothing to seal it with.
    fn protection(&self) -> Option<Protection>;
}

/// [`Tunnel::seal`] for one packet that stands elsewhere.
#[must_use]
pub fn seal_one(tunnel: &dyn Tunnel, packet: &[u8]) -> Option<Vec<u8>> {
    seal_one_as(tunnel, Content::Data, packet)
}

/// [`Tunnel::seal_as`] for one packet that stands elsewhere.
#[must_use]
pub fn seal_one_as(tunnel: &dyn Tunnel, content: Content, packet: &[u8]) -> Option<Vec<u8>> {
    let mut message = vec![0; packet.len() + OVERHEAD];
    message[HEADER..HEADER + packet.len()].copy_from_slice(packet);
    let len = tunnel.seal_as(content, &mut message, packet.len())?;
    message.truncate(len);
    Some(message)
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
