//! Cutting, joining, parsing and summing packets.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use frejus_overlay::document::{Candidate, CandidateKind};
use frejus_overlay::guess::Ports;
use frejus_overlay::packet::checksum::Sum;
use frejus_overlay::packet::coalesce::Coalescer;
use frejus_overlay::packet::partial::Checksum;
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::vnet::{Gso, VnetHeader};
use frejus_overlay::packet::{IpPacket, protocol};
use frejus_overlay::wire::classify;
use frejus_overlay::wire::control::Message;

use super::{Entry, Subject};

/// The device's default MTU.
const MTU: usize = 1280;
/// IPv4 and TCP, with time stamps as every Linux sends them.
const HEADERS: usize = 20 + 32;
/// As many full segments as one UDP send holds.
const SEGMENTS: usize = 49;
/// Small datagrams that one batch holds.
const SMALL: usize = 64;

pub(super) fn entries() -> Vec<Entry> {
    let payload = SEGMENTS * (MTU - HEADERS);
    vec![
        Entry::new("split/tcp4/49x1280".to_owned(), payload, || Split::new(Checksum::Complete)),
        Entry::new("split/tcp4/49x1280 partial".to_owned(), payload, || Split::new(Checksum::Partial)),
        Entry::new("coalesce/tcp4/49x1280".to_owned(), payload, || {
            Join::new((0..SEGMENTS).map(|at| tcp4(MTU, at)).collect())
        }),
        Entry::new("coalesce/tcp4/49x1280 partial".to_owned(), payload, || {
            let join = Join::new((0..SEGMENTS).map(|at| tcp4(MTU, at)).collect());
            Join { checksum: Checksum::Partial, ..join }
        }),
        Entry::new("coalesce/udp4/64x92".to_owned(), SMALL * 92, || {
            Join::new((0..SMALL).map(|_| udp4(92, 7)).collect())
        }),
        Entry::new("coalesce/udp4/64 strangers".to_owned(), SMALL * 92, || {
            Join::new((0..SMALL).map(|at| udp4(92, at as u16 + 1)).collect())
        }),
        Entry::plain("parse/ip4 tcp", 0, || {
            let packet = tcp4(MTU, 0);
            move || _ = black_box(IpPacket::parse(black_box(&packet)))
        }),
        Entry::plain("checksum/1280", 1280, || summed(1280)),
        Entry::plain("checksum/64", 64, || summed(64)),
        Entry::plain("classify/data", 0, || {
            let datagram: Vec<u8> = [4, 0, 0, 0].into_iter().chain([0x5a; 1308]).collect();
            move || _ = black_box(classify(black_box(&datagram)))
        }),
        Entry::plain("decode/probe", 0, || decoded(&Message::Probe { token: 0x1234_5678_9abc })),
        Entry::plain("decode/candidates", 0, || {
            let candidates = (1..=8).map(candidate).collect();
            decoded(&Message::Candidates { candidates, answer: true, ports: Ports::Kept })
        }),
    ]
}

fn summed(size: usize) -> impl FnMut() {
    let bytes = vec![0x5a; size];
    move || _ = black_box(Sum::default().bytes(black_box(&bytes)).checksum())
}

fn decoded(message: &Message) -> impl FnMut() + use<> {
    let bytes = message.encode();
    move || assert!(Message::decode(black_box(&bytes)).is_some())
}

fn candidate(last: u8) -> Candidate {
    let at = SocketAddr::from((Ipv4Addr::new(203, 0, 113, last), 51860));
    Candidate { kind: CandidateKind::Host, at }
}

/// A TCP segment of `size` bytes, the `at`th of its flow, with a right checksum; behind the IP header all is payload
/// or a plausible TCP header.
pub(super) fn tcp4(size: usize, at: usize) -> Vec<u8> {
    let mut packet = ip4(size, protocol::TCP, at as u16);
    let sequence = (at * (MTU - HEADERS)) as u32;
    packet[20..24].copy_from_slice(&[0x14, 0x51, 0xc0, 0x01]);
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&1_u32.to_be_bytes());
    // Eight words of header, ACK; two paddings and time stamps.
    packet[32..36].copy_from_slice(&[0x80, 0x10, 0x01, 0xf6]);
    packet[36..40].fill(0);
    packet[40..52].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
    complete(packet, protocol::TCP, 16)
}

/// A UDP datagram of `size` bytes, IP header included.
fn udp4(size: usize, port: u16) -> Vec<u8> {
    let mut packet = ip4(size, protocol::UDP, 0);
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&53_u16.to_be_bytes());
    let length = (size - 20) as u16;
    packet[24..26].copy_from_slice(&length.to_be_bytes());
    packet[26..28].fill(0);
    complete(packet, protocol::UDP, 6)
}

fn ip4(size: usize, protocol: u8, id: u16) -> Vec<u8> {
    let mut packet = vec![0x5a; size];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 1, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 1, 0, 2]);
    packet
}

fn complete(mut packet: Vec<u8>, protocol: u8, field: usize) -> Vec<u8> {
    let head = Sum::default().bytes(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&head.to_be_bytes());
    let sum =
        Sum::pseudo(&packet[12..20], protocol, packet.len() - 20).bytes(&packet[20..]).checksum_nonzero();
    packet[20 + field..22 + field].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A TCP super-packet as the kernel hands it over, cut into the send buffer.
struct Split {
    vnet: VnetHeader,
    checksum: Checksum,
    packet: Vec<u8>,
    room: Vec<u8>,
}

impl Split {
    fn new(checksum: Checksum) -> Self {
        let packet = tcp4(HEADERS + SEGMENTS * (MTU - HEADERS), 0);
        let gso_size = (MTU - HEADERS) as u16;
        let (needs_csum, csum_start, csum_offset) = (true, 20, 16);
        let gso = Gso::TcpV4;
        let vnet = VnetHeader { needs_csum, gso, ecn: false, hdr_len: 52, gso_size, csum_start, csum_offset };
        Self { vnet, checksum, packet, room: vec![0; SEGMENTS * MTU] }
    }
}

impl Subject for Split {
    fn run(&mut self) {
        let mut segments =
            Segments::new(self.vnet, black_box(&self.packet), MTU).expect("a TCP super-packet");
        let mut at = 0;
        while let Some(written) = segments.write_next_as(self.checksum, &mut self.room[at..]) {
            at += written.expect("there is room for all");
        }
        assert_eq!(at, SEGMENTS * MTU);
        black_box(&self.room);
    }
}

/// A batch that was opened, grouped into writes.
struct Join {
    checksum: Checksum,
    arena: Vec<u8>,
    ranges: Vec<Range<usize>>,
    coalescer: Coalescer,
}

impl Join {
    fn new(packets: Vec<Vec<u8>>) -> Self {
        let mut arena = Vec::new();
        let mut ranges = Vec::new();
        for packet in packets {
            ranges.push(arena.len()..arena.len() + packet.len());
            arena.extend(packet);
        }
        let coalescer = Coalescer::new(ranges.len(), true);
        Self { checksum: Checksum::Complete, coalescer, arena, ranges }
    }
}

impl Subject for Join {
    fn run(&mut self) {
        self.coalescer.clear();
        for range in &self.ranges {
            self.coalescer
                .push_as(self.checksum, black_box(&self.arena), range.clone())
                .expect("a good packet, and room for it");
        }
        for output in self.coalescer.outputs(&self.arena) {
            black_box(output.header());
            output.slices().for_each(|slice| _ = black_box(slice));
        }
    }
}
