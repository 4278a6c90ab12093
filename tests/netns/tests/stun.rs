//! A stock STUN client gets an answer from a super peer.

use frejus_netns::scene::{FOUNDER, founder};
use frejus_netns::{Lab, NatClass, ability};

/// Default port of a node.
const PORT: u16 = 51860;

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
