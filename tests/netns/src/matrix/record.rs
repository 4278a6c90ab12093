//! What one run of one cell found: a line of JSON, written by the driver on the kernel and by the simulator.

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
    /// What the oracle expects; the simulator knows.
    pub best: Option<Best>,
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

/// The best way there is between two classes, in the oracle's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Best {
    /// Direct at once.
    Public,
    /// The inner side is asked to dial.
    Reversed,
    /// Both open the hole.
    Punched,
    /// As punched, the port learnt from what arrives.
    Learnt,
    /// By the next port.
    Predicted,
    /// By many ports.
    Guessed,
    /// Only through a relay.
    Relay,
}

impl Best {
    /// Every way once.
    pub const ALL: [Self; 7] = [
        Self::Public,
        Self::Reversed,
        Self::Punched,
        Self::Learnt,
        Self::Predicted,
        Self::Guessed,
        Self::Relay,
    ];

    /// As the simulator writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Reversed => "reversed",
            Self::Punched => "punched",
            Self::Learnt => "learnt",
            Self::Predicted => "predicted",
            Self::Guessed => "guessed",
            Self::Relay => "relay",
        }
    }

    /// Whether the path is to become direct.
    pub const fn is_direct(self) -> bool {
        !matches!(self, Self::Relay)
    }
}

impl Record {
    /// A run that was none, and why.
    pub fn failed(world: &str, [a, b]: [NatClass; 2], seed: u64, why: &str) -> Self {
        let why = why.lines().next().unwrap_or("no word").to_owned();
        Self {
            world: world.to_owned(),
            a,
            b,
            best: None,
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
            "world": self.world, "a": self.a.word(), "b": self.b.word(), "best": self.best.map(Best::word),
            "seed": self.seed, "connected": self.connected, "kind": self.kind, "method": self.method,
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
        let best = value["best"].as_str();
        let found = |side: usize| value["found"][side].as_str().unwrap_or_default().to_owned();
        Some(Self {
            world: value["world"].as_str()?.to_owned(),
            a: class("a")?,
            b: class("b")?,
            best: best.and_then(|word| Best::ALL.into_iter().find(|best| best.word() == word)),
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

/// The best way between two classes: the oracle's table, which the simulator has too and the report compares.
pub const fn expected([a, b]: [NatClass; 2]) -> Best {
    use NatClass::{
        AddressRestricted, Firewalled, FullCone, Open, PortRestricted, SymmetricRandom, SymmetricSequential,
    };
    match (a, b) {
        (Open, Open | FullCone) | (FullCone, Open) => Best::Public,
        (Open, _) | (_, Open) => Best::Reversed,
        (SymmetricRandom, SymmetricRandom | SymmetricSequential) | (SymmetricSequential, SymmetricRandom) => {
            Best::Relay
        }
        (FullCone | AddressRestricted, SymmetricRandom | SymmetricSequential)
        | (SymmetricRandom | SymmetricSequential, FullCone | AddressRestricted) => Best::Learnt,
        (FullCone, _) | (_, FullCone) => Best::Public,
        (SymmetricSequential, Firewalled | PortRestricted | SymmetricSequential)
        | (Firewalled | PortRestricted, SymmetricSequential) => Best::Predicted,
        (SymmetricRandom, Firewalled | PortRestricted) | (Firewalled | PortRestricted, SymmetricRandom) => {
            Best::Guessed
        }
        _ => Best::Punched,
    }
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
            best: Some(Best::Predicted),
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
    fn expectations_are_symmetric_and_count_as_published() {
        assert!(cells().all(|[a, b]| expected([a, b]) == expected([b, a])));
        let unordered = |[a, b]: &[NatClass; 2]| {
            let at = |class| NatClass::ALL.iter().position(|other| *other == class);
            at(*a) <= at(*b)
        };
        let count = |wanted: Best| cells().filter(unordered).filter(|cell| expected(*cell) == wanted).count();
        let without_luck = [Best::Public, Best::Reversed, Best::Punched, Best::Learnt].map(count);
        assert_eq!(without_luck.iter().sum::<usize>(), 21);
        assert_eq!([Best::Predicted, Best::Guessed, Best::Relay].map(count), [3, 2, 2]);
    }

    #[test]
    fn there_are_49_cells() {
        assert_eq!(cells().count(), 49);
    }
}
