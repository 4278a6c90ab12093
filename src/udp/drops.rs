//! What the kernel threw away at a socket because nobody read it in time.
//!
//! Owns: reading that count. Never: asks per packet.

#![allow(unsafe_code, reason = "nix's macro for socket options that nix does not name itself")]

use std::net::UdpSocket;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

/// `SK_MEMINFO_VARS` of linux/sock_diag.h.
const VARIABLES: usize = 9;
/// `SK_MEMINFO_DROPS`.
const DROPS: usize = 8;

sockopt_impl!(
    /// The socket's memory, as `ss -m` shows it.
    Memory,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; VARIABLES]
);

/// Datagrams dropped at this socket since it was opened: its buffer was full, or their checksum wrong.
pub(super) fn drops(socket: &UdpSocket) -> u64 {
    getsockopt(socket, Memory).map_or(0, |memory| memory[DROPS].into())
}
