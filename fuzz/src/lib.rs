//! What must hold for any bytes at all: every decoder, by itself and with the encoder behind it.
//!
//! Owns: one function per target, and the fixed network they judge against. Never: the engine; the same functions are
//! replayed over the corpus by an ordinary test.
#![forbid(unsafe_code)]

pub mod samples;

use std::net::{Ipv4Addr, SocketAddr};

use frejus_overlay::code::Code;
use frejus_overlay::document::{Genesis, Grant, Passport, Signed, Whereabouts};
use frejus_overlay::id::RecordKey;
use frejus_overlay::igd::{self, Place, Service};
use frejus_overlay::packet::checksum::Sum;
use frejus_overlay::packet::coalesce::{Coalescer, Output};
use frejus_overlay::packet::fragment::{Oversize, oversize};
use frejus_overlay::packet::icmp::{self, Unreachable};
use frejus_overlay::packet::partial::{self, Checksum};
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::packet::vnet::{self, Gso, VnetHeader};
use frejus_overlay::packet::{IpPacket, protocol};
use frejus_overlay::pcp;
use frejus_overlay::record::{self, Record};
use frejus_overlay::stun::{self, Here, Port, Reaction};
use frejus_overlay::wire::connect;
use frejus_overlay::wire::control::Message;
use frejus_overlay::wire::enrol;
use frejus_overlay::wire::part::{Assembly, Part};
use frejus_overlay::wire::stream::Header;
use frejus_overlay::wire::{self, Frame};

/// A target: its name, which is also its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("classify", classify),
    ("control", control),
    ("enrol", enrol),
    ("record", record),
    ("document", document),
    ("code", code),
    ("packet", packet),
    ("segment", segment),
    ("coalesce", coalesce),
    ("fragment", fragment),
    ("part", part),
    ("igd", igd),
    ("stream", stream),
    ("connect", connect),
    ("stun", stun),
];

/// Datagrams: a relay frame's inside is shorter than the frame, and its header is rebuilt bit by bit.
pub fn classify(data: &[u8]) {
    if let Some(Frame::Relay(channel, inner)) = wire::classify(data) {
        assert_eq!([&wire::relay_header(channel), inner].concat(), data);
        let _ = wire::classify(inner);
    }
}

/// Control messages: what is read is written again as it was meant.
pub fn control(data: &[u8]) {
    if let Some(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Some(&message));
    }
}

/// Enrolment: requests and answers.
pub fn enrol(data: &[u8]) {
    if let Some(request) = enrol::Request::decode(data) {
        let _ = request.is_authentic(&samples::network().id);
        assert!(enrol::Request::decode(&request.encode()).as_ref() == Some(&request));
    }
    if let Some(answer) = enrol::Answer::decode(data) {
        assert_eq!(enrol::Answer::decode(&answer.encode()).as_ref(), Some(&answer));
    }
}

/// Directory records: nothing that the fuzzer can make is signed by the network's key, so nothing of it may pass
/// but the samples.
pub fn record(data: &[u8]) {
    if let Ok(record) = Record::decode(data) {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
    }
    let checked = record::check(samples::network(), &RecordKey([7; 32]), data, samples::NOW);
    assert!(checked.is_err(), "a record under a key that is nobody's");
}

/// Documents: an envelope that was altered never opens.
pub fn document(data: &[u8]) {
    let network = samples::network();
    let genesis = Signed::<Genesis>::from_bytes(data.to_vec());
    let _ = genesis.claim().map(|claim| (claim.passport_life(), genesis.verify(&network.id).is_ok()));
    let grant = Signed::<Grant>::from_bytes(data.to_vec());
    let _ = grant.verify(network, samples::NOW);
    let _ = Signed::<Passport>::from_bytes(data.to_vec()).claim();
    let _ = Signed::<Whereabouts>::from_bytes(data.to_vec()).claim();
}

/// STUN: requests to a server with everything, and answers to our own.
pub fn stun(data: &[u8]) {
    let ip = |last| Some(Ipv4Addr::new(203, 0, 113, last).into());
    let here = Here {
        address: ip(1),
        main: 51860,
        alternate: Some(51862),
        other: ip(2),
        is_ours: true,
        asked: Port::Main,
    };
    let from = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), 7));
    if let Some(Reaction::Answer { bytes, .. }) = stun::respond(data, from, &here) {
        assert!(bytes.len() <= data.len() + 56, "an answer is bounded by its question");
        assert!(stun::respond(&bytes, from, &here).is_none(), "an answer is never answered");
    }
    if let Some(answer) = stun::Answer::read(data) {
        let again = stun::Answer::read(&stun::answer(answer.transaction, answer.mapped));
        assert_eq!(again.map(|again| again.mapped), Some(answer.mapped));
    }
    let _ = (stun::is_classic(data), stun::transaction_of_request(data));
}

/// Codes: what people type.
pub fn code(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(code) = text.parse::<Code>()
    {
        assert!(code.reveal().parse::<Code>().is_ok_and(|again| again == code));
    }
}

/// IP packets: accessors, answers to them, control datagrams, checksums filled in.
pub fn packet(data: &[u8]) {
    if let Ok(packet) = IpPacket::parse(data) {
        assert!(packet.bytes().len() <= data.len());
        let _ = (packet.source(), packet.destination(), packet.ports(), packet.transport(), packet.ecn());
    }
    let mut out = [0; icmp::LONGEST];
    for from in ["10.1.0.1", "fd00::1"] {
        let from = from.parse().expect("an address");
        let _ = icmp::unreachable(data, from, Unreachable::Host, &mut out);
        let _ = icmp::too_big(data, from, 1280, &mut out);
    }
    let _ = Udp6::parse(data);
    let mut whole = data.to_vec();
    if partial::complete(&mut whole).is_ok() {
        let packet = IpPacket::parse(&whole).expect("it was completed");
        let (protocol, part) = (packet.protocol(), packet.payload());
        let addresses = if packet.is_v6() { &whole[8..40] } else { &whole[12..20] };
        assert!(Sum::pseudo(addresses, protocol, part.len()).bytes(part).is_intact());
    }
}

/// Super-packets from the TUN device: every segment fits and parses, and may be completed as well here as there.
pub fn segment(data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk::<{ vnet::LENGTH }>() else { return };
    let Some(header) = VnetHeader::decode(header) else { return };
    let (mut out, mut other) = (vec![0; 65_535], vec![0; 65_535]);
    for path in [576, 1280, 9000, 65_535] {
        let Ok(mut segments) = Segments::new(header, packet, path) else { continue };
        let (count, stride) = (segments.count(), segments.stride());
        let (mut left, mut written) = (segments, 0);
        while let Some(told) = segments.next_len() {
            let room = &mut out[..told];
            let length = segments.write_next(room).expect("told").expect("there is as much room as was told");
            assert!(length == told && length <= stride, "{length} of {told} and {stride}");
            assert!(IpPacket::parse(&out[..length]).is_ok());
            if left.checksum() == Checksum::Partial {
                let length =
                    left.write_next_as(Checksum::Partial, &mut other).expect("as many").expect("room");
                partial::complete(&mut other[..length]).expect("what may be left can be completed");
                // A single packet's own field may lie; here it counts, there it does not.
                assert!(header.gso == Gso::None || other[..length] == out[..told]);
            }
            written += 1;
        }
        assert_eq!((written, segments.write_next(&mut out)), (count, None));
    }
}

/// Packets for the TUN device: what is joined comes apart into what it was made of. The first two bytes cut the rest
/// up, and say of all whether their checksums are partial.
pub fn coalesce(data: &[u8]) {
    let [step, udp, arena @ ..] = data else { return };
    let step = usize::from(*step).max(1) * 4;
    let checksum = if udp / 2 % 2 == 1 { Checksum::Partial } else { Checksum::Complete };
    let mut coalescer = Coalescer::new(64, udp % 2 == 1);
    let mut at = 0;
    while at < arena.len() {
        let end = (at + step).min(arena.len());
        let _ = coalescer.push_as(checksum, arena, at..end);
        at = end;
    }
    for output in coalescer.outputs(arena) {
        let length: usize = output.slices().map(<[u8]>::len).sum();
        assert!(output.header().len() + length <= vnet::LENGTH + 65_535);
        if output.count() > 1 || checksum == Checksum::Partial {
            comes_apart(&output);
            output.singles().for_each(|single| comes_apart(&single));
        }
    }
}

/// Cut again, a joined packet is its parts, but for what means nothing: the identification of what is never fragmented
/// (RFC 6864, section 4.1), and the checksum: which of the two zeros of one's complement it is, or what stands in its
/// place while it is partial.
fn comes_apart(output: &Output<'_>) {
    let mut whole = output.header().to_vec();
    output.slices().for_each(|slice| whole.extend_from_slice(slice));
    let (header, packet) = whole.split_first_chunk().expect("the device's header is in front");
    let header = VnetHeader::decode(header).expect("a kind that we know");
    let mut segments = Segments::new(header, packet, 65_535).expect("what was joined can be cut");
    assert_eq!(segments.count(), output.count());
    let mut out = vec![0; 65_535];
    for part in output.packets() {
        let length = segments.write_next(&mut out).expect("as many").expect("there is room");
        assert_eq!(meaning(&out[..length]), meaning(part));
    }
}

fn meaning(packet: &[u8]) -> Vec<u8> {
    let parsed = IpPacket::parse(packet).expect("it was taken");
    let start = packet.len() - parsed.payload().len();
    let checksum = start + if parsed.protocol() == protocol::TCP { 16 } else { 6 };
    let mut packet = parsed.bytes().to_vec();
    packet[checksum..checksum + 2].fill(0);
    if !parsed.is_v6() {
        packet[10..12].fill(0);
        if packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
        }
    }
    packet
}

/// Packets longer than their path takes, which is what the first two bytes say: each piece parses and fits.
pub fn fragment(data: &[u8]) {
    let [high, low, packet @ ..] = data else { return };
    let mtu = u16::from_be_bytes([*high, *low]);
    let Ok(packet) = IpPacket::parse(packet) else { return };
    let Oversize::Fragments(mut fragments) = oversize(&packet, mtu, 7) else { return };
    let mut out = vec![0; usize::from(mtu)];
    while let Some(piece) = fragments.write_next(&mut out) {
        let length = piece.expect("a piece fits the path");
        assert!(IpPacket::parse(&out[..length]).is_ok());
    }
}

/// Headers of a stream's records: what is read is written again as it was, and promises no more than a record holds.
pub fn stream(data: &[u8]) {
    for bytes in data.as_chunks().0 {
        if let Some(header) = Header::decode(*bytes) {
            assert_eq!(header.encode(), *bytes);
            assert!((1..=header.length()).contains(&header.stride()) && header.datagrams() <= 2048);
        }
    }
}

/// What an HTTP proxy answers: more bytes never undo a verdict.
pub fn connect(data: &[u8]) {
    let verdict = connect::answer(data);
    if let connect::Answer::Connected(end) = verdict {
        assert!(end <= data.len() && data[..end].ends_with(b"\r\n\r\n"));
    }
    if verdict != connect::Answer::Incomplete {
        assert_eq!(connect::answer(&[data, b"more"].concat()), verdict);
    }
}

/// Parts of control messages, of as many bytes each as the first byte says.
pub fn part(data: &[u8]) {
    let [step, parts @ ..] = data else { return };
    let mut assembly = Assembly::default();
    for part in parts.chunks(usize::from(*step).max(1)).filter_map(Part::decode) {
        if let Some(whole) = assembly.add(&part) {
            assert!(whole.len() <= 4 * 1232);
            control(&whole);
        }
    }
}

/// What routers say: nothing of it leads to another machine, or puts anything but a path into a request.
pub fn igd(data: &[u8]) {
    if let Some(outer) = pcp::outer_in_refusal(data, *b"AAAAAAAAAAAA") {
        assert!(data.len() >= 60 && !outer.is_unspecified());
    }
    let base = Place::parse("http://192.168.1.1:5000/igd/desc.xml").expect("a place");
    let clean =
        |place: &Place| place.path.starts_with('/') && place.path.bytes().all(|b| b.is_ascii_graphic());
    if let Some(place) = igd::location(data) {
        assert!(clean(&place));
    }
    let text = String::from_utf8_lossy(data);
    if let Some(service) = Service::find(&text, &base) {
        assert!(service.control.at.ip() == base.at.ip() && clean(&service.control));
    }
    let _ = (igd::external_address(&text), igd::error_code(&text), base.join(&text));
}
