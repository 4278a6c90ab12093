//! What every implementation of the cryptographic seam must do; run against boringtun and against the simulator's
//! model.
//!
//! Owns: test functions, in a form that other crates' tests can call. Never: part of a node.
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod keys;

use std::time::Duration;

use crate::id::TunnelKey;
use crate::timing::Instant;
use crate::tunnel::{
    Crypto, HANDSHAKE_ROOM, HEADER, Handshake, OVERHEAD, Opened, Purpose, SharedTunnel, seal_one,
};
use crate::wire::{Frame, Wireguard, classify};

/// What an implementation brings along.
pub trait World {
    /// A node whose key depends on `seed` alone; a second one of the same seed is the node after a restart.
    fn crypto(&mut self, seed: u64) -> Box<dyn Crypto>;
    /// What time it is.
    fn now(&mut self) -> Instant;
    /// Let time pass.
    fn pass(&mut self, time: Duration);
}

/// After this long an initiation without an answer may be repeated.
pub const RETRY: Duration = Duration::from_millis(1100);

/// An inner packet: IPv4, of `len` bytes in all.
fn packet(len: u16, mark: u8) -> Vec<u8> {
    let mut bytes = vec![mark; usize::from(len)];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// One end of a tunnel.
pub struct End {
    crypto: Box<dyn Crypto>,
    tunnel: SharedTunnel,
}

impl End {
    fn pair(world: &mut impl World) -> (Self, Self) {
        let (mut a, mut b) = (world.crypto(1), world.crypto(2));
        let (to_b, to_a) = (a.tunnel(&b.public(), 0x12_3456), b.tunnel(&a.public(), 0x65_4321));
        (Self { crypto: a, tunnel: to_b }, Self { crypto: b, tunnel: to_a })
    }

    fn key(&self) -> TunnelKey {
        self.crypto.public()
    }

    fn initiate(&self, now: Instant) -> Option<Vec<u8>> {
        let mut room = [0; HANDSHAKE_ROOM];
        let len = self.tunnel.initiate(&mut room, now)?;
        Some(room[..len].to_vec())
    }

    fn handshake(&self, datagram: &[u8], now: Instant) -> (Handshake, Vec<u8>) {
        let mut room = [0; HANDSHAKE_ROOM];
        let came = self.tunnel.handshake(datagram, &mut room, now);
        let reply = if let Handshake::Reply(len) = came { room[..len].to_vec() } else { Vec::new() };
        (came, reply)
    }

    fn seal(&self, packet: &[u8]) -> Option<Vec<u8>> {
        seal_one(&*self.tunnel, packet)
    }

    fn open(&self, datagram: &[u8]) -> (Opened, Vec<u8>) {
        let mut room = datagram.to_vec();
        let opened = self.tunnel.open(&mut room);
        let packet =
            if let Opened::Packet(len) = opened { room[HEADER..HEADER + len].to_vec() } else { Vec::new() };
        (opened, packet)
    }

    fn age(&self) -> Option<u64> {
        self.tunnel.session_age_s()
    }

    /// A whole handshake, from us to `other`.
    fn meet(&self, other: &Self, world: &mut impl World) {
        let initiation = self.initiate(world.now()).expect("nothing was sent lately");
        self.finish(other, &initiation, world);
    }

    fn finish(&self, other: &Self, initiation: &[u8], world: &mut impl World) {
        let (came, response) = other.handshake(initiation, world.now());
        assert!(matches!(came, Handshake::Reply(_)), "{came:?}");
        let (came, confirmation) = self.handshake(&response, world.now());
        assert!(matches!(came, Handshake::Reply(_)), "{came:?}");
        assert_eq!(other.open(&confirmation).0, Opened::Keepalive);
    }

    /// A packet arrives.
    fn say(&self, other: &Self, mark: u8) {
        let said = packet(100 + u16::from(mark), mark);
        let datagram = self.seal(&said).expect("there is a session");
        let (opened, heard) = other.open(&datagram);
        assert_eq!((opened, &heard), (Opened::Packet(said.len()), &said));
    }
}

/// Every promise of the seam.
pub fn all(world: &mut impl World) {
    handshake_and_data(world);
    responder_waits_for_the_initiator(world);
    replays_are_refused(world);
    lost_response(world);
    a_forgery_swallows_nothing(world);
    restart_of_one_side(world);
    rekey(world);
    simultaneous_initiation(world);
    initiations_that_cross_ours(world);
    strangers_and_the_initiators_name(world);
    garbage_and_truncation(world);
    reordering(world);
    sealed_messages(world);
    keys::all(world);
}

/// Both directions, all sizes; the receiver index names the receiver's tunnel.
pub fn handshake_and_data(world: &mut impl World) {
    let (a, b) = End::pair(world);
    assert_eq!(a.seal(&packet(40, 1)), None, "no session yet");
    assert_eq!(a.age(), None);
    a.meet(&b, world);
    for mark in 0..100 {
        a.say(&b, mark);
        b.say(&a, mark);
    }
    let long = packet(65_000, 9);
    let datagram = a.seal(&long).unwrap();
    assert_eq!(datagram.len(), long.len() + OVERHEAD);
    let Some(Frame::Wireguard(Wireguard::Data(receiver))) = classify(&datagram) else {
        panic!("no data message")
    };
    assert_eq!(receiver >> 8, 0x65_4321);
    assert_eq!(b.open(&datagram).1, long);
    assert_eq!((a.age(), b.age()), (Some(0), Some(0)));
    let padded = [packet(60, 3), vec![0; 4]].concat();
    assert_eq!(b.open(&a.seal(&padded).unwrap()).1, packet(60, 3), "padding is cut off");
}

/// WireGuard paper, section 5.4.6: the responder sends nothing before the initiator's first data.
pub fn responder_waits_for_the_initiator(world: &mut impl World) {
    let (a, b) = End::pair(world);
    let initiation = a.initiate(world.now()).unwrap();
    let (_, response) = b.handshake(&initiation, world.now());
    assert_eq!(b.seal(&packet(40, 1)), None);
    assert_eq!(b.age(), None);
    let (_, confirmation) = a.handshake(&response, world.now());
    assert!(a.age().is_some());
    assert_eq!(b.open(&confirmation).0, Opened::Keepalive);
    assert!(b.age().is_some());
    b.say(&a, 1);
}

/// Data, initiations and responses count once.
pub fn replays_are_refused(world: &mut impl World) {
    let (a, b) = End::pair(world);
    let initiation = a.initiate(world.now()).unwrap();
    let (_, response) = b.handshake(&initiation, world.now());
    assert_eq!(b.handshake(&initiation, world.now()).0, Handshake::Rejected);
    let (_, confirmation) = a.handshake(&response, world.now());
    assert_eq!(a.handshake(&response, world.now()).0, Handshake::Rejected);
    assert_eq!(b.open(&confirmation).0, Opened::Keepalive);
    assert_eq!(b.open(&confirmation).0, Opened::Duplicate);
    let datagram = a.seal(&packet(40, 1)).unwrap();
    assert_eq!(b.open(&datagram).0, Opened::Packet(40));
    assert_eq!(b.open(&datagram).0, Opened::Duplicate);
    assert_eq!(a.open(&datagram).0, Opened::Rejected, "reflected");
    a.say(&b, 2);
}

/// The initiation is repeated, but not at once; the answer to either counts.
pub fn lost_response(world: &mut impl World) {
    let (a, b) = End::pair(world);
    let first = a.initiate(world.now()).unwrap();
    assert_eq!(a.initiate(world.now()), None, "too fresh");
    let (_, late) = b.handshake(&first, world.now());
    world.pass(RETRY);
    let second = a.initiate(world.now()).expect("may be repeated");
    assert_ne!(first, second);
    a.finish(&b, &second, world);
    a.say(&b, 1);
    b.say(&a, 2);
    a.handshake(&late, world.now());
    a.say(&b, 3);
    b.say(&a, 4);
}

/// After this long without an answer the timers repeat an initiation (WireGuard paper, section 6.4).
const TIMERS_RETRY: Duration = Duration::from_millis(5600);

/// What the timers want sent is sent, though somebody's garbage is read just when they run.
pub fn a_forgery_swallows_nothing(world: &mut impl World) {
    let (a, b) = End::pair(world);
    a.initiate(world.now()).unwrap();
    world.pass(TIMERS_RETRY);
    let mut forged = [0; 92];
    forged[0] = 2;
    assert_eq!(a.handshake(&forged, world.now()).0, Handshake::Rejected);
    let mut room = [0; HANDSHAKE_ROOM];
    let len = a.tunnel.handle_timeout(&mut room, world.now()).expect("the timers repeat the initiation");
    a.finish(&b, &room[..len], world);
    a.say(&b, 1);
}

/// A node that lost all sessions can be reached, and can reach, again.
pub fn restart_of_one_side(world: &mut impl World) {
    let (a, b) = End::pair(world);
    a.meet(&b, world);
    b.say(&a, 1);
    let mut fresh = world.crypto(2);
    assert_eq!(fresh.public(), b.key());
    let b = End { tunnel: fresh.tunnel(&a.key(), 0x11_1111), crypto: fresh };
    let stale = a.seal(&packet(40, 1)).unwrap();
    assert_eq!(b.open(&stale).0, Opened::Rejected);
    assert_eq!(b.seal(&packet(40, 1)), None);
    b.meet(&a, world);
    b.say(&a, 2);
    a.say(&b, 3);
}

/// A second handshake replaces the session; what was under way on the first still arrives.
pub fn rekey(world: &mut impl World) {
    let (a, b) = End::pair(world);
    a.meet(&b, world);
    let under_way = b.seal(&packet(40, 7)).unwrap();
    world.pass(RETRY);
    a.meet(&b, world);
    a.say(&b, 1);
    assert_eq!(a.open(&under_way).0, Opened::Packet(40));
    b.say(&a, 2);
    world.pass(RETRY);
    b.meet(&a, world);
    a.say(&b, 3);
    b.say(&a, 4);
}

/// Both initiate at once and both answer: either session works.
pub fn simultaneous_initiation(world: &mut impl World) {
    let (a, b) = End::pair(world);
    let (from_a, from_b) = (a.initiate(world.now()).unwrap(), b.initiate(world.now()).unwrap());
    let (_, answer_b) = b.handshake(&from_a, world.now());
    let (_, answer_a) = a.handshake(&from_b, world.now());
    let (_, confirm_a) = a.handshake(&answer_b, world.now());
    let (_, confirm_b) = b.handshake(&answer_a, world.now());
    assert_eq!(b.open(&confirm_a).0, Opened::Keepalive);
    assert_eq!(a.open(&confirm_b).0, Opened::Keepalive);
    for mark in 0..10 {
        a.say(&b, mark);
        b.say(&a, mark);
    }
}

/// A peer that initiated again and again while we were away is answered, and may have made our tunnel forget its own
/// initiation. Then another leaves at once.
pub fn initiations_that_cross_ours(world: &mut impl World) {
    let (a, b) = End::pair(world);
    let first = a.initiate(world.now()).unwrap();
    for _ in 0..3 {
        world.pass(Duration::from_millis(10));
        let mut crypto = world.crypto(2);
        let earlier = End { tunnel: crypto.tunnel(&a.key(), 0x65_4321), crypto };
        let initiation = earlier.initiate(world.now()).unwrap();
        assert!(matches!(a.handshake(&initiation, world.now()).0, Handshake::Reply(_)));
    }
    let (_, answer) = b.handshake(&first, world.now());
    if a.handshake(&answer, world.now()).0 == Handshake::Rejected {
        let second = a.initiate(world.now()).expect("nothing is waited for that can't come");
        a.finish(&b, &second, world);
    }
    a.say(&b, 1);
}

/// An initiation tells its sender to the node it is for, and to nobody else.
pub fn strangers_and_the_initiators_name(world: &mut impl World) {
    let (a, mut b) = End::pair(world);
    let initiation = a.initiate(world.now()).unwrap();
    assert_eq!(b.crypto.initiator(&initiation), Some(a.key()));
    let mut other = world.crypto(3);
    assert_eq!(other.initiator(&initiation), None);
    let wrong = End { tunnel: b.crypto.tunnel(&other.public(), 7), crypto: other };
    assert_eq!(wrong.handshake(&initiation, world.now()).0, Handshake::Rejected, "another peer's tunnel");
    for at in 0..initiation.len() - 16 {
        let mut damaged = initiation.clone();
        damaged[at] ^= 1;
        assert_eq!(b.crypto.initiator(&damaged), None, "byte {at}");
        assert_eq!(b.handshake(&damaged, world.now()).0, Handshake::Rejected, "byte {at}");
    }
    a.finish(&b, &initiation, world);
}

/// Nothing that can arrive panics or is taken for something.
pub fn garbage_and_truncation(world: &mut impl World) {
    let (a, mut b) = End::pair(world);
    let initiation = a.initiate(world.now()).unwrap();
    let (_, response) = b.handshake(&initiation, world.now());
    let (_, confirmation) = a.handshake(&response, world.now());
    b.open(&confirmation);
    let data = a.seal(&packet(100, 1)).unwrap();
    let mut bad: Vec<Vec<u8>> = vec![Vec::new(), vec![0; 2000], vec![0xff; 148], vec![4; 32], vec![1; 148]];
    for whole in [&initiation, &response, &confirmation, &data] {
        bad.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
        bad.push([whole.as_slice(), &[0]].concat());
    }
    for kind in 1..=4 {
        for len in [4, 16, 31, 32, 33, 64, 92, 148, 1500] {
            let mut bytes = vec![0xa5; len];
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            bad.push(bytes);
        }
    }
    let mut last = data.clone();
    last[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    bad.push(last);
    for bytes in bad {
        // Whoever looks at the counter first calls it a copy.
        let opened = b.open(&bytes).0;
        assert!(matches!(opened, Opened::Rejected | Opened::Duplicate), "{opened:?} {bytes:02x?}");
        assert_eq!(a.handshake(&bytes, world.now()).0, Handshake::Rejected, "{bytes:02x?}");
        assert_eq!(b.crypto.initiator(&bytes), None);
        assert_eq!(b.crypto.open_sealed(Purpose::Knock, &bytes), None);
    }
    for at in 0..data.len() {
        let mut damaged = data.clone();
        damaged[at] ^= 0x40;
        assert_eq!(b.open(&damaged).0, Opened::Rejected, "byte {at}");
    }
    assert_eq!(b.open(&data).0, Opened::Packet(100));
    a.say(&b, 2);
    b.say(&a, 3);
}

/// Packets that overtake each other within the window all arrive, once.
pub fn reordering(world: &mut impl World) {
    let (a, b) = End::pair(world);
    a.meet(&b, world);
    let datagrams: Vec<_> = (0..500).map(|_| a.seal(&packet(64, 1)).unwrap()).collect();
    for datagram in datagrams.iter().rev() {
        assert_eq!(b.open(datagram).0, Opened::Packet(64));
    }
    for datagram in &datagrams {
        assert_eq!(b.open(datagram).0, Opened::Duplicate);
    }
}

/// Sealed messages open for whom and for what they were sealed.
pub fn sealed_messages(world: &mut impl World) {
    let (mut a, mut b) = (world.crypto(1), world.crypto(2));
    for len in [0, 1, 100, 4000] {
        let message = vec![7; len];
        let sealed = a.seal_to(&b.public(), Purpose::Knock, &message);
        assert!(sealed.len() <= len + 48, "encapsulated key and tag");
        assert_eq!(b.open_sealed(Purpose::Knock, &sealed), Some(message));
        assert_eq!(b.open_sealed(Purpose::EnrolRequest, &sealed), None);
        assert_eq!(a.open_sealed(Purpose::Knock, &sealed), None);
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(b.open_sealed(Purpose::Knock, &damaged), None);
        assert_eq!(b.open_sealed(Purpose::Knock, &sealed[..sealed.len() - 1]), None);
        assert_ne!(
            a.seal_to(&b.public(), Purpose::Knock, &[7]),
            a.seal_to(&b.public(), Purpose::Knock, &[7])
        );
    }
}
