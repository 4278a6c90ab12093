//! The daemon's parts: everything that touches the world.

pub mod clock;
//pub mod forward;
pub mod limiter;
pub mod netlink;
mod seal;
pub mod stun;
pub mod tun;
pub mod udp;
pub mod wireguard;
