//! The transport keys with one peer: which open, which seal, and when they end.
//!
//! Owns: [`KeyRing`], for keys of any kind. The daemon publishes copies of it to the forwarding threads, the simulator
//! keeps it under a lock: both go by the same rules. Never: a key itself, a clock.

use std::time::Duration;

use crate::timing::Instant;

/// Keys seal nothing beyond this age; WireGuard's 180 s less one, so that what is under way still opens.
pub const SEAL_FOR: Duration = Duration::from_secs(179);
/// Keys open nothing beyond this age (WireGuard paper, section 6.1: REJECT_AFTER_TIME).
pub const OPEN_FOR: Duration = Duration::from_secs(180);
/// Keys held at once. Agreements are two minutes apart; when both sides begin one at the same time there are two,
/// and the last two still open: what is under way arrives, whichever answer was lost.
const HELD: usize = 4;

/// Keys, and what belongs to them.
#[derive(Clone, Debug)]
pub struct Held<K> {
    /// Receiver index of what the peer seals with them.
    pub local: u32,
    /// Receiver index of what we seal with them.
    pub remote: u32,
    /// The keys.
    pub keys: K,
    seal_until: Instant,
    open_until: Instant,
    /// The peer has proved that it has them.
    proved: bool,
    /// The peer said later that it has none.
    lost: bool,
}

impl<K> Held<K> {
    /// Keys of an answer that was accepted: the peer has them already. It may have made them as early as `offered`.
    pub fn accepted(local: u32, remote: u32, keys: K, offered: Instant, now: Instant) -> Self {
        let (seal_until, open_until) = (offered + SEAL_FOR, now + OPEN_FOR);
        Self { local, remote, keys, seal_until, open_until, proved: true, lost: false }
    }

    /// Keys of an answer that we give: the peer will have them once it has that.
    pub fn answered(local: u32, remote: u32, keys: K, now: Instant) -> Self {
        let (seal_until, open_until) = (now + SEAL_FOR, now + OPEN_FOR);
        Self { local, remote, keys, seal_until, open_until, proved: false, lost: false }
    }
}

/// See the module. The newest stand last.
#[derive(Clone, Debug)]
pub struct KeyRing<K> {
    held: [Option<Held<K>>; HELD],
    /// Place of those that seal: the newest that may.
    sealing: Option<usize>,
}

impl<K> Default for KeyRing<K> {
    fn default() -> Self {
        Self { held: [const { None }; HELD], sealing: None }
    }
}

impl<K> KeyRing<K> {
    /// The keys that open what is sealed to the receiver index `local`.
    #[must_use]
    pub fn opening(&self, local: u32, now: Instant) -> Option<&Held<K>> {
        self.held.iter().flatten().find(|held| held.local == local).filter(|held| now < held.open_until)
    }

    /// The keys to seal with.
    #[must_use]
    pub fn sealing(&self, now: Instant) -> Option<&Held<K>> {
        self.held[self.sealing?].as_ref().filter(|held| now < held.seal_until)
    }

    /// Whether there are keys at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.iter().all(Option::is_none)
    }

    /// Whether `local` names keys that are held.
    #[must_use]
    pub fn holds(&self, local: u32) -> bool {
        self.held.iter().flatten().any(|held| held.local == local)
    }

    /// Take new keys in; the oldest leave if there are too many.
    pub fn install(&mut self, held: Held<K>) {
        if self.held.iter().all(Option::is_some) {
            self.held[0] = None;
        }
        self.compact();
        let free = self.held.iter().position(Option::is_none).expect("the oldest have just left");
        self.held[free] = Some(held);
        self.choose();
    }

    /// Something authentic came under these keys: the peer has them.
    pub fn confirm(&mut self, local: u32) {
        if let Some(held) = self.held.iter_mut().flatten().find(|held| held.local == local) {
            held.proved = true;
        }
        self.choose();
    }

    /// The peer has lost its keys. What it sealed before may still arrive.
    pub fn stop_sealing(&mut self) {
        self.held.iter_mut().flatten().for_each(|held| held.lost = true);
        self.sealing = None;
    }

    /// Whether anything opens nothing any more.
    #[must_use]
    pub fn has_expired(&self, now: Instant) -> bool {
        self.held.iter().flatten().any(|held| held.open_until <= now)
    }

    /// Let go of what opens nothing any more.
    pub fn expire(&mut self, now: Instant) {
        for held in &mut self.held {
            *held = held.take().filter(|held| now < held.open_until);
        }
        self.compact();
        self.choose();
    }

    /// Gaps go to the end.
    fn compact(&mut self) {
        let mut kept = std::mem::replace(&mut self.held, [const { None }; HELD]).into_iter().flatten();
        self.held = std::array::from_fn(|_| kept.next());
    }

    fn choose(&mut self) {
        let may_seal = |held: &Held<K>| held.proved && !held.lost;
        self.sealing = self.held.iter().rposition(|held| held.as_ref().is_some_and(may_seal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    fn sealing(ring: &KeyRing<char>, now: Instant) -> Option<char> {
        ring.sealing(now).map(|held| held.keys)
    }

    #[test]
    fn an_answerer_seals_once_the_peer_has_used_the_keys() {
        let mut ring = KeyRing::default();
        assert!(ring.is_empty());
        ring.install(Held::answered(1, 11, 'a', at(0)));
        assert_eq!(sealing(&ring, at(1)), None);
        assert!(ring.opening(1, at(1)).is_some() && ring.opening(11, at(1)).is_none());
        ring.confirm(1);
        assert_eq!(sealing(&ring, at(1)), Some('a'));
    }

    #[test]
    fn the_newest_confirmed_keys_seal() {
        let mut ring = KeyRing::default();
        ring.install(Held::accepted(1, 11, 'a', at(0), at(0)));
        ring.install(Held::answered(2, 12, 'b', at(100)));
        assert_eq!(sealing(&ring, at(100)), Some('a'));
        ring.install(Held::accepted(3, 13, 'c', at(100), at(101)));
        ring.confirm(2);
        assert_eq!(sealing(&ring, at(101)), Some('c'), "what came before is not the newest");
    }

    #[test]
    fn keys_seal_for_179_seconds_and_open_for_180() {
        let mut ring = KeyRing::default();
        ring.install(Held::accepted(1, 11, 'a', at(10), at(13)));
        assert_eq!(sealing(&ring, at(188)), Some('a'));
        assert_eq!(sealing(&ring, at(189)), None, "counted from the offer: the answerer may have been quick");
        assert!(ring.opening(1, at(192)).is_some(), "counted from the answer: it may have been slow");
        assert!(ring.opening(1, at(193)).is_none());
        assert!(!ring.has_expired(at(192)) && ring.has_expired(at(193)));
        ring.expire(at(192));
        assert!(ring.holds(1));
        ring.expire(at(193));
        assert!(ring.is_empty());
    }

    #[test]
    fn the_last_four_open_and_the_oldest_leave_first() {
        let mut ring = KeyRing::default();
        for n in 0..6 {
            ring.install(Held::answered(n, n, 'x', at(u64::from(n))));
        }
        let open: Vec<_> = (0..6).filter(|n| ring.opening(*n, at(6)).is_some()).collect();
        assert_eq!(open, [2, 3, 4, 5]);
    }

    #[test]
    fn keys_that_the_peer_lost_open_but_never_seal() {
        let mut ring = KeyRing::default();
        ring.install(Held::accepted(1, 11, 'a', at(0), at(0)));
        ring.stop_sealing();
        assert_eq!(sealing(&ring, at(1)), None);
        assert!(ring.opening(1, at(1)).is_some());
        ring.confirm(1);
        assert_eq!(sealing(&ring, at(1)), None, "what it sealed before proves nothing");
        ring.install(Held::answered(2, 12, 'b', at(1)));
        assert_eq!(sealing(&ring, at(1)), None);
        ring.confirm(2);
        assert_eq!(sealing(&ring, at(1)), Some('b'));
    }
}
