//! Transport keys: what two nodes say to each other inside a WireGuard session to agree on keys of their own.
//!
//! Owns: [`Offer`] and [`Answer`], the choice of a [`Cipher`], and what the keys are bound to ([`Binding`]). The parts:
//! [`exchange`] says when to speak, [`ring`] which keys are in use, [`window`] what was received already. Never: a
//! secret, or the mathematics; both stand behind [`crate::tunnel::Tunnel`]. docs/wire.md has the bytes,
//! docs/security.md the reasons.

pub(crate) mod exchange;
pub mod ring;
pub mod window;

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::id::{NetworkId, NodeId, TunnelKey};
use crate::wire::control::Message;

/// Set in the receiver index of a data message that is sealed with transport keys; WireGuard's own have it clear.
pub const TRANSPORT: u32 = 1 << 31;

/// Length of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub const KEM_KEY: usize = 1184;
/// Length of an ML-KEM-768 ciphertext (FIPS 203, table 3).
pub const KEM_CIPHERTEXT: usize = 1088;

/// Set in the counter of a data message whose packet has a [partial checksum](crate::packet::partial); no key seals that
/// many.
pub const PARTIAL: u64 = 1 << 63;

/// Whether the keys that `receiver` names are transport keys.
#[must_use]
pub const fn is_transport(receiver: u32) -> bool {
    receiver & TRANSPORT != 0
}

/// How packets are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// RFC 8439; every node understands it, and WireGuard knows no other.
    ChaCha20Poly1305 = 1,
    /// NIST SP 800-38D with a key of 256 bits.
    Aes256Gcm = 2,
    /// None at all, in the benchmark's ceiling; no other build knows it, and a real node passes over what it does not
    /// know.
    #[cfg(frejus_null_cipher)]
    None = 127,
}

impl Cipher {
    /// Every cipher; what is chosen between equals is the one that stands first.
    #[cfg(not(frejus_null_cipher))]
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes256Gcm];
    /// What everybody understands, and none; an offer has no room for three.
    #[cfg(frejus_null_cipher)]
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::None];

    /// As it travels.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The cipher of this code, if we know it.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.code() == code)
    }

    /// As reports and the configuration name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
            #[cfg(frejus_null_cipher)]
            Self::None => "none",
        }
    }
}

/// What a cipher costs on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// [`Cipher::code`]; one that the receiver does not know is passed over.
    pub cipher: u8,
    /// The lower 15 bits: what sealing 1420 bytes takes, in nanoseconds, or 32,767 if it takes longer. The topmost: see
    /// [`Self::with_partial`].
    #[serde(with = "postcard::fixint::le")]
    pub nanos: u16,
}

/// In [`Cost::nanos`], and in [`Answer::cipher`]: whoever says so understands [`PARTIAL`].
const UNDERSTOOD: u16 = 1 << 15;
const UNDERSTOOD_IN_CODE: u8 = 1 << 7;

impl Cost {
    /// What `cipher` costs.
    #[must_use]
    pub const fn new(cipher: Cipher, nanos: u16) -> Self {
        let nanos = if nanos < UNDERSTOOD { nanos } else { UNDERSTOOD - 1 };
        Self { cipher: cipher.code(), nanos }
    }

    /// The same, from a node that takes [partial checksums](PARTIAL). Who does not know of it reads a cost that is higher
    /// for every cipher alike.
    #[must_use]
    pub const fn with_partial(self) -> Self {
        Self { nanos: self.nanos | UNDERSTOOD, ..self }
    }

    /// To seal 1420 bytes, in nanoseconds, at most 32,767.
    #[must_use]
    pub const fn nanos(self) -> u16 {
        self.nanos & !UNDERSTOOD
    }
}

/// The cipher that an answerer with the costs `own` picks from what was offered: of those that both have, the one whose
/// two costs have the least sum; between equals the first of [`Cipher::ALL`]. Whoever has only one insists on it,
/// unless it was not offered: any cipher that is known can be used. `None` if nothing known was offered.
#[must_use]
pub fn choose(offered: &[Cost], own: &[Cost]) -> Option<Cipher> {
    let cost = |costs: &[Cost], cipher: Cipher| {
        costs.iter().find(|cost| cost.cipher == cipher.code()).map(|cost| u32::from(cost.nanos()))
    };
    let known = || Cipher::ALL.into_iter().filter(|cipher| cost(offered, *cipher).is_some());
    let sum = |cipher: Cipher| Some(cost(offered, cipher)? + cost(own, cipher)?);
    let shared = known().filter_map(|cipher| Some((sum(cipher)?, cipher))).min();
    shared.map(|(_, cipher)| cipher).or_else(|| known().next())
}

/// As many bytes as the type says, without a length in front when they travel.
#[derive(Clone, PartialEq, Eq)]
pub struct Fixed<const N: usize>(pub Box<[u8; N]>);

impl<const N: usize> Fixed<N> {
    /// A copy of `bytes`; `None` if they are more or fewer.
    #[must_use]
    pub fn copy(bytes: &[u8]) -> Option<Self> {
        bytes.to_vec().into_boxed_slice().try_into().ok().map(Self)
    }
}

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…({N})", self.0[0], self.0[1])
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for byte in self.0.iter() {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const N: usize>;
        impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
            type Value = Box<[u8; N]>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut bytes = Box::new([0; N]);
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_tuple(N, Bytes).map(Self)
    }
}

/// "Let us have keys of our own": from whoever initiated the WireGuard session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Receiver index of what will be sealed to the offerer; names the offer, too.
    #[serde(with = "postcard::fixint::le")]
    pub index: u32,
    /// Ephemeral X25519 key (RFC 7748).
    pub x25519: [u8; 32],
    /// Ephemeral ML-KEM-768 encapsulation key (FIPS 203).
    pub kem: Fixed<KEM_KEY>,
    /// What the offerer understands, and what it costs there.
    pub ciphers: Vec<Cost>,
    /// Whether the offerer has transport keys with the receiver. One that has none was started anew: whatever is sealed
    /// with the receiver's is lost.
    pub has_keys: bool,
}

/// "Here is my half": the answer to an [`Offer`], and to a repeated one the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The offer's [`Offer::index`].
    #[serde(with = "postcard::fixint::le")]
    pub offer: u32,
    /// Receiver index of what will be sealed to the answerer.
    #[serde(with = "postcard::fixint::le")]
    pub index: u32,
    /// [`Cipher::code`] of one that was offered; the topmost bit set if both take [partial checksums](PARTIAL).
    pub cipher: u8,
    /// Ephemeral X25519 key (RFC 7748).
    pub x25519: [u8; 32],
    /// The ML-KEM-768 ciphertext (FIPS 203).
    pub kem: Fixed<KEM_CIPHERTEXT>,
}

impl Offer {
    /// Whether the offerer takes [partial checksums](PARTIAL).
    #[must_use]
    pub fn takes_partial(&self) -> bool {
        !self.ciphers.is_empty() && self.ciphers.iter().all(|cost| cost.nanos & UNDERSTOOD != 0)
    }
}

impl Answer {
    /// What goes into [`Self::cipher`].
    #[must_use]
    pub const fn choice(cipher: Cipher, partial: bool) -> u8 {
        cipher.code() | if partial { UNDERSTOOD_IN_CODE } else { 0 }
    }

    /// [`Cipher::code`] of the cipher that was chosen.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.cipher & !UNDERSTOOD_IN_CODE
    }

    /// Whether packets may go with [partial checksums](PARTIAL), both ways.
    #[must_use]
    pub const fn takes_partial(&self) -> bool {
        self.cipher & UNDERSTOOD_IN_CODE != 0
    }
}

/// One side of an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Who it is.
    pub node: NodeId,
    /// Its static WireGuard key.
    pub key: TunnelKey,
}

/// Who agrees with whom, where: the keys are good for nobody else, and in no other role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The network.
    pub network: NetworkId,
    /// Who offered.
    pub offerer: Party,
    /// Who answered.
    pub answerer: Party,
}

/// Stands in front of everything that is hashed for transport keys.
pub const DOMAIN: &[u8] = b"frejus/1 transport keys";

impl Binding {
    /// SHA-256 of everything that was said, and by whom: the keys follow from it, so two nodes that saw anything
    /// different have different keys.
    #[must_use]
    pub fn transcript(&self, offer: &Offer, answer: &Answer) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update([0]);
        hash.update(self.network.0);
        for party in [&self.offerer, &self.answerer] {
            hash.update(party.node.0);
            hash.update(party.key.0);
        }
        for message in [Message::Offer(offer.clone()), Message::Answer(answer.clone())] {
            let bytes = message.encode();
            hash.update((bytes.len() as u32).to_be_bytes());
            hash.update(&bytes);
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests;
