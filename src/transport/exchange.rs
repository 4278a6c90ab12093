//! From two ephemeral secrets to four keys: X25519 and ML-KEM-768 together, then HKDF.
//!
//! Owns: [`Secrets`] of an offer, [`answer`], and the key schedule. Who breaks one of the two exchanges has nothing.
//! Everything secret is wiped when dropped. Never: a key that is kept, a role beyond offerer and answerer.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use frejus_overlay::agreement::{Answer, Binding, Cipher, DOMAIN, Fixed, KEM_CIPHERTEXT, KEM_KEY, Offer};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::aead::KEY;

/// What both sides have in the end.
pub(super) struct Agreed {
    pub(super) cipher: Cipher,
    /// Whether packets may have partial checksums.
    pub(super) partial: bool,
    pub(super) seal: Zeroizing<[u8; KEY]>,
    pub(super) open: Zeroizing<[u8; KEY]>,
}

/// The ephemeral secrets behind one offer.
pub(super) struct Secrets {
    x25519: StaticSecret,
    kem: DecapsulationKey,
}

impl Secrets {
    /// Fresh ones. `None` if the kernel gives no randomness.
    pub(super) fn generate() -> Option<Self> {
        Some(Self { x25519: ephemeral()?, kem: DecapsulationKey::generate(&ML_KEM_768).ok()? })
    }

    /// The public halves.
    pub(super) fn public(&self) -> Option<([u8; 32], Fixed<KEM_KEY>)> {
        let kem = self.kem.encapsulation_key().ok()?.key_bytes().ok()?;
        Some((PublicKey::from(&self.x25519).to_bytes(), Fixed::copy(kem.as_ref())?))
    }

    /// The offerer's side. `None` if the answer is not sound.
    pub(super) fn agree(&self, offer: &Offer, answer: &Answer, binding: &Binding) -> Option<Agreed> {
        let cipher = Cipher::of_code(answer.code())?;
        let x25519 = diffie_hellman(&self.x25519, &answer.x25519)?;
        let kem = self.kem.decapsulate(Ciphertext::from(&answer.kem.0[..])).ok()?;
        let [to_answerer, to_offerer] =
            schedule(kem.as_ref(), x25519.as_ref(), cipher, &binding.transcript(offer, answer));
        let partial = answer.takes_partial();
        Some(Agreed { cipher, partial, seal: to_answerer, open: to_offerer })
    }
}

/// The answerer's side: what to say with this [`Answer::choice`], and the keys. `None` if the offer is not sound, or the kernel gives no randomness.
pub(super) fn answer(offer: &Offer, index: u32, choice: u8, binding: &Binding) -> Option<(Answer, Agreed)> {
    let secret = ephemeral()?;
    let x25519 = diffie_hellman(&secret, &offer.x25519)?;
    let key = EncapsulationKey::new(&ML_KEM_768, &offer.kem.0[..]).ok()?;
    let (ciphertext, kem) = key.encapsulate().ok()?;
    let answer = Answer {
        offer: offer.index,
        index,
        cipher: choice,
        x25519: PublicKey::from(&secret).to_bytes(),
        kem: Fixed::<KEM_CIPHERTEXT>::copy(ciphertext.as_ref())?,
    };
    let (cipher, partial) = (Cipher::of_code(answer.code())?, answer.takes_partial());
    let [to_answerer, to_offerer] =
        schedule(kem.as_ref(), x25519.as_ref(), cipher, &binding.transcript(offer, &answer));
    Some((answer, Agreed { cipher, partial, seal: to_offerer, open: to_answerer }))
}

fn ephemeral() -> Option<StaticSecret> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).ok()?;
    Some(StaticSecret::from(*bytes))
}

/// `None` for a point of small order, with which everybody would know the secret.
fn diffie_hellman(ours: &StaticSecret, theirs: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = ours.diffie_hellman(&PublicKey::from(*theirs));
    shared.was_contributory().then(|| Zeroizing::new(*shared.as_bytes()))
}

/// HKDF-SHA256 (RFC 5869): what was shared, ML-KEM's first as in X25519MLKEM768 of TLS, is extracted with the domain
/// as salt; each direction's key is expanded with domain, cipher, direction and transcript. The key to the answerer,
/// then the key to the offerer.
fn schedule(kem: &[u8], x25519: &[u8], cipher: Cipher, transcript: &[u8; 32]) -> [Zeroizing<[u8; KEY]>; 2] {
    let mut shared = Zeroizing::new([0; 64]);
    shared[..32].copy_from_slice(kem);
    shared[32..].copy_from_slice(x25519);
    let secret = Salt::new(HKDF_SHA256, DOMAIN).extract(shared.as_ref());
    [0, 1].map(|direction: u8| {
        let info = [DOMAIN, &[0, cipher.code(), direction], transcript];
        let mut key = Zeroizing::new([0; KEY]);
        let expanded = secret.expand(&info, Length).and_then(|okm| okm.fill(key.as_mut()));
        expanded.expect("32 bytes are one block of HKDF-SHA256");
        key
    })
}

/// How much is expanded.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

#[cfg(test)]
mod tests;
