//! One address family's sockets on one port.
//!
//! Owns: opening them, their options, sending through one of them with or without the kernel's segmentation. Never:
//! which family a datagram needs.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_udp::{Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use super::refusals::Refusals;
use super::{Buffers, MAX_PAYLOAD, MAX_SEGMENTS, RECEIVE_BUFFER, SEND_BUFFER, Unsent, WhenFull};
use crate::fragmentation;
use crate::offload::{Offload, Offloads, Why};

const EIO: i32 = Errno::EIO as i32;
const EINVAL: i32 = Errno::EINVAL as i32;
const EMSGSIZE: i32 = Errno::EMSGSIZE as i32;

/// One family's sockets: one, or several that share the port.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) ports: Vec<Port>,
    pub(super) refusals: Refusals,
    offloads: Arc<Offloads>,
}

/// One socket.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: UdpSocket,
    pub(super) state: UdpSocketState,
}

impl Family {
    pub(super) fn bind(
        ip: IpAddr,
        port: u16,
        queues: usize,
        offloads: &Arc<Offloads>,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let mut at = SocketAddr::new(ip, port);
        Self::open(&mut at, queues, offloads).map_err(|error| (at, error))
    }

    /// The first socket takes the port for itself, so that one in use is a conflict; only then do the others join it.
    fn open(at: &mut SocketAddr, queues: usize, offloads: &Arc<Offloads>) -> io::Result<Self> {
        let first = Port::open(*at, false, offloads)?;
        let mut ports = vec![first];
        if queues > 1 {
            setsockopt(&ports[0].socket, sockopt::ReusePort, &true)?;
            *at = ports[0].socket.local_addr()?;
            for _ in 1..queues {
                ports.push(Port::open(*at, true, offloads)?);
            }
        }
        Ok(Self { ports, refusals: Refusals::default(), offloads: Arc::clone(offloads) })
    }

    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        self.ports[0].socket.local_addr()
    }

    pub(super) fn may_segment(&self, to: SocketAddr) -> bool {
        self.offloads.is_on(Offload::UdpGso) && !self.refusals.hold(to)
    }

    /// Sends one datagram, or several of `segment` bytes each, by socket number `queue`; see [`super::Udp::send`].
    pub(super) fn send(
        &self,
        queue: usize,
        to: SocketAddr,
        bytes: &[u8],
        segment: usize,
        full: WhenFull,
    ) -> Result<(), Unsent> {
        if segment >= bytes.len() {
            let sent = self.ports[queue].send_patiently(to, bytes, None, full);
            return sent.map_err(|source| Unsent { datagrams: 1, source });
        }
        // What the kernel joined for a relay may be one datagram more than it takes to cut.
        let most = segment * MAX_SEGMENTS.min(MAX_PAYLOAD / segment).max(1);
        let mut left = 0;
        for run in bytes.chunks(most) {
            self.send_run(queue, to, run, segment, full).map_err(|(part, source)| Unsent {
                datagrams: (bytes.len() - left - part).div_ceil(segment) as u64,
                source,
            })?;
            left += run.len();
        }
        Ok(())
    }

    /// Sends one datagram from `source`, by socket number `queue`; what the kernel does not take at once is lost.
    pub(super) fn answer(&self, queue: usize, source: Option<IpAddr>, to: SocketAddr, bytes: &[u8]) {
        let Port { socket, state } = &self.ports[queue];
        // Of the other family it is a mapped one, as the kernel told it.
        let src_ip = source.map(|ip| ip.to_canonical()).filter(|ip| ip.is_ipv4() == to.is_ipv4());
        let transmit = Transmit { destination: to, ecn: None, contents: bytes, segment_size: None, src_ip };
        let send = || state.try_send(socket.into(), &transmit);
        // The first error may be an ICMP message about an earlier datagram.
        _ = send().or_else(|_| send());
    }

    /// Sends a run of datagrams of `segment` bytes each, cut by the kernel where it can. With the error, how many
    /// bytes of the run had left.
    fn send_run(
        &self,
        queue: usize,
        to: SocketAddr,
        run: &[u8],
        segment: usize,
        full: WhenFull,
    ) -> Result<(), (usize, io::Error)> {
        let port = &self.ports[queue];
        let mut refused = false;
        if segment < run.len() && self.may_segment(to) {
            match port.send_patiently(to, run, Some(segment), full) {
                // EIO: no checksum offload at the egress. EINVAL: also a route whose MTU is below the segment.
                Err(error) if matches!(error.raw_os_error(), Some(EIO | EINVAL)) => refused = true,
                done => return done.map_err(|error| (0, error)),
            }
        }
        let alone = send_one_by_one(port, to, run, segment, full);
        // Datagrams that are too long for the route are no reason to mistrust segmentation.
        let too_long = |(_, error): &(usize, io::Error)| error.raw_os_error() == Some(EMSGSIZE);
        if refused && !alone.as_ref().is_err_and(too_long) {
            self.refusals.add(to);
        }
        alone
    }
}

fn send_one_by_one(
    port: &Port,
    to: SocketAddr,
    run: &[u8],
    segment: usize,
    full: WhenFull,
) -> Result<(), (usize, io::Error)> {
    let mut left = 0;
    for datagram in run.chunks(segment.max(1)) {
        port.send_patiently(to, datagram, None, full).map_err(|error| (left, error))?;
        left += datagram.len();
    }
    Ok(())
}

impl Port {
    pub(super) fn open(at: SocketAddr, joins: bool, offloads: &Offloads) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if joins {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&at.into())?;
        // FORCE needs CAP_NET_ADMIN and goes beyond the system's limit; without it the limit holds.
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER).ok();
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER).ok();
        }
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        fragmentation::set(&socket, at.is_ipv4(), false)?;
        // quinn-udp asks for it; as long as any socket does, the kernel reads the clock for every packet it receives.
        setsockopt(&socket, sockopt::ReceiveTimestampns, &false).ok();
        if !offloads.is_on(Offload::UdpGro) {
            setsockopt(&socket, sockopt::UdpGroSegment, &false).ok();
        } else if state.gro_segments() == 1 {
            offloads.turn_off(Offload::UdpGro, Why::Missing);
        }
        if state.max_gso_segments() == 1 {
            offloads.turn_off(Offload::UdpGso, Why::Missing);
        }
        Ok(Self { socket, state })
    }

    /// What the kernel granted; it doubles what it is asked for, for its own bookkeeping.
    pub(super) fn buffers(&self) -> Buffers {
        Buffers {
            send: getsockopt(&self.socket, sockopt::SndBuf).unwrap_or(0) / 2,
            receive: getsockopt(&self.socket, sockopt::RcvBuf).unwrap_or(0) / 2,
        }
    }

    /// Sends, waiting once for room if that is wanted.
    pub(super) fn send_patiently(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<usize>,
        full: WhenFull,
    ) -> io::Result<()> {
        let mut waited = false;
        loop {
            match self.try_send(to, bytes, segment) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && full == WhenFull::Wait && !waited =>
                {
                    self.wait_writable();
                    waited = true;
                }
                // An ICMP error that an earlier datagram caused; reported once, and not about this one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !waited => waited = true,
                done => return done,
            }
        }
    }

    fn try_send(&self, to: SocketAddr, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
        let transmit =
            Transmit { destination: to, ecn: None, contents: bytes, segment_size: segment, src_ip: None };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    /// Waits for room in the send buffer, which the kernel empties at the speed of the link.
    fn wait_writable(&self) {
        /// Longer than the buffer takes to empty at 100 Mb/s.
        const PATIENCE_MS: u16 = 200;
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(PATIENCE_MS)).ok();
    }
}
