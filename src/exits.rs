//! Every way out of this node: by which socket a datagram leaves.
//!
//! Owns: the choice among sockets by [`Via`]. Never: the socket itself, or whereto.

use std::net::IpAddr;

use frejus_overlay::locator::{Endpoint, Via};
use nix::errno::Errno;

use crate::stream::Outlets;
use crate::udp::{Doors, Udp, Unsent, WhenFull};

/// What datagrams leave by; clones share the sockets.
#[derive(Clone, Debug)]
pub struct Exits {
    /// The sockets that the node listens on.
    pub udp: Udp,
    /// Further ones.
    pub doors: Doors,
    /// Connections. They never make anybody wait: their oldest datagrams give way.
    pub streams: Outlets,
}

impl Exits {
    /// Answer a stranger, from the address that it expects the answer from: with several on one interface the kernel
    /// would choose. What it does not take is lost; the stranger asks again.
    pub fn answer(&self, source: Option<IpAddr>, to: Endpoint, bytes: &[u8]) {
        match to.via {
            Via::Main => self.udp.answer(source, to.at, bytes),
            Via::Door(door) => self.doors.answer(source, door, to.at, bytes),
            Via::Stream(stream) => _ = self.streams.send(stream, bytes, bytes.len()),
        }
    }

    /// As [`Udp::send`], by the socket that belongs to this endpoint.
    ///
    /// # Errors
    /// What the kernel says, and of how many datagrams; `EBADF` for a socket that is not open.
    pub fn send(&self, to: Endpoint, bytes: &[u8], segment: usize, full: WhenFull) -> Result<(), Unsent> {
        match to.via {
            Via::Main => self.udp.send(to.at, bytes, segment, full),
            Via::Door(door) => self.doors.send(door, to.at, bytes, segment, full),
            Via::Stream(stream) => self.streams.send(stream, bytes, segment).map_err(|_| {
                let datagrams = bytes.len().div_ceil(segment.max(1)).max(1) as u64;
                Unsent { datagrams, source: Errno::EBADF.into() }
            }),
        }
    }
}
