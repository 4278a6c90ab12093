//! UDP over IPv6, whole packets: the dress of control messages inside the tunnel.
//!
//! Owns: [`Udp6`], built and read with its checksum (RFC 768, RFC 8200 section 8.1). Never: knows what it carries.

use std::net::Ipv6Addr;

use super::checksum::Sum;
use super::{IPV6_HEADER, IpPacket, MAX_PACKET, UDP_HEADER, long, protocol, put_word, word};

/// Bytes that the two headers add to a payload.
pub const OVERHEAD: usize = IPV6_HEADER + UDP_HEADER;

/// The hop limit that Linux gives to what it sends.
const HOP_LIMIT: u8 = 64;

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp6<'a> {
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Udp6<'a> {
    /// Writes the packet to the front of `out` and returns its length in bytes; `None` if `out` is too short for
    /// it, or the payload for any packet.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let total = OVERHEAD + self.payload.len();
        if total > MAX_PACKET {
            return None;
        }
        let length = u16::try_from(total - IPV6_HEADER).ok()?;
        let packet = out.get_mut(..total)?;
        packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        put_word(packet, 4, length);
        packet[6] = protocol::UDP;
        packet[7] = HOP_LIMIT;
        packet[8..24].copy_from_slice(&self.source.octets());
        packet[24..40].copy_from_slice(&self.destination.octets());
        put_word(packet, 40, self.source_port);
        put_word(packet, 42, self.destination_port);
        put_word(packet, 44, length);
        put_word(packet, 46, 0);
        packet[OVERHEAD..].copy_from_slice(self.payload);
        let sum =
            Sum::pseudo(&packet[8..40], protocol::UDP, total - IPV6_HEADER).bytes(&packet[IPV6_HEADER..]);
        put_word(packet, 46, sum.checksum_nonzero());
        Some(total)
    }

    /// Reads a packet back; `None` unless it is IPv6, UDP right behind it, whole, and its checksum right. A
    /// checksum of zero is refused (RFC 8200, section 8.1).
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        // Everything the data plane opens passes here on its way to "not control": the cheap test comes first.
        if packet.first()? >> 4 != 6 || *packet.get(6)? != protocol::UDP {
            return None;
        }
        let ip = IpPacket::parse(packet).ok()?;
        let udp = ip.payload();
        if udp.len() < UDP_HEADER || usize::from(word(udp, 4)) != udp.len() || word(udp, 6) == 0 {
            return None;
        }
        if !Sum::pseudo(ip.addresses(), protocol::UDP, udp.len()).bytes(udp).is_intact() {
            return None;
        }
        let ports = long(udp, 0).to_be_bytes();
        Some(Self {
            source: Ipv6Addr::from(*ip.bytes()[8..].first_chunk::<16>()?),
            destination: Ipv6Addr::from(*ip.bytes()[24..].first_chunk::<16>()?),
            source_port: u16::from_be_bytes([ports[0], ports[1]]),
            destination_port: u16::from_be_bytes([ports[2], ports[3]]),
            payload: &udp[UDP_HEADER..],
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_etherparse_agrees(
            source: [u8; 16], destination: [u8; 16], ports: (u16, u16),
            payload in prop::collection::vec(any::<u8>(), 0..1500), padding in 0_usize..16,
        ) {
            let datagram = Udp6 {
                source: source.into(), destination: destination.into(),
                source_port: ports.0, destination_port: ports.1, payload: &payload,
            };
            let mut out = vec![0; OVERHEAD + payload.len() + padding];
            prop_assert_eq!(datagram.write(&mut out[..OVERHEAD + payload.len() - 1]), None);
            prop_assert_eq!(datagram.write(&mut out), Some(OVERHEAD + payload.len()));
            prop_assert_eq!(Udp6::parse(&out), Some(datagram));
            let sliced = SlicedPacket::from_ip(&out).unwrap();
            let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
                panic!("not UDP over IPv6");
            };
            let expected = udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap();
            prop_assert_eq!(udp.checksum(), expected);
        }

        #[test]
        fn one_wrong_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..200), bit in 0_usize..2000) {
            let datagram = Udp6 {
                source: Ipv6Addr::LOCALHOST, destination: Ipv6Addr::LOCALHOST,
                source_port: 1, destination_port: 2, payload: &payload,
            };
            let mut out = vec![0; OVERHEAD + payload.len()];
            datagram.write(&mut out).unwrap();
            // The checksum covers the addresses and all behind them.
            let bit = 64 + bit % (out.len() * 8 - 64);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Udp6::parse(&out), None);
        }
    }

    #[test]
    fn a_payload_beyond_any_packet_is_refused() {
        let payload = vec![0; MAX_PACKET];
        let datagram = Udp6 {
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            source_port: 1,
            destination_port: 2,
            payload: &payload,
        };
        assert_eq!(datagram.write(&mut vec![0; 70_000]), None);
    }
}
