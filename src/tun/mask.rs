//! Which super-packets the kernel may hand over: the device's offload mask.
//!
//! Owns: one ioctl of the TUN driver that tun-rs offers only as a whole. Never: what the mask should be.

#![allow(unsafe_code, reason = "an ioctl")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{
    TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6, TUNSETOFFLOAD, c_int, c_ulong, ioctl,
};

/// Sets the mask, which belongs to the device and not to the queue. Checksums are always left to us: there is no
/// segmentation without.
///
/// # Errors
/// `EINVAL` for what this kernel does not know.
pub(super) fn set(device: &impl AsFd, tso: bool, uso: bool) -> Result<(), Errno> {
    let tso = if tso { TUN_F_TSO4 | TUN_F_TSO6 } else { 0 };
    let uso = if uso { TUN_F_USO4 | TUN_F_USO6 } else { 0 };
    let mask = c_ulong::from(TUN_F_CSUM | tso | uso);
    // SAFETY: the descriptor is open for as long as it is borrowed; TUNSETOFFLOAD takes a number, no pointer.
    let answer: c_int = unsafe { ioctl(device.as_fd().as_raw_fd(), TUNSETOFFLOAD, mask) };
    Errno::result(answer).map(drop)
}
