//! What one run of one cell found: a line of JSON, written by the driver on the kernel and by the simulator.

use frejus_oracle::{Best, best};
use serde_json::{Value, json};

use crate::nat::NatClass;

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `kernel` or `simulator`.
    pub world: String,
    /// The class of the node that speaks first.
    pub a: NatClass,
    /// The class of the other.
    pub b: NatClass,
    /// The seed, or the number of the run where the kernel rolls the dice.
    pub seed: u64,
    /// Whether the first packet was answered.
    pub connected: bool,
    /// `direct` or `relay`.
    pub kind: String,
    /// How the path was found; empty for a relay.
    pub method: String,
    /// From the first packet to a direct path on both sides.
    pub direct_ms: Option<f64>,
    /// What both nodes found out about their own NATs.
    pub found: [String; 2],
    /// From readiness to both classes being known.
    pub found_ms: Option<f64>,
    /// Packets sent meanwhile that were never answered.
    pub lost: u32,
    /// Why the run was none; everything else is empty then.
    pub failure: Option<String>,
}

impl Record {
    /// A run that was none, and why.
    pub fn failed(world: &str, [a, b]: [NatClass; 2], seed: u64, why: &str) -> Self {
        let why = why.lines().next().unwrap_or("no word").to_owned();
        Self {
            world: world.to_owned(),
            a,
            b,
            seed,
            connected: false,
            kind: String::new(),
            method: String::new(),
            direct_ms: None,
            found: [String::new(), String::new()],
            found_ms: None,
            lost: 0,
            failure: Some(why),
        }
    }

    /// As one line.
    pub fn line(&self) -> String {
        json!({
            "world": self.world, "a": self.a.word(), "b": self.b.word(), "seed": self.seed, "connected": self.connected, "kind": self.kind, "method": self.method,
            "direct_ms": self.direct_ms, "found": self.found, "found_ms": self.found_ms, "lost": self.lost,
            "failure": self.failure,
        })
        .to_string()
    }

    /// From a line; none if it is another's.
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let class = |key: &str| value[key].as_str()?.parse().ok();
        let found = |side: usize| value["found"][side].as_str().unwrap_or_default().to_owned();
        Some(Self {
            world: value["world"].as_str()?.to_owned(),
            a: class("a")?,
            b: class("b")?,
            seed: value["seed"].as_u64()?,
            connected: value["connected"].as_bool()?,
            kind: word("kind"),
            method: word("method"),
            direct_ms: value["direct_ms"].as_f64(),
            found: [found(0), found(1)],
            found_ms: value["found_ms"].as_f64(),
            lost: u32::try_from(value["lost"].as_u64()?).ok()?,
            failure: value["failure"].as_str().map(str::to_owned),
        })
    }
}

/// The best way between two classes, as the first sees it.
pub fn expected([a, b]: [NatClass; 2]) -> Best {
    best(a.word(), b.word()).expect("both know the same seven classes")
}

/// Every ordered pair: 49 cells, the class that speaks first in front.
pub fn cells() -> impl Iterator<Item = [NatClass; 2]> {
    NatClass::ALL.into_iter().flat_map(|a| NatClass::ALL.into_iter().map(move |b| [a, b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back() {
        let record = Record {
            connected: true,
            kind: "direct".into(),
            method: "predicted".into(),
            direct_ms: Some(812.5),
            found: ["port-restricted".into(), "symmetric-sequential".into()],
            found_ms: Some(900.0),
            lost: 1,
            failure: None,
            ..Record::failed("kernel", [NatClass::PortRestricted, NatClass::SymmetricSequential], 7, "")
        };
        assert_eq!(Record::parse(&record.line()), Some(record));
        let failed = Record::failed("kernel", [NatClass::Open; 2], 1, "not ready\nand more");
        assert_eq!(failed.failure.as_deref(), Some("not ready"));
        assert_eq!(Record::parse(&failed.line()), Some(failed));
        assert_eq!(Record::parse("Finished `release` profile"), None);
    }

    #[test]
    fn there_are_49_cells_and_something_is_expected_of_each() {
        assert_eq!(cells().map(expected).count(), 49);
    }
}
