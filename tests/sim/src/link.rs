//! A way across the Internet between two sites, in one direction.
//!
//! Owns: [`Quality`] and [`Link`]: latency, jitter, loss, reordering, rate, MTU, cut and mended. Never: a route.

use std::time::Duration;

use frejus_overlay::timing::Instant;

use crate::dice::Dice;

/// What a link does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// One way.
    pub latency: Duration,
    /// Up to this much is added, evenly spread; order is kept.
    pub jitter: Duration,
    /// Share lost, 0 to 1.
    pub loss: f64,
    /// Share that overtakes: delivered after half the latency.
    pub reorder: f64,
    /// Bytes a second; `None` is unlimited.
    pub rate: Option<u64>,
    /// Largest IP packet; larger ones vanish, as behind a router that says nothing.
    pub mtu: usize,
}

/// The usual Internet of the stories.
pub const WAN: Quality = Quality {
    latency: Duration::from_millis(20),
    jitter: Duration::ZERO,
    loss: 0.0,
    reorder: 0.0,
    rate: None,
    mtu: 1500,
};

/// IPv4 and UDP headers in front of every datagram.
pub const HEADERS: usize = 28;

/// A router drops what would wait longer than this.
const QUEUE: Duration = Duration::from_millis(200);

/// One direction between two sites.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it does.
    pub quality: Quality,
    /// Nothing passes.
    pub cut: bool,
    busy_until: Instant,
    last_arrival: Instant,
}

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The link is cut.
    Cut,
    /// By chance.
    Chance,
    /// Larger than the link's MTU.
    TooBig,
    /// The router's queue was full.
    Congestion,
}

impl Link {
    /// A link of this quality.
    #[must_use]
    pub const fn new(quality: Quality) -> Self {
        Self { quality, cut: false, busy_until: Instant::ZERO, last_arrival: Instant::ZERO }
    }

    /// When a datagram of `bytes` bytes arrives at the other side.
    ///
    /// # Errors
    /// Why it does not.
    pub fn transit(&mut self, bytes: usize, now: Instant, dice: &mut Dice) -> Result<Instant, Lost> {
        let Quality { latency, jitter, loss, reorder, rate, mtu } = self.quality;
        let size = bytes + HEADERS;
        if self.cut {
            return Err(Lost::Cut);
        }
        if size > mtu {
            return Err(Lost::TooBig);
        }
        if dice.chance(loss) {
            return Err(Lost::Chance);
        }
        let mut leaves = now;
        if let Some(rate) = rate {
            let begins = self.busy_until.max(now);
            if begins.since(now) > QUEUE {
                return Err(Lost::Congestion);
            }
            leaves = begins + Duration::from_secs_f64(size as f64 / rate as f64);
            self.busy_until = leaves;
        }
        if dice.chance(reorder) {
            return Ok(leaves + latency / 2);
        }
        let micros = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
        let late = Duration::from_micros(dice.below(if micros == 0 { 0 } else { micros + 1 }));
        self.last_arrival = self.last_arrival.max(leaves + latency + late);
        Ok(self.last_arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_plain_link_is_its_latency() {
        let mut link = Link::new(WAN);
        assert_eq!(link.transit(100, ms(5), &mut Dice::new(1, "link")), Ok(ms(25)));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let mut dice = Dice::new(1, "link");
        let mut link = Link::new(Quality { jitter: Duration::from_millis(30), ..WAN });
        let arrivals: Vec<_> = (0..200).map(|i| link.transit(100, ms(i), &mut dice).unwrap()).collect();
        assert!(arrivals.is_sorted());
        assert!((0..200).zip(&arrivals).all(|(i, at)| at.since(ms(i)) >= WAN.latency));
        let mut link = Link::new(Quality { reorder: 0.2, ..WAN });
        let arrivals: Vec<_> = (0..200).map(|i| link.transit(100, ms(i), &mut dice).unwrap()).collect();
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn loss_is_a_share() {
        let mut dice = Dice::new(1, "link");
        let mut link = Link::new(Quality { loss: 0.2, ..WAN });
        let lost = (0..10_000).filter(|i| link.transit(100, ms(*i), &mut dice).is_err()).count();
        assert!((1800..2200).contains(&lost), "{lost}");
    }

    #[test]
    fn a_rate_spaces_and_then_drops() {
        let mut dice = Dice::new(1, "link");
        let mut link = Link::new(Quality { rate: Some(125_000), ..WAN });
        let outcomes: Vec<_> = (0..50).map(|_| link.transit(1222, ms(0), &mut dice)).collect();
        assert_eq!(outcomes[0], Ok(ms(30)), "1250 bytes at 1 Mb/s take 10 ms");
        assert_eq!(outcomes[9], Ok(ms(120)));
        assert_eq!(outcomes[49], Err(Lost::Congestion));
    }

    #[test]
    fn what_is_cut_or_too_big_vanishes() {
        let mut dice = Dice::new(1, "link");
        let mut link = Link::new(WAN);
        assert_eq!(link.transit(1473, ms(0), &mut dice), Err(Lost::TooBig));
        assert!(link.transit(1472, ms(0), &mut dice).is_ok());
        link.cut = true;
        assert_eq!(link.transit(1, ms(0), &mut dice), Err(Lost::Cut));
    }
}
