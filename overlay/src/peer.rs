//! A peer: somebody we have, had or want a tunnel with.
//!
//! Owns: the tunnel's slot, its paths, the search for better ones, what waits for it, and every deadline of one
//! peer. [`crate::node::Node`] carries out what is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::agreement::exchange::Agreement;
use crate::backlog::Backlog;
use crate::crossing::Crossing;
use crate::document::{Member, Place, Roles, Verified};
use crate::forward::{Slot, SlotCounters, SlotId};
use crate::guess::Guess;
use crate::id::{NetworkId, NodeId, TunnelKey};
use crate::limits::{ACTIVE, FORGET, FORGET_STRANGER, TICK_ACTIVE, TICK_IDLE, WARM};
use crate::locator::{Channel, Endpoint, Locator, Via};
use crate::move_back::MoveBack;
use crate::node::RequestId;
use crate::path_mtu::Mtu;
use crate::paths::{Path, Paths};
use crate::punch::Punch;
use crate::sight::Sight;
use crate::standby::Standby;
use crate::timing::Instant;
use crate::tunnel::{SharedTunnel, Tunnel};
use crate::unproved::Unproved;
use crate::wire::part::Assembly;

/// What a peer says of having moved is followed once in this time: it says so with every probe until one is answered.
const MOVED_AGAIN: Duration = Duration::from_secs(1);

/// Trying to get a session.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) begun: Instant,
    pub(crate) attempts: u32,
    pub(crate) next: Instant,
    /// The last initiation, to be sent again while it is too fresh for another.
    pub(crate) initiation: Vec<u8>,
}

impl Dial {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { begun: now, attempts: 0, next: now, initiation: Vec::new() }
    }
}

/// A user's ping under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ping {
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    /// Set once the echo left; until then there is no session.
    pub(crate) sent: Option<(u64, Instant)>,
}

pub(crate) struct Peer {
    pub(crate) member: Verified<Member>,
    /// Where it said it is, when we dialled or it knocked.
    pub(crate) place: Option<Verified<Place>>,
    pub(crate) key: TunnelKey,
    pub(crate) slot: SlotId,
    pub(crate) index: u32,
    pub(crate) tunnel: SharedTunnel,
    pub(crate) counters: Arc<SlotCounters>,
    pub(crate) paths: Paths,
    pub(crate) punch: Punch,
    pub(crate) guess: Guess,
    pub(crate) crossing: Crossing,
    /// Where it was tried over TCP, and nobody has proved to be it.
    pub(crate) connected: Unproved,
    pub(crate) move_back: MoveBack,
    /// Where super peers see it.
    pub(crate) sight: Sight,
    /// When it was last told of super peers.
    pub(crate) introduced: Option<Instant>,
    pub(crate) backlog: Backlog,
    pub(crate) agreement: Agreement,
    /// Ours, for whatever relay leads to it.
    pub(crate) channel: Channel,
    pub(crate) dial: Option<Dial>,
    /// We keep a tunnel with it at all times.
    pub(crate) is_home: bool,
    pub(crate) pings: BTreeMap<RequestId, Ping>,
    /// When a newer passport was last asked for.
    pub(crate) asked_anew: Instant,
    /// When a hint last made us doubt the session.
    pub(crate) doubted: Option<Instant>,
    /// No session was made since then.
    pub(crate) is_doubted: bool,
    /// When we moved last.
    moved: Option<Instant>,
    /// When the peer last said that it had.
    peer_moved: Option<Instant>,
    tick: Instant,
    /// Counters as last seen: out, in.
    seen: (u64, u64),
    /// Data flowed last, if ever.
    used: Option<Instant>,
    /// Anything authentic came last.
    heard: Instant,
    /// As forwarding knows them: what the path takes, and the second one.
    told: (Mtu, Option<Locator>),
    /// Relays that are being made ready for this peer.
    pub(crate) standby: Standby,
    /// Control messages of which a part has come.
    pub(crate) assembly: Assembly,
    /// Where its path leads straight, as the node's index of such places has it.
    pub(crate) listed: Option<Endpoint>,
    /// The armed deadline, as the node's heap has it.
    pub(crate) wake: Option<Instant>,
}

/// The parts of a peer that are new with every tunnel.
pub(crate) struct Fresh {
    pub(crate) key: TunnelKey,
    pub(crate) slot: SlotId,
    pub(crate) index: u32,
    pub(crate) tunnel: SharedTunnel,
    pub(crate) channel: Channel,
    /// Of our TUN device, in bytes.
    pub(crate) device_mtu: u16,
}

impl Peer {
    pub(crate) fn new(member: Verified<Member>, fresh: Fresh, now: Instant) -> Self {
        Self {
            member,
            place: None,
            key: fresh.key,
            slot: fresh.slot,
            index: fresh.index,
            tunnel: fresh.tunnel,
            counters: Arc::default(),
            paths: Paths::new(fresh.device_mtu),
            punch: Punch::new(),
            guess: Guess::default(),
            crossing: Crossing::default(),
            connected: Unproved::new(),
            move_back: MoveBack::default(),
            sight: Sight::default(),
            introduced: None,
            backlog: Backlog::default(),
            agreement: Agreement::default(),
            channel: fresh.channel,
            dial: None,
            is_home: false,
            pings: BTreeMap::new(),
            asked_anew: now,
            doubted: None,
            is_doubted: false,
            moved: None,
            peer_moved: None,
            tick: now + TICK_IDLE,
            seen: (0, 0),
            used: None,
            heard: now,
            told: (Mtu::UNKNOWN, None),
            standby: Standby::default(),
            assembly: Assembly::default(),
            listed: None,
            wake: None,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.member.passport.node
    }

    pub(crate) fn name(&self) -> &str {
        &self.member.passport.name
    }

    pub(crate) fn is_super_peer(&self) -> bool {
        self.member.passport.roles.includes(Roles::SUPER_PEER)
    }

    pub(crate) fn tunnel(&self) -> &dyn Tunnel {
        &*self.tunnel
    }

    pub(crate) fn has_session(&self) -> bool {
        self.tunnel().session_age_s().is_some()
    }

    /// Whether the session stands, but data must wait for transport keys.
    pub(crate) fn waits_for_keys(&self) -> bool {
        self.has_session() && self.tunnel().protection().is_none()
    }

    /// The path in use, if there is a session to use it with.
    pub(crate) fn path(&self) -> Option<Locator> {
        self.paths.selected().map(|path| path.locator)
    }

    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now.since(used) < ACTIVE)
    }

    /// Whether the path is kept open though nothing flows.
    pub(crate) fn is_kept(&self, now: Instant) -> bool {
        self.is_home || self.used.is_some_and(|used| now.since(used) < WARM)
    }

    /// Whether the path in use is straight, and there is no reason to look for another.
    pub(crate) fn is_well_connected(&self, now: Instant) -> bool {
        let by_stream = |path: Locator| matches!(path.endpoint().via, Via::Stream(_));
        let is_direct = self.path().is_some_and(|path| path.is_direct() && !by_stream(path));
        is_direct && self.paths.also(now).is_none() && self.paths.on_own_socket(now).is_none()
    }

    /// We have moved, and this way has not answered since.
    pub(crate) fn has_moved_from(&self, way: Locator) -> bool {
        self.moved.is_some_and(|moved| self.paths.distrusted(way).is_some_and(|since| since <= moved))
    }

    /// Our own address changed. The search for ways begins anew.
    pub(crate) fn on_moved(&mut self, now: Instant) {
        self.moved = Some(now);
        self.paths.distrust(now);
        self.standby.hurry();
        if let Some(dial) = &mut self.dial {
            (dial.next, dial.attempts) = (now, 0);
        }
    }

    /// The peer's did.
    pub(crate) fn on_peer_moved(&mut self, by: Locator, now: Instant) {
        if self.peer_moved.is_none_or(|at| now.since(at) >= MOVED_AGAIN) {
            self.peer_moved = Some(now);
            self.paths.distrust_others(by, now);
        }
    }

    /// Something authentic came.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Data flows, or is about to.
    pub(crate) fn awaken(&mut self, now: Instant) {
        self.used = Some(now);
        self.tick = self.tick.min(now + TICK_ACTIVE);
    }

    /// Look at the counters; let the tunnel's timers run if it is time. Whether they should.
    pub(crate) fn sample(&mut self, now: Instant) -> bool {
        if now < self.tick {
            return false;
        }
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counted = (load(&self.counters.tx_bytes), load(&self.counters.rx_bytes));
        if counted.1 != self.seen.1 {
            self.heard = now;
        }
        if counted != self.seen {
            self.seen = counted;
            self.used = Some(now);
        }
        let active = self.is_active(now);
        if !active {
            self.counters.awake.store(false, Ordering::Relaxed);
        }
        self.tick = now + if active { TICK_ACTIVE } else { TICK_IDLE };
        true
    }

    /// Whether nobody needs it any more.
    pub(crate) fn is_forgotten(&self, now: Instant) -> bool {
        now >= self.forget_at()
    }

    fn forget_at(&self) -> Instant {
        let last = self.used.map_or(self.heard, |used| used.max(self.heard));
        if self.paths.selected().is_some() { last + FORGET } else { last + FORGET_STRANGER }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Instant {
        let (active, kept) = (self.is_active(now), self.is_kept(now));
        let dial = self.dial.as_ref().map(|dial| dial.next);
        let ping = self.pings.values().map(|ping| ping.deadline).min();
        let forget = (!self.is_home).then(|| self.forget_at());
        let agreement = self.agreement.poll_timeout();
        let (punch, guess) = (self.punch.poll_timeout(), self.guess.poll_timeout());
        let crossing = self.crossing.poll_timeout();
        [dial, ping, forget, agreement, self.paths.poll_timeout(active, kept), punch, guess, crossing]
            .into_iter()
            .flatten()
            .fold(self.tick, Instant::min)
    }

    /// What the path in use takes, and a second one that is used as well as long as the first is in doubt. If that takes
    /// less, packets are made for it, but nobody is told: it will be over in a second.
    fn ways(&self, now: Instant) -> (Mtu, Option<Locator>) {
        let mtu = self.paths.selected().map_or(Mtu::UNKNOWN, Path::mtu);
        let Some(also) = self.paths.also(now) else { return (mtu, None) };
        let fits = also.mtu().bytes >= mtu.bytes;
        let mtu = Mtu { bytes: mtu.bytes.min(also.mtu().bytes), is_known: mtu.is_known && fits };
        (mtu, Some(also.locator))
    }

    /// Whether forwarding has yet to hear of what became of the paths, apart from which is in use.
    pub(crate) fn is_news(&mut self, now: Instant) -> bool {
        let ways = self.ways(now);
        std::mem::replace(&mut self.told, ways) != ways
    }

    /// As forwarding sees it.
    pub(crate) fn as_slot(&mut self, network: &NetworkId, now: Instant) -> Slot {
        self.told = self.ways(now);
        let (mtu, also) = self.told;
        Slot {
            id: self.slot,
            index: self.index,
            tunnel: Arc::clone(&self.tunnel),
            path: self.path(),
            also,
            mtu,
            address4: self.member.passport.address4,
            address6: self.id().address6(network),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Where other straight paths go: it may send by them, whichever we use.
    pub(crate) fn other_ways(&self) -> Vec<Endpoint> {
        let used = self.path();
        let ways =
            self.paths.iter().map(|path| path.locator).filter(|way| way.is_direct() && Some(*way) != used);
        ways.map(|way| way.endpoint()).collect()
    }

    /// Where the path in use goes, if straight.
    pub(crate) fn direct_remote(&self) -> Option<Endpoint> {
        self.path().filter(Locator::is_direct).map(|path| path.endpoint())
    }
}
