//! A model of transport keys: the messages by size, the rules of the daemon's, no cryptography.
//!
//! Owns: [`Keys`], beside WireGuard's in a [`crate::tunnel::ModelTunnel`], and [`Policy`]. Which keys seal and open, and
//! how long, is the real thing (`frejus_overlay::agreement::ring`), and so is the replay window. Never: when to offer.

use std::sync::{Arc, Mutex, PoisonError};

use frejus_overlay::agreement::ring::{Held, KeyRing};
use frejus_overlay::agreement::window::Window;
use frejus_overlay::agreement::{
    Answer, Binding, Cipher, Cost, Fixed, KEM_CIPHERTEXT, KEM_KEY, Offer, TRANSPORT, choose, is_transport,
};
use frejus_overlay::packet::IpPacket;
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{HEADER, Opened, Protection};

use crate::crypto::{Secret, TAG, derived, mask, tag};
use crate::dice::Dice;

/// What a node does about transport keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Use them with whoever can.
    #[default]
    Prefer,
    /// Carry no data without them.
    Require,
    /// Do without.
    Wireguard,
}

#[derive(Debug)]
struct Epoch {
    secret: Secret,
    offerer: bool,
    cipher: Cipher,
    sent: u64,
    window: Window,
}

#[derive(Debug)]
struct Pending {
    offer: Offer,
    secret: [u8; 32],
    at: Instant,
}

/// The transport keys with one peer.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) policy: Policy,
    index: u32,
    next: u8,
    ring: KeyRing<Arc<Mutex<Epoch>>>,
    pending: Option<Pending>,
    /// Data left since WireGuard's timers asked.
    pub(crate) used: bool,
}

/// What an ephemeral secret looks like from outside. Only this module can tell the secret from it, and it does not.
fn public(secret: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    for (at, half) in public.chunks_exact_mut(16).enumerate() {
        half.copy_from_slice(&tag([3, at as u64], &[secret]));
    }
    public
}

/// What two ephemeral secrets share: it takes one of them, and the other's outside.
fn agree(ours: &[u8; 32], theirs: &[u8; 32]) -> Secret {
    let mut both = [public(ours), *theirs];
    both.sort_unstable();
    derived([0x6b, 4], b"ephemeral", &[&both[0], &both[1]])
}

impl Keys {
    pub(crate) fn new(index: u32, policy: Policy) -> Self {
        Self { policy, index: index << 8, next: 0, ring: KeyRing::default(), pending: None, used: false }
    }

    fn next_index(&mut self) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let index = TRANSPORT | self.index | u32::from(self.next);
            if !self.ring.holds(index) {
                return index;
            }
        }
    }

    pub(crate) fn offer(&mut self, dice: &mut Dice, now: Instant) -> Option<Offer> {
        if self.policy == Policy::Wireguard {
            return None;
        }
        let secret = dice.bytes();
        let offer = Offer {
            index: self.next_index(),
            x25519: public(&secret),
            kem: Fixed(Box::new([0x5a; KEM_KEY])),
            ciphers: Cipher::ALL.map(|cipher| Cost::new(cipher, 1000)).into(),
            has_keys: !self.ring.is_empty(),
        };
        self.pending = Some(Pending { offer: offer.clone(), secret, at: now });
        Some(offer)
    }

    pub(crate) fn answer(
        &mut self,
        offer: &Offer,
        binding: &Binding,
        dice: &mut Dice,
        now: Instant,
    ) -> Option<Answer> {
        if self.policy == Policy::Wireguard || !is_transport(offer.index) {
            return None;
        }
        let cipher = choose(&offer.ciphers, &Cipher::ALL.map(|cipher| Cost::new(cipher, 1000)))?;
        let secret = dice.bytes();
        let answer = Answer {
            offer: offer.index,
            index: self.next_index(),
            cipher: cipher.code(),
            x25519: public(&secret),
            kem: Fixed(Box::new([0xa5; KEM_CIPHERTEXT])),
        };
        let secret =
            derived(agree(&secret, &offer.x25519), b"transport", &[&binding.transcript(offer, &answer)]);
        let epoch = Epoch { secret, offerer: false, cipher, sent: 0, window: Window::default() };
        if !offer.has_keys {
            self.ring.stop_sealing();
        }
        self.ring.install(Held::answered(answer.index, offer.index, Arc::new(Mutex::new(epoch)), now));
        Some(answer)
    }

    pub(crate) fn accept(&mut self, answer: &Answer, binding: &Binding, now: Instant) -> bool {
        let ours = |pending: &mut Pending| {
            let offered = pending.offer.ciphers.iter().any(|cost| cost.cipher == answer.cipher);
            pending.offer.index == answer.offer && is_transport(answer.index) && offered
        };
        let Some(cipher) = Cipher::of_code(answer.cipher) else { return false };
        let Some(pending) = self.pending.take_if(ours) else { return false };
        let transcript = binding.transcript(&pending.offer, answer);
        let secret = derived(agree(&pending.secret, &answer.x25519), b"transport", &[&transcript]);
        let epoch =
            Arc::new(Mutex::new(Epoch { secret, offerer: true, cipher, sent: 0, window: Window::default() }));
        self.ring.install(Held::accepted(pending.offer.index, answer.index, epoch, pending.at, now));
        true
    }

    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Instant) -> Option<usize> {
        let held = self.ring.sealing(now)?;
        let mut epoch = held.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = epoch.sent;
        epoch.sent += 1;
        self.used |= !packet.is_empty();
        Some(write(epoch.direction(epoch.offerer), held.remote, counter, packet, out))
    }

    pub(crate) fn open(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Opened {
        let receiver = index_at(datagram, 4);
        let Some(held) = self.ring.opening(receiver, now) else { return Opened::Rejected };
        let epoch = Arc::clone(&held.keys);
        let mut epoch = epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = epoch.direction(!epoch.offerer);
        let Some((counter, packet)) = read(secret, datagram) else { return Opened::Rejected };
        if !epoch.window.admit(counter) {
            return Opened::Duplicate;
        }
        self.ring.confirm(receiver);
        if packet.is_empty() {
            return Opened::Keepalive;
        }
        out[..packet.len()].copy_from_slice(&packet);
        Opened::Packet(packet.len())
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.ring.expire(now);
    }

    /// The peer's tunnel has this index: keys that lead to another were lost with it.
    pub(crate) fn compare(&mut self, sender: u32, now: Instant) {
        let other = |held: &Held<_>| (held.remote & !TRANSPORT) >> 8 != sender >> 8;
        if self.ring.sealing(now).is_some_and(other) {
            self.ring.stop_sealing();
        }
    }

    pub(crate) fn protection(&self, now: Instant) -> Option<Protection> {
        let held = self.ring.sealing(now)?;
        let cipher = held.keys.lock().unwrap_or_else(PoisonError::into_inner).cipher;
        Some(Protection::transport(cipher))
    }
}

impl Epoch {
    /// Keys of the two directions differ.
    fn direction(&self, from_offerer: bool) -> Secret {
        derived(self.secret, b"direction", &[&[u8::from(from_offerer), self.cipher.code()]])
    }
}

/// A data message in `out`; its length.
pub(crate) fn write(secret: Secret, receiver: u32, counter: u64, packet: &[u8], out: &mut [u8]) -> usize {
    let end = HEADER + packet.len();
    let out = &mut out[..end + TAG];
    out[..4].copy_from_slice(&[4, 0, 0, 0]);
    out[4..8].copy_from_slice(&receiver.to_le_bytes());
    out[8..HEADER].copy_from_slice(&counter.to_le_bytes());
    out[HEADER..end].copy_from_slice(packet);
    mask(secret, counter, &mut out[HEADER..end]);
    let tag = tag(secret, &[&out[..end]]);
    out[end..].copy_from_slice(&tag);
    end + TAG
}

/// Counter and packet of an authentic data message.
pub(crate) fn read(secret: Secret, datagram: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (body, found) = datagram.split_last_chunk::<TAG>()?;
    if body.len() < HEADER || tag(secret, &[body]) != *found {
        return None;
    }
    let counter = u64::from_le_bytes(*body[8..].first_chunk()?);
    let mut packet = body[HEADER..].to_vec();
    mask(secret, counter, &mut packet);
    // What stands behind an IP packet is padding.
    let len = IpPacket::parse(&packet).map_or(packet.len(), |ip| ip.bytes().len());
    packet.truncate(len);
    Some((counter, packet))
}

pub(crate) fn index_at(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}
