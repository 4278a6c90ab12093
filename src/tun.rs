//! The TUN device: the network interface that the virtual network is.
//!
//! Owns: creating it (with segmentation offload where the kernel has it), reading and writing packets behind the
//! kernel's ten-byte header. Never: its addresses and routes, see [`crate::netlink`].

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use frejus_overlay::packet::vnet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::writev;
use nix::unistd::read;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Packets that may wait for us in the kernel: at 64 KiB a super-packet a few milliseconds of a fast link.
const QUEUE: u32 = 500;
/// Names that are tried: `frejus0` to `frejus255`, one for each /16 of 10.0.0.0/8.
const NAMES: u32 = 256;

/// What the device is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The first free `frejusN`.
    Any,
    /// This one: it was asked for.
    Given(String),
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel or the container has none.
    #[error(
        "no /dev/net/tun: load the module (`modprobe tun`), or give the container the device and CAP_NET_ADMIN"
    )]
    NoDriver,
    /// Exit code 4.
    #[error("no permission to create TUN device {name}: it needs CAP_NET_ADMIN, run as root")]
    NotPermitted {
        /// The device.
        name: String,
    },
    /// Exit code 11.
    #[error("the interface {name} exists already: choose another name with --tun")]
    Taken {
        /// The device.
        name: String,
    },
    /// A name that no interface can have.
    #[error("{name:?} is no name for an interface: take 1 to 15 letters, digits or dashes with --tun")]
    BadName {
        /// The name.
        name: String,
    },
    /// Anything else.
    #[error("cannot create TUN device {name}: {source}")]
    Failed {
        /// The device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open device; it disappears with its last owner.
pub struct Tun {
    device: SyncDevice,
    name: String,
    mtu: u16,
    offload: bool,
}

impl Tun {
    /// Creates the device in the caller's network namespace; it is down and has no address yet.
    ///
    /// # Errors
    /// [`TunError`], each with its way out.
    pub fn create(name: &Name, mtu: u16) -> Result<Self, TunError> {
        // tun-rs would make the device node itself, and leave it behind.
        if !Path::new("/dev/net/tun").exists() {
            return Err(TunError::NoDriver);
        }
        match name {
            Name::Given(name) => Self::open(name, mtu),
            Name::Any => {
                let mut last = TunError::Taken { name: "frejus0".to_owned() };
                for number in 0..NAMES {
                    match Self::open(&format!("frejus{number}"), mtu) {
                        Err(taken @ TunError::Taken { .. }) => last = taken,
                        done => return done,
                    }
                }
                Err(last)
            }
        }
    }

    fn open(name: &str, mtu: u16) -> Result<Self, TunError> {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 15 || !name.chars().all(letters) || name.starts_with('.') {
            return Err(TunError::BadName { name: name.to_owned() });
        }
        // The kernel would attach us to an idle device of that name instead of refusing.
        if if_nametoindex(name).is_ok() {
            return Err(TunError::Taken { name: name.to_owned() });
        }
        let (device, offload) = match build(name, mtu, true) {
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                (build(name, mtu, false).map_err(|error| tun_error(name, error))?, false)
            }
            done => (done.map_err(|error| tun_error(name, error))?, true),
        };
        device.set_nonblocking(true).map_err(|error| tun_error(name, error))?;
        Ok(Self { device, name: name.to_owned(), mtu, offload })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest packet, in bytes.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether every packet has the ten-byte header in front, in both directions.
    #[must_use]
    pub const fn has_header(&self) -> bool {
        self.offload
    }

    /// Whether UDP super-packets may be written (Linux 6.2).
    #[must_use]
    pub fn joins_udp(&self) -> bool {
        self.offload && self.device.udp_gso()
    }

    /// Reads one packet, header first if [`Self::has_header`].
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        read(self.device.as_fd(), buffer)
    }

    /// Writes one packet made of these slices, header first if [`Self::has_header`].
    ///
    /// # Errors
    /// `EINVAL` if the kernel does not like the super-packet, `ENOBUFS` and the like if it has no room, `EIO` if
    /// the interface is down.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> Result<(), Errno> {
        writev(self.device.as_fd(), slices).map(drop)
    }

    /// Writes one complete packet, for whoever has no header to give.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_packet(&self, packet: &[u8]) -> Result<(), Errno> {
        let header = [0; vnet::LENGTH];
        let header: &[u8] = if self.offload { &header } else { &[] };
        self.write(&[IoSlice::new(header), IoSlice::new(packet)])
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn build(name: &str, mtu: u16, offload: bool) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name(name)
        .layer(Layer::L3)
        .mtu(mtu)
        .tx_queue_len(QUEUE)
        .offload(offload)
        .enable(false)
        .build_sync()
}

fn tun_error(name: &str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => TunError::NotPermitted { name },
        Some(Errno::EBUSY | Errno::EEXIST) => TunError::Taken { name },
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) if !Path::new("/dev/net/tun").exists() => {
            TunError::NoDriver
        }
        Some(Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
        _ => TunError::Failed { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have() {
        for name in ["", "with space", "far-too-long-for-linux", "a/b", ".."] {
            let refused = Tun::create(&Name::Given(name.to_owned()), 1280);
            assert!(matches!(refused, Err(TunError::BadName { .. })), "{name}");
        }
    }

    #[test]
    fn an_existing_interface_is_left_alone() {
        let refused = Tun::create(&Name::Given("lo".to_owned()), 1280);
        assert!(matches!(refused, Err(TunError::Taken { name }) if name == "lo"));
    }
}
