//! Which attributes of STUN messages (RFC 8489, section 14) are read from whom, and which are written.
//!
//! Owns: the sets, and the way through the library's codec. What is in no set arrives undecoded, so that a
//! malformed value that nobody asked for spoils nothing. Never: what a message means.

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::attributes::{
    ErrorCode, MappedAddress, MessageIntegrity, Nonce, Realm, Software, UnknownAttributes, Username,
    XorMappedAddress,
};
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::{
    Attribute, AttributeType, Message, MessageDecoder, MessageEncoder, RawAttribute, define_attribute_enums,
};

use super::HEADER;
use super::legacy::{AlternatePort, ChangeRequest, ChangedAddress, Padding, ResponsePort, SourceAddress};

// What a request may ask for. Padding means nothing to us, since our answers are never fragmented.
define_attribute_enums!(
    Asked,
    AskedDecoder,
    AskedEncoder,
    [ChangeRequest, AlternatePort, Padding, ResponsePort]
);

// What is read in an answer.
define_attribute_enums!(Told, ToldDecoder, ToldEncoder, [XorMappedAddress, MappedAddress, AlternatePort]);

// What we write.
define_attribute_enums!(
    Written,
    WrittenDecoder,
    WrittenEncoder,
    [
        XorMappedAddress,
        MappedAddress,
        ResponseOrigin,
        OtherAddress,
        SourceAddress,
        ChangedAddress,
        AlternatePort,
        ErrorCode,
        UnknownAttributes,
        Software
    ]
);

/// More than any client or server sends: an ICE check, the longest request in use, has about eight.
const MAX_ATTRIBUTES: usize = 16;

/// We ask for no credentials, so they may be there.
const CREDENTIALS: [u16; 4] =
    [Username::CODEPOINT, MessageIntegrity::CODEPOINT, Realm::CODEPOINT, Nonce::CODEPOINT];

/// The attributes for which a request can't be answered: those that nobody knows (RFC 8489, section 14: types that must be
/// understood).
pub(super) fn not_understood(request: &Message<Asked>) -> Vec<AttributeType> {
    let kinds = request.unknown_attributes().map(RawAttribute::get_type);
    kinds.filter(|kind| kind.is_comprehension_required() && !CREDENTIALS.contains(&kind.as_u16())).collect()
}

/// Read a message of this type; `None` if it is another, or not whole, or has too many attributes.
///
/// Type and number are looked at first because the library allocates for every attribute and every error: a request
/// full of empty attributes would cost as much as forty honest ones.
pub(super) fn decode<A: Attribute>(kind: u16, datagram: &[u8]) -> Option<Message<A>> {
    if !datagram.starts_with(&kind.to_be_bytes()) || !has_few_attributes(datagram) {
        return None;
    }
    MessageDecoder::new().decode_from_bytes(datagram).ok()?.ok()
}

fn has_few_attributes(datagram: &[u8]) -> bool {
    let mut rest = datagram.get(HEADER..).unwrap_or_default();
    for _ in 0..MAX_ATTRIBUTES {
        let Some((head, value)) = rest.split_first_chunk::<4>() else { return true };
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        rest = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Write a message of ours.
pub(super) fn encode(message: Message<Written>) -> Vec<u8> {
    MessageEncoder::new().encode_into_bytes(message).expect("a few attributes fit a message")
}

#[cfg(test)]
mod tests {
    use stun_codec::MessageClass;

    use super::super::Answer;
    use super::*;

    /// A binding request whose header says that `length` bytes follow.
    fn request(length: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        bytes.extend(body);
        bytes
    }

    fn is_read(length: u16, body: &[u8]) -> bool {
        decode::<Asked>(1, &request(length, body)).is_some()
    }

    #[test]
    fn lengths_that_lie_are_not_believed() {
        const BODY: [u8; 16] = [0x80, 0x22, 0, 3, 7, 7, 7, 0, 0, 3, 0, 4, 0, 0, 0, 2];
        assert!(is_read(16, &BODY));
        for length in (0..64).chain([u16::MAX - 3, u16::MAX]).filter(|length| *length != 16) {
            assert!(!is_read(length, &BODY), "a message of {length}");
        }
        for at in [3, 11] {
            for length in (0..=u8::MAX).filter(|length| length.div_ceil(4) != 1) {
                let mut body = BODY;
                body[at] = length;
                // The first attribute may lawfully be shorter or take in all of the second, and so end where the body does.
                let whole = at == 3 && (9..=12).contains(&length);
                assert_eq!(is_read(16, &body), whole, "an attribute of {length} at {at}");
            }
        }
        for end in 0..16 {
            assert_eq!(is_read(end, &BODY[..usize::from(end)]), [0, 8].contains(&end), "{end} bytes");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_decoded() {
        // XOR-MAPPED-ADDRESS, USERNAME and SOFTWARE, none of which could be read.
        let body = [0, 0x20, 0, 1, 9, 0, 0, 0, 0, 6, 0, 1, 0xff, 0, 0, 0, 0x80, 0x22, 0, 1, 0xff, 0, 0, 0];
        let message = decode::<Asked>(1, &request(24, &body)).unwrap();
        assert_eq!(
            not_understood(&message),
            [AttributeType::new(0x20)],
            "an address has no place in a request"
        );
    }

    #[test]
    fn a_port_that_is_no_number_spoils_no_answer() {
        for (value, expected) in
            [(&[0xca, 0x96][..], Some(51862)), (&[], None), (&[1], None), (&[0; 4], None)]
        {
            let mut message = super::super::message(MessageClass::SuccessResponse, [7; 12]);
            message.add_attribute(MappedAddress::new("192.0.2.1:1".parse().unwrap()));
            message.add_attribute(AlternatePort::new(value.to_vec()));
            assert_eq!(Answer::read(&encode(message)).unwrap().alternate, expected, "{value:?}");
        }
    }

    #[test]
    fn sixteen_attributes_are_enough() {
        for (count, padded) in [(0, 0_u16), (15, 1000), (16, 0), (17, 0), (16, 4), (300, 0)] {
            let mut body = [0x80, 0x22, 0, 0].repeat(count);
            if padded > 0 {
                body.extend([0, 0x26, (padded >> 8) as u8, padded as u8]);
                body.extend(vec![0; usize::from(padded)]);
            }
            let total = count + usize::from(padded > 0);
            assert_eq!(is_read(u16::try_from(body.len()).unwrap(), &body), total <= 16, "{total}");
        }
    }

    #[test]
    fn a_malformed_change_request_is_no_request() {
        assert!(!is_read(4, &[0, 3, 0, 0]));
        assert!(!is_read(8, &[0, 3, 0, 2, 0, 0, 0, 0]));
        assert!(!is_read(12, &[0, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
}
