//! ICMP errors in answer to packets that can't be carried: unreachable, and too big for the path.
//!
//! Owns: [`unreachable()`] and [`too_big`], and the rules when to keep silent (RFC 1122 section 3.2.2, RFC 4443
//! section 2.4). Never: limits their rate; the caller does.

use std::net::IpAddr;

use super::checksum::Sum;
use super::{IPV4_HEADER, IPV6_HEADER, IpPacket, length_field, protocol, put_long, put_word, seal_v4_header};

/// Length of the ICMP header of all messages here, in bytes, both versions.
const ICMP_HEADER: usize = 8;
/// An IPv4 error quotes as much as fits in what every host accepts (RFC 1812, section 4.3.2.3), in bytes.
const LONGEST_V4: usize = 576;
/// An IPv6 error quotes as much as fits in the least MTU (RFC 4443, section 3.1), in bytes.
const LONGEST_V6: usize = 1280;
/// The largest message written here, in bytes: a buffer of this length always suffices.
pub const LONGEST: usize = LONGEST_V6;
const TTL: u8 = 64;

/// Why a packet can't be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// Nothing in this network has, or routes, that address.
    NoRoute,
    /// The address is somebody's, but they can't be reached.
    Host,
    /// A rule forbids it.
    Prohibited,
    /// Nobody listens at that port.
    Port,
}

impl Unreachable {
    /// Type 3 (RFC 792; code 13 by RFC 1812, section 5.2.7.1).
    const fn code_v4(self) -> u8 {
        match self {
            Self::NoRoute => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::Prohibited => 13,
        }
    }

    /// Type 1 (RFC 4443, section 3.1).
    const fn code_v6(self) -> u8 {
        match self {
            Self::NoRoute => 0,
            Self::Prohibited => 1,
            Self::Host => 3,
            Self::Port => 4,
        }
    }
}

/// What stands in the first eight bytes of the ICMP message.
struct Message {
    kind: u8,
    code: u8,
    rest: u32,
}

/// Writes "destination unreachable" in answer to `original` to the front of `out` and returns its length in bytes.
///
/// `None` if `original` must not be answered (an ICMP error, a later fragment, to or from a group, from nobody),
/// if it is no IP packet, if `from` is of the other IP version, or if `out` is too short: [`LONGEST`] suffices.
#[must_use]
pub fn unreachable(original: &[u8], from: IpAddr, reason: Unreachable, out: &mut [u8]) -> Option<usize> {
    let v4 = Message { kind: 3, code: reason.code_v4(), rest: 0 };
    let v6 = Message { kind: 1, code: reason.code_v6(), rest: 0 };
    answer(original, from, &v4, &v6, out)
}

/// Writes "fragmentation needed" (RFC 1191, section 4) or "packet too big" (RFC 4443, section 3.2) in answer to
/// `original`: the path takes `mtu` bytes. Otherwise like [`unreachable()`].
///
/// For IPv4 it is the caller's to ask first whether the packet forbids fragmentation; the message is written for
/// any.
#[must_use]
pub fn too_big(original: &[u8], from: IpAddr, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let v4 = Message { kind: 3, code: 4, rest: u32::from(mtu) };
    let v6 = Message { kind: 2, code: 0, rest: u32::from(mtu) };
    answer(original, from, &v4, &v6, out)
}

fn answer(original: &[u8], from: IpAddr, v4: &Message, v6: &Message, out: &mut [u8]) -> Option<usize> {
    let original = IpPacket::parse(original).ok()?;
    if !may_be_answered(&original) {
        return None;
    }
    match (from, original.source()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = write_message(v4, &original, LONGEST_V4, IPV4_HEADER, out)?;
            let packet = out.get_mut(..total)?;
            packet[..IPV4_HEADER].copy_from_slice(&[0; IPV4_HEADER]);
            packet[0] = 0x45;
            put_word(packet, 2, length_field(total));
            packet[8] = TTL;
            packet[9] = protocol::ICMP;
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            seal_v4_header(packet, IPV4_HEADER);
            let sum = Sum::default().bytes(&packet[IPV4_HEADER..]);
            put_word(packet, IPV4_HEADER + 2, sum.checksum());
            Some(total)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let total = write_message(v6, &original, LONGEST_V6, IPV6_HEADER, out)?;
            let packet = out.get_mut(..total)?;
            let length = total - IPV6_HEADER;
            packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            put_word(packet, 4, length_field(length));
            packet[6] = protocol::ICMPV6;
            packet[7] = TTL;
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
            let sum = Sum::pseudo(&packet[8..40], protocol::ICMPV6, length).bytes(&packet[IPV6_HEADER..]);
            put_word(packet, IPV6_HEADER + 2, sum.checksum());
            Some(total)
        }
        _ => None,
    }
}

/// Writes the ICMP part, checksum still zero, behind the `header` bytes of the IP header; returns the length of the
/// whole packet.
fn write_message(
    message: &Message,
    original: &IpPacket<'_>,
    longest: usize,
    header: usize,
    out: &mut [u8],
) -> Option<usize> {
    let start = header + ICMP_HEADER;
    let quoted = original.bytes().len().min(longest - start);
    let icmp = out.get_mut(header..start + quoted)?;
    icmp[0] = message.kind;
    icmp[1] = message.code;
    put_word(icmp, 2, 0);
    put_long(icmp, 4, message.rest);
    icmp[ICMP_HEADER..].copy_from_slice(&original.bytes()[..quoted]);
    Some(start + quoted)
}

fn may_be_answered(original: &IpPacket<'_>) -> bool {
    // No upper layer: a later fragment, or something that hides what it is.
    let Some(upper) = original.upper_layer() else { return false };
    let kind = original.bytes().get(upper.start);
    let error = match upper.protocol {
        protocol::ICMP if !original.is_v6() => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // Types below 128 are errors; 137 is a redirect.
        protocol::ICMPV6 if original.is_v6() => kind.is_none_or(|kind| *kind < 128 || *kind == 137),
        _ => false,
    };
    !error && is_host(original.source()) && !is_group(original.destination())
}

/// Whether an answer to this address reaches one host.
fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !is_group(address)
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use etherparse::{icmpv4, icmpv6};
    use proptest::prelude::*;

    use super::*;

    const A4: [u8; 4] = [10, 0, 0, 1];
    const B4: [u8; 4] = [10, 0, 0, 2];
    const A6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const B6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    fn gateway(v6: bool) -> IpAddr {
        if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xff]) } else { IpAddr::from([10, 0, 0, 254]) }
    }

    fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
        let builder = if v6 { PacketBuilder::ipv6(A6, B6, 9) } else { PacketBuilder::ipv4(A4, B4, 9) };
        let mut packet = Vec::new();
        builder.udp(5, 6).write(&mut packet, payload).unwrap();
        packet
    }

    /// The answer, after etherparse found its addresses, lengths and checksums right.
    fn checked(answer: &[u8], original: &[u8]) -> (Option<Icmpv4Type>, Option<Icmpv6Type>) {
        let sliced = SlicedPacket::from_ip(answer).unwrap();
        match (sliced.net.unwrap(), sliced.transport.unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!((header.source, header.destination), ([10, 0, 0, 254], A4));
                assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
                assert!(original.starts_with(icmp.payload()));
                (Some(icmp.icmp_type()), None)
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                let header = ip.header().to_header();
                assert_eq!(header.destination, A6);
                assert!(icmp.is_checksum_valid(header.source, header.destination));
                assert!(original.starts_with(icmp.payload()));
                (None, Some(icmp.icmp_type()))
            }
            _ => panic!("no ICMP"),
        }
    }

    proptest! {
        #[test]
        fn answers_are_sound(length in 0_usize..9000, mtu: u16, v6: bool) {
            let original = udp(v6, &vec![7; length]);
            let mut out = [0; LONGEST];
            let written = too_big(&original, gateway(v6), mtu, &mut out).unwrap();
            let overhead = if v6 { 48 } else { 28 };
            prop_assert_eq!(written, (original.len() + overhead).min(if v6 { 1280 } else { 576 }));
            let expected = if v6 {
                (None, Some(Icmpv6Type::PacketTooBig { mtu: mtu.into() }))
            } else {
                let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
                (Some(Icmpv4Type::DestinationUnreachable(needed)), None)
            };
            prop_assert_eq!(checked(&out[..written], &original), expected);
            prop_assert_eq!(too_big(&original, gateway(v6), mtu, &mut out[..written - 1]), None);
            prop_assert_eq!(too_big(&original, gateway(!v6), mtu, &mut out), None);
        }
    }

    #[test]
    fn each_reason_has_its_code() {
        use icmpv4::DestUnreachableHeader as V4;
        use icmpv6::DestUnreachableCode as V6;
        let reasons = [
            (Unreachable::NoRoute, V4::Network, V6::NoRoute),
            (Unreachable::Host, V4::Host, V6::Address),
            (Unreachable::Prohibited, V4::FilterProhibited, V6::Prohibited),
            (Unreachable::Port, V4::Port, V6::Port),
        ];
        for (reason, v4, v6) in reasons {
            let mut out = [0; LONGEST];
            let original = udp(false, b"x");
            let written = unreachable(&original, gateway(false), reason, &mut out).unwrap();
            let kind = Icmpv4Type::DestinationUnreachable(v4);
            assert_eq!(checked(&out[..written], &original), (Some(kind), None));
            let original = udp(true, b"x");
            let written = unreachable(&original, gateway(true), reason, &mut out).unwrap();
            let kind = Icmpv6Type::DestinationUnreachable(v6);
            assert_eq!(checked(&out[..written], &original), (None, Some(kind)));
        }
    }

    fn answered(original: &[u8]) -> bool {
        let v6 = original[0] >> 4 == 6;
        unreachable(original, gateway(v6), Unreachable::Host, &mut [0; LONGEST]).is_some()
    }

    #[test]
    fn an_error_is_never_answered() {
        for v6 in [false, true] {
            let mut out = [0; LONGEST];
            let error = too_big(&udp(v6, b"x"), gateway(v6), 1280, &mut out).unwrap();
            assert!(!answered(&out[..error]), "IPv6: {v6}");
        }
        let mut echo = Vec::new();
        PacketBuilder::ipv4(A4, B4, 9).icmpv4_echo_request(1, 2).write(&mut echo, b"x").unwrap();
        assert!(answered(&echo));
        echo.clear();
        PacketBuilder::ipv6(A6, B6, 9).icmpv6_echo_request(1, 2).write(&mut echo, b"x").unwrap();
        assert!(answered(&echo));
        // The same as an error behind an extension header.
        let mut hidden = echo[..40].to_vec();
        hidden.extend_from_slice(&[protocol::ICMPV6, 0, 1, 4, 0, 0, 0, 0]);
        hidden.extend_from_slice(&echo[40..]);
        hidden[5] += 8;
        hidden[6] = protocol::HOP_BY_HOP;
        assert!(answered(&hidden));
        hidden[48] = 1;
        assert!(!answered(&hidden));
    }

    #[test]
    fn a_later_fragment_is_never_answered() {
        let mut packet = udp(false, b"fragment");
        packet[6] = 0x20;
        assert!(answered(&packet), "the first of them is");
        packet[7] = 1;
        assert!(!answered(&packet));
        for (offset, expected) in [(0, true), (8, false)] {
            let mut packet = udp(true, b"0123456789abcdef");
            packet[6] = protocol::FRAGMENT;
            packet[40..48].copy_from_slice(&[protocol::UDP, 0, 0, offset, 0, 0, 0, 1]);
            assert_eq!(answered(&packet), expected);
        }
    }

    #[test]
    fn groups_and_nobody_are_never_answered() {
        for group in [[224, 0, 0, 251], [255; 4]] {
            let mut packet = udp(false, b"x");
            packet[16..20].copy_from_slice(&group);
            assert!(!answered(&packet));
        }
        for source in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            let mut packet = udp(false, b"x");
            packet[12..16].copy_from_slice(&source);
            assert!(!answered(&packet));
        }
        for at in [8, 24] {
            let mut packet = udp(true, b"x");
            packet[at] = 0xff;
            assert!(!answered(&packet));
        }
        let mut packet = udp(true, b"x");
        packet[8..24].fill(0);
        assert!(!answered(&packet));
    }
}
