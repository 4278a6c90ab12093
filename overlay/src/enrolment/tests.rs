//! A newcomer and a login server, with a model of the sealing between them.

use ed25519_dalek::SigningKey;

use super::*;
use crate::document::{Candidate, CandidateKind, NatClass, Roles, Whereabouts};
use crate::login::tests::{Founder, NOW, key, node, once};
use crate::tunnel::SharedTunnel;

/// Sealing that seals nothing: the addressee and the purpose in clear, and as many bytes as HPKE adds.
struct Model(TunnelKey);

impl Crypto for Model {
    fn public(&self) -> TunnelKey {
        self.0
    }
    fn tunnel(&mut self, _: &TunnelKey, _: u32) -> SharedTunnel {
        unreachable!("enrolment has no tunnels")
    }
    fn initiator(&mut self, _: &[u8]) -> Option<TunnelKey> {
        None
    }
    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        [&to.0[..], &[purpose as u8; 16], plaintext].concat()
    }
    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        let rest = sealed.strip_prefix(&self.0.0)?;
        rest.strip_prefix(&[purpose as u8; 16]).map(<[u8]>::to_vec)
    }
}

const DOOR: TunnelKey = TunnelKey([50; 32]);
const NEWCOMER: TunnelKey = TunnelKey([51; 32]);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn now(ms: u64) -> Now {
    let elapsed = Duration::from_millis(ms);
    Now { instant: Instant::from_start(elapsed), unix: NOW + elapsed }
}

/// A login server at a door.
struct Story {
    founder: Founder,
    server: LoginServer,
    contact: Contact,
    crypto: Model,
}

impl Story {
    fn new() -> Self {
        let founder = Founder::usual();
        let mut server = founder.server([]);
        server.invite(&once(), [1; 16], NOW).unwrap();
        let label = frejus_ipam::Label::parse("s").unwrap();
        let (credential, _) = server.issue_own(&label, Roles::ALL, NOW).unwrap();
        let contact = contact(&founder, credential, 3);
        Self { founder, server, contact, crypto: Model(DOOR) }
    }

    fn code(&self) -> Code {
        let door =
            Door { tunnel_key: DOOR, addresses: vec![at("203.0.113.5:51860"), at("[2001:db8::5]:51860")] };
        Code {
            network: self.founder.network.id,
            secret: [1; 16],
            doors: vec![door],
            network_name: "mymed".to_owned(),
            expires: NOW + Duration::from_secs(86_400),
        }
    }

    fn newcomer(&self) -> Enrolment {
        Enrolment::new(&self.code(), key(1), NEWCOMER, Some("a".to_owned()))
    }

    /// What the server sends back to a frame.
    fn answer(&mut self, request: &[u8], unix: UnixTime) -> Option<Vec<u8>> {
        let Some(Frame::EnrolRequest(sealed)) = classify(request) else { return None };
        let genesis = &self.founder.genesis;
        let (bytes, _) = answer(&mut self.server, genesis, &self.contact, sealed, &mut self.crypto, unix)?;
        assert!(bytes.len() <= request.len(), "{} answer {}", bytes.len(), request.len());
        Some(bytes)
    }
}

fn contact(founder: &Founder, credential: Credential, candidates: usize) -> Contact {
    let candidate = Candidate { kind: CandidateKind::Host, at: at("[2001:db8::5]:51860") };
    let whereabouts = Whereabouts {
        node: node(100),
        sequence: 1,
        tunnel_key: DOOR,
        candidates: vec![candidate; candidates],
        homes: vec![],
        directory: vec![at("203.0.113.5:51861"), at("[2001:db8::5]:51861")],
        nat: NatClass::Open,
        issued: NOW,
        expires: NOW + Duration::from_secs(600),
    };
    Contact { credential, whereabouts: Signed::new(&whereabouts, &founder.network.id, &founder.key) }
}

fn drain(newcomer: &mut Enrolment) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| newcomer.poll_output()).collect()
}

/// Requests as they go out when nobody answers, each with its time in milliseconds.
fn run_unanswered(newcomer: &mut Enrolment) -> Vec<(u64, usize)> {
    let (mut sent, mut last) = (Vec::new(), None);
    while let Some(due) = newcomer.poll_timeout() {
        assert!(last.is_none_or(|last| due > last), "after a timeout the next deadline is later");
        let ms = u64::try_from(due.since_start().as_millis()).unwrap();
        newcomer.handle_timeout(now(ms), &mut Model(NEWCOMER));
        sent.push((ms, drain(newcomer).len()));
        last = Some(due);
    }
    sent
}

#[test]
fn a_newcomer_is_let_in_within_a_round_trip() {
    let mut story = Story::new();
    let mut newcomer = story.newcomer();
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    assert_eq!(newcomer.poll_timeout(), Some(Instant::ZERO), "queued output means now");
    let sent = drain(&mut newcomer);
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), story.code().doors[0].addresses);
    assert!(sent[0].1.len() <= 1372, "fits the smallest IPv6 path with room: {}", sent[0].1.len());
    let answers: Vec<_> = sent.iter().map(|(to, bytes)| (*to, story.answer(bytes, NOW).unwrap())).collect();
    assert_eq!(answers[0].1, answers[1].1, "the second copy burns nothing");
    for (from, bytes) in answers {
        newcomer.handle_datagram(from, &bytes, now(40), &mut Model(NEWCOMER));
    }
    let enrolled = newcomer.outcome().unwrap().unwrap();
    assert_eq!(enrolled.member.passport.node, node(1));
    assert_eq!(enrolled.member.passport.name, "a");
    assert_eq!(enrolled.contact, story.contact);
    assert_eq!(enrolled.genesis, story.founder.genesis);
    assert_eq!(newcomer.poll_timeout(), None);
}

#[test]
fn silence_is_reported_with_the_addresses() {
    let mut newcomer = Story::new().newcomer();
    let sent = run_unanswered(&mut newcomer);
    let mut expected = vec![(0, 2), (300, 2), (900, 2), (2100, 2)];
    expected.extend((3300..15_000).step_by(1200).map(|at| (at, 2)));
    expected.push((15_000, 0));
    assert_eq!(sent, expected);
    let error = newcomer.outcome().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no answer from 203.0.113.5:51860, [2001:db8::5]:51860");
}

/// Enrol with a clock that is `ahead` and return the error.
fn wrong_clock(ahead_s: i64) -> EnrolError {
    let mut story = Story::new();
    let mut newcomer = story.newcomer();
    let theirs = Now { unix: UnixTime(NOW.0.checked_add_signed(ahead_s).unwrap()), ..now(0) };
    newcomer.handle_timeout(theirs, &mut Model(NEWCOMER));
    let (to, request) = newcomer.poll_output().unwrap();
    let answer = story.answer(&request, NOW).unwrap();
    newcomer.handle_datagram(to, &answer, theirs, &mut Model(NEWCOMER));
    newcomer.outcome().unwrap().unwrap_err()
}

#[test]
fn a_clock_that_is_wrong_by_a_day_is_named() {
    assert_eq!(wrong_clock(86_400).to_string(), "the clock of this machine is 24 h fast");
    assert_eq!(wrong_clock(-86_400 * 365), EnrolError::Clock { ahead_s: -86_400 * 365 });
}

#[test]
fn documents_of_another_time_are_the_clocks_fault() {
    for ahead in [-86_400_i64, 86_400 * 40] {
        let mut story = Story::new();
        let mut newcomer = story.newcomer();
        newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
        let (to, request) = newcomer.poll_output().unwrap();
        let answer = story.answer(&request, NOW).unwrap();
        let jumped = Now { unix: UnixTime(NOW.0.checked_add_signed(ahead).unwrap()), ..now(1) };
        newcomer.handle_datagram(to, &answer, jumped, &mut Model(NEWCOMER));
        assert_eq!(newcomer.outcome().unwrap().unwrap_err(), EnrolError::Clock { ahead_s: ahead });
    }
}

#[test]
fn a_used_code_is_refused_at_once() {
    let mut story = Story::new();
    let mut other = Enrolment::new(&story.code(), key(2), NEWCOMER, None);
    other.handle_timeout(now(0), &mut Model(NEWCOMER));
    story.answer(&other.poll_output().unwrap().1, NOW).unwrap();
    let mut newcomer = story.newcomer();
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    let (to, request) = newcomer.poll_output().unwrap();
    let answer = story.answer(&request, NOW).unwrap();
    newcomer.handle_datagram(to, &answer, now(1), &mut Model(NEWCOMER));
    assert_eq!(newcomer.outcome().unwrap().unwrap_err(), EnrolError::Refused(Refusal::UsedCode));
}

#[test]
fn one_door_that_does_not_know_the_code_is_not_the_last_word() {
    let mut story = Story::new();
    let mut code = story.code();
    code.doors.push(Door { tunnel_key: TunnelKey([60; 32]), addresses: vec![at("192.0.2.1:1")] });
    let refused = |crypto: &mut Model| {
        let refused = Answer::Refused(Refusal::UnknownCode).encode();
        frame(ENROL_ANSWER, &crypto.seal_to(&NEWCOMER, Purpose::EnrolAnswer, &refused))
    };
    let mut newcomer = Enrolment::new(&code, key(1), NEWCOMER, None);
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    let (to, request) = newcomer.poll_output().unwrap();
    newcomer.handle_datagram(at("192.0.2.1:1"), &refused(&mut story.crypto), now(1), &mut Model(NEWCOMER));
    assert!(newcomer.outcome().is_none());
    let answer = story.answer(&request, NOW).unwrap();
    newcomer.handle_datagram(to, &answer, now(2), &mut Model(NEWCOMER));
    assert!(newcomer.outcome().unwrap().is_ok());

    let mut newcomer = Enrolment::new(&code, key(1), NEWCOMER, None);
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    for from in [at("192.0.2.1:1"), to] {
        newcomer.handle_datagram(from, &refused(&mut story.crypto), now(1), &mut Model(NEWCOMER));
    }
    assert_eq!(newcomer.outcome().unwrap().unwrap_err(), EnrolError::Refused(Refusal::UnknownCode));
}

/// The error when the answer is of `network`'s genesis, with a passport for `holder`.
fn forged(other_network: bool, holder: u8) -> EnrolError {
    let mut story = Story::new();
    let founder =
        if other_network { Founder::new("10.94.0.0/16", PATIENCE, PATIENCE) } else { Founder::usual() };
    let (holder_key, tunnel_key): (SigningKey, _) = (key(holder), NEWCOMER);
    let request = Request::new(&story.founder.network.id, &holder_key, tunnel_key, None, [1; 16], NOW);
    let (credential, _) = story.server.enrol(&request, NOW).unwrap();
    let welcome = Answer::Welcome { genesis: founder.genesis, credential, contact: story.contact.clone() };
    let sealed = story.crypto.seal_to(&NEWCOMER, Purpose::EnrolAnswer, &welcome.encode());
    let mut newcomer = story.newcomer();
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    newcomer.handle_datagram(at("192.0.2.9:9"), &frame(ENROL_ANSWER, &sealed), now(1), &mut Model(NEWCOMER));
    assert!(newcomer.outcome().is_none(), "an answer that does not hold does not end the asking");
    drain(&mut newcomer);
    run_unanswered(&mut newcomer);
    newcomer.outcome().unwrap().unwrap_err()
}

#[test]
fn another_network_and_anothers_passport_are_refused() {
    assert_eq!(forged(true, 1), EnrolError::Invalid(Invalid::Foreign));
    assert_eq!(forged(false, 2), EnrolError::Invalid(Invalid::Subject));
}

#[test]
fn the_server_is_silent_on_what_it_cannot_authenticate() {
    let mut story = Story::new();
    let mut newcomer = story.newcomer();
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    let request = newcomer.poll_output().unwrap().1;
    for cut in [0, 4, 60, request.len() - 49] {
        assert_eq!(story.answer(&request[..cut], NOW), None, "unpadded: {cut}");
    }
    let mut altered = request.clone();
    altered[4 + 48 + 3] ^= 1;
    assert_eq!(story.answer(&altered, NOW), None, "not signed by the node that it names");
    let stranger = Request::new(&NetworkId([9; 32]), &key(1), NEWCOMER, None, [1; 16], NOW).encode();
    let sealed = story.crypto.seal_to(&DOOR, Purpose::EnrolRequest, &stranger);
    assert_eq!(story.answer(&frame(ENROL_REQUEST, &sealed), NOW), None, "for another network");
    let sealed = story.crypto.seal_to(&DOOR, Purpose::Knock, &stranger);
    assert_eq!(story.answer(&frame(ENROL_REQUEST, &sealed), NOW), None, "sealed for another purpose");
    assert!(story.answer(&request, NOW).is_some());
}

#[test]
fn a_super_peer_with_many_addresses_fits_into_an_answer() {
    let mut story = Story::new();
    let credential = story.contact.credential.clone();
    story.contact = contact(&story.founder, credential, Whereabouts::MAX_CANDIDATES);
    let mut newcomer = Enrolment::new(&story.code(), key(1), NEWCOMER, Some("x".repeat(63)));
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    let (to, request) = newcomer.poll_output().unwrap();
    let answer = story.answer(&request, NOW).unwrap();
    newcomer.handle_datagram(to, &answer, now(1), &mut Model(NEWCOMER));
    assert_eq!(newcomer.outcome().unwrap().unwrap().member.passport.name.len(), 63);
}

#[test]
fn a_contact_that_does_not_fit_burns_no_code() {
    let mut story = Story::new();
    let small = story.contact.clone();
    let credential = small.credential.clone();
    story.contact = contact(&story.founder, credential, Whereabouts::MAX_CANDIDATES);
    story.contact.whereabouts =
        Signed::from_bytes([story.contact.whereabouts.as_bytes(), &[0; 300]].concat());
    let mut newcomer = story.newcomer();
    newcomer.handle_timeout(now(0), &mut Model(NEWCOMER));
    let request = newcomer.poll_output().unwrap().1;
    assert_eq!(story.answer(&request, NOW), None);
    story.contact = small;
    let mut other = Enrolment::new(&story.code(), key(2), NEWCOMER, None);
    other.handle_timeout(now(0), &mut Model(NEWCOMER));
    let (to, request) = other.poll_output().unwrap();
    let answer = story.answer(&request, NOW).unwrap();
    other.handle_datagram(to, &answer, now(1), &mut Model(NEWCOMER));
    assert!(other.outcome().unwrap().is_ok(), "the code was still good");
}
