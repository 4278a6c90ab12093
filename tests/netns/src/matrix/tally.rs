//! Many runs of one cell in one world: how often, how, how fast; and where two worlds disagree.

use std::collections::BTreeMap;

use frejus_oracle::Best;

use super::record::Record;
use crate::nat::NatClass;

/// Rates of one cell that differ by more than this are a disagreement: five runs of six against six of six are none.
const MARGIN: f64 = 0.2;

/// What the runs of a cell say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Runs, those that failed among them.
    pub runs: usize,
    /// Runs in which the first packet was answered.
    pub connected: usize,
    /// Runs that ended on a direct path.
    pub direct: usize,
    /// How often each method led there; `relay` for none.
    pub methods: BTreeMap<String, usize>,
    /// Times to a direct path, in milliseconds, sorted.
    pub times: Vec<f64>,
    /// Packets that were lost, over all runs.
    pub lost: u32,
}

impl Tally {
    /// Counts the runs of one cell.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut tally = Self::default();
        for record in records {
            tally.runs += 1;
            tally.lost += record.lost;
            tally.connected += usize::from(record.connected);
            if record.failure.is_some() {
                continue;
            }
            let direct = record.kind == "direct";
            tally.direct += usize::from(direct);
            let method = if direct { record.method.clone() } else { "relay".to_owned() };
            *tally.methods.entry(method).or_default() += 1;
            tally.times.extend(record.direct_ms);
        }
        tally.times.sort_by(f64::total_cmp);
        tally
    }

    /// The method of most runs.
    pub fn method(&self) -> &str {
        let most = self.methods.iter().max_by_key(|(_, count)| **count);
        most.map_or("-", |(method, _)| method)
    }

    /// The share of runs that did what is expected.
    pub fn rate(&self, best: Best) -> f64 {
        if self.runs == 0 { 0.0 } else { ratio(self.good(best), self.runs) }
    }

    /// Runs that did what is expected: became direct, or worked through the relay where there is no other way.
    pub const fn good(&self, best: Best) -> usize {
        if best.is_direct() { self.direct } else { self.connected }
    }

    /// The median time to a direct path, in milliseconds.
    pub fn median(&self) -> Option<f64> {
        self.times.get(self.times.len().checked_sub(1)? / 2).copied()
    }

    /// The longest.
    pub fn longest(&self) -> Option<f64> {
        self.times.last().copied()
    }
}

/// Why a cell is not the same in both worlds; none if it is.
pub fn disagreement(kernel: &Tally, simulator: &Tally, best: Best) -> Option<String> {
    if kernel.runs == 0 || simulator.runs == 0 {
        return None;
    }
    let (one, other) = (kernel.rate(best), simulator.rate(best));
    if (one - other).abs() > MARGIN {
        return Some(format!("{:.0} % on the kernel, {:.0} % in the simulator", one * 100.0, other * 100.0));
    }
    let (one, other) = (kernel.method(), simulator.method());
    (one != other).then(|| format!("{one} on the kernel, {other} in the simulator"))
}

/// How often each class was found behind each label.
pub fn found<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<(usize, String), usize> {
    let mut counts = BTreeMap::new();
    let row = |class: NatClass| NatClass::ALL.iter().position(|c| *c == class).expect("all are there");
    for record in records.into_iter().filter(|record| record.failure.is_none()) {
        for (label, found) in [record.a, record.b].into_iter().zip(&record.found) {
            *counts.entry((row(label), found.clone())).or_default() += 1;
        }
    }
    counts
}

/// `part` of `whole`; both are a campaign's worth of runs, which a double holds exactly.
pub fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, method: &str, ms: Option<f64>) -> Record {
        Record {
            connected: true,
            kind: kind.into(),
            method: method.into(),
            direct_ms: ms,
            failure: None,
            ..Record::failed("kernel", [NatClass::FullCone, NatClass::Open], 1, "")
        }
    }

    #[test]
    fn a_tally_counts_what_is_expected_and_failures_as_runs() {
        let runs = [
            run("direct", "punched", Some(300.0)),
            run("direct", "punched", Some(100.0)),
            run("direct", "public", Some(200.0)),
            run("relay", "", None),
            Record::failed("kernel", [NatClass::FullCone, NatClass::Open], 5, "not ready"),
        ];
        let tally = Tally::of(&runs);
        assert_eq!((tally.runs, tally.connected, tally.direct, tally.method()), (5, 4, 3, "punched"));
        assert_eq!((tally.median(), tally.longest()), (Some(200.0), Some(300.0)));
        assert_eq!((tally.good(Best::Punched), tally.good(Best::Relay)), (3, 4));
        assert_eq!(Tally::default().median(), None);
    }

    #[test]
    fn worlds_disagree_about_rates_first_and_then_about_methods() {
        let of = |runs: &[Record]| Tally::of(runs);
        let (direct, other) =
            (of(&[run("direct", "punched", Some(1.0))]), of(&[run("direct", "public", Some(1.0))]));
        let relayed = of(&[run("relay", "", None)]);
        assert_eq!(disagreement(&direct, &direct, Best::Punched), None);
        assert!(disagreement(&direct, &relayed, Best::Punched).unwrap().contains("0 % in the simulator"));
        assert!(disagreement(&direct, &other, Best::Punched).unwrap().contains("public in the simulator"));
        assert_eq!(disagreement(&direct, &Tally::default(), Best::Punched), None, "nothing was run");
    }
}
