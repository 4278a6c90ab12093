//! The two sides of a birthday guess.
//!
//! Owns: the pace of it, which ports are tried, and its bounds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::timing::Instant;

/// Sockets that the scattered side opens.
const SOCKETS: u16 = 256;
/// Probes that the other side sends.
const PROBES: u16 = 2048;
/// It sends so many at once,
const AT_ONCE: u16 = 4;
/// that often: 100 a second.
const PACE: Duration = Duration::from_millis(40);
/// Sockets are opened so many at once,
const OPEN_AT_ONCE: u16 = 16;
/// that often: all within a third of a second.
const OPEN_PACE: Duration = Duration::from_millis(20);
/// All of it.
const LIMIT: Duration = Duration::from_secs(21);
/// Ports below are nobody's mapping.
const LOWEST: u16 = 1024;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shot {
    /// Open one more socket.
    Open,
    /// Probe there.
    At(SocketAddr),
}

/// One side.
#[derive(Debug)]
pub struct Scatter {
    begun: Instant,
    next: Instant,
    done: u16,
    /// Whose ports are tried, in which order; `None` on the side that opens sockets.
    aim: Option<Aim>,
}

/// Every port once, in an order that a seed decides.
#[derive(Debug)]
struct Aim {
    ip: IpAddr,
    at: u16,
    stride: u16,
}

impl Scatter {
    /// The side that opens sockets.
    #[must_use]
    pub const fn open(now: Instant) -> Self {
        Self { begun: now, next: now, done: 0, aim: None }
    }

    /// The side that probes ports of `ip`.
    #[must_use]
    pub const fn shoot(ip: IpAddr, seed: u64, now: Instant) -> Self {
        // An odd stride goes through all 2¹⁶ before it repeats one.
        let aim = Aim { ip, at: seed as u16, stride: (seed >> 16) as u16 | 1 };
        Self { begun: now, next: now, done: 0, aim: Some(aim) }
    }

    const fn most(&self) -> u16 {
        if self.aim.is_some() { PROBES } else { SOCKETS }
    }

    /// What is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Shot> {
        if now < self.next || self.done >= self.most() {
            return Vec::new();
        }
        let (at_once, pace) = if self.aim.is_some() { (AT_ONCE, PACE) } else { (OPEN_AT_ONCE, OPEN_PACE) };
        // Woken late, the rest of the time must do for the rest of the probes: never two lots at once.
        self.next = now + pace;
        let shots = at_once.min(self.most() - self.done);
        self.done += shots;
        match &mut self.aim {
            None => vec![Shot::Open; usize::from(shots)],
            Some(aim) => (0..shots).map(|_| Shot::At(SocketAddr::new(aim.ip, aim.next()))).collect(),
        }
    }

    /// Whether it has had its time.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now.since(self.begun) >= LIMIT
    }

    /// When something is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let end = self.begun + LIMIT;
        if self.done < self.most() { self.next.min(end) } else { end }
    }
}

impl Aim {
    fn next(&mut self) -> u16 {
        loop {
            self.at = self.at.wrapping_add(self.stride);
            if self.at >= LOWEST {
                return self.at;
            }
        }
    }
}
