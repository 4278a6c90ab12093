//! What a node finds out about the NAT in front of it, on a real kernel; and stock clients that ask a super peer.

use std::time::Duration;

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{FOUNDER, founder, join_by_file};
use frejus_netns::{Daemon, Host, Lab, Nat, NatClass, ability, wait_for};
use serde_json::Value;

/// The whole verb, with the process that asks.
const VERB: Duration = Duration::from_secs(3);
/// Finding the class.
const CLASS: Duration = Duration::from_millis(1500);

/// Default port of a node.
const PORT: &str = "51860";

/// So many super peers that know each other; the first is the founder.
fn super_peers(lab: &mut Lab, count: u8) -> Vec<Daemon> {
    let (s, _) = founder(lab);
    let mut all = vec![s];
    for n in 1..count {
        let host = lab.public(&format!("s{n}"), &format!("203.0.113.{}", 101 + n));
        let invited = all[0].verb(&["invite", "--role", "super-peer"]);
        let code = invited.stdout.split_whitespace().last().expect("a code").to_owned();
        let next = join_by_file(&host, &code);
        next.wait_ready();
        all.push(next);
    }
    for one in &all {
        let met = || one.status().is_some_and(|status| homes(&status) == usize::from(count - 1).min(2));
        wait_for(&format!("{} has its homes", one.host.name), LIMIT, met);
    }
    all
}

fn homes(status: &Value) -> usize {
    status["super_peers"].as_array().map_or(0, |list| list.iter().filter(|s| s["home"] == true).count())
}

/// A member at `host`, with two homes.
fn member(supers: &[Daemon], host: &Host) -> Daemon {
    let member = join_by_file(host, &supers[0].invite(1));
    member.wait_ready();
    let wanted = supers.len().min(2);
    wait_for("the node has its homes", LIMIT, || member.status().is_some_and(|s| homes(&s) == wanted));
    member
}

/// `netcheck --json`, and how long the verb took.
fn netcheck(node: &Daemon) -> (Value, Duration) {
    let output = node.verb(&["netcheck", "--json"]);
    assert_eq!(output.code, 0, "{output}");
    assert!(output.took <= VERB, "netcheck took {:?}", output.took);
    let found: Value = serde_json::from_str(&output.stdout).expect("one JSON object");
    assert_eq!(found["schema"], 1);
    (found, output.took)
}

/// Finds the class. `is_careless`: it also finds that the router takes for its own what comes in too early.
fn assert_found(test: &str, nat: Nat, is_careless: bool) {
    let Some(mut lab) = Lab::new(test) else { return };
    let supers = super_peers(&mut lab, 3);
    let host = lab.home("a", nat);
    let a = member(&supers, &host);
    let word = nat.class.word();
    for round in 0..3 {
        let (found, took) = netcheck(&a);
        eprintln!("{test} {round}: {} in {took:?} (target {CLASS:?}): {found}", found["class"]);
        assert_eq!(found["class"], word, "{found}");
        assert!(["udp", "tcp", "tls443"].iter().all(|key| found[key] == true), "{found}");
        assert!(took <= CLASS + Duration::from_millis(300), "{took:?}: {found}");
        assert_eq!(found["super_peers"].as_array().map(Vec::len), Some(3), "{found}");
        let notes = found["notes"].as_array().expect("a list");
        let spoils = |note: &Value| note.as_str().is_some_and(|note| note.contains("takes what comes in"));
        assert_eq!(
            notes.iter().map(spoils).collect::<Vec<_>>(),
            vec![true; usize::from(is_careless)],
            "{found}"
        );
        let external = found["external"][0].as_str().unwrap_or_default();
        assert!(external.starts_with(&format!("{}:", host.public)), "{found}");
        if nat.class == NatClass::SymmetricSequential {
            assert_eq!(found["step"], 1, "{found}");
        }
    }
    wait_for("the class stands in `status` and is published", LIMIT, || {
        let class = a.status().is_some_and(|status| status["nat"]["class"] == word);
        let counted = supers.iter().filter_map(Daemon::status);
        class && counted.into_iter().any(|status| status["nat_classes"][word].as_u64() >= Some(1))
    });
    let said = a.verb(&["netcheck"]);
    assert!(said.code == 0 && said.stdout.starts_with(word), "{said}");
}

macro_rules! classes {
    ($($test:ident: $class:ident,)+) => {
        $(#[test]
        fn $test() {
            assert_found(concat!("netcheck_", stringify!($test)), NatClass::$class.into(), false);
            let nat = Nat::from(NatClass::$class).careless();
            let known = NatClass::$class == NatClass::PortRestricted;
            assert_found(concat!("netcheck_", stringify!($test), "_careless"), nat, known);
        })+
    };
}

classes! {
    open: Open,
    firewalled: Firewalled,
    full_cone: FullCone,
    address_restricted: AddressRestricted,
    port_restricted: PortRestricted,
    symmetric_sequential: SymmetricSequential,
    symmetric_random: SymmetricRandom,
}

#[test]
fn hairpins_are_told_apart() {
    for (expected, nat) in [
        (true, Nat::from(NatClass::FullCone).hairpin()),
        (true, Nat::from(NatClass::PortRestricted).hairpin()),
        (false, NatClass::PortRestricted.into()),
    ] {
        let Some(mut lab) = Lab::new("netcheck_hairpin") else { return };
        let supers = super_peers(&mut lab, 3);
        let host = lab.home("a", nat);
        // Where that module is loaded, a bridge translates by itself and does not send back to the same port; a router does.
        lab.router(&host).run(&["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"]);
        let (found, _) = netcheck(&member(&supers, &host));
        assert_eq!(
            (&found["hairpin"], &found["class"]),
            (&expected.into(), &nat.class.word().into()),
            "{found}"
        );
    }
}

#[test]
fn blocked_udp_is_told_by_what_passes_instead() {
    let Some(mut lab) = Lab::new("netcheck_blocked") else { return };
    let supers = super_peers(&mut lab, 3);
    let host = lab.home("a", NatClass::PortRestricted);
    lab.router(&host).nft(
        "table ip blocked { chain out { type filter hook forward priority 10; meta l4proto udp drop; }\n}\n",
    );
    let a = join_by_file(&host, &supers[0].invite(1));
    a.wait_ready();
    wait_for("the class is known", LIMIT, || netcheck(&a).0["class"] == "udp-blocked");
    let (found, _) = netcheck(&a);
    assert_eq!((&found["udp"], &found["tcp"]), (&false.into(), &true.into()), "{found}");
}

#[test]
fn with_one_super_peer_it_is_unknown_and_says_why() {
    let Some(mut lab) = Lab::new("netcheck_few") else { return };
    let supers = super_peers(&mut lab, 1);
    let host = lab.home("a", NatClass::PortRestricted);
    let (found, took) = netcheck(&member(&supers, &host));
    assert_eq!(found["class"], "unknown", "{found}");
    assert!(found["notes"][0].as_str().is_some_and(|note| note.contains("super peer")), "{found}");
    eprintln!("one super peer: {took:?}");
    let (found, _) = netcheck(&supers[0]);
    assert_eq!(found["class"], "unknown", "the founder has nobody to ask: {found}");
}

fn stock_clients(nat: NatClass) -> Option<(Lab, Vec<Daemon>, Host)> {
    let test = "netcheck_stock";
    let programs = ["stun", "turnutils_stunclient", "turnutils_natdiscovery"];
    if !programs.iter().all(|program| ability::program(test, program)) {
        return None;
    }
    let mut lab = Lab::new(test)?;
    let supers = super_peers(&mut lab, 3);
    let host = lab.home("a", nat);
    Some((lab, supers, host))
}

#[test]
fn coturns_client_learns_its_address_and_finds_the_second_port() {
    let Some((_lab, _supers, host)) = stock_clients(NatClass::PortRestricted) else { return };
    let said = host.run(&["turnutils_stunclient", "-p", PORT, FOUNDER]);
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains(&format!("{}:", host.public)), "the reflexive address: {said}");
    assert!(text.contains("51862"), "the other port: {said}");
}

#[test]
fn coturns_discovery_understands_the_super_peer() {
    for (nat, word) in [
        (NatClass::FullCone, "Endpoint Independent Mapping"),
        (NatClass::SymmetricRandom, "Address and Port Dependent Mapping"),
    ] {
        let Some((_lab, _supers, host)) = stock_clients(nat) else { return };
        let said = host.run(&["turnutils_natdiscovery", "-m", "-f", "-p", PORT, FOUNDER]);
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains(word), "{nat:?}: {said}");
        eprintln!("{nat:?}: {text}");
    }
}

#[test]
fn debians_client_tells_port_restriction() {
    let Some((_lab, _supers, host)) = stock_clients(NatClass::PortRestricted) else { return };
    let said = host.run(&["stun", &format!("{FOUNDER}:{PORT}"), "-v"]);
    eprintln!("{said}");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains(&format!("{}:", host.public)), "{said}");
}

#[test]
fn members_get_answers_from_another_address_and_strangers_do_not() {
    let Some(mut lab) = Lab::new("netcheck_change") else { return };
    let supers = super_peers(&mut lab, 3);
    let host = lab.home("a", NatClass::FullCone);
    // CHANGE-REQUEST of RFC 5780, section 7.2: another address and another port.
    let mut request = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    request.extend(*b"frejus-netns");
    request.extend([0, 3, 0, 4, 0, 0, 0, 6]);
    let answer = |port: u16| {
        let socket = host.udp(host.local, port);
        socket.send_to(&request, (FOUNDER, 51860)).expect("the home has a route");
        let mut bytes = [0; 200];
        socket.recv_from(&mut bytes).ok().map(|(length, from)| (bytes[..length].to_vec(), from))
    };
    assert_eq!(answer(7000), None, "nobody is a member there");
    let _a = member(&supers, &host);
    let is_member = || supers[0].json(&["peers"])["peers"].as_array().map_or(0, Vec::len) == 3;
    wait_for("the founder knows the member", LIMIT, || is_member() || homes_of(&_a, &supers[0]));
    if !homes_of(&_a, &supers[0]) {
        eprintln!("the founder is none of the member's homes");
        return;
    }
    let (bytes, from) = answer(7001).expect("another super peer answers");
    assert_ne!(from.ip().to_string(), FOUNDER);
    assert_eq!(bytes[..2], [1, 1]);
    assert_eq!(bytes[8..20], *b"frejus-netns");
}

fn homes_of(node: &Daemon, home: &Daemon) -> bool {
    node.path_to(&home.id()).is_some_and(|path| path.kind == "direct")
}
