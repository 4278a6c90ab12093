//! Words that cross a router: where they are seen to come from, and who gets in. Knows nothing of the product.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Long after anything that is on its way inside one machine.
const QUIET: Duration = Duration::from_millis(400);

/// Where a socket is bound.
pub fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

/// Sends a word and returns where the server saw it come from.
///
/// # Panics
/// When the server does not hear it within its patience.
pub fn seen_at(from: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    let mut word = [0; 16];
    from.send_to(b"hello", address(server)).expect("the host has a route to everybody");
    server.recv_from(&mut word).expect("the server hears the host").1
}

/// Everybody whose word reaches `socket` before it falls silent.
pub fn heard(socket: &UdpSocket) -> Vec<SocketAddr> {
    socket.set_read_timeout(Some(QUIET)).expect("not zero");
    let mut word = [0; 16];
    std::iter::from_fn(|| socket.recv_from(&mut word).ok().map(|(_, from)| from)).collect()
}
