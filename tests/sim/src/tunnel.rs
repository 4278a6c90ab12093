//! A model of WireGuard's tunnel: its messages by size and first bytes, its sessions, its timers; no cryptography.
//!
//! Owns: [`ModelTunnel`]. What it keeps of the original (paper, sections 5 and 6, and boringtun's habits): receiver
//! index `index << 8 | session`, eight sessions at a time; a responder seals with a session only after the first
//! data on it; initiations carry a timestamp that must grow; data is accepted once; rekey at 120 s by the initiator,
//! end at 180 s; keepalive after 10 s of silence, a new handshake after 15 s without an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use frejus_overlay::agreement::{Answer, Binding, Offer, is_transport};
use frejus_overlay::id::TunnelKey;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::timing::{Instant, UnixTime};
use frejus_overlay::tunnel::{Content, HEADER, Handshake, Opened, Protection};
use frejus_overlay::tunnel_model::Exclusive;
use frejus_overlay::wire::control;

use crate::crypto::{Clock, Secret, TAG, derived, mask, shared, tag};
use crate::dice::Dice;
use crate::keys::{Keys, Policy, index_at, read, write};

const INITIATION: usize = 148;
const RESPONSE: usize = 92;
const SESSIONS: usize = 8;
/// Counters this far behind the newest are refused; the paper asks for about 2000.
const WINDOW: u64 = 2048;

const REKEY_AFTER: Duration = Duration::from_secs(120);
const REJECT_AFTER: Duration = Duration::from_secs(180);
const ATTEMPT: Duration = Duration::from_secs(90);
const RETRY: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// An initiation younger than this is not repeated on demand.
const FRESH: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Session {
    local: u32,
    remote: u32,
    secret: Secret,
    initiator: bool,
    established: Instant,
    sent: u64,
    newest: u64,
    seen: BTreeSet<u64>,
}

impl Session {
    fn new(local: u32, remote: u32, secret: Secret, initiator: bool, established: Instant) -> Self {
        Self { local, remote, secret, initiator, established, sent: 0, newest: 0, seen: BTreeSet::new() }
    }

    /// Keys of the two directions differ: a packet sent back to its sender is not authentic.
    fn direction(&self, from_initiator: bool) -> Secret {
        derived(self.secret, b"direction", &[&[u8::from(from_initiator)]])
    }

    /// Whether `counter` is new; remembers it.
    fn admit(&mut self, counter: u64) -> bool {
        if counter + WINDOW < self.newest || !self.seen.insert(counter) {
            return false;
        }
        self.newest = self.newest.max(counter);
        let oldest = self.newest.saturating_sub(WINDOW);
        while self.seen.first().is_some_and(|first| *first < oldest) {
            self.seen.pop_first();
        }
        true
    }
}

/// An initiation that waits for its response.
#[derive(Clone, Copy, Debug)]
struct Pending {
    local: u32,
    ephemeral: [u8; 32],
    sent: Instant,
    first: Instant,
}

/// When what happened last.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    any_received: Instant,
    any_sent: Instant,
    data_received: Instant,
    data_sent: Instant,
    /// Under transport keys.
    keyed_sent: Instant,
    want_keepalive: bool,
    want_handshake: bool,
}

/// All sessions with one peer.
#[derive(Debug)]
pub struct ModelTunnel {
    own: TunnelKey,
    peer: TunnelKey,
    secret: Secret,
    index: u32,
    next: u8,
    sessions: [Option<Session>; SESSIONS],
    current: Option<usize>,
    /// The initiation under way, and the one before it, whose response is still good.
    pending: Option<Pending>,
    previous: Option<Pending>,
    /// The newest timestamp of the peer's initiations.
    newest: u128,
    last: Last,
    /// Sessions that became the current one.
    made: u64,
    keys: Keys,
    dice: Dice,
    clock: Clock,
    began: UnixTime,
}

impl ModelTunnel {
    /// Between the holder of `own` and the holder of `peer`; `began` is our wall clock when the world began.
    #[must_use]
    pub fn new(
        own: TunnelKey,
        peer: TunnelKey,
        index: u32,
        dice: Dice,
        clock: Clock,
        began: UnixTime,
    ) -> Self {
        let secret = shared(&own, &peer);
        let sessions = [const { None }; SESSIONS];
        let last = Last::default();
        let (pending, previous, newest, current) = (None, None, 0, None);
        Self {
            own,
            peer,
            secret,
            index,
            next: 0,
            sessions,
            current,
            pending,
            previous,
            newest,
            last,
            made: 0,
            keys: Keys::new(index, Policy::default()),
            dice,
            clock,
            began,
        }
    }

    /// The same, with this done about transport keys.
    #[must_use]
    pub const fn carrying(mut self, policy: Policy) -> Self {
        self.keys.policy = policy;
        self
    }

    fn next_index(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.index << 8 | u32::from(self.next)
    }

    fn usable(&self, at: usize, now: Instant) -> bool {
        self.sessions[at].as_ref().is_some_and(|session| now.since(session.established) < REJECT_AFTER)
    }

    fn session_secret(&self, ephemerals: [&[u8]; 2]) -> Secret {
        derived(self.secret, b"session", &ephemerals)
    }

    fn write_initiation(&mut self, out: &mut [u8], now: Instant) -> usize {
        let (local, ephemeral) = (self.next_index(), self.dice.bytes());
        let first = self.pending.map_or(now, |pending| pending.first);
        self.previous = self.pending.replace(Pending { local, ephemeral, sent: now, first });
        let wall = (Duration::from_secs(self.began.0) + now.since_start()).as_nanos();
        let out = &mut out[..INITIATION];
        out.fill(0);
        out[0] = 1;
        out[4..8].copy_from_slice(&local.to_le_bytes());
        out[8..40].copy_from_slice(&ephemeral);
        out[40..72].copy_from_slice(&self.own.0);
        mask(to_responder(&self.peer, &ephemeral), 0, &mut out[40..72]);
        out[88..100].copy_from_slice(&wall.to_be_bytes()[4..]);
        let authentic = tag(self.secret, &[b"initiation", &out[..100]]);
        out[100..116].copy_from_slice(&authentic);
        let mac = tag(to_responder(&self.peer, &[]), &[&out[..116]]);
        out[116..132].copy_from_slice(&mac);
        self.last.any_sent = now;
        INITIATION
    }

    fn on_initiation(&mut self, message: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let authentic = initiator(&self.own, message) == Some(self.peer)
            && tag(self.secret, &[b"initiation", &message[..100]]) == message[100..116];
        let mut timestamp = [0; 16];
        timestamp[4..].copy_from_slice(&message[88..100]);
        let timestamp = u128::from_be_bytes(timestamp);
        if !authentic || timestamp <= self.newest {
            return Handshake::Rejected;
        }
        self.newest = timestamp;
        self.previous = self.pending.take();
        let remote = index_at(message, 4);
        let (local, ephemeral): (_, [u8; 32]) = (self.next_index(), self.dice.bytes());
        let secret = self.session_secret([&message[8..40], &ephemeral]);
        self.sessions[local as usize % SESSIONS] = Some(Session::new(local, remote, secret, false, now));
        let out = &mut out[..RESPONSE];
        out.fill(0);
        out[0] = 2;
        out[4..8].copy_from_slice(&local.to_le_bytes());
        out[8..12].copy_from_slice(&remote.to_le_bytes());
        out[12..44].copy_from_slice(&ephemeral);
        let authentic = tag(secret, &[b"response", &out[..44]]);
        out[44..60].copy_from_slice(&authentic);
        let mac = tag(to_responder(&self.peer, &[]), &[&out[..60]]);
        out[60..76].copy_from_slice(&mac);
        (self.last.any_received, self.last.any_sent) = (now, now);
        Handshake::Reply(RESPONSE)
    }

    fn on_response(&mut self, message: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let mine = |pending: &Option<Pending>| pending.is_some_and(|p| p.local == index_at(message, 8));
        let is_previous = !mine(&self.pending);
        let found = if is_previous { self.previous.filter(|_| mine(&self.previous)) } else { self.pending };
        let Some(pending) = found else { return Handshake::Rejected };
        let secret = self.session_secret([&pending.ephemeral, &message[12..44]]);
        if tag(secret, &[b"response", &message[..44]]) != message[44..60] {
            return Handshake::Rejected;
        }
        *(if is_previous { &mut self.previous } else { &mut self.pending }) = None;
        let at = pending.local as usize % SESSIONS;
        self.sessions[at] = Some(Session::new(pending.local, index_at(message, 4), secret, true, now));
        self.current = Some(at);
        self.made += 1;
        self.last.any_received = now;
        self.seal_with_session(&[], out).map_or(Handshake::Accepted, Handshake::Reply)
    }

    /// Whether the timers want a new handshake.
    fn needs_handshake(&mut self, now: Instant) -> bool {
        if let Some(pending) = self.pending {
            if now.since(pending.first) >= ATTEMPT {
                (self.pending, self.previous, self.current) = (None, None, None);
                self.sessions = [const { None }; SESSIONS];
                return false;
            }
            return now.since(pending.sent) >= RETRY;
        }
        let last = self.last;
        let aged = self.current.and_then(|at| self.sessions[at].as_ref()).is_some_and(|session| {
            let age = now.since(session.established);
            session.initiator
                && (last.data_sent.max(last.keyed_sent) > session.established && age >= REKEY_AFTER
                    || last.data_received > session.established && age >= REJECT_AFTER - KEEPALIVE - RETRY)
        });
        let unanswered = last.data_sent > last.any_received
            && now.since(last.any_received) >= KEEPALIVE + RETRY
            && std::mem::take(&mut self.last.want_handshake);
        aged || unanswered
    }
}

/// A secret that everybody who knows the responder's public key can derive (mac1, and the mask of the static key).
fn to_responder(responder: &TunnelKey, ephemeral: &[u8]) -> Secret {
    derived([1, 2], b"to responder", &[&responder.0, ephemeral])
}

/// Who `initiation` says it is from, if it is for `own`.
pub(crate) fn initiator(own: &TunnelKey, initiation: &[u8]) -> Option<TunnelKey> {
    if initiation.len() != INITIATION || initiation[0] != 1 {
        return None;
    }
    if tag(to_responder(own, &[]), &[&initiation[..116]]) != initiation[116..132] {
        return None;
    }
    let mut key: [u8; 32] = initiation[40..72].try_into().ok()?;
    mask(to_responder(own, &initiation[8..40]), 0, &mut key);
    Some(TunnelKey(key))
}

/// With WireGuard's keys.
impl ModelTunnel {
    fn seal_with_session(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let now = self.clock.now();
        let at = self.current.filter(|at| self.usable(*at, now))?;
        let session = self.sessions[at].as_mut()?;
        let (counter, secret) = (session.sent, session.direction(session.initiator));
        session.sent += 1;
        let len = write(secret, session.remote, counter, packet, out);
        self.last.any_sent = now;
        if !packet.is_empty() {
            (self.last.data_sent, self.last.want_handshake) = (now, true);
        }
        Some(len)
    }

    fn open_with_session(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        let now = self.clock.now();
        let receiver = index_at(datagram, 4);
        let at = receiver as usize % SESSIONS;
        if !self.usable(at, now) {
            return Opened::Rejected;
        }
        let Some(session) = self.sessions[at].as_mut().filter(|session| session.local == receiver) else {
            return Opened::Rejected;
        };
        let secret = session.direction(!session.initiator);
        let Some((counter, inner)) = read(secret, datagram) else { return Opened::Rejected };
        if !session.admit(counter) {
            return Opened::Duplicate;
        }
        if !session.initiator {
            let established = session.established;
            let newer =
                |current: usize| self.sessions[current].as_ref().is_none_or(|s| s.established <= established);
            if self.current != Some(at) && self.current.is_none_or(newer) {
                self.current = Some(at);
                self.made += 1;
            }
        }
        self.last.any_received = now;
        if inner.is_empty() {
            return Opened::Keepalive;
        }
        out[..inner.len()].copy_from_slice(&inner);
        (self.last.data_received, self.last.want_keepalive) = (now, true);
        Opened::Packet(inner.len())
    }
}

impl Exclusive for ModelTunnel {
    fn seal(&mut self, content: Content, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if content == Content::Partial {
            return None;
        }
        let now = self.clock.now();
        if content != Content::Agreement
            && let Some(len) = self.keys.seal(packet, out, now)
        {
            return Some(len);
        }
        if content == Content::Data && self.keys.policy == Policy::Require {
            return None;
        }
        self.seal_with_session(packet, out)
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        if datagram.len() < HEADER + TAG || datagram[..4] != [4, 0, 0, 0] {
            return Opened::Rejected;
        }
        if is_transport(index_at(datagram, 4)) {
            return self.keys.open(datagram, out, self.clock.now());
        }
        let opened = self.open_with_session(datagram, out);
        match opened {
            Opened::Packet(len) if self.keys.policy == Policy::Require && !is_control(&out[..len]) => {
                Opened::Refused
            }
            opened => opened,
        }
    }

    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if self.pending.is_some_and(|pending| now.since(pending.sent) < FRESH) {
            return None;
        }
        Some(self.write_initiation(out, now))
    }

    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let outcome = match (datagram.first(), datagram.len()) {
            (Some(1), INITIATION) => self.on_initiation(datagram, out, now),
            (Some(2), RESPONSE) => self.on_response(datagram, out, now),
            _ => return Handshake::Rejected,
        };
        if outcome != Handshake::Rejected {
            self.keys.compare(index_at(datagram, 4), now);
        }
        outcome
    }

    fn handle_timeout(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        self.keys.expire(now);
        if std::mem::take(&mut self.keys.used) {
            self.last.keyed_sent = now;
        }
        for at in 0..SESSIONS {
            if !self.usable(at, now) {
                self.sessions[at] = None;
            }
        }
        self.current = self.current.filter(|at| self.sessions[*at].is_some());
        if self.needs_handshake(now) {
            return Some(self.write_initiation(out, now));
        }
        let silent =
            self.last.data_received > self.last.any_sent && now.since(self.last.any_sent) >= KEEPALIVE;
        if silent && std::mem::take(&mut self.last.want_keepalive) {
            self.seal_with_session(&[], out)
        } else {
            None
        }
    }

    fn session_age_s(&self) -> Option<u64> {
        let now = self.clock.now();
        let at = self.current.filter(|at| self.usable(*at, now))?;
        self.sessions[at].as_ref().map(|session| now.since(session.established).as_secs())
    }

    fn initiated(&self) -> Option<u64> {
        let at = self.current.filter(|at| self.usable(*at, self.clock.now()))?;
        self.sessions[at].as_ref().filter(|session| session.initiator).map(|_| self.made)
    }

    fn offer(&mut self, now: Instant) -> Option<Offer> {
        self.keys.offer(&mut self.dice, now)
    }

    fn answer(&mut self, offer: &Offer, binding: &Binding, now: Instant) -> Option<Answer> {
        self.keys.answer(offer, binding, &mut self.dice, now)
    }

    fn accept(&mut self, answer: &Answer, binding: &Binding, now: Instant) -> bool {
        self.keys.accept(answer, binding, now)
    }

    fn protection(&self) -> Option<Protection> {
        let wireguard = self.session_age_s().filter(|_| self.keys.policy != Policy::Require);
        self.keys.protection(self.clock.now()).or_else(|| wireguard.map(|_| Protection::WIREGUARD))
    }
}

/// Shaped like a control message: IPv6, UDP, the port.
fn is_control(packet: &[u8]) -> bool {
    Udp6::parse(packet).is_some_and(|udp| udp.destination_port == control::PORT)
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
