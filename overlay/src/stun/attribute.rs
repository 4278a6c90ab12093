//! Attributes of STUN messages (RFC 8489, section 14): type, length, value, and zeros up to a multiple of four.
//!
//! Owns: their numbers and layout. Never: what a message means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{COOKIE, HEADER, Transaction};

/// Numbers of attributes.
pub(super) mod kind {
    /// RFC 8489, section 14.1.
    pub(crate) const MAPPED_ADDRESS: u16 = 0x0001;
    /// RFC 5780, section 7.2.
    pub(crate) const CHANGE_REQUEST: u16 = 0x0003;
    /// RFC 3489, section 11.2.5.
    pub(crate) const SOURCE_ADDRESS: u16 = 0x0004;
    /// RFC 3489, section 11.2.3.
    pub(crate) const CHANGED_ADDRESS: u16 = 0x0005;
    /// RFC 8489, section 14.8.
    pub(crate) const ERROR_CODE: u16 = 0x0009;
    /// RFC 8489, section 14.13.
    pub(crate) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// RFC 8489, section 14.2.
    pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// RFC 5780, section 7.6: nothing to us, since our answers are never fragmented.
    pub(crate) const PADDING: u16 = 0x0026;
    /// RFC 8489, section 14.14.
    pub(crate) const SOFTWARE: u16 = 0x8022;
    /// RFC 5780, section 7.3.
    pub(crate) const RESPONSE_ORIGIN: u16 = 0x802b;
    /// RFC 5780, section 7.4.
    pub(crate) const OTHER_ADDRESS: u16 = 0x802c;
    /// Ours: in a request, empty, "which is your other port?"; in an answer, its number. Whoever does not know it skips it.
    pub(crate) const ALTERNATE_PORT: u16 = 0xf0f5;
    /// USERNAME, MESSAGE-INTEGRITY, REALM and NONCE: we ask for no credentials, so they may be there.
    pub(crate) const CREDENTIALS: [u16; 4] = [0x0006, 0x0008, 0x0014, 0x0015];
}

/// Types below this one must be understood by whoever answers (RFC 8489, section 14).
const OPTIONAL: u16 = 0x8000;

/// Whether a request with this attribute can't be answered: RESPONSE-PORT, which would send the answer to somebody else,
/// and everything that nobody knows.
pub(super) fn must_be_known(kind: u16) -> bool {
    kind < OPTIONAL && kind != kind::PADDING && !kind::CREDENTIALS.contains(&kind)
}

/// The attributes of a message's body: type and value.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    }
}

/// Whether the body consists of whole attributes.
pub(super) fn is_sound(body: &[u8]) -> bool {
    let length = Attributes(body).map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum::<usize>();
    length == body.len()
}

/// Append an attribute.
pub(super) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("our own attributes are short");
    bytes.extend(kind.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Append an address; `bytes` begins with the message's header.
pub(super) fn put_address(bytes: &mut Vec<u8>, kind: u16, at: SocketAddr) {
    let mut value = vec![0, if at.is_ipv4() { 1 } else { 2 }];
    value.extend(at.port().to_be_bytes());
    match at.ip() {
        IpAddr::V4(v4) => value.extend(v4.octets()),
        IpAddr::V6(v6) => value.extend(v6.octets()),
    }
    if kind == kind::XOR_MAPPED_ADDRESS {
        let transaction = bytes[HEADER - 12..HEADER].try_into().expect("twelve bytes");
        veil(&mut value, &transaction);
    }
    put(bytes, kind, &value);
}

/// Read an address.
pub(super) fn read_address(kind: u16, value: &[u8], transaction: &Transaction) -> Option<SocketAddr> {
    let mut value = value.to_vec();
    if kind == kind::XOR_MAPPED_ADDRESS && value.len() > 4 {
        veil(&mut value, transaction);
    }
    let (head, address) = value.split_first_chunk::<4>()?;
    let ip: IpAddr = match head[1] {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        2 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([head[2], head[3]])))
}

/// RFC 8489, section 14.2: port and address XORed with cookie and transaction, there and back.
fn veil(value: &mut [u8], transaction: &Transaction) {
    let key = COOKIE.iter().chain(transaction);
    value[4..].iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    value[2..4].iter_mut().zip(COOKIE).for_each(|(byte, key)| *byte ^= key);
}
