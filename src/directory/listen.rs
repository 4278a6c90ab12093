//! The directory's ports: found free, then given to libp2p.
//!
//! libp2p binds its TCP listeners with SO_REUSEPORT, so a second daemon of the same user would share the port
//! in silence, each getting every other connection. Hence each port is first bound plainly here.

use std::io;
use std::net::SocketAddr;

use libp2p::Swarm;
use socket2::{Domain, Socket, Type};

use super::behaviour::Behaviour;
use super::{DirectoryError, Transports, naming};

/// Ports tried in place of port 0 before giving up: TCP and UDP must both be free at one number.
const TRIES: usize = 32;

/// Checks that all of `wanted` are free, and picks numbers in place of port 0.
pub(super) fn reserve(wanted: &[SocketAddr], over: Transports) -> Result<Vec<SocketAddr>, DirectoryError> {
    let mut held = Vec::new();
    let mut free = Vec::new();
    for &at in wanted {
        let (sockets, bound) = reserve_one(at, over)?;
        held.push(sockets);
        free.push(bound);
    }
    Ok(free)
}

/// Has libp2p listen on addresses that [`reserve`] found free.
pub(super) fn listen(
    swarm: &mut Swarm<Behaviour>,
    at: &[SocketAddr],
    over: Transports,
) -> Result<(), DirectoryError> {
    for &at in at {
        for address in naming::multiaddrs(at, over) {
            swarm
                .listen_on(address)
                .map_err(|error| DirectoryError::Listen { at, why: error.to_string() })?;
        }
    }
    Ok(())
}

fn reserve_one(at: SocketAddr, over: Transports) -> Result<(Vec<Socket>, SocketAddr), DirectoryError> {
    let tries = if at.port() == 0 { TRIES } else { 1 };
    let mut last = None;
    for _ in 0..tries {
        match bind_all(at, over) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
    Err(if error.kind() == io::ErrorKind::AddrInUse {
        DirectoryError::PortTaken(at)
    } else {
        DirectoryError::Listen { at, why: error.to_string() }
    })
}

fn bind_all(at: SocketAddr, over: Transports) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let kinds: &[Type] = match over {
        Transports::Both => &[Type::STREAM, Type::DGRAM],
        Transports::Tcp => &[Type::STREAM],
        Transports::Quic => &[Type::DGRAM],
    };
    let mut sockets = Vec::with_capacity(kinds.len());
    let mut bound = at;
    for &kind in kinds {
        let socket = bind(bound, kind)?;
        let port = socket.local_addr()?.as_socket().map_or(bound.port(), |address| address.port());
        bound.set_port(port);
        sockets.push(socket);
    }
    Ok((sockets, bound))
}

fn bind(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier run in TIME_WAIT are no reason to refuse; a listener still is.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if kind == Type::STREAM {
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let refused = reserve(&[at], Transports::Both);
        assert!(matches!(refused, Err(DirectoryError::PortTaken(taken)) if taken == at), "{refused:?}");
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        let refused = reserve(&[at], Transports::Quic);
        assert!(matches!(refused, Err(DirectoryError::PortTaken(taken)) if taken == at), "{refused:?}");
    }

    #[test]
    fn an_address_that_is_not_ours_is_another_error() {
        let refused = reserve(&["192.0.2.1:51861".parse().unwrap()], Transports::Both);
        assert!(matches!(refused, Err(DirectoryError::Listen { .. })), "{refused:?}");
    }

    #[test]
    fn port_zero_becomes_a_port() {
        let free = reserve(&["127.0.0.1:0".parse().unwrap(); 2], Transports::Both).unwrap();
        assert!(free.iter().all(|at| at.port() != 0));
        assert_ne!(free[0], free[1]);
    }
}
