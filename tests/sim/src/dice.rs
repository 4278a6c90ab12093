//! Randomness: one seed, forked by name, so that a new user of it does not shift the others.
//!
//! Owns: [`Dice`]. Never: a source of its own.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of `seed` for `purpose`.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self(ChaCha8Rng::from_seed(derive(seed, purpose)))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; zero if there is none. The bias of the remainder is below 2⁻³² for bounds below 2³².
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or(0)
    }

    /// `true` with this probability, from 0 to 1. Draws nothing for a certainty.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.number() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    /// Fill `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// An array of random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// 32 bytes that depend on `seed` and `purpose` alone.
#[must_use]
pub fn derive(seed: u64, purpose: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_be_bytes()).chain_update(purpose.as_bytes()).finalize().into()
}
