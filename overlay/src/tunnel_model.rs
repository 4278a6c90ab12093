//! For models of a tunnel, in tests and in the simulator: one owner at a time, and buffers as many as it takes.
//!
//! Owns: [`Exclusive`], and the adapter that makes a [`Tunnel`] of it. Never: part of a node.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::agreement::{Answer, Binding, Offer};
use crate::timing::Instant;
use crate::tunnel::{Content, HEADER, Handshake, Opened, Protection, Tunnel};

/// [`Tunnel`] without sharing, and with room of its own for what comes out. What a model leaves out is that of a tunnel
/// which never gets a session.
pub trait Exclusive: Send {
    /// As [`Tunnel::seal_as`]; `out` has room for the message.
    fn seal(&mut self, content: Content, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let _ = (content, packet, out);
        None
    }
    /// As [`Tunnel::open`]; the packet is at the start of `out`, which has room for the whole datagram.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        let _ = (datagram, out);
        Opened::Rejected
    }
    /// As [`Tunnel::initiate`].
    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        let _ = (out, now);
        None
    }
    /// As [`Tunnel::handshake`].
    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let _ = (datagram, out, now);
        Handshake::Rejected
    }
    /// As [`Tunnel::handle_timeout`].
    fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        let _ = (out, now);
        None
    }
    /// As [`Tunnel::session_age_s`].
    fn session_age_s(&self) -> Option<u64> {
        None
    }
    /// As [`Tunnel::initiated`].
    fn initiated(&self) -> Option<u64> {
        None
    }
    /// As [`Tunnel::offer`].
    fn offer(&mut self, _: Instant) -> Option<Offer> {
        None
    }
    /// As [`Tunnel::answer`].
    fn answer(&mut self, _: &Offer, _: &Binding, _: Instant) -> Option<Answer> {
        None
    }
    /// As [`Tunnel::accept`].
    fn accept(&mut self, _: &Answer, _: &Binding, _: Instant) -> bool {
        false
    }
    /// As [`Tunnel::protection`].
    fn protection(&self) -> Option<Protection> {
        self.session_age_s().map(|_| Protection::WIREGUARD)
    }
}

fn own<T>(model: &Mutex<T>) -> MutexGuard<'_, T> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Exclusive> Tunnel for Mutex<T> {
    fn seal_as(&self, content: Content, buffer: &mut [u8], len: usize) -> Option<usize> {
        let packet = buffer[HEADER..HEADER + len].to_vec();
        own(self).seal(content, &packet, buffer)
    }

    fn open(&self, datagram: &mut [u8]) -> Opened {
        let mut room = vec![0; datagram.len()];
        let opened = own(self).open(datagram, &mut room);
        if let Opened::Packet(len) = opened {
            datagram[HEADER..HEADER + len].copy_from_slice(&room[..len]);
        }
        opened
    }

    fn initiate(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        own(self).initiate(out, now)
    }

    fn handshake(&self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        own(self).handshake(datagram, out, now)
    }

    fn handle_timeout(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        own(self).handle_timeout(out, now)
    }

    fn session_age_s(&self) -> Option<u64> {
        own(self).session_age_s()
    }

    fn initiated(&self) -> Option<u64> {
        own(self).initiated()
    }

    fn offer(&self, now: Instant) -> Option<Offer> {
        own(self).offer(now)
    }

    fn answer(&self, offer: &Offer, binding: &Binding, now: Instant) -> Option<Answer> {
        own(self).answer(offer, binding, now)
    }

    fn accept(&self, answer: &Answer, binding: &Binding, now: Instant) -> bool {
        own(self).accept(answer, binding, now)
    }

    fn protection(&self) -> Option<Protection> {
        own(self).protection()
    }
}
