//! What arrives on the one UDP port: WireGuard, STUN, or a frame of ours?
//!
//! Owns: telling datagrams apart by their first bytes, and the layout of our own frames (see docs/wire.md). RFC
//! 9443 is the pattern: every protocol keeps a range of first bytes to itself.

pub mod connect;
pub mod control;
pub mod enrol;
pub mod part;
pub mod stream;

use crate::locator::Channel;

/// First byte of a relay frame.
pub const RELAY: u8 = 0x10;
/// First byte of a knock that comes straight to its addressee.
pub const KNOCK: u8 = 0x11;
/// First byte of an enrolment request.
pub const ENROL_REQUEST: u8 = 0x12;
/// First byte of an enrolment answer.
pub const ENROL_ANSWER: u8 = 0x13;
/// First byte of "I do not know this session or channel".
pub const STRANGER: u8 = 0x14;
/// Version of our frames, the second byte.
pub const VERSION: u8 = 1;

/// Header of a relay frame: `0x10 ‖ version ‖ 0 ‖ 0 ‖ 0 (4) ‖ channel (8, big endian)`.
pub const RELAY_HEADER: usize = 16;
/// Header of every other frame: first byte, version, two zero bytes.
pub const FRAME_HEADER: usize = 4;

/// The magic cookie of RFC 8489, section 5.
const STUN_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// A WireGuard message (WireGuard paper, section 5.4), told by type and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wireguard {
    /// Handshake initiation, 148 bytes.
    Initiation,
    /// Handshake response or cookie reply for the receiver index.
    Answer(u32),
    /// Transport data for the receiver index.
    Data(u32),
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A WireGuard message, the whole datagram.
    Wireguard(Wireguard),
    /// A STUN message, the whole datagram.
    Stun,
    /// Something sealed between two others, or between another and us.
    Relay(Channel, &'a [u8]),
    /// A sealed knock.
    Knock(&'a [u8]),
    /// A sealed request to this login server.
    EnrolRequest(&'a [u8]),
    /// A sealed answer from a login server.
    EnrolAnswer(&'a [u8]),
    /// The sender does not know the session or channel that we used. Unauthenticated: a hint, no more.
    Stranger,
}

/// Tell what `datagram` is; `None` if it is nothing we know.
#[must_use]
pub fn classify(datagram: &[u8]) -> Option<Frame<'_>> {
    match datagram {
        [1..=4, 0, 0, 0, ..] => wireguard(datagram).map(Frame::Wireguard),
        [0 | 1, _, _, _, cookie @ ..] if cookie.starts_with(&STUN_COOKIE) => Some(Frame::Stun),
        [0, 1, high, low, ..] if is_classic_stun(datagram.len(), [*high, *low]) => Some(Frame::Stun),
        [RELAY, VERSION, 0, 0, 0, 0, 0, 0, rest @ ..] => {
            let (channel, inner) = rest.split_first_chunk::<8>()?;
            Some(Frame::Relay(Channel(u64::from_be_bytes(*channel)), inner))
        }
        [KNOCK, VERSION, 0, 0, sealed @ ..] => Some(Frame::Knock(sealed)),
        [ENROL_REQUEST, VERSION, 0, 0, sealed @ ..] => Some(Frame::EnrolRequest(sealed)),
        [ENROL_ANSWER, VERSION, 0, 0, sealed @ ..] => Some(Frame::EnrolAnswer(sealed)),
        [STRANGER, VERSION, 0, 0] => Some(Frame::Stranger),
        _ => None,
    }
}

/// A binding request of RFC 3489, section 11.1, which had no cookie: stock clients still send it.
const fn is_classic_stun(datagram: usize, length: [u8; 2]) -> bool {
    datagram == 20 + u16::from_be_bytes(length) as usize
}

fn wireguard(datagram: &[u8]) -> Option<Wireguard> {
    let index = |at: usize| datagram.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    match (datagram[0], datagram.len()) {
        (1, 148) => Some(Wireguard::Initiation),
        (2, 92) => index(8).map(Wireguard::Answer),
        (3, 64) => index(4).map(Wireguard::Answer),
        (4, 32..) => index(4).map(Wireguard::Data),
        _ => None,
    }
}

/// The header in front of everything that travels through `channel`; never rewritten on the way.
#[must_use]
pub const fn relay_header(channel: Channel) -> [u8; RELAY_HEADER] {
    let c = channel.0.to_be_bytes();
    [RELAY, VERSION, 0, 0, 0, 0, 0, 0, c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]
}

/// A frame of ours that is not a relay frame.
#[must_use]
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEADER + body.len());
    bytes.extend([kind, VERSION, 0, 0]);
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests;
