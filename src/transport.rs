//! Transport keys: what seals and opens the bulk between two frejus nodes, agreed inside their WireGuard session.
//!
//! Owns: [`Keyed`], a tunnel with both kinds of keys: which of them a packet goes under, and the swap of the keys in
//! use, which the forwarding threads read without a lock. [`epoch`] holds one pair of keys, [`exchange`] makes them,
//! [`aead`] names the ciphers, [`mod@measure`] what they cost here. Never: when an agreement is begun or repeated
//! (`frejus_overlay::agreement`), or a log line with a key.

pub(crate) mod aead;
mod epoch;
mod exchange;
mod measure;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use frejus_overlay::agreement::ring::{Held, KeyRing};
use frejus_overlay::agreement::{Answer, Binding, Cipher, Cost, Offer, TRANSPORT, choose, is_transport};
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{Content, HEADER, Handshake, Opened, Protection, Tunnel};
use frejus_overlay::wire::control;

#[cfg(frejus_null_cipher)]
use crate::ceiling::Key;
use crate::clock::Clock;
use crate::options::TransportPolicy as Policy;
use crate::wireguard::Shared;
#[cfg(not(frejus_null_cipher))]
use aead::Key;
use epoch::Epoch;
use exchange::Secrets;

pub use measure::measure;

/// What a node does about transport keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Whether to want them, and whether to insist.
    pub policy: Policy,
    /// What it offers: the ciphers, and what each costs here.
    pub ciphers: Vec<Cost>,
    /// Whether checksums may be left to the device, here and there.
    pub partial: bool,
}

impl Default for Transport {
    /// Wanted; nothing was measured, so the first of all ciphers.
    fn default() -> Self {
        let ciphers = Cipher::ALL.map(|cipher| Cost::new(cipher, 0)).into();
        Self { policy: Policy::Prefer, ciphers, partial: true }
    }
}

/// A tunnel whose bulk travels under transport keys, and the rest under WireGuard's.
pub(crate) struct Keyed {
    wireguard: Shared,
    transport: Arc<Transport>,
    clock: Clock,
    ring: ArcSwap<KeyRing<Arc<Epoch>>>,
    changes: Mutex<Changes>,
    /// Data left under transport keys since the timers ran: WireGuard's counts it, so that it rekeys.
    used: AtomicBool,
}

/// What one agreement needs, locked while the keys change.
struct Changes {
    /// The 24-bit index of this tunnel, shifted to where it travels.
    index: u32,
    next: u8,
    pending: Option<Pending>,
}

/// An offer without an answer yet.
struct Pending {
    offer: Offer,
    secrets: Secrets,
    at: Instant,
}

impl Changes {
    /// A receiver index that names no keys yet.
    fn next_index(&mut self, ring: &KeyRing<Arc<Epoch>>) -> u32 {
        loop {
            self.next = self.next.wrapping_add(1);
            let index = TRANSPORT | self.index | u32::from(self.next);
            let pending = self.pending.as_ref().is_some_and(|pending| pending.offer.index == index);
            if !pending && !ring.holds(index) {
                return index;
            }
        }
    }
}

impl Keyed {
    pub(crate) fn new(wireguard: Shared, index: u32, transport: Arc<Transport>, clock: Clock) -> Self {
        let changes = Mutex::new(Changes { index: index << 8, next: 0, pending: None });
        let ring = ArcSwap::from_pointee(KeyRing::default());
        Self { wireguard, transport, clock, ring, changes, used: AtomicBool::new(false) }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the keys in use; `_proof` that nobody else does at the same time.
    fn change(&self, _proof: &MutexGuard<'_, Changes>, change: impl FnOnce(&mut KeyRing<Arc<Epoch>>)) {
        let mut ring = KeyRing::clone(&self.ring.load());
        change(&mut ring);
        self.ring.store(Arc::new(ring));
    }

    fn seal_under_keys(&self, content: Content, buffer: &mut [u8], len: usize) -> Option<usize> {
        let ring = self.ring.load();
        let held = ring.sealing(self.clock.latest())?;
        let total = held.keys.seal(held.remote, content, buffer, len)?;
        if len > 0 && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(total)
    }

    fn open_under_keys(&self, receiver: u32, datagram: &mut [u8]) -> Opened {
        let ring = self.ring.load();
        let Some(held) = ring.opening(receiver, self.clock.latest()) else { return Opened::Rejected };
        let opened = held.keys.open(datagram);
        if !matches!(opened, Opened::Rejected | Opened::Duplicate) && held.keys.is_first() {
            let changes = self.changes();
            self.change(&changes, |ring| ring.confirm(receiver));
        }
        opened
    }

    /// Whether the keys in use are used up so far that WireGuard should make the session for the next.
    fn is_worn(&self) -> bool {
        self.ring.load().sealing(self.clock.latest()).is_some_and(|held| held.keys.is_worn())
    }

    /// A handshake message of the peer that proved authentic names its tunnel. Keys that lead to another one were lost
    /// with it.
    fn compare(&self, sender: u32) {
        let ring = self.ring.load();
        let Some(held) = ring.sealing(self.clock.latest()) else { return };
        if (held.remote & !TRANSPORT) >> 8 != sender >> 8 {
            let changes = self.changes();
            self.change(&changes, KeyRing::stop_sealing);
        }
    }
}

impl Tunnel for Keyed {
    fn seal_as(&self, content: Content, buffer: &mut [u8], len: usize) -> Option<usize> {
        if content != Content::Agreement
            && let Some(total) = self.seal_under_keys(content, buffer, len)
        {
            return Some(total);
        }
        let needs_keys = match content {
            Content::Partial => true,
            Content::Data => self.transport.policy == Policy::Require,
            Content::Control | Content::Agreement => false,
        };
        if needs_keys {
            return None;
        }
        self.wireguard.seal(buffer, len)
    }

    fn open(&self, datagram: &mut [u8]) -> Opened {
        let receiver = match datagram {
            [4, 0, 0, 0, a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]),
            _ => return Opened::Rejected,
        };
        if is_transport(receiver) {
            return self.open_under_keys(receiver, datagram);
        }
        let opened = self.wireguard.open(datagram);
        if self.transport.policy == Policy::Require
            && let Opened::Packet(len) = opened
            && !may_be_control(&datagram[HEADER..HEADER + len])
        {
            return Opened::Refused;
        }
        opened
    }

    fn initiate(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        self.wireguard.initiate(out, now)
    }

    fn handshake(&self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let outcome = self.wireguard.handshake(datagram, out, now);
        if outcome != Handshake::Rejected
            && let [1 | 2, 0, 0, 0, a, b, c, d, ..] = datagram
        {
            self.compare(u32::from_le_bytes([*a, *b, *c, *d]));
        }
        outcome
    }

    fn handle_timeout(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        let used = self.used.swap(false, Ordering::Relaxed);
        let worn = self.is_worn();
        if self.ring.load().has_expired(now) {
            let changes = self.changes();
            self.change(&changes, |ring| ring.expire(now));
        }
        self.wireguard.handle_timeout(out, used, worn, now)
    }

    fn session_age_s(&self) -> Option<u64> {
        self.wireguard.session_age_s()
    }

    fn initiated(&self) -> Option<u64> {
        self.wireguard.initiated()
    }

    fn offer(&self, now: Instant) -> Option<Offer> {
        if self.transport.policy == Policy::Wireguard {
            return None;
        }
        let ring = self.ring.load();
        let mut changes = self.changes();
        let secrets = Secrets::generate()?;
        let (x25519, kem) = secrets.public()?;
        let index = changes.next_index(&ring);
        let said = |cost: &Cost| if self.transport.partial { cost.with_partial() } else { *cost };
        let (ciphers, has_keys) = (self.transport.ciphers.iter().map(said).collect(), !ring.is_empty());
        let offer = Offer { index, x25519, kem, ciphers, has_keys };
        changes.pending = Some(Pending { offer: offer.clone(), secrets, at: now });
        Some(offer)
    }

    fn answer(&self, offer: &Offer, binding: &Binding, now: Instant) -> Option<Answer> {
        if self.transport.policy == Policy::Wireguard || !is_transport(offer.index) {
            return None;
        }
        let cipher = choose(&offer.ciphers, &self.transport.ciphers)?;
        let mut changes = self.changes();
        let index = changes.next_index(&self.ring.load());
        let partial = self.transport.partial && offer.takes_partial();
        let choice = Answer::choice(cipher, partial);
        let (answer, agreed) = exchange::answer(offer, index, choice, binding)?;
        let held = Held::answered(index, offer.index, Arc::new(Epoch::new(agreed)), now);
        self.change(&changes, |ring| {
            if !offer.has_keys {
                ring.stop_sealing();
            }
            ring.install(held);
        });
        Some(answer)
    }

    fn accept(&self, answer: &Answer, binding: &Binding, now: Instant) -> bool {
        let mut changes = self.changes();
        let Some(pending) = changes.pending.as_ref().filter(|pending| is_sound(answer, &pending.offer))
        else {
            return false;
        };
        let Some(agreed) = pending.secrets.agree(&pending.offer, answer, binding) else { return false };
        let epoch = Arc::new(Epoch::new(agreed));
        let held = Held::accepted(pending.offer.index, answer.index, epoch, pending.at, now);
        // The secrets end here: who breaks in later finds nothing to make the keys of.
        changes.pending = None;
        self.change(&changes, |ring| ring.install(held));
        true
    }

    fn protection(&self) -> Option<Protection> {
        let keys = self.ring.load().sealing(self.clock.latest()).map(|held| held.keys.cipher());
        let wireguard = self.session_age_s().filter(|_| self.transport.policy != Policy::Require);
        keys.map(Protection::transport).or_else(|| wireguard.map(|_| Protection::WIREGUARD))
    }
}

/// Whether `answer` is one to `offer`, with nothing in it that was not offered.
fn is_sound(answer: &Answer, offer: &Offer) -> bool {
    answer.offer == offer.index
        && is_transport(answer.index)
        && Cipher::of_code(answer.code()).is_some()
        && offer.ciphers.iter().any(|cost| cost.cipher == answer.code())
        && (offer.takes_partial() || !answer.takes_partial())
}

/// Whether an inner packet is shaped like a control message: IPv6, UDP, and the port. Where it goes is for the
/// forwarding table to say, which takes such for control if they are for us, and drops them otherwise.
fn may_be_control(packet: &[u8]) -> bool {
    const UDP: u8 = 17;
    packet.len() >= 48
        && packet[0] >> 4 == 6
        && packet[6] == UDP
        && packet[42..44] == control::PORT.to_be_bytes()
}
