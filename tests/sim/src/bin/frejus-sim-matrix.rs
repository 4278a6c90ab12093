//! Every pair of NAT classes in virtual time: a line of JSON a run, of the same form as the kernel's.
//!
//! `frejus-sim-matrix SEEDS`: seeds 1 to SEEDS of every cell, in both directions of the first packet.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use frejus_overlay::document::NatClass;
use frejus_sim::nat::CLASSES;
use frejus_sim::scenario::Scenario;
use frejus_sim::world::World;

/// Long enough for the slowest way that there is, a birthday guess of 20 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// A class that is not known after this time is not found out.
const CLASS: Duration = Duration::from_secs(10);

/// What a node has found out about itself is known to others after this time.
const PUBLISHED: Duration = Duration::from_secs(1);

/// As on the kernel.
const PACE: Duration = Duration::from_millis(100);

/// Longer than any answer is on its way.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let Some(seeds) = std::env::args().nth(1).and_then(|word| word.parse::<u64>().ok()) else {
        eprintln!("frejus-sim-matrix: how many seeds: frejus-sim-matrix SEEDS");
        return ExitCode::from(2);
    };
    let mut out = std::io::stdout().lock();
    for seed in 1..=seeds {
        for a in CLASSES {
            for b in CLASSES {
                if writeln!(out, "{}", run(seed, a, b)).is_err() {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// `a` speaks first.
fn run(seed: u64, a: NatClass, b: NatClass) -> String {
    let scenario = Scenario::new(seed).super_peer("s1").super_peer("s2").super_peer("s3");
    let mut world = scenario.home("a", a).home("b", b).build();
    let head = format!(r#"{{"world":"simulator","a":"{}","b":"{}","seed":{seed}"#, a.name(), b.name());
    if world.run_until(Duration::from_secs(10), World::all_ready).is_none() {
        return format!(r#"{head},"connected":false,"lost":0,"failure":"not ready after 10 s"}}"#);
    }
    let class = |world: &World, name: &str| world.status(name).map_or(NatClass::Unknown, |status| status.nat);
    let known = |world: &World| ["a", "b"].iter().all(|name| class(world, name) != NatClass::Unknown);
    let found_ms = world.run_until(CLASS, known);
    let found = ["a", "b"].map(|name| class(&world, name).name());
    world.run_for(PUBLISHED);

    let begun = world.now();
    let stream = world.stream("a", "b", PACE, PATIENCE);
    let direct = world.run_until(PATIENCE, |world| world.is_direct("a", "b"));
    let ended = world.now();
    world.run_for(LAST_ANSWERS);
    let path = world.path("a", "b");
    let kind = if path.as_ref().is_some_and(|path| path.locator.is_direct()) { "direct" } else { "relay" };
    let method = path.and_then(|path| path.method.name()).unwrap_or_default();
    let answered = world.answers_of(stream).iter().any(|(_, took)| took.is_some());
    let lost = world.unanswered(stream, begun, ended);
    let milliseconds = |time: Option<Duration>| {
        time.map_or_else(|| "null".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1000.0))
    };
    format!(
        r#"{head},"connected":{answered},"kind":"{kind}","method":"{method}","direct_ms":{},"found":["{}","{}"],"found_ms":{},"lost":{lost},"failure":null}}"#,
        milliseconds(direct),
        found[0],
        found[1],
        milliseconds(found_ms),
    )
}
