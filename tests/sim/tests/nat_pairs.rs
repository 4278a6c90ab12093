//! Every pair of NAT classes against the oracle, in both directions.

use std::time::Duration;

use frejus_oracle::{Best, best};
use frejus_overlay::document::NatClass;
use frejus_overlay::node::{Answer, Request};
use frejus_sim::app::Kind;
use frejus_sim::nat::CLASSES;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// How soon a way must be found.
const fn wanted(best: Best) -> Option<Duration> {
    match best {
        Best::Public | Best::Reversed | Best::Punched | Best::Learnt => Some(SECOND),
        Best::Predicted => Some(Duration::from_secs(3)),
        Best::Guessed => Some(Duration::from_secs(24)),
        Best::Relay => None,
    }
}

/// `a` speaks first, with three super peers at hand; what was wrong, if anything.
fn judge(seed: u64, a: NatClass, b: NatClass) -> Option<String> {
    let best = best(a.name(), b.name()).expect("a class of the matrix");
    let scenario = Scenario::new(seed).super_peer("s").super_peer("t").super_peer("u");
    let mut world = scenario.home("a", a).home("b", b).build();
    let label = format!("{}–{} (seed {seed})", a.name(), b.name());
    world.run_until(SECOND * 5, World::all_ready).expect("ready");
    // The survey that follows takes a second and a half.
    world.run_for(SECOND * 3);
    let begun = world.now();
    let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 25);
    let direct = world.run_until(SECOND * 24, |w| w.is_direct("a", "b"));
    let method = world.path("a", "b").and_then(|path| path.method.name());
    world.run_until(SECOND * 30, |w| w.now().since(begun) >= SECOND * 27);
    let lost = world.unanswered(stream, begun, world.now());
    if lost > 0 {
        return Some(format!("{label}: {lost} letters unanswered\n{}", world.story()));
    }
    match (wanted(best), direct) {
        (Some(limit), Some(took)) if took <= limit && method == Some(best.method()) => None,
        (None, None) => None,
        (wanted, _) => Some(format!(
            "{label}: wanted {best:?} within {wanted:?}, direct after {direct:?} by {method:?}\n{}",
            world.story()
        )),
    }
}

#[test]
fn both_know_the_same_classes() {
    assert_eq!(CLASSES.map(NatClass::name), frejus_oracle::CLASSES);
}

#[test]
fn all_pairs_do_in_both_directions_what_the_oracle_says() {
    let mut wrong = Vec::new();
    for seed in 1..=2 {
        for one in CLASSES {
            for other in CLASSES {
                wrong.extend(judge(seed, one, other));
            }
        }
    }
    let summary: Vec<_> = wrong.iter().filter_map(|w| w.lines().next()).collect();
    assert!(wrong.is_empty(), "{} cells: {summary:#?}\n{}", wrong.len(), wrong[0]);
}

#[test]
fn two_symmetric_nats_stay_on_the_relay_and_work() {
    for seed in 1..=3 {
        let scenario = Scenario::new(seed).super_peer("s");
        let mut world =
            scenario.home("a", NatClass::SymmetricRandom).home("b", NatClass::SymmetricSequential).build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 60);
        world.run_for(SECOND * 62);
        assert!(world.is_relayed("a", "b"));
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
        let path = world.path("a", "b").expect("a path");
        assert_eq!(path.via.as_deref(), Some("s"));
        let back = world.send("b", "a", Kind::Request);
        world.run_for(SECOND);
        assert_eq!(world.answered(back), Some(Duration::from_millis(80)), "two links each way");
    }
}

#[test]
fn blocked_udp_is_said_and_served_by_tcp() {
    let scenario = Scenario::new(1).super_peer("s").home("a", NatClass::UdpBlocked);
    let mut world = scenario.home("b", NatClass::PortRestricted).home("c", NatClass::FullCone).build();
    world.run_for(SECOND * 30);
    assert!(world.all_ready());
    assert_eq!(world.status("a").expect("it runs").nat, NatClass::UdpBlocked);
    for (from, to) in [("b", "c"), ("a", "b"), ("c", "a")] {
        let letter = world.send(from, to, Kind::Request);
        world.run_for(SECOND);
        assert!(world.answered(letter).is_some(), "{from} → {to}");
    }
}

#[test]
fn behind_one_carrier_nat_homes_still_reach_each_other() {
    for (carrier, seed) in [(NatClass::PortRestricted, 1), (NatClass::SymmetricRandom, 2)] {
        let mut world = Scenario::new(seed)
            .super_peer("s")
            .home("carrier", carrier)
            .later()
            .nested("a", NatClass::PortRestricted, "carrier")
            .nested("b", NatClass::PortRestricted, "carrier")
            .build();
        world.run_until(SECOND * 5, World::all_ready).expect("ready");
        let begun = world.now();
        let stream = world.stream("a", "b", Duration::from_millis(50), SECOND * 20);
        world.run_for(SECOND * 21);
        assert_eq!(world.unanswered(stream, begun, world.now()), 0);
    }
}

/// A user's pings are all that flows, as when somebody runs `frejus ping --until-direct`.
#[test]
fn pings_alone_lead_to_every_path_that_there_is() {
    for one in CLASSES {
        for other in CLASSES {
            let scenario = Scenario::new(3).super_peer("s").super_peer("t").super_peer("u");
            let mut world = scenario.home("a", one).home("b", other).build();
            world.run_until(SECOND * 5, World::all_ready).expect("ready");
            world.run_for(SECOND * 3);
            let (best, label) = (best(one.name(), other.name()), format!("{}–{}", one.name(), other.name()));
            let limit = wanted(best.expect("a class of the matrix"));
            let (mut asked, begun) = (Vec::new(), world.now());
            while world.now().since(begun) < limit.unwrap_or(SECOND * 7) && !world.is_direct("a", "b") {
                let ping = Request::Ping { peer: "b".to_owned(), timeout: SECOND * 5 };
                asked.push(world.request(world.id("a"), ping));
                world.run_for(SECOND / 5);
            }
            world.run_for(SECOND);
            let answers = asked.iter().map(|asked| world.host("a").answers.get(asked));
            let gives_up = answers.map(|answer| match answer {
                // Who has arrived goes no further.
                Some((_, Answer::Pong { guessing, path, .. })) => !guessing && !path.locator.is_direct(),
                other => panic!("{label}: {other:?} to a ping\n{}", world.story()),
            });
            // As long as it goes on by itself, `frejus ping` does not ask.
            let gave_up = gives_up.skip(29).any(|gives_up| gives_up);
            assert!(!gave_up || limit != wanted(Best::Guessed), "{label}: it gives up");
            assert_eq!(limit.is_some(), world.is_direct("a", "b"), "{label}\n{}", world.story());
        }
    }
}
