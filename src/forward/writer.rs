//! Opened packets on their way to the device: joined, and written.
//!
//! Owns: [`Writer`], its bounds, and what is done where the kernel refuses a joined packet. Never: a look at whose packet
//! it is.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use frejus_overlay::packet::coalesce::{Coalescer, MAX_SEGMENTS, Output, Refused};
use frejus_overlay::packet::partial::{self, Checksum};
use frejus_overlay::packet::vnet::Gso;
use frejus_overlay::verdict::{Counters, Drop as Reason};
use nix::errno::Errno;

use crate::offload::Offload;
use crate::tun::Tun;

/// Opened bytes that are written out without waiting for the rest of the batch, so that the first leave early and
/// are still in the cache.
const WRITE: usize = 48 << 10;
/// Packets in a batch that is written out: 64 KiB of the smallest datagrams are half of that.
const PACKETS: usize = 4096;

/// Opened packets on their way to the device.
pub(super) struct Writer {
    tun: Arc<Tun>,
    counters: Arc<Counters>,
    /// Bytes pushed and not yet written.
    waiting: usize,
    coalescer: Coalescer,
}

impl Writer {
    pub(super) fn new(tun: Arc<Tun>, counters: Arc<Counters>) -> Self {
        Self { counters, waiting: 0, coalescer: Coalescer::new(PACKETS, tun.joins_udp()), tun }
    }

    /// Takes the opened packet at `range`. A device without the kernel's header is given complete packets only.
    pub(super) fn push(&mut self, arena: &mut [u8], range: Range<usize>, mut checksum: Checksum) {
        if checksum == Checksum::Partial && !self.tun.has_header() {
            if partial::complete(&mut arena[range.clone()]).is_err() {
                return self.counters.count_many(Reason::Malformed, 1);
            }
            checksum = Checksum::Complete;
        }
        // Packets of honest size reach the first bound before the second.
        if self.waiting >= WRITE || self.coalescer.is_full() {
            self.flush(arena);
        }
        match self.coalescer.push_as(checksum, arena, range.clone()) {
            Ok(()) => self.waiting += range.len(),
            Err(Refused::Malformed(_) | Refused::Full) => self.counters.count_many(Reason::Malformed, 1),
        }
    }

    /// Writes everything out.
    pub(super) fn flush(&mut self, arena: &[u8]) {
        self.waiting = 0;
        if self.coalescer.is_empty() {
            return;
        }
        for output in self.coalescer.outputs(arena) {
            self.write(&output);
        }
        self.coalescer.clear();
    }

    /// Writes one output, in parts if the kernel refuses it joined (stable kernels from 6.6.44 did that to short tails).
    fn write(&self, output: &Output<'_>) {
        let which = if output.gso() == Gso::UdpL4 { Offload::UdpCoalescing } else { Offload::TcpCoalescing };
        if output.count() > 1 && !self.tun.joins(which) {
            output.singles().for_each(|single| _ = self.write_single(&single));
            return;
        }
        if output.count() == 1 {
            self.write_single(output);
            return;
        }
        match self.tun.write(&slices(output)[..=output.count()]) {
            Ok(()) => {
                self.counters.packets_in.fetch_add(output.count() as u64, Ordering::Relaxed);
            }
            Err(Errno::EINVAL) => {
                if output.singles().filter(|single| self.write_single(single)).count() == output.count() {
                    self.tun.offloads().refused(which);
                }
            }
            Err(_) => self.counters.count_many(Reason::TunFailed, output.count() as u64),
        }
    }

    /// Writes one packet; whether the kernel took it.
    fn write_single(&self, single: &Output<'_>) -> bool {
        let header = if self.tun.has_header() { single.header() } else { &[] };
        let packet = single.slices().next().unwrap_or_default();
        let taken = self.tun.write(&[IoSlice::new(header), IoSlice::new(packet)]).is_ok();
        if taken {
            self.counters.packets_in.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counters.count_many(Reason::TunFailed, 1);
        }
        taken
    }
}

/// What is gathered in one write: the first [`Output::count`] and one.
fn slices<'a>(output: &'a Output<'_>) -> [IoSlice<'a>; MAX_SEGMENTS + 1] {
    let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
    slices[0] = IoSlice::new(output.header());
    for (to, from) in slices[1..].iter_mut().zip(output.slices()) {
        *to = IoSlice::new(from);
    }
    slices
}
