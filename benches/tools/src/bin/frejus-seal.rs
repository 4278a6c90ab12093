//! How long ring needs to seal 1420 bytes: the yardstick beside every result, for a machine changes speed by the minute.
//! Prints nanoseconds: `{"chacha20-poly1305":N,"aes-256-gcm":N}`.
#![allow(clippy::print_stdout, reason = "its answer")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// The inner packet of a tunnel with an MTU of 1420 over a wire of 1500.
const PACKET: usize = 1420;
/// Seals of one go: about 50 µs, short enough that some go meets no interruption.
const GO: u32 = 64;
/// How long each cipher is measured.
const TIME: Duration = Duration::from_millis(20);

/// Median over many goes; the best would hide that the machine is slow, the mean would show every interruption.
fn nanoseconds(algorithm: &'static Algorithm) -> f64 {
    let key =
        LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).expect("both ciphers have keys of 32 bytes"));
    let mut packet = [0; PACKET];
    let mut goes = Vec::new();
    let began = Instant::now();
    while began.elapsed() < TIME || goes.is_empty() {
        let start = Instant::now();
        for _ in 0..GO {
            let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut packet));
            let _ = black_box(tag.expect("1420 bytes are below every limit"));
        }
        goes.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(GO));
    }
    goes.sort_by(f64::total_cmp);
    goes[goes.len() / 2]
}

fn main() {
    let (chacha, aes) = (nanoseconds(&CHACHA20_POLY1305), nanoseconds(&AES_256_GCM));
    println!(r#"{{"chacha20-poly1305":{chacha:.0},"aes-256-gcm":{aes:.0}}}"#);
}
