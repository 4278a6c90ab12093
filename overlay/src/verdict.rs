//! What became of a packet. Every dropped packet has a counted reason.
//!
//! Owns: [`Drop`], [`Counters`]. Never: a log line.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum Drop { $($(#[$doc])* $variant),+ }

        impl Drop {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As `status` names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

reasons! {
    /// Not an IP packet, or shorter than it says.
    Malformed = "malformed",
    /// From the TUN: the destination is in no part of the network.
    NoRoute = "no_route",
    /// From the TUN: nobody holds the destination address.
    Unresolved = "unresolved",
    /// From the TUN: the holder cannot be reached.
    Unreachable = "unreachable",
    /// From the TUN: a source address that is not ours.
    ForeignSource = "foreign_source",
    /// From the TUN: longer than the path takes, and not to be fragmented. The sender is told.
    TooBig = "too_big",
    /// The queue of packets that wait for a tunnel is full.
    BacklogFull = "backlog_full",
    /// The queue to the control plane is full.
    ControlBusy = "control_busy",
    /// The socket did not take it.
    SendFailed = "send_failed",
    /// A TCP connection does not drain as fast as it is filled: the oldest give way.
    StreamFull = "stream_full",
    /// Nobody read it from the socket in time; the kernel counts these.
    SocketOverflow = "socket_overflow",
    /// The TUN device did not take it.
    TunFailed = "tun_failed",
    /// A datagram that is nothing we know.
    UnknownFrame = "unknown_frame",
    /// A WireGuard message for no session of ours.
    UnknownSession = "unknown_session",
    /// A handshake from somebody we do not know.
    UnknownPeer = "unknown_peer",
    /// Forged or damaged.
    NotAuthentic = "not_authentic",
    /// Its counter came already: the second copy of what was sent two ways, or a replay.
    Duplicate = "duplicate",
    /// The inner source is not an address of the sending peer.
    SpoofedSource = "spoofed_source",
    /// The inner destination is not an address of ours.
    ForeignDestination = "foreign_destination",
    /// Too much from one source prefix, or from one peer.
    RateLimited = "rate_limited",
    /// A relay frame for a channel that does not exist.
    UnknownChannel = "unknown_channel",
    /// A relay frame from somebody who is not at that end of the channel.
    WrongChannelEnd = "wrong_channel_end",
    /// The node's relay quota is used up.
    RelayQuota = "relay_quota",
    /// A control message that cannot be read, or that its sender may not send.
    BadMessage = "bad_message",
    /// A document whose chain does not hold.
    BadDocument = "bad_document",
    /// Outward: transport keys are insisted on, and none came.
    NoTransportKeys = "no_transport_keys",
    /// Inward: data under WireGuard's keys, where transport keys are insisted on.
    WireguardKeys = "wireguard_keys",
}

/// Packets counted by fate; one set a thread, summed when somebody asks.
#[derive(Debug)]
pub struct Counters {
    /// Inner packets taken from the TUN and sent.
    pub packets_out: AtomicU64,
    /// Inner packets received and written to the TUN.
    pub packets_in: AtomicU64,
    /// Frames forwarded for others.
    pub relayed: AtomicU64,
    dropped: [AtomicU64; Drop::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets_out: AtomicU64::new(0),
            packets_in: AtomicU64::new(0),
            relayed: AtomicU64::new(0),
            dropped: [const { AtomicU64::new(0) }; Drop::ALL.len()],
        }
    }
}

impl Counters {
    /// Count one dropped packet.
    pub fn count(&self, reason: Drop) {
        self.count_many(reason, 1);
    }

    /// Count dropped packets.
    pub fn count_many(&self, reason: Drop, packets: u64) {
        self.dropped[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }
}
