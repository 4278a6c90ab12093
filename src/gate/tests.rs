//! Who passes, who gets a cookie, and who does not.

use std::net::{Ipv4Addr, SocketAddr};

use frejus_overlay::locator::Channel;
use frejus_overlay::tunnel::{Crypto, HANDSHAKE_ROOM, Handshake, SharedTunnel};
use frejus_overlay::wire::{self, classify};
use x25519_dalek::StaticSecret;

use super::*;
use crate::clock::Clock;
use crate::wireguard::Wireguard;

fn crypto(n: u8) -> Wireguard {
    Wireguard::new(StaticSecret::from([n; 32]), Clock::start())
}

fn gate() -> Gate {
    Gate::new(&crypto(1).public())
}

fn at(millis: u64) -> Instant {
    Instant::from_start(Duration::from_millis(millis))
}

/// Somebody in prefix `n`.
fn place(n: u32) -> Locator {
    Locator::Direct(SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + (n << 8)), 51860)).into())
}

/// Somebody who wants a tunnel with the gate's owner.
struct Caller(SharedTunnel);

impl Caller {
    fn new() -> Self {
        Self(crypto(2).tunnel(&crypto(1).public(), 7))
    }

    fn initiation(&self, now: Instant) -> Vec<u8> {
        let mut room = [0; HANDSHAKE_ROOM];
        let length = self.0.initiate(&mut room, now).expect("the last one is old enough");
        room[..length].to_vec()
    }
}

fn judge(gate: &mut Gate, from: Locator, bytes: &[u8], now: Instant) -> (Passage, Vec<u8>) {
    let frame = classify(bytes).expect("a frame");
    let mut reply = [0; COOKIE_REPLY];
    let passage = gate.judge(from, &frame, bytes, |receiver| receiver == 0x700, now, &mut reply);
    (passage, if let Passage::Cookie(length) = passage { reply[..length].to_vec() } else { Vec::new() })
}

/// Initiations that pass, of so many, each from a prefix of its own.
fn admitted(gate: &mut Gate, count: u32, bytes: &[u8], now: Instant) -> usize {
    (0..count).filter(|n| judge(gate, place(*n), bytes, now).0 == Passage::Admitted).count()
}

const LIMITED: Passage = Passage::Refused(Reason::RateLimited);

#[test]
fn what_does_not_name_our_key_costs_nobody_his_budget() {
    let mut gate = gate();
    let good = Caller::new().initiation(at(0));
    let mut bad = good.clone();
    bad[120] ^= 1;
    for n in 0..10_000 {
        let forged = judge(&mut gate, place(n % 20), &bad, at(0)).0;
        assert_eq!(forged, Passage::Refused(Reason::NotAuthentic));
    }
    assert_eq!(judge(&mut gate, place(3), &good, at(0)).0, Passage::Admitted);
    assert_eq!(admitted(&mut gate, 10_000, &good, at(0)) + 1, UNPROVED.burst as usize);
}

#[test]
fn who_shows_a_cookie_passes_a_flood_and_only_from_where_it_got_it() {
    let (mut gate, caller) = (gate(), Caller::new());
    let first = caller.initiation(at(0));
    admitted(&mut gate, UNPROVED.burst, &first, at(0));
    let (passage, cookie) = judge(&mut gate, place(5000), &first, at(0));
    assert_eq!(passage, Passage::Cookie(COOKIE_REPLY));
    let mut room = [0; HANDSHAKE_ROOM];
    assert_eq!(caller.0.handshake(&cookie, &mut room, at(20)), Handshake::Accepted);
    let second = caller.initiation(at(30));
    assert_ne!(second[132..], [0; 16], "mac2");
    admitted(&mut gate, 500, &first, at(40));
    assert_eq!(judge(&mut gate, place(5000), &second, at(40)).0, Passage::Admitted);
    let elsewhere = SocketAddr::new(place(5000).remote().ip(), 7);
    assert_ne!(judge(&mut gate, Locator::Direct(elsewhere.into()), &second, at(40)).0, Passage::Admitted);
    let relayed = Locator::Relayed { relay: place(5000).endpoint(), channel: Channel(1) };
    assert_ne!(judge(&mut gate, relayed, &second, at(40)).0, Passage::Admitted);
}

#[test]
fn cookies_are_rationed() {
    let mut gate = gate();
    let bytes = Caller::new().initiation(at(0));
    admitted(&mut gate, UNPROVED.burst, &bytes, at(0));
    let outcomes = (0..50_000).map(|n| judge(&mut gate, place(n), &bytes, at(0)).0);
    let (cookies, refused): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| *outcome != LIMITED);
    assert_eq!((cookies.len(), refused.len()), (1000, 49_000), "a burst of cookies, no more");
}

#[test]
fn a_flood_of_knocks_leaves_room_for_whoever_proves_its_address() {
    let (mut gate, caller) = (gate(), Caller::new());
    let knock = wire::frame(wire::KNOCK, &[9; 700]);
    assert_eq!(admitted(&mut gate, 10_000, &knock, at(0)), SEALED.burst as usize);
    let newcomer = place(20_000);
    assert_eq!(judge(&mut gate, newcomer, &knock, at(0)).0, LIMITED);
    // Its initiation must now bring a cookie, though few have come.
    let (_, cookie) = judge(&mut gate, newcomer, &caller.initiation(at(0)), at(0));
    let mut room = [0; HANDSHAKE_ROOM];
    assert_eq!(caller.0.handshake(&cookie, &mut room, at(20)), Handshake::Accepted);
    assert_eq!(judge(&mut gate, newcomer, &caller.initiation(at(30)), at(40)).0, Passage::Admitted);
    admitted(&mut gate, 10_000, &knock, at(50));
    assert_eq!(judge(&mut gate, newcomer, &knock, at(50)).0, Passage::Admitted);
    let late = at(50) + PROOF_LIFE + CROWDED;
    admitted(&mut gate, 10_000, &knock, late);
    assert_eq!(judge(&mut gate, newcomer, &knock, late).0, LIMITED, "a proof ends");
}

#[test]
fn answers_for_nobody_and_hints_do_not_crowd_out_answers_for_us() {
    let mut gate = gate();
    let reply = |receiver: u32| [&[3, 0, 0, 0], &receiver.to_le_bytes()[..], &[0; 56]].concat();
    assert_eq!(admitted(&mut gate, 10_000, &reply(1), at(0)), HINTS.burst as usize);
    assert_eq!(judge(&mut gate, place(1), &wire::frame(wire::STRANGER, &[]), at(0)).0, LIMITED);
    assert_eq!(judge(&mut gate, place(1), &reply(0x700), at(0)).0, Passage::Admitted);
}

#[test]
fn a_handshake_for_the_other_end_of_a_new_channel_is_passed_on() {
    let mut gate = gate();
    let stranger = crypto(2).tunnel(&crypto(3).public(), 7);
    let bytes = Caller(stranger).initiation(at(0));
    let relayed = Locator::Relayed { relay: place(1).endpoint(), channel: Channel(1) };
    assert_eq!(judge(&mut gate, relayed, &bytes, at(0)).0, Passage::Admitted);
    assert_eq!(judge(&mut gate, place(1), &bytes, at(0)).0, Passage::Refused(Reason::NotAuthentic));
}

#[test]
fn answers_to_enrolments_are_nothing_to_a_running_node() {
    let answer = wire::frame(wire::ENROL_ANSWER, &[0; 100]);
    assert_eq!(judge(&mut gate(), place(1), &answer, at(0)).0, Passage::Refused(Reason::UnknownFrame));
}
