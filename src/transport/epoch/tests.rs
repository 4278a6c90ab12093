//! One pair of keys: limits, garbage, several threads at once.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::*;

fn pair(cipher: Cipher) -> (Epoch, Epoch) {
    pair_that_takes(cipher, true)
}

fn pair_that_takes(cipher: Cipher, partial: bool) -> (Epoch, Epoch) {
    let key = |byte| Zeroizing::new([byte; 32]);
    let keys = |seal, open| Agreed { cipher, partial, seal: key(seal), open: key(open) };
    (Epoch::new(keys(1, 2)), Epoch::new(keys(2, 1)))
}

fn room(len: usize) -> Vec<u8> {
    let mut room = vec![0; len + OVERHEAD];
    room[HEADER] = 0x45;
    room[HEADER + 2..HEADER + 4].copy_from_slice(&(len as u16).to_be_bytes());
    room
}

#[test]
fn a_key_seals_up_to_its_limit_and_opens_nothing_beyond() {
    let (a, b) = pair(Cipher::Aes256Gcm);
    a.outward.next.store(aead::limit(Cipher::Aes256Gcm) - 1, Ordering::Relaxed);
    let mut last = room(100);
    assert_eq!(a.seal(7, Content::Data, &mut last, 100), Some(132));
    assert_eq!(b.open(&mut last), Opened::Packet(100));
    let mut beyond = room(100);
    let before = beyond.clone();
    for _ in 0..3 {
        assert_eq!(a.seal(7, Content::Data, &mut beyond, 100), None);
        assert_eq!(beyond, before, "the packet is intact");
    }
    // Somebody who has the key and goes on all the same.
    let key = Key::new(Cipher::Aes256Gcm, &[1; 32]);
    let counter = aead::limit(Cipher::Aes256Gcm);
    beyond[..4].copy_from_slice(&[4, 0, 0, 0]);
    beyond[8..16].copy_from_slice(&counter.to_le_bytes());
    key.seal(counter, &mut beyond[HEADER..]);
    assert_eq!(b.open(&mut beyond), Opened::Rejected);
}

#[test]
fn long_packets_wear_a_key_out_sooner() {
    let (a, _) = pair(Cipher::Aes256Gcm);
    let mut long = room(65_000);
    assert!(a.seal(7, Content::Data, &mut long, 65_000).is_some());
    let used = a.outward.next.load(Ordering::Relaxed) + a.outward.extra.load(Ordering::Relaxed);
    assert_eq!(used, 1 + 65_000 / 2048);
    a.outward.extra.store(aead::limit(Cipher::Aes256Gcm), Ordering::Relaxed);
    assert!(a.seal(7, Content::Data, &mut room(20), 20).is_none());
}

#[test]
fn a_worn_key_asks_for_another_in_time() {
    for cipher in Cipher::ALL {
        let (a, _) = pair(cipher);
        assert!(!a.is_worn());
        a.outward.next.store(aead::limit(cipher) / 4 * 3, Ordering::Relaxed);
        assert!(a.is_worn());
        assert!(a.seal(7, Content::Data, &mut room(20), 20).is_some(), "and seals on");
    }
}

#[test]
fn nothing_that_arrives_panics_or_is_taken_for_a_packet() {
    for cipher in Cipher::ALL {
        let (a, b) = pair(cipher);
        for len in 0..100 {
            assert_eq!(b.open(&mut vec![0xa5; len]), Opened::Rejected);
        }
        // Authentic, and no IP packet: too short for its version, longer than it is, of no version.
        for inner in [&[0x45, 0, 0, 20][..], &[0x60; 39], &[0x4f; 60], &[0; 40], &[0x45]] {
            let mut message = vec![0; inner.len() + OVERHEAD];
            message[HEADER..HEADER + inner.len()].copy_from_slice(inner);
            assert!(a.seal(7, Content::Data, &mut message, inner.len()).is_some());
            assert_eq!(b.open(&mut message), Opened::Rejected, "{inner:02x?}");
        }
    }
}

#[test]
fn padding_is_cut_off() {
    let (a, b) = pair(Cipher::ChaCha20Poly1305);
    let mut padded = room(64);
    padded[HEADER + 3] = 60;
    assert!(a.seal(7, Content::Data, &mut padded, 64).is_some());
    assert_eq!(b.open(&mut padded), Opened::Packet(60));
}

#[test]
fn a_partial_checksum_is_marked_where_nobody_can_change_it() {
    for cipher in Cipher::ALL {
        let (a, b) = pair(cipher);
        for content in [Content::Data, Content::Partial, Content::Data] {
            let mut message = room(60);
            assert!(a.seal(7, content, &mut message, 60).is_some());
            let marked = content == Content::Partial;
            assert_eq!(message[15] >> 7 == 1, marked);
            let mut altered = message.clone();
            altered[15] ^= 0x80;
            assert_eq!(b.open(&mut altered), Opened::Rejected);
            let replayed = message.clone();
            let expected = if marked { Opened::Partial(60) } else { Opened::Packet(60) };
            assert_eq!(b.open(&mut message), expected);
            assert_eq!(b.open(&mut replayed.clone()), Opened::Duplicate, "the window does not see the mark");
        }
    }
}

#[test]
fn without_agreement_no_checksum_is_partial() {
    let (a, b) = pair_that_takes(Cipher::Aes256Gcm, false);
    let before = room(60);
    let mut message = before.clone();
    assert_eq!(a.seal(7, Content::Partial, &mut message, 60), None);
    assert_eq!(message, before, "the packet is intact");
    let (careless, _) = pair(Cipher::Aes256Gcm);
    assert!(careless.seal(7, Content::Partial, &mut message, 60).is_some());
    assert_eq!(b.open(&mut message), Opened::Rejected);
}

#[test]
fn several_threads_seal_and_open_at_once_and_every_packet_counts_once() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let (a, b) = pair(Cipher::ChaCha20Poly1305);
    let seal = || -> Vec<Vec<u8>> {
        let one = |_| {
            let mut message = room(60);
            assert!(a.seal(7, Content::Data, &mut message, 60).is_some());
            message
        };
        (0..EACH).map(one).collect()
    };
    let sealed: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let counters: BTreeSet<_> = sealed.iter().map(|message| message[8..16].to_vec()).collect();
    assert_eq!(counters.len(), THREADS * EACH, "no counter twice");
    // Every thread opens everything: each packet is taken by one of them.
    let taken: usize = std::thread::scope(|scope| {
        let open =
            || sealed.iter().filter(|message| b.open(&mut message.to_vec()) == Opened::Packet(60)).count();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, THREADS * EACH);
}
