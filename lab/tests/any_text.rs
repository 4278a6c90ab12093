//! What must hold for any text at all that is taken for a topology: no panic, one line that says where, and what is
//! accepted hangs together. The examples are the corpus: cut short, disturbed, and shuffled.

use std::collections::BTreeSet;
use std::path::Path;

use frejus_lab::Kind;
use frejus_lab::topology::Topology;
use proptest::prelude::*;

/// Every example of the laboratory.
fn corpus() -> Vec<String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let entries = std::fs::read_dir(examples).expect("the examples are there");
    let texts =
        entries.map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a text"));
    let texts: Vec<String> = texts.collect();
    assert!(texts.len() >= 4, "{} examples", texts.len());
    texts
}

/// Reads it, and looks at what came of it; whether it was accepted.
fn judge(text: &str) -> bool {
    match Topology::parse(text) {
        Ok(topology) => {
            hangs_together(&topology);
            true
        }
        Err(trouble) => {
            let said = trouble.to_string();
            assert_eq!(trouble.kind, Kind::BadTopology, "{said}");
            assert!(!said.trim().is_empty() && !said.contains('\n'), "one line: {said:?}");
            assert!(!trouble.mend.is_empty(), "what to do: {said}");
            if let Some(line) = said.strip_prefix("line ") {
                let digits = line.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                let line: usize = digits.parse().unwrap_or_else(|_| panic!("a number: {said}"));
                assert!((1..=text.matches('\n').count() + 1).contains(&line), "{said}");
            } else {
                let named = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                let named: BTreeSet<&str> = named.filter(|word| !word.is_empty()).collect();
                let words = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                let names_something = words.clone().any(|word| named.contains(word));
                assert!(names_something || said.contains("``") || said.contains("founder"), "{said}\n{text}");
            }
            false
        }
    }
}

/// What building relies on.
fn hangs_together(topology: &Topology) {
    let nats: BTreeSet<&str> = topology.nats.iter().map(|nat| nat.name.as_str()).collect();
    let hosts: BTreeSet<&str> = topology.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(nats.len() + hosts.len(), topology.nats.len() + topology.hosts.len(), "names are unique");
    assert!(nats.is_disjoint(&hosts));
    let behind = topology.nats.iter().map(|nat| &nat.behind);
    for outer in behind.chain(topology.hosts.iter().map(|host| &host.behind)).flatten() {
        assert!(nats.contains(outer.as_str()), "{outer}");
    }
    for nat in &topology.nats {
        nat.nat().unwrap_or_else(|trouble| panic!("{trouble}"));
        let mut outer = nat.behind.as_deref();
        for _ in 0..=nats.len() {
            outer =
                outer.and_then(|name| topology.nats.iter().find(|nat| nat.name == name)?.behind.as_deref());
        }
        assert_eq!(outer, None, "{} is in a circle", nat.name);
    }
    assert!(topology.nodes.iter().all(|node| hosts.contains(node.host.as_str())));
    assert!(topology.nodes.is_empty() || topology.nodes.iter().filter(|node| node.founder).count() == 1);
}

#[test]
fn the_examples_pass_whole_cut_and_disturbed() {
    for text in corpus() {
        assert!(judge(&text));
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            judge(&text[..at]);
            for other in ["\0", "\n", "=", "'", "[", "}", "é", "9"] {
                let mut disturbed = text.clone();
                let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
                disturbed.replace_range(at..end, other);
                judge(&disturbed);
            }
        }
    }
}

#[test]
fn depth_and_length_are_no_way_to_break_it() {
    for text in [
        format!("a = {}", "[".repeat(10_000)),
        "[".repeat(10_000),
        format!("a = {}", "{b=".repeat(10_000)),
        format!("[{}b]", "a.".repeat(10_000)),
        format!("network = '{}'", "n".repeat(100_000)),
        format!("[[nat]]\nname = '{}'\nclass = 'open'", "n".repeat(100_000)),
        "[[host]]\n".repeat(2000),
        (0..300)
            .map(|n| format!("[[nat]]\nname='n{n}'\nclass='full-cone'\nbehind='n{}'\n", (n + 1) % 300))
            .collect(),
    ] {
        judge(&text);
    }
}

/// A line as somebody might write it: real keys with any of the values that some key takes, or wants not.
fn line() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "network",
        "internet",
        "name",
        "class",
        "address",
        "behind",
        "hairpin",
        "careless",
        "rejects",
        "lifetime",
        "isolation",
        "mtu",
        "udp",
        "tcp",
        "proxy",
        "ipv6",
        "port_mapping",
        "rivals",
        "link",
        "host",
        "role",
        "founder",
        "options",
        "colour",
    ]);
    let values = prop::sample::select(vec![
        "'a'",
        "'b'",
        "'wan'",
        "''",
        "'full-cone'",
        "'open'",
        "'symmetric-random'",
        "'203.0.113.9'",
        "'999.1.1.1'",
        "true",
        "false",
        "'30s'",
        "'20ms'",
        "'99999999999s'",
        "'4294967295s'",
        "1280",
        "0",
        "-1",
        "70000",
        "[443]",
        "[]",
        "[0]",
        "[1, 2, 3, 4, 5]",
        "{ delay = '1ms', loss = 101, rate = '1G' }",
        "{ rate = '0K' }",
        "{ user = 'u', password = 'w' }",
        "'peer'",
        "'super-peer'",
        "['--mtu', '1280']",
        "1.5",
        "nan",
        "1979-05-27",
        "\"\\u0000\"",
        "'é'",
    ]);
    let tables = prop::sample::select(vec!["[[nat]]", "[[host]]", "[[node]]", "[nat]", "[link]", "# é", ""]);
    prop_oneof![
        3 => (keys, values).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => tables.prop_map(str::to_owned),
    ]
}

/// An entry that is often accepted.
fn entry() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "n", "m"]);
    let classes =
        prop::sample::select(vec!["open", "firewalled", "full-cone", "port-restricted", "symmetric-random"]);
    let nat = (name(), classes, prop::option::of(name()), prop::option::of(line())).prop_map(
        |(name, class, behind, more)| {
            let behind = behind.map(|outer| format!("behind = '{outer}'\n")).unwrap_or_default();
            format!("[[nat]]\nname = '{name}'\nclass = '{class}'\n{behind}{}\n", more.unwrap_or_default())
        },
    );
    let host = (name(), prop::option::of(name())).prop_map(|(name, behind)| {
        let behind = behind.map(|outer| format!("behind = '{outer}'\n")).unwrap_or_default();
        format!("[[host]]\nname = '{name}'\n{behind}")
    });
    let node = (name(), any::<bool>())
        .prop_map(|(host, founder)| format!("[[node]]\nhost = '{host}'\nfounder = {founder}\n"));
    prop_oneof![nat, host, node]
}

proptest! {
    #[test]
    fn any_characters(text in "\\PC{0,200}") {
        judge(&text);
    }

    #[test]
    fn lines_in_any_order(lines in prop::collection::vec(line(), 0..24)) {
        judge(&lines.join("\n"));
    }

    #[test]
    fn entries_in_any_combination(entries in prop::collection::vec(entry(), 0..6)) {
        judge(&entries.concat());
    }

    #[test]
    fn lines_of_the_examples_shuffled(
        which in 0_usize..4,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        let text = corpus().swap_remove(which);
        let lines: Vec<&str> = text.lines().collect();
        let shuffled: Vec<&str> = order.iter().map(|index| *index.get(&lines)).collect();
        judge(&shuffled.join("\n"));
    }
}
