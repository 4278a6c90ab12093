//! Datagrams as many as a machine can make, and what became of them.
//!
//! Owns: [`send()`] and [`count()`], by which `scripts/bench.sh` measures small packets; iperf3 makes one a system call
//! and is the bottleneck itself. Never: part of a node; a figure that was not counted.

mod receive;
mod transmit;

pub use receive::{Counted, count};
pub use transmit::{Flood, Sent, send};

/// Datagrams in one system call.
const BATCH: usize = 64;
/// Every datagram begins with its number, little-endian.
const NUMBER: usize = 8;
/// What the sockets ask for, beyond the system's limit if they may: the generator must not be what loses.
const SOCKET_BUFFER: usize = 8 << 20;
