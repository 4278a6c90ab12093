//! The header that the kernel puts in front of each packet of a TUN device opened with `IFF_VNET_HDR`.
//!
//! Owns: the ten bytes of `struct virtio_net_hdr` (VIRTIO 1.2, section 5.1.6) in little-endian order, the native
//! one of the machines frejus runs on. Never: believes what it says about the packet behind it.

/// Length of the header on the wire between the kernel and us, in bytes.
pub const LENGTH: usize = 10;

/// The checksum field holds the sum of the pseudo header only; the rest is to be completed.
pub const NEEDS_CSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The TCP header carries CWR; set beside the type.
const GSO_ECN: u8 = 0x80;

/// How a packet longer than a segment is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// Not at all: it is one packet.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size, over IPv4 or IPv6.
    UdpL4,
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Whether the transport checksum is still to be completed.
    pub needs_csum: bool,
    /// The kind of segmentation.
    pub gso: Gso,
    /// TCP only: the first segment carries CWR. Decoding drops it, since the TCP header says the same.
    pub ecn: bool,
    /// What the writer believes to be the length of all headers, in bytes; not reliable from the kernel.
    pub hdr_len: u16,
    /// Payload of each segment but the last, in bytes.
    pub gso_size: u16,
    /// Where summing begins, in bytes from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum stands, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the header; `None` for a kind of segmentation that was never switched on.
    #[must_use]
    pub fn decode(bytes: &[u8; LENGTH]) -> Option<Self> {
        let [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        let gso = match kind & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::UdpL4,
            _ => return None,
        };
        Some(Self {
            needs_csum: flags & NEEDS_CSUM != 0,
            gso,
            ecn: false,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        })
    }

    /// The header as the kernel reads it.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let kind = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::UdpL4 => GSO_UDP_L4,
        };
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let flags = if self.needs_csum { NEEDS_CSUM } else { 0 };
        [flags, kind | if self.ecn { GSO_ECN } else { 0 }, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_as_linux_lays_them_out() {
        let header = VnetHeader {
            needs_csum: true,
            gso: Gso::TcpV4,
            ecn: true,
            hdr_len: 52,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(header.encode(), [1, 0x81, 52, 0, 0x58, 0x05, 20, 0, 16, 0]);
        assert_eq!(VnetHeader::decode(&header.encode()), Some(VnetHeader { ecn: false, ..header }));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(VnetHeader::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_again(bytes: [u8; LENGTH]) {
            if let Some(header) = VnetHeader::decode(&bytes) {
                let again = header.encode();
                prop_assert_eq!(again[0], bytes[0] & NEEDS_CSUM);
                prop_assert_eq!(again[1], bytes[1] & !GSO_ECN);
                prop_assert_eq!(&again[2..], &bytes[2..]);
            }
        }
    }
}
