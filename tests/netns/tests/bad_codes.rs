//! Codes that are truncated, altered, used or expired: a clear refusal, and nothing is lost.

use std::time::Duration;

use frejus_netns::daemon::{LIMIT, assert_refused, binary, code_in, frejus, state_of, text};
use frejus_netns::scene::founder;
use frejus_netns::wait::let_pass;
use frejus_netns::{Daemon, Host, Lab, NatClass, Output};

/// Exit codes of the contract.
const UNREADABLE: i32 = 2;
const NOT_ENROLLED: i32 = 5;

fn join(host: &Host, code: &str) -> Output {
    frejus(host, &["join", code, "--state", text(&state_of(host))])
}

/// The code with its middle character replaced by another of the same alphabet.
fn altered(code: &str) -> String {
    let middle = code.len() / 2;
    let other = if &code[middle..=middle] == "a" { "b" } else { "a" };
    format!("{}{other}{}", &code[..middle], &code[middle + 1..])
}

#[test]
fn a_code_that_cannot_be_read_is_wrong_usage() {
    let Some(mut lab) = Lab::new("codes_unreadable") else { return };
    let (_s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    for bad in ["hello", "frejus1", &code[..code.len() - 5], &code[..code.len() / 2]] {
        let refused = join(&host, bad);
        assert_refused(&refused, &[UNREADABLE], &[]);
    }
    // Without a checksum the login server would be the first to notice; both refusals are honest.
    assert_refused(&join(&host, &altered(&code)), &[UNREADABLE, NOT_ENROLLED], &[]);

    let (binary, state) = (binary(), state_of(&host));
    let argv = [text(&binary), "join", "-", "--state", text(&state)];
    let short = &code[..code.len() - 5];
    let refused = host.run_with(&argv, &format!("{short}\n"), LIMIT);
    assert_refused(&refused, &[UNREADABLE], &[]);
    assert!(!refused.stderr.contains(short), "a secret came back in an error: {refused}");

    let up = frejus(&host, &["up", "--state", text(&state_of(&host))]);
    assert_refused(&up, &[NOT_ENROLLED], &[]);
    let joined = host.run_with(&argv, &format!("{code}\n"), LIMIT);
    assert_eq!(joined.code, 0, "none of this has burnt the code: {joined}");
}

#[test]
fn a_code_is_used_once() {
    let Some(mut lab) = Lab::new("codes_used") else { return };
    let (s, code) = founder(&mut lab);
    let (a, b) = (lab.home("a", NatClass::PortRestricted), lab.home("b", NatClass::PortRestricted));
    let a = Daemon::join(&a, &code);
    a.wait_ready();
    assert_refused(&join(&b, &code), &[NOT_ENROLLED], &[]);
    let up = frejus(&b, &["up", "--join", &code, "--state", text(&state_of(&b))]);
    assert_refused(&up, &[NOT_ENROLLED], &[]);
    assert!(a.is("ready") && s.is("ready"), "those who were in stay in");

    let fresh = join(&b, &s.invite(1));
    assert_eq!(fresh.code, 0, "the refused machine may come with a fresh code: {fresh}");
}

#[test]
fn a_code_expires() {
    let Some(mut lab) = Lab::new("codes_expired") else { return };
    let (s, _) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let invited = s.verb(&["invite", "--expires", "1s"]);
    let code = code_in(&invited.stdout).unwrap_or_else(|| panic!("no code: {invited}"));
    let_pass("the code's validity, in whole seconds", Duration::from_secs(3));
    assert_refused(&join(&host, &code), &[NOT_ENROLLED], &[]);
}

#[test]
fn wrong_usage_is_told_from_everything_else() {
    let Some(mut lab) = Lab::new("usage") else { return };
    let host = lab.public("s", "203.0.113.101");
    for argv in [&["frobnicate"][..], &["up", "--mtu", "many"], &["join"], &["ping"]] {
        let output = frejus(&host, argv);
        assert_eq!(output.code, UNREADABLE, "{argv:?}: {output}");
    }
    let nobody = frejus(&host, &["status", "--state", text(&state_of(&host))]);
    assert_refused(&nobody, &[3], &[]);
}
