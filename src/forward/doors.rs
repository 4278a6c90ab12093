//! Doors→TUN: receive from the node's further sockets and have it opened.
//!
//! Owns: the thread, and the arena in which datagrams are received and opened. It sleeps while no door is open. Never:
//! what becomes of a datagram.

use std::array;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::sync::Arc;

use frejus_overlay::locator::{DoorId, Endpoint};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::RecvMeta;

use super::opener::{Joined, Opener};
use super::{Published, Stop};
use crate::clock::Clock;
use crate::udp::{Door, Doors};

/// Receives in one system call.
const SLOTS: usize = 8;
/// The longest that the kernel may join; shorter slots would be cut off silently.
const SLOT: usize = 1 << 16;

/// The thread.
pub(super) struct Doorway {
    doors: Doors,
    table: Arc<Published>,
    clock: Clock,
    slots: Box<[u8]>,
    opener: Opener,
}

impl Doorway {
    pub(super) fn new(doors: Doors, table: Arc<Published>, opener: Opener, clock: Clock) -> Self {
        Self { doors, table, clock, slots: vec![0; SLOTS * SLOT].into(), opener }
    }

    /// Until the end.
    pub(super) fn run(mut self, stop: &Stop) {
        let mut open = self.doors.take_list();
        while let Some(ready) = wait(stop, &self.doors, &open) {
            for (id, door) in ready.doors.into_iter().map(|at| open[at].clone()) {
                self.batch(id, &door);
            }
            if ready.changed {
                open = self.doors.take_list();
            }
        }
    }

    fn batch(&mut self, id: DoorId, door: &Door) {
        let mut meta = [RecvMeta::default(); SLOTS];
        let mut slots = self.slots.chunks_exact_mut(SLOT);
        let mut buffers: [_; SLOTS] =
            array::from_fn(|_| IoSliceMut::new(slots.next().expect("the arena has as many slots")));
        let Ok(filled) = door.receive(&mut buffers, &mut meta) else { return };
        let now = self.clock.instant();
        let table = self.table.snapshot();
        for (slot, meta) in meta[..filled].iter().enumerate().filter(|(_, meta)| meta.stride > 0) {
            let start = slot * SLOT;
            let sender = Endpoint::by_door(id, meta.addr);
            let end = start + meta.len.min(SLOT);
            let joined = Joined { end, stride: meta.stride, sender, local: meta.dst_ip };
            if id == DoorId::STUN {
                self.opener.handle_stun(&table, &self.slots, start, joined, now);
            } else {
                self.opener.handle(&table, &mut self.slots, start, joined, now);
            }
        }
        self.opener.flush(&self.slots);
    }
}

/// What has something to read.
struct Ready {
    changed: bool,
    /// By their places in the list.
    doors: Vec<usize>,
}

/// Sleeps until there is something to read; `None` at the end.
fn wait(stop: &Stop, doors: &Doors, open: &[(DoorId, Arc<Door>)]) -> Option<Ready> {
    let own = [stop.event.as_fd(), doors.changed()];
    let all = own.into_iter().chain(open.iter().map(|(_, door)| door.descriptor()));
    let mut all: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    while poll(&mut all, PollTimeout::NONE) == Err(Errno::EINTR) && !stop.is_set() {}
    if stop.is_set() {
        return None;
    }
    let mut ready = all.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).skip(1);
    let changed = ready.next() == Some(true);
    Some(Ready { changed, doors: ready.enumerate().filter(|(_, ready)| *ready).map(|(at, _)| at).collect() })
}
