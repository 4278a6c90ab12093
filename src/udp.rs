//! The UDP sockets of a node: for IPv4 and for IPv6, with the kernel's batching where it has any.
//!
//! Owns: binding, buffer sizes, segmentation offload, its trial and what to do where it is refused. Never: looks into a
//! datagram, or queues one.

mod doors;
mod drops;
mod family;
mod refusals;
mod trial;

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use frejus_overlay::wire::{Frame, classify};
use nix::errno::Errno;
use quinn_udp::RecvMeta;

use crate::offload::{Offload, Offloads};
use crate::report::{Attention, Offload as Report};
use family::{Family, Port};

use crate::fragmentation;

pub use doors::{Door, Doors};

/// What may wait in the kernel to be sent: 2 MiB is 16 ms at 1 Gb/s.
const SEND_BUFFER: usize = 2 << 20;
/// What may wait to be read: 8 MiB is 64 ms at 1 Gb/s, longer than a thread is kept off the processor.
const RECEIVE_BUFFER: usize = 8 << 20;

/// The longest UDP payload over IPv4: 65,535 − 20 − 8. IPv6 would allow 20 more.
pub const MAX_PAYLOAD: usize = 65_507;
/// Segments in one send: the kernel's limit is 64, and some kernels count the UDP header against it.
pub const MAX_SEGMENTS: usize = 63;

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
    /// The address is another machine's.
    #[error("{at} is no address of this machine: give one of `ip address` with --listen")]
    NotHere {
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

/// A datagram that every path takes whole: 576 bytes (RFC 791) less IP and UDP headers.
const SAFE: usize = 576 - 28;
const EMSGSIZE: i32 = Errno::EMSGSIZE as i32;

fn is_before_tunnels(datagram: &[u8]) -> bool {
    matches!(classify(datagram), Some(Frame::Knock(_) | Frame::EnrolRequest(_) | Frame::EnrolAnswer(_)))
}

/// Whether to wait for room in a full send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Our own packets: whoever sends them is slowed down.
    Wait,
    /// Others' packets: a relay drops what it can't pass on.
    Drop,
}

/// What may wait in the kernel at one socket, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// To be sent.
    pub send: usize,
    /// To be read.
    pub receive: usize,
}

/// Datagrams that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("{datagrams} datagrams were not sent: {source}")]
pub struct Unsent {
    /// How many; those before them have left.
    pub datagrams: u64,
    /// What the kernel said of the first.
    pub source: io::Error,
}

/// The sockets of both families; clones share them, so that every thread can send. Where there are several of a family
/// the kernel spreads senders over them, and each value stands for one: see [`Self::queue`].
#[derive(Clone, Debug)]
pub struct Udp {
    v4: Option<Arc<Family>>,
    v6: Option<Arc<Family>>,
    queue: usize,
    offloads: Arc<Offloads>,
}

/// The half that the control thread holds: it sends, and never reads.
#[derive(Clone, Debug)]
pub struct UdpSender(Udp);

impl Udp {
    /// Opens one socket a family, with every offload that the kernel has.
    ///
    /// # Errors
    /// [`BindError`], with the address in it.
    pub fn bind(listen: Listen) -> Result<Self, BindError> {
        Self::bind_queues(listen, 1, Arc::default())
    }

    /// Opens `queues` sockets a family on one port, after a trial of the offloads.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_queues(listen: Listen, queues: usize, offloads: Arc<Offloads>) -> Result<Self, BindError> {
        trial::run(&offloads);
        let bind = |port| Self::bind_port(listen, port, queues.max(1), &offloads);
        let (port, preferred) = match listen.port {
            PortChoice::Required(port) => (port, false),
            PortChoice::Preferred(port) => (port, true),
        };
        let mut bound = bind(port);
        for _ in 0..EPHEMERAL_TRIES {
            match bound {
                Err(BindError::Taken { .. }) if preferred => bound = bind(0),
                done => return done,
            }
        }
        bound
    }

    fn bind_port(
        listen: Listen,
        mut port: u16,
        queues: usize,
        offloads: &Arc<Offloads>,
    ) -> Result<Self, BindError> {
        let v4 = listen.v4.map(|ip| Family::bind(ip.into(), port, queues, offloads));
        let v4 = v4.transpose().map_err(bind_error)?;
        if let Some(v4) = &v4 {
            port = v4.local().map_or(port, |at| at.port());
        }
        let v6 = match listen.v6.map(|ip| Family::bind(ip.into(), port, queues, offloads)) {
            None => None,
            Some(Ok(v6)) => Some(v6),
            Some(Err((_, error))) if v4.is_some() && no_such_family(&error) => None,
            Some(Err(error)) => return Err(bind_error(error)),
        };
        if v4.is_none() && v6.is_none() {
            return Err(BindError::NoAddress);
        }
        Ok(Self { v4: v4.map(Arc::new), v6: v6.map(Arc::new), queue: 0, offloads: Arc::clone(offloads) })
    }

    /// How many sockets a family has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.families().map(|family| family.ports.len()).min().unwrap_or(0)
    }

    /// The same port by its socket number `queue`, from 0 on; `None` if there are not that many. What one remote
    /// address and port sends comes to one of them, as long as all are open.
    #[must_use]
    pub fn queue(&self, queue: usize) -> Option<Self> {
        (queue < self.queues()).then(|| Self { queue, ..self.clone() })
    }

    /// The half for whoever only sends.
    #[must_use]
    pub fn sender(&self) -> UdpSender {
        UdpSender(self.clone())
    }

    /// The addresses that the sockets are bound to.
    #[must_use]
    pub fn local(&self) -> Vec<SocketAddr> {
        self.families().filter_map(|family| family.local().ok()).collect()
    }

    /// The port, the same for both families.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local().first().map_or(0, SocketAddr::port)
    }

    /// Sends one datagram, or several of `segment` bytes each (the last may be shorter) to one destination. What the
    /// kernel refuses to cut goes one by one, and for some minutes so does all that follows it there.
    ///
    /// # Errors
    /// What the kernel says, and how many datagrams it was said of: nothing is sent twice.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize, full: WhenFull) -> Result<(), Unsent> {
        let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(family) = family.as_deref() else {
            let datagrams = bytes.len().div_ceil(segment.max(1)).max(1) as u64;
            return Err(Unsent { datagrams, source: Errno::EAFNOSUPPORT.into() });
        };
        family.send(self.queue, to, bytes, segment, full)
    }

    /// Sends one datagram from an address of ours, if the kernel takes it.
    pub fn answer(&self, source: Option<IpAddr>, to: SocketAddr, bytes: &[u8]) {
        let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(family) = family.as_deref() {
            family.answer(self.queue, source, to, bytes);
        }
    }

    /// The sockets, IPv4 first, for [`nix::poll`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.families().map(|family| family.ports[self.queue].socket.as_fd())
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
        let port = &family.ports[self.queue];
        port.state.recv((&port.socket).into(), buffers, meta)
    }

    fn families(&self) -> impl Iterator<Item = &Family> {
        [&self.v4, &self.v6].into_iter().filter_map(|family| family.as_deref())
    }

    fn all_ports(&self) -> impl Iterator<Item = &Port> {
        self.families().flat_map(|family| &family.ports)
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
            Err(unsent) if unsent.source.raw_os_error() == Some(EMSGSIZE) => Ok(()),
            done => done.map_err(|unsent| unsent.source),
        };
        if datagram.len() <= SAFE || !is_before_tunnels(datagram) {
            return send();
        }
        let family = if to.is_ipv4() { &self.0.v4 } else { &self.0.v6 };
        let family = family.as_deref().ok_or_else(|| io::Error::from(Errno::EAFNOSUPPORT))?;
        let socket = &family.ports[self.0.queue].socket;
        // The option is the socket's: what the other threads send meanwhile may be fragmented too, and arrives as well.
        // Probes are sent by this thread alone.
        fragmentation::set(socket, to.is_ipv4(), true)?;
        let sent = send();
        fragmentation::set(socket, to.is_ipv4(), false)?;
        sent
    }

    /// Datagrams that arrived and were dropped because nobody read them in time, since the sockets were opened.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.0.all_ports().map(|port| drops::drops(&port.socket)).sum()
    }

    /// The smallest buffers that the kernel granted any of the sockets.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        let smaller =
            |a: Buffers, b: Buffers| Buffers { send: a.send.min(b.send), receive: a.receive.min(b.receive) };
        self.0.all_ports().map(Port::buffers).reduce(smaller).unwrap_or_default()
    }

    /// How the offloads of the node stand, for `status`.
    #[must_use]
    pub fn report(&self) -> BTreeMap<String, Report> {
        let mut report = self.0.offloads.report();
        if let (Some(gso), Some(refused)) = (report.get_mut(Offload::UdpGso.name()), self.refused())
            && gso.on
        {
            gso.why = Some(refused);
        }
        report
    }

    /// What an operator should look at.
    #[must_use]
    pub fn attention(&self) -> Vec<Attention> {
        let mut all = self.0.offloads.attention();
        all.extend(self.refused().map(|refused| Attention {
            what: format!("the offload udp_gso is {refused}"),
            mend: "switch checksums on for the interface of that way: ethtool -K DEVICE tx on".to_owned(),
        }));
        all.extend(self.buffers().attention());
        all
    }

    /// Where segments are sent one by one.
    fn refused(&self) -> Option<String> {
        let counts = self.0.families().map(|family| family.refusals.count());
        match counts.fold((0, false), |all, one| (all.0 + one.0, all.1 | one.1)) {
            (0, _) => None,
            (_, true) => Some("refused by the kernel, tried again within minutes".to_owned()),
            (1, _) => Some("refused on the way to 1 destination, tried again within minutes".to_owned()),
            (some, _) => {
                Some(format!("refused on the way to {some} destinations, tried again within minutes"))
            }
        }
    }
}

impl Buffers {
    /// Whether they are so small that bursts are lost.
    fn attention(self) -> Option<Attention> {
        let small = |what: &str, got: usize, asked: usize| {
            let text = format!("the {what} buffer of the UDP sockets is {got} bytes, {asked} were asked for");
            (got < asked / 2).then_some(text)
        };
        let what = small("receive", self.receive, RECEIVE_BUFFER)
            .or_else(|| small("send", self.send, SEND_BUFFER))?;
        let mend = format!(
            "run with CAP_NET_ADMIN, or sysctl -w net.core.rmem_max={RECEIVE_BUFFER} net.core.wmem_max={SEND_BUFFER}"
        );
        Some(Attention { what, mend })
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
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { at },
        _ => BindError::Failed { at, source },
    }
}

#[cfg(test)]
mod tests;
