//! `frejus doctor`: why the path to a peer is what it is, as both sides see it.

use std::time::{Duration, Instant};

use super::arguments::Doctor as Arguments;
use super::peers::way;
use super::screen::{self, Colours};
use crate::client::Client;
use crate::failure::{ExitCode, Failure};
use crate::report::PathKind;
use crate::report::doctor::{Doctor, Side, Tried};

/// Echoes keep the two sides trying.
const EVERY: Duration = Duration::from_millis(200);
/// How long one echo is waited for: a first one needs a look-up and a handshake.
const ECHO: Duration = Duration::from_secs(5);

pub(super) fn run(client: &Client, arguments: &Arguments) -> Result<(), Failure> {
    screen::hint(format!("looking for a direct path to {} for up to {:?}", arguments.peer, arguments.wait));
    let talked = talk(client, arguments)?;
    let found = client.doctor(&arguments.peer)?;
    if arguments.output.json {
        screen::print_json(&found)?;
    } else {
        screen::print(table(&found, Colours::of_stdout()))?;
    }
    talked
}

/// Traffic until there is a direct path, or time is up. The inner result: whether the peer answers at all.
fn talk(client: &Client, arguments: &Arguments) -> Result<Result<(), Failure>, Failure> {
    let until = Instant::now() + arguments.wait;
    let mut talked = Err(Failure::new(
        ExitCode::Unreachable,
        format!("{} does not answer", arguments.peer),
        "see whether frejus is up there: frejus status",
    ));
    loop {
        match client.ping(&arguments.peer, ECHO) {
            Ok(reply) if reply.path.kind == PathKind::Direct => return Ok(Ok(())),
            Ok(_) => talked = Ok(()),
            Err(failure) if matches!(failure.code, ExitCode::Unreachable | ExitCode::TimedOut) => {}
            Err(failure) => return Err(failure),
        }
        if Instant::now() >= until {
            return Ok(talked);
        }
        std::thread::sleep(EVERY);
    }
}

fn table(found: &Doctor, colours: Colours) -> String {
    let path = found.path.as_ref().map_or_else(|| "no path".to_owned(), way);
    let mut text = format!("{}: {path}\n  {}\n", colours.bold(&found.peer), found.why);
    for mend in &found.mend {
        text.push_str(&format!("  {} {mend}\n", colours.warning("mend it:")));
    }
    text.push('\n');
    text.push_str(&side(&found.here, &found.peer));
    text.push('\n');
    match &found.there {
        Some(there) => text.push_str(&side(there, &found.here.name)),
        None => text.push_str(&format!("{} does not tell about its side\n", found.peer)),
    }
    text
}

fn side(side: &Side, other: &str) -> String {
    let mapped =
        side.port_mapping.map(|protocol| format!(", a port opened by {protocol}")).unwrap_or_default();
    let udp = if side.udp { "" } else { ", UDP does not pass" };
    let seen = screen::list(&side.external, "  ");
    let mut text = format!("{}: {}{mapped}{udp}; seen at {seen}\n", side.name, side.class);
    if side.candidates.is_empty() {
        text.push_str(&format!("  {other} was not tried straight\n"));
        return text;
    }
    let tried = format!("{other} AT");
    let heading = [tried.as_str(), "PROBES SENT", "ANSWERED", "HEARD FROM THERE"];
    let row = |tried: &Tried| {
        vec![
            tried.at.to_string(),
            tried.sent.to_string(),
            tried.answered.to_string(),
            tried.heard.to_string(),
        ]
    };
    let rows = screen::columns(&heading, &[1, 2, 3], side.candidates.iter().map(row).collect());
    rows.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn both_sides_and_one_sentence() {
        assert_eq!(
            table(&samples::doctor(), Colours::new(false)),
            "\
b: relay via s, tls
  the router of b gives every destination a random port, and so does that of a
  mend it: forward UDP 51860 on either router

a: symmetric-random; seen at 203.0.113.10:40211
  b AT                PROBES SENT  ANSWERED  HEARD FROM THERE
  203.0.113.11:51860            8         0                 0

b: symmetric-random, UDP does not pass; seen at -
  a was not tried straight
"
        );
    }
}
