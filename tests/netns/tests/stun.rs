//! Stock STUN clients get answers from a super peer, and those of two addresses where it has two.

use frejus_netns::scene::{FOUNDER, founder, invited, three_super_peers};
use frejus_netns::{Daemon, Host, Lab, NatClass, ability};

/// Default port of a node.
const PORT: u16 = 51860;
/// The founder's other address, where it has two.
const SECOND: &str = "203.0.113.151";

/// A binding request of RFC 8489, section 5: type, no attributes, magic cookie, transaction.
const REQUEST: [u8; 20] = [
    0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, b'f', b'r', b'e', b'j', b'u', b's', b'-', b'n', b'e', b't', b'n',
    b's',
];

#[test]
fn a_stock_client_learns_its_address() {
    if !ability::program("stun", "stun") {
        return;
    }
    let Some(mut lab) = Lab::new("stun") else { return };
    let (_s, _) = founder(&mut lab);
    let home = lab.home("a", NatClass::PortRestricted);
    let answer = home.run(&["stun", &format!("{FOUNDER}:{PORT}"), "1", "-v", "-p", "7000"]);
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert!(said.contains(&format!("{}:7000", home.public)), "the mapped address: {answer}");
}

#[test]
fn the_answer_is_not_larger_than_it_must_be_and_names_the_sender() {
    let Some(mut lab) = Lab::new("stun_bytes") else { return };
    let (_s, _) = founder(&mut lab);
    let home = lab.home("a", NatClass::PortRestricted);
    let socket = home.udp(home.local, 7000);
    socket.send_to(&REQUEST, (FOUNDER, PORT)).expect("the home has a route");
    let mut answer = [0; 200];
    let (length, _) = socket.recv_from(&mut answer).expect("S answers");
    let answer = &answer[..length];
    assert_eq!(answer[..2], [1, 1], "binding success");
    assert_eq!(answer[4..20], REQUEST[4..], "cookie and transaction come back");
    // XOR-MAPPED-ADDRESS, RFC 8489 section 14.2: family 1, port and address under the cookie.
    let [a, b, c, d] = home.public.octets();
    let port = 7000u16 ^ 0x2112;
    let [high, low] = port.to_be_bytes();
    let expected = [0, 0x20, 0, 8, 0, 1, high, low, a ^ 0x21, b ^ 0x12, c ^ 0xa4, d ^ 0x42];
    assert!(answer.windows(12).any(|window| window == expected), "{answer:02x?}");
}

/// A super peer alone, with two public addresses, and a home that is no member: what stock clients make of the NAT.
fn two_addresses(nat: NatClass) -> Option<(Lab, Daemon, Host)> {
    let test = "stun_two_addresses";
    if !["stun", "turnutils_natdiscovery"].iter().all(|program| ability::program(test, program)) {
        return None;
    }
    let mut lab = Lab::new(test)?;
    let host = lab.public("s", FOUNDER);
    host.sh(&format!("ip addr add {SECOND}/24 dev eth0"));
    let (s, _) = Daemon::create(&host, "mymed");
    s.wait_ready();
    let home = lab.home("a", nat);
    Some((lab, s, home))
}

#[test]
fn with_two_addresses_coturns_discovery_tells_mapping_and_filtering() {
    for (nat, mapping, filtering) in [
        (NatClass::FullCone, "Endpoint Independent Mapping", "Endpoint Independent Filtering"),
        (NatClass::AddressRestricted, "Endpoint Independent Mapping", "Address Dependent Filtering"),
        (NatClass::PortRestricted, "Endpoint Independent Mapping", "Address and Port Dependent Filtering"),
        (
            NatClass::SymmetricRandom,
            "Address and Port Dependent Mapping",
            "Address and Port Dependent Filtering",
        ),
    ] {
        let Some((_lab, _s, home)) = two_addresses(nat) else { return };
        let said = home.run(&["turnutils_natdiscovery", "-m", "-f", "-p", &PORT.to_string(), FOUNDER]);
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains(&format!("NAT with {mapping}")), "{nat:?}: {said}");
        assert!(text.contains(&format!("NAT with {filtering}")), "{nat:?}: {said}");
    }
}

#[test]
fn with_two_addresses_debians_client_tells_each_class() {
    for (nat, word) in [
        (NatClass::FullCone, "Independent Mapping, Independent Filter"),
        (NatClass::AddressRestricted, "Independent Mapping, Address Dependent Filter"),
        (NatClass::PortRestricted, "Independent Mapping, Port Dependent Filter"),
        (NatClass::SymmetricRandom, "Dependent Mapping"),
    ] {
        let Some((_lab, _s, home)) = two_addresses(nat) else { return };
        let said = home.run(&["stun", &format!("{FOUNDER}:{PORT}")]);
        assert!(
            format!("{}{}", said.stdout, said.stderr).contains(&format!("Primary: {word}")),
            "{nat:?}: {said}"
        );
    }
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let Some((_lab, _s, home)) = two_addresses(NatClass::PortRestricted) else { return };
    for (address, port) in [(FOUNDER, PORT), (SECOND, PORT), (FOUNDER, PORT + 2), (SECOND, PORT + 2)] {
        let socket = home.udp(home.local, 0);
        socket.send_to(&REQUEST, (address, port)).expect("the home has a route");
        let (_, from) = socket.recv_from(&mut [0; 200]).expect("S answers");
        assert_eq!(from.to_string(), format!("{address}:{port}"));
    }
}

/// Three super peers at one address each, and a member behind `nat`: from there stock clients get answers from a second.
fn a_member(nat: NatClass) -> Option<(Lab, [Daemon; 3], Daemon, Host)> {
    let test = "stun_member";
    let programs = ["stun", "turnutils_natdiscovery", "turnutils_stunclient"];
    if !programs.iter().all(|program| ability::program(test, program)) {
        return None;
    }
    let mut lab = Lab::new(test)?;
    let servers = three_super_peers(&mut lab);
    let host = if nat == NatClass::Open { lab.public("a", "203.0.113.77") } else { lab.home("a", nat) };
    let a = Daemon::join(&host, &invited(&servers[0], "peer"));
    a.wait_ready();
    Some((lab, servers, a, host))
}

#[test]
fn a_member_is_answered_from_the_other_address_that_it_was_told_of() {
    for (nat, word) in [
        (NatClass::Open, "Open"),
        (NatClass::FullCone, "Independent Mapping, Independent Filter"),
        (NatClass::PortRestricted, "Independent Mapping, Port Dependent Filter"),
    ] {
        let Some((_lab, _servers, _a, host)) = a_member(nat) else { return };
        let said = host.run(&["stun", &format!("{FOUNDER}:{PORT}")]);
        assert!(
            format!("{}{}", said.stdout, said.stderr).contains(&format!("Primary: {word}")),
            "{nat:?}: {said}"
        );
    }
}

#[test]
fn coturns_client_comes_to_its_end() {
    let Some((_lab, _servers, _a, host)) = a_member(NatClass::Open) else { return };
    let said = host.run(&["timeout", "20", "turnutils_stunclient", "-p", &PORT.to_string(), FOUNDER]);
    assert!(said.code == 0, "it waits for ever: {said}");
}
