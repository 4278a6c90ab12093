//! Death in time, no flapping, promotion, hysteresis; over simulated minutes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::locator::{Channel, DoorId, Endpoint};
use crate::testing::{address, at};

const RELAY: Locator = Locator::Relayed {
    relay: Endpoint::main(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 250), 1))),
    channel: Channel(1),
};

fn direct(n: u8) -> Locator {
    Locator::Direct(address(n).into())
}

/// Through a further socket of ours.
fn door(n: u8) -> Locator {
    Locator::Direct(Endpoint::by_door(DoorId(n.into()), address(n)))
}

/// Paths to a peer that answers after `rtt`, as long as it is up.
struct Line {
    paths: Paths,
    rtt: Duration,
    now: Instant,
    token: u64,
    /// Answers on their way.
    answers: VecDeque<(Instant, u64)>,
    died: Vec<(Locator, Instant)>,
    changes: usize,
    /// The largest inner packet that arrives.
    mtu: u16,
}

impl Line {
    fn new(rtt_ms: u64) -> Self {
        let paths = Paths::new(1280);
        let rtt = Duration::from_millis(rtt_ms);
        let (died, answers) = (Vec::new(), VecDeque::new());
        Self { paths, rtt, now: at(0), token: 0, answers, died, changes: 0, mtu: 1280 }
    }

    /// A relay and a direct path, both proved.
    fn with_both(rtt_ms: u64) -> Self {
        let mut line = Self::new(rtt_ms);
        line.paths.confirm(RELAY, Method::Relayed, line.now);
        line.select();
        line.paths.confirm(direct(1), Method::Punched, line.now);
        line.select();
        line.changes = 0;
        line
    }

    fn select(&mut self) {
        self.changes += usize::from(self.paths.select(self.now).is_some());
    }

    /// Run to the stated deadlines until `end`; `arrives` decides on each probe and its answer together.
    fn run(&mut self, end: Instant, mut arrives: impl FnMut(Locator, Instant) -> bool) {
        loop {
            let due = self.paths.poll_timeout(true, true);
            let answer = self.answers.front().map(|(at, _)| *at);
            let Some(next) = due.into_iter().chain(answer).min().filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            while let Some((at, token)) = self.answers.front().copied()
                && at <= self.now
            {
                self.answers.pop_front();
                if self.paths.answered(token, self.now).is_none() {
                    self.paths.passed(token, self.now);
                }
            }
            for due in self.paths.handle_timeout(true, true, self.now) {
                match due {
                    Due::Doubted(_) => {}
                    Due::Died(locator) => self.died.push((locator, self.now)),
                    Due::Measure(locator, size) => {
                        self.token += 1;
                        self.paths.measuring(locator, self.token, size);
                        if self.mtu >= size && arrives(locator, self.now) {
                            self.answers.push_back((self.now + self.rtt, self.token));
                        }
                    }
                    Due::Probe(locator) => {
                        self.token += 1;
                        self.paths.sent(locator, self.token, self.now);
                        if arrives(locator, self.now) {
                            self.answers.push_back((self.now + self.rtt, self.token));
                        }
                    }
                }
            }
            let due = self.paths.poll_timeout(true, true);
            assert!(due.is_none_or(|due| due > self.now), "{due:?} is not later than {:?}", self.now);
            self.select();
        }
        self.now = end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_silent_cut_is_noticed_within_two_seconds(
        slow: bool, warm_up in 3_000_u64..10_000, phase in 0_u64..1_000_000,
    ) {
        let mut line = Line::with_both(if slow { 200 } else { 20 });
        let cut = at(warm_up) + Duration::from_micros(phase);
        line.run(cut, |_, _| true);
        prop_assert_eq!(line.paths.selected().unwrap().locator, direct(1));
        line.run(cut + Duration::from_secs(2), |locator, _| locator == RELAY);
        prop_assert_eq!(line.paths.selected().unwrap().locator, RELAY);
        prop_assert_eq!(line.died.len(), 1);
    }
}

#[test]
fn the_first_round_trip_is_measured_again_at_once_though_nothing_flows() {
    let mut paths = Paths::new(1280);
    paths.confirm(direct(1), Method::Public, at(0));
    paths.select(at(0));
    paths.ask_twice();
    paths.sent(direct(1), 1, at(0));
    paths.answered(1, at(70));
    assert_eq!(paths.selected().unwrap().rtt(), Some(Duration::from_millis(70)));
    let again = at(70) + PROBE_ACTIVE;
    assert!(paths.poll_timeout(false, true).is_some_and(|due| due <= again));
    assert!(paths.handle_timeout(false, true, again).contains(&Due::Probe(direct(1))));
    paths.sent(direct(1), 2, again);
    paths.answered(2, again + Duration::from_millis(1));
    assert_eq!(paths.selected().unwrap().rtt(), Some(Duration::from_millis(1)), "the machines were busy");
    let later = again + KEEPALIVE / 2;
    assert!(!paths.handle_timeout(false, true, later).contains(&Due::Probe(direct(1))), "twice is enough");
}

#[test]
fn one_slow_answer_does_not_put_off_the_death() {
    let mut line = Line::with_both(900);
    line.run(at(1_000), |_, _| true);
    line.rtt = Duration::from_millis(20);
    line.run(at(3_000), |_, _| true);
    line.run(at(7_000), |locator, _| !locator.is_direct());
    let (locator, died) = line.died[0];
    assert_eq!(locator, direct(1));
    assert!(died.since(at(3_000)) <= Duration::from_secs(2), "{died:?}");
}

#[test]
fn a_line_that_loses_every_twentieth_probe_never_flaps() {
    for (seed, rtt) in [(1, 20), (2, 20), (3, 80), (4, 200)] {
        let mut dice = ChaCha20Rng::seed_from_u64(seed);
        let mut line = Line::with_both(rtt);
        line.run(at(600_000), |_, _| !dice.next_u32().is_multiple_of(20));
        assert_eq!((line.changes, &line.died[..]), (0, &[][..]), "seed {seed}");
        let loss = line.paths.selected().unwrap().loss();
        assert!((0.0..0.5).contains(&loss), "{loss}");
    }
}

#[test]
fn a_direct_path_is_taken_at_once_and_the_relay_when_it_dies() {
    let mut line = Line::new(30);
    line.paths.confirm(RELAY, Method::Relayed, line.now);
    assert_eq!(line.paths.select(line.now), Some(RELAY));
    line.run(at(2000), |_, _| true);
    line.paths.confirm(direct(1), Method::Punched, line.now);
    line.paths.measured(direct(1), Duration::from_millis(900));
    assert_eq!(line.paths.select(line.now), Some(direct(1)), "however slow");
    assert_eq!(line.paths.selected().unwrap().since, line.now);
}

#[test]
fn the_choice_moves_for_a_fifth_and_ten_milliseconds_only() {
    let chosen = |old: u64, new: u64| {
        let mut line = Line::new(old);
        line.paths.confirm(direct(1), Method::Punched, line.now);
        line.paths.measured(direct(1), Duration::from_millis(old));
        line.select();
        line.paths.confirm(direct(2), Method::Punched, line.now);
        line.paths.measured(direct(2), Duration::from_millis(new));
        line.paths.select(line.now).is_some()
    };
    assert!(!chosen(30, 21), "less than ten milliseconds");
    assert!(!chosen(200, 165), "less than a fifth");
    assert!(!chosen(30, 60));
    assert!(chosen(200, 150));
    assert!(chosen(40, 20));
}

#[test]
fn a_round_trip_that_was_never_measured_beats_none_that_was() {
    let other = Locator::Relayed { relay: address(251).into(), channel: Channel(1) };
    let mut line = Line::new(400);
    line.paths.confirm(RELAY, Method::Relayed, line.now);
    line.select();
    line.run(at(3000), |_, _| true);
    line.paths.confirm(other, Method::Relayed, line.now);
    assert_eq!(line.paths.select(line.now), None);
}

#[test]
fn paths_are_bounded_and_the_one_in_use_stays() {
    let mut line = Line::with_both(20);
    for n in 2..50 {
        line.now = at(u64::from(n));
        line.paths.confirm(direct(n), Method::Punched, line.now);
        assert!(line.paths.iter().count() <= MAX_PATHS);
    }
    assert_eq!(line.paths.selected().unwrap().locator, direct(1));
    assert!(line.paths.find(direct(49)).is_some(), "the newest has its place");
    assert!(line.paths.find(RELAY).is_none(), "the worst had to go");
}

#[test]
fn an_answer_counts_once_and_names_its_path() {
    let mut line = Line::with_both(20);
    line.paths.sent(direct(1), 7, at(0));
    line.paths.sent(RELAY, 8, at(0));
    let rtt = Duration::from_millis(50);
    assert_eq!(line.paths.answered(8, at(50)), Some((RELAY, rtt)));
    assert_eq!(line.paths.answered(8, at(60)), None);
    assert_eq!(line.paths.answered(9, at(60)), None);
    assert_eq!(line.paths.unasked(), None, "a probe is under way");
    assert_eq!(line.paths.answered(7, at(60)).map(|(path, _)| path), Some(direct(1)));
    assert_eq!(line.paths.unasked(), Some(direct(1)));
}

#[test]
fn a_path_that_nothing_uses_is_not_probed() {
    let mut line = Line::with_both(20);
    assert_eq!(line.paths.handle_timeout(false, false, at(0)), [Due::Measure(direct(1), 1280)]);
    line.paths.measuring(direct(1), 7, 1280);
    assert!(line.paths.passed(7, at(0)), "the path in use is measured once");
    assert_eq!(line.paths.poll_timeout(false, false), None);
    let kept = line.paths.poll_timeout(false, true);
    assert_eq!(kept, Some(at(0) + KEEPALIVE));
}

/// The direct path in use dies, and is proved again two seconds later. How long after its death it is in use again.
fn taken_again(line: &mut Line) -> Duration {
    assert_eq!(line.paths.selected().unwrap().locator, direct(1));
    line.run(line.now + Duration::from_secs(4), |locator, _| locator == RELAY);
    let (_, died) = *line.died.last().unwrap();
    assert_eq!(line.paths.selected().unwrap().locator, RELAY);
    line.paths.confirm(direct(1), Method::Punched, line.now);
    line.paths.measured(direct(1), Duration::from_millis(20));
    line.select();
    while line.paths.selected().unwrap().locator == RELAY {
        line.run(line.now + Duration::from_secs(1), |_, _| true);
    }
    line.now.since(died)
}

#[test]
fn a_path_that_dies_again_and_again_is_not_taken_back_at_once() {
    let mut line = Line::with_both(20);
    let quick = Duration::from_secs(4);
    assert!(taken_again(&mut line) < quick, "once is an accident");
    for hold in [58, 180, 180] {
        line.run(line.now + Duration::from_secs(5), |_, _| true);
        let (hold, took) = (Duration::from_secs(hold), taken_again(&mut line));
        assert!((hold..=hold + Duration::from_secs(1)).contains(&took), "{took:?}, not {hold:?}");
    }
    line.run(line.now + REMEMBER, |_, _| true);
    assert!(taken_again(&mut line) < quick, "all is forgotten");
}

#[test]
fn an_end_that_moves_says_nothing_about_how_steady_a_path_is() {
    let mut line = Line::with_both(20);
    for _ in 0..5 {
        line.paths.distrust(line.now);
        let quick = taken_again(&mut line);
        assert!(quick < Duration::from_secs(4), "{quick:?}");
    }
}

#[test]
fn who_holds_a_path_down_still_leaves_a_relay_that_dies() {
    let mut line = Line::with_both(20);
    taken_again(&mut line);
    line.run(line.now + Duration::from_secs(3), |locator, _| locator == RELAY);
    line.paths.confirm(direct(1), Method::Punched, line.now);
    line.select();
    assert_eq!(line.paths.selected().unwrap().locator, RELAY, "held down");
    line.run(line.now + Duration::from_secs(3), |locator, _| locator != RELAY);
    assert_eq!(line.paths.selected().unwrap().locator, direct(1), "better than nothing");
}

#[test]
fn a_further_socket_gives_way_to_the_first_unless_that_is_worse() {
    let moves = |from: Locator, old: u64, to: Locator, new: u64| {
        let mut line = Line::new(old);
        line.paths.confirm(from, Method::Punched, line.now);
        line.paths.measured(from, Duration::from_millis(old));
        line.select();
        line.paths.confirm(to, Method::Punched, line.now);
        line.paths.measured(to, Duration::from_millis(new));
        line.paths.select(line.now) == Some(to)
    };
    for rtt in [1, 20, 100, 300] {
        assert!(moves(door(1), rtt, direct(1), rtt + rtt / 6 + 5), "{rtt} ms");
        assert!(!moves(direct(1), rtt, door(1), rtt));
        assert!(!moves(direct(1), rtt + rtt / 6 + 5, door(1), rtt), "nor back");
    }
    assert!(!moves(door(1), 100, direct(1), 150), "much worse");
    assert!(moves(direct(1), 300, door(1), 100), "much better");
}

#[test]
fn a_further_socket_is_given_up_once_neither_side_uses_it() {
    let mut line = Line::new(20);
    line.paths.confirm(door(1), Method::Punched, line.now);
    line.select();
    line.run(at(1_000), |_, _| true);
    assert_eq!(line.paths.on_own_socket(line.now), Some(at(0)));
    line.paths.confirm(direct(1), Method::Punched, line.now);
    line.paths.measured(direct(1), line.rtt);
    line.select();
    assert_eq!((line.paths.on_own_socket(line.now), line.paths.retire(line.now)), (None, false));
    // The other side still uses its own.
    line.run(at(20_000), |_, _| true);
    line.paths.came(door(1), line.now);
    assert!(!line.paths.retire(line.now));
    line.run(at(25_000), |_, _| true);
    line.paths.distrust(line.now);
    assert!(!line.paths.retire(line.now), "the other may be needed");
    line.run(at(26_000), |_, _| true);
    assert!(line.paths.retire(line.now) && line.paths.find(door(1)).is_none());
    assert!(!line.paths.retire(line.now));
}

#[test]
fn what_only_a_further_socket_can_do_is_not_tried_with_the_first() {
    for method in [Method::Predicted, Method::Guessed] {
        let mut line = Line::new(20);
        line.paths.confirm(door(1), method, line.now);
        line.select();
        assert_eq!(line.paths.on_own_socket(line.now), None);
    }
}
