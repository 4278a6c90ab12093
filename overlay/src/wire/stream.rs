//! Datagrams in a stream: what TCP and TLS carry where UDP does not pass.
//!
//! Owns: the preface that both sides begin with, and the header in front of each record (see docs/wire.md). Never: a
//! buffer, or what the datagrams say.
//!
//! A record is a run of datagrams of one size, as [`crate::forward`] sends them over UDP: `length (2) ‖ stride (2) ‖
//! datagrams`, both numbers big endian; the last datagram may be shorter than the stride.

/// What each side sends first, once: a name and the version of the records. Whoever hears something else closes.
pub const PREFACE: [u8; 8] = *b"frejus\x00\x01";

/// Bytes in front of every record.
pub const HEADER: usize = 4;

/// The longest run: what one UDP receive can yield.
pub const MAX: usize = u16::MAX as usize;

/// Runs are data messages of WireGuard, of which the shortest (a keepalive) has 32 bytes; so a record holds 2048
/// datagrams at most, whatever its sender says.
pub const MIN_STRIDE: usize = 32;

/// The beginning of a record: that of a run of `length` bytes in datagrams of `stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    length: u16,
    stride: u16,
}

impl Header {
    /// For a run of `length` bytes in datagrams of `stride` bytes, the last maybe shorter; `None` if no record can hold
    /// that. A stride beyond the length means one datagram.
    #[must_use]
    pub fn new(length: usize, stride: usize) -> Option<Self> {
        let stride = stride.min(length);
        let fits = stride > 0 && (stride == length || stride >= MIN_STRIDE);
        let length = u16::try_from(length).ok().filter(|_| fits)?;
        Some(Self { length, stride: u16::try_from(stride).ok()? })
    }

    /// As a stream carries it; `None` if it is not one of ours, and the stream is out of step for good.
    #[must_use]
    pub fn decode(bytes: [u8; HEADER]) -> Option<Self> {
        let [a, b, c, d] = bytes;
        let (length, stride) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Self::new(length.into(), stride.into()).filter(|header| header.stride == stride)
    }

    /// For the wire.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER] {
        let ([a, b], [c, d]) = (self.length.to_be_bytes(), self.stride.to_be_bytes());
        [a, b, c, d]
    }

    /// Of all datagrams together, in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        self.length as usize
    }

    /// Of every datagram but the last, in bytes.
    #[must_use]
    pub const fn stride(self) -> usize {
        self.stride as usize
    }

    /// How many datagrams there are.
    #[must_use]
    pub const fn datagrams(self) -> u64 {
        self.length.div_ceil(self.stride) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for (length, stride, datagrams) in
            [(1, 1, 1), (148, 148, 1), (65_535, 1312, 50), (2624, 1312, 2), (64, 32, 2)]
        {
            let header = Header::new(length, stride).unwrap();
            assert_eq!(Header::decode(header.encode()), Some(header));
            assert_eq!((header.length(), header.stride(), header.datagrams()), (length, stride, datagrams));
        }
        assert_eq!(Header::new(100, 200), Header::new(100, 100), "one datagram");
    }

    #[test]
    fn nothing_else_is_a_header() {
        for (length, stride) in [(0, 0), (0, 7), (65_536, 1312), (100, 31), (100, 0)] {
            assert_eq!(Header::new(length, stride), None, "{length} by {stride}");
        }
        for bytes in [[0, 0, 0, 0], [0, 100, 0, 101], [0, 100, 0, 31], [0, 100, 0, 0], *b"HTTP"] {
            assert_eq!(Header::decode(bytes), None, "{bytes:?}");
        }
    }
}
