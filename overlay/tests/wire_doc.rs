//! The bytes that docs/wire.md shows are the bytes that the code makes.
//!
//! Owns: one example of everything that travels. Every fenced block ```` ```hex NAME ```` of the document is read (what
//! stands behind a `#` is for people) and compared; a block without an example here, or an example without a block,
//! fails as well. Never: what the bytes mean.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use frejus_overlay::code::{Code, Door};
use frejus_overlay::doctor::{Side, Tried};
use frejus_overlay::document::{
    Candidate, CandidateKind, Contact, Credential, Document, Genesis, Grant, NatClass, Network, Passport,
    Roles, Signed, Whereabouts,
};
use frejus_overlay::guess::{Ports, Window};
use frejus_overlay::id::{NetworkId, NodeId, RecordKey, Subject, TunnelKey};
use frejus_overlay::locator::Channel;
use frejus_overlay::login::Digest;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::record::Record;
use frejus_overlay::stun::Errand;
use frejus_overlay::timing::UnixTime;
use frejus_overlay::tunnel::Purpose;
use frejus_overlay::wire;
use frejus_overlay::wire::control::{self, Message};
use frejus_overlay::wire::enrol;
use frejus_overlay::wire::part;
use frejus_overlay::wire::stream;

const DOCUMENT: &str = include_str!("../../docs/wire.md");

/// 1 January 2027, 00:00 UTC.
const T: UnixTime = UnixTime(1_798_761_600);

const DAY: u64 = 86_400;

type Examples = BTreeMap<&'static str, Vec<u8>>;

/// Key pairs whose seeds are one byte repeated: 1 signs for the network, 2 is S, 3 is A.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn node(seed: u8) -> NodeId {
    NodeId(key(seed).verifying_key().to_bytes())
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn genesis() -> Signed<Genesis> {
    let genesis = Genesis {
        name: "mymed".to_owned(),
        prefix4: "10.93.0.0/16".parse().expect("a prefix"),
        key: node(1),
        created: T,
        passport_life_s: 30 * 86_400,
    };
    genesis.sign(&key(1))
}

fn network() -> NetworkId {
    genesis().network()
}

fn grant() -> Signed<Grant> {
    let grant = Grant {
        node: node(2),
        roles: Roles::ALL,
        block: "10.93.0.0/16".parse().expect("a prefix"),
        serial: 1,
        not_before: T,
        not_after: UnixTime(T.0 + 3650 * DAY),
    };
    Signed::new(&grant, &network(), &key(1))
}

fn passport() -> Signed<Passport> {
    let passport = Passport {
        node: node(3),
        name: "a".to_owned(),
        roles: Roles::PEER,
        address4: Ipv4Addr::new(10, 93, 4, 7),
        routes: Vec::new(),
        serial: 2,
        not_before: T,
        not_after: UnixTime(T.0 + 30 * DAY),
        issuer: node(2),
    };
    Signed::new(&passport, &network(), &key(2))
}

fn whereabouts() -> Signed<Whereabouts> {
    let whereabouts = Whereabouts {
        node: node(3),
        sequence: 5,
        tunnel_key: TunnelKey([9; 32]),
        candidates: vec![
            Candidate { kind: CandidateKind::Reflexive, at: at("203.0.113.10:51860") },
            Candidate { kind: CandidateKind::Host, at: at("[2001:db8::7]:51860") },
        ],
        homes: vec![node(2)],
        directory: Vec::new(),
        nat: NatClass::Unknown,
        issued: T,
        expires: UnixTime(T.0 + 900),
    };
    Signed::new(&whereabouts, &network(), &key(3))
}

/// Documents of two bytes, so that what stands around them can be seen.
fn short_credential() -> Credential {
    Credential { grant: Signed::from_bytes(vec![0xa1, 0xa2]), passport: Signed::from_bytes(vec![0xb1, 0xb2]) }
}

fn short_contact() -> Contact {
    Contact { credential: short_credential(), whereabouts: Signed::from_bytes(vec![0xc1, 0xc2]) }
}

fn messages() -> Vec<(&'static str, Message)> {
    let channel = Channel(0x0123_4567_89ab_cdef);
    let candidates = vec![Candidate { kind: CandidateKind::Host, at: at("192.168.10.2:51860") }];
    let sealed = vec![0xe1, 0xe2];
    let ip = at("203.0.113.10:51860").ip();
    let (credential, contact) = (short_credential(), short_contact());
    let seen = Some(at("203.0.113.10:51860"));
    let whereabouts = Some(Signed::from_bytes(vec![0xc1, 0xc2]));
    let subject = Subject::Address4(Ipv4Addr::new(10, 93, 4, 7));
    vec![
        ("probe", Message::Probe { token: 300 }),
        ("probe-ack", Message::ProbeAck { token: 300, seen }),
        ("candidates", Message::Candidates { candidates, answer: true, ports: Ports::Counted(-1) }),
        ("lookup", Message::Lookup { id: 7, subject }),
        ("lookup-answer", Message::LookupAnswer { id: 7, credential: Some(credential.clone()), whereabouts }),
        ("publish", Message::Publish { contact: contact.clone() }),
        ("published", Message::Published { sequence: 5 }),
        ("knock", Message::Knock { to: NodeId([4; 32]), channel, sealed: sealed.clone() }),
        ("knocked", Message::Knocked { channel, sealed }),
        ("channel", Message::Channel { channel, with: NodeId([4; 32]) }),
        ("refused", Message::Refused { channel, why: control::Refusal::Taken }),
        ("renew", Message::Renew),
        ("renewed", Message::Renewed { credential }),
        ("super-peers", Message::SuperPeers),
        ("super-peer", Message::SuperPeer { contact }),
        ("bye", Message::Bye),
        ("predicted", Message::Predicted(Window { ip, first: 40001, step: 1, count: 2 })),
        ("guess-offer", Message::GuessOffer { ip }),
        ("guess-agreed", Message::GuessAgreed),
    ]
}

/// What super peers are asked, and say, about addresses; what is said of a change.
fn further_messages() -> Vec<(&'static str, Message)> {
    let transaction = [7; 12];
    let to = at("203.0.113.10:40001");
    let channel = Channel(0x0123_4567_89ab_cdef);
    let reflected = control::Reflected::ByStranger;
    let side = Side {
        class: NatClass::PortRestricted,
        ports: Ports::Kept,
        external: vec![to],
        mapped: None,
        careless: true,
        udp: true,
        tried: vec![Tried { at: at("198.51.100.7:51860"), sent: 300, answered: 2, heard: 1 }],
    };
    vec![
        ("reflect", Message::Reflect { transaction, to, avoid: vec![NodeId([4; 32])] }),
        ("reflect-for", Message::ReflectFor { errand: Errand::plain(transaction), to }),
        ("reflected", Message::Reflected { transaction, reflected }),
        ("moved", Message::Moved { token: 300 }),
        ("load", Message::Load { nodes: 300, mbits: 40 }),
        ("examine", Message::Examine { id: 7 }),
        ("examined", Message::Examined { id: 7, side }),
        ("sight", Message::Sight { channel }),
        ("cross", Message::Cross { at: to, answer: true }),
        ("sighted", Message::Sighted { channel, at: Some(to.ip()) }),
        ("echo", Message::Echo { token: 300 }),
        ("echo-reply", Message::EchoReply { token: 300 }),
    ]
}

/// A whole inner packet: what a tunnel carries from A to S.
fn inner_packet() -> Vec<u8> {
    let payload = Message::Probe { token: 300 }.encode();
    let datagram = Udp6 {
        source: node(3).address6(&network()),
        destination: node(2).address6(&network()),
        source_port: control::PORT,
        destination_port: control::PORT,
        payload: &payload,
    };
    let mut packet = vec![0; 48 + payload.len()];
    let length = datagram.write(&mut packet).expect("there is room");
    packet.truncate(length);
    packet
}

fn frames() -> Vec<u8> {
    [wire::KNOCK, wire::ENROL_REQUEST, wire::ENROL_ANSWER, wire::STRANGER]
        .into_iter()
        .flat_map(|kind| wire::frame(kind, &[]))
        .collect()
}

fn enrolment(examples: &mut Examples) {
    let name = Some("b".to_owned());
    let request = enrol::Request::new(&network(), &key(3), TunnelKey([9; 32]), name, [0x5a; 16], T).encode();
    assert_eq!(request.len(), enrol::PADDED, "a request is padded");
    let padding = request.iter().rev().take_while(|byte| **byte == 0).count();
    examples.insert("enrol-request", request[..request.len() - padding].to_vec());
    let genesis = Signed::from_bytes(vec![0xd1, 0xd2]);
    let welcome =
        enrol::Answer::Welcome { genesis, credential: short_credential(), contact: short_contact() };
    examples.insert("enrol-welcome", welcome.encode());
    let clock = enrol::Answer::Refused(enrol::Refusal::Clock { ahead_s: -3600 });
    examples.insert("enrol-refused", clock.encode());
}

fn code() -> Code {
    Code {
        network: network(),
        secret: [0x5a; 16],
        doors: vec![Door { tunnel_key: TunnelKey([9; 32]), addresses: vec![at("203.0.113.101:51860")] }],
        network_name: "mymed".to_owned(),
        expires: UnixTime(T.0 + DAY),
    }
}

fn derivations(examples: &mut Examples) {
    let id = network();
    let a = node(3);
    examples.insert("network-id", id.0.to_vec());
    examples.insert("node-id", a.0.to_vec());
    examples.insert("address6", a.address6(&id).octets().to_vec());
    let keys = [
        ("key-address4", Subject::Address4(Ipv4Addr::new(10, 93, 4, 7))),
        ("key-address6", Subject::Address6(a.address6(&id))),
        ("key-name", Subject::Name("a".to_owned())),
        ("key-node", Subject::Node(a)),
    ];
    examples.extend(keys.map(|(name, subject)| (name, RecordKey::passport(&id, &subject).0.to_vec())));
    examples.insert("key-whereabouts", RecordKey::whereabouts(&id, &a).0.to_vec());
    examples.insert("invitation-digest", Digest::of(&id, &[0x5a; 16]).0.to_vec());
}

fn examples() -> Examples {
    let mut examples: Examples =
        messages().into_iter().chain(further_messages()).map(|(name, m)| (name, m.encode())).collect();
    examples.insert("relay-header", wire::relay_header(Channel(0x0123_4567_89ab_cdef)).to_vec());
    examples.insert("frames", frames());
    let header = stream::Header::new(64, 32).expect("a run of two");
    examples.insert("stream", [&stream::PREFACE[..], &header.encode()].concat());
    examples.insert("inner-packet", inner_packet());
    let probe = Message::Probe { token: 300 };
    examples.insert("padded-probe", probe.padded(8));
    examples.insert("part", part::split(&probe.encode(), 7, 0x1234).remove(1));
    examples.insert("genesis", genesis().as_bytes().to_vec());
    examples.insert("grant", grant().as_bytes().to_vec());
    examples.insert("passport", passport().as_bytes().to_vec());
    examples.insert("whereabouts", whereabouts().as_bytes().to_vec());
    examples.insert("record-passport", Record::Passport(short_credential()).encode());
    examples.insert("record-whereabouts", Record::Whereabouts(short_contact()).encode());
    examples.insert("code", code().reveal().into_bytes());
    enrolment(&mut examples);
    derivations(&mut examples);
    examples
}

/// The document's blocks by name. A block `text NAME` stands for its characters.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some((kind, name)) = line.strip_prefix("```").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let without_comments = body.iter().filter_map(|line| line.split('#').next());
        let joined: String = without_comments.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
        let bytes = match kind {
            "hex" => HEXLOWER.decode(joined.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}")),
            "text" => joined.into_bytes(),
            other => panic!("{name}: no block is of kind {other}"),
        };
        assert!(blocks.insert(name, bytes).is_none(), "two blocks are called {name}");
    }
    blocks
}

#[test]
fn the_document_shows_the_bytes_that_the_code_makes() {
    let (shown, made) = (blocks(), examples());
    let mut wrong: Vec<&str> = shown.keys().filter(|name| !made.contains_key(*name)).copied().collect();
    for (name, bytes) in &made {
        if shown.get(name) != Some(bytes) {
            println!("{name}:\n{}", HEXLOWER.encode(bytes));
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "docs/wire.md is wrong, or lacks a block, about {wrong:?}; see above");
}

#[test]
fn the_examples_are_what_they_say() {
    let genesis = genesis();
    let network = Network::new(&genesis).unwrap();
    let credential = Credential { grant: grant(), passport: passport() };
    let contact = Contact { credential, whereabouts: whereabouts() };
    let place = contact.verify(&network, T).expect("the chain holds");
    assert_eq!(place.passport.address4, Ipv4Addr::new(10, 93, 4, 7));
    for (name, message) in messages().into_iter().chain(further_messages()) {
        assert_eq!(Message::decode(&message.encode()), Some(message), "{name}");
    }
    assert_eq!(code().reveal().parse::<Code>(), Ok(code()));
}

#[test]
fn the_tables_name_every_domain_and_bound() {
    fn row<T: Document>(name: &str) -> String {
        format!("| {name} | {} | `{}` | {} |", T::KIND, T::DOMAIN, T::MAX)
    }
    let rows = [
        row::<Genesis>("genesis"),
        row::<Grant>("grant"),
        row::<Passport>("passport"),
        row::<Whereabouts>("whereabouts"),
    ];
    for row in rows {
        assert!(DOCUMENT.contains(&row), "docs/wire.md lacks the line {row}");
    }
    for purpose in [Purpose::Knock, Purpose::EnrolRequest, Purpose::EnrolAnswer] {
        let info = format!("`{}`", std::str::from_utf8(purpose.info()).unwrap());
        assert!(DOCUMENT.contains(&info), "docs/wire.md lacks the purpose {info}");
    }
}
