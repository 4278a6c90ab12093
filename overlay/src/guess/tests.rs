//! Two sides, each behind a NAT that counts or scatters, and the probes between them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const SERVERS: [&str; 2] = ["203.0.113.101:51860", "203.0.113.102:51860"];

/// A counting NAT in front of one side.
struct Counter {
    ip: IpAddr,
    next: u16,
    step: i16,
    mappings: BTreeMap<(DoorId, SocketAddr), u16>,
}

impl Counter {
    fn new(last: u8, next: u16, step: i16) -> Self {
        Self { ip: IpAddr::from([198, 51, 100, last]), next, step, mappings: BTreeMap::new() }
    }

    fn map(&mut self, door: DoorId, to: SocketAddr) -> SocketAddr {
        let (next, step) = (&mut self.next, self.step);
        let port = *self.mappings.entry((door, to)).or_insert_with(|| {
            let port = *next;
            *next = next.wrapping_add_signed(step);
            port
        });
        SocketAddr::new(self.ip, port)
    }

    /// Others behind it take so many.
    fn skip(&mut self, flows: u16) {
        self.next = self.next.wrapping_add_signed(self.step * flows as i16);
    }
}

/// Carries out what is due on a counting side: what the peer is told, and the mappings towards it.
struct Side {
    guess: Guess,
    nat: Counter,
    doors: u16,
    /// Others take so many ports after the measurement.
    busy: u16,
    announced: Option<Window>,
    /// Towards whom from which outer endpoint.
    sent: Vec<(SocketAddr, SocketAddr)>,
}

impl Side {
    fn new(nat: Counter, theirs: Ports, leads: bool) -> Self {
        let mut guess = Guess::default();
        guess.learn(theirs);
        guess.start(Ports::Counted(nat.step), leads, at(0));
        Self { guess, nat, doors: 0, busy: 0, announced: None, sent: Vec::new() }
    }

    fn carry_out(&mut self, due: Vec<Due>, known: SocketAddr, now: Instant) {
        for due in due {
            let more = match due {
                Due::Open => {
                    self.doors += 1;
                    self.guess.opened(DoorId(self.doors), now)
                }
                Due::Ask(door, which) => {
                    let seen = self.nat.map(door, place(SERVERS[which]));
                    let more = self.guess.seen(door, which, seen, now);
                    if which == 0 {
                        self.nat.skip(self.busy);
                    }
                    more
                }
                Due::ProbeKnown(door) => {
                    let from = self.nat.map(door, known);
                    self.sent.push((from, known));
                    Vec::new()
                }
                Due::Probe(Some(door), to) | Due::ProbeNear(door, to, _) => {
                    let from = self.nat.map(door, to);
                    self.sent.push((from, to));
                    Vec::new()
                }
                Due::Announce(window) => {
                    self.announced = Some(window);
                    Vec::new()
                }
                Due::Probe(None, _) | Due::Offer | Due::Finish => Vec::new(),
            };
            self.carry_out(more, known, now);
        }
    }
}

#[test]
fn who_does_what() {
    use Ports::{Counted, Kept, Scattered, Unknown};
    assert_eq!(plan(Counted(1), Kept, true), Some(Plan::Predict));
    assert_eq!(plan(Kept, Counted(1), true), Some(Plan::Follow));
    assert_eq!(plan(Counted(1), Counted(2), true), Some(Plan::Lead));
    assert_eq!(plan(Counted(1), Counted(2), false), Some(Plan::Follow));
    assert_eq!(plan(Scattered, Kept, false), Some(Plan::Scatter));
    assert_eq!(plan(Kept, Scattered, false), Some(Plan::Shoot));
    for (ours, theirs) in [(Kept, Kept), (Unknown, Kept), (Unknown, Unknown)] {
        assert_eq!(
            (plan(ours, theirs, true), plan(theirs, ours, false)),
            (Some(Plan::Call), Some(Plan::Heed))
        );
    }
    for (ours, theirs) in [(Scattered, Scattered), (Scattered, Counted(1)), (Unknown, Counted(1))] {
        assert_eq!(plan(ours, theirs, true), None);
    }
}

proptest! {
    #[test]
    fn what_the_peer_sees_lies_between_two_questions(
        next in 2000_u16..60000, step in prop_oneof![1_i16..4, -3_i16..0], busy in 0_u16..20,
    ) {
        let peer = place("192.0.2.1:51860");
        let mut side = Side::new(Counter::new(1, next, step), Ports::Kept, true);
        side.busy = busy;
        let due = side.guess.handle_timeout(at(600));
        side.carry_out(due, peer, at(600));
        let window = side.announced.expect("announced");
        prop_assert!(window.ports().any(|port| SocketAddr::new(window.ip, port) == side.sent[0].0));
        prop_assert_eq!(window.ports().count(), usize::from(busy) + 1, "and hardly any other does");

        let mut other = Guess::default();
        other.learn(Ports::Counted(step));
        other.start(Ports::Kept, false, at(0));
        prop_assert!(other.announced(&window, at(650)).is_empty());
        let due = other.handle_timeout(at(650));
        prop_assert!(due.contains(&Due::Probe(None, side.sent[0].0)));
    }

    #[test]
    fn two_that_count_meet_in_the_middle(one in 2000_u16..60000, two in 2000_u16..60000, skips in 0_u16..4) {
        let mut leader = Side::new(Counter::new(1, one, 1), Ports::Counted(2), true);
        let mut follower = Side::new(Counter::new(2, two, 2), Ports::Counted(1), false);
        leader.busy = skips;
        let nowhere = place("192.0.2.9:9");
        let mut met = false;
        for round in 0..u64::from(ROUNDS) {
            let now = at(600 + 600 * round);
            let due = leader.guess.handle_timeout(now);
            leader.carry_out(due, nowhere, now);
            let due = follower.guess.announced(&leader.announced.take().expect("a round"), now);
            follower.carry_out(due, nowhere, now);
            let due = leader.guess.announced(&follower.announced.take().expect("an answer"), now);
            leader.carry_out(due, nowhere, now);
            for side in [&mut leader, &mut follower] {
                let due = side.guess.handle_timeout(now);
                side.carry_out(due, nowhere, now);
            }
            met |= leader.sent.iter().any(|(from, to)| follower.sent.contains(&(*to, *from)));
            // The next round is there to be lost or won on its own.
            leader.sent.clear();
            follower.sent.clear();
        }
        prop_assert!(met);
    }

    #[test]
    fn ports_are_tried_once_each_at_a_pace_within_bounds(seed: u64) {
        let mut shooter = Guess::default();
        shooter.learn(Ports::Scattered);
        shooter.start(Ports::Kept, true, at(0));
        let ip = IpAddr::from([198, 51, 100, 7]);
        prop_assert!(shooter.offered(ip, seed, at(0)));
        prop_assert!(!shooter.offered(ip, seed, at(1)), "one at a time");
        let mut tried = BTreeSet::new();
        let mut probes_in = BTreeMap::<u64, usize>::new();
        let mut now = at(0);
        while shooter.is_busy() {
            for due in shooter.handle_timeout(now) {
                let Due::Probe(None, to) = due else { continue };
                prop_assert!(to.ip() == ip && to.port() >= 1024 && tried.insert(to.port()));
                *probes_in.entry(now.since_start().as_secs()).or_default() += 1;
            }
            now = shooter.poll_timeout().unwrap_or(now).max(now);
        }
        prop_assert!(tried.len() <= 2048 && tried.len() >= 2000);
        prop_assert!(probes_in.values().all(|probes| *probes <= 104));
        prop_assert!(now <= at(21_000));
        prop_assert!(!shooter.offered(ip, seed, at(60_000)), "and not again soon");
    }
}

#[test]
fn sockets_are_opened_once_both_agree_and_left_when_it_is_over() {
    let mut guess = Guess::default();
    guess.learn(Ports::Kept);
    guess.start(Ports::Scattered, true, at(0));
    assert_eq!(guess.handle_timeout(at(2499)), []);
    assert_eq!(guess.handle_timeout(at(2500)), [Due::Offer], "after some seconds of traffic");
    assert!(!guess.is_busy(), "nobody has agreed");
    guess.agreed(at(2600));
    assert!(!guess.is_busy(), "to an offer that was not made");
    guess.offer_sent(at(2500));
    guess.agreed(at(7500));
    assert!(!guess.is_busy(), "too late");
    guess.offer_sent(at(2500));
    guess.agreed(at(2600));
    let (mut now, mut opened) = (at(2600), 0);
    while opened < 256 {
        for due in guess.handle_timeout(now) {
            assert_eq!(due, Due::Open);
            opened += 1;
            assert_eq!(guess.opened(DoorId(opened), now), [Due::ProbeKnown(DoorId(opened))]);
        }
        if opened < 256 {
            now = guess.poll_timeout().expect("more to open");
        }
    }
    assert_eq!(guess.leave(|_| false), [], "all are needed");
    assert!(now <= at(3000), "{now:?}");
    let won = DoorId(77);
    guess.stop();
    let left = guess.leave(|door| door == won);
    assert!(left.len() == 255 && !left.contains(&won));
    assert_eq!(guess.leave(|_| false), [won], "once its path is gone");
}

#[test]
fn nothing_is_begun_twice_and_a_failure_rests() {
    let mut guess = Guess::default();
    guess.learn(Ports::Kept);
    guess.start(Ports::Counted(1), true, at(0));
    let mut rounds = 0;
    for ms in (0..30_000).step_by(10) {
        guess.start(Ports::Counted(1), true, at(ms));
        for due in guess.handle_timeout(at(ms)) {
            if due == Due::Open {
                rounds += 1;
                guess.opened(DoorId(rounds), at(ms));
                assert!(guess.leave(|_| false).len() <= 1, "the door before the last is closed");
            }
        }
    }
    assert_eq!(rounds, u16::from(ROUNDS), "then a minute's rest");
    assert_eq!(guess.doors().count(), 2);
    guess.stop();
    assert_eq!(guess.leave(|_| false).len(), 2);
}

#[test]
fn windows_wrap_and_refuse_what_does_not_fit() {
    let port = |port: u16| SocketAddr::new(IpAddr::from([198, 51, 100, 1]), port);
    let window = between(port(40000), port(40002), 1).unwrap();
    assert_eq!(window.ports().collect::<Vec<_>>(), [40001]);
    assert_eq!(between(port(40000), port(40001), 1), None, "nothing between");
    assert_eq!(between(port(40000), port(40003), 2), None, "not of this step");
    assert_eq!(between(port(40000), port(40100), 1), None, "too many others");
    assert_eq!(between(port(40000), place("198.51.100.2:40002"), 1), None, "another address");
    assert_eq!(between(port(40000), port(40002), 0), None);
    let last = Window::after(port(65534), 1, 3);
    assert_eq!(last.ports().collect::<Vec<_>>(), [65535, 1024, 1025]);
    let hostile = Window { ip: port(1).ip(), first: 7, step: i16::MIN, count: u8::MAX };
    assert_eq!(hostile.ports().count(), usize::from(Window::MOST));
}

/// Both sides of a round of a meeting from `begun`, 20 ms apart through the relay and at once at a super peer; when the
/// first probe of each left, and how far one went that was to die on the way.
fn meeting_round(sides: &mut [Guess; 2], doors: [DoorId; 2], begun: Instant) -> ([Instant; 2], Option<u8>) {
    let half = Duration::from_millis(20);
    let at_super_peer = [place("198.51.100.1:4001"), place("198.51.100.2:4002")].map(|mut at| {
        at.set_port(at.port() + doors[0].0);
        at
    });
    let mut near = None;
    let mut announce = |side: &mut Guess, door: DoorId, [seen, other]: [SocketAddr; 2], now: Instant| {
        side.measured(half * 2);
        assert_eq!(side.opened(door, now), [Due::Ask(door, 0)]);
        let mut due = side.seen(door, 0, seen, now);
        let Some(Due::Announce(window)) = due.pop() else { panic!("no announcement") };
        assert_eq!(window.ports().collect::<Vec<_>>(), [seen.port()]);
        if let Some(Due::ProbeNear(by, at, hops)) = due.pop() {
            assert_eq!((by, at, near.replace(hops)), (door, other, None), "before the other side knows");
        }
        assert_eq!(due, []);
        window
    };
    assert_eq!(sides[0].handle_timeout(begun), [Due::Open]);
    let [one, other] = at_super_peer;
    let window = announce(&mut sides[0], doors[0], [one, other], begun);
    assert_eq!(sides[1].announced(&window, begun + half), [Due::Open]);
    let window = announce(&mut sides[1], doors[1], [other, one], begun + half);
    assert_eq!(sides[0].announced(&window, begun + half * 2), []);
    let mut first = [None; 2];
    for ms in 0..600 {
        let now = begun + half + Duration::from_millis(ms);
        for side in 0..2 {
            if side == 0 && ms < 20 {
                continue;
            }
            for due in sides[side].handle_timeout(now) {
                assert_eq!(due, Due::Probe(Some(doors[side]), at_super_peer[1 - side]));
                first[side].get_or_insert(now);
            }
        }
    }
    (first.map(|at| at.expect("both speak")), near)
}

#[test]
fn a_meeting_is_tried_in_every_order_of_who_speaks_first_and_then_rests() {
    let mut sides = [Guess::default(), Guess::default()];
    for (side, leads) in sides.iter_mut().zip([true, false]) {
        side.learn(Ports::Kept);
        side.start(Ports::Kept, leads, at(0));
        assert_eq!(side.finds_by(), Method::Punched);
    }
    let mut orders = Vec::new();
    for round in 0..u64::from(meeting::ROUNDS) {
        let doors = [1, 2].map(|side| DoorId(10 * (round as u16 + 1) + side));
        let ([caller, called], near) = meeting_round(&mut sides, doors, at(1000 + 1000 * round));
        orders.push((called.cmp(&caller), near));
        let apart = caller.since(called).max(called.since(caller));
        assert!(apart.is_zero() || apart >= Duration::from_millis(150), "{apart:?}");
    }
    let every = [
        (Ordering::Greater, Some(2)),
        (Ordering::Equal, None),
        (Ordering::Greater, Some(3)),
        (Ordering::Greater, None),
        (Ordering::Less, None),
        (Ordering::Greater, Some(5)),
    ];
    assert_eq!(orders, [every, every].concat());
    let end = at(1000 + 1000 * u64::from(meeting::ROUNDS));
    assert_eq!(sides[0].handle_timeout(end), [Due::Finish]);
    assert!(sides[0].poll_timeout() >= Some(end + RETRY), "a minute's rest");
}

#[test]
fn an_answer_that_nobody_called_for_is_not_followed() {
    let window = Window { ip: IpAddr::from([198, 51, 100, 1]), first: 4000, step: 1, count: Window::MOST };
    let mut caller = Guess::default();
    caller.learn(Ports::Kept);
    caller.start(Ports::Kept, true, at(0));
    assert_eq!(caller.announced(&window, at(10)), []);
    assert!(!caller.is_busy(), "no round is under way");
    let mut called = Guess::default();
    called.learn(Ports::Kept);
    called.start(Ports::Kept, false, at(0));
    assert_eq!(called.announced(&window, at(10)), [Due::Open]);
    called.opened(DoorId(1), at(10));
    called.seen(DoorId(1), 0, place("198.51.100.2:1"), at(10));
    let probes = (10..2000).flat_map(|ms| called.handle_timeout(at(ms))).collect::<Vec<_>>();
    assert_eq!(probes, vec![Due::Probe(Some(DoorId(1)), place("198.51.100.1:4000")); VOLLEYS.len()]);
}
