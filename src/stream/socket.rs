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
/// The narrowest link that anything may be behind (RFC 8200, section 5).
const NARROWEST: u32 = 1280;
/// A TCP header without options, after an IPv4 and an IPv6 one.
const HEADERS: (u32, u32) = (20 + 20, 40 + 20);
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
    // What is accepted inherits it.
    keep_segments_short(&SockRef::from(&socket), at)?;
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
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    keep_segments_short(&SockRef::from(&socket), to)?;
    let socket = socket.connect(to).await?;
    prepare(&socket)?;
    Ok(socket)
}

/// Where routers drop what is too long and say nothing, the first flight of TLS would never arrive. Linux looks for such
/// paths only where the whole machine is told to (`net.ipv4.tcp_mtu_probing`), and then after seconds. So segments fit any
/// path, in both directions, since the other end is told as well; they are up to 15 % more, which costs little as the
/// kernel cuts and joins them.
fn keep_segments_short(socket: &SockRef<'_>, at: SocketAddr) -> io::Result<()> {
    socket.set_tcp_mss(NARROWEST - if at.is_ipv4() { HEADERS.0 } else { HEADERS.1 })
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
