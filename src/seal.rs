//! Sealing to a tunnel key: HPKE (RFC 9180) in base mode.
//!
//! Owns: the one cipher suite, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Never: says who sealed;
//! what is inside must be signed.

use frejus_overlay::id::TunnelKey;
use frejus_overlay::tunnel::Purpose;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal};
use x25519_dalek::StaticSecret;

type Kem = X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// Length of the encapsulated key, in bytes.
const ENCAPPED: usize = 32;

/// Encapsulated key, then ciphertext; `None` if `to` is no key that anybody could hold (a point of small order).
pub(crate) fn seal(to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Option<Vec<u8>> {
    let to = PublicKey::from_bytes(&to.0).ok()?;
    let (key, ciphertext) = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &to,
        purpose.info(),
        plaintext,
        b"",
    )
    .ok()?;
    let mut sealed = Vec::with_capacity(ENCAPPED + ciphertext.len());
    sealed.extend_from_slice(&key.to_bytes());
    sealed.extend_from_slice(&ciphertext);
    Some(sealed)
}

/// The private half; wiped when dropped, and never shown.
pub(crate) struct Opener(PrivateKey);

impl Opener {
    pub(crate) fn new(secret: &StaticSecret) -> Self {
        Self(PrivateKey::from_bytes(secret.as_bytes()).expect("any 32 bytes are an X25519 key"))
    }

    pub(crate) fn open(&self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_with(purpose.info(), b"", sealed)
    }

    fn open_with(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (key, ciphertext) = sealed.split_at_checked(ENCAPPED)?;
        let key = EncappedKey::from_bytes(key).ok()?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.0,
            &key,
            info,
            ciphertext,
            aad,
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// RFC 9180, appendix A.2.1: the same suite, base mode, sequence number 0.
    #[test]
    fn known_answer() {
        let secret: [u8; 32] =
            hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb").try_into().unwrap();
        let mut sealed = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        sealed.extend(hex(
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        ));
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let opened = Opener::new(&secret.into()).open_with(&info, b"Count-0", &sealed);
        assert_eq!(opened.as_deref(), Some(&b"Beauty is truth, truth beauty"[..]));
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        assert_eq!(seal(&TunnelKey([0; 32]), Purpose::Knock, b"x"), None);
    }
}
