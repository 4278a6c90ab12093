//! A model of a node's tunnel key: sealing and telling initiators, without cryptography.
//!
//! Owns: [`Clock`], [`ModelCrypto`] and the keyed checksum behind it. A key pair's secret is a hash of the pair and
//! a constant that only this module knows, so nobody in the simulation can forge, read or redirect a message,
//! although anybody with a debugger could. Never: a message's layout beyond the sealed box.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frejus_overlay::id::TunnelKey;
use frejus_overlay::timing::{Instant, UnixTime};
use frejus_overlay::tunnel::{Crypto, Purpose, SharedTunnel};

use crate::dice::Dice;
use crate::keys::Policy;
use crate::tunnel::{self, ModelTunnel};

/// The world's time, for those whose interface has no room for it: boringtun asks the system.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// What the world's time is.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_start(Duration::from_nanos(self.0.load(Ordering::Relaxed)))
    }

    /// The world's time advances.
    pub fn set(&self, now: Instant) {
        let nanos = u64::try_from(now.since_start().as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }
}

/// What two parties share.
pub(crate) type Secret = [u64; 2];

/// Length of a keyed checksum: Poly1305's.
pub(crate) const TAG: usize = 16;

/// Nobody outside this module knows it.
const WORLD: u64 = 0x66_72_65_6a_75_73_21_21;

fn sip(secret: Secret, half: u8, parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(secret[0]);
    hasher.write_u64(secret[1]);
    hasher.write_u8(half);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

fn both(secret: Secret, parts: &[&[u8]]) -> Secret {
    [sip(secret, 0, parts), sip(secret, 1, parts)]
}

/// What the holders of these two keys share; the order does not matter.
pub(crate) fn shared(one: &TunnelKey, other: &TunnelKey) -> Secret {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    both([WORLD, 1], &[&low.0, &high.0])
}

/// A secret derived from another.
pub(crate) fn derived(secret: Secret, label: &[u8], parts: &[&[u8]]) -> Secret {
    both(both(secret, &[label]), parts)
}

/// Checksum that only who knows `secret` can make or check.
pub(crate) fn tag(secret: Secret, parts: &[&[u8]]) -> [u8; TAG] {
    let [low, high] = both(secret, parts);
    let mut tag = [0; TAG];
    tag[..8].copy_from_slice(&low.to_le_bytes());
    tag[8..].copy_from_slice(&high.to_le_bytes());
    tag
}

/// Hide or reveal `bytes` (SplitMix64 as a key stream).
pub(crate) fn mask(secret: Secret, nonce: u64, bytes: &mut [u8]) {
    let mut state = secret[0] ^ nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ secret[1].rotate_left(17);
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        for (byte, pad) in chunk.iter_mut().zip((z ^ (z >> 31)).to_le_bytes()) {
            *byte ^= pad;
        }
    }
}

/// A node's tunnel key.
pub struct ModelCrypto {
    public: TunnelKey,
    dice: Dice,
    clock: Clock,
    /// The wall clock at the beginning of the world, as this node sees it.
    began: UnixTime,
    policy: Policy,
}

impl ModelCrypto {
    /// The holder of `public`, whose wall clock stood at `began` when the world's time was zero.
    #[must_use]
    pub const fn new(public: TunnelKey, dice: Dice, clock: Clock, began: UnixTime) -> Self {
        Self { public, dice, clock, began, policy: Policy::Prefer }
    }

    /// The same, with this done about transport keys.
    #[must_use]
    pub const fn carrying(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    fn box_secret(to: &TunnelKey, encapsulated: &[u8], purpose: Purpose) -> Secret {
        derived([WORLD, 2], purpose.info(), &[&to.0, encapsulated])
    }
}

/// X25519's encapsulated key, in front of a sealed box.
const ENCAPSULATED: usize = 32;

impl Crypto for ModelCrypto {
    fn public(&self) -> TunnelKey {
        self.public
    }

    fn tunnel(&mut self, peer: &TunnelKey, index: u32) -> SharedTunnel {
        let dice = Dice::new(self.dice.number(), "tunnel");
        let tunnel = ModelTunnel::new(self.public, *peer, index, dice, self.clock.clone(), self.began);
        Arc::new(Mutex::new(tunnel.carrying(self.policy)))
    }

    fn initiator(&mut self, initiation: &[u8]) -> Option<TunnelKey> {
        tunnel::initiator(&self.public, initiation)
    }

    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        let encapsulated: [u8; ENCAPSULATED] = self.dice.bytes();
        let secret = Self::box_secret(to, &encapsulated, purpose);
        let mut sealed = [&encapsulated, plaintext].concat();
        mask(secret, 0, &mut sealed[ENCAPSULATED..]);
        let tag = tag(secret, &[&sealed]);
        sealed.extend(tag);
        sealed
    }

    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        let (body, found) = sealed.split_last_chunk::<TAG>()?;
        let (encapsulated, hidden) = body.split_at_checked(ENCAPSULATED)?;
        let secret = Self::box_secret(&self.public, encapsulated, purpose);
        if tag(secret, &[body]) != *found {
            return None;
        }
        let mut plaintext = hidden.to_vec();
        mask(secret, 0, &mut plaintext);
        Some(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crypto(who: u8) -> ModelCrypto {
        let dice = Dice::new(u64::from(who), "crypto");
        ModelCrypto::new(TunnelKey([who; 32]), dice, Clock::default(), UnixTime(1_800_000_000))
    }

    #[test]
    fn a_box_opens_for_its_addressee_and_purpose_only() {
        let (mut a, mut b, mut c) = (crypto(1), crypto(2), crypto(3));
        let sealed = a.seal_to(&b.public(), Purpose::Knock, b"let me in");
        assert!(!sealed.windows(9).any(|window| window == b"let me in"));
        assert_eq!(b.open_sealed(Purpose::Knock, &sealed).as_deref(), Some(&b"let me in"[..]));
        assert_eq!(b.open_sealed(Purpose::EnrolRequest, &sealed), None);
        assert_eq!(c.open_sealed(Purpose::Knock, &sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(b.open_sealed(Purpose::Knock, &altered), None);
            assert_eq!(b.open_sealed(Purpose::Knock, &sealed[..at]), None);
        }
    }
}
