//! Bounds and intervals, each with its arithmetic. Every queue of the node has its bound here.

use std::time::Duration;

/// Packets that wait for one tunnel: what a TCP initial window (10, RFC 6928) and a few datagrams need.
pub const BACKLOG: usize = 32;
/// Destinations that packets may wait for at once; with [`BACKLOG`] and 1.3 KB packets 10 MB at the worst.
pub const BACKLOGS: usize = 256;
/// Look-ups under way at once.
pub const LOOKUPS: usize = 512;
/// Nodes remembered: 5,500 users with room; about 1.1 KB each.
pub const MEMBERS: usize = 8192;
/// Peers with a slot; the tunnel index has 14 bits for it.
pub const PEERS: usize = 1 << crate::forward::SLOT_BITS;
/// Peers that knocked and have not finished a handshake.
pub const STRANGERS: usize = 512;
/// Knocks whose places are remembered until the handshake right behind each: what comes in a few milliseconds.
pub const KNOCKERS: usize = 64;
/// Super peers kept for the next start.
pub const KNOWN_SUPER_PEERS: usize = 200;
/// Requests of users under way.
pub const REQUESTS: usize = 256;

/// Further UDP sockets at once: a guess takes 256, and a few serve others meanwhile. A home router holds thousands of
/// mappings.
pub const DOORS: usize = 320;

/// Streams at once, ours and others': more than the descriptors that a process usually gets (1,024).
pub const STREAMS: usize = 1024;

/// Super peers that a node keeps a tunnel with: one may die.
pub const HOMES: usize = 2;

/// Whereabouts live this long: three refreshes may be lost.
pub const WHEREABOUTS_LIFE: Duration = Duration::from_secs(900);
/// And are refreshed that often.
pub const WHEREABOUTS_REFRESH: Duration = Duration::from_secs(240);
/// The passport is put into the directory anew that often by the holder's home; records live twice as long.
pub const LEASE_REFRESH: Duration = Duration::from_secs(12 * 3600);

/// Shortest NAT mapping seen is 30 s (Hätönen 2010): a mapping in use sees a packet at least this often.
pub const KEEPALIVE: Duration = Duration::from_secs(24);
/// Direct paths are kept open this long after the last data; later the relay serves at once.
pub const WARM: Duration = Duration::from_secs(180);
/// A peer that neither spoke nor was spoken to is forgotten.
pub const FORGET: Duration = Duration::from_secs(600);
/// A peer without a session, and nobody asking for it, is forgotten sooner.
pub const FORGET_STRANGER: Duration = Duration::from_secs(30);

/// A peer counts as active this long after the last data.
pub const ACTIVE: Duration = Duration::from_secs(5);
/// An active peer's counters and timers are looked at this often; boringtun wants 250 ms.
pub const TICK_ACTIVE: Duration = Duration::from_millis(250);
/// An idle one's: its only timers are rekey (120 s) and expiry (180 s).
pub const TICK_IDLE: Duration = Duration::from_secs(5);

/// How long one tries to get a session before those who wait are told so.
pub const DIAL_LIMIT: Duration = Duration::from_secs(15);
