//! The Internet checksum (RFC 1071): sums over bytes, pseudo headers, and small repairs (RFC 1624).
//!
//! Owns: [`Sum`] and [`replace`]. Never: knows where in a packet a checksum lies.

/// A one's complement sum in the making; parts may be added in any order.
///
/// Words are added as this machine reads them and turned round once at the end: the sum is the same
/// (RFC 1071, section 2, B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The pseudo header of TCP, UDP and ICMPv6 (RFC 9293, section 3.1; RFC 8200, section 8.1).
    ///
    /// `addresses` are source and destination as they stand in the IP header, `length` that of the transport
    /// header and its payload.
    #[must_use]
    pub fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> Self {
        Self::default().words(addresses).word(u16::from(protocol)).number(length)
    }

    /// Adds bytes that begin at an even offset of what is summed; an odd last byte is padded with zero.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four independent 64-bit lanes of 32-bit words: the compiler makes vector code of it, and no carry is
        // lost below 2^34 bytes.
        let mut lanes = [0_u64; 4];
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            let (words, _) = chunk.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        let mut sum: u64 = lanes.iter().sum();
        sum += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
        sum += odd.iter().map(|last| u64::from(u16::from_ne_bytes([*last, 0]))).sum::<u64>();
        Self(self.0 + u64::from(fold(sum)))
    }

    /// Adds a few whole 32-bit words, such as addresses or an IPv4 header, which [`Self::bytes`] is too much for. Bytes
    /// that are left over are not added.
    #[must_use]
    pub fn words(self, bytes: &[u8]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        Self(words.iter().fold(self.0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word))))
    }

    /// Adds one 16-bit number.
    #[must_use]
    pub fn word(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.to_be()))
    }

    /// Adds a length as the 32-bit number that it is in the pseudo header of IPv6; for IPv4 it is the same, its
    /// upper half being zero.
    #[must_use]
    pub fn number(self, value: usize) -> Self {
        Self(self.0 + u64::from(u32::try_from(value).unwrap_or(u32::MAX).to_be()))
    }

    /// The sum itself, not complemented: what the kernel wants in the checksum field of a packet whose checksum
    /// it is to complete.
    #[must_use]
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.0))
    }

    /// The complement: what stands in a checksum field.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The complement where zero means "none", as in UDP (RFC 768): zero becomes 0xffff, which sums the same.
    #[must_use]
    pub fn checksum_nonzero(self) -> u16 {
        match self.checksum() {
            0 => u16::MAX,
            checksum => checksum,
        }
    }

    /// Whether the bytes summed, a checksum field among them, are intact.
    #[must_use]
    pub fn is_intact(self) -> bool {
        self.folded() == u16::MAX
    }
}

/// A checksum mended after one word under it changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::default().word(!checksum).word(!old).word(new).checksum()
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    u16::try_from(sum).expect("three foldings leave 16 of 33 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        bytes.chunks(2).fold(0, |sum: u32, pair| {
            let sum = sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            (sum & 0xffff) + (sum >> 16)
        }) as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(replace(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn all_ones_at_full_length() {
        assert_eq!(Sum::default().bytes(&[0xff; 65_535]).folded(), naive(&[0xff; 65_535]));
    }

    #[test]
    fn empty_udp_checksum_is_never_zero() {
        assert_eq!(Sum::default().word(u16::MAX).checksum_nonzero(), u16::MAX);
    }

    proptest! {
        #[test]
        fn words_and_numbers_are_short_ways(words in prop::collection::vec(any::<[u8; 4]>(), 0..16), number: u32) {
            let bytes = words.as_flattened();
            prop_assert_eq!(Sum::default().words(bytes).folded(), naive(bytes));
            let summed = Sum::default().words(bytes).number(number as usize).folded();
            prop_assert_eq!(summed, naive(&[bytes, &number.to_be_bytes()].concat()));
        }

        #[test]
        fn equals_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000), cut in 0_usize..3000) {
            let even = cut.min(bytes.len()) & !1;
            let sum = Sum::default().bytes(&bytes[even..]).bytes(&bytes[..even]);
            prop_assert_eq!(sum.folded(), naive(&bytes));
        }

        #[test]
        fn a_mended_checksum_is_the_recomputed_one(mut words in prop::collection::vec(any::<[u8; 2]>(), 2..40), new: u16) {
            let sum = |words: &[[u8; 2]]| Sum::default().bytes(words.as_flattened()).word(1).checksum();
            let before = sum(&words);
            let old = u16::from_be_bytes(words[1]);
            words[1] = new.to_be_bytes();
            prop_assert_eq!(replace(before, old, new), sum(&words));
        }
    }
}
