//! TUN→UDP: read a batch, cut, seal, send.
//!
//! Owns: the reading of the device and two arenas; which thread does it is [`super::duty`]'s to say. Never: a handshake, a decision about an unknown destination.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use frejus_overlay::forward::{Exception, Outward as Decision, Slot, Table};
use frejus_overlay::locator::Locator;
use frejus_overlay::packet::fragment::{Oversize, oversize};
use frejus_overlay::packet::partial::{self, Checksum};
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::vnet::{self, VnetHeader};
use frejus_overlay::packet::{IpPacket, MAX_PACKET};
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{Content, HEADER, OVERHEAD, Tunnel};
use frejus_overlay::verdict::{Counters, Drop as Reason};
use frejus_overlay::wire;
use nix::errno::Errno;

use super::duty::Amount;
use super::oversize::Teller;
use super::{Control, LONGEST_EXCEPTION, Published};
use crate::clock::Clock;
use crate::exits::Exits;
use crate::tun::Tun;
use crate::udp::{MAX_PAYLOAD, MAX_SEGMENTS, WhenFull};

/// Room for one packet with its header.
const SLOT: usize = vnet::LENGTH + MAX_PACKET;
/// A batch is at most this many super-packets: 256 KiB, a quarter of the second-level cache.
const SUPER_PACKETS: usize = 4;
/// And at most this many packets, so that the first of many small ones leaves soon.
const PACKETS: usize = 64;
/// A device that gives errors instead of packets is asked again after this long.
const BROKEN: Duration = Duration::from_millis(100);

/// From the device to the sockets.
pub(super) struct Outward {
    tun: Arc<Tun>,
    table: Arc<Published>,
    clock: Clock,
    batch: Batch,
    sealer: Sealer,
    /// Whether the last read failed.
    broken: bool,
}

/// Packets as they came from the device, one behind the other.
struct Batch {
    arena: Box<[u8]>,
    /// Where each begins, its header included, and how long it is with it.
    packets: Vec<(usize, usize)>,
}

/// One run of datagrams to one place, sealed back to back; the last may be shorter than the others.
struct Run {
    arena: Box<[u8]>,
    len: usize,
    stride: usize,
    datagrams: usize,
    closed: bool,
    inner: u64,
}

/// Everything that is needed to seal and send; apart from the batch, so that a packet can be borrowed meanwhile.
struct Sealer {
    exits: Exits,
    control: Control,
    scratch: Box<[u8]>,
    run: Run,
    /// The run once more, as it goes on a second path.
    copy: Box<[u8]>,
    teller: Teller,
    /// Identifies the fragments of one packet.
    fragmented: u32,
}

impl Outward {
    pub(super) fn new(
        tun: Arc<Tun>,
        exits: Exits,
        table: Arc<Published>,
        control: Control,
        clock: Clock,
    ) -> Self {
        let batch =
            Batch { arena: vec![0; SUPER_PACKETS * SLOT].into(), packets: Vec::with_capacity(PACKETS) };
        let sealer = Sealer {
            exits,
            control,
            scratch: vec![0; MAX_PACKET].into(),
            run: Run::new(),
            copy: vec![0; MAX_PAYLOAD].into(),
            teller: Teller::new(Arc::clone(&tun)),
            fragmented: std::process::id().rotate_left(16),
        };
        Self { tun, table, clock, batch, sealer, broken: false }
    }

    /// Waits for a packet, and sends what the device has; also when that was. A signal ends the wait with `EINTR`; other
    /// errors are the device's, and come no faster than every [`BROKEN`].
    pub(super) fn forward_next(&mut self) -> (Result<Amount, Errno>, Instant) {
        match self.batch.read(&self.tun) {
            Ok(()) => {
                self.broken = false;
                (Ok(self.forward()), self.clock.latest())
            }
            Err(error @ (Errno::EINTR | Errno::EBADFD)) => (Err(error), self.clock.instant()),
            Err(error) => {
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::warn!(device = self.tun.name(), %error, "the TUN device gives errors");
                }
                std::thread::sleep(BROKEN);
                (Err(error), self.clock.instant())
            }
        }
    }

    /// Sends what the device has.
    ///
    /// # Errors
    /// `EAGAIN` if it has nothing.
    pub(super) fn forward_ready(&mut self) -> Result<Amount, Errno> {
        self.batch.read_ready(&self.tun)?;
        Ok(self.forward())
    }

    fn forward(&mut self) -> Amount {
        // A reading a batch: tunnels go by the latest.
        self.sealer.teller.now = self.clock.instant();
        let table = self.table.snapshot();
        let planner =
            Planner { batch: &self.batch, header: self.tun.has_header(), mtu: self.tun.mtu().into() };
        let counters = Arc::clone(&self.sealer.control.counters);
        let mut next = 0;
        while next < self.batch.packets.len() {
            match planner.decide(&table, next) {
                Ok((segments, Decision::Send(slot, path))) => {
                    next = self.sealer.send(&planner, &table, slot, path, segments, next + 1);
                    continue;
                }
                Ok((segments, Decision::Ask)) => self.sealer.ask(segments),
                Ok((_, Decision::Drop(reason))) | Err(reason) => counters.count_many(reason, 1),
            }
            next += 1;
        }
        self.batch.amount()
    }
}

/// What becomes of a packet of the batch.
struct Planner<'a> {
    batch: &'a Batch,
    /// Whether the device puts its header in front.
    header: bool,
    mtu: usize,
}

impl<'a> Planner<'a> {
    fn decide<'t>(&self, table: &'t Table, index: usize) -> Result<(Segments<'a>, Decision<'t>), Reason> {
        let (start, len) = self.batch.packets[index];
        let mut packet = &self.batch.arena[start..start + len];
        let mut vnet = VnetHeader::default();
        if self.header {
            let (first, rest) = packet.split_first_chunk().ok_or(Reason::Malformed)?;
            vnet = VnetHeader::decode(first).ok_or(Reason::Malformed)?;
            packet = rest;
        }
        let ip = IpPacket::parse(packet).map_err(|_| Reason::Malformed)?;
        let destination = ip.destination();
        if is_noise(destination) {
            return Err(Reason::NoRoute);
        }
        let decision = table.outward(ip.source(), destination);
        let longest = match &decision {
            Decision::Send(slot, _) => self.mtu.min(slot.mtu.bytes.into()),
            Decision::Ask | Decision::Drop(_) => self.mtu,
        };
        let segments = Segments::of(vnet, ip, longest).map_err(|_| Reason::Malformed)?;
        Ok((segments, decision))
    }
}

/// Destinations that the kernel talks to on every interface, and that nobody can hold.
fn is_noise(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

impl Batch {
    /// Waits for a packet, and reads until the batch is full or the device has no more.
    fn read(&mut self, tun: &Tun) -> Result<(), Errno> {
        self.packets.clear();
        let len = tun.read(&mut self.arena[..SLOT])?;
        self.packets.push((0, len));
        self.drain(tun, len);
        Ok(())
    }

    /// The same without waiting; `EAGAIN` if there is nothing.
    fn read_ready(&mut self, tun: &Tun) -> Result<(), Errno> {
        self.packets.clear();
        let len = tun.read_ready(&mut self.arena[..SLOT])?;
        self.packets.push((0, len));
        self.drain(tun, len);
        Ok(())
    }

    /// An error is met again by the next read, which reports it.
    fn drain(&mut self, tun: &Tun, mut at: usize) {
        while self.packets.len() < PACKETS
            && self.arena.len() - at >= SLOT
            && let Ok(len) = tun.read_ready(&mut self.arena[at..at + SLOT])
        {
            self.packets.push((at, len));
            at += len;
        }
    }

    fn amount(&self) -> Amount {
        let bytes = self.packets.last().map_or(0, |(start, len)| start + len);
        Amount { packets: self.packets.len(), bytes }
    }
}

impl Run {
    fn new() -> Self {
        Self { arena: vec![0; MAX_PAYLOAD].into(), len: 0, stride: 0, datagrams: 0, closed: false, inner: 0 }
    }

    /// Whether a datagram of `size` bytes may follow those that are here.
    const fn takes(&self, size: usize) -> bool {
        if self.len + size > self.arena.len() {
            return false;
        }
        self.datagrams == 0 || (!self.closed && size <= self.stride && self.datagrams < MAX_SEGMENTS)
    }

    fn push(&mut self, size: usize, inner: usize) {
        if self.datagrams == 0 {
            self.stride = size;
        }
        self.closed = size < self.stride;
        self.datagrams += 1;
        self.len += size;
        self.inner += inner as u64;
    }

    const fn clear(&mut self) {
        (self.len, self.stride, self.datagrams, self.closed, self.inner) = (0, 0, 0, false, 0);
    }
}

impl Sealer {
    /// Seals and sends `segments`, and the packets from `next` on as long as they go to the same peer; which packet
    /// is next then.
    fn send<'a>(
        &mut self,
        planner: &Planner<'a>,
        table: &Table,
        slot: &Slot,
        path: Locator,
        segments: Segments<'a>,
        mut next: usize,
    ) -> usize {
        let mut feed = segments;
        loop {
            let full = loop {
                if !self.fill(slot, path, &mut feed) {
                    break true;
                }
                if next >= planner.batch.packets.len() {
                    break false;
                }
                match planner.decide(table, next) {
                    Ok((segments, Decision::Send(same, _))) if same.id == slot.id => {
                        feed = segments;
                        next += 1;
                    }
                    _ => break false,
                }
            };
            self.flush(slot, path);
            if !full {
                return next;
            }
        }
    }

    /// Writes what the feed has straight into the run, and seals it there; `false` if the run is full before.
    fn fill(&mut self, slot: &Slot, path: Locator, feed: &mut Segments<'_>) -> bool {
        let tunnel = &*slot.tunnel;
        let header = relay_header(path);
        let front = header.map_or(0, |header| header.len());
        while let Some(inner) = feed.next_len() {
            if !slot.mtu.takes(inner) {
                if self.run.datagrams > 0 {
                    return false;
                }
                self.oversize(slot, path, feed);
                continue;
            }
            let size = front + inner + OVERHEAD;
            if size > MAX_PAYLOAD {
                self.control.counters.count_many(Reason::SendFailed, 1);
                feed.skip_next();
                continue;
            }
            if !self.run.takes(size) {
                return false;
            }
            let room = &mut self.run.arena[self.run.len..self.run.len + size];
            let written = feed.write_next_as(feed.checksum(), &mut room[front + HEADER..]);
            if written.is_none_or(|written| written.is_err()) {
                self.counters().count(Reason::Malformed);
                continue;
            }
            if let Some(header) = &header {
                room[..front].copy_from_slice(header);
            }
            match seal(tunnel, feed.checksum(), &mut room[front..], inner) {
                Some(len) => self.run.push(front + len, inner),
                None => unroutable(&self.control, &room[front + HEADER..][..inner]),
            }
        }
        true
    }

    /// A packet that the path does not take, while the run is empty: its fragments are sealed into the run, or its sender
    /// is told.
    fn oversize(&mut self, slot: &Slot, path: Locator, feed: &mut Segments<'_>) {
        let written = feed.write_next(&mut self.scratch).and_then(Result::ok);
        let packet = written.and_then(|length| IpPacket::parse(&self.scratch[..length]).ok());
        let Some(packet) = packet else { return self.control.counters.count(Reason::Malformed) };
        self.fragmented = self.fragmented.wrapping_add(1);
        let mut fragments = match oversize(&packet, slot.mtu.bytes, self.fragmented) {
            Oversize::Fragments(fragments) => fragments,
            Oversize::Tell(mtu) => {
                self.control.counters.count(Reason::TooBig);
                return self.teller.tell(&packet, mtu);
            }
        };
        let header = relay_header(path);
        let front = header.map_or(0, |header| header.len());
        while let Some(inner) = fragments.next_len() {
            let size = front + inner + OVERHEAD;
            if !self.run.takes(size) {
                return self.control.counters.count(Reason::SendFailed);
            }
            let room = &mut self.run.arena[self.run.len..self.run.len + size];
            if fragments.write_next(&mut room[front + HEADER..]).is_none_or(|written| written.is_err()) {
                return self.control.counters.count(Reason::Malformed);
            }
            room[..front].copy_from_slice(header.as_ref().map_or(&[], |header| header));
            match slot.tunnel.seal(&mut room[front..], inner) {
                Some(len) => self.run.push(front + len, inner),
                None => return self.control.counters.count(Reason::Unreachable),
            }
        }
    }

    /// Sends the run.
    fn flush(&mut self, slot: &Slot, path: Locator) {
        let Run { len, stride, datagrams, inner, .. } = self.run;
        if datagrams == 0 {
            return;
        }
        let sent = self.exits.send(path.endpoint(), &self.run.arena[..len], stride, WhenFull::Wait);
        let mut unsent = sent.map_or_else(|unsent| unsent.datagrams, |()| 0);
        if let Some(also) = slot.also {
            unsent = unsent.min(self.repeat(path, also));
        }
        self.counters().packets_out.fetch_add((datagrams as u64).saturating_sub(unsent), Ordering::Relaxed);
        self.counters().count_many(Reason::SendFailed, unsent);
        if unsent == 0 && slot.counters.sent(inner) && !self.control.tell(Exception::Woken { slot: slot.id })
        {
            slot.counters.awake.store(false, Ordering::Relaxed);
        }
        self.run.clear();
    }

    /// Sends the same messages on a second path; how many of them did not leave. The receiver takes whichever copy comes
    /// first.
    fn repeat(&mut self, path: Locator, also: Locator) -> u64 {
        let front = relay_header(path).map_or(0, |header| header.len());
        let header = relay_header(also);
        let header: &[u8] = header.as_ref().map_or(&[], |header| header);
        let stride = self.run.stride - front + header.len();
        let (mut unsent, mut at) = (0, 0);
        for datagram in self.run.arena[..self.run.len].chunks(self.run.stride) {
            let size = datagram.len() - front + header.len();
            if size > self.copy.len() {
                unsent += 1;
                continue;
            }
            if at + size > self.copy.len() {
                unsent += give(&self.exits, also, &self.copy[..at], stride);
                at = 0;
            }
            let room = &mut self.copy[at..at + size];
            room[..header.len()].copy_from_slice(header);
            room[header.len()..].copy_from_slice(&datagram[front..]);
            at += size;
        }
        unsent + give(&self.exits, also, &self.copy[..at], stride)
    }

    /// Control finds out who holds the destination; it gets the packets as the peer would.
    fn ask(&mut self, mut segments: Segments<'_>) {
        while let Some(written) = segments.write_next(&mut self.scratch) {
            match written {
                Ok(len) => unroutable(&self.control, &self.scratch[..len]),
                Err(_) => self.counters().count(Reason::Malformed),
            }
        }
    }

    fn counters(&self) -> &Counters {
        &self.control.counters
    }
}

/// Seals the packet of `len` bytes behind the header in `room`. A checksum that was left to the receiver is filled in
/// where there are no keys that allow it; in any case the packet is complete if it could not be sealed.
fn seal(tunnel: &dyn Tunnel, checksum: Checksum, room: &mut [u8], len: usize) -> Option<usize> {
    if checksum == Checksum::Partial {
        if let Some(sealed) = tunnel.seal_as(Content::Partial, room, len) {
            return Some(sealed);
        }
        partial::complete(&mut room[HEADER..HEADER + len]).expect("only what can be completed is left");
    }
    tunnel.seal(room, len)
}

/// Sends a copy if the socket has room for it; how many of its datagrams did not leave.
fn give(exits: &Exits, to: Locator, copy: &[u8], stride: usize) -> u64 {
    exits.send(to.endpoint(), copy, stride, WhenFull::Drop).map_or_else(|unsent| unsent.datagrams, |()| 0)
}

/// What stands in front of every message on this path.
fn relay_header(path: Locator) -> Option<[u8; wire::RELAY_HEADER]> {
    match path {
        Locator::Direct(_) => None,
        Locator::Relayed { channel, .. } => Some(wire::relay_header(channel)),
    }
}

/// A packet that has nowhere to go yet.
fn unroutable(control: &Control, packet: &[u8]) {
    if packet.len() > LONGEST_EXCEPTION || IpPacket::parse(packet).is_err() {
        control.counters.count(Reason::Malformed);
    } else {
        control.tell_of_our_own(Exception::Unroutable { packet: packet.to_vec() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_equal_datagrams_and_a_shorter_last_one() {
        let mut run = Run::new();
        for _ in 0..10 {
            assert!(run.takes(1300));
            run.push(1300, 1268);
        }
        assert!(!run.takes(1301), "longer than the others");
        assert!(run.takes(400));
        run.push(400, 368);
        assert!(!run.takes(400) && !run.takes(1), "nothing follows a shorter one");
        assert_eq!((run.len, run.stride, run.datagrams, run.inner), (13_400, 1300, 11, 13_048));
        run.clear();
        let many = (0..).take_while(|_| run.takes(100)).inspect(|_| ()).take(200);
        assert_eq!(many.count(), 200, "asking changes nothing");
        while run.takes(100) {
            run.push(100, 68);
        }
        assert_eq!(run.datagrams, MAX_SEGMENTS);
        run.clear();
        while run.takes(1312) {
            run.push(1312, 1280);
        }
        assert_eq!(run.datagrams, 49, "as many as one UDP payload holds");
    }

    #[test]
    fn noise() {
        for noise in ["224.0.0.251", "255.255.255.255", "169.254.1.1", "ff02::2", "fe80::1"] {
            assert!(is_noise(noise.parse().unwrap()), "{noise}");
        }
        assert!(!is_noise("10.1.2.3".parse().unwrap()) && !is_noise("fd00::1".parse().unwrap()));
    }
}
