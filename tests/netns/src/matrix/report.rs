//! The page about a campaign: targets, both grids, every cell, the classifier, disagreements, failures.
//!
//! Says what was found, and nothing that was not. Never runs anything.

use std::collections::BTreeSet;
use std::fmt::Write;

use frejus_oracle::Best;

use super::record::{Record, cells, expected};
use super::tally::{Tally, disagreement, found};
use crate::nat::NatClass;

/// Short names of the classes, in their order; the reference's own.
const SHORT: [&str; 7] = ["OP", "FW", "FC", "AR", "PR", "SS", "SR"];

/// What is said about the machine and the programs, a line each.
pub type Facts = Vec<(String, String)>;

/// The page in Markdown.
pub fn page(records: &[Record], facts: &Facts) -> String {
    let mut page = String::from(
        "# Every pair of NATs\n\n\
         Each pair of classes, in both directions of the first packet, on a real kernel (`lab/`) and in the simulator\n\
         (`tests/sim`). Three super peers, a fresh internet for every run. Written by `scripts/nat-matrix.sh`.\n\n",
    );
    for (name, value) in facts {
        let _ = writeln!(page, "- {name}: {value}");
    }
    targets(&mut page, records);
    for world in ["kernel", "simulator"] {
        grid(&mut page, records, world);
    }
    table(&mut page, records);
    classes(&mut page, records);
    disagreements(&mut page, records);
    failures(&mut page, records);
    page
}

fn tally(records: &[Record], world: &str, cell: [NatClass; 2]) -> Tally {
    Tally::of(records.iter().filter(|record| record.world == world && [record.a, record.b] == cell))
}

/// Both directions of an unordered pair.
fn pair(records: &[Record], world: &str, [a, b]: [NatClass; 2]) -> Tally {
    let ours = |record: &&Record| {
        record.world == world && ([record.a, record.b] == [a, b] || [record.a, record.b] == [b, a])
    };
    Tally::of(records.iter().filter(ours))
}

fn pairs() -> impl Iterator<Item = [NatClass; 2]> {
    let row = |class: NatClass| NatClass::ALL.iter().position(|c| *c == class);
    cells().filter(move |[a, b]| row(*a) <= row(*b))
}

fn targets(page: &mut String, records: &[Record]) {
    type Count<'a> = &'a dyn Fn(&[NatClass; 2], &str) -> Option<bool>;
    let of = |ways: &'static [Best], least: f64| {
        move |cell: &[NatClass; 2], world: &str| {
            let best = expected(*cell);
            let tally = pair(records, world, *cell);
            ways.contains(&best).then(|| tally.runs > 0 && tally.rate(best) >= least)
        }
    };
    let connected = |cell: &[NatClass; 2], world: &str| {
        let tally = pair(records, world, *cell);
        Some(tally.runs > 0 && tally.connected == tally.runs)
    };
    let plain = of(&[Best::Public, Best::Reversed, Best::Punched, Best::Learnt], 1.0);
    let (predicted, guessed) = (of(&[Best::Predicted], 0.9), of(&[Best::Guessed], 0.95));
    let relayed = of(&[Best::Relay], 1.0);
    let rows: [(&str, Count<'_>); 5] = [
        ("connected in every run", &connected),
        ("direct without guessing, in every run", &plain),
        ("direct by prediction, ≥ 90 % of runs", &predicted),
        ("direct by birthday guess, ≥ 95 % of runs", &guessed),
        ("through a relay, in every run", &relayed),
    ];
    page.push_str(
        "\n## Pairs that reach their target\n\n| what | kernel | simulator |\n| --- | --- | --- |\n",
    );
    for (what, count) in rows {
        let in_world = |world: &str| {
            let judged: Vec<bool> = pairs().filter_map(|cell| count(&cell, world)).collect();
            format!("{} of {}", judged.iter().filter(|good| **good).count(), judged.len())
        };
        let _ = writeln!(page, "| {what} | {} | {} |", in_world("kernel"), in_world("simulator"));
    }
}

fn grid(page: &mut String, records: &[Record], world: &str) {
    let _ = write!(page, "\n## The {world}: runs that did what is possible\n\nThe row speaks first.\n\n| |");
    for short in SHORT {
        let _ = write!(page, " {short} |");
    }
    page.push_str("\n|");
    page.push_str(&" --- |".repeat(8));
    for (row, a) in NatClass::ALL.into_iter().enumerate() {
        let _ = write!(page, "\n| **{}** {} |", SHORT[row], a.word());
        for b in NatClass::ALL {
            let tally = tally(records, world, [a, b]);
            let good = tally.good(expected([a, b]));
            let _ = write!(page, " {} {good}/{} |", tally.method(), tally.runs);
        }
    }
    page.push('\n');
}

fn table(page: &mut String, records: &[Record]) {
    page.push_str(
        "\n## Every cell\n\nTimes are from the first packet to a direct path on both sides: median, longest, in \
         milliseconds. The\nkernel's are looked at every 50 ms. Lost are packets of a stream of ten a second that \
         were never answered.\n\n\
         | first | other | expected | kernel | rate | p50 | max | lost | simulator | rate | p50 | max | lost |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for cell in cells() {
        let best = expected(cell);
        let _ = write!(page, "| {} | {} | {} |", cell[0].word(), cell[1].word(), best.word());
        for world in ["kernel", "simulator"] {
            let tally = tally(records, world, cell);
            let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
            let (p50, max) = (time(tally.median()), time(tally.longest()));
            let (good, runs) = (tally.good(best), tally.runs);
            let _ = write!(page, " {} | {good}/{runs} | {p50} | {max} | {} |", tally.method(), tally.lost);
        }
        page.push('\n');
    }
}

fn classes(page: &mut String, records: &[Record]) {
    page.push_str(
        "\n## What the nodes find, beside the label\n\n| label | kernel | simulator |\n| --- | --- | --- |\n",
    );
    for (row, class) in NatClass::ALL.into_iter().enumerate() {
        let _ = write!(page, "| {} |", class.word());
        for world in ["kernel", "simulator"] {
            let counts = found(records.iter().filter(|record| record.world == world));
            let ours = counts.iter().filter(|((label, _), _)| *label == row);
            let words: Vec<String> = ours
                .map(|((_, found), count)| {
                    let mark = if found == class.word() { "" } else { "**" };
                    format!("{mark}{found}{mark} × {count}")
                })
                .collect();
            let _ = write!(page, " {} |", words.join(", "));
        }
        page.push('\n');
    }
    let mut times: Vec<f64> = records
        .iter()
        .filter(|record| record.world == "kernel")
        .filter_map(|record| record.found_ms)
        .collect();
    times.sort_by(f64::total_cmp);
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        let _ = writeln!(
            page,
            "\nOn the kernel both classes were known {median:.0} ms after readiness (p50), {longest:.0} ms at most."
        );
    }
}

fn disagreements(page: &mut String, records: &[Record]) {
    page.push_str("\n## Where kernel and simulator disagree\n\nOne of the two is wrong.\n\n");
    let before = page.len();
    for cell in cells() {
        let [kernel, simulator] = ["kernel", "simulator"].map(|world| tally(records, world, cell));
        if let Some(what) = disagreement(&kernel, &simulator, expected(cell)) {
            let _ = writeln!(page, "- {} → {}: {what}", cell[0].word(), cell[1].word());
        }
    }
    if page.len() == before {
        page.push_str("Nowhere.\n");
    }
}

fn failures(page: &mut String, records: &[Record]) {
    page.push_str("\n## Runs that failed, and seeds\n\n");
    for world in ["kernel", "simulator"] {
        let seeds: BTreeSet<u64> = records.iter().filter(|r| r.world == world).map(|r| r.seed).collect();
        if let (Some(first), Some(last)) = (seeds.first(), seeds.last()) {
            let _ = writeln!(page, "- {world}: runs, or seeds, {first} to {last} of each cell");
        }
    }
    for record in records {
        let missed = match (&record.failure, expected([record.a, record.b])) {
            (Some(why), _) => why.clone(),
            (None, best) if best.is_direct() && record.kind != "direct" => {
                format!("stayed on the {}", record.kind)
            }
            (None, _) if !record.connected => "no answer".to_owned(),
            (None, _) => continue,
        };
        let Record { world, a, b, seed, .. } = record;
        let _ = writeln!(page, "- {world}, {} → {}, {seed}: {missed}", a.word(), b.word());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(a: NatClass, b: NatClass) -> [Record; 2] {
        let record = |world: &str, kind: &str, method: &str| Record {
            connected: true,
            kind: kind.into(),
            method: method.into(),
            direct_ms: (kind == "direct").then_some(812.0),
            found: [a.word().to_owned(), "unknown".to_owned()],
            found_ms: Some(400.0),
            failure: None,
            ..Record::failed(world, [a, b], 3, "")
        };
        [record("kernel", "relay", ""), record("simulator", "direct", "predicted")]
    }

    #[test]
    fn a_page_calls_out_what_is_wrong() {
        let mut records = both(NatClass::PortRestricted, NatClass::SymmetricSequential).to_vec();
        records.push(Record::failed("kernel", [NatClass::Open; 2], 4, "no frejus binary"));
        let page = page(&records, &vec![("kernel".into(), "6.18".into())]);
        for line in [
            "- kernel: 6.18",
            "| direct by prediction, ≥ 90 % of runs | 0 of 3 | 1 of 3 |",
            "| port-restricted | symmetric-sequential | predicted | relay | 0/1 | - | - | 0 | predicted | 1/1 | 812 | 812 | 0 |",
            "| symmetric-sequential | **unknown** × 1 | **unknown** × 1 |",
            "- port-restricted → symmetric-sequential: 0 % on the kernel, 100 % in the simulator",
            "- kernel, port-restricted → symmetric-sequential, 3: stayed on the relay",
            "- kernel, open → open, 4: no frejus binary",
            "known 400 ms after readiness",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
