//! The router says, unasked, that it has restarted or has another address (RFC 6886, section 3.2.1; RFC 6887, section
//! 14.1.3).
//!
//! Never: belief. Anybody on the link can say so; it is a hint to ask again, and what it says is not even read.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::is_from;

/// Where clients listen; the announcements go to all hosts of the link, 224.0.0.1, to which every host belongs.
const PORT: u16 = 5350;

/// Announcements of the router, where its port could be had.
pub(super) struct Announcements {
    socket: Option<UdpSocket>,
}

impl Announcements {
    /// On the current runtime. Other programs listen there too; without it restarts are noticed later.
    pub(super) fn new() -> Self {
        let socket = listen();
        if let Err(why) = &socket {
            tracing::debug!("announcements of the router are not heard: {why}");
        }
        Self { socket: socket.ok() }
    }

    /// Until this router announces something.
    pub(super) async fn next_from(&self, gateway: Option<Ipv4Addr>) {
        let (Some(socket), Some(gateway)) = (&self.socket, gateway) else {
            return std::future::pending().await;
        };
        let mut head = [0; 1];
        loop {
            match socket.recv_from(&mut head).await {
                Ok((_, source)) if is_from(source, gateway) => return,
                Ok(_) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

fn listen() -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    UdpSocket::from_std(socket.into())
}
