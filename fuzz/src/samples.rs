//! A small network with fixed keys, and one valid sample for every target.

use std::sync::OnceLock;

use ed25519_dalek::SigningKey;
use frejus_overlay::agreement::{Answer, Cipher, Cost, Fixed, KEM_CIPHERTEXT, KEM_KEY, Offer};
use frejus_overlay::code::{Code, Door};
use frejus_overlay::document::{
    Candidate, CandidateKind, Contact, Credential, Genesis, Grant, NatClass, Network, Passport, Roles,
    Signed, Whereabouts,
};
use frejus_overlay::guess::{Ports, Window};
use frejus_overlay::id::{NodeId, Subject, TunnelKey};
use frejus_overlay::locator::Channel;
use frejus_overlay::packet::protocol::{TCP, UDP};
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::packet::vnet::{Gso, VnetHeader};
use frejus_overlay::record::Record;
use frejus_overlay::stun::{self, Errand, Here, Port, Reaction};
use frejus_overlay::timing::UnixTime;
use frejus_overlay::wire::control::{Message, Reflected};
use frejus_overlay::wire::{self, enrol, part, stream};

/// When all of it is valid.
pub const NOW: UnixTime = UnixTime(1_800_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn node(seed: u8) -> NodeId {
    NodeId(key(seed).verifying_key().to_bytes())
}

fn genesis() -> Signed<Genesis> {
    let genesis = Genesis {
        name: "fuzz".to_owned(),
        prefix4: "10.9.0.0/16".parse().expect("a prefix"),
        key: node(1),
        created: NOW,
        passport_life_s: 86_400,
    };
    genesis.sign(&key(1))
}

/// The network all samples belong to.
pub fn network() -> &'static Network {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    NETWORK.get_or_init(|| Network::new(&genesis()).expect("a good genesis"))
}

fn contact() -> Contact {
    let id = network().id;
    let grant = Grant {
        node: node(2),
        roles: Roles::ALL,
        block: "10.9.0.0/16".parse().expect("a prefix"),
        serial: 1,
        not_before: NOW,
        not_after: UnixTime(NOW.0 + 1_000_000),
    };
    let passport = Passport {
        node: node(3),
        name: "a".to_owned(),
        roles: Roles::PEER,
        address4: "10.9.0.7".parse().expect("an address"),
        routes: Vec::new(),
        serial: 5,
        not_before: NOW,
        not_after: UnixTime(NOW.0 + 86_400),
        issuer: node(2),
    };
    let whereabouts = Whereabouts {
        node: node(3),
        sequence: 9,
        tunnel_key: TunnelKey([4; 32]),
        candidates: vec![Candidate {
            kind: CandidateKind::Host,
            at: "192.0.2.1:51860".parse().expect("an address"),
        }],
        homes: vec![node(2)],
        directory: Vec::new(),
        nat: NatClass::Unknown,
        issued: NOW,
        expires: UnixTime(NOW.0 + 900),
    };
    let credential = Credential {
        grant: Signed::new(&grant, &id, &key(1)),
        passport: Signed::new(&passport, &id, &key(2)),
    };
    Contact { credential, whereabouts: Signed::new(&whereabouts, &id, &key(3)) }
}

/// Valid inputs: target, name of the sample, bytes.
#[must_use]
pub fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let contact = contact();
    let credential = contact.credential.clone();
    let inner = [4, 0, 0, 0, 1, 2, 3, 4].into_iter().chain([0; 40]).collect::<Vec<u8>>();
    let message = |message: &Message| message.encode();
    let request = enrol::Request::new(&network().id, &key(3), TunnelKey([4; 32]), None, [5; 16], NOW);
    let welcome = enrol::Answer::Welcome {
        genesis: genesis(),
        credential: credential.clone(),
        contact: contact.clone(),
    };
    let code = Code {
        network: network().id,
        network_name: "fuzz".to_owned(),
        secret: [6; 16],
        doors: vec![Door {
            tunnel_key: TunnelKey([4; 32]),
            addresses: vec!["192.0.2.1:51860".parse().expect("an address")],
        }],
        expires: NOW,
    };
    let udp = Udp6 {
        source: "fd00::1".parse().expect("an address"),
        destination: "fd00::2".parse().expect("an address"),
        source_port: 51860,
        destination_port: 51860,
        payload: b"hello",
    };
    let mut datagram = vec![0; 53];
    let length = udp.write(&mut datagram).expect("room");
    datagram.truncate(length);
    let lookup = Message::Lookup { id: 7, subject: Subject::Name("b".to_owned()) };
    let (offer, answer) = halves();
    let header = |length, stride| stream::Header::new(length, stride).expect("it fits").encode();
    let mut all = vec![
        ("stream", "headers", [header(148, 148), header(65_507, 1312)].concat()),
        ("connect", "connected", b"HTTP/1.1 200 Connection established\r\nA: b\r\n\r\n".to_vec()),
        ("connect", "refused", b"HTTP/1.0 407 Who?\r\n\r\n<html>".to_vec()),
        ("classify", "relay", [&wire::relay_header(Channel(7)), inner.as_slice()].concat()),
        ("classify", "knock", wire::frame(wire::KNOCK, &[9; 64])),
        ("classify", "stranger", wire::frame(wire::STRANGER, &[])),
        ("control", "probe", message(&Message::Probe { token: 7 })),
        ("control", "lookup", message(&lookup)),
        ("control", "offer", message(&Message::Offer(offer))),
        ("control", "answer", message(&Message::Answer(answer))),
        ("control", "examine", message(&Message::Examine { id: 7 })),
        ("control", "echo", message(&Message::Echo { token: 7 })),
        ("control", "moved", message(&Message::Moved { token: 7 })),
        ("control", "load", message(&Message::Load { nodes: 7, mbits: 9 })),
        ("control", "sight", message(&Message::Sight { channel: Channel(7) })),
        ("control", "publish", message(&Message::Publish { contact: contact.clone() })),
        ("enrol", "request", request.encode()),
        ("enrol", "welcome", welcome.encode()),
        ("record", "passport", Record::Passport(credential.clone()).encode()),
        ("record", "whereabouts", Record::Whereabouts(contact.clone()).encode()),
        ("document", "genesis", genesis().as_bytes().to_vec()),
        ("document", "grant", credential.grant.as_bytes().to_vec()),
        ("document", "passport", credential.passport.as_bytes().to_vec()),
        ("document", "whereabouts", contact.whereabouts.as_bytes().to_vec()),
        ("code", "code", code.reveal().into_bytes()),
        ("packet", "udp6", datagram.clone()),
        ("segment", "udp6", [&[0; 10], datagram.as_slice()].concat()),
        ("segment", "udp6-partial", [&[1, 0, 0, 0, 0, 0, 40, 0, 6, 0], datagram.as_slice()].concat()),
        ("fragment", "udp6", [&[0, 56], datagram.as_slice()].concat()),
        ("part", "lookup", [&[9][..], &part::split(&message(&lookup), 9, 7).concat()].concat()),
        ("stun", "request", stun::request([7; 12])),
        ("stun", "answer", stun::answer([7; 12], "198.51.100.7:7".parse().expect("an address"))),
        ("control", "padded", Message::Probe { token: 7 }.padded(64)),
        ("coalesce", "udp6-partial", [&[13, 3], datagram.as_slice(), datagram.as_slice()].concat()),
        ("coalesce", "udp6", [&[13, 1], datagram.as_slice(), datagram.as_slice()].concat()),
    ];
    all.extend(about_addresses().map(|(name, said)| ("control", name, said.encode())));
    all.extend(super_packets());
    all.extend(router_words());
    all.extend(bindings());
    all
}

/// What is said about addresses that are tried, guessed at or looked at.
fn about_addresses() -> [(&'static str, Message); 9] {
    let to: std::net::SocketAddr = "198.51.100.7:40000".parse().expect("an address");
    let transaction = [7; 12];
    let candidates = vec![Candidate { kind: CandidateKind::Reflexive, at: to }];
    let window = Window { ip: to.ip(), first: 40_000, step: -1, count: 6 };
    [
        ("candidates", Message::Candidates { candidates, answer: true, ports: Ports::Counted(-1) }),
        ("predicted", Message::Predicted(window)),
        ("guess-offer", Message::GuessOffer { ip: to.ip() }),
        ("guess-agreed", Message::GuessAgreed),
        ("reflect", Message::Reflect { transaction, to, avoid: vec![node(2)] }),
        ("reflect-for", Message::ReflectFor { errand: Errand::plain(transaction), to }),
        ("reflected", Message::Reflected { transaction, reflected: Reflected::ByStranger }),
        ("cross", Message::Cross { at: to, answer: true }),
        ("sighted", Message::Sighted { channel: Channel(7), at: Some(to.ip()) }),
    ]
}

/// What a router that speaks UPnP says.
fn router_words() -> [(&'static str, &'static str, Vec<u8>); 3] {
    let answer = "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://192.168.1.1:5000/d.xml\r\n\r\n";
    let description = "<root><URLBase>http://192.168.1.1:80/</URLBase><device><service>\
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
        <controlURL>ctl?a=1&amp;b=2</controlURL></service></device></root>";
    let refusal = "<s:Fault><detail><u:UPnPError><errorCode>718</errorCode></u:UPnPError></detail></s:Fault>\
        <NewExternalIPAddress>198.51.100.7</NewExternalIPAddress>";
    [("igd", "answer", answer), ("igd", "description", description), ("igd", "refusal", refusal)]
        .map(|(target, name, text)| (target, name, text.as_bytes().to_vec()))
}

/// Requests of stock clients, and of one that asks for too much; and how they are answered.
fn bindings() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let head = |length| [0, 1, 0, length, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
    let change = [&head(8)[..], &[0, 3, 0, 4, 0, 0, 0, 2]].concat();
    let mut classic = [&head(8)[..], &[0, 3, 0, 4, 0, 0, 0, 0]].concat();
    classic[4..8].fill(9);
    let padded =
        [&head(20)[..], &[0, 0x26, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1, b'u', 0, 0, 0]].concat();
    let unknown = [&head(12)[..], &[0x7f, 0xff, 0, 0, 0, 0x27, 0, 4, 0, 80, 0, 0]].concat();
    let here = Here {
        address: Some("2001:db8::2".parse().expect("an address")),
        main: 51860,
        alternate: Some(51862),
        other: Some("2001:db8::3".parse().expect("an address")),
        is_ours: false,
        asked: Port::Main,
    };
    let from = "[2001:db8::1]:1".parse().expect("an endpoint");
    let answered = |request: &[u8]| match stun::respond(request, from, &here) {
        Some(Reaction::Answer { bytes, .. }) => bytes,
        _ => unreachable!("it can be answered"),
    };
    vec![
        ("stun", "success", answered(&change)),
        ("stun", "refusal", answered(&unknown)),
        ("stun", "success-classic", answered(&classic)),
        ("stun", "told", answered(&stun::request([7; 12]))),
        ("stun", "change", change),
        ("stun", "classic", classic),
        ("stun", "padded", padded),
        ("stun", "unknown", unknown),
    ]
}

/// A super-packet of three segments for each kind, and behind each other what it is cut into.
fn super_packets() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let kinds = [
        ("tcp4", "tcp4-partial", Gso::TcpV4, false, TCP),
        ("tcp6", "tcp6-partial", Gso::TcpV6, true, TCP),
        ("udp4-run", "udp4-run-partial", Gso::UdpL4, false, UDP),
        ("udp6-run", "udp6-run-partial", Gso::UdpL4, true, UDP),
    ];
    let mut all = Vec::new();
    for (name, partial_name, gso, v6, protocol) in kinds {
        let packet = super_packet(v6, protocol);
        let vnet = VnetHeader { gso, gso_size: 100, ..VnetHeader::default() };
        let mut segments = Segments::new(vnet, &packet, 1280).expect("well-formed");
        let mut parts = vec![u8::try_from(segments.stride() / 4).expect("short"), 1];
        let mut out = [0; 1280];
        while let Some(written) = segments.write_next(&mut out) {
            parts.extend_from_slice(&out[..written.expect("there is room")]);
        }
        let mut partial = parts.clone();
        partial[1] = 3;
        all.push(("coalesce", partial_name, partial));
        all.push(("coalesce", name, parts));
        all.push(("segment", name, [&vnet.encode()[..], &packet].concat()));
    }
    all
}

/// Headers, and 300 bytes.
fn super_packet(v6: bool, protocol: u8) -> Vec<u8> {
    let (ip, transport) = (if v6 { 40 } else { 20 }, if protocol == TCP { 20 } else { 8 });
    let mut packet = vec![0; ip + transport + 300];
    let length = |bytes: usize| u16::try_from(bytes).expect("short").to_be_bytes();
    if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&length(transport + 300));
        (packet[6], packet[7]) = (protocol, 64);
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length(ip + transport + 300));
        (packet[8], packet[9]) = (64, protocol);
    }
    let header = &mut packet[ip..];
    if protocol == TCP {
        // The header's length in words, and ACK.
        (header[12], header[13]) = (5 << 4, 0x10);
    } else {
        header[4..6].copy_from_slice(&length(transport + 300));
    }
    packet
}

/// What transport keys are agreed with. The halves are no keys, which a decoder does not know.
fn halves() -> (Offer, Answer) {
    let ciphers = Cipher::ALL.map(|cipher| Cost::new(cipher, 1000)).into();
    let (x25519, kem) = ([7; 32], Fixed(Box::new([8; KEM_KEY])));
    let offer = Offer { index: 0x8000_0101, x25519, kem, ciphers, has_keys: true };
    let kem = Fixed(Box::new([9; KEM_CIPHERTEXT]));
    (offer, Answer { offer: 0x8000_0101, index: 0x8000_0202, cipher: 2, x25519, kem })
}
