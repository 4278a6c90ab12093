use proptest::prelude::*;

use super::*;

const ID: Transaction = [7; 12];

/// A server with one port, whose own address is not known.
const ALONE: Here = Here { main: 51860, ..Here::ALONE };

fn whole() -> Here {
    let [address, other] = ["203.0.113.101", "198.51.100.1"].map(|ip| Some(ip.parse().unwrap()));
    Here { address, alternate: Some(51862), other, ..ALONE }
}

fn binding(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, u8::try_from(attributes.len()).unwrap(), 0x21, 0x12, 0xa4, 0x42];
    bytes.extend(ID);
    bytes.extend(attributes);
    bytes
}

fn change(flags: u8) -> Vec<u8> {
    binding(&[0, 3, 0, 4, 0, 0, 0, flags])
}

fn from() -> SocketAddr {
    "192.0.2.1:32853".parse().unwrap()
}

fn answered(datagram: &[u8], from: SocketAddr, here: &Here) -> Option<Vec<u8>> {
    match respond(datagram, from, here)? {
        Reaction::Answer { bytes, .. } => Some(bytes),
        Reaction::Elsewhere(_) => None,
    }
}

fn elsewhere(from: Port) -> Reaction {
    Reaction::Elsewhere(Errand { from, ..Errand::plain(ID) })
}

#[test]
fn a_bare_request_is_answered_with_where_it_came_from() {
    let answer = answered(&binding(&[]), from(), &ALONE).unwrap();
    let mut expected = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    expected.extend(ID);
    // The address and port of RFC 5769, section 2.2, XORed with the cookie.
    expected.extend([0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    assert_eq!(answer, expected);
}

#[test]
fn the_sample_of_rfc_5769_over_ipv6_is_read() {
    let mut bytes = vec![1, 1, 0, 24, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
    bytes.extend([0, 0x20, 0, 0x14, 0, 2, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79]);
    bytes.extend([0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9]);
    let answer = Answer::read(&bytes).unwrap();
    assert_eq!(answer.mapped, "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
}

#[test]
fn an_ipv6_client_on_a_mapped_address_is_told_its_ipv4_one() {
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:32853".parse().unwrap();
    assert_eq!(respond(&binding(&[]), mapped, &ALONE), respond(&binding(&[]), from(), &ALONE));
    assert_eq!(answered(&binding(&[]), "[2001:db8::1]:1".parse().unwrap(), &ALONE).unwrap().len(), 44);
}

#[test]
fn a_server_with_two_ports_names_both_and_answers_from_the_one_that_is_wanted() {
    for (request, asked, expected) in [
        (binding(&[]), Port::Main, Port::Main),
        (change(2), Port::Main, Port::Alternate),
        (change(2), Port::Alternate, Port::Main),
        (change(0), Port::Alternate, Port::Alternate),
    ] {
        let here = Here { asked, ..whole() };
        let Some(Reaction::Answer { from: port, by, bytes, .. }) = respond(&request, from(), &here) else {
            panic!()
        };
        assert_eq!((port, by), (expected, here.address));
        let answer = Answer::read(&bytes).unwrap();
        assert_eq!((answer.transaction, answer.mapped), (ID, from()));
        assert_eq!(answer.alternate, None, "nobody asked");
        // OTHER-ADDRESS of RFC 5780, section 7.4: another server, and the port that was not asked.
        let port = if asked == Port::Main { [0xca, 0x96] } else { [0xca, 0x94] };
        let named = [&[0x80, 0x2c, 0, 8, 0, 1][..], &port, &[198, 51, 100, 1]].concat();
        assert!(bytes.windows(12).any(|part| part == named), "{bytes:x?}");
    }
}

#[test]
fn a_server_alone_names_no_other_address_but_tells_its_port_to_those_who_ask() {
    let here = Here { other: None, ..whole() };
    let plain = answered(&binding(&[]), from(), &here).unwrap();
    assert!(!plain.windows(4).any(|part| part == [0x80, 0x2c, 0, 8]), "{plain:x?}");
    let asked = Answer::read(&answered(&request(ID), from(), &here).unwrap()).unwrap();
    assert_eq!(asked.alternate, Some(51862));
    let other = Here { asked: Port::Alternate, ..here };
    assert_eq!(
        Answer::read(&answered(&request(ID), from(), &other).unwrap()).unwrap().alternate,
        Some(51860)
    );
}

#[test]
fn what_cannot_be_done_is_not_answered() {
    assert_eq!(respond(&change(2), from(), &ALONE), None, "there is no other port");
    assert_eq!(respond(&change(6), from(), &whole()), Some(elsewhere(Port::Alternate)));
    assert_eq!(respond(&change(4), from(), &whole()), Some(elsewhere(Port::Main)));
    let mut indication = binding(&[]);
    indication[1] = 0x11;
    assert_eq!(respond(&indication, from(), &ALONE), None);
    let answer = answered(&binding(&[]), from(), &ALONE).unwrap();
    assert_eq!(respond(&answer, from(), &ALONE), None, "an answer is never answered");
    assert_eq!(respond(&vec![0; 2000], from(), &ALONE), None);
}

#[test]
fn a_server_with_two_addresses_answers_from_the_one_that_is_wanted() {
    let here = Here { is_ours: true, ..whole() };
    for (request, asked, port) in [
        (change(6), Port::Main, Port::Alternate),
        (change(4), Port::Main, Port::Main),
        (change(4), Port::Alternate, Port::Alternate),
        (change(6), Port::Alternate, Port::Main),
    ] {
        let here = Here { asked, ..here };
        let Some(Reaction::Answer { from: told, by, bytes, .. }) = respond(&request, from(), &here) else {
            panic!()
        };
        assert_eq!((told, by), (port, here.other));
        // RESPONSE-ORIGIN of RFC 5780, section 7.3, is where the answer comes from; OTHER-ADDRESS stays the same.
        let number = |port| if port == Port::Main { [0xca, 0x94] } else { [0xca, 0x96] };
        let origin = [&[0x80, 0x2b, 0, 8, 0, 1][..], &number(port), &[198, 51, 100, 1]].concat();
        let other = if asked == Port::Main { Port::Alternate } else { Port::Main };
        let other = [&[0x80, 0x2c, 0, 8, 0, 1][..], &number(other), &[198, 51, 100, 1]].concat();
        for part in [origin, other] {
            assert!(bytes.windows(12).any(|window| window == part), "{bytes:x?}");
        }
    }
    let six = "[2001:db8::1]:1".parse().unwrap();
    assert_eq!(respond(&change(6), six, &here), Some(elsewhere(Port::Alternate)), "of the other family");
    let alone = Here { alternate: None, ..here };
    assert_eq!(respond(&change(4), from(), &alone), Some(elsewhere(Port::Main)), "it was not told of");
    let mut classic = change(6);
    classic[4..8].copy_from_slice(&[9, 8, 7, 6]);
    assert!(
        matches!(respond(&classic, from(), &here), Some(Reaction::Answer { by, .. }) if by == here.other)
    );
}

#[test]
fn old_clients_also_get_the_plain_address() {
    let answer = answered(&change(0), from(), &ALONE).unwrap();
    let plain = [0, 1, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1];
    assert!(answer.windows(plain.len()).any(|part| part == plain), "{answer:x?}");
}

#[test]
fn unknown_attributes_that_must_be_understood_are_refused_by_name() {
    let answer = answered(&binding(&[0x7f, 0xff, 0, 0]), from(), &ALONE).unwrap();
    assert_eq!(answer[..2], [0x01, 0x11]);
    assert!(answer.windows(6).any(|part| part == [0, 0x0a, 0, 2, 0x7f, 0xff]), "{answer:x?}");
    let response_port = answered(&binding(&[0, 0x27, 0, 4, 0, 80, 0, 0]), from(), &whole()).unwrap();
    assert_eq!(response_port[..2], [0x01, 0x11], "a service gets no answer that somebody else asked for");
    for ignored in [[0xff, 0xff, 0, 0], [0, 0x26, 0, 0]] {
        assert_eq!(answered(&binding(&ignored), from(), &ALONE).unwrap()[..2], [1, 1]);
    }
    let many: Vec<u8> = (0..60_u8).flat_map(|n| [0x7f, n, 0, 0]).collect();
    assert_eq!(respond(&binding(&many), from(), &ALONE), None);
}

#[test]
fn clients_without_a_cookie_get_their_own_id_and_the_plain_addresses() {
    let mut asked = change(0);
    asked[4..8].copy_from_slice(&[9, 8, 7, 6]);
    let answer = answered(&asked, from(), &whole()).unwrap();
    assert_eq!(answer[4..20], asked[4..20]);
    assert_eq!(answer[20..32], [0, 1, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1]);
    assert_eq!(answer[32..44], [0, 4, 0, 8, 0, 1, 0xca, 0x94, 203, 0, 113, 101]);
    assert_eq!(answer[44..], [0, 5, 0, 8, 0, 1, 0xca, 0x96, 198, 51, 100, 1]);
    asked.pop();
    assert!(!is_classic(&asked), "the length tells it from garbage");
}

#[test]
fn our_own_requests_cost_nobody_anything() {
    let other = Some("2001:db8::3".parse().unwrap());
    let here = Here { address: Some("2001:db8::2".parse().unwrap()), other, ..whole() };
    for from in [from(), "[2001:db8::1]:1".parse().unwrap()] {
        let asked = request(ID);
        assert_eq!(transaction_of_request(&asked), Some(ID));
        let bytes = answered(&asked, from, &here).unwrap();
        assert!(bytes.len() <= asked.len(), "{} for {}", bytes.len(), asked.len());
        assert_eq!(Answer::read(&bytes).unwrap().mapped, from);
        assert!(answer(ID, from).len() <= asked.len());
    }
}

proptest! {
    #[test]
    fn plausible_attributes_do_not_make_long_answers(
        attributes in prop::collection::vec((0_usize..24, prop::collection::vec(any::<u8>(), 0..40), 0_u8..4), 1..6)
    ) {
        // Those of RFC 8489, section 18.3, of RFC 3489, section 11.2, of RFC 5780, and two that nobody knows.
        const TYPES: [u16; 24] = [
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x14, 0x15, 0x1c, 0x26, 0x27, 0x20, 0x802b, 0x802c, 0x8022,
            0x8023, 0x8028, 0x7fff, 0xffff,
        ];
        let mut body = Vec::new();
        for (kind, mut value, lie) in attributes {
            let length = u16::try_from(value.len()).unwrap().saturating_sub(u16::from(lie) / 3);
            body.extend(TYPES[kind].to_be_bytes());
            body.extend(length.to_be_bytes());
            value.resize(value.len().next_multiple_of(4), 0);
            body.extend(value);
        }
        let mut datagram = vec![0, 1];
        datagram.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        datagram.extend(COOKIE);
        datagram.extend(ID);
        datagram.extend(body);
        if let Some(answer) = answered(&datagram, from(), &whole()) {
            prop_assert!(answer.len() <= datagram.len() + 56);
        }
        datagram[..2].copy_from_slice(&SUCCESS.to_be_bytes());
        let _ = Answer::read(&datagram);
    }

    #[test]
    fn nothing_panics_and_no_answer_is_much_longer(
        mut datagram in prop::collection::vec(any::<u8>(), 0..600), plausible: bool
    ) {
        if plausible && datagram.len() >= 20 {
            let length = u16::try_from(datagram.len() - 20).unwrap().to_be_bytes();
            datagram[..8].copy_from_slice(&[0, 1, length[0], length[1], 0x21, 0x12, 0xa4, 0x42]);
        }
        if let Some(answer) = answered(&datagram, "[2001:db8::1]:1".parse().unwrap(), &ALONE) {
            prop_assert!(answer.len() <= datagram.len() + 96);
        }
        let _ = Answer::read(&datagram);
    }
}

#[test]
fn an_answer_goes_to_the_port_that_the_request_names() {
    for (value, to) in [
        (&[0, 0x27, 0, 4, 0x10, 0x01, 0, 0][..], 4097),
        (&[0, 0x27, 0, 2, 0x10, 0x01, 0, 0], 4097),
        (&[0, 0x27, 0, 0], from().port()),
        (&[], from().port()),
    ] {
        let Some(Reaction::Answer { to: told, bytes, .. }) = respond(&binding(value), from(), &ALONE) else {
            panic!("{value:?}")
        };
        assert_eq!(told, to, "{value:?}");
        assert_eq!(Answer::read(&bytes).unwrap().mapped, from());
    }
}

#[test]
fn an_errand_is_read_and_answered_in_the_words_of_its_client() {
    for (asked, flags, port) in [
        (Port::Main, 4, Port::Main),
        (Port::Main, 6, Port::Alternate),
        (Port::Alternate, 4, Port::Alternate),
        (Port::Alternate, 6, Port::Main),
    ] {
        assert_eq!(Errand::read(&change(flags), asked), Some(Errand { from: port, ..Errand::plain(ID) }));
    }
    assert_eq!(Errand::read(&change(2), Port::Main), None, "we can do that ourselves");
    assert_eq!(Errand::read(&binding(&[]), Port::Main), None);
    let mut classic = change(6);
    classic[4..8].copy_from_slice(&[1, 2, 3, 4]);
    let errand = Errand::read(&classic, Port::Main).unwrap();
    assert_eq!(errand, Errand { classic: Some([1, 2, 3, 4]), from: Port::Alternate, ..Errand::plain(ID) });
    assert_eq!(respond(&classic, from(), &whole()), Some(Reaction::Elsewhere(errand)));
    let told = errand.answer(from());
    assert_eq!(told[4..20], classic[4..20], "what a client of RFC 3489 takes for its transaction");
    // MAPPED-ADDRESS of RFC 3489, section 11.2.1.
    assert_eq!(told[20..], [0, 1, 0, 8, 0, 1, 0x80, 0x55, 192, 0, 2, 1]);
    assert_eq!(Errand::plain(ID).answer(from()), answer(ID, from()));
    let elsewhere = binding(&[0, 3, 0, 4, 0, 0, 0, 4, 0, 0x27, 0, 4, 0x10, 0x01, 0, 0]);
    assert_eq!(Errand::read(&elsewhere, Port::Main).unwrap().wanted, Some(4097));
}
