//! The paths to one peer that have proved themselves, and the choice among them.
//!
//! Owns: round trips, loss, doubt and death of each path, and when to probe next. Never: addresses that have
//! not answered (that is [`crate::punch`]), the ranking (that is [`crate::score`]), or how large a packet may be
//! (that is [`crate::path_mtu`]; only the path in use is measured).
//!
//! A path in use is probed every 400 ms while data flows, and every [`KEEPALIVE`] while it is merely kept.
//! An unanswered probe is repeated quickly. One that is unanswered for longer than it should be puts the path in doubt:
//! until an answer comes, data goes a second way as well ([`Paths::also`]). A path that answers none of them for
//! [`DEAD_AFTER`] is dead. The sum stays well below the two seconds within which traffic must be back on the relay.
//!
//! A change of an address of ours, or of the peer's, is no reason to believe that a path is dead, nor that it lives: it is
//! distrusted until it answers what was asked afterwards. Relays that are not in use are asked now and then while
//! data flows, so that there is always one to fall back on. A direct path that dies again and again is not taken back at
//! once.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::KEEPALIVE;
use crate::locator::{Endpoint, Locator, Via};
use crate::node::Method;
use crate::path_mtu::{Mtu, PathMtu};
use crate::score::{Score, Tier};
use crate::timing::Instant;

/// Interval of probes on the path in use while data flows.
const PROBE_ACTIVE: Duration = Duration::from_millis(400);
/// Interval of probes while one is unanswered, at least; a slow path gets its round trip.
const PROBE_DOUBT: Duration = Duration::from_millis(200);
/// A path is dead when its oldest unanswered probe is this old: with [`PROBE_ACTIVE`] at most 1.4 s after the
/// cut, five probes lost; what is left of two seconds is for machines that are busy.
const DEAD_AFTER: Duration = Duration::from_millis(1000);
/// Interval of probes on relays that are not in use, while data flows over another relay.
const PROBE_STANDBY: Duration = Duration::from_secs(5);
/// After so many deaths of direct paths in use within [`REMEMBER`], the next is taken this long after the last death at the
/// soonest: a path that comes and goes all the time costs less than a switch a minute in the long run.
const HOLD: [Duration; 4] =
    [Duration::ZERO, Duration::ZERO, Duration::from_secs(58), Duration::from_secs(180)];
/// Deaths are remembered this long.
const REMEMBER: Duration = Duration::from_secs(600);
/// A peer that speaks from another place than the path in use, this long at most before that is in doubt, has moved there.
const FOLLOWED: Duration = Duration::from_secs(1);
/// A stream sends again by itself what was lost, which takes a second or two; and what waits before it is dropped, not late.
const STREAM_DEAD_AFTER: Duration = Duration::from_secs(4);
/// A socket of its own counts as half a round trip and this much, so that the one that the node listens on takes over if it
/// is no more than a fifth and some milliseconds slower, and never gives way again for less than twice that.
const DOOR_COST: Duration = Duration::from_millis(20);
/// A path with such a socket that is not in use any more is given up after this long,
const LEFT: Duration = Duration::from_secs(10);
/// unless the peer came that way so lately: it would ask every [`PROBE_ACTIVE`] if it used it.
const STILL_USED: Duration = Duration::from_secs(4);
/// Round trip assumed before the first answer.
const RTT_GUESS: Duration = Duration::from_millis(150);
/// What a path without an answer counts for in the choice: a guess beats nothing that was measured.
const UNMEASURED: Duration = Duration::from_secs(10);
/// Relays of one peer that are kept ready: the homes of both sides, mostly.
pub const RELAYS: usize = 3;
/// Paths kept per peer: its relays, and a direct one per address family and side, with one to spare.
const MAX_PATHS: usize = RELAYS + 5;
/// Probes remembered per path: enough for [`DEAD_AFTER`] at [`PROBE_DOUBT`].
const MAX_OUTSTANDING: usize = 8;
/// Weight of a new round trip (RFC 6298, section 2) and of one probe's loss.
const ALPHA: f64 = 0.125;
/// Weight of a round trip that is shorter than the smoothed one.
const ALPHA_SHORTER: f64 = 0.5;

/// The first probe is on its way while both ends are busy with the handshake, and so its answer tells more of the machines
/// than of the line: where the round trip decides something, the path in use is asked a second time soon.
const FIRST_ANSWERS: u8 = 2;

/// A way to the peer that answered at least once.
#[derive(Debug)]
pub struct Path {
    /// Where.
    pub locator: Locator,
    /// How it was found.
    pub method: Method,
    /// In use since.
    pub since: Instant,
    rtt: Option<Duration>,
    /// Probes that were answered, as far as that matters: see [`FIRST_ANSWERS`].
    answers: u8,
    /// Whether the first answer is not to be the last for long.
    is_asked_twice: bool,
    loss: f64,
    outstanding: VecDeque<(u64, Instant)>,
    /// When the oldest probe was sent that no later answer made up for.
    unanswered: Option<Instant>,
    /// It may be needed at any moment, and is to be asked at once.
    is_wanted: bool,
    /// Whether it is known that the path has come into doubt.
    is_doubted: bool,
    /// An end of it has moved, and no probe was answered that left later.
    distrusted: Option<Instant>,
    /// When the peer last came this way of its own accord.
    came: Option<Instant>,
    next_probe: Instant,
    last_ack: Instant,
    mtu: PathMtu,
}

impl Path {
    fn new(locator: Locator, method: Method, device_mtu: u16, now: Instant) -> Self {
        Self {
            locator,
            method,
            since: now,
            rtt: None,
            answers: 0,
            is_asked_twice: false,
            loss: 0.0,
            outstanding: VecDeque::new(),
            unanswered: None,
            is_wanted: false,
            is_doubted: false,
            distrusted: None,
            came: None,
            next_probe: now,
            last_ack: now,
            mtu: PathMtu::new(locator, device_mtu),
        }
    }

    /// The largest inner packet that it takes.
    #[must_use]
    pub const fn mtu(&self) -> Mtu {
        self.mtu.mtu()
    }

    /// Smoothed round trip.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of recent probes that nobody answered.
    #[must_use]
    pub const fn loss(&self) -> f64 {
        self.loss
    }

    fn expected(&self) -> Duration {
        self.rtt.unwrap_or(RTT_GUESS)
    }

    fn is_stream(&self) -> bool {
        matches!(self.locator.endpoint().via, Via::Stream(_))
    }

    fn patience(&self) -> Duration {
        let least = if self.is_stream() { STREAM_DEAD_AFTER } else { DEAD_AFTER };
        least.max(self.expected() * 4)
    }

    fn is_dead(&self, now: Instant) -> bool {
        self.unanswered.is_some_and(|since| now.since(since) >= self.patience())
    }

    fn doubt_at(&self) -> Option<Instant> {
        self.unanswered.map(|since| since + PROBE_DOUBT.max(self.expected() * 2))
    }

    fn in_doubt(&self, now: Instant) -> bool {
        self.distrusted.is_some() || self.doubt_at().is_some_and(|at| at <= now)
    }

    fn score(&self, is_held: bool, now: Instant) -> Score {
        let tier = match (self.locator.is_direct(), self.is_stream()) {
            _ if self.is_dead(now) => Tier::Dead,
            (false, _) if self.distrusted.is_some() => Tier::RelayInDoubt,
            (false, true) => Tier::RelayByStream,
            (false, false) => Tier::Relay,
            (true, _) if is_held => Tier::Unsteady,
            (true, true) if self.in_doubt(now) => Tier::StreamInDoubt,
            (true, true) => Tier::Stream,
            (true, false) if self.in_doubt(now) => Tier::DirectInDoubt,
            (true, false) => Tier::Direct,
        };
        let rtt = self.rtt.unwrap_or(UNMEASURED);
        Score { tier, rtt: if self.is_by_door() { rtt + rtt / 2 + DOOR_COST } else { rtt } }
    }

    /// Whether it needs a socket of ours besides the one that the node listens on.
    fn is_by_door(&self) -> bool {
        matches!(self.locator, Locator::Direct(Endpoint { via: Via::Door(_), .. }))
    }

    /// Whether the peer, or its answers, came here since `current` is in doubt: to be better otherwise is no reason to
    /// leave a path for one lost probe.
    fn follows(&self, current: &Self) -> bool {
        let answered = current.distrusted.is_some_and(|since| self.last_ack >= since && self.rtt.is_some());
        let came = current.unanswered.zip(self.came).is_some_and(|(since, came)| came + FOLLOWED >= since);
        answered || came
    }

    fn distrust(&mut self, now: Instant) {
        self.distrusted = Some(now);
        self.next_probe = now;
    }

    fn sent(&mut self, token: u64, now: Instant) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((token, now));
        self.unanswered.get_or_insert(now);
        self.is_wanted = false;
        self.next_probe = now + PROBE_DOUBT.max(self.expected() + self.expected() / 2);
    }

    /// The answer to a probe of ours; `None` if it is not.
    fn answered(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let at = self.outstanding.iter().position(|(sent, _)| *sent == token)?;
        for _ in 0..at {
            self.loss += (1.0 - self.loss) * ALPHA;
        }
        let (_, sent) = self.outstanding.drain(..=at).next_back()?;
        self.loss -= self.loss * ALPHA;
        self.unanswered = self.outstanding.front().map(|(_, sent)| *sent);
        self.is_doubted = false;
        if self.distrusted.is_some_and(|since| since <= sent) {
            self.distrusted = None;
        }
        self.mtu.heard(sent);
        let rtt = now.since(sent);
        // A shorter one is believed sooner: what holds a probe up is a busy machine more often than a longer way, and one
        // such measurement must not put off the death of the path.
        self.answers = self.answers.saturating_add(1);
        let weight = match self.rtt {
            Some(old) if rtt < old && self.answers <= FIRST_ANSWERS => 1.0,
            Some(old) if rtt < old => ALPHA_SHORTER,
            Some(_) | None => ALPHA,
        };
        self.rtt = Some(self.rtt.map_or(rtt, |old| old.mul_f64(1.0 - weight) + rtt.mul_f64(weight)));
        self.last_ack = now;
        self.next_probe = now + PROBE_ACTIVE;
        Some(rtt)
    }
}

/// What time brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a probe there and say so with [`Paths::sent`].
    Probe(Locator),
    /// Send a probe there that makes an inner packet of so many bytes, and say so with [`Paths::measuring`].
    Measure(Locator, u16),
    /// This path, which is in use, has come into doubt.
    Doubted(Locator),
    /// This path is gone.
    Died(Locator),
}

/// All proved paths to one peer.
#[derive(Debug)]
pub struct Paths {
    paths: Vec<Path>,
    selected: Option<Locator>,
    device_mtu: u16,
    /// When direct paths in use died, though nobody moved.
    deaths: VecDeque<Instant>,
    /// Direct paths are not taken before.
    held: Option<Instant>,
}

impl Paths {
    /// None yet. `device_mtu` is the TUN device's, in bytes: no path needs to take more.
    #[must_use]
    pub const fn new(device_mtu: u16) -> Self {
        Self { paths: Vec::new(), selected: None, device_mtu, deaths: VecDeque::new(), held: None }
    }

    /// The path in use.
    #[must_use]
    pub fn selected(&self) -> Option<&Path> {
        self.selected.and_then(|locator| self.find(locator))
    }

    /// A path by its place.
    #[must_use]
    pub fn find(&self, locator: Locator) -> Option<&Path> {
        self.paths.iter().find(|path| path.locator == locator)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// An authentic handshake, or the answer to a first probe, came this way.
    pub fn confirm(&mut self, locator: Locator, method: Method, now: Instant) {
        if let Some(path) = self.find_mut(locator) {
            (path.unanswered, path.distrusted, path.is_doubted) = (None, None, false);
            path.last_ack = now;
            return;
        }
        if self.paths.len() == MAX_PATHS {
            let worst = self.paths.iter().enumerate().filter(|(_, path)| Some(path.locator) != self.selected);
            let worst =
                worst.min_by_key(|(_, path)| (path.score(false, now).tier, path.last_ack)).map(|(at, _)| at);
            self.paths.remove(worst.expect("at most one of several is selected"));
        }
        self.paths.push(Path::new(locator, method, self.device_mtu, now));
    }

    /// The round trip matters though nothing may flow: it is measured a second time soon.
    pub fn ask_twice(&mut self) {
        self.paths.iter_mut().for_each(|path| path.is_asked_twice = true);
    }

    /// A round trip that was measured before the path was one.
    pub fn measured(&mut self, locator: Locator, rtt: Duration) {
        if let Some(path) = self.find_mut(locator) {
            path.rtt.get_or_insert(rtt);
        }
    }

    /// A probe with `token` left on `locator`.
    pub fn sent(&mut self, locator: Locator, token: u64, now: Instant) {
        if let Some(path) = self.find_mut(locator) {
            path.sent(token, now);
        }
    }

    /// An answer came, whichever way. The path whose probe it was, and its round trip.
    pub fn answered(&mut self, token: u64, now: Instant) -> Option<(Locator, Duration)> {
        self.paths.iter_mut().find_map(|path| Some((path.locator, path.answered(token, now)?)))
    }

    /// A padded probe with `token` left on `locator`, an inner packet of `size` bytes.
    pub fn measuring(&mut self, locator: Locator, token: u64, size: u16) {
        if let Some(path) = self.find_mut(locator) {
            path.mtu.sent(token, size);
        }
    }

    /// An answer came; whether it was to a padded probe.
    pub fn passed(&mut self, token: u64, now: Instant) -> bool {
        self.paths.iter_mut().any(|path| path.mtu.answered(token, now))
    }

    /// The path in use, if no probe is under way on it: something is odd, and it should be asked at once.
    #[must_use]
    pub fn unasked(&self) -> Option<Locator> {
        self.selected().filter(|path| path.unanswered.is_none()).map(|path| path.locator)
    }

    /// Forget a path.
    pub fn remove(&mut self, locator: Locator) {
        self.paths.retain(|path| path.locator != locator);
        if self.selected == Some(locator) {
            self.selected = None;
        }
    }

    /// Forget all paths.
    pub fn clear(&mut self) {
        self.paths.clear();
        self.selected = None;
    }

    /// A path that carries the same data as the one in use, as long as that is in doubt.
    #[must_use]
    pub fn also(&self, now: Instant) -> Option<&Path> {
        let current = self.selected().filter(|path| path.in_doubt(now))?;
        let others = self.paths.iter().filter(|path| path.locator != current.locator && !path.is_dead(now));
        others.max_by_key(|path| {
            let score = path.score(false, now);
            (!path.in_doubt(now), path.follows(current), score.tier, Reverse(score.rtt))
        })
    }

    /// We have moved: no path is trusted until it answers.
    pub fn distrust(&mut self, now: Instant) {
        self.paths.iter_mut().for_each(|path| path.distrust(now));
    }

    /// The peer has moved, and says so this way: no other way straight to it is trusted until it answers.
    pub fn distrust_others(&mut self, way: Locator, now: Instant) {
        let others = self.paths.iter_mut().filter(|path| path.locator != way && path.locator.is_direct());
        others.for_each(|path| path.distrust(now));
    }

    /// The tunnel with a relay is gone: no path through it is trusted until it answers.
    pub fn distrust_relay(&mut self, relay: Endpoint, now: Instant) {
        let through = self.paths.iter_mut().filter(|path| !path.locator.is_direct());
        through.filter(|path| path.locator.endpoint() == relay).for_each(|path| path.distrust(now));
    }

    /// Since when a path is in use that answers and needs a socket of its own, though the punching that found it is what the
    /// socket that the node listens on can do as well.
    #[must_use]
    pub fn on_own_socket(&self, now: Instant) -> Option<Instant> {
        let current = self.selected().filter(|path| path.is_by_door() && path.method == Method::Punched)?;
        (!current.in_doubt(now)).then_some(current.since)
    }

    /// While data flows: give up paths with a socket of their own that neither side uses any more, since a better one is good.
    /// Whether there were any.
    pub fn retire(&mut self, now: Instant) -> bool {
        let good = |path: &&Path| path.locator.is_direct() && !path.is_by_door() && !path.in_doubt(now);
        let Some(current) = self.selected().filter(good) else { return false };
        if now.since(current.since) < LEFT {
            return false;
        }
        let before = self.paths.len();
        let used = |path: &Path| path.came.is_some_and(|came| now.since(came) < STILL_USED);
        self.paths.retain(|path| !path.is_by_door() || used(path));
        self.paths.len() < before
    }

    /// Since when it is known that an end of the path has moved, as long as it has not answered what was asked since.
    #[must_use]
    pub fn distrusted(&self, locator: Locator) -> Option<Instant> {
        self.find(locator)?.distrusted
    }

    /// Relays that lead to the peer.
    pub fn relays(&self) -> impl Iterator<Item = Locator> + '_ {
        self.paths.iter().map(|path| path.locator).filter(|way| !way.is_direct())
    }

    /// The peer came this way of its own accord.
    pub fn came(&mut self, locator: Locator, now: Instant) {
        if let Some(path) = self.find_mut(locator) {
            path.came = Some(now);
        }
    }

    /// Choose again; the new choice if it changed.
    pub fn select(&mut self, now: Instant) -> Option<Locator> {
        let is_held = self.held.is_some_and(|until| until > now);
        let score = |path: &Path| path.score(is_held, now);
        let current = self.selected();
        let may_follow = |path: &&Path| {
            let unsure = current.filter(|current| score(current).tier == Tier::DirectInDoubt);
            let is_current = current.is_some_and(|current| current.locator == path.locator);
            score(path).tier > Tier::Dead
                && unsure.is_none_or(|unsure| is_current || !path.locator.is_direct() || path.follows(unsure))
        };
        let best = self.paths.iter().filter(may_follow).max_by(|a, b| {
            let (a, b) = (score(a), score(b));
            a.tier.cmp(&b.tier).then(b.rtt.cmp(&a.rtt))
        })?;
        let stay = current
            .is_some_and(|current| current.locator == best.locator || !score(best).beats(score(current)));
        if stay {
            return None;
        }
        let locator = best.locator;
        self.selected = Some(locator);
        if let Some(path) = self.find_mut(locator) {
            path.since = now;
            path.next_probe = path.next_probe.max(now);
        }
        Some(locator)
    }

    /// What is due: probes on the path in use, and on warm direct ones. `active`: data flows. `keep`: the path
    /// is to be kept open though nothing flows.
    pub fn handle_timeout(&mut self, active: bool, keep: bool, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        if self.held.is_some_and(|until| until <= now) {
            self.held = None;
        }
        self.doubt(&mut due, now);
        for path in &mut self.paths {
            if path.is_dead(now) {
                due.push(Due::Died(path.locator));
            } else if Self::probe_at(path, self.selected, active, keep).is_some_and(|at| at <= now) {
                due.push(Due::Probe(path.locator));
            }
            if Some(path.locator) == self.selected
                && !path.is_dead(now)
                && let Some(size) = path.mtu.handle_timeout(active, path.expected(), now)
            {
                due.push(Due::Measure(path.locator, size));
            }
        }
        for what in &due {
            if let Due::Died(locator) = what {
                self.bury(*locator, now);
            }
        }
        due
    }

    /// The path in use may have come into doubt. Then the one that shall help out is asked at once whether it lives.
    fn doubt(&mut self, due: &mut Vec<Due>, now: Instant) {
        let fresh = |path: &&Path| !path.is_doubted && path.in_doubt(now) && !path.is_dead(now);
        let Some(locator) = self.selected().filter(fresh).map(|path| path.locator) else { return };
        due.push(Due::Doubted(locator));
        if let Some(path) = self.find_mut(locator) {
            path.is_doubted = true;
        }
        let also = self.also(now).filter(|path| path.unanswered.is_none()).map(|path| path.locator);
        if let Some(also) = also.and_then(|also| self.find_mut(also)) {
            also.next_probe = now;
            also.is_wanted = true;
        }
    }

    /// Forget a path that died, and remember that it did.
    fn bury(&mut self, locator: Locator, now: Instant) {
        let in_use = self.selected().filter(|path| path.locator == locator && locator.is_direct());
        if in_use.is_some_and(|path| path.distrusted.is_none()) {
            while self.deaths.front().is_some_and(|at| now.since(*at) >= REMEMBER)
                || self.deaths.len() == HOLD.len() - 1
            {
                self.deaths.pop_front();
            }
            self.deaths.push_back(now);
            let hold = HOLD[self.deaths.len()];
            self.held = (!hold.is_zero()).then(|| now + hold);
        }
        self.remove(locator);
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self, active: bool, keep: bool) -> Option<Instant> {
        let death = |path: &Path| path.unanswered.map(|since| since + path.patience());
        let probe = |path: &Path| Self::probe_at(path, self.selected, active, keep);
        let measure = self.selected().and_then(|path| path.mtu.poll_timeout(active));
        let doubt = self.selected().filter(|path| !path.is_doubted).and_then(Path::doubt_at);
        let paths = self.paths.iter().flat_map(|path| [death(path), probe(path)]);
        paths.chain([measure, doubt, self.held]).flatten().min()
    }

    fn probe_at(path: &Path, selected: Option<Locator>, active: bool, keep: bool) -> Option<Instant> {
        let in_use = Some(path.locator) == selected;
        let is_asked = path.unanswered.is_some() || path.is_wanted || path.distrusted.is_some();
        let is_new = path.is_asked_twice && (1..FIRST_ANSWERS).contains(&path.answers);
        if is_asked || (active || is_new) && in_use {
            return Some(path.next_probe);
        }
        if active && !path.locator.is_direct() {
            let other_relay = selected.is_some_and(|selected| !selected.is_direct());
            let pause = if other_relay { PROBE_STANDBY } else { KEEPALIVE };
            return Some(path.next_probe.max(path.last_ack + pause));
        }
        let kept = keep && (in_use || path.locator.is_direct());
        kept.then(|| path.next_probe.max(path.last_ack + KEEPALIVE))
    }

    fn find_mut(&mut self, locator: Locator) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.locator == locator)
    }
}

#[cfg(test)]
mod tests;
