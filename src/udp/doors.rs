//! Further UDP sockets, each opened for a purpose: a mapping of its own in the NAT in front.
//!
//! Owns: opening and closing them by their numbers, and sending by them. Whoever receives takes the list and is
//! woken when it has changed. Never: why one is opened (that is control's).

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError, RwLock};

use frejus_overlay::limits::DOORS;
use frejus_overlay::locator::DoorId;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use quinn_udp::RecvMeta;
use socket2::SockRef;

use super::family::Family;
use super::{Unsent, WhenFull};
use crate::offload::Offloads;

/// The doors of a node; clones share them.
#[derive(Clone, Debug)]
pub struct Doors {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: RwLock<BTreeMap<DoorId, Arc<Door>>>,
    /// Readable when [`Self::open`] has changed.
    changed: EventFd,
    offloads: Arc<Offloads>,
}

/// One socket, IPv4, mostly at a port that the kernel chose.
#[derive(Debug)]
pub struct Door(Family);

impl Doors {
    /// None yet.
    ///
    /// # Errors
    /// The kernel gives no event descriptor.
    pub fn new(offloads: Arc<Offloads>) -> io::Result<Self> {
        let changed = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let open = RwLock::default();
        Ok(Self { shared: Arc::new(Shared { open, changed, offloads }) })
    }

    /// Opens a door, at most [`DOORS`] at a time.
    ///
    /// # Errors
    /// What the kernel says; `EMFILE` also for one too many.
    pub fn open(&self, id: DoorId) -> io::Result<()> {
        self.open_at(id, Ipv4Addr::UNSPECIFIED, 0)
    }

    /// As [`Self::open`], at a certain address and port; the port 0 leaves the choice to the kernel.
    ///
    /// # Errors
    /// As there; `EADDRINUSE` for a port that is taken.
    pub fn open_at(&self, id: DoorId, address: Ipv4Addr, port: u16) -> io::Result<()> {
        let door = Family::bind(IpAddr::V4(address), port, 1, &self.shared.offloads);
        let door = Arc::new(Door(door.map_err(|(_, error)| error)?));
        let mut open = self.shared.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= DOORS {
            return Err(Errno::EMFILE.into());
        }
        open.insert(id, door);
        drop(open);
        self.shared.changed.write(1)?;
        Ok(())
    }

    /// Closes a door, if it is open.
    pub fn close(&self, id: DoorId) {
        let door = self.shared.open.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if door.is_some() {
            self.shared.changed.write(1).ok();
        }
    }

    /// As [`super::Udp::send`], by this door.
    ///
    /// # Errors
    /// What the kernel says; `EBADF` for a door that is not open.
    pub fn send(
        &self,
        by: DoorId,
        to: SocketAddr,
        bytes: &[u8],
        segment: usize,
        full: WhenFull,
    ) -> Result<(), Unsent> {
        let door = self.shared.open.read().unwrap_or_else(PoisonError::into_inner).get(&by).cloned();
        match door {
            Some(door) if to.is_ipv4() => door.0.send(0, to, bytes, segment, full),
            _ => {
                let datagrams = bytes.len().div_ceil(segment.max(1)).max(1) as u64;
                Err(Unsent { datagrams, source: Errno::EBADF.into() })
            }
        }
    }

    /// As [`super::Udp::answer`], by this door.
    pub fn answer(&self, source: Option<IpAddr>, by: DoorId, to: SocketAddr, bytes: &[u8]) {
        let door = self.shared.open.read().unwrap_or_else(PoisonError::into_inner).get(&by).cloned();
        if let Some(door) = door.filter(|_| to.is_ipv4()) {
            door.0.answer(0, source, to, bytes);
        }
    }

    /// Sends one datagram with this hop limit (RFC 791, time to live).
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_near(&self, by: DoorId, to: SocketAddr, bytes: &[u8], hops: u8) -> io::Result<()> {
        let door = self.shared.open.read().unwrap_or_else(PoisonError::into_inner).get(&by).cloned();
        let door = door.filter(|_| to.is_ipv4()).ok_or(Errno::EBADF)?;
        let socket = SockRef::from(&door.0.ports[0].socket);
        // The limit is the socket's: a door that is no path yet is used by control alone.
        let usual = socket.ttl_v4()?;
        socket.set_ttl_v4(hops.into())?;
        let sent = door.0.send(0, to, bytes, bytes.len(), WhenFull::Drop);
        socket.set_ttl_v4(usual)?;
        sent.map_err(|unsent| unsent.source)
    }

    /// The port of a door that is open.
    #[must_use]
    pub fn port(&self, id: DoorId) -> Option<u16> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        Some(open.get(&id)?.local().ok()?.port())
    }

    /// The doors that are open.
    #[must_use]
    pub fn list(&self) -> Vec<(DoorId, Arc<Door>)> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(id, door)| (*id, Arc::clone(door))).collect()
    }

    /// As [`Self::list`], for whoever receives: [`Self::changed`] is not readable until the next change.
    #[must_use]
    pub fn take_list(&self) -> Vec<(DoorId, Arc<Door>)> {
        self.shared.changed.read().ok();
        self.list()
    }

    /// Readable when the list has changed since it was last taken.
    #[must_use]
    pub fn changed(&self) -> BorrowedFd<'_> {
        self.shared.changed.as_fd()
    }
}

impl Door {
    /// Its address, the port being the kernel's choice.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local()
    }

    /// For [`nix::poll`].
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.ports[0].socket.as_fd()
    }

    /// As [`super::Udp::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let port = &self.0.ports[0];
        port.state.recv((&port.socket).into(), buffers, meta)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::offload::Wishes;

    fn is_readable(fd: BorrowedFd<'_>, wait: Duration) -> bool {
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(wait).unwrap()).unwrap() > 0
    }

    #[test]
    fn each_door_is_a_socket_of_its_own_until_it_is_closed() {
        let doors = Doors::new(Arc::new(Offloads::new(Wishes::default()))).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let to = far.local_addr().unwrap();
        let (one, other) = (DoorId(1), DoorId(2));
        doors.open(one).unwrap();
        doors.open(other).unwrap();
        assert!(is_readable(doors.changed(), Duration::ZERO));
        let list = doors.take_list();
        assert!(!is_readable(doors.changed(), Duration::ZERO), "seen");

        let seen = [one, other].map(|door| {
            doors.send(door, to, b"hello", 5, WhenFull::Drop).unwrap();
            far.recv_from(&mut [0; 8]).unwrap().1
        });
        assert_ne!(seen[0].port(), seen[1].port());
        far.send_to(b"back", seen[1]).unwrap();
        assert!(is_readable(list[1].1.descriptor(), Duration::from_secs(10)), "the one that was answered");
        assert!(!is_readable(list[0].1.descriptor(), Duration::ZERO));

        doors.close(other);
        assert_eq!(doors.list().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [one]);
        let closed = doors.send(other, to, b"hello", 5, WhenFull::Drop).unwrap_err();
        assert_eq!(closed.source.raw_os_error(), Some(Errno::EBADF as i32));
    }
}
