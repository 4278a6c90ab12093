//! The trial of joined writes, on a device that is still down.
//!
//! Owns: super-packets that nobody will ever see. The driver checks the header in front of a packet before it notices
//! that the device is down, so that what it would refuse (`EINVAL`) differs from what it would have taken (`EIO`).
//! Never: a write to a device that is up.

use frejus_overlay::packet::vnet::{Gso, VnetHeader};
use nix::errno::Errno;

use crate::offload::{Offload, Offloads, Why};

/// Payload of a segment, as at an MTU of 1280.
const SEGMENT: u16 = 1228;
/// Payloads: equal segments, and a short tail, which stable kernels from 6.6.44 on refused.
const PAYLOADS: [u16; 2] = [3 * SEGMENT, 3 * SEGMENT + 1];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Turns off what `write` refuses. It gets the kernel's header and the packet in one.
pub(super) fn run(offloads: &Offloads, write: impl Fn(&[u8]) -> Result<(), Errno>) {
    for (which, protocol) in [(Offload::TcpCoalescing, TCP), (Offload::UdpCoalescing, UDP)] {
        let refused = |v6, payload| write(&super_packet(v6, protocol, payload)) == Err(Errno::EINVAL);
        let any = PAYLOADS.iter().any(|payload| refused(false, *payload) || refused(true, *payload));
        if offloads.is_on(which) && any {
            offloads.turn_off(which, Why::Trial);
        }
    }
}

/// Headers and zeros; checksums are left to the kernel, as in what is joined.
fn super_packet(v6: bool, protocol: u8, payload: u16) -> Vec<u8> {
    let (ip, transport, csum_offset) = match (v6, protocol) {
        (false, TCP) => (20, 20, 16),
        (true, TCP) => (40, 20, 16),
        (false, _) => (20, 8, 6),
        (true, _) => (40, 8, 6),
    };
    let gso = match (protocol, v6) {
        (TCP, false) => Gso::TcpV4,
        (TCP, true) => Gso::TcpV6,
        _ => Gso::UdpL4,
    };
    let vnet = VnetHeader {
        needs_csum: true,
        gso,
        ecn: false,
        hdr_len: ip + transport,
        gso_size: SEGMENT,
        csum_start: ip,
        csum_offset,
    };
    let mut packet = vec![0; usize::from(ip + transport + payload)];
    if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(transport + payload).to_be_bytes());
        (packet[6], packet[7]) = (protocol, 64);
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(ip + transport + payload).to_be_bytes());
        (packet[8], packet[9]) = (64, protocol);
    }
    let header = &mut packet[usize::from(ip)..];
    if protocol == TCP {
        // The header's length in words, and ACK.
        (header[12], header[13]) = (5 << 4, 0x10);
    } else {
        header[4..6].copy_from_slice(&(transport + payload).to_be_bytes());
    }
    [&vnet.encode()[..], &packet].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with the fault of 6.6.44.
    fn refuses_short_tails(packet: &[u8]) -> Result<(), Errno> {
        let vnet = VnetHeader::decode(packet[..10].try_into().unwrap()).unwrap();
        let payload = packet.len() - 10 - usize::from(vnet.hdr_len);
        let refused = vnet.gso != Gso::UdpL4 && !payload.is_multiple_of(vnet.gso_size.into());
        Err(if refused { Errno::EINVAL } else { Errno::EIO })
    }

    #[test]
    fn a_kernel_that_refuses_short_tails_gets_none() {
        let offloads = Offloads::default();
        run(&offloads, refuses_short_tails);
        assert_eq!(offloads.why(Offload::TcpCoalescing), Some(Why::Trial));
        assert_eq!(offloads.why(Offload::UdpCoalescing), None);
    }

    #[test]
    fn a_device_that_is_only_down_passes() {
        let offloads = Offloads::default();
        run(&offloads, |_| Err(Errno::EIO));
        assert!(Offload::ALL.iter().all(|which| offloads.is_on(*which)));
    }
}
