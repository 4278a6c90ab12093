//! IP packets as they travel inside the tunnel: checked once, trusted afterwards.
//!
//! Owns: [`IpPacket`] and what may be wrong with a packet. Below it: checksums, the header of the TUN device,
//! cutting and joining of super-packets, control datagrams, ICMP errors, ECN. Nothing here allocates for a packet,
//! and no input makes it panic. Never: looks an address up, or decides where a packet goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod fragment;
pub mod icmp;
pub mod partial;
pub mod segment;
pub mod udp6;
pub mod vnet;

#[cfg(test)]
mod tests;

/// The longest packet there is, in bytes: IPv4's total length has 16 bits, and a TUN device gives no jumbograms.
pub const MAX_PACKET: usize = 65_535;

pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const IPV6_HEADER: usize = 40;
pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const UDP_HEADER: usize = 8;

/// Protocol numbers that matter here (IANA, "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 Routing Header.
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment Header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication Header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 Destination Options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// No byte at all.
    #[error("empty packet")]
    Empty,
    /// Neither IPv4 nor IPv6.
    #[error("neither IPv4 nor IPv6")]
    Version,
    /// Shorter than its header, or than the length that its header claims.
    #[error("truncated packet")]
    Truncated,
    /// A header length below the minimum or beyond the packet.
    #[error("header length out of range")]
    HeaderLength,
    /// A total length below the header's, or beyond 65,535 bytes.
    #[error("total length out of range")]
    TotalLength,
    /// The TUN device asks for a segmentation that does not fit the packet.
    #[error("segmentation does not fit the packet")]
    Segmentation,
    /// The TUN device asks for a checksum outside the packet's transport part.
    #[error("checksum field out of range")]
    Checksum,
    /// The buffer that the caller gave is too short.
    #[error("no room in the output buffer")]
    NoRoom,
}

/// A packet whose version, header length and total length were checked against the bytes at hand.
#[derive(Clone, Copy, Debug)]
pub struct IpPacket<'a> {
    /// Exactly the packet: bytes behind its total length are cut off.
    bytes: &'a [u8],
    /// Length of the IPv4 header with options, or of the fixed IPv6 header.
    header: usize,
}

/// The unfragmented TCP or UDP packet that stands right behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Where its header begins, in bytes from the start of the packet.
    pub start: usize,
    /// Where its payload begins, in bytes from the start of the packet.
    pub payload: usize,
}

/// What stands behind all IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpperLayer {
    pub(crate) protocol: u8,
    pub(crate) start: usize,
    /// A fragment, first ones included.
    pub(crate) fragment: bool,
    /// Behind a routing header: the pseudo header has another destination.
    pub(crate) routed: bool,
}

impl<'a> IpPacket<'a> {
    /// Checks the fixed part of the header. Bytes behind the packet's own length are ignored, since WireGuard
    /// pads.
    ///
    /// # Errors
    /// [`Malformed`], by what is wrong; nothing behind the IP header is looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let first = bytes.first().ok_or(Malformed::Empty)?;
        let (header, total) = match first >> 4 {
            4 => lengths_v4(bytes)?,
            6 => lengths_v6(bytes)?,
            _ => return Err(Malformed::Version),
        };
        if total > MAX_PACKET {
            return Err(Malformed::TotalLength);
        }
        let bytes = bytes.get(..total).ok_or(Malformed::Truncated)?;
        Ok(Self { bytes, header })
    }

    /// The whole packet.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// 4 or 6.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.bytes[0] >> 4
    }

    /// Whether this is IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.version() == 6
    }

    /// Length of the IPv4 header with its options, or of the fixed IPv6 header, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        if self.is_v6() { self.v6_at(8) } else { self.v4_at(12) }
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        if self.is_v6() { self.v6_at(24) } else { self.v4_at(16) }
    }

    /// IPv4: the protocol. IPv6: the first next-header, whatever it is.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        if self.is_v6() { self.bytes[6] } else { self.bytes[9] }
    }

    /// The two bits of RFC 3168.
    #[must_use]
    pub fn ecn(&self) -> ecn::Ecn {
        ecn::Ecn::from_bits(self.traffic_class())
    }

    /// The six bits of RFC 2474.
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.traffic_class() >> 2
    }

    /// What stands behind the IPv4 header, or behind the fixed IPv6 header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }

    /// The TCP or UDP packet inside, if it is whole, unfragmented and right behind the IP header.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        if !self.is_v6() && self.v4_fragment() {
            return None;
        }
        transport_at(self.bytes, self.protocol(), self.header)
    }

    /// Source and destination port of an unfragmented TCP or UDP packet.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        let Transport { start, .. } = self.transport()?;
        Some((word(self.bytes, start), word(self.bytes, start + 2)))
    }

    /// Source and destination as they stand in the header: what a pseudo header begins with.
    #[must_use]
    pub(crate) fn addresses(&self) -> &'a [u8] {
        if self.is_v6() { &self.bytes[8..40] } else { &self.bytes[12..20] }
    }

    /// IPv4's Type of Service, IPv6's Traffic Class.
    #[must_use]
    pub(crate) fn traffic_class(&self) -> u8 {
        if self.is_v6() { self.bytes[0] << 4 | self.bytes[1] >> 4 } else { self.bytes[1] }
    }

    /// Walks the extension headers of IPv6; `None` for fragments other than the first, for headers that end
    /// outside the packet, and for chains longer than anything honest.
    pub(crate) fn upper_layer(&self) -> Option<UpperLayer> {
        if !self.is_v6() {
            let later = word(self.bytes, 6) & 0x1fff != 0;
            let upper = UpperLayer {
                protocol: self.protocol(),
                start: self.header,
                fragment: self.v4_fragment(),
                routed: false,
            };
            return (!later).then_some(upper);
        }
        self.upper_layer_v6()
    }

    fn upper_layer_v6(&self) -> Option<UpperLayer> {
        /// RFC 8200, section 4.1 lists seven, one of which may stand twice.
        const LONGEST_CHAIN: usize = 8;
        let mut upper =
            UpperLayer { protocol: self.protocol(), start: self.header, fragment: false, routed: false };
        for _ in 0..=LONGEST_CHAIN {
            let unit = match upper.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => 8,
                protocol::AUTHENTICATION => 4,
                protocol::FRAGMENT => 0,
                _ => return Some(upper),
            };
            let [next, length, offset, flags] = *self.bytes.get(upper.start..)?.first_chunk::<4>()?;
            if upper.protocol == protocol::FRAGMENT {
                if u16::from_be_bytes([offset, flags]) & 0xfff8 != 0 {
                    return None;
                }
                upper.fragment = true;
            }
            upper.routed |= upper.protocol == protocol::ROUTING;
            upper.protocol = next;
            upper.start += 8 + unit * usize::from(length);
        }
        None
    }

    /// More Fragments set, or an offset other than zero.
    fn v4_fragment(&self) -> bool {
        word(self.bytes, 6) & 0x3fff != 0
    }

    fn v4_at(&self, at: usize) -> IpAddr {
        let octets: [u8; 4] = *self.bytes[at..].first_chunk().expect("inside the checked header");
        Ipv4Addr::from(octets).into()
    }

    fn v6_at(&self, at: usize) -> IpAddr {
        let octets: [u8; 16] = *self.bytes[at..].first_chunk().expect("inside the checked header");
        Ipv6Addr::from(octets).into()
    }
}

fn lengths_v4(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    if bytes.len() < IPV4_HEADER {
        return Err(Malformed::Truncated);
    }
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(word(bytes, 2));
    if header < IPV4_HEADER {
        return Err(Malformed::HeaderLength);
    }
    if total < header {
        return Err(Malformed::TotalLength);
    }
    Ok((header, total))
}

fn lengths_v6(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
    if bytes.len() < IPV6_HEADER {
        return Err(Malformed::Truncated);
    }
    Ok((IPV6_HEADER, IPV6_HEADER + usize::from(word(bytes, 4))))
}

/// The TCP or UDP header at `start`, if it is one and lies wholly in `bytes`.
pub(crate) fn transport_at(bytes: &[u8], protocol: u8, start: usize) -> Option<Transport> {
    let rest = bytes.get(start..)?;
    let length = match protocol {
        protocol::TCP => {
            let length = usize::from(*rest.get(12)? >> 4) * 4;
            if length < TCP_HEADER {
                return None;
            }
            length
        }
        protocol::UDP => UDP_HEADER,
        _ => return None,
    };
    (rest.len() >= length).then_some(Transport { protocol, start, payload: start + length })
}

/// The 16-bit number at `at`, which must lie in `bytes`.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at `at`, which must lie in `bytes`.
pub(crate) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

/// Writes a 16-bit number at `at`, which must lie in `bytes`.
pub(crate) fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a 32-bit number at `at`, which must lie in `bytes`.
pub(crate) fn put_long(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// A length of at most [`MAX_PACKET`] as the header field it goes into.
pub(crate) fn length_field(length: usize) -> u16 {
    u16::try_from(length).expect("packets are checked to be at most 65,535 bytes")
}

/// Recomputes the header checksum of the IPv4 packet in `bytes`, whose header is `header` bytes long.
pub(crate) fn seal_v4_header(bytes: &mut [u8], header: usize) {
    put_word(bytes, 10, 0);
    let sum = checksum::Sum::default().bytes(&bytes[..header]).checksum();
    put_word(bytes, 10, sum);
}
