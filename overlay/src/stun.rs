//! The STUN server of a node: "this is where I see you".
//!
//! Owns: binding requests and their answers (RFC 8489), and as much of RFC 3489 as clients that know no better
//! need. Pure: bytes in, bytes out. Never: credentials, a second address, an answer to what is no request.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::Attribute;
use stun_codec::rfc5389::attributes::{ErrorCode, MappedAddress, UnknownAttributes, XorMappedAddress};
use stun_codec::rfc5389::errors::UnknownAttribute;
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::{Attribute as _, AttributeType, Message, MessageClass, MessageDecoder, MessageEncoder};

/// Longer requests have nothing to say to us: RFC 8489, section 6.1, keeps a message below 548 bytes over IPv4.
const MAX_REQUEST: usize = 548;

/// Type, length, cookie, transaction ID.
const HEADER: usize = 20;

/// RFC 8489, section 5.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// Types below this one must be understood by whoever answers (RFC 8489, section 14).
const OPTIONAL: u16 = 0x8000;

/// RFC 3489, section 11.2.4: "answer from another address or port". Its value is four bytes of flags.
const CHANGE_REQUEST: u16 = 0x0003;

/// Unknown attributes that an error names; more are a joke, and would make the answer longer than the question.
const MAX_NAMED: usize = 4;

/// The answer to `datagram`, which came from `from`; `None` if it deserves none.
///
/// A success is 12 or 24 bytes longer than the shortest request (24 or 48 for clients of RFC 3489). A request to be
/// answered from another address stays unanswered: an answer from this one would tell the client that its NAT
/// lets strangers in.
#[must_use]
pub fn respond(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    if datagram.len() > MAX_REQUEST {
        return None;
    }
    if is_classic(datagram) {
        return respond_classic(datagram, from);
    }
    let request = MessageDecoder::<Attribute>::new().decode_from_bytes(datagram).ok()?.ok()?;
    respond_decoded(&request, from, false)
}

/// Whether a STUN message answers a request: the upper bit of its class (RFC 8489, section 5).
#[must_use]
pub fn is_answer(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 1 == 1)
}

/// Whether this is a binding request of RFC 3489, section 11.1: no magic cookie, and a length that fits.
#[must_use]
pub fn is_classic(datagram: &[u8]) -> bool {
    match datagram {
        [0, 1, high, low, cookie @ ..] => {
            usize::from(u16::from_be_bytes([*high, *low])) + HEADER == datagram.len()
                && !cookie.starts_with(&COOKIE)
        }
        _ => false,
    }
}

/// The 16 bytes of an RFC 3489 transaction ID stand where cookie and ID stand later; apart from that the message is
/// the same, so the codec gets it with a cookie, and the answer gets the client's bytes back.
fn respond_classic(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let mut modern = datagram.to_vec();
    modern[4..8].copy_from_slice(&COOKIE);
    let request = MessageDecoder::<Attribute>::new().decode_from_bytes(&modern).ok()?.ok()?;
    let mut answer = respond_decoded(&request, from, true)?;
    answer[4..8].copy_from_slice(&datagram[4..8]);
    Some(answer)
}

fn respond_decoded(request: &Message<Attribute>, from: SocketAddr, classic: bool) -> Option<Vec<u8>> {
    if request.class() != MessageClass::Request || request.method() != BINDING {
        return None;
    }
    let mut old_style = false;
    let mut unknown: Vec<AttributeType> = Vec::new();
    for attribute in request.unknown_attributes() {
        match attribute.get_type().as_u16() {
            CHANGE_REQUEST if attribute.value().iter().all(|flags| *flags == 0) => old_style = true,
            CHANGE_REQUEST => return None,
            optional if optional >= OPTIONAL => {}
            _ => unknown.push(attribute.get_type()),
        }
    }
    if !unknown.is_empty() {
        return refuse(request, unknown);
    }
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut answer =
        Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, request.transaction_id());
    if !classic {
        answer.add_attribute(XorMappedAddress::new(from));
    }
    if classic || old_style {
        answer.add_attribute(MappedAddress::new(from));
    }
    MessageEncoder::new().encode_into_bytes(answer).ok()
}

/// RFC 8489, section 6.3.1: error 420 names what was not understood.
fn refuse(request: &Message<Attribute>, unknown: Vec<AttributeType>) -> Option<Vec<u8>> {
    if unknown.len() > MAX_NAMED {
        return None;
    }
    let mut answer =
        Message::<Attribute>::new(MessageClass::ErrorResponse, BINDING, request.transaction_id());
    answer.add_attribute(ErrorCode::from(UnknownAttribute));
    answer.add_attribute(UnknownAttributes::new(unknown));
    MessageEncoder::new().encode_into_bytes(answer).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 12] = [7; 12];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, u8::try_from(attributes.len()).unwrap(), 0x21, 0x12, 0xa4, 0x42];
        bytes.extend(ID);
        bytes.extend(attributes);
        bytes
    }

    fn from() -> SocketAddr {
        "192.0.2.1:32853".parse().unwrap()
    }

    #[test]
    fn a_bare_request_is_answered_with_where_it_came_from() {
        let answer = respond(&request(&[]), from()).unwrap();
        let mut expected = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
        expected.extend(ID);
        // The address and port of RFC 5769, section 2.2, XORed with the cookie.
        expected.extend([0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(answer, expected);
    }

    #[test]
    fn an_ipv6_client_on_a_mapped_address_is_told_its_ipv4_one() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:32853".parse().unwrap();
        assert_eq!(respond(&request(&[]), mapped), respond(&request(&[]), from()));
        assert_eq!(respond(&request(&[]), "[2001:db8::1]:1".parse().unwrap()).unwrap().len(), 44);
    }

    #[test]
    fn old_clients_also_get_the_plain_address() {
        let answer = respond(&request(&[0, 3, 0, 4, 0, 0, 0, 0]), from()).unwrap();
        let plain = [0, 1, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1];
        assert!(answer.windows(plain.len()).any(|part| part == plain), "{answer:x?}");
    }

    #[test]
    fn what_cannot_be_done_is_not_answered() {
        assert_eq!(respond(&request(&[0, 3, 0, 4, 0, 0, 0, 6]), from()), None, "change of address and port");
        let mut indication = request(&[]);
        indication[1] = 0x11;
        assert_eq!(respond(&indication, from()), None);
        let answer = respond(&request(&[]), from()).unwrap();
        assert_eq!(respond(&answer, from()), None, "an answer is never answered");
        assert_eq!(respond(&vec![0; 2000], from()), None);
    }

    #[test]
    fn unknown_attributes_that_must_be_understood_are_refused_by_name() {
        let answer = respond(&request(&[0x7f, 0xff, 0, 0]), from()).unwrap();
        assert_eq!(answer[..2], [0x01, 0x11]);
        assert!(answer.windows(6).any(|part| part == [0, 0x0a, 0, 2, 0x7f, 0xff]), "{answer:x?}");
        let ignored = respond(&request(&[0xff, 0xff, 0, 0]), from()).unwrap();
        assert_eq!(ignored[..2], [1, 1]);
        let many: Vec<u8> = (0..60_u8).flat_map(|n| [0x7f, n, 0, 0]).collect();
        assert_eq!(respond(&request(&many), from()), None);
    }

    #[test]
    fn clients_without_a_cookie_get_their_own_id_and_the_plain_address() {
        let mut asked = request(&[0, 3, 0, 4, 0, 0, 0, 0]);
        asked[4..8].copy_from_slice(&[9, 8, 7, 6]);
        let answer = respond(&asked, from()).unwrap();
        assert_eq!(answer[4..20], asked[4..20]);
        assert_eq!(answer[20..], [0, 1, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1]);
        asked.pop();
        assert!(!is_classic(&asked), "the length tells it from garbage");
    }

    proptest! {
        #[test]
        fn attributes_that_the_codec_knows_do_not_panic_either(
            attributes in prop::collection::vec((0_usize..24, prop::collection::vec(any::<u8>(), 0..40), 0_u8..4), 1..6)
        ) {
            // Those of RFC 8489, section 18.3, of RFC 3489, section 11.2, and two that nobody knows.
            const TYPES: [u16; 24] = [
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x14, 0x15, 0x1c, 0x1d, 0x1e, 0x20, 0x8002, 0x8003, 0x8022,
                0x8023, 0x8028, 0x7fff, 0xffff,
            ];
            let mut body = Vec::new();
            for (kind, mut value, lie) in attributes {
                let length = u16::try_from(value.len()).unwrap().saturating_sub(u16::from(lie) / 3);
                body.extend(TYPES[kind].to_be_bytes());
                body.extend(length.to_be_bytes());
                value.resize(value.len().next_multiple_of(4), 0);
                body.extend(value);
            }
            let mut datagram = vec![0, 1];
            datagram.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            datagram.extend(COOKIE);
            datagram.extend(ID);
            datagram.extend(body);
            if let Some(answer) = respond(&datagram, from()) {
                prop_assert!(answer.len() <= datagram.len() + 60);
            }
        }

        #[test]
        fn nothing_panics_and_no_answer_is_much_longer(
            mut datagram in prop::collection::vec(any::<u8>(), 0..600), plausible: bool
        ) {
            if plausible && datagram.len() >= 20 {
                let length = u16::try_from(datagram.len() - 20).unwrap().to_be_bytes();
                datagram[..8].copy_from_slice(&[0, 1, length[0], length[1], 0x21, 0x12, 0xa4, 0x42]);
            }
            if let Some(answer) = respond(&datagram, "[2001:db8::1]:1".parse().unwrap()) {
                prop_assert!(answer.len() <= datagram.len() + 60);
            }
        }
    }
}
