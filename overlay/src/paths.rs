//! The paths to one peer that have proved themselves, and the choice among them.
//!
//! Owns: round trips, loss, doubt and death of each path, and when to probe next. Never: addresses that have
//! not answered (that is [`crate::punch`]), the ranking (that is [`crate::score`]), or how large a packet may be
//! (that is [`crate::path_mtu`]; only the path in use is measured).
//!
//! A path in use is probed every 400 ms while data flows, and every [`KEEPALIVE`] while it is merely kept.
//! An unanswered probe is repeated quickly; a path that answers none of them for [`DEAD_AFTER`] is dead. The
//! sum of both stays well below the two seconds within which traffic must be back on the relay.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::KEEPALIVE;
use crate::locator::{Locator, Via};
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
/// A stream sends again by itself what was lost, which takes a second or two; and what waits before it is dropped, not late.
const STREAM_DEAD_AFTER: Duration = Duration::from_secs(4);
/// Round trip assumed before the first answer.
const RTT_GUESS: Duration = Duration::from_millis(150);
/// What a path without an answer counts for in the choice: a guess beats nothing that was measured.
const UNMEASURED: Duration = Duration::from_secs(10);
/// Paths kept per peer: two relays, and a direct one per address family and side.
const MAX_PATHS: usize = 6;
/// Probes remembered per path: enough for [`DEAD_AFTER`] at [`PROBE_DOUBT`].
const MAX_OUTSTANDING: usize = 8;
/// Weight of a new round trip (RFC 6298, section 2) and of one probe's loss.
const ALPHA: f64 = 0.125;
/// Weight of a round trip that is shorter than the smoothed one.
const ALPHA_SHORTER: f64 = 0.5;

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
    loss: f64,
    outstanding: VecDeque<(u64, Instant)>,
    /// When the oldest probe was sent that no later answer made up for.
    unanswered: Option<Instant>,
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
            loss: 0.0,
            outstanding: VecDeque::new(),
            unanswered: None,
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

    fn in_doubt(&self, now: Instant) -> bool {
        self.unanswered.is_some_and(|since| now.since(since) >= PROBE_DOUBT.max(self.expected() * 2))
    }

    fn score(&self, now: Instant) -> Score {
        let tier = match (self.locator.is_direct(), self.is_stream()) {
            _ if self.is_dead(now) => Tier::Dead,
            (false, true) => Tier::RelayByStream,
            (false, false) => Tier::Relay,
            (true, true) if self.in_doubt(now) => Tier::StreamInDoubt,
            (true, true) => Tier::Stream,
            (true, false) if self.in_doubt(now) => Tier::DirectInDoubt,
            (true, false) => Tier::Direct,
        };
        Score { tier, rtt: self.rtt.unwrap_or(UNMEASURED) }
    }

    fn sent(&mut self, token: u64, now: Instant) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((token, now));
        self.unanswered.get_or_insert(now);
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
        self.mtu.heard(sent);
        let rtt = now.since(sent);
        // A shorter one is believed sooner: what holds a probe up is a busy machine more often than a longer way, and one
        // such measurement must not put off the death of the path.
        let weight = if self.rtt.is_some_and(|old| rtt < old) { ALPHA_SHORTER } else { ALPHA };
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
    /// This path is gone.
    Died(Locator),
}

/// All proved paths to one peer.
#[derive(Debug)]
pub struct Paths {
    paths: Vec<Path>,
    selected: Option<Locator>,
    device_mtu: u16,
}

impl Paths {
    /// None yet. `device_mtu` is the TUN device's, in bytes: no path needs to take more.
    #[must_use]
    pub const fn new(device_mtu: u16) -> Self {
        Self { paths: Vec::new(), selected: None, device_mtu }
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
            path.unanswered = None;
            path.last_ack = now;
            return;
        }
        if self.paths.len() == MAX_PATHS {
            let worst = self.paths.iter().enumerate().filter(|(_, path)| Some(path.locator) != self.selected);
            let worst = worst.min_by_key(|(_, path)| (path.score(now).tier, path.last_ack)).map(|(at, _)| at);
            self.paths.remove(worst.expect("at most one of several is selected"));
        }
        self.paths.push(Path::new(locator, method, self.device_mtu, now));
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

    /// Choose again; the new choice if it changed.
    pub fn select(&mut self, now: Instant) -> Option<Locator> {
        let best = self.paths.iter().filter(|path| path.score(now).tier > Tier::Dead).max_by(|a, b| {
            let (a, b) = (a.score(now), b.score(now));
            a.tier.cmp(&b.tier).then(b.rtt.cmp(&a.rtt))
        })?;
        let stay = self.selected().is_some_and(|current| {
            current.locator == best.locator || !best.score(now).beats(current.score(now))
        });
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
                self.remove(*locator);
            }
        }
        due
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self, active: bool, keep: bool) -> Option<Instant> {
        let death = |path: &Path| path.unanswered.map(|since| since + path.patience());
        let probe = |path: &Path| Self::probe_at(path, self.selected, active, keep);
        let measure = self.selected().and_then(|path| path.mtu.poll_timeout(active));
        self.paths.iter().flat_map(|path| [death(path), probe(path)]).chain([measure]).flatten().min()
    }

    fn probe_at(path: &Path, selected: Option<Locator>, active: bool, keep: bool) -> Option<Instant> {
        let in_use = Some(path.locator) == selected;
        if path.unanswered.is_some() {
            return Some(path.next_probe);
        }
        if active && in_use {
            return Some(path.next_probe);
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
