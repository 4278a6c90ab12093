//! UDP→TUN: receive a batch and have it opened.
//!
//! Owns: the thread, and the arena in which datagrams are received and opened. Never: what becomes of a datagram.

use std::array;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::Thread;

use frejus_overlay::locator::Endpoint;
use quinn_udp::RecvMeta;

use super::duty::{Amount, Duty};
use super::opener::{Joined, Opener};
use super::{Published, Stop};
use crate::clock::Clock;
use crate::tun::Tun;
use crate::udp::Udp;

/// Receives in one system call: many, for networks where the kernel joins nothing. Untouched pages cost nothing.
const SLOTS: usize = 32;
/// The longest that the kernel may join; shorter slots would be cut off silently.
const SLOT: usize = 1 << 16;
/// Batches from one socket before the other has its turn.
const TURNS: usize = 8;
/// The thread.
pub(super) struct Inward {
    tun: Arc<Tun>,
    udp: Udp,
    table: Arc<Published>,
    clock: Clock,
    /// The arena: datagrams are opened where they were received, and written out from there.
    slots: Box<[u8]>,
    opener: Opener,
}

impl Inward {
    pub(super) fn new(tun: Arc<Tun>, udp: Udp, table: Arc<Published>, opener: Opener, clock: Clock) -> Self {
        Self { tun, udp, table, clock, slots: vec![0; SLOTS * SLOT].into(), opener }
    }

    /// Until the end. While the threads are together, the device is served as well.
    pub(super) fn run(mut self, stop: &Stop, duty: &Duty, outward: &Thread) {
        loop {
            let together = duty.is_together();
            let ready = {
                let device = together.then(|| self.tun.as_fd());
                let mut sockets = self.udp.descriptors();
                let Some(ready) = stop.wait([sockets.next(), sockets.next(), device]) else { return };
                ready
            };
            let mut amount = Amount::default();
            for (socket, _) in ready[..2].iter().enumerate().filter(|(_, ready)| **ready) {
                for _ in 0..TURNS {
                    let batch = self.batch(socket);
                    duty.note(batch, self.clock.latest());
                    amount.bytes = amount.bytes.max(batch.bytes);
                    amount.packets = amount.packets.max(batch.packets);
                    // Fewer than there was room for: the socket is empty, and asking again would only say so.
                    if batch.packets < SLOTS || stop.is_set() {
                        break;
                    }
                }
            }
            if together {
                duty.serve(amount, outward);
            }
        }
    }

    /// Receives and handles one batch; how many slots were filled, and their bytes.
    fn batch(&mut self, socket: usize) -> Amount {
        let mut meta = [RecvMeta::default(); SLOTS];
        let mut slots = self.slots.chunks_exact_mut(SLOT);
        let mut buffers: [_; SLOTS] =
            array::from_fn(|_| IoSliceMut::new(slots.next().expect("the arena has as many slots")));
        let Ok(filled) = self.udp.receive(socket, &mut buffers, &mut meta) else { return Amount::default() };
        let now = self.clock.instant();
        let table = self.table.snapshot();
        for (slot, meta) in meta[..filled].iter().enumerate() {
            if meta.stride > 0 {
                let start = slot * SLOT;
                let end = start + meta.len.min(SLOT);
                let sender = Endpoint::main(meta.addr);
                let joined = Joined { end, stride: meta.stride, sender, local: meta.dst_ip };
                self.opener.handle(&table, &mut self.slots, start, joined, now);
            }
        }
        self.opener.flush(&self.slots);
        Amount { packets: filled, bytes: meta[..filled].iter().map(|meta| meta.len).sum() }
    }
}
