//! Whether the kernel may fragment what a UDP socket sends.
//!
//! Owns: the two socket options, one a family. Data and probes never go in fragments, or a probe would prove nothing; a
//! sealed request that must reach somebody before any path is measured may. Never: a size.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

/// IPv4: with `may`, "don't fragment" is not set, and routers cut what is too long; otherwise it is, whatever the kernel
/// believes of the path. IPv6, where only the sender can: with `may` it cuts what its own link does not take.
///
/// # Errors
/// What the kernel says.
pub(crate) fn set(socket: impl AsFd, is_v4: bool, may: bool) -> io::Result<()> {
    if is_v4 {
        let choice = if may { Ipv4PathMtuDiscovery::DONT } else { Ipv4PathMtuDiscovery::PROBE };
        Ok(set_ip_mtu_discover(socket, choice)?)
    } else {
        Ok(setsockopt(&socket, sockopt::Ipv6DontFrag, &!may)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::getsockopt;
    use rustix::net::sockopt::ip_mtu_discover;

    use super::*;

    #[test]
    fn each_family_has_its_option() {
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        let v6 = UdpSocket::bind("[::1]:0").unwrap();
        for may in [false, true] {
            set(&v4, true, may).unwrap();
            set(&v6, false, may).unwrap();
            let kept = ip_mtu_discover(&v4).unwrap();
            assert_eq!(kept, if may { Ipv4PathMtuDiscovery::DONT } else { Ipv4PathMtuDiscovery::PROBE });
            assert_eq!(getsockopt(&v6, sockopt::Ipv6DontFrag).unwrap(), !may);
        }
    }
}
