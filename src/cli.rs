//! The command line: from what the user types to what the user reads.
//!
//! Owns: which verb is which function, what is printed, and the exit code. Never: what a node does.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use crate::client::Client;
use crate::failure::Failure;
use crate::paths_on_disk::Roots;

pub mod arguments;
mod detach;
mod doctor;
mod down;
mod enrol;
mod lab;
mod manual;
mod netcheck;
mod peers;
mod ping;
mod resolve;
mod screen;
mod status;
mod up;
mod wait;

use arguments::{Arguments, Verb};

/// The program: reads its arguments, does what they say, prints a failure as one line.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(arguments) => {
            log(arguments.common.verbose);
            run(arguments)
        }
        // Help and version are no errors; without a verb, help says more than a line could.
        Err(error) if !error.use_stderr() || error.kind() == MISSING_VERB => error.exit(),
        Err(error) => Err(wrong_usage(&error.render().to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen::say(format_args!("frejus: {failure}"));
            failure.code.into()
        }
    }
}

const MISSING_VERB: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// Clap's paragraphs (what is wrong, tips, usage) as one line: what is wrong, and the tip or the help to read.
fn wrong_usage(rendered: &str) -> Failure {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = rendered.split("\n\n");
    let what = words(paragraphs.next().unwrap_or_default());
    let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
    let rest: Vec<String> = paragraphs.map(words).collect();
    let tip = rest.iter().find_map(|paragraph| paragraph.strip_prefix("tip: "));
    let usage = rest.iter().find_map(|paragraph| paragraph.strip_prefix("Usage: frejus "));
    let verb =
        usage.and_then(|usage| usage.split(' ').next()).filter(|word| word.starts_with(char::is_alphabetic));
    let help =
        verb.map_or_else(|| "see frejus --help".to_owned(), |verb| format!("see frejus {verb} --help"));
    // What our own words say to do is enough.
    if let Some((what, said)) = what.rsplit_once(": say ") {
        return Failure::usage(what, format!("say {said}"));
    }
    Failure::usage(what, tip.map_or(help, str::to_owned))
}

/// Logs go to standard error; `FREJUS_LOG` goes before what `-v` says.
fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn,libp2p=error,boringtun=error",
        1 => "warn,libp2p=error,boringtun=error,frejus=info,frejus_overlay=info",
        2 => "info,frejus=debug,frejus_overlay=debug",
        _ => "debug,frejus=trace,frejus_overlay=trace",
    };
    let filter = EnvFilter::try_from_env("FREJUS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Set already only where a test runs several verbs in one process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .try_init();
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, verb } = arguments;
    let roots = Roots::default();
    let client = || Client::new(&common.selection().place(&roots)?.socket);
    match verb {
        Verb::Up(verb) => up::run(&common, &roots, verb),
        Verb::Down => down::run(&common.selection().place(&roots)?.socket),
        Verb::Status(verb) => status::run(&client()?, verb),
        Verb::Peers(output) => peers::run(&client()?, output),
        Verb::Netcheck(output) => netcheck::run(&client()?, output),
        Verb::Doctor(verb) => doctor::run(&client()?, &verb),
        Verb::Ping(verb) => ping::run(&client()?, &verb),
        Verb::Resolve(verb) => resolve::run(&client()?, &verb),
        Verb::Wait(verb) => wait::run(&common.selection(), &roots, &verb),
        Verb::Invite(verb) => enrol::invite(&common, &roots, &verb),
        Verb::Join(verb) => enrol::join(&common, &roots, &verb),
        Verb::Create(verb) => enrol::create(&common, &roots, &verb),
        Verb::Completions(verb) => manual::completions(verb),
        Verb::Man(verb) => manual::man(&verb.dir),
        Verb::Version(output) => manual::version(output),
        Verb::Lab(verb) => lab::run(verb),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_one_line_too() {
        for (line, failure) in [
            ("ping", "the following required arguments were not provided: <PEER>: see frejus ping --help"),
            ("pong", "unrecognized subcommand 'pong': a similar subcommand exists: 'ping'"),
            ("peers extra", "unexpected argument 'extra' found: see frejus peers --help"),
            (
                "up --listen 51860",
                "invalid value '51860' for '--listen <ADDR:PORT>': invalid socket address syntax: see frejus --help",
            ),
            (
                "up --tun a:b",
                "invalid value 'a:b' for '--tun <NAME>': `a:b` is not a device name: 1 to 15 characters, no blank, slash \
                 or colon among them: see frejus --help",
            ),
            (
                "lab nat a nope",
                "invalid value 'nope' for '<CLASS>': there is no NAT class `nope`: say one of open, firewalled, full-cone, \
                 address-restricted, port-restricted, symmetric-sequential, symmetric-random",
            ),
            (
                "up --create a --join b",
                "the argument '--create <NETWORK>' cannot be used with '--join <CODE>': see frejus up --help",
            ),
        ] {
            let words = std::iter::once("frejus").chain(line.split(' '));
            let error = Arguments::try_parse_from(words).unwrap_err();
            assert_eq!(wrong_usage(&error.render().to_string()).to_string(), failure);
        }
    }

    #[test]
    fn flags_of_every_verb_are_read() {
        for line in [
            "up --create mymed --prefix 10.9.0.0/16 --name s --passport-life 7d --listen 0.0.0.0:1 --listen [::]:1",
            "up --join - --directory-listen 0.0.0.0:2 --advertise 192.0.2.1:1 --tun vpn0 --mtu 1400 --detach",
            "down -n mymed",
            "status --json --check ready --state /s",
            "peers --json --socket /s/control.sock",
            "netcheck --json --state /s",
            "doctor b --wait 20s --json",
            "ping b -c 3 --until-direct --require-direct --json --timeout 500ms",
            "resolve 10.93.4.7 --json",
            "wait --peer b --direct --timeout 30s",
            "invite --role super-peer --uses 3 --expires 7d",
            "invite --name b --address 10.93.4.7",
            "join @code --name b -v",
            "create mymed --prefix 10.9.0.0/16 --name s",
            "completions bash",
            "man /tmp/man",
            "version --json",
            "lab up two-homes.toml --frejus /bin/frejus --name two",
            "lab shell a --name two -- frejus ping b -c 3",
            "lab status --json",
            "lab nat a symmetric-random --rejects --lifetime 30s",
            "lab cut a b",
            "lab readdress home-a 203.0.113.150",
            "lab link a --delay 20ms --loss 1% --rate 10M",
            "lab down",
        ] {
            let words = std::iter::once("frejus").chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
