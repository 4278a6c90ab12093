//! `frejus resolve`.

use std::fmt::Write;

use super::arguments::Resolve as Arguments;
use super::screen;
use crate::client::Client;
use crate::failure::Failure;
use crate::report::Resolve;

pub(super) fn run(client: &Client, arguments: &Arguments) -> Result<(), Failure> {
    let answer = client.resolve(&arguments.query)?;
    if arguments.output.json { screen::print_json(&answer) } else { screen::print(table(&answer)) }
}

fn table(answer: &Resolve) -> String {
    let mut text = format!("{} is {} at {}\n\n", answer.query, answer.node.name, answer.address);
    let mut line = |label: &str, value: String| writeln!(text, "  {label:<12} {value}").expect("memory");
    line("node id", answer.node.id.clone());
    let lease = answer.lease.as_ref().map(|lease| format!("by {}, until {}", lease.issuer, lease.expires));
    line("lease", screen::or_dash(lease));
    match &answer.whereabouts {
        None => line("whereabouts", "unknown".to_owned()),
        Some(found) => {
            line("whereabouts", format!("number {}, {} old", found.sequence, screen::age(found.age_s)));
            for candidate in &found.candidates {
                line("", format!("{:<10} {}", candidate.kind, candidate.at));
            }
        }
    }
    text.push('\n');
    let rows = answer.stages.iter().map(|look_up| {
        vec![look_up.stage.to_string(), look_up.source.to_string(), screen::milliseconds(look_up.elapsed_ms)]
    });
    text.push_str(&screen::columns(&["LOOK-UP", "FROM", "TOOK"], &[2], rows.collect()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn both_stages() {
        assert_eq!(
            table(&samples::resolve()),
            "\
b is b at 10.93.4.7

  node id      nodeid-b
  lease        by s, until 2026-11-20T10:37:50Z
  whereabouts  number 12, 34 s old
               host       192.168.1.2:51860
               reflexive  203.0.113.11:40211

LOOK-UP      FROM           TOOK
lease        cache       0.02 ms
whereabouts  super-peer  41.5 ms
"
        );
    }
}
