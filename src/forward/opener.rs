//! What becomes of datagrams that came in: opened, joined, written to the device; passed on; told to control.
//!
//! Owns: the decisions of one receiving thread and what it remembers of its peers; the datagrams lie in an arena of that
//! thread's. Never: receives, answers a handshake, or looks into a relay frame twice.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use frejus_overlay::forward::{Exception, Inward as Decision, Slot, Table};
use frejus_overlay::locator::{Channel, DoorId, Endpoint, Locator, Via};
use frejus_overlay::packet::IpPacket;
use frejus_overlay::packet::partial::Checksum;
use frejus_overlay::stun::{self, Port};
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{HEADER, Opened};
use frejus_overlay::verdict::{Counters, Drop as Reason};
use frejus_overlay::wire::{Frame, RELAY_HEADER, Wireguard, classify, control, relay_header};

use super::responder::{Responder, Verdict};
use super::tables::{Strangers, Talkers, Told};
use super::writer::Writer;
use super::{Control, LONGEST_EXCEPTION, Shared};
use crate::exits::Exits;
use crate::gate::{Gate, Passage};
use crate::tun::Tun;
use crate::udp::WhenFull;
use crate::wireguard::COOKIE_REPLY;

/// Everything but the arena, so that a datagram can be borrowed meanwhile.
pub(super) struct Opener {
    exits: Exits,
    control: Control,
    /// Shared by all pairs: control is one thread, whatever their number.
    gate: Arc<Mutex<Gate>>,
    /// Shared likewise: the budget is the node's.
    responder: Arc<Mutex<Responder>>,
    told: Told,
    talkers: Talkers,
    strangers: Strangers,
    writer: Writer,
}

/// Datagrams that the kernel joined: of one sender, `stride` bytes each, the last maybe shorter, up to `end` in the
/// arena.
#[derive(Clone, Copy)]
pub(super) struct Joined {
    pub(super) end: usize,
    pub(super) stride: usize,
    pub(super) sender: Endpoint,
    /// The address of ours that it was sent to, if the kernel says.
    pub(super) local: Option<IpAddr>,
}

impl Joined {
    /// Where the datagram lies that begins at `start`.
    fn at(&self, start: usize) -> Option<Range<usize>> {
        (start < self.end).then(|| start..self.end.min(start + self.stride))
    }

    /// Where the datagrams end that, from `start` on, satisfy `same`.
    fn run_end(&self, arena: &[u8], start: usize, same: impl Fn(&[u8]) -> bool) -> usize {
        let mut end = start;
        while let Some(datagram) = self.at(end)
            && same(&arena[datagram.clone()])
        {
            end = datagram.end;
        }
        end
    }

    fn count(&self, start: usize, end: usize) -> u64 {
        (end - start).div_ceil(self.stride) as u64
    }
}

/// Data messages of one session, from one place.
#[derive(Clone, Copy)]
struct Messages {
    joined: Joined,
    /// Relay header in front of each, in bytes.
    front: usize,
    from: Locator,
    receiver: u32,
    /// When the batch was read.
    now: Instant,
}

impl Messages {
    fn is_one(&self, datagram: &[u8]) -> bool {
        let message = datagram.get(self.front..).and_then(classify);
        message == Some(Frame::Wireguard(Wireguard::Data(self.receiver)))
    }
}

impl Opener {
    pub(super) fn new(tun: Arc<Tun>, exits: Exits, control: Control, shared: &Shared) -> Self {
        let writer = Writer::new(tun, Arc::clone(&control.counters));
        Self {
            exits,
            control,
            gate: Arc::clone(&shared.gate),
            responder: Arc::clone(&shared.responder),
            told: Told::default(),
            talkers: Talkers::default(),
            strangers: Strangers::default(),
            writer,
        }
    }

    /// Write out what of this batch was kept for joining.
    pub(super) fn flush(&mut self, arena: &[u8]) {
        self.writer.flush(arena);
    }

    /// What came joined from one sender and lies in the arena from `at` on. Keep the arena until [`Self::flush`].
    pub(super) fn handle(
        &mut self,
        table: &Table,
        arena: &mut [u8],
        mut at: usize,
        joined: Joined,
        now: Instant,
    ) {
        while let Some(datagram) = joined.at(at) {
            match classify(&arena[datagram.clone()]) {
                Some(Frame::Wireguard(Wireguard::Data(receiver))) => {
                    let from = Locator::Direct(joined.sender);
                    at = self.data(table, arena, Messages { joined, front: 0, from, receiver, now }, at);
                }
                Some(Frame::Relay(channel, _)) => at = self.relay(table, arena, channel, joined, at, now),
                frame => {
                    self.single(table, frame, &arena[datagram.clone()], joined, now);
                    at = datagram.end;
                }
            }
        }
    }

    /// What is neither data nor relayed.
    fn single(&self, table: &Table, frame: Option<Frame<'_>>, datagram: &[u8], joined: Joined, now: Instant) {
        let sender = joined.sender;
        match frame {
            Some(Frame::Stun) if !stun::is_answer(datagram) => self.answer_stun(table, datagram, joined, now),
            None => self.counters().count(Reason::UnknownFrame),
            Some(frame) => self.submit(table, Locator::Direct(sender), &frame, datagram, now),
        }
    }

    /// What came to the port that speaks nothing but STUN, and lies in the arena from `at` on.
    pub(super) fn handle_stun(
        &self,
        table: &Table,
        arena: &[u8],
        mut at: usize,
        joined: Joined,
        now: Instant,
    ) {
        while let Some(datagram) = joined.at(at) {
            at = datagram.end;
            let bytes = &arena[datagram];
            match classify(bytes) {
                Some(Frame::Stun) if !stun::is_answer(bytes) => self.answer_stun(table, bytes, joined, now),
                _ => self.counters().count(Reason::UnknownFrame),
            }
        }
    }

    fn answer_stun(&self, table: &Table, datagram: &[u8], joined: Joined, now: Instant) {
        let Joined { sender, local, .. } = joined;
        let asked = match sender.via {
            Via::Main => Some(Port::Main),
            Via::Door(DoorId::STUN) => Some(Port::Alternate),
            Via::Door(_) | Via::Stream(_) => None,
        };
        let verdict = {
            let mut responder = self.responder.lock().unwrap_or_else(PoisonError::into_inner);
            responder.judge(datagram, sender.at, (local, table.elsewhere(local)), asked, now)
        };
        match verdict {
            Verdict::Answer(port, by, to, answer) => {
                let at = SocketAddr::new(sender.at.ip(), to);
                let to = match (asked, port) {
                    (Some(Port::Alternate), Port::Main) => Endpoint::main(at),
                    (Some(Port::Main), Port::Alternate) => Endpoint::by_door(DoorId::STUN, at),
                    _ => Endpoint { at, ..sender },
                };
                self.exits.answer(by, to, &answer);
            }
            Verdict::Elsewhere => self.submit(table, Locator::Direct(sender), &Frame::Stun, datagram, now),
            Verdict::Refused(reason) => self.counters().count(reason),
        }
    }

    /// Not authenticated yet, and costly to look at.
    fn submit(&self, table: &Table, from: Locator, frame: &Frame<'_>, bytes: &[u8], now: Instant) {
        if bytes.len() > LONGEST_EXCEPTION {
            return self.counters().count(Reason::UnknownFrame);
        }
        let mut reply = [0; COOKIE_REPLY];
        let knows = |receiver| table.by_receiver(receiver).is_some();
        let passage = {
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            gate.judge(from, frame, bytes, knows, now, &mut reply)
        };
        match passage {
            Passage::Admitted => {
                self.control.tell(Exception::Datagram { from, bytes: bytes.to_vec() });
            }
            Passage::Cookie(length) => self.give_cookie(from, &reply[..length]),
            Passage::Refused(reason) => self.counters().count(reason),
        }
    }

    /// The initiation itself is not looked at: it comes again, with proof of where it comes from.
    fn give_cookie(&self, to: Locator, cookie: &[u8]) {
        self.counters().count(Reason::RateLimited);
        let mut framed = [0; RELAY_HEADER + COOKIE_REPLY];
        let front = match to {
            Locator::Direct(_) => 0,
            Locator::Relayed { channel, .. } => {
                framed[..RELAY_HEADER].copy_from_slice(&relay_header(channel));
                RELAY_HEADER
            }
        };
        let length = front + cookie.len();
        framed[front..length].copy_from_slice(cookie);
        self.exits.send(to.endpoint(), &framed[..length], length, WhenFull::Drop).ok();
    }

    /// Frames of one channel from `start` on: passed on as they are, or opened if we are the channel's end. Where
    /// they end.
    fn relay(
        &mut self,
        table: &Table,
        arena: &mut [u8],
        channel: Channel,
        joined: Joined,
        start: usize,
        now: Instant,
    ) -> usize {
        let header = relay_header(channel);
        let end = joined.run_end(arena, start, |datagram| datagram.starts_with(&header));
        let run = &arena[start..end];
        let frames = joined.count(start, end);
        match table.relay.forward(channel, joined.sender, run.len(), now) {
            Ok(to) => match self.exits.send(to, run, joined.stride, WhenFull::Drop) {
                Ok(()) => {
                    self.counters().relayed.fetch_add(frames, Ordering::Relaxed);
                }
                Err(unsent) => {
                    let left = frames.saturating_sub(unsent.datagrams);
                    self.counters().relayed.fetch_add(left, Ordering::Relaxed);
                    self.counters().count_many(Reason::SendFailed, unsent.datagrams);
                }
            },
            Err(Reason::UnknownChannel) => {
                let from = Locator::Relayed { relay: joined.sender, channel };
                self.unwrap(table, arena, Joined { end, ..joined }, start, from, now);
            }
            Err(reason) => self.counters().count_many(reason, frames),
        }
        end
    }

    /// Frames that end here. Only WireGuard travels in them.
    fn unwrap(
        &mut self,
        table: &Table,
        arena: &mut [u8],
        joined: Joined,
        mut at: usize,
        from: Locator,
        now: Instant,
    ) {
        while let Some(datagram) = joined.at(at) {
            let inner = &arena[datagram.start + RELAY_HEADER..datagram.end];
            match classify(inner) {
                Some(Frame::Wireguard(Wireguard::Data(receiver))) => {
                    let messages = Messages { joined, front: RELAY_HEADER, from, receiver, now };
                    at = self.data(table, arena, messages, at);
                    continue;
                }
                Some(frame @ Frame::Wireguard(_)) => self.submit(table, from, &frame, inner, now),
                _ => self.counters().count(Reason::UnknownFrame),
            }
            at = datagram.end;
        }
    }

    /// Data messages of one session from `start` on; where they end.
    fn data(&mut self, table: &Table, arena: &mut [u8], messages: Messages, mut at: usize) -> usize {
        let Some(slot) = table.by_receiver(messages.receiver) else {
            let end = messages.joined.run_end(arena, at, |datagram| messages.is_one(datagram));
            self.counters().count_many(Reason::UnknownSession, messages.joined.count(at, end));
            // A relay's own session with us is another one.
            if let Locator::Direct(from) = messages.from
                && self.strangers.admit(from.at, messages.now)
            {
                self.control.tell(Exception::Stranger { from });
            }
            return end;
        };
        let (mut authentic, mut bytes) = (false, 0);
        while let Some(datagram) = messages.joined.at(at)
            && messages.is_one(&arena[datagram.clone()])
        {
            at = datagram.end;
            let message = datagram.start + messages.front..datagram.end;
            let (len, checksum) = match slot.tunnel.open(&mut arena[message.clone()]) {
                Opened::Packet(len) => (len, Checksum::Complete),
                Opened::Partial(len) => (len, Checksum::Partial),
                Opened::Keepalive => {
                    authentic = true;
                    continue;
                }
                Opened::Rejected => {
                    self.counters().count(Reason::NotAuthentic);
                    continue;
                }
                Opened::Duplicate => {
                    self.counters().count(Reason::Duplicate);
                    continue;
                }
                Opened::Refused => {
                    self.counters().count(Reason::WireguardKeys);
                    continue;
                }
            };
            authentic = true;
            let start = message.start + HEADER;
            if self.deliver(table, slot, &messages, arena, start..start + len, checksum) {
                bytes += len as u64;
            }
        }
        slot.counters.received(bytes);
        if authentic {
            self.heard(slot, messages.from, messages.now);
        }
        at
    }

    /// A packet of `slot`'s peer lies at `range`. Whether it is data, which keeps the peer awake; control messages do
    /// not.
    fn deliver(
        &mut self,
        table: &Table,
        slot: &Slot,
        messages: &Messages,
        arena: &mut [u8],
        range: Range<usize>,
        checksum: Checksum,
    ) -> bool {
        let packet = &arena[range.clone()];
        let Ok(ip) = IpPacket::parse(packet) else {
            self.counters().count(Reason::Malformed);
            return false;
        };
        match table.inward(slot, ip.source(), ip.destination(), is_control(packet)) {
            Decision::Deliver => {
                self.writer.push(arena, range, checksum);
                return true;
            }
            Decision::Control if packet.len() > LONGEST_EXCEPTION => {
                self.counters().count(Reason::BadMessage)
            }
            Decision::Control if !self.talkers.admit(slot, messages.now) => {
                self.counters().count(Reason::RateLimited);
            }
            Decision::Control => {
                let (from, packet) = (messages.from, packet.to_vec());
                self.control.tell(Exception::Control { slot: slot.id, from, packet });
            }
            Decision::Drop(reason) => self.counters().count(reason),
        }
        false
    }

    /// Something authentic came from the peer: control hears of it if that says something about the path.
    fn heard(&mut self, slot: &Slot, from: Locator, now: Instant) {
        match slot.path {
            None => {
                let announced = &slot.counters.announced;
                if !announced.swap(true, Ordering::Relaxed)
                    && !self.control.tell(Exception::Established { slot: slot.id, from })
                {
                    announced.store(false, Ordering::Relaxed);
                }
            }
            Some(path) if path != from && slot.also != Some(from) && self.told.is_news(slot, from, now) => {
                if self.control.tell(Exception::Strayed { slot: slot.id, from }) {
                    self.told.remember(slot, from, now);
                }
            }
            Some(_) => {}
        }
    }

    fn counters(&self) -> &Counters {
        &self.control.counters
    }
}

/// Whether this is UDP over IPv6 to the port of control messages; that it is to us is for the table to say.
fn is_control(packet: &[u8]) -> bool {
    const UDP: u8 = 17;
    matches!(packet, [first, _, _, _, _, _, UDP, ..] if first >> 4 == 6)
        && packet.get(42..44) == Some(&control::PORT.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_within_joined_datagrams() {
        let sender = Endpoint::main("192.0.2.1:7".parse().unwrap());
        let arena = b"..aaabbbaab";
        let joined = Joined { end: 11, stride: 3, sender, local: None };
        assert_eq!(joined.at(2), Some(2..5));
        assert_eq!(joined.at(11), None);
        assert_eq!(joined.run_end(arena, 2, |datagram| datagram == b"aaa"), 5);
        assert_eq!(joined.run_end(arena, 2, |_| true), 11);
        let short = Joined { end: 8, stride: 3, sender, local: None };
        assert_eq!(short.run_end(b"aaaaaaaa", 3, |datagram| datagram.starts_with(b"aa")), 8);
        assert_eq!(short.count(3, 8), 2);
    }

    #[test]
    fn control_messages_are_told_by_protocol_and_port() {
        let mut packet = [0; 48];
        packet[0] = 0x60;
        packet[6] = 17;
        packet[42..44].copy_from_slice(&control::PORT.to_be_bytes());
        assert!(is_control(&packet));
        assert!(!is_control(&packet[..43]));
        for (at, other) in [(0, 0x45), (6, 6), (42, 0)] {
            let mut packet = packet;
            packet[at] = other;
            assert!(!is_control(&packet));
        }
    }
}
