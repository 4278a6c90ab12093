//! Who says what when, with a tunnel that only counts.

use std::sync::Mutex;

use super::*;
use crate::agreement::{Cipher, Cost, Fixed, KEM_CIPHERTEXT, KEM_KEY, Party};
use crate::id::{NetworkId, NodeId, TunnelKey};
use crate::tunnel_model::Exclusive;

/// A tunnel whose sessions are numbered, and whose offers too.
#[derive(Default)]
struct Stub {
    session: Option<u64>,
    offers: u32,
    answers: u32,
    refuses: bool,
}

impl Exclusive for Stub {
    fn initiated(&self) -> Option<u64> {
        self.session
    }
    fn offer(&mut self, _: Instant) -> Option<Offer> {
        self.offers += 1;
        (!self.refuses).then(|| offer(self.offers))
    }
    fn answer(&mut self, offer: &Offer, _: &Binding, _: Instant) -> Option<Answer> {
        self.answers += 1;
        (!self.refuses).then(|| answer(offer.index, self.answers))
    }
    fn accept(&mut self, _: &Answer, _: &Binding, _: Instant) -> bool {
        !self.refuses
    }
}

fn offer(index: u32) -> Offer {
    let (x25519, kem) = ([1; 32], Fixed(Box::new([2; KEM_KEY])));
    Offer { index, x25519, kem, ciphers: vec![Cost::new(Cipher::Aes256Gcm, 1)], has_keys: false }
}

fn answer(offer: u32, index: u32) -> Answer {
    Answer { offer, index, cipher: 2, x25519: [3; 32], kem: Fixed(Box::new([4; KEM_CIPHERTEXT])) }
}

fn binding() -> Binding {
    let party = Party { node: NodeId([1; 32]), key: TunnelKey([2; 32]) };
    Binding { network: NetworkId([0; 32]), offerer: party, answerer: party }
}

fn at(millis: u64) -> Instant {
    Instant::from_start(Duration::from_millis(millis))
}

fn tunnel(session: Option<u64>) -> Mutex<Stub> {
    Mutex::new(Stub { session, ..Stub::default() })
}

#[test]
fn one_offer_for_each_session_that_we_initiated() {
    let mut agreement = Agreement::default();
    assert_eq!(agreement.begin(&tunnel(None), None, at(0)), None);
    let tunnel = tunnel(Some(1));
    assert_eq!(agreement.begin(&tunnel, None, at(0)), Some(Message::Offer(offer(1))));
    assert_eq!(agreement.begin(&tunnel, None, at(1)), None);
    tunnel.lock().unwrap().session = Some(2);
    assert_eq!(agreement.begin(&tunnel, None, at(2)), Some(Message::Offer(offer(2))));
    assert!(!agreement.on_answer(&tunnel, &answer(1, 9), &binding(), at(3)), "of the last session");
    assert!(agreement.on_answer(&tunnel, &answer(2, 9), &binding(), at(3)));
    assert!(!agreement.on_answer(&tunnel, &answer(2, 9), &binding(), at(3)), "once");
    assert_eq!(agreement.poll_timeout(), None);
}

#[test]
fn an_offer_is_repeated_five_times_in_all_and_slower_each_time() {
    let mut agreement = Agreement::default();
    let tunnel = tunnel(Some(1));
    agreement.begin(&tunnel, None, at(0));
    let mut sent = vec![0];
    while let Some(due) = agreement.poll_timeout() {
        assert_eq!(agreement.handle_timeout(due - Duration::from_millis(1)), None);
        if agreement.handle_timeout(due) == Some(Due::Repeat(Message::Offer(offer(1)))) {
            sent.push(due.since_start().as_millis() as u64);
        }
        assert!(agreement.poll_timeout().is_none_or(|next| next > due), "the third law");
    }
    assert_eq!(sent, [0, 250, 750, 1750, 3750]);
    assert!(agreement.has_failed());
    assert!(!agreement.on_answer(&tunnel, &answer(1, 9), &binding(), at(9000)), "too late");
    agreement.settle();
    assert!(!agreement.has_failed());
}

#[test]
fn a_slow_path_is_given_two_round_trips() {
    let mut agreement = Agreement::default();
    agreement.begin(&tunnel(Some(1)), Some(Duration::from_millis(600)), at(0));
    assert_eq!(agreement.poll_timeout(), Some(at(1200)));
}

#[test]
fn a_repeated_offer_gets_the_answer_that_it_got() {
    let mut agreement = Agreement::default();
    let tunnel = tunnel(None);
    let first = agreement.on_offer(&tunnel, &offer(5), &binding(), at(0));
    assert_eq!(first, Reply::Answer(Message::Answer(answer(5, 1))));
    assert_eq!(agreement.on_offer(&tunnel, &offer(5), &binding(), at(10)), first);
    assert_eq!(agreement.on_offer(&tunnel, &offer(6), &binding(), at(20)), Reply::TooSoon);
    let second = agreement.on_offer(&tunnel, &offer(6), &binding(), at(200));
    assert_eq!(second, Reply::Answer(Message::Answer(answer(6, 2))));
    let due = agreement.poll_timeout().expect("the answer is not kept for ever");
    assert_eq!(agreement.handle_timeout(due), None);
    assert_eq!(agreement.poll_timeout(), None);
    assert_eq!(agreement.on_offer(&tunnel, &offer(6), &binding(), due), Reply::Nothing);
    assert_eq!(tunnel.lock().unwrap().answers, 2, "keys are made once an offer");
}

#[test]
fn who_wants_no_keys_says_nothing() {
    let mut agreement = Agreement::default();
    let tunnel = Mutex::new(Stub { session: Some(1), refuses: true, ..Stub::default() });
    assert_eq!(agreement.begin(&tunnel, None, at(0)), None);
    assert_eq!(agreement.on_offer(&tunnel, &offer(5), &binding(), at(0)), Reply::Nothing);
    assert_eq!(agreement.poll_timeout(), None);
}

#[test]
fn packets_wait_for_keys_as_long_as_there_is_hope() {
    let mut agreement = Agreement::default();
    assert!(agreement.wait(at(0)) && agreement.wait(at(100)));
    let until = agreement.poll_timeout().unwrap();
    assert_eq!(until, at(8000), "counted from the first");
    assert_eq!(agreement.handle_timeout(until), Some(Due::Impatient));
    assert!(!agreement.wait(at(9000)), "no hope");
    agreement.begin(&tunnel(Some(2)), None, at(10_000));
    assert!(agreement.wait(at(10_000)), "a new session, a new hope");
}
