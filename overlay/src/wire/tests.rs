//! First bytes.

use proptest::prelude::*;

use super::*;

fn message(kind: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[0] = kind;
    bytes
}

#[test]
fn wireguard_is_told_by_type_and_length() {
    assert_eq!(classify(&message(1, 148)), Some(Frame::Wireguard(Wireguard::Initiation)));
    let mut response = message(2, 92);
    response[8..12].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
    assert_eq!(classify(&response), Some(Frame::Wireguard(Wireguard::Answer(0x0102_0304))));
    let mut cookie = message(3, 64);
    cookie[4..8].copy_from_slice(&5_u32.to_le_bytes());
    assert_eq!(classify(&cookie), Some(Frame::Wireguard(Wireguard::Answer(5))));
    let mut data = message(4, 32);
    data[4..8].copy_from_slice(&6_u32.to_le_bytes());
    assert_eq!(classify(&data), Some(Frame::Wireguard(Wireguard::Data(6))));
    for (kind, right) in [(1, 148), (2, 92), (3, 64)] {
        assert_eq!(classify(&message(kind, right - 1)), None);
        assert_eq!(classify(&message(kind, right + 1)), None);
    }
    assert_eq!(classify(&message(4, 31)), None);
    for at in 1..4 {
        let mut reserved = message(1, 148);
        reserved[at] = 1;
        assert_eq!(classify(&reserved), None, "reserved byte {at}");
    }
}

#[test]
fn nothing_is_nothing() {
    for short in [&[][..], &[0], &[1], &[4, 0, 0, 0], &[RELAY], &[KNOCK, VERSION, 0], &[0; 40], &[0xff; 40]] {
        assert_eq!(classify(short), None, "{short:?}");
    }
}

#[test]
fn stun_with_a_cookie_and_without() {
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    assert_eq!(classify(&request), Some(Frame::Stun));
    request[4] = 0;
    assert_eq!(classify(&request), Some(Frame::Stun), "RFC 3489 had no cookie");
    request.push(0);
    assert_eq!(classify(&request), None, "and its length is exact");
    request[1] = 2;
    assert_eq!(classify(&request[..20]), None, "and it is a binding request");
}

#[test]
fn our_own_frames() {
    let channel = Channel(0x0102_0304_0506_0708);
    let frame_of = |inner: &[u8]| [&relay_header(channel)[..], inner].concat();
    assert_eq!(classify(&frame_of(b"inner")), Some(Frame::Relay(channel, b"inner")));
    assert_eq!(classify(&frame_of(b"")), Some(Frame::Relay(channel, b"")));
    assert_eq!(classify(&frame_of(b"")[..15]), None);
    assert_eq!(classify(&frame(KNOCK, b"x")), Some(Frame::Knock(b"x")));
    assert_eq!(classify(&frame(ENROL_REQUEST, b"x")), Some(Frame::EnrolRequest(b"x")));
    assert_eq!(classify(&frame(ENROL_ANSWER, b"x")), Some(Frame::EnrolAnswer(b"x")));
    assert_eq!(classify(&frame(STRANGER, b"")), Some(Frame::Stranger));
    assert_eq!(classify(&frame(STRANGER, b"x")), None, "a hint says nothing more");
    for at in 1..4 {
        let mut other = frame(KNOCK, b"x");
        other[at] ^= 2;
        assert_eq!(classify(&other), None, "byte {at}");
    }
}

proptest! {
    #[test]
    fn kinds_are_never_confused(first in 0_u8..0x20, rest in prop::collection::vec(any::<u8>(), 0..200), ours: bool) {
        let mut bytes = [&[first][..], &rest].concat();
        if ours && bytes.len() >= 8 {
            bytes[1..8].copy_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0]);
        }
        let first_of = |frame: &Frame<'_>| match frame {
            Frame::Wireguard(Wireguard::Initiation) => 1..=1,
            Frame::Wireguard(Wireguard::Answer(_)) => 2..=3,
            Frame::Wireguard(Wireguard::Data(_)) => 4..=4,
            Frame::Stun => 0..=1,
            Frame::Relay(..) => RELAY..=RELAY,
            Frame::Knock(_) => KNOCK..=KNOCK,
            Frame::EnrolRequest(_) => ENROL_REQUEST..=ENROL_REQUEST,
            Frame::EnrolAnswer(_) => ENROL_ANSWER..=ENROL_ANSWER,
            Frame::Stranger => STRANGER..=STRANGER,
        };
        if let Some(frame) = classify(&bytes) {
            prop_assert!(first_of(&frame).contains(&first), "{:?}", frame);
        }
    }

    #[test]
    fn what_a_relay_header_carries_comes_out_as_it_was(channel: u64, inner in prop::collection::vec(any::<u8>(), 0..100)) {
        let whole = [&relay_header(Channel(channel))[..], &inner].concat();
        prop_assert_eq!(classify(&whole), Some(Frame::Relay(Channel(channel), &inner[..])));
    }
}
