//! Attributes that `stun_codec` lacks or misreads, and our own, on its codecs of values.
//!
//! Owns: their numbers and layout. Never: what a message means.

use std::net::SocketAddr;

use bytecodec::bytes::{BytesEncoder, RemainingBytesDecoder};
use bytecodec::fixnum::{U32beDecoder, U32beEncoder};
use bytecodec::{ByteCount, Decode, Encode, Eos, Result, SizedEncode, TryTaggedDecode};
use stun_codec::net::{SocketAddrDecoder, SocketAddrEncoder};
use stun_codec::{Attribute, AttributeType};

/// CHANGE-REQUEST (RFC 5780, section 7.2): flags. The library's own decoder looks for them one bit too low, so that it
/// takes "another port" for "another address" and never sees the latter.
pub(super) type ChangeRequest = Plain<0x0003, u32>;

/// SOURCE-ADDRESS (RFC 3489, section 11.2.5).
pub(super) type SourceAddress = Plain<0x0004, SocketAddr>;

/// CHANGED-ADDRESS (RFC 3489, section 11.2.3).
pub(super) type ChangedAddress = Plain<0x0005, SocketAddr>;

/// RESPONSE-PORT (RFC 5780, section 7.5): a number, and what some clients put behind it.
pub(super) type ResponsePort = Plain<0x0027, Vec<u8>>;

/// PADDING (RFC 5780, section 7.6).
pub(super) type Padding = Plain<0x0026, Vec<u8>>;

/// Ours: in a request, empty, "which is your other port?"; in an answer, its number. Whoever does not know it skips it.
pub(super) type AlternatePort = Plain<0xf0f5, Vec<u8>>;

/// An attribute that consists of one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plain<const TYPE: u16, V>(pub(super) V);

impl<const TYPE: u16, V> Plain<TYPE, V> {
    /// Its number.
    pub(super) const CODEPOINT: u16 = TYPE;

    /// With this value.
    pub(super) const fn new(value: V) -> Self {
        Self(value)
    }
}

/// What an attribute may consist of.
pub(super) trait Value: Clone {
    /// Reads it.
    type Decoder: Decode<Item = Self> + Default;
    /// Writes it.
    type Encoder: SizedEncode<Item = Self> + Default;
}

impl Value for u32 {
    type Decoder = U32beDecoder;
    type Encoder = U32beEncoder;
}

impl Value for SocketAddr {
    type Decoder = SocketAddrDecoder;
    type Encoder = SocketAddrEncoder;
}

impl Value for Vec<u8> {
    type Decoder = RemainingBytesDecoder;
    type Encoder = BytesEncoder;
}

impl<const TYPE: u16, V: Value> Attribute for Plain<TYPE, V> {
    type Decoder = PlainDecoder<TYPE, V::Decoder>;
    type Encoder = PlainEncoder<TYPE, V::Encoder>;

    fn get_type(&self) -> AttributeType {
        AttributeType::new(TYPE)
    }
}

/// Reads what `D` reads.
#[derive(Debug, Default)]
pub(super) struct PlainDecoder<const TYPE: u16, D>(D);

impl<const TYPE: u16, D: Decode> Decode for PlainDecoder<TYPE, D> {
    type Item = Plain<TYPE, D::Item>;

    fn decode(&mut self, buf: &[u8], eos: Eos) -> Result<usize> {
        self.0.decode(buf, eos)
    }

    fn finish_decoding(&mut self) -> Result<Self::Item> {
        self.0.finish_decoding().map(Plain)
    }

    fn requiring_bytes(&self) -> ByteCount {
        self.0.requiring_bytes()
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl<const TYPE: u16, D: Decode> TryTaggedDecode for PlainDecoder<TYPE, D> {
    type Tag = AttributeType;

    fn try_start_decoding(&mut self, tag: AttributeType) -> Result<bool> {
        Ok(tag.as_u16() == TYPE)
    }
}

/// Writes what `E` writes.
#[derive(Debug, Default)]
pub(super) struct PlainEncoder<const TYPE: u16, E>(E);

impl<const TYPE: u16, E: Encode> Encode for PlainEncoder<TYPE, E> {
    type Item = Plain<TYPE, E::Item>;

    fn encode(&mut self, buf: &mut [u8], eos: Eos) -> Result<usize> {
        self.0.encode(buf, eos)
    }

    fn start_encoding(&mut self, item: Self::Item) -> Result<()> {
        self.0.start_encoding(item.0)
    }

    fn requiring_bytes(&self) -> ByteCount {
        self.0.requiring_bytes()
    }

    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl<const TYPE: u16, E: SizedEncode> SizedEncode for PlainEncoder<TYPE, E> {
    fn exact_requiring_bytes(&self) -> u64 {
        self.0.exact_requiring_bytes()
    }
}

#[cfg(test)]
mod tests {
    use bytecodec::{DecodeExt, EncodeExt};
    use stun_codec::rfc5780::attributes::ChangeRequestDecoder;

    use super::*;

    fn written<A: Attribute>(attribute: A) -> Vec<u8> {
        A::Encoder::default().encode_into_bytes(attribute).unwrap()
    }

    fn read<A: Attribute>(value: &[u8]) -> Result<A> {
        A::Decoder::default().decode_from_bytes(value)
    }

    #[test]
    fn addresses_are_as_rfc_3489_draws_them() {
        let (v4, v6) = ("203.0.113.101:51860".parse().unwrap(), "[2001:db8::2]:51860".parse().unwrap());
        assert_eq!(written(SourceAddress::new(v4)), [0, 1, 0xca, 0x94, 203, 0, 113, 101]);
        assert_eq!(written(ChangedAddress::new(v6)).len(), 20);
        for at in [v4, v6] {
            assert_eq!(read::<SourceAddress>(&written(SourceAddress::new(at))).unwrap().0, at);
        }
        assert_eq!(SourceAddress::new(v4).get_type().as_u16(), SourceAddress::CODEPOINT);
    }

    #[test]
    fn values_of_the_wrong_length_are_errors() {
        for length in (0..40).filter(|length| ![8, 20].contains(length)) {
            for family in [0, 1, 2, 0xff] {
                let mut value = vec![0; length];
                value.iter_mut().skip(1).take(1).for_each(|byte| *byte = family);
                assert!(read::<ChangedAddress>(&value).is_err(), "{value:?}");
            }
        }
        for length in (0..9).filter(|length| *length != 4) {
            assert!(read::<ChangeRequest>(&vec![0; length]).is_err(), "{length}");
        }
    }

    #[test]
    fn padding_is_whatever_it_is() {
        for value in [&[][..], &[7; 5]] {
            assert_eq!(written(read::<Padding>(value).unwrap()), value);
        }
    }

    /// When this fails, the library has learnt it, and our own [`ChangeRequest`] may go.
    #[test]
    fn the_library_reads_the_flags_of_change_request_one_bit_too_low() {
        let theirs = |flags| ChangeRequestDecoder::new().decode_from_bytes(&[0, 0, 0, flags]).unwrap();
        assert!(!theirs(4).ip() && !theirs(4).port(), "another address is what 4 means");
        assert!(theirs(2).ip() && !theirs(2).port(), "another port is what 2 means");
        assert_eq!(read::<ChangeRequest>(&[0, 0, 0, 6]).unwrap(), ChangeRequest::new(6));
    }
}
