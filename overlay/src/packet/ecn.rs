//! Explicit congestion notification across the tunnel (RFC 3168, RFC 6040).
//!
//! Owns: [`Ecn`] and what the outer header's bits do to the inner packet. Never: reads the outer header.

use super::{checksum, put_word, word};

/// The two bits at the end of Type of Service and Traffic Class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not take part.
    #[default]
    NotEct,
    /// Capable, codepoint 01.
    Ect1,
    /// Capable, codepoint 10.
    Ect0,
    /// Congestion was met on the way.
    Ce,
}

impl Ecn {
    /// From the low two bits; the others (DSCP) are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The low two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0,
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// What an inner packet that says `self` says after it left a tunnel whose outer header said `outer`; `None`
    /// if it must be dropped, being marked and of a transport that would not heed the mark (RFC 6040, section
    /// 4.2, figure 4).
    #[must_use]
    pub const fn after_tunnel(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::Ect0 | Self::Ect1, Self::Ce) => Some(Self::Ce),
            (Self::Ect0, Self::Ect1) => Some(Self::Ect1),
            (inner, _) => Some(inner),
        }
    }
}

/// Brings the outer header's mark into `packet`, mending the IPv4 header checksum. Returns whether the packet may
/// live on. Bytes that are no IP packet stay as they are.
#[must_use]
pub fn leave_tunnel(packet: &mut [u8], outer: Ecn) -> bool {
    match packet {
        [first, class, ..] if *first >> 4 == 6 => {
            let Some(after) = Ecn::from_bits(*class >> 4).after_tunnel(outer) else { return false };
            *class = *class & !0x30 | after.bits() << 4;
        }
        [first, class, ..] if *first >> 4 == 4 => {
            let Some(after) = Ecn::from_bits(*class).after_tunnel(outer) else { return false };
            let old = u16::from_be_bytes([*first, *class]);
            *class = *class & !3 | after.bits();
            let new = u16::from_be_bytes([*first, *class]);
            if new != old && packet.len() >= super::IPV4_HEADER {
                let mended = checksum::replace(word(packet, 10), old, new);
                put_word(packet, 10, mended);
            }
        }
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Ecn::{Ce, Ect0, Ect1, NotEct};
    use super::*;
    use crate::packet::IpPacket;
    use crate::packet::checksum::Sum;

    #[test]
    fn the_table_of_rfc_6040() {
        let outer = [NotEct, Ect0, Ect1, Ce];
        let rows = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce); 4]),
        ];
        for (inner, row) in rows {
            assert_eq!(outer.map(|outer| inner.after_tunnel(outer)), row, "{inner:?}");
        }
    }

    #[test]
    fn a_mark_keeps_the_header_checksum_right() {
        for class in 0..=u8::MAX {
            for outer in [NotEct, Ect0, Ect1, Ce] {
                let builder = etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).udp(1, 2);
                let mut packet = Vec::new();
                builder.write(&mut packet, b"x").unwrap();
                packet[1] = class;
                crate::packet::seal_v4_header(&mut packet, 20);
                let expected = Ecn::from_bits(class).after_tunnel(outer);
                assert_eq!(leave_tunnel(&mut packet, outer), expected.is_some());
                assert!(Sum::default().bytes(&packet[..20]).is_intact());
                let parsed = IpPacket::parse(&packet).unwrap();
                assert_eq!(parsed.ecn(), expected.unwrap_or(NotEct));
                assert_eq!(parsed.dscp(), class >> 2);
            }
        }
    }

    #[test]
    fn ipv6_keeps_its_flow_label_and_dscp() {
        let mut packet = vec![0; 40];
        packet[..4].copy_from_slice(&[0x6a, 0xa5, 0x43, 0x21]);
        assert!(leave_tunnel(&mut packet, Ce));
        assert_eq!(packet[..4], [0x6a, 0xb5, 0x43, 0x21]);
    }
}
