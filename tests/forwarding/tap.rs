//! A packet socket on a device: puts packets in front of the device as they are, super-packets included, and sees what
//! the device hands to this host.

#![allow(unsafe_code, reason = "neither socket2 nor nix binds a packet socket")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use frejus_overlay::packet::vnet::{LENGTH, VnetHeader};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::unistd::write;

/// Of linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

pub(crate) struct Tap(OwnedFd);

impl Tap {
    /// In the caller's namespace.
    pub(crate) fn open(device: &str) -> Self {
        let every = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a new descriptor, which nobody else owns.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, every.into());
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            // SAFETY: the kernel reads as many bytes as it is told, from a value that lives on.
            let set = unsafe {
                let (value, size) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value, size)
            };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        }
        let index = if_nametoindex(device).unwrap();
        // SAFETY: all-zero bytes are a valid address; the kernel reads as many as it is told.
        let bound = unsafe {
            let mut at: libc::sockaddr_ll = std::mem::zeroed();
            at.sll_family = libc::AF_PACKET as u16;
            at.sll_protocol = every;
            at.sll_ifindex = index as libc::c_int;
            libc::bind(socket.as_raw_fd(), (&raw const at).cast(), size_of_val(&at) as libc::socklen_t)
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        Self(socket)
    }

    /// As if a program of this host had sent it through the device.
    pub(crate) fn inject(&self, vnet: VnetHeader, packet: &[u8]) {
        let whole = [&vnet.encode()[..], packet].concat();
        loop {
            match write(&self.0, &whole) {
                Err(Errno::ENOBUFS) => std::thread::yield_now(),
                done => return assert_eq!(done, Ok(whole.len()), "{vnet:?}, {} bytes", packet.len()),
            }
        }
    }

    /// The next that the device hands to this host.
    pub(crate) fn next(&self, patience: Duration) -> Option<(VnetHeader, Vec<u8>)> {
        let until = Instant::now() + patience;
        let mut buffer = vec![0; LENGTH + (1 << 17)];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap();
            if poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&self.0), PollFlags::POLLIN)], timeout)
                == Ok(0)
            {
                return None;
            }
            let Ok(len) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else { continue };
            let (header, packet) = buffer[..len].split_first_chunk().unwrap();
            return Some((VnetHeader::decode(header).unwrap(), packet.to_vec()));
        }
    }
}
