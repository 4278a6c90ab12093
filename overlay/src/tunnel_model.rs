//! For models of a tunnel, in tests and in the simulator: one owner at a time, and buffers as many as it takes.
//!
//! Owns: [`Exclusive`], and the adapter that makes a [`Tunnel`] of it. Never: part of a node.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::timing::Instant;
use crate::tunnel::{HEADER, Handshake, Opened, Tunnel};

/// [`Tunnel`] without sharing, and with room of its own for what comes out.
pub trait Exclusive: Send {
    /// As [`Tunnel::seal`]; `out` has room for the message.
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize>;
    /// As [`Tunnel::open`]; the packet is at the start of `out`, which has room for the whole datagram.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened;
    /// As [`Tunnel::initiate`].
    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize>;
    /// As [`Tunnel::handshake`].
    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake;
    /// As [`Tunnel::handle_timeout`].
    fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize>;
    /// As [`Tunnel::session_age_s`].
    fn session_age_s(&self) -> Option<u64>;
}

fn own<T>(model: &Mutex<T>) -> MutexGuard<'_, T> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Exclusive> Tunnel for Mutex<T> {
    fn seal(&self, buffer: &mut [u8], len: usize) -> Option<usize> {
        let packet = buffer[HEADER..HEADER + len].to_vec();
        own(self).seal(&packet, buffer)
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
}
