//! WireGuard by boringtun; the only file that names it.
//!
//! Owns: [`Wireguard`], this node's tunnel key, and behind [`SharedTunnel`] every peer's key pairs. boringtun keeps
//! its sessions to itself, so a small mirror of them stands here: which one it would seal with, how old it is, and
//! whether it may be used. Never: a packet that waits for a session, a socket, a log line with a key.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use frejus_overlay::id::TunnelKey;
use frejus_overlay::locator::Locator;
use frejus_overlay::packet::MAX_PACKET;
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{
    Crypto, HANDSHAKE_ROOM, HEADER, Handshake, OVERHEAD, Opened, Purpose, SharedTunnel,
};
use frejus_overlay::wire::{Frame, Wireguard as Kind, classify};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::clock::Clock;
use crate::seal::{self, Opener};
use crate::transport::{Keyed, Transport};

/// A session is replaced after this long (WireGuard paper, section 6.1).
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Rekeys are spread over this long before [`REKEY_AFTER`], so that peers that met together part in time.
const REKEY_JITTER: Duration = Duration::from_secs(10);
/// A session seals nothing beyond this age: a second less than the paper's 180 s, since boringtun's own clock
/// moves only when its timers run, and it must not be asked to seal with what it has dropped.
const REJECT_AFTER: Duration = Duration::from_secs(179);
/// A session lives this long even if the transport keys agreed in it are used up.
const HURRY: Duration = Duration::from_secs(5);
/// Counters from here on are refused (WireGuard paper, section 6.1: 2⁶⁴ − 2¹³ − 1).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Initiations repeat after 1, 2, 4 and then every 5 s: quicker than the paper's REKEY_TIMEOUT at first, because
/// a hole may open only with the second try; boringtun keeps the last two, so late answers still count.
const RETRY: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(5)];
/// boringtun keeps as many sessions, by the lower bits of their index.
const SESSIONS: usize = 8;

/// This node's tunnel key. Wiped when dropped; nothing prints it.
pub struct Wireguard {
    secret: StaticSecret,
    public: PublicKey,
    opener: Opener,
    /// Shared by all tunnels and never in cookie mode: it counts all peers together, so that one flooder would send
    /// everybody there. The gate stands in front ([`crate::gate`]), with budgets by source and cookies of its own.
    macs: Arc<RateLimiter>,
    transport: Arc<Transport>,
    clock: Clock,
}

impl Wireguard {
    /// The key of this node, and the clock whose readings the tunnels go by.
    #[must_use]
    pub fn new(secret: StaticSecret, clock: Clock) -> Self {
        let public = PublicKey::from(&secret);
        let opener = Opener::new(&secret);
        let macs = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { secret, public, opener, macs, transport: Arc::default(), clock }
    }

    /// The same, with this to be done about transport keys.
    #[must_use]
    pub fn carrying(self, transport: Transport) -> Self {
        Self { transport: Arc::new(transport), ..self }
    }
}

impl Crypto for Wireguard {
    fn public(&self) -> TunnelKey {
        TunnelKey(self.public.to_bytes())
    }

    fn tunnel(&mut self, peer: &TunnelKey, index: u32) -> SharedTunnel {
        let peer = PublicKey::from(peer.0);
        let macs = Some(Arc::clone(&self.macs));
        let tunn = Tunn::new(self.secret.clone(), peer, None, None, index, macs);
        let wireguard = Shared(Mutex::new(Link::new(tunn, self.clock.clone())));
        Arc::new(Keyed::new(wireguard, index, Arc::clone(&self.transport), self.clock.clone()))
    }

    fn initiator(&mut self, initiation: &[u8]) -> Option<TunnelKey> {
        let mut room = [0; HANDSHAKE_ROOM];
        let Ok(Packet::HandshakeInit(packet)) = self.macs.verify_packet(None, initiation, &mut room) else {
            return None;
        };
        let half = parse_handshake_anon(&self.secret, &self.public, &packet).ok()?;
        Some(TunnelKey(half.peer_static_public))
    }

    /// Empty for a key of small order: nobody holds it, so nobody could open anything.
    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        seal::seal(to, purpose, plaintext).unwrap_or_default()
    }

    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        self.opener.open(purpose, sealed)
    }
}

/// What the public half of a tunnel key is enough for: to see whether a handshake message names that key, and to have
/// its sender prove where it is (WireGuard paper, sections 5.4.4 and 5.4.7).
pub struct Macs {
    /// Never in cookie mode.
    calm: RateLimiter,
    /// Always in cookie mode.
    strict: RateLimiter,
    places: RandomState,
}

/// Length of a cookie reply (WireGuard paper, section 5.4.7).
pub const COOKIE_REPLY: usize = 64;

impl Macs {
    /// For messages to whoever holds `key`.
    #[must_use]
    pub fn new(key: &TunnelKey) -> Self {
        let public = PublicKey::from(key.0);
        let strict = RateLimiter::new(&public, 0);
        Self { calm: RateLimiter::new(&public, u64::MAX), strict, places: RandomState::new() }
    }

    /// Whether mac1 says that this initiation or response is for us. Cookie replies have none, and pass.
    #[must_use]
    pub fn name_us(&self, message: &[u8]) -> bool {
        self.calm.verify_packet(None, message, &mut []).is_ok()
    }

    /// Whether mac2 shows that the sender got a cookie of ours at that place.
    #[must_use]
    pub fn prove(&self, from: Locator, message: &[u8]) -> bool {
        let unasked = message.last_chunk::<16>().is_none_or(|mac2| *mac2 == [0; 16]);
        let mut room = [0; COOKIE_REPLY];
        !unasked && self.strict.verify_packet(Some(self.place(from)), message, &mut room).is_ok()
    }

    /// A cookie for the sender of an initiation: the length of the message. `None` if mac1 does not fit.
    pub fn cookie(&self, from: Locator, message: &[u8], reply: &mut [u8; COOKIE_REPLY]) -> Option<usize> {
        match self.strict.verify_packet(Some(self.place(from)), message, reply) {
            Err(TunnResult::WriteToNetwork(reply)) => Some(reply.len()),
            _ => None,
        }
    }

    /// boringtun's cookies are for an address. Many may share one behind a NAT or a relay, so port and channel count too.
    fn place(&self, from: Locator) -> IpAddr {
        let half = |which: u8| u128::from(self.places.hash_one((which, from)));
        Ipv6Addr::from(half(0) << 64 | half(1)).into()
    }
}

/// What we know of one of boringtun's sessions.
#[derive(Clone, Copy)]
struct Session {
    index: u32,
    since: Instant,
    initiated: bool,
}

/// One peer.
struct Link {
    tunn: Tunn,
    clock: Clock,
    sessions: [Option<Session>; SESSIONS],
    /// Index of the session that boringtun seals with.
    current: Option<u32>,
    /// When we initiated last, and how often without an answer.
    initiated: Option<(Instant, usize)>,
    /// Whether the peer has initiated since. When it does once more, boringtun forgets our initiation.
    crossed: bool,
    /// Whether data left since the current session began.
    sent: bool,
    /// Sessions that became the current one.
    made: u64,
    /// How much before [`REKEY_AFTER`] the current session is replaced.
    jitter: Duration,
    /// What the timers wanted sent while a handshake message was read, which may have been anybody's.
    unsent: Vec<u8>,
}

impl Link {
    const fn new(tunn: Tunn, clock: Clock) -> Self {
        Self {
            tunn,
            clock,
            sessions: [None; SESSIONS],
            current: None,
            initiated: None,
            crossed: false,
            sent: false,
            made: 0,
            jitter: Duration::ZERO,
            unsent: Vec::new(),
        }
    }

    /// The session to seal with: authenticated by its initiator's first data, and young enough.
    fn usable(&self, now: Instant) -> Option<Session> {
        let current = self.current?;
        self.sessions[place(current)]
            .filter(|session| session.index == current && now.since(session.since) < REJECT_AFTER)
    }

    /// A session was agreed on. The responder's is not for sealing until its initiator has used it.
    fn begin(&mut self, session: Session) {
        self.sessions[place(session.index)] = Some(session);
    }

    /// Authentic data came on session `index`: boringtun seals with it from now on, if it is not an old one.
    fn confirm(&mut self, index: u32) {
        if self.current == Some(index) {
            return;
        }
        let since = |index: u32| self.sessions[place(index)].map(|session| session.since);
        let newer = match self.current.and_then(since) {
            Some(current) => since(index).is_some_and(|new| new >= current),
            None => true,
        };
        if newer {
            self.current = Some(index);
            self.made += 1;
            self.sent = false;
            self.jitter = jitter();
        }
    }

    fn forget(&mut self) {
        self.sessions = [None; SESSIONS];
        self.current = None;
    }

    /// Lets boringtun's clock catch up, which moves only here; a message if its timers want one sent.
    fn tick(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        let sent = match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => Some((message.len(), message[0])),
            TunnResult::Err(_) => {
                self.forget();
                None
            }
            _ => None,
        };
        if self.current.is_some() && self.tunn.time_since_last_handshake().is_none() {
            self.current = None;
        }
        let (len, kind) = sent?;
        if kind == INITIATION {
            self.note_initiation(now);
        }
        Some(len)
    }

    fn note_initiation(&mut self, now: Instant) {
        let tries = self.initiated.map_or(0, |(_, tries)| tries + 1);
        self.initiated = Some((now, tries));
        self.crossed = false;
    }

    fn rekey_due(&self, now: Instant) -> bool {
        self.sent
            && self.usable(now).is_some_and(|session| {
                session.initiated && now.since(session.since) >= REKEY_AFTER - self.jitter
            })
    }

    /// Whether the last handshake is long enough ago for one before its time.
    fn may_hurry(&self, now: Instant) -> bool {
        self.usable(now).is_some_and(|session| now.since(session.since) >= HURRY)
            && self.initiated.is_none_or(|(last, _)| now.since(last) >= HURRY)
    }

    fn format_initiation(&mut self, out: &mut [u8], again: bool, now: Instant) -> Option<usize> {
        let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(out, again) else {
            return None;
        };
        let len = message.len();
        self.note_initiation(now);
        Some(len)
    }

    /// Empty packets that boringtun put aside for lack of a session; they would go out as stale keepalives.
    fn drop_queue(&mut self) {
        let mut room = [0; HANDSHAKE_ROOM];
        while let TunnResult::WriteToNetwork(_) = self.tunn.decapsulate(None, &[], &mut room) {}
    }
}

/// [`Link`], shared: every message locks it, since boringtun has one owner for both directions.
pub(crate) struct Shared(Mutex<Link>);

thread_local! {
    /// boringtun reads from one buffer and writes to another; a thread needs one of them, whatever the peers are.
    static ASIDE: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_PACKET + OVERHEAD].into());
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Tunnel::seal_as`](frejus_overlay::tunnel::Tunnel::seal_as) with WireGuard's keys.
    pub(crate) fn seal(&self, buffer: &mut [u8], len: usize) -> Option<usize> {
        assert!(buffer.len() >= len + OVERHEAD, "the caller gives room for header and tag");
        ASIDE.with_borrow_mut(|aside| {
            let packet = aside.get_mut(..len)?;
            packet.copy_from_slice(&buffer[HEADER..HEADER + len]);
            let mut link = self.link();
            link.seal(packet, buffer).or_else(|| {
                buffer[HEADER..HEADER + len].copy_from_slice(packet);
                None
            })
        })
    }

    pub(crate) fn open(&self, datagram: &mut [u8]) -> Opened {
        ASIDE.with_borrow_mut(|aside| {
            let Some(message) = aside.get_mut(..datagram.len()) else { return Opened::Rejected };
            message.copy_from_slice(datagram);
            let room = datagram.get_mut(HEADER..).unwrap_or_default();
            self.link().open(message, room)
        })
    }

    pub(crate) fn initiate(&self, out: &mut [u8], now: Instant) -> Option<usize> {
        self.link().initiate(out, now)
    }

    pub(crate) fn handshake(&self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        self.link().handshake(datagram, out, now)
    }

    /// `used`: data left under other keys, which need the session renewed as much; `worn`: they need it at once.
    pub(crate) fn handle_timeout(
        &self,
        out: &mut [u8],
        used: bool,
        worn: bool,
        now: Instant,
    ) -> Option<usize> {
        let mut link = self.link();
        link.sent |= used;
        link.handle_timeout(out, worn, now)
    }

    pub(crate) fn session_age_s(&self) -> Option<u64> {
        self.link().session_age_s()
    }

    /// See [`Tunnel::initiated`](frejus_overlay::tunnel::Tunnel::initiated).
    pub(crate) fn initiated(&self) -> Option<u64> {
        let link = self.link();
        let current = link.usable(link.clock.latest()).filter(|session| session.initiated);
        current.map(|_| link.made)
    }
}

impl Link {
    /// Seals `packet` into `out`, which has room for [`OVERHEAD`] more.
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        self.usable(self.clock.latest())?;
        let len = match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if message[0] == DATA => message.len(),
            _ => {
                self.current = None;
                return None;
            }
        };
        self.sent |= !packet.is_empty();
        Some(len)
    }

    /// Opens `datagram` into `out`, which has room for what is in it.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        let Some(Frame::Wireguard(Kind::Data(index))) = classify(datagram) else { return Opened::Rejected };
        let counter = datagram[8..].first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if counter >= REJECT_AFTER_MESSAGES {
            return Opened::Rejected;
        }
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::Done => Opened::Keepalive,
            TunnResult::Err(WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter) => {
                return Opened::Duplicate;
            }
            TunnResult::WriteToNetwork(_) | TunnResult::Err(_) => return Opened::Rejected,
        };
        self.confirm(index);
        opened
    }

    fn initiate(&mut self, out: &mut [u8], now: Instant) -> Option<usize> {
        if let Some((last, tries)) = self.initiated
            && now.since(last) < RETRY[tries.min(RETRY.len() - 1)]
        {
            return None;
        }
        match self.tick(out, now) {
            Some(len) if out[0] == INITIATION => Some(len),
            _ => self.format_initiation(out, true, now),
        }
    }

    fn handshake(&mut self, datagram: &[u8], out: &mut [u8], now: Instant) -> Handshake {
        let Some(Frame::Wireguard(kind @ (Kind::Initiation | Kind::Answer(_)))) = classify(datagram) else {
            return Handshake::Rejected;
        };
        if let Some(len) = self.tick(out, now) {
            self.unsent = out[..len].to_vec();
        }
        let len = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToNetwork(reply) => reply.len(),
            TunnResult::Done => {
                // A cookie is worth nothing to an initiation that was sent: the next one need not wait.
                self.initiated = None;
                return Handshake::Accepted;
            }
            _ => return Handshake::Rejected,
        };
        self.unsent.clear();
        match kind {
            Kind::Answer(index) => {
                self.begin(Session { index, since: now, initiated: true });
                self.confirm(index);
                self.initiated = self.initiated.map(|(last, _)| (last, 0));
                self.drop_queue();
            }
            Kind::Initiation | Kind::Data(_) => {
                let index = out[4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                self.begin(Session { index, since: now, initiated: false });
                // No answer to ours would be known, so the next one need not wait.
                if std::mem::replace(&mut self.crossed, true) {
                    self.initiated = None;
                }
            }
        }
        Handshake::Reply(len)
    }

    fn handle_timeout(&mut self, out: &mut [u8], worn: bool, now: Instant) -> Option<usize> {
        let unsent = std::mem::take(&mut self.unsent);
        if !unsent.is_empty() {
            out[..unsent.len()].copy_from_slice(&unsent);
            return Some(unsent.len());
        }
        let due = self.rekey_due(now) || worn && self.may_hurry(now);
        match self.tick(out, now) {
            Some(len) => Some(len),
            None if due => self.format_initiation(out, false, now),
            None => None,
        }
    }

    fn session_age_s(&self) -> Option<u64> {
        let now = self.clock.latest();
        self.usable(now).map(|session| now.since(session.since).as_secs())
    }
}

/// Types of the WireGuard messages that are told apart here.
const INITIATION: u8 = 1;
const DATA: u8 = 4;

const fn place(index: u32) -> usize {
    index as usize % SESSIONS
}

/// Between nothing and [`REKEY_JITTER`]. Zero if the kernel gives no randomness: jitter is no secret.
fn jitter() -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    REKEY_JITTER.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
