//! The two ciphers, by ring.
//!
//! Owns: [`Key`], which seals or opens in place, and what one key may be used for ([`limit`]). Never: a counter.

use frejus_overlay::agreement::Cipher;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Length of a tag.
pub(crate) const TAG: usize = 16;
/// Length of a key.
pub(crate) const KEY: usize = 32;

/// Packets are counted in units of this many bytes: a longer one counts as several.
pub(crate) const UNIT: usize = 2048;

/// Units that one key seals at most.
///
/// AES-256-GCM: an attacker tells q packets of l blocks from random bytes with an advantage of about (q·l)² / 2¹²⁹
/// (Iwata, Ohashi, Minematsu 2012; RFC 8446, section 5.5, and RFC 9001, appendix B.1, aim at 2⁻⁵⁷, and allow 2²⁸
/// packets of 2¹¹ bytes, 2⁷ blocks each: (2²⁸ · 2⁷)² / 2¹²⁹ = 2⁻⁵⁹). At a million packets a second keys that live
/// 180 s seal 2²⁷·⁴. Nonces never repeat: they count.
///
/// ChaCha20-Poly1305 has no such limit (RFC 9001, section 6.6); WireGuard asks for new keys after 2⁶⁰ messages, and so
/// far below the counter's end we stop.
///
/// Forgeries: after v failed openings one succeeds with at most v · l / 2¹⁰³ (ChaCha20-Poly1305, RFC 9147, section
/// 4.5.3). Ten million a second for 180 s at 2⁷ blocks: 2³⁰·⁷ · 2⁷ / 2¹⁰³ = 2⁻⁶⁵. AES-256-GCM is better.
pub(crate) const fn limit(cipher: Cipher) -> u64 {
    match cipher {
        Cipher::ChaCha20Poly1305 => 1 << 60,
        Cipher::Aes256Gcm => 1 << 28,
        #[cfg(frejus_null_cipher)]
        Cipher::None => 1 << 60,
    }
}

/// One direction's key.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(cipher: Cipher, key: &[u8; KEY]) -> Self {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
            #[cfg(frejus_null_cipher)]
            Cipher::None => unreachable!("the ceiling's key stands in front"),
        };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both ciphers take 32 bytes")))
    }

    /// Seals the bytes in front of the last [`TAG`], which get the tag.
    pub(crate) fn seal(&self, counter: u64, message: &mut [u8]) {
        let (body, room) = message.split_at_mut(message.len() - TAG);
        let sealed = self.0.seal_in_place_separate_tag(nonce(counter), Aad::empty(), body);
        let tag = sealed.expect("a packet is far below 2³⁶ bytes");
        room.copy_from_slice(tag.as_ref());
    }

    /// Opens what [`Self::seal`] made; the length without the tag.
    pub(crate) fn open(&self, counter: u64, message: &mut [u8]) -> Option<usize> {
        self.0.open_in_place(nonce(counter), Aad::empty(), message).ok().map(|opened| opened.len())
    }
}

/// Four zero bytes and the counter, little endian, as WireGuard has it (paper, section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
