//! The hot functions for an instruction counter: `instructions NAME` runs one of them [`RUNS`] times, `instructions`
//! lists the names. `scripts/instructions.sh` runs it under callgrind, which counts inside [`measured`] alone.
#![allow(clippy::print_stdout, reason = "its answer")]

mod subjects;

use std::process::ExitCode;

/// How often; the script divides by it.
const RUNS: usize = 100;

/// What callgrind counts; its name stands in the script.
#[inline(never)]
fn measured(subject: &mut dyn subjects::Subject) {
    for _ in 0..RUNS {
        subject.run();
    }
}

fn main() -> ExitCode {
    // `cargo bench` adds this flag to what it runs.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [wanted] = &wanted[..] else {
        println!("runs {RUNS}");
        subjects::all().iter().for_each(|entry| println!("{}", entry.name));
        return ExitCode::SUCCESS;
    };
    let Some(entry) = subjects::all().into_iter().find(|entry| entry.name == *wanted) else {
        eprintln!("no function called {wanted}: run this without arguments for a list");
        return ExitCode::FAILURE;
    };
    let mut subject = (entry.make)();
    // What is done only once (feature detection, thread-locals) is not the function's cost.
    subject.prepare(1);
    subject.run();
    subject.prepare(RUNS);
    measured(&mut *subject);
    ExitCode::SUCCESS
}
