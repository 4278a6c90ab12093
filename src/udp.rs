//! The UDP sockets of a node: one for IPv4, one for IPv6, with the kernel's batching where it has any.
//!
//! Owns: binding, buffer sizes, segmentation offload and what to do where it is refused. Never: looks into a
//! datagram, or queues one.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use frejus_overlay::wire::{Frame, classify};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fragmentation;

/// What may wait in the kernel to be sent: 2 MiB is 16 ms at 1 Gb/s.
const SEND_BUFFER: usize = 2 << 20;
/// What may wait to be read: 8 MiB is 64 ms at 1 Gb/s, longer than a thread is kept off the processor.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The longest UDP payload over IPv4: 65,535 − 20 − 8. IPv6 would allow 20 more.
pub const MAX_PAYLOAD: usize = 65_507;
/// Segments in one send: the kernel's limit is 64, and some kernels count the UDP header against it.
pub const MAX_SEGMENTS: usize = 63;

/// Destinations for which segmentation is off; beyond that many it is off for all.
const MAX_REFUSING: usize = 64;
/// How often an ephemeral port is tried that both families have free.
const EPHEMERAL_TRIES: usize = 16;

/// Which port a node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// This one or none: a super peer's, or one that was asked for.
    Required(u16),
    /// This one, or any other if it is taken.
    Preferred(u16),
}

/// Where to listen; `None` leaves a family out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Usually all addresses.
    pub v4: Option<Ipv4Addr>,
    /// Usually all addresses. A host without IPv6 goes without.
    pub v6: Option<Ipv6Addr>,
    /// The same for both.
    pub port: PortChoice,
}

impl Listen {
    /// All addresses.
    #[must_use]
    pub const fn any(port: PortChoice) -> Self {
        Self { v4: Some(Ipv4Addr::UNSPECIFIED), v6: Some(Ipv6Addr::UNSPECIFIED), port }
    }
}

/// Why a node has no UDP socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "UDP port {at} is taken: stop the program that uses it (`ss -ulpn`), or choose another with --listen"
    )]
    Taken {
        /// Where.
        at: SocketAddr,
    },
    /// A low port without the right to it.
    #[error("no permission to listen on UDP {at}: run as root, or choose a port above 1023 with --listen")]
    NotPermitted {
        /// Where.
        at: SocketAddr,
    },
    /// Neither family is there.
    #[error("no UDP socket: give an address of this host with --listen, and check `ip address`")]
    NoAddress,
    /// Anything else.
    #[error("cannot listen on UDP {at}: {source}")]
    Failed {
        /// Where.
        at: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One family's socket.
#[derive(Debug)]
struct Family {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Set once segmentation was refused for too many destinations.
    never_segment: AtomicBool,
    /// Length of `refusing`, to ask without a lock.
    refusals: AtomicUsize,
    refusing: Mutex<Vec<SocketAddr>>,
}

impl Family {
    fn bind(ip: IpAddr, port: u16) -> Result<Self, (SocketAddr, io::Error)> {
        let at = SocketAddr::new(ip, port);
        Self::open(at).map_err(|error| (at, error))
    }

    fn open(at: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
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
        Ok(Self {
            socket,
            state,
            never_segment: AtomicBool::new(false),
            refusals: AtomicUsize::new(0),
            refusing: Mutex::default(),
        })
    }

    fn try_send(&self, to: SocketAddr, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
        let transmit =
            Transmit { destination: to, ecn: None, contents: bytes, segment_size: segment, src_ip: None };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    fn may_segment(&self, to: SocketAddr) -> bool {
        if self.never_segment.load(Ordering::Relaxed) {
            return false;
        }
        self.refusals.load(Ordering::Relaxed) == 0
            || !self.refusing.lock().unwrap_or_else(PoisonError::into_inner).contains(&to)
    }

    fn refuse_segments(&self, to: SocketAddr) {
        let mut refusing = self.refusing.lock().unwrap_or_else(PoisonError::into_inner);
        if refusing.len() < MAX_REFUSING {
            refusing.push(to);
        } else {
            self.never_segment.store(true, Ordering::Relaxed);
        }
        self.refusals.store(refusing.len(), Ordering::Relaxed);
    }

    /// Waits for room in the send buffer, which the kernel empties at the speed of the link.
    fn wait_writable(&self) {
        /// Longer than the buffer takes to empty at 100 Mb/s.
        const PATIENCE_MS: u16 = 200;
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(PATIENCE_MS)).ok();
    }
}

/// Whether to wait for room in a full send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Our own packets: whoever sends them is slowed down.
    Wait,
    /// Others' packets: a relay drops what it can't pass on.
    Drop,
}

/// Both sockets; clones share them, so that every thread can send.
#[derive(Clone, Debug)]
pub struct Udp {
    v4: Option<Arc<Family>>,
    v6: Option<Arc<Family>>,
}

/// The half that the control thread holds: it sends, and never reads.
#[derive(Clone, Debug)]
pub struct UdpSender(Udp);

impl Udp {
    /// Opens the sockets.
    ///
    /// # Errors
    /// [`BindError`], with the address in it.
    pub fn bind(listen: Listen) -> Result<Self, BindError> {
        match listen.port {
            PortChoice::Required(port) => Self::bind_port(listen, port),
            PortChoice::Preferred(port) => match Self::bind_port(listen, port) {
                Err(BindError::Taken { .. }) => Self::bind_ephemeral(listen),
                done => done,
            },
        }
    }

    fn bind_ephemeral(listen: Listen) -> Result<Self, BindError> {
        let mut last = Self::bind_port(listen, 0);
        for _ in 1..EPHEMERAL_TRIES {
            match last {
                Err(BindError::Taken { .. }) => last = Self::bind_port(listen, 0),
                done => return done,
            }
        }
        last
    }

    fn bind_port(listen: Listen, mut port: u16) -> Result<Self, BindError> {
        let v4 = listen.v4.map(|ip| Family::bind(ip.into(), port)).transpose().map_err(bind_error)?;
        if let Some(v4) = &v4 {
            port = v4.socket.local_addr().map_or(port, |at| at.port());
        }
        let v6 = match listen.v6.map(|ip| Family::bind(ip.into(), port)) {
            None => None,
            Some(Ok(v6)) => Some(v6),
            Some(Err((_, error))) if v4.is_some() && no_such_family(&error) => None,
            Some(Err(error)) => return Err(bind_error(error)),
        };
        if v4.is_none() && v6.is_none() {
            return Err(BindError::NoAddress);
        }
        Ok(Self { v4: v4.map(Arc::new), v6: v6.map(Arc::new) })
    }

    /// The half for whoever only sends.
    #[must_use]
    pub fn sender(&self) -> UdpSender {
        UdpSender(self.clone())
    }

    /// The addresses that the sockets are bound to.
    #[must_use]
    pub fn local(&self) -> Vec<SocketAddr> {
        self.families().filter_map(|family| family.socket.local_addr().ok()).collect()
    }

    /// The port, the same for both families.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local().first().map_or(0, SocketAddr::port)
    }

    /// Sends one datagram, or several of `segment` bytes each (the last may be shorter) to one destination.
    ///
    /// # Errors
    /// What the kernel says. Of several datagrams some may have left.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize, full: WhenFull) -> io::Result<()> {
        let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let family = family.as_deref().ok_or_else(|| io::Error::from(Errno::EAFNOSUPPORT))?;
        if segment >= bytes.len() {
            return send_patiently(family, to, bytes, None, full);
        }
        // What the kernel joined for a relay may be one datagram more than it takes to cut.
        bytes.chunks(segment * MAX_SEGMENTS).try_for_each(|run| send_run(family, to, run, segment, full))
    }

    /// The sockets, IPv4 first, for [`nix::poll`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.families().map(|family| family.socket.as_fd())
    }

    /// Reads what is there into the buffers: how many of them were filled. Each may hold several datagrams of
    /// `meta.stride` bytes from one sender, and must have room for 65,535 bytes.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing. Other errors concern earlier datagrams and may be ignored.
    pub fn receive(
        &self,
        descriptor: usize,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let family = self.families().nth(descriptor).ok_or(io::ErrorKind::NotFound)?;
        family.state.recv((&family.socket).into(), buffers, meta)
    }

    fn families(&self) -> impl Iterator<Item = &Family> {
        [&self.v4, &self.v6].into_iter().filter_map(|family| family.as_deref())
    }
}

impl UdpSender {
    /// Sends one datagram; a full buffer drops it, since everything that control says is said again, and so does a link
    /// of ours that does not take it: a probe that is too long is lost. What is said outside of tunnels, to somebody
    /// to whom no path was measured, may be fragmented.
    ///
    /// # Errors
    /// What the kernel says: no route, no such family.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let send = || match self.0.send(to, datagram, datagram.len(), WhenFull::Drop) {
            Err(error) if error.raw_os_error() == Some(EMSGSIZE) => Ok(()),
            done => done,
        };
        if datagram.len() <= SAFE || !is_before_tunnels(datagram) {
            return send();
        }
        let family = if to.is_ipv4() { &self.0.v4 } else { &self.0.v6 };
        let family = family.as_deref().ok_or_else(|| io::Error::from(Errno::EAFNOSUPPORT))?;
        // The option is the socket's: what the other threads send meanwhile may be fragmented too, and arrives as well.
        // Probes are sent by this thread alone.
        fragmentation::set(&family.socket, to.is_ipv4(), true)?;
        let sent = send();
        fragmentation::set(&family.socket, to.is_ipv4(), false)?;
        sent
    }
}

/// A datagram that every path takes whole: 576 bytes (RFC 791) less IP and UDP headers.
const SAFE: usize = 576 - 28;

fn is_before_tunnels(datagram: &[u8]) -> bool {
    matches!(classify(datagram), Some(Frame::Knock(_) | Frame::EnrolRequest(_) | Frame::EnrolAnswer(_)))
}

const EMSGSIZE: i32 = Errno::EMSGSIZE as i32;
const EIO: i32 = Errno::EIO as i32;
const EINVAL: i32 = Errno::EINVAL as i32;

/// Several datagrams, cut by the kernel where it can.
fn send_run(family: &Family, to: SocketAddr, run: &[u8], segment: usize, full: WhenFull) -> io::Result<()> {
    if segment < run.len() && family.may_segment(to) {
        match send_patiently(family, to, run, Some(segment), full) {
            // EIO: no checksum offload at the egress. EINVAL: also a route whose MTU is below the segment.
            Err(error) if matches!(error.raw_os_error(), Some(EIO | EINVAL)) => family.refuse_segments(to),
            done => return done,
        }
    }
    run.chunks(segment).try_for_each(|datagram| send_patiently(family, to, datagram, None, full))
}

fn send_patiently(
    family: &Family,
    to: SocketAddr,
    bytes: &[u8],
    segment: Option<usize>,
    full: WhenFull,
) -> io::Result<()> {
    let mut waited = false;
    loop {
        match family.try_send(to, bytes, segment) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && full == WhenFull::Wait && !waited => {
                family.wait_writable();
                waited = true;
            }
            // An ICMP error that an earlier datagram caused; reported once, and not about this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !waited => waited = true,
            done => return done,
        }
    }
}

fn no_such_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT))
}

fn bind_error((at, source): (SocketAddr, io::Error)) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { at },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { at },
        _ => BindError::Failed { at, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: PortChoice) -> Listen {
        Listen { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST), port }
    }

    /// Everything that arrives, datagram by datagram.
    fn receive_all(udp: &Udp, family: usize, datagrams: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        let mut buffers = vec![vec![0; 65_536]; 4];
        while got.len() < datagrams {
            let fd = udp.descriptors().nth(family).unwrap();
            let ready = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(5000_u16)).unwrap();
            assert_eq!(ready, 1, "{} of {datagrams} came", got.len());
            let mut meta = [RecvMeta::default(); 4];
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let filled = udp.receive(family, &mut slices, &mut meta).unwrap();
            for (meta, buffer) in meta[..filled].iter().zip(&buffers) {
                got.extend(buffer[..meta.len].chunks(meta.stride).map(<[u8]>::to_vec));
            }
        }
        got
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_was_made_of() {
        let (a, b) =
            (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
        let (a, b) = (a.unwrap(), b.unwrap());
        let bytes: Vec<u8> = (0..63 * 1000 - 300_u32).map(|n| (n / 7) as u8).collect();
        for (family, to) in b.local().into_iter().enumerate() {
            a.send(to, &bytes, 1000, WhenFull::Wait).unwrap();
            let expected: Vec<_> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
            assert_eq!(receive_all(&b, family, 63), expected);
        }
    }

    #[test]
    fn more_than_the_kernel_cuts_at_once_arrives_too() {
        let (a, b) =
            (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
        let (a, b) = (a.unwrap(), b.unwrap());
        let to = b.local()[0];
        a.send(to, &[7; 200 * 100 + 1], 100, WhenFull::Wait).unwrap();
        assert_eq!(receive_all(&b, 0, 201).last().map(Vec::len), Some(1));
        assert!(a.v4.as_ref().unwrap().may_segment(to), "and nothing was refused on the way");
    }

    #[test]
    fn where_segmentation_is_refused_the_pieces_go_one_by_one() {
        let (a, b) =
            (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
        let (a, b) = (a.unwrap(), b.unwrap());
        let to = b.local()[0];
        a.v4.as_ref().unwrap().refuse_segments(to);
        assert!(!a.v4.as_ref().unwrap().may_segment(to));
        assert!(a.v4.as_ref().unwrap().may_segment("127.0.0.1:9".parse().unwrap()));
        a.send(to, &[7; 2500], 1000, WhenFull::Wait).unwrap();
        assert_eq!(receive_all(&b, 0, 3), [vec![7; 1000], vec![7; 1000], vec![7; 500]]);
    }

    #[test]
    fn a_taken_port_is_an_error_or_replaced_as_was_asked() {
        let first = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
        let taken = first.port();
        let refused = Udp::bind(loopback(PortChoice::Required(taken))).unwrap_err();
        assert!(matches!(refused, BindError::Taken { at } if at.port() == taken), "{refused}");
        assert!(refused.to_string().contains(&format!("127.0.0.1:{taken}")));
        let other = Udp::bind(loopback(PortChoice::Preferred(taken))).unwrap();
        assert_ne!(other.port(), taken);
        assert!(other.local().iter().all(|at| at.port() == other.port()), "one number for both families");
    }

    #[test]
    fn a_closed_port_at_the_other_end_is_no_error() {
        let a = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
        let closed = Udp::bind(loopback(PortChoice::Required(0))).unwrap().local()[0];
        for _ in 0..5 {
            a.sender().send(closed, b"anybody?").unwrap();
        }
        assert!(UdpSender(Udp { v6: None, ..a }).send("[::1]:9".parse().unwrap(), b"x").is_err());
    }
}
