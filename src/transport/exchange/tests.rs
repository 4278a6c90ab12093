//! The known answer of docs/vectors, which other libraries made, and what an agreement must refuse.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use frejus_overlay::agreement::Party;
use frejus_overlay::id::{NetworkId, NodeId, TunnelKey};
use frejus_overlay::tunnel::{Content, HEADER, OVERHEAD, Opened};
use frejus_overlay::wire::control::Message;

use super::*;
use crate::transport::epoch::Epoch;

struct Vectors(BTreeMap<&'static str, Vec<u8>>);

impl Vectors {
    fn read() -> Self {
        let text = include_str!("../../../docs/vectors/transport-keys.txt");
        let line = |line: &'static str| line.split_once(" = ").expect("NAME = HEX");
        Self(text.lines().map(line).map(|(k, v)| (k, HEXLOWER.decode(v.as_bytes()).unwrap())).collect())
    }

    fn get(&self, name: &str) -> &[u8] {
        &self.0[name]
    }

    fn array(&self, name: &str) -> [u8; 32] {
        self.get(name).try_into().unwrap()
    }

    fn binding(&self) -> Binding {
        let party = |name| {
            let (node, key) = self.get(name).split_at(32);
            Party { node: NodeId(node.try_into().unwrap()), key: TunnelKey(key.try_into().unwrap()) }
        };
        let network = NetworkId(self.array("network"));
        Binding { network, offerer: party("offerer"), answerer: party("answerer") }
    }

    fn offer(&self) -> Offer {
        let Some(Message::Offer(offer)) = Message::decode(self.get("offer")) else { panic!("no offer") };
        offer
    }

    fn answer(&self, cipher: Cipher) -> Answer {
        let bytes = self.get(&format!("{}-answer", cipher.name()));
        let Some(Message::Answer(answer)) = Message::decode(bytes) else { panic!("no answer") };
        answer
    }

    fn secrets(&self) -> Secrets {
        let kem = DecapsulationKey::new(&ML_KEM_768, self.get("kem-key")).unwrap();
        Secrets { x25519: StaticSecret::from(self.array("offerer-x25519")), kem }
    }
}

#[test]
fn the_known_answer_of_the_key_schedule() {
    let (vectors, binding) = (Vectors::read(), Vectors::read().binding());
    let offer = vectors.offer();
    for cipher in Cipher::ALL {
        let named = |what: &str| vectors.get(&format!("{}-{what}", cipher.name()));
        let answer = vectors.answer(cipher);
        assert_eq!(answer.cipher, cipher.code());
        assert_eq!(binding.transcript(&offer, &answer), named("transcript"));
        let agreed = vectors.secrets().agree(&offer, &answer, &binding).unwrap();
        assert_eq!(agreed.seal.as_ref(), named("to-answerer"));
        assert_eq!(agreed.open.as_ref(), named("to-offerer"));
    }
}

#[test]
fn the_known_answers_of_both_exchanges() {
    let vectors = Vectors::read();
    let (ours, theirs) =
        (StaticSecret::from(vectors.array("offerer-x25519")), vectors.array("answerer-x25519"));
    let answer = vectors.answer(Cipher::Aes256Gcm);
    assert_eq!(PublicKey::from(&StaticSecret::from(theirs)).to_bytes(), answer.x25519);
    assert_eq!(PublicKey::from(&ours).to_bytes(), vectors.offer().x25519);
    assert_eq!(*diffie_hellman(&ours, &answer.x25519).unwrap(), vectors.array("x25519-secret"));
    let secret = vectors.secrets().kem.decapsulate(Ciphertext::from(&answer.kem.0[..])).unwrap();
    assert_eq!(secret.as_ref(), vectors.get("kem-secret"));
}

#[test]
fn the_known_answer_of_a_packet() {
    let vectors = Vectors::read();
    for cipher in Cipher::ALL {
        let key = |name: &str| Zeroizing::new(vectors.array(&format!("{}-{name}", cipher.name())));
        let agreed = |seal, open| Agreed { cipher, partial: true, seal: key(seal), open: key(open) };
        let (offerer, answerer) = (agreed("to-answerer", "to-offerer"), agreed("to-offerer", "to-answerer"));
        let (offerer, answerer) = (Epoch::new(offerer), Epoch::new(answerer));
        let packet: Vec<u8> = [0x45, 0, 0, 24].into_iter().chain(0..20).collect();
        let mut message = vec![0; packet.len() + OVERHEAD];
        for counter in 0..=5 {
            message[HEADER..HEADER + packet.len()].copy_from_slice(&packet);
            let index = vectors.answer(cipher).index;
            let sealed = offerer.seal(index, Content::Data, &mut message, packet.len());
            assert_eq!(sealed, Some(message.len()), "{counter}");
        }
        let known = vectors.get(&format!("{}-packet-5-to-answerer", cipher.name()));
        assert_eq!(HEXLOWER.encode(&message), HEXLOWER.encode(known));
        assert_eq!(answerer.open(&mut message), Opened::Packet(24));
        assert_eq!(message[HEADER..HEADER + 24], packet);
    }
}

fn binding() -> Binding {
    Vectors::read().binding()
}

fn offer_of(secrets: &Secrets) -> Offer {
    let (x25519, kem) = secrets.public().unwrap();
    Offer { index: 0x8000_0001, x25519, kem, ciphers: Vec::new(), has_keys: false }
}

#[test]
fn both_sides_have_the_same_keys_and_never_those_of_another_time() {
    let mut seen = std::collections::BTreeSet::new();
    for cipher in Cipher::ALL.into_iter().cycle().take(8) {
        let secrets = Secrets::generate().unwrap();
        let offer = offer_of(&secrets);
        let (answer, theirs) = answer(&offer, 0x8000_0002, cipher.code(), &binding()).unwrap();
        let ours = secrets.agree(&offer, &answer, &binding()).unwrap();
        assert_eq!((*ours.seal, *ours.open), (*theirs.open, *theirs.seal));
        assert!(seen.insert(*ours.seal) && seen.insert(*ours.open), "a key twice");
    }
}

#[test]
fn halves_that_are_none_are_refused() {
    let secrets = Secrets::generate().unwrap();
    let good = offer_of(&secrets);
    let answer_to = |offer: &Offer| answer(offer, 0x8000_0002, Cipher::Aes256Gcm.code(), &binding());
    // RFC 7748, section 6.1: with a point of small order the secret is zero, whoever asks.
    for x25519 in [[0; 32], core::array::from_fn(|n| u8::from(n == 0))] {
        assert!(answer_to(&Offer { x25519, ..good.clone() }).is_none());
        let (sound, _) = answer_to(&good).unwrap();
        assert!(secrets.agree(&good, &Answer { x25519, ..sound }, &binding()).is_none());
    }
    // FIPS 203, section 7.2: coefficients of 3329 and more are no encapsulation key.
    let mut bad = good.clone();
    bad.kem.0[..3].fill(0xff);
    assert!(answer_to(&bad).is_none());
}

#[test]
fn neither_exchange_alone_gives_the_keys() {
    let keys = |kem: u8, x25519: u8| schedule(&[kem; 32], &[x25519; 32], Cipher::Aes256Gcm, &[0; 32]);
    let both = keys(1, 2);
    for other in [keys(1, 3), keys(3, 2), keys(2, 1)] {
        assert!(other[0] != both[0] && other[1] != both[1] && other[0] != both[1]);
    }
}
