//! The search ends at what the path takes, whatever that is and however much it loses; it rests afterwards, and notices a
//! path that shrinks or grows.

use std::net::{Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::locator::{Channel, Endpoint};
use crate::testing::{address, at};

const V4: Locator = Locator::Direct(Endpoint::main(SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)),
    1,
)));
const V6: Locator =
    Locator::Direct(Endpoint::main(SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 1)));
const RTT: Duration = Duration::from_millis(40);

/// A path with a peer that answers every probe that arrives.
struct Line {
    search: PathMtu,
    now: Instant,
    /// Outer bytes that pass.
    link: u16,
    loss_percent: u32,
    dice: ChaCha20Rng,
    tokens: u64,
    /// Answers under way: when, to what, or for a small probe when that was sent.
    answers: VecDeque<(Instant, u64, Option<Instant>)>,
    /// Padded probes so far.
    probes: usize,
    is_cut: bool,
}

impl Line {
    fn new(path: Locator, device: u16, link: u16) -> Self {
        Self {
            search: PathMtu::new(path, device),
            now: at(0),
            link,
            loss_percent: 0,
            dice: ChaCha20Rng::seed_from_u64(7),
            tokens: 0,
            answers: VecDeque::new(),
            probes: 0,
            is_cut: false,
        }
    }

    fn lossy(mut self, percent: u32, seed: u64) -> Self {
        (self.loss_percent, self.dice) = (percent, ChaCha20Rng::seed_from_u64(seed));
        self
    }

    fn arrives(&mut self) -> bool {
        !self.is_cut && self.dice.next_u32() % 100 >= self.loss_percent
    }

    /// What fits the link among the sizes that are asked.
    fn best(&self) -> Option<u16> {
        self.search.sizes().filter(|size| size + self.search.overhead <= self.link).last()
    }

    fn step(&mut self, active: bool) {
        while let Some((at, token, small)) = self.answers.front().copied()
            && at <= self.now
        {
            self.answers.pop_front();
            match small {
                Some(sent) => self.search.heard(sent),
                None => assert!(self.search.answered(token, self.now)),
            }
        }
        if let Some(size) = self.search.handle_timeout(active, RTT, self.now) {
            self.probes += 1;
            self.tokens += 1;
            self.search.sent(self.tokens, size);
            if size + self.search.overhead <= self.link && self.arrives() {
                self.answers.push_back((self.now + RTT, self.tokens, None));
            }
            if self.arrives() {
                self.answers.push_back((self.now + RTT, 0, Some(self.now)));
            }
        }
        let due = self.search.poll_timeout(active);
        assert!(due.is_none_or(|due| due > self.now), "{due:?} is not later than {:?}", self.now);
    }

    fn run(&mut self, active: bool, time: Duration) {
        let end = self.now + time;
        loop {
            let answer = self.answers.front().map(|(at, ..)| *at);
            let next = self.search.poll_timeout(active).into_iter().chain(answer).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.step(active);
        }
        self.now = end;
    }

    /// Runs until the search has ended; how long that took.
    fn search(&mut self) -> Duration {
        let begun = self.now;
        while self.search.is_searching || self.search.test.is_some() {
            assert!(self.now.since(begun) < Duration::from_secs(60), "no end: {:?}", self.search);
            self.run(false, Duration::from_millis(10));
        }
        self.now.since(begun)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_ends_at_the_largest_that_passes(link in 576_u16..9300, device in 1280_u16..9300, kind in 0..3) {
        let relay = Locator::Relayed { relay: address(9).into(), channel: Channel(1) };
        let path = [V4, V6, relay][kind as usize];
        let mut line = Line::new(path, device, link);
        let took = line.search();
        let expected = line.best().or_else(|| line.search.sizes().next());
        prop_assert_eq!(Some(line.search.bytes), expected);
        prop_assert!(line.search.mtu().is_known);
        prop_assert!(took < Duration::from_secs(8) && line.probes <= 50, "{:?}, {} probes", took, line.probes);
        let probes = line.probes;
        line.run(false, Duration::from_secs(7200));
        prop_assert_eq!(line.probes, probes, "idle, nothing is asked");
        prop_assert_eq!(line.search.poll_timeout(false), None);
    }

    #[test]
    fn with_loss_it_ends_too_and_never_above(link in 576_u16..9300, percent in 5_u32..=30, seed: u64) {
        let mut line = Line::new(V4, 8940, link).lossy(percent, seed);
        let took = line.search();
        prop_assert!(Some(line.search.bytes) <= line.best().or(Some(516)));
        prop_assert!(took < Duration::from_secs(30), "{:?}", took);
    }
}

#[test]
fn loss_rarely_costs_anything() {
    for (percent, most) in [(10, 3), (30, 60)] {
        let wrong = (0..500).filter(|seed| {
            let mut line = Line::new(V4, 1420, 1500).lossy(percent, *seed);
            line.search();
            line.search.bytes != 1420
        });
        let wrong = wrong.count();
        assert!(wrong <= most, "{wrong} of 500 with {percent} % of loss");
    }
}

#[test]
fn the_usual_path_takes_one_round_trip() {
    let mut line = Line::new(V4, 1420, 1500);
    assert_eq!(line.search.mtu(), Mtu { bytes: 1280, is_known: false });
    assert!(line.search() <= RTT + Duration::from_millis(10));
    assert_eq!((line.search.mtu(), line.probes), (Mtu { bytes: 1420, is_known: true }, 1));
}

#[test]
fn common_links_are_measured_exactly_and_soon() {
    for (link, expected) in [(1492, 1420), (1480, 1420), (1460, 1400), (1400, 1340), (1280, 1220), (576, 516)]
    {
        let mut line = Line::new(V4, 1420, link);
        let took = line.search();
        assert_eq!(line.search.bytes, expected, "link {link}");
        assert!(took < Duration::from_secs(4), "link {link}: {took:?}");
    }
    let mut jumbo = Line::new(V4, 8900, 9000);
    jumbo.search();
    assert_eq!(jumbo.search.bytes, 8900);
    let mut v6 = Line::new(V6, 1420, 1492);
    v6.search();
    assert_eq!(v6.search.bytes, 1412);
}

#[test]
fn a_path_that_shrinks_is_noticed_while_data_flows() {
    for (before, after, expected) in
        [(1500, 1400, 1340), (9000, 1500, 1440), (1500, 1280, 1220), (1340, 1280, 1220)]
    {
        let mut line = Line::new(V4, 8900, before);
        line.search();
        line.run(true, Duration::from_secs(20));
        line.link = after;
        let shrunk = line.now;
        while line.search.mtu().bytes > BASE || line.search.bytes + 60 > after {
            assert!(line.now.since(shrunk) < Duration::from_secs(5), "{:?}", line.search);
            line.run(true, Duration::from_millis(10));
        }
        line.run(true, Duration::from_secs(8));
        assert_eq!(line.search.mtu(), Mtu { bytes: expected, is_known: true }, "{before} to {after}");
    }
}

#[test]
fn a_path_that_shrank_while_idle_is_asked_with_the_first_data() {
    let mut line = Line::new(V4, 1420, 1500);
    line.search();
    line.run(false, Duration::from_secs(100));
    line.link = 1400;
    line.run(true, Duration::from_secs(1));
    assert!(line.search.mtu().bytes <= 1340, "{:?}", line.search);
}

#[test]
fn a_path_that_grows_is_used_within_ten_minutes() {
    let mut line = Line::new(V4, 1420, 1400);
    line.search();
    line.link = 1500;
    line.run(true, Duration::from_secs(601));
    assert_eq!(line.search.mtu(), Mtu { bytes: 1420, is_known: true });
    let mut small = Line::new(V4, 1420, 1280);
    small.search();
    small.link = 1500;
    small.run(true, Duration::from_secs(61));
    assert_eq!(small.search.bytes, 1420, "sooner where it hurts");
}

#[test]
fn a_dead_path_is_not_taken_for_a_small_one() {
    let mut line = Line::new(V4, 1420, 1500);
    line.is_cut = true;
    line.run(true, Duration::from_secs(30));
    assert_eq!(line.search.mtu(), Mtu::UNKNOWN);
    line.is_cut = false;
    line.search();
    line.run(true, Duration::from_secs(10));
    line.is_cut = true;
    line.run(true, Duration::from_secs(30));
    assert_eq!(line.search.mtu(), Mtu { bytes: 1420, is_known: true });
}

#[test]
fn a_slow_answer_is_an_answer() {
    let mut search = PathMtu::new(V4, 1420);
    let mut now = at(0);
    let mut tokens = Vec::new();
    for token in 0..3 {
        let size = search.handle_timeout(true, RTT, now).unwrap();
        assert_eq!(size, 1420);
        search.sent(token, size);
        tokens.push(token);
        search.heard(now);
        now += Duration::from_millis(150);
    }
    assert_eq!(search.handle_timeout(true, RTT, now), Some(BASE), "given up");
    assert!(search.answered(tokens[1], now));
    assert_eq!(search.mtu(), Mtu { bytes: 1420, is_known: true });
    assert!(!search.answered(tokens[1], now), "once");
    assert!(!search.answered(99, now));
}

#[test]
fn data_costs_little_watching() {
    let mut line = Line::new(V4, 1420, 1500);
    line.search();
    let before = line.probes;
    line.run(true, Duration::from_secs(3600));
    let probes = line.probes - before;
    assert!(probes <= 1800, "{probes} in an hour");
}
