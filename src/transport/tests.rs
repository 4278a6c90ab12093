//! Two tunnels that agree on keys: what they seal with, what they refuse, and when the keys end.

use frejus_overlay::agreement::Party;
use frejus_overlay::id::{NetworkId, NodeId, TunnelKey};
use frejus_overlay::tunnel::{Crypto, HANDSHAKE_ROOM, SharedTunnel, seal_one, seal_one_as};
use x25519_dalek::StaticSecret;

use super::*;
use crate::wireguard::Wireguard;

/// Two nodes with a tunnel between them.
struct Pair {
    clock: Clock,
    a: SharedTunnel,
    b: SharedTunnel,
    binding: Binding,
}

fn policy(policy: Policy) -> Transport {
    Transport { policy, ..Transport::default() }
}

fn only(cipher: Cipher) -> Transport {
    Transport { policy: Policy::Prefer, ciphers: vec![Cost::new(cipher, 1)], partial: true }
}

fn packet(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|n| n as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn is_keyed(message: &[u8]) -> bool {
    is_transport(u32::from_le_bytes(message[4..8].try_into().unwrap()))
}

impl Pair {
    fn new(a: Transport, b: Transport) -> Self {
        let clock = Clock::start();
        assert!(clock.instant() >= Instant::ZERO);
        let crypto = |seed: u8, transport| {
            Wireguard::new(StaticSecret::from([seed; 32]), clock.clone()).carrying(transport)
        };
        let (mut a, mut b) = (crypto(1, a), crypto(2, b));
        let party = |node, key: TunnelKey| Party { node: NodeId([node; 32]), key };
        let binding = Binding {
            network: NetworkId([3; 32]),
            offerer: party(1, a.public()),
            answerer: party(2, b.public()),
        };
        let (to_b, to_a) = (a.tunnel(&b.public(), 0x12_3456), b.tunnel(&a.public(), 0x65_4321));
        let pair = Self { clock, a: to_b, b: to_a, binding };
        pair.meet();
        pair
    }

    fn now(&self) -> Instant {
        self.clock.instant()
    }

    fn meet(&self) {
        let (mut one, mut other) = ([0; HANDSHAKE_ROOM], [0; HANDSHAKE_ROOM]);
        let len = self.a.initiate(&mut one, self.now()).unwrap();
        let Handshake::Reply(len) = self.b.handshake(&one[..len], &mut other, self.now()) else { panic!() };
        let Handshake::Reply(len) = self.a.handshake(&other[..len], &mut one, self.now()) else { panic!() };
        assert_eq!(self.b.open(&mut one[..len]), Opened::Keepalive);
    }

    fn offer(&self) -> Offer {
        self.a.offer(self.now()).unwrap()
    }

    fn answer(&self, offer: &Offer) -> Answer {
        self.b.answer(offer, &self.binding, self.now()).unwrap()
    }

    fn agree(&self) {
        let answer = self.answer(&self.offer());
        assert!(self.a.accept(&answer, &self.binding, self.now()));
        send(&self.a, &self.b, 0);
    }
}

/// A packet arrives; whether it went under transport keys.
fn send(from: &SharedTunnel, to: &SharedTunnel, len: usize) -> bool {
    let said = if len == 0 { Vec::new() } else { packet(len) };
    let mut message = seal_one(&**from, &said).unwrap();
    let keyed = is_keyed(&message);
    match to.open(&mut message) {
        Opened::Packet(heard) => assert_eq!(message[HEADER..HEADER + heard], said),
        Opened::Keepalive => assert_eq!(len, 0),
        other => panic!("{other:?}"),
    }
    keyed
}

#[test]
fn both_directions_switch_as_soon_as_they_may() {
    for cipher in Cipher::ALL {
        let pair = Pair::new(Transport::default(), only(cipher));
        let offer = pair.offer();
        assert!(!send(&pair.a, &pair.b, 100) && !send(&pair.b, &pair.a, 100));
        let answer = pair.answer(&offer);
        assert!(!send(&pair.b, &pair.a, 100), "the offerer may not have the keys yet");
        assert!(pair.a.accept(&answer, &pair.binding, pair.now()));
        assert!(!send(&pair.b, &pair.a, 100));
        assert!(send(&pair.a, &pair.b, 1400) && send(&pair.b, &pair.a, 1400));
        for len in [20, 21, 63, 64, 65, 1280, 9000, 65_000] {
            assert!(send(&pair.a, &pair.b, len) && send(&pair.b, &pair.a, len), "{len}");
        }
        assert_eq!(pair.a.protection(), Some(Protection::transport(cipher)));
        assert_eq!(pair.b.protection(), Some(Protection::transport(cipher)));
    }
}

#[test]
fn a_node_may_do_without_and_then_says_nothing_and_answers_nothing() {
    let pair = Pair::new(Transport::default(), policy(Policy::Wireguard));
    assert_eq!(pair.b.answer(&pair.offer(), &pair.binding, pair.now()), None);
    let pair = Pair::new(policy(Policy::Wireguard), Transport::default());
    assert_eq!(pair.a.offer(pair.now()), None);
    assert!(!send(&pair.a, &pair.b, 100) && !send(&pair.b, &pair.a, 100));
    assert_eq!(pair.a.protection(), Some(Protection::WIREGUARD));
}

#[test]
fn checksums_may_be_partial_only_if_both_say_so() {
    for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
        let says = |partial| Transport { partial, ..Transport::default() };
        let pair = Pair::new(says(a), says(b));
        let partial = |from: &SharedTunnel| seal_one_as(&**from, Content::Partial, &packet(100));
        assert_eq!(partial(&pair.a), None, "never under WireGuard's keys");
        pair.agree();
        for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            assert_eq!(partial(from).is_some(), a && b);
            let opened = partial(from).map(|mut message| to.open(&mut message));
            assert!(opened.is_none_or(|opened| opened == Opened::Partial(100)), "{opened:?}");
            assert!(send(from, to, 100));
        }
    }
}

#[test]
fn an_answer_takes_no_partial_checksums_from_an_offer_that_does_not() {
    let pair = Pair::new(Transport { partial: false, ..Transport::default() }, Transport::default());
    let offer = pair.offer();
    let mut answer = pair.answer(&offer);
    assert!(!offer.takes_partial() && !answer.takes_partial());
    answer.cipher |= 0x80;
    assert!(!pair.a.accept(&answer, &pair.binding, pair.now()));
}

#[test]
fn what_is_sent_under_transport_keys_makes_wireguard_rekey() {
    let pair = Pair::new(Transport::default(), Transport::default());
    let later = |seconds| pair.now() + std::time::Duration::from_secs(seconds);
    let mut out = [0; HANDSHAKE_ROOM];
    pair.agree();
    assert_eq!(pair.a.handle_timeout(&mut out, later(121)), None, "nothing was sent");
    assert!(send(&pair.a, &pair.b, 100));
    assert_eq!(pair.a.handle_timeout(&mut out, later(100)), None);
    assert_eq!(pair.a.handle_timeout(&mut out, later(121)), Some(148));
    assert!(send(&pair.b, &pair.a, 100));
    assert_eq!(pair.b.handle_timeout(&mut out, later(121)), None, "the initiator's part");
}

#[test]
fn a_control_message_is_known_by_its_shape() {
    let mut packet = vec![0; 60];
    packet[0] = 0x60;
    packet[6] = 17;
    packet[42..44].copy_from_slice(&control::PORT.to_be_bytes());
    assert!(may_be_control(&packet));
    for (at, value) in [(0, 0x45), (6, 6), (42, 0), (43, 0)] {
        let mut other = packet.clone();
        other[at] = value;
        assert!(!may_be_control(&other), "byte {at}");
    }
    assert!(!may_be_control(&packet[..47]));
}

#[test]
fn the_figures_of_this_machine_are_figures() {
    let costs = measure();
    assert_eq!(costs.len(), Cipher::ALL.len());
    assert!(costs.iter().all(|cost| cost.nanos() > 0), "{costs:?}");
}
