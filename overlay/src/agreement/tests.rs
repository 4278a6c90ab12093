//! What is said for transport keys: its size, its choice of a cipher, and what the keys are bound to.

use super::*;
use crate::wire::control;

fn offer() -> Offer {
    Offer {
        index: 0xffff_ffff,
        x25519: [1; 32],
        kem: Fixed(Box::new([2; KEM_KEY])),
        ciphers: Cipher::ALL.iter().map(|cipher| Cost::new(*cipher, u16::MAX)).collect(),
        has_keys: true,
    }
}

fn answer() -> Answer {
    let kem = Fixed(Box::new([4; KEM_CIPHERTEXT]));
    Answer { offer: 0xffff_ffff, index: 0xffff_fffe, cipher: 2, x25519: [3; 32], kem }
}

fn binding() -> Binding {
    let party = |n| Party { node: NodeId([n; 32]), key: TunnelKey([n + 1; 32]) };
    Binding { network: NetworkId([9; 32]), offerer: party(10), answerer: party(20) }
}

#[test]
fn the_longest_of_both_fit_a_control_message() {
    for message in [Message::Offer(offer()), Message::Answer(answer())] {
        let bytes = message.encode();
        assert!(bytes.len() <= control::MAX, "{} bytes", bytes.len());
        assert_eq!(Message::decode(&bytes), Some(message));
    }
    assert_eq!(Message::Offer(offer()).encode().len(), 1 + 1 + 4 + 32 + KEM_KEY + 1 + 2 * 3 + 1);
}

#[test]
fn bytes_of_a_fixed_length_are_neither_fewer_nor_more() {
    assert!(Fixed::<3>::copy(&[1, 2]).is_none() && Fixed::<3>::copy(&[1, 2, 3, 4]).is_none());
    assert_eq!(Fixed::<3>::copy(&[1, 2, 3]), Some(Fixed(Box::new([1, 2, 3]))));
    let bytes = Message::Offer(offer()).encode();
    for len in 0..bytes.len() {
        assert_eq!(Message::decode(&bytes[..len]), None, "{len}");
    }
}

#[test]
fn the_cheapest_for_both_together_is_chosen() {
    use Cipher::{Aes256Gcm as Aes, ChaCha20Poly1305 as ChaCha};
    let costs = |chacha, aes| vec![Cost::new(ChaCha, chacha), Cost::new(Aes, aes)];
    assert_eq!(choose(&costs(1000, 700), &costs(1000, 700)), Some(Aes));
    assert_eq!(choose(&costs(1000, 700), &costs(1000, 5000)), Some(ChaCha), "one has no AES instructions");
    assert_eq!(choose(&costs(1000, 700), &costs(700, 1000)), Some(ChaCha), "between equals");
    assert_eq!(choose(&costs(u16::MAX, 1), &costs(1, u16::MAX)), Some(ChaCha));
}

#[test]
fn partial_checksums_are_said_beside_costs_and_ciphers() {
    let both = [Cost::new(Cipher::ChaCha20Poly1305, 1000), Cost::new(Cipher::Aes256Gcm, 40_000)];
    assert_eq!(both.map(Cost::nanos), [1000, 32_767]);
    let with = both.map(Cost::with_partial);
    assert_eq!(with.map(Cost::nanos), [1000, 32_767]);
    assert_eq!(choose(&with, &both), choose(&both, &both));
    let of = |ciphers: &[Cost]| Offer { ciphers: ciphers.to_vec(), ..offer() }.takes_partial();
    assert_eq!((of(&with), of(&both), of(&[with[0], both[1]]), of(&[])), (true, false, false, false));
    for cipher in Cipher::ALL {
        for partial in [false, true] {
            let answer = Answer { cipher: Answer::choice(cipher, partial), ..answer() };
            assert_eq!((answer.code(), answer.takes_partial()), (cipher.code(), partial));
        }
    }
}

#[test]
fn whoever_knows_or_wants_one_cipher_gets_it() {
    use Cipher::{Aes256Gcm as Aes, ChaCha20Poly1305 as ChaCha};
    let both = vec![Cost::new(Aes, 700), Cost::new(ChaCha, 1000)];
    assert_eq!(choose(&[Cost::new(ChaCha, 1000)], &both), Some(ChaCha));
    assert_eq!(choose(&both, &[Cost::new(ChaCha, 1000)]), Some(ChaCha));
    assert_eq!(choose(&[Cost::new(Aes, 1)], &[Cost::new(ChaCha, 1)]), Some(Aes), "the offerer's wish");
    assert_eq!(choose(&[Cost { cipher: 77, nanos: 1 }, Cost::new(Aes, 9)], &both), Some(Aes), "one unknown");
    assert_eq!(choose(&[Cost { cipher: 77, nanos: 1 }], &both), None);
    assert_eq!(choose(&[], &both), None);
}

#[test]
fn the_transcript_depends_on_all_that_was_said_and_by_whom() {
    type Change = fn(&mut Binding, &mut Offer, &mut Answer);
    let changes: [Change; 17] = [
        |_, _, _| {},
        |binding, _, _| binding.network.0[0] ^= 1,
        |binding, _, _| binding.offerer.node.0[0] ^= 1,
        |binding, _, _| binding.offerer.key.0[0] ^= 1,
        |binding, _, _| binding.answerer.node.0[31] ^= 1,
        |binding, _, _| binding.answerer.key.0[31] ^= 1,
        |binding, _, _| std::mem::swap(&mut binding.offerer, &mut binding.answerer),
        |_, offer, _| offer.index ^= 1,
        |_, offer, _| offer.x25519[0] ^= 1,
        |_, offer, _| offer.kem.0[KEM_KEY - 1] ^= 1,
        |_, offer, _| _ = offer.ciphers.pop(),
        |_, offer, _| offer.ciphers[0].nanos -= 1,
        |_, offer, _| offer.has_keys = false,
        |_, _, answer| answer.index ^= 1,
        |_, _, answer| answer.cipher = 1,
        |_, _, answer| answer.x25519[31] ^= 1,
        |_, _, answer| answer.kem.0[0] ^= 1,
    ];
    let mut transcripts = std::collections::BTreeSet::new();
    for change in changes {
        let (mut binding, mut offer, mut answer) = (binding(), offer(), answer());
        change(&mut binding, &mut offer, &mut answer);
        transcripts.insert(binding.transcript(&offer, &answer));
    }
    assert_eq!(transcripts.len(), changes.len());
}
