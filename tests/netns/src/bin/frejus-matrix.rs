//! Runs every pair of NAT classes on the kernel, or writes the page about runs of both worlds.
//!
//! ```text
//! frejus-matrix run REPETITIONS [--only CLASS,CLASS] [--rivals RATE]    a line of JSON a run, on standard output
//! frejus-matrix report [NAME=VALUE]... < lines                       the page in Markdown
//! ```

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Mutex;

use frejus_netns::NatClass;
use frejus_netns::matrix::record::{Record, cells};
use frejus_netns::matrix::{drive, report};

/// Laboratories at a time: two suit two cores.
const AT_A_TIME: usize = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", repetitions, options @ ..] => run(repetitions, options),
        ["report", facts @ ..] => tell(facts),
        _ => Err("say run REPETITIONS, or report".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("frejus-matrix: {what}: see the head of its source");
            ExitCode::from(2)
        }
    }
}

fn run(repetitions: &str, options: &[&str]) -> Result<(), String> {
    let repetitions: u64 = repetitions.parse().map_err(|_| format!("`{repetitions}` is no number"))?;
    let (mut only, mut rivals) = (None, None);
    for pair in options.chunks(2) {
        match pair {
            ["--only", classes] => only = Some(two(classes)?),
            ["--rivals", rate] => rivals = Some(rate.parse().map_err(|_| format!("`{rate}` is no rate"))?),
            _ => return Err(format!("`{}` is not understood", pair.join(" "))),
        }
    }
    let wanted = |cell: &[NatClass; 2]| only.is_none_or(|[a, b]| *cell == [a, b] || *cell == [b, a]);
    // One repetition of every cell after the other, so that a campaign that is broken off has all cells.
    let all = (1..=repetitions).flat_map(|seed| cells().filter(wanted).map(move |cell| (cell, seed)));
    let todo = Mutex::new(all);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().ok().and_then(|mut todo| todo.next());
                    let Some((cell, seed)) = next else { return };
                    let Some(record) = drive::run(cell, seed, rivals) else { return };
                    say(&record);
                }
            });
        }
    });
    Ok(())
}

/// The record for the page, and a word for who watches.
fn say(record: &Record) {
    let mut out = std::io::stdout().lock();
    // Who reads no more, has seen enough.
    let _ = writeln!(out, "{}", record.line()).and_then(|()| out.flush());
    let took = record.direct_ms.map(|ms| format!(" after {ms:.0} ms")).unwrap_or_default();
    let how = record.failure.clone().unwrap_or_else(|| format!("{} {}{took}", record.kind, record.method));
    eprintln!("{} -> {}, run {}: {how}", record.a, record.b, record.seed);
}

fn two(classes: &str) -> Result<[NatClass; 2], String> {
    let (a, b) = classes.split_once(',').ok_or_else(|| format!("`{classes}` is not two classes"))?;
    let read = |word: &str| word.parse::<NatClass>().map_err(|trouble| trouble.what);
    Ok([read(a)?, read(b)?])
}

fn tell(facts: &[&str]) -> Result<(), String> {
    let fact = |word: &&str| {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no NAME=VALUE"))?;
        Ok::<_, String>((name.to_owned(), value.to_owned()))
    };
    let facts = facts.iter().map(fact).collect::<Result<_, _>>()?;
    let lines = std::io::stdin().lock().lines();
    let records: Vec<Record> = lines.map_while(Result::ok).filter_map(|line| Record::parse(&line)).collect();
    if records.is_empty() {
        return Err("no record on standard input".to_owned());
    }
    let page = report::page(&records, &facts);
    std::io::stdout().write_all(page.as_bytes()).map_err(|error| error.to_string())
}
