//! Transport checksums that are not computed yet: what a TUN device leaves to us, and we may leave to the receiver.
//!
//! Owns: [`Checksum`], and where the field of a packet stands that is to be filled in. Never: says to whom such a packet
//! may go; on the wire of the outer network nobody sees it, since the tunnel proves every byte.

use super::checksum::Sum;
use super::segment::{TCP_CHECKSUM, UDP_CHECKSUM};
use super::{IpPacket, Malformed, Transport, protocol, put_word};

/// How the checksum of TCP or UDP stands in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// As its sender made it.
    #[default]
    Complete,
    /// The field says nothing: the sum of pseudo header and transport part is to be put there.
    Partial,
}

/// Where the checksum stands, in bytes from the start of the transport header.
pub(crate) const fn offset(protocol: u8) -> usize {
    if protocol == protocol::TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
}

/// The sum of the pseudo header.
pub(crate) fn pseudo(packet: &IpPacket<'_>, transport: &Transport) -> Sum {
    Sum::pseudo(packet.addresses(), transport.protocol, packet.bytes().len() - transport.start)
}

/// Fills in the checksum of the packet at the front of `bytes`.
///
/// # Errors
/// [`Malformed`] if it is no packet; [`Malformed::Checksum`] if it is not TCP or UDP, whole, and right behind the IP
/// header.
pub fn complete(bytes: &mut [u8]) -> Result<(), Malformed> {
    let packet = IpPacket::parse(bytes)?;
    let (whole, transport) = (packet.bytes().len(), packet.transport().ok_or(Malformed::Checksum)?);
    let pseudo = pseudo(&packet, &transport);
    let part = &mut bytes[transport.start..whole];
    fill(part, transport.protocol, pseudo);
    Ok(())
}

/// Fills in the checksum of `part`, a transport header and its payload.
pub(crate) fn fill(part: &mut [u8], protocol: u8, pseudo: Sum) {
    let field = offset(protocol);
    put_word(part, field, 0);
    let sum = pseudo.bytes(part);
    // In UDP, and only there, zero would mean "no checksum".
    let tcp = protocol == protocol::TCP;
    put_word(part, field, if tcp { sum.checksum() } else { sum.checksum_nonzero() });
}
