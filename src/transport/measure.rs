//! What the ciphers cost on this machine.
//!
//! Owns: [`measure`]. A figure is the best of several short rounds: whatever disturbs one only makes it slower. Never:
//! a choice; two nodes make it together.

use std::hint::black_box;
use std::time::Instant;

use frejus_overlay::agreement::{Cipher, Cost};

use super::Key;
use super::aead::{KEY, TAG};

/// A full packet on a link of 1500 bytes.
const PACKET: usize = 1420;
/// Rounds, and packets a round: both ciphers together take about half a millisecond.
const ROUNDS: u32 = 8;
const PACKETS: u32 = 32;

/// What sealing 1420 bytes costs with each cipher, in nanoseconds.
#[must_use]
pub fn measure() -> Vec<Cost> {
    let cost = |cipher| {
        let (key, mut message) = (Key::new(cipher, &[7; KEY]), [0; PACKET + TAG]);
        let nanos = (0..ROUNDS).map(|round| {
            let began = Instant::now();
            for n in 0..PACKETS {
                key.seal(u64::from(round * PACKETS + n), black_box(&mut message));
            }
            began.elapsed().as_nanos() / u128::from(PACKETS)
        });
        let nanos = nanos.min().unwrap_or(u128::MAX);
        Cost::new(cipher, u16::try_from(nanos).unwrap_or(u16::MAX))
    };
    Cipher::ALL.map(cost).into()
}
