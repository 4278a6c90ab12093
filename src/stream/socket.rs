//! TCP sockets for streams.
//!
//! Owns: their options, listening and dialling. Never: a byte of what they carry.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What the kernel takes beyond what is on its way: more would wait where nothing can be dropped any more.
const UNSENT: u32 = 16 << 10;
/// A stream whose other end confirms nothing for this long is gone; tunnels have left it long before.
const DEAD: Duration = Duration::from_secs(15);
/// An idle one is asked after this long, three times.
const IDLE: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_secs(5);
const ASKED: u32 = 3;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// Listens at `at`.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket at `at`, whose port others of ours may share: connections from one port to several places.
pub(super) fn at_port(at: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(at)?;
    Ok(socket)
}

/// Connects to `to`.
pub(super) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(to).await?;
    prepare(&socket)?;
    Ok(socket)
}

/// For datagrams: none waits for company, and few wait where they cannot be dropped.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(DEAD))?;
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(ASK_AGAIN).with_retries(ASKED);
    socket.set_tcp_keepalive(&keepalive)
}
