//! The largest inner packet that one path takes: the search for it, and the watch over it afterwards (RFC 8899).
//!
//! Owns: [`PathMtu`], which size is asked next and what an answer or its absence means; [`Mtu`], what forwarding goes by.
//! Never: a probe's bytes, or the health of the path: a padded probe that is lost says nothing about that, and counts here
//! only if a small one that left no earlier was answered.
//!
//! Sizes are inner packets in bytes. A path begins with [`BASE`], taken to pass until the search knows better. The device's
//! MTU is asked first, then [`BASE`], then halves of what lies between, among the sizes that real links have. A size that
//! nobody answers several times does not pass. Afterwards the size in use is asked again now and then while data flows
//! (a path may shrink in silence), and the larger ones every ten minutes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::locator::Locator;
use crate::timing::Instant;
use crate::tunnel::OVERHEAD;
use crate::wire::RELAY_HEADER;

/// Taken to pass before anything is known: what IPv6 demands of every link (RFC 8200, section 5). Outside that is at most
/// 1376 bytes.
pub const BASE: u16 = 1280;
/// The largest that is searched for: what fits jumbo frames.
const MOST: u16 = 9000;
/// Outer packets that links carry: dial-up, X.25, IPv6's least, tunnels in tunnels, LTE, PPPoE, Ethernet, jumbo frames.
const LINKS: [u16; 26] = [
    576, 768, 1006, 1152, 1280, 1300, 1320, 1340, 1360, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492,
    1500, 1600, 2000, 3000, 4470, 6000, 8000, 9000,
];
/// Probes of one size before it counts as too big: RFC 8899, section 5.1.2, MAX_PROBES.
const TRIES: u8 = 3;
/// The same up to [`BASE`], where an error by chance would cost most: 0.1 % on a line that loses three of ten.
const TRIES_BASE: u8 = 6;
/// Time for an answer, at least. RFC 8899, section 5.1.1, wants a second where the round trip is unknown; here it is known.
const PATIENCE: Duration = Duration::from_millis(150);
/// The size in use is asked again after this long while data flows (RFC 8899, section 5.1.1, CONFIRMATION_TIMER).
const CONFIRM: Duration = Duration::from_secs(2);
/// Larger ones are tried again after this long while data flows (the same, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// The same where the path does not even take [`BASE`]: an error there is dear.
const RAISE_SMALL: Duration = Duration::from_secs(60);
/// Probes remembered, so that a late answer still counts.
const MAX_OUTSTANDING: usize = 16;

/// What forwarding goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// Super-packets are cut to inner packets of this many bytes.
    pub bytes: u16,
    /// Whether longer ones are known not to pass. Before the search has ended they are sent as they are: at worst they are
    /// lost, while a Packet Too Big would be remembered for minutes (RFC 8201, section 4).
    pub is_known: bool,
}

impl Mtu {
    /// Of a path that nobody has measured.
    pub const UNKNOWN: Self = Self { bytes: BASE, is_known: false };

    /// Whether an inner packet of `length` bytes may be sent as it is.
    #[must_use]
    pub const fn takes(self, length: usize) -> bool {
        !self.is_known || length <= self.bytes as usize
    }
}

/// One size being asked.
#[derive(Clone, Copy, Debug)]
struct Test {
    size: u16,
    /// Probes that were lost though small ones passed.
    lost: u8,
    sent: Instant,
    next: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct PathMtu {
    /// Bytes around an inner packet on this path.
    overhead: u16,
    /// The device's MTU: larger packets never come.
    ceiling: u16,
    /// In use.
    bytes: u16,
    /// An answer has confirmed [`Self::bytes`].
    is_proved: bool,
    is_known: bool,
    /// The smallest size that did not pass.
    refused: Option<u16>,
    is_searching: bool,
    test: Option<Test>,
    outstanding: VecDeque<(u64, u16)>,
    /// When the latest small probe left that was answered.
    alive: Option<Instant>,
    confirm_at: Instant,
    raise_at: Instant,
}

impl PathMtu {
    /// Nothing is known of the path yet; `device` is the MTU of the TUN device.
    #[must_use]
    pub fn new(path: Locator, device: u16) -> Self {
        let ip = if path.remote().is_ipv4() { 20 } else { 40 };
        let relay = if path.is_direct() { 0 } else { RELAY_HEADER };
        let overhead = u16::try_from(ip + 8 + relay + OVERHEAD).expect("at most 96");
        let ceiling = device.clamp(BASE, MOST);
        Self {
            overhead,
            ceiling,
            bytes: BASE,
            is_proved: false,
            is_known: false,
            refused: None,
            is_searching: true,
            test: None,
            outstanding: VecDeque::new(),
            alive: None,
            confirm_at: Instant::ZERO,
            raise_at: Instant::ZERO,
        }
    }

    /// What forwarding goes by.
    #[must_use]
    pub const fn mtu(&self) -> Mtu {
        Mtu { bytes: self.bytes, is_known: self.is_known }
    }

    /// A padded probe of `size` bytes with `token` left.
    pub fn sent(&mut self, token: u64, size: u16) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((token, size));
    }

    /// A small probe that left at `sent` was answered: the path lives.
    pub fn heard(&mut self, sent: Instant) {
        self.alive = self.alive.max(Some(sent));
    }

    /// An answer came; whether it was to a padded probe of ours.
    pub fn answered(&mut self, token: u64, now: Instant) -> bool {
        let Some(at) = self.outstanding.iter().position(|(sent, _)| *sent == token) else { return false };
        let Some((_, size)) = self.outstanding.remove(at) else { return false };
        if self.test.is_some_and(|test| test.size <= size) {
            self.test = None;
        }
        if size < self.bytes && self.is_proved {
            return true;
        }
        if self.refused.is_some_and(|refused| refused <= size) {
            // It was slow, not lost.
            self.refused = None;
        }
        (self.bytes, self.is_proved) = (size, true);
        self.confirm_at = now + CONFIRM;
        self.settle(now);
        true
    }

    /// The size of the probe that is due, if any. `active`: data flows. `rtt` is the round trip to be expected.
    pub fn handle_timeout(&mut self, active: bool, rtt: Duration, now: Instant) -> Option<u16> {
        if let Some(test) = &mut self.test {
            if test.next > now {
                return None;
            }
            if self.alive >= Some(test.sent) {
                test.lost += 1;
            }
            let tries = if test.size <= BASE { TRIES_BASE } else { TRIES };
            if test.lost >= tries {
                let size = test.size;
                self.refuse(size);
                self.settle(now);
            }
        } else if active && !self.is_searching && self.raise_at <= now {
            (self.refused, self.is_searching) = (None, true);
            self.settle(now);
        }
        let confirm = active && self.confirm_at <= now;
        let size = match self.test {
            Some(test) => Some(test.size),
            None if self.is_searching => self.next_size(),
            None => confirm.then_some(self.bytes),
        }?;
        let lost = self.test.map_or(0, |test| test.lost);
        self.test = Some(Test { size, lost, sent: now, next: now + PATIENCE.max(rtt + rtt / 2) });
        self.confirm_at = now + CONFIRM;
        Some(size)
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self, active: bool) -> Option<Instant> {
        match self.test {
            Some(test) => Some(test.next),
            // The next size, at once.
            None if self.is_searching => Some(Instant::ZERO),
            None => active.then(|| self.confirm_at.min(self.raise_at)),
        }
    }

    /// This size does not pass. If it is the one in use, the path has shrunk: begin again from below.
    fn refuse(&mut self, size: u16) {
        self.test = None;
        self.refused = Some(size);
        if size <= self.bytes {
            self.bytes = if size > BASE { BASE } else { self.sizes().next().unwrap_or(BASE) };
            self.is_known &= !self.is_proved;
            (self.is_proved, self.is_searching) = (false, true);
        }
    }

    /// End the search if nothing is left to ask.
    fn settle(&mut self, now: Instant) {
        if self.is_searching && self.next_size().is_none() {
            (self.is_searching, self.is_known) = (false, true);
            let pause = if self.bytes < BASE { RAISE_SMALL } else { RAISE };
            self.raise_at =
                if self.bytes < self.ceiling { now + pause } else { Instant::ZERO + Duration::MAX };
        }
    }

    /// The next size to ask in a search; `None` if it has ended.
    fn next_size(&self) -> Option<u16> {
        let open = |size: &u16| {
            let above = !self.is_proved || *size > self.bytes;
            above && self.refused.is_none_or(|refused| *size < refused)
        };
        if self.refused.is_none() {
            return Some(self.ceiling).filter(open);
        }
        if !self.is_proved && open(&BASE) {
            return Some(BASE);
        }
        let left = self.sizes().filter(open).count();
        self.sizes().filter(open).nth(left / 2)
    }

    /// All sizes that are ever asked, ascending.
    fn sizes(&self) -> impl Iterator<Item = u16> {
        let (overhead, ceiling) = (self.overhead, self.ceiling);
        // IPv6 has no links below 1280.
        let least = if overhead >= 80 { BASE } else { 576 };
        let links =
            move || LINKS.into_iter().filter(move |link| *link >= least).map(move |link| link - overhead);
        let below = links().filter(|size| *size < BASE);
        let above = links().filter(move |size| (BASE + 1..ceiling).contains(size));
        below.chain([BASE]).chain(above).chain((ceiling > BASE).then_some(ceiling))
    }
}

#[cfg(test)]
mod tests;
