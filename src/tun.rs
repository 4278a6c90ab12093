//! The TUN device: the network interface that the virtual network is.
//!
//! Owns: creating it (with segmentation offload where the kernel has it), its trial, reading and writing packets behind
//! the kernel's ten-byte header. Never: its addresses and routes, see [`crate::netlink`].

mod mask;
mod trial;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use frejus_overlay::packet::vnet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::writev;
use nix::unistd::{read, write};
use rustix::io::ReadWriteFlags;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::offload::{Offload, Offloads, Why};

/// Packets that may wait for us in the kernel while we are kept off the processor: 10 ms of 200,000 small ones a second. A
/// program that was kept off as well sends what it missed in one go, and 5 ms were now and then too few for that.
const QUEUE: u32 = 2000;
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

/// An open queue of the device, usually its only one; the device disappears with the last of them.
pub struct Tun {
    device: SyncDevice,
    name: String,
    mtu: u16,
    header: bool,
    offloads: Arc<Offloads>,
}

impl Tun {
    /// Creates the device in the caller's network namespace, with one queue and every offload that the kernel has; it
    /// is down and has no address yet.
    ///
    /// # Errors
    /// [`TunError`], each with its way out.
    pub fn create(name: &Name, mtu: u16) -> Result<Self, TunError> {
        let queues = Self::create_queues(name, mtu, 1, Arc::default())?;
        Ok(queues.into_iter().next().expect("there is one"))
    }

    /// Creates the device with this many queues, at least one. The kernel keeps a flow's packets in one queue, the one
    /// that packets of the other direction were written to last, else by a hash.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_queues(
        name: &Name,
        mtu: u16,
        queues: usize,
        offloads: Arc<Offloads>,
    ) -> Result<Vec<Self>, TunError> {
        // tun-rs would make the device node itself, and leave it behind.
        if !Path::new("/dev/net/tun").exists() {
            return Err(TunError::NoDriver);
        }
        let open = |name: &str| Self::open(name, mtu, queues, &offloads);
        match name {
            Name::Given(name) => open(name),
            Name::Any => {
                let mut last = TunError::Taken { name: "frejus0".to_owned() };
                for number in 0..NAMES {
                    match open(&format!("frejus{number}")) {
                        Err(taken @ TunError::Taken { .. }) => last = taken,
                        done => return done,
                    }
                }
                Err(last)
            }
        }
    }

    fn open(name: &str, mtu: u16, queues: usize, offloads: &Arc<Offloads>) -> Result<Vec<Self>, TunError> {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 15 || !name.chars().all(letters) || name.starts_with('.') {
            return Err(TunError::BadName { name: name.to_owned() });
        }
        // The kernel would attach us to an idle device of that name instead of refusing.
        if if_nametoindex(name).is_ok() {
            return Err(TunError::Taken { name: name.to_owned() });
        }
        Self::open_queues(name, mtu, queues, offloads).map_err(|error| tun_error(name, error))
    }

    fn open_queues(name: &str, mtu: u16, queues: usize, offloads: &Arc<Offloads>) -> io::Result<Vec<Self>> {
        let build = |header| build(name, mtu, header, queues > 1);
        let wanted = SIDE.iter().any(|which| offloads.is_on(*which));
        let (first, header) = match build(wanted) {
            Err(error) if wanted && error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                SIDE.iter().for_each(|which| offloads.turn_off(*which, Why::Missing));
                (build(false)?, false)
            }
            done => (done?, wanted),
        };
        let mut devices = vec![first];
        for _ in 1..queues {
            devices.push(devices[0].try_clone()?);
        }
        if header {
            settle(&devices[0], offloads)?;
        }
        let name = name.to_owned();
        let queue = |device| Self { device, name: name.clone(), mtu, header, offloads: Arc::clone(offloads) };
        Ok(devices.into_iter().map(queue).collect())
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
        self.header
    }

    /// Whether super-packets may be written, of TCP or UDP as `which` says.
    #[must_use]
    pub fn joins(&self, which: Offload) -> bool {
        self.header && self.offloads.is_on(which)
    }

    /// Whether UDP super-packets may be written (Linux 6.2).
    #[must_use]
    pub fn joins_udp(&self) -> bool {
        self.joins(Offload::UdpCoalescing)
    }

    /// How the offloads of the node stand, to be told if the kernel refuses one on the way.
    #[must_use]
    pub fn offloads(&self) -> &Offloads {
        &self.offloads
    }

    /// Reads one packet, header first if [`Self::has_header`]; waits for it.
    ///
    /// # Errors
    /// `EINTR` if a signal came first.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        read(self.device.as_fd(), buffer)
    }

    /// Reads one packet if there is one.
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    pub fn read_ready(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut buffers = [IoSliceMut::new(buffer)];
        rustix::io::preadv2(&self.device, &mut buffers, u64::MAX, ReadWriteFlags::NOWAIT)
            .map_err(|error| Errno::from_raw(error.raw_os_error()))
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
        let header: &[u8] = if self.header { &header } else { &[] };
        self.write(&[IoSlice::new(header), IoSlice::new(packet)])
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// The offloads of this side.
const SIDE: [Offload; 5] =
    [Offload::TunTso, Offload::TunUso, Offload::TcpCoalescing, Offload::UdpCoalescing, Offload::TunChecksum];

/// Leaves on what was wished and passes.
fn settle(device: &SyncDevice, offloads: &Offloads) -> io::Result<()> {
    if !device.udp_gso() {
        offloads.turn_off(Offload::TunUso, Why::Missing);
        offloads.turn_off(Offload::UdpCoalescing, Why::Missing);
    }
    mask::set(device, offloads.is_on(Offload::TunTso), offloads.is_on(Offload::TunUso))?;
    trial::run(offloads, |packet| write(device.as_fd(), packet).map(drop));
    Ok(())
}

fn build(name: &str, mtu: u16, header: bool, queues: bool) -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .with(|builder| {
            builder.multi_queue(queues);
        })
        .name(name)
        .layer(Layer::L3)
        .mtu(mtu)
        .tx_queue_len(QUEUE)
        .offload(header)
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
