//! The promises of the seam about transport keys.

use super::{End, RETRY, World, packet};
use crate::agreement::{Answer, Binding, Fixed, KEM_CIPHERTEXT, Offer, Party, is_transport};
use crate::id::{NetworkId, NodeId};
use crate::tunnel::{Content, Crypto, Opened, Protection, seal_one_as};
use crate::wire::{Frame, Wireguard, classify};

/// Every promise about transport keys.
pub fn all(world: &mut impl World) {
    keys_take_over(world);
    keys_open_once_and_for_their_receiver(world);
    a_window_of_8192(world);
    an_answerer_waits_for_the_offerer(world);
    a_repeated_answer_changes_nothing(world);
    only_the_last_offer_is_answered(world);
    what_was_altered_makes_other_keys(world);
    what_was_not_offered_is_refused(world);
    keys_of_others_and_of_other_roles_differ(world);
    new_keys_follow_old_ones(world);
    a_side_that_was_started_anew_is_served_at_once(world);
    both_may_offer_at_once(world);
    the_agreement_itself_goes_under_wireguards_keys(world);
    a_partial_checksum_never_arrives_as_a_complete_one(world);
}

impl End {
    fn binding(&self, other: &Self) -> Binding {
        let party = |end: &Self| Party { node: NodeId(end.key().0), key: end.key() };
        Binding { network: NetworkId([7; 32]), offerer: party(self), answerer: party(other) }
    }

    fn offer(&self, world: &mut impl World) -> Offer {
        self.tunnel.offer(world.now()).expect("keys are wanted")
    }

    /// `other` answers our offer.
    fn answered_by(&self, other: &Self, offer: &Offer, world: &mut impl World) -> Answer {
        other.tunnel.answer(offer, &self.binding(other), world.now()).expect("keys are wanted")
    }

    fn accept(&self, other: &Self, answer: &Answer, world: &mut impl World) -> bool {
        self.tunnel.accept(answer, &self.binding(other), world.now())
    }

    /// A whole agreement, offered by us and used by both.
    fn agree(&self, other: &Self, world: &mut impl World) {
        let offer = self.offer(world);
        let answer = self.answered_by(other, &offer, world);
        assert!(self.accept(other, &answer, world));
        assert!(self.says_under_keys(other) && other.says_under_keys(self));
    }

    /// A packet arrives; whether transport keys sealed it.
    fn says_under_keys(&self, other: &Self) -> bool {
        let datagram = self.seal(&packet(100, 1)).expect("there are keys");
        assert_eq!(other.open(&datagram).0, Opened::Packet(100));
        is_keyed(&datagram)
    }

    fn is_post_quantum(&self) -> Option<bool> {
        self.tunnel.protection().map(|protection| protection.post_quantum)
    }
}

fn is_keyed(datagram: &[u8]) -> bool {
    let Some(Frame::Wireguard(Wireguard::Data(receiver))) = classify(datagram) else {
        panic!("no data message")
    };
    is_transport(receiver)
}

fn met(world: &mut impl World) -> (End, End) {
    let (a, b) = End::pair(world);
    assert_eq!((a.tunnel.protection(), a.tunnel.initiated()), (None, None));
    a.meet(&b, world);
    assert!(a.tunnel.initiated().is_some() && b.tunnel.initiated().is_none(), "who initiated offers");
    assert_eq!(a.tunnel.protection(), Some(Protection::WIREGUARD));
    (a, b)
}

/// Until they are agreed on, WireGuard's keys serve; then transport keys, both ways.
pub fn keys_take_over(world: &mut impl World) {
    let (a, b) = met(world);
    assert!(!a.says_under_keys(&b) && !b.says_under_keys(&a));
    a.agree(&b, world);
    assert_eq!((a.is_post_quantum(), b.is_post_quantum()), (Some(true), Some(true)));
    for mark in 0..100 {
        a.say(&b, mark);
        b.say(&a, mark);
    }
    let message = a.seal(&packet(1000, 5)).unwrap();
    assert_eq!(message.len(), 1000 + crate::tunnel::OVERHEAD, "WireGuard's layout");
    let Some(Frame::Wireguard(Wireguard::Data(receiver))) = classify(&message) else { panic!("no data") };
    assert_eq!((receiver >> 8) & 0x7f_ffff, 0x65_4321, "the tunnel's index");
}

/// Replayed, reflected, altered, cut: refused.
pub fn keys_open_once_and_for_their_receiver(world: &mut impl World) {
    let (a, b) = met(world);
    a.agree(&b, world);
    let datagram = a.seal(&packet(80, 1)).unwrap();
    assert_eq!(a.open(&datagram).0, Opened::Rejected, "reflected");
    for at in 0..datagram.len() {
        let mut altered = datagram.clone();
        altered[at] ^= 0x80;
        assert_eq!(b.open(&altered).0, Opened::Rejected, "byte {at}");
        assert_eq!(b.open(&datagram[..at]).0, Opened::Rejected, "{at} bytes");
    }
    assert_eq!(b.open(&datagram).0, Opened::Packet(80));
    assert_eq!(b.open(&datagram).0, Opened::Duplicate, "replayed");
    let mut last = a.seal(&packet(80, 1)).unwrap();
    last[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(b.open(&last).0, Opened::Rejected);
    assert!(a.says_under_keys(&b));
}

/// A packet that 8191 others overtook is taken, one that 8192 did is not.
pub fn a_window_of_8192(world: &mut impl World) {
    let (a, b) = met(world);
    a.agree(&b, world);
    let early: Vec<_> = (0..2).map(|_| a.seal(&packet(20, 1)).unwrap()).collect();
    for _ in 0..8190 {
        let datagram = a.seal(&packet(20, 2)).unwrap();
        assert_eq!(b.open(&datagram).0, Opened::Packet(20));
    }
    let newest = a.seal(&packet(20, 2)).unwrap();
    assert_eq!(b.open(&newest).0, Opened::Packet(20));
    assert_eq!(b.open(&early[0]).0, Opened::Duplicate, "8192 behind");
    assert_eq!(b.open(&early[1]).0, Opened::Packet(20), "8191 behind");
}

/// Nothing is sealed with keys that the other side may not have.
pub fn an_answerer_waits_for_the_offerer(world: &mut impl World) {
    let (a, b) = met(world);
    let offer = a.offer(world);
    assert!(!offer.has_keys);
    let answer = a.answered_by(&b, &offer, world);
    assert!(!b.says_under_keys(&a));
    assert!(a.accept(&b, &answer, world));
    assert!(!b.says_under_keys(&a));
    let empty = a.seal(&[]).unwrap();
    assert!(is_keyed(&empty));
    assert_eq!(b.open(&empty).0, Opened::Keepalive);
    assert!(b.says_under_keys(&a));
}

/// An answer counts once.
pub fn a_repeated_answer_changes_nothing(world: &mut impl World) {
    let (a, b) = met(world);
    let offer = a.offer(world);
    let answer = a.answered_by(&b, &offer, world);
    assert!(a.accept(&b, &answer, world));
    assert!(a.says_under_keys(&b));
    assert!(!a.accept(&b, &answer, world));
    assert!(a.says_under_keys(&b) && b.says_under_keys(&a));
}

/// A late answer to an earlier offer is refused; its secrets are gone.
pub fn only_the_last_offer_is_answered(world: &mut impl World) {
    let (a, b) = met(world);
    let (first, second) = (a.offer(world), a.offer(world));
    assert!(first.index != second.index && first.x25519 != second.x25519);
    let late = a.answered_by(&b, &first, world);
    let answer = a.answered_by(&b, &second, world);
    assert!(!a.accept(&b, &late, world));
    assert!(!a.says_under_keys(&b));
    assert!(a.accept(&b, &answer, world));
    assert!(a.says_under_keys(&b) && b.says_under_keys(&a));
}

/// Who saw something different has different keys: nothing opens, and nothing but WireGuard's keys is used.
pub fn what_was_altered_makes_other_keys(world: &mut impl World) {
    type Change = fn(&mut Offer, &mut Answer);
    let changes: [Change; 7] = [
        |offer, _| _ = offer.ciphers.pop(),
        |offer, _| offer.ciphers[0].nanos ^= 1,
        |offer, _| offer.has_keys ^= true,
        |offer, _| offer.x25519[3] ^= 1,
        |_, answer| answer.x25519[3] ^= 1,
        |_, answer| answer.kem.0[100] ^= 1,
        |_, answer| answer.index ^= 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (a, b) = met(world);
        let offer = a.offer(world);
        let mut altered = offer.clone();
        let mut spare = Answer {
            offer: 0,
            index: 0,
            cipher: 0,
            x25519: [0; 32],
            kem: Fixed(Box::new([0; KEM_CIPHERTEXT])),
        };
        change(&mut altered, &mut spare);
        let mut answer = a.answered_by(&b, &altered, world);
        change(&mut offer.clone(), &mut answer);
        if a.accept(&b, &answer, world) {
            let datagram = a.seal(&packet(40, 1)).unwrap();
            assert_eq!(b.open(&datagram).0, Opened::Rejected, "change {n}");
        }
        assert!(!b.says_under_keys(&a), "change {n}");
    }
}

/// No cipher but one of those offered, no half that is none.
pub fn what_was_not_offered_is_refused(world: &mut impl World) {
    let (a, b) = met(world);
    let offer = a.offer(world);
    let good = a.answered_by(&b, &offer, world);
    for code in [0, 3, 255] {
        assert!(!a.accept(&b, &Answer { cipher: code, ..good.clone() }, world), "cipher {code}");
    }
    assert!(!a.accept(&b, &Answer { offer: good.offer ^ 1, ..good.clone() }, world));
    assert!(a.accept(&b, &good, world), "what was refused did no harm");
    let none = Offer { ciphers: Vec::new(), ..offer.clone() };
    assert_eq!(b.tunnel.answer(&none, &a.binding(&b), world.now()), None);
    let plain = Offer { index: 7, ..offer };
    assert_eq!(b.tunnel.answer(&plain, &a.binding(&b), world.now()), None, "an index of WireGuard's");
}

/// The same words between others, or with the roles exchanged, make other keys.
pub fn keys_of_others_and_of_other_roles_differ(world: &mut impl World) {
    let (a, b) = met(world);
    let right = a.binding(&b);
    let mut network = right;
    network.network.0[0] ^= 1;
    let mut node = right;
    node.offerer.node.0[0] ^= 1;
    let exchanged = Binding { offerer: right.answerer, answerer: right.offerer, ..right };
    for wrong in [network, node, exchanged] {
        let offer = a.offer(world);
        let answer = b.tunnel.answer(&offer, &wrong, world.now()).unwrap();
        assert!(a.accept(&b, &answer, world), "nobody can tell yet");
        let datagram = a.seal(&packet(40, 1)).unwrap();
        assert_eq!(b.open(&datagram).0, Opened::Rejected);
    }
    a.agree(&b, world);
}

/// Every session brings new keys; what is under way under the old ones arrives.
pub fn new_keys_follow_old_ones(world: &mut impl World) {
    let (a, b) = met(world);
    a.agree(&b, world);
    for _ in 0..2 {
        let (from_a, from_b) = (a.seal(&packet(40, 1)).unwrap(), b.seal(&packet(40, 2)).unwrap());
        world.pass(RETRY);
        let session = a.tunnel.initiated();
        a.meet(&b, world);
        assert!(a.tunnel.initiated() > session, "a session of its own number");
        assert!(a.says_under_keys(&b) && b.says_under_keys(&a), "the old keys serve until there are new");
        assert!(a.offer(world).has_keys);
        a.agree(&b, world);
        assert_eq!(b.open(&from_a).0, Opened::Packet(40));
        assert_eq!(a.open(&from_b).0, Opened::Packet(40));
    }
}

/// A tunnel that begins anew has another index, and no keys: the other side learns either in time.
pub fn a_side_that_was_started_anew_is_served_at_once(world: &mut impl World) {
    for initiates in [true, false] {
        for index in [0x11_1111, 0x65_4321] {
            let (a, b) = met(world);
            a.agree(&b, world);
            let mut fresh = world.crypto(2);
            let b = End { tunnel: fresh.tunnel(&a.key(), index), crypto: fresh };
            world.pass(RETRY);
            let (one, other) = if initiates { (&b, &a) } else { (&a, &b) };
            one.meet(other, world);
            if index == 0x11_1111 {
                assert!(!a.says_under_keys(&b), "another index: the keys are known to be lost");
            }
            let offer = one.offer(world);
            assert_eq!(offer.has_keys, !initiates);
            let answer = one.answered_by(other, &offer, world);
            if initiates {
                assert!(!a.says_under_keys(&b), "the offer said so");
            }
            assert!(one.accept(other, &answer, world));
            assert!(one.says_under_keys(other) && other.says_under_keys(one));
        }
    }
}

/// Two sessions, two agreements: whatever is sealed opens.
pub fn both_may_offer_at_once(world: &mut impl World) {
    let (a, b) = met(world);
    let (from_a, from_b) = (a.offer(world), b.offer(world));
    let (by_b, by_a) = (a.answered_by(&b, &from_a, world), b.answered_by(&a, &from_b, world));
    assert!(a.accept(&b, &by_b, world));
    assert!(a.says_under_keys(&b) && b.says_under_keys(&a));
    assert!(b.accept(&a, &by_a, world));
    for _ in 0..3 {
        assert!(a.says_under_keys(&b) && b.says_under_keys(&a));
    }
    assert_eq!((a.is_post_quantum(), b.is_post_quantum()), (Some(true), Some(true)));
}

/// Whoever lost its keys can still read what new ones are agreed with.
pub fn the_agreement_itself_goes_under_wireguards_keys(world: &mut impl World) {
    let (a, b) = met(world);
    a.agree(&b, world);
    for (content, keyed) in [(Content::Data, true), (Content::Control, true), (Content::Agreement, false)] {
        let datagram = seal_one_as(&*a.tunnel, content, &packet(60, 1)).unwrap();
        assert_eq!(is_keyed(&datagram), keyed, "{content:?}");
        assert_eq!(b.open(&datagram).0, Opened::Packet(60));
    }
}

/// Whoever can't say that a checksum is partial seals no such packet, and WireGuard can't.
pub fn a_partial_checksum_never_arrives_as_a_complete_one(world: &mut impl World) {
    let (a, b) = met(world);
    let partial = || seal_one_as(&*a.tunnel, Content::Partial, &packet(60, 1));
    assert_eq!(partial(), None);
    a.agree(&b, world);
    assert!(partial().is_none_or(|datagram| b.open(&datagram).0 == Opened::Partial(60)));
}

/// Where transport keys are insisted on, WireGuard's carry no data, neither way; `insisting` makes such
/// a node.
pub fn who_insists_carries_no_data_without_keys(
    world: &mut impl World,
    insisting: &mut dyn FnMut(u64) -> Box<dyn Crypto>,
) {
    let (mut strict, mut lax) = (insisting(1), world.crypto(2));
    let (to_b, to_a) = (strict.tunnel(&lax.public(), 0x12_3456), lax.tunnel(&strict.public(), 0x65_4321));
    let (a, b) = (End { crypto: strict, tunnel: to_b }, End { crypto: lax, tunnel: to_a });
    a.meet(&b, world);
    assert_eq!((a.tunnel.protection(), a.age()), (None, Some(0)));
    assert_eq!(a.seal(&packet(40, 1)), None);
    let control = seal_one_as(&*a.tunnel, Content::Control, &packet(40, 1)).unwrap();
    assert_eq!(b.open(&control).0, Opened::Packet(40), "control messages go");
    let datagram = b.seal(&packet(40, 1)).unwrap();
    assert_eq!(a.open(&datagram).0, Opened::Refused);
    a.agree(&b, world);
}
