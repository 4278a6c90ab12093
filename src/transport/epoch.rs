//! One agreement's keys in use: both directions, the counter of the one and the replay window of the other.
//!
//! Owns: [`Epoch`], and the layout of a data message (WireGuard paper, section 5.4.6). Several threads seal and open
//! at once: sealing takes no lock, opening one around the window only. Never: which keys are in use, or how old.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use frejus_overlay::agreement::window::Window;
use frejus_overlay::agreement::{Cipher, PARTIAL};
use frejus_overlay::tunnel::{Content, HEADER, OVERHEAD, Opened};

use super::Key;
use super::aead::{self, UNIT};
use super::exchange::Agreed;

/// Each direction on cache lines of its own: another thread drives it.
#[repr(align(128))]
struct Outward {
    key: Key,
    /// The next counter.
    next: AtomicU64,
    /// Units that long packets used up beyond one each.
    extra: AtomicU64,
}

#[repr(align(128))]
struct Inward {
    key: Key,
    window: Mutex<Window>,
    /// Whether anything authentic has come.
    heard: AtomicBool,
}

/// See the module.
pub(super) struct Epoch {
    cipher: Cipher,
    /// Whether packets may have partial checksums.
    partial: bool,
    limit: u64,
    outward: Outward,
    inward: Inward,
}

impl Epoch {
    pub(super) fn new(agreed: Agreed) -> Self {
        let cipher = agreed.cipher;
        let outward = Outward {
            key: Key::new(cipher, &agreed.seal),
            next: AtomicU64::new(0),
            extra: AtomicU64::new(0),
        };
        let key = Key::new(cipher, &agreed.open);
        let inward = Inward { key, window: Mutex::default(), heard: AtomicBool::new(false) };
        Self { cipher, partial: agreed.partial, limit: aead::limit(cipher), outward, inward }
    }

    pub(super) const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Seals the packet of `len` bytes behind the header in `buffer` for the receiver index `remote`; the message's
    /// length. `None`, and the packet intact, if the key is used up, or was not agreed on for such content.
    pub(super) fn seal(&self, remote: u32, content: Content, buffer: &mut [u8], len: usize) -> Option<usize> {
        let mark = if content == Content::Partial { PARTIAL } else { 0 };
        if mark != 0 && !self.partial {
            return None;
        }
        let message = buffer.get_mut(..len + OVERHEAD).expect("the caller gives room for header and tag");
        let Outward { key, next, extra } = &self.outward;
        if len > UNIT {
            extra.fetch_add((len / UNIT) as u64, Ordering::Relaxed);
        }
        let counter = next.fetch_add(1, Ordering::Relaxed);
        if counter + extra.load(Ordering::Relaxed) >= self.limit {
            return None;
        }
        // Part of the nonce, so that nobody else can set it or clear it.
        let counter = counter | mark;
        message[..4].copy_from_slice(&[4, 0, 0, 0]);
        message[4..8].copy_from_slice(&remote.to_le_bytes());
        message[8..HEADER].copy_from_slice(&counter.to_le_bytes());
        key.seal(counter, &mut message[HEADER..]);
        Some(message.len())
    }

    /// Opens a data message where it stands.
    pub(super) fn open(&self, datagram: &mut [u8]) -> Opened {
        if datagram.len() < OVERHEAD {
            return Opened::Rejected;
        }
        let (header, message) = datagram.split_at_mut(HEADER);
        let marked = header.last_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let (counter, partial) = (marked & !PARTIAL, marked & PARTIAL != 0);
        if counter >= self.limit || partial && !self.partial {
            return Opened::Rejected;
        }
        let Some(len) = self.inward.key.open(marked, message) else { return Opened::Rejected };
        if !self.inward.window.lock().unwrap_or_else(PoisonError::into_inner).admit(counter) {
            return Opened::Duplicate;
        }
        if len == 0 {
            return Opened::Keepalive;
        }
        let packet = if partial { Opened::Partial } else { Opened::Packet };
        inner_len(&message[..len]).map_or(Opened::Rejected, packet)
    }

    /// Whether this is asked for the first time: the moment from which the peer is known to have the keys.
    pub(super) fn is_first(&self) -> bool {
        !self.inward.heard.load(Ordering::Relaxed) && !self.inward.heard.swap(true, Ordering::Relaxed)
    }

    /// Whether three quarters of what the key may seal are sealed.
    pub(super) fn is_worn(&self) -> bool {
        let used = self.outward.next.load(Ordering::Relaxed) + self.outward.extra.load(Ordering::Relaxed);
        used >= self.limit / 4 * 3
    }
}

/// Length of the IP packet at the front of `plaintext`; behind it may be padding.
fn inner_len(plaintext: &[u8]) -> Option<usize> {
    let len = match plaintext {
        [first, _, high, low, ..] if first >> 4 == 4 && plaintext.len() >= 20 => {
            usize::from(u16::from_be_bytes([*high, *low]))
        }
        [first, _, _, _, high, low, ..] if first >> 4 == 6 && plaintext.len() >= 40 => {
            40 + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => return None,
    };
    (len <= plaintext.len()).then_some(len)
}

#[cfg(test)]
mod tests;
