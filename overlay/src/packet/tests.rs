//! Properties that hold across the packet functions; etherparse builds the packets and judges the results.

use std::collections::BTreeMap;
use std::net::IpAddr;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TcpHeader, TransportSlice,
};
use proptest::prelude::*;

use super::checksum::Sum;
use super::coalesce::{Coalescer, MAX_SEGMENTS, Output};
use super::segment::Segments;
use super::vnet::{self, Gso, VnetHeader};
use super::{IpPacket, Malformed, ecn, icmp, protocol, put_word, udp6};

mod joining;
mod partial;

/// All that may differ between the headers of two packets.
#[derive(Clone, Debug)]
struct Headers {
    v6: bool,
    udp: bool,
    host: u8,
    port: u16,
    ttl: u8,
    class: u8,
    id: u16,
    dont_fragment: bool,
    flow_label: u32,
    sequence: u32,
    acknowledgment: u32,
    window: u16,
    /// Without the flag it means nothing, and arrives all the same.
    urgent: u16,
    /// Length of the TCP options, in words.
    options: usize,
    fin: bool,
    psh: bool,
    ece: bool,
    cwr: bool,
}

impl Headers {
    fn plain() -> Self {
        Self {
            v6: false,
            udp: false,
            host: 1,
            port: 80,
            ttl: 64,
            class: 0,
            id: 7,
            dont_fragment: true,
            flow_label: 5,
            sequence: 1000,
            acknowledgment: 2000,
            window: 500,
            urgent: 0,
            options: 3,
            fin: false,
            psh: false,
            ece: false,
            cwr: false,
        }
    }

    fn ip(&self, payload: usize) -> IpHeaders {
        let number = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.class,
                flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
                payload_length: u16::try_from(payload).unwrap(),
                next_header: number,
                hop_limit: self.ttl,
                source: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host],
                destination: [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99],
            };
            return IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default());
        }
        let mut header = Ipv4Header::new(
            u16::try_from(payload).unwrap(),
            self.ttl,
            number,
            [10, 0, 0, self.host],
            [10, 0, 0, 99],
        )
        .unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        header.dscp = (self.class >> 2).try_into().unwrap();
        header.ecn = (self.class & 3).try_into().unwrap();
        IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
    }

    fn length(&self) -> usize {
        let ip = if self.v6 { 40 } else { 20 };
        ip + if self.udp { 8 } else { 20 + 4 * self.options }
    }

    /// The packet with correct checksums.
    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length() + payload.len());
        let builder = PacketBuilder::ip(self.ip(0));
        if self.udp {
            builder.udp(self.port, 443).write(&mut out, payload).unwrap();
            return out;
        }
        let mut tcp = TcpHeader::new(self.port, 443, self.sequence, self.window);
        tcp.ack = true;
        tcp.acknowledgment_number = self.acknowledgment;
        tcp.urgent_pointer = self.urgent;
        (tcp.fin, tcp.psh, tcp.ece, tcp.cwr) = (self.fin, self.psh, self.ece, self.cwr);
        tcp.set_options_raw(&vec![1; 4 * self.options]).unwrap();
        builder.tcp_header(tcp).write(&mut out, payload).unwrap();
        out
    }

    /// The packet as the kernel hands it over: the checksum field holds the sum of the pseudo header.
    fn build_partial(&self, payload: &[u8], size: usize) -> (VnetHeader, Vec<u8>) {
        let mut packet = self.build(payload);
        let (start, addresses) = if self.v6 { (40, 8..40) } else { (20, 12..20) };
        let (number, offset) = if self.udp { (protocol::UDP, 6) } else { (protocol::TCP, 16) };
        let sum = Sum::pseudo(&packet[addresses], number, packet.len() - start).folded();
        put_word(&mut packet, start + offset, sum);
        let gso = match (self.udp, self.v6) {
            (true, _) => Gso::UdpL4,
            (false, false) => Gso::TcpV4,
            (false, true) => Gso::TcpV6,
        };
        let vnet = VnetHeader {
            needs_csum: true,
            gso,
            ecn: self.cwr && !self.udp,
            hdr_len: u16::try_from(self.length()).unwrap(),
            gso_size: u16::try_from(size).unwrap(),
            csum_start: u16::try_from(start).unwrap(),
            csum_offset: u16::try_from(offset).unwrap(),
        };
        (vnet, packet)
    }
}

prop_compose! {
    fn headers()(
        (v6, udp, dont_fragment, fin, psh, ece, cwr) in any::<(bool, bool, bool, bool, bool, bool, bool)>(),
        (ttl, class, id, window, urgent) in any::<(u8, u8, u16, u16, u16)>(),
        (sequence, acknowledgment) in any::<(u32, u32)>(),
        flow_label in 0_u32..1 << 20, options in 0_usize..=10, host in 1_u8..90, port: u16,
    ) -> Headers {
        Headers {
            v6, udp, host, port, ttl, class, id, dont_fragment, flow_label, sequence, acknowledgment, window,
            urgent, options, fin, psh, ece, cwr,
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Cuts, asserting on the way what holds of any cut.
fn cut(vnet: VnetHeader, packet: &[u8], max_segment: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut segments = Segments::new(vnet, packet, max_segment)?;
    let (count, stride) = (segments.count(), segments.stride());
    let mut out = vec![0xaa; stride];
    let mut all = Vec::new();
    while let Some(length) = segments.write_next(&mut out) {
        all.push(out[..length?].to_vec());
    }
    assert_eq!(all.len(), count);
    assert!(all[..count - 1].iter().all(|segment| segment.len() == stride));
    assert!(all[count - 1].len() <= stride);
    Ok(all)
}

/// etherparse reads it, its lengths are exact and its checksums right.
fn assert_sound(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).expect("a packet");
    let net = sliced.net.expect("an IP header");
    match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(header.header_checksum, header.calc_header_checksum());
        }
        NetSlice::Ipv6(ip) => assert_eq!(usize::from(ip.header().payload_length()) + 40, packet.len()),
        NetSlice::Arp(_) => panic!("not IP"),
    }
    let (stands, expected) = match (&net, sliced.transport.expect("a transport header")) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap())
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(udp.length()), udp.slice().len());
            (udp.checksum(), udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(udp.length()), udp.slice().len());
            (udp.checksum(), udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap())
        }
        _ => panic!("neither TCP nor UDP"),
    };
    assert_eq!(stands, expected);
}

/// Packets behind each other in one arena, a few padding bytes between them.
fn arena_of(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut arena = Vec::new();
    let mut ranges = Vec::new();
    for packet in packets {
        let start = arena.len();
        arena.extend_from_slice(packet);
        arena.extend_from_slice(&[0xee; 5]);
        ranges.push(start..arena.len());
    }
    (arena, ranges)
}

/// What one write gives to the kernel.
fn written(output: &Output<'_>) -> (VnetHeader, Vec<u8>) {
    let mut all = output.header().to_vec();
    output.slices().for_each(|slice| all.extend_from_slice(slice));
    let packet = all.split_off(vnet::LENGTH);
    let bytes: [u8; vnet::LENGTH] = all.try_into().unwrap();
    let header = VnetHeader::decode(&bytes).unwrap();
    (VnetHeader { ecn: bytes[1] & 0x80 != 0, ..header }, packet)
}

fn coalesced(packets: &[Vec<u8>], udp: bool) -> Vec<(usize, VnetHeader, Vec<u8>)> {
    let (arena, ranges) = arena_of(packets);
    let mut coalescer = Coalescer::new(packets.len(), udp);
    for range in ranges {
        coalescer.push(&arena, range).unwrap();
    }
    coalescer
        .outputs(&arena)
        .map(|output| {
            let (vnet, packet) = written(&output);
            assert_eq!(output.count(), output.packets().count());
            assert_eq!(output.gso(), vnet.gso);
            (output.count(), vnet, packet)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cut_then_joined_is_the_super_packet(headers in headers(), size in 1_usize..1500, length in 1_usize..65_000) {
        let length = length.min(size * MAX_SEGMENTS).min(65_535 - headers.length());
        let (vnet, packet) = headers.build_partial(&pattern(length), size);
        let segments = cut(vnet, &packet, 65_535).unwrap();
        prop_assert_eq!(segments.len(), length.div_ceil(size));
        segments.iter().for_each(|segment| assert_sound(segment));

        let joined = coalesced(&segments, true);
        prop_assert_eq!(joined.len(), 1);
        let whole = if segments.len() > 1 { (vnet, packet) } else { (VnetHeader::default(), headers.build(&pattern(length))) };
        prop_assert_eq!((joined[0].0, &joined[0].1, &joined[0].2), (segments.len(), &whole.0, &whole.1));
    }

    #[test]
    fn a_segment_fits_the_path(headers in headers(), size in 1_usize..9000, length in 0_usize..65_000, path in 200_usize..9000) {
        let length = length.min(65_535 - headers.length());
        let payload = pattern(length);
        let (vnet, packet) = headers.build_partial(&payload, size);
        let segments = cut(vnet, &packet, path).unwrap();
        let longest = if headers.udp { headers.length() + size } else { path.min(headers.length() + size) };
        prop_assert!(segments.iter().all(|segment| segment.len() <= longest));
        let mut again = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            assert_sound(segment);
            let parsed = IpPacket::parse(segment).unwrap();
            if !headers.udp {
                let (first, last) = (index == 0, index + 1 == segments.len());
                let tcp = TcpHeader::from_slice(parsed.payload()).unwrap().0;
                prop_assert_eq!(tcp.sequence_number, headers.sequence.wrapping_add(again.len() as u32));
                prop_assert_eq!((tcp.fin, tcp.psh), (headers.fin && last, headers.psh && last));
                prop_assert_eq!((tcp.cwr, tcp.ece), (headers.cwr && first, headers.ece));
                prop_assert_eq!(tcp.options.as_slice(), &vec![1; 4 * headers.options][..]);
            }
            prop_assert_eq!(parsed.traffic_class(), headers.class);
            again.extend_from_slice(&segment[headers.length()..]);
        }
        prop_assert_eq!(again, payload);
    }

    #[test]
    fn a_partial_checksum_is_completed(headers in headers(), length in 0_usize..1400) {
        let (vnet, packet) = headers.build_partial(&pattern(length), 0);
        let single = VnetHeader { gso: Gso::None, ecn: false, ..vnet };
        let segments = cut(single, &packet, 65_535).unwrap();
        prop_assert_eq!(&segments, &[headers.build(&pattern(length))]);
        let complete = cut(VnetHeader::default(), &segments[0], 65_535).unwrap();
        prop_assert_eq!(&complete, &segments);
    }

    #[test]
    fn an_extension_header_is_kept(size in 1_usize..1400, length in 1_usize..20_000, udp: bool) {
        let headers = Headers { v6: true, udp, ..Headers::plain() };
        let (vnet, packet) = headers.build_partial(&pattern(length), size);
        let mut extended = packet[..40].to_vec();
        extended.extend_from_slice(&[packet[6], 0, 1, 4, 0, 0, 0, 0]);
        extended.extend_from_slice(&packet[40..]);
        extended[6] = protocol::DESTINATION_OPTIONS;
        let length_field = u16::try_from(extended.len() - 40).unwrap();
        put_word(&mut extended, 4, length_field);
        let vnet = VnetHeader { csum_start: 48, ..vnet };
        let segments = cut(vnet, &extended, 65_535).unwrap();
        prop_assert_eq!(segments.len(), length.div_ceil(size));
        segments.iter().for_each(|segment| assert_sound(segment));
    }
}

/// One step of a made-up flow.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    size: usize,
    /// Which of the things that separate segments happens here, if any.
    event: u8,
}

/// Sizes repeat, so that runs form; most steps are plain.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => Just(1000_usize), 2 => Just(1400), 1 => 1_usize..1400, 1 => Just(0)];
    let event = prop_oneof![12 => Just(0_u8), 5 => 1_u8..=17];
    let step = (0_usize..12, size, event).prop_map(|(flow, size, event)| Step { flow, size, event });
    prop::collection::vec(step, 1..400)
}

fn packet_of(flow: &mut Headers, step: &Step) -> Vec<u8> {
    let (fin, psh, cwr) = (step.event == 1, step.event == 2, step.event == 3);
    match step.event {
        4 => flow.sequence = flow.sequence.wrapping_add(500),
        5 => flow.acknowledgment = flow.acknowledgment.wrapping_add(1),
        6 => flow.window ^= 1,
        7 => flow.ttl = flow.ttl.wrapping_add(1),
        8 => flow.class ^= 1,
        9 => flow.options = (flow.options + 1) % 11,
        10 => flow.id = flow.id.wrapping_add(9),
        11 => flow.dont_fragment ^= true,
        12 => flow.flow_label ^= 1,
        13 => flow.ece ^= true,
        17 => flow.urgent ^= 1,
        _ => {}
    }
    let mut packet = Headers { fin, psh, cwr, ..flow.clone() }.build(&pattern(step.size));
    let transport = if flow.v6 { 40 } else { 20 };
    match step.event {
        14 => *packet.last_mut().unwrap() ^= 1,
        // SYN, without mending the checksum; in UDP this is payload, or behind the packet.
        15 if !flow.udp => packet[transport + 13] |= 2,
        // More fragments follow.
        16 if !flow.v6 => {
            packet[6] |= 0x20;
            super::seal_v4_header(&mut packet, 20);
        }
        _ => {}
    }
    flow.sequence = flow.sequence.wrapping_add(step.size as u32);
    flow.id = flow.id.wrapping_add(1);
    packet
}

/// The identification of a packet that is never fragmented means nothing (RFC 6864), so it may change.
fn without_idle_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn joined_then_cut_is_every_flow_in_its_order(
        mut flows in prop::collection::vec(headers(), 12), steps in steps(), udp: bool,
    ) {
        for (index, flow) in flows.iter_mut().enumerate() {
            flow.port = index as u16;
        }
        let packets: Vec<_> = steps.iter().map(|step| packet_of(&mut flows[step.flow], step)).collect();
        let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let flow_of = |packet: &[u8]| packet[if packet[0] >> 4 == 6 { 40 } else { 20 }..][..2].to_vec();
        for packet in &packets {
            sent.entry(flow_of(packet)).or_default().push(without_idle_id(packet.clone()));
        }
        let mut received: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (count, vnet, packet) in coalesced(&packets, udp) {
            let segments = cut(vnet, &packet, 65_535).unwrap();
            prop_assert_eq!(segments.len(), count);
            prop_assert!(count <= MAX_SEGMENTS && packet.len() <= 65_535);
            prop_assert!(udp || vnet.gso != Gso::UdpL4);
            for segment in segments {
                received.entry(flow_of(&segment)).or_default().push(without_idle_id(segment));
            }
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn any_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), version in 0_u8..16, exact: bool,
        vnet: [u8; vnet::LENGTH], max in 0_usize..300, room in 0_usize..1500, split in 0_usize..400,
    ) {
        // Most random bytes fail at the version and the length; these get further.
        if let Some(first) = bytes.first_mut().filter(|_| version != 0) {
            *first = version << 4 | *first & if version == 4 { 5 } else { 15 };
        }
        if exact && bytes.len() >= 40 {
            let (at, length) = if version == 6 { (4, bytes.len() - 40) } else { (2, bytes.len()) };
            put_word(&mut bytes, at, length as u16);
        }
        let mut out = vec![0; room];
        if let Some(vnet) = VnetHeader::decode(&vnet)
            && let Ok(mut segments) = Segments::new(vnet, &bytes, max)
        {
            while let Some(written) = segments.write_next(&mut out) {
                prop_assert!(written.is_ok_and(|length| length <= segments.stride()) || room < segments.stride());
            }
        }
        for from in [IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00_u16, 0, 0, 0, 0, 0, 0, 1])] {
            let _ = icmp::unreachable(&bytes, from, icmp::Unreachable::Host, &mut out);
            let _ = icmp::too_big(&bytes, from, 1280, &mut out);
        }
        let _ = udp6::Udp6::parse(&bytes);
        if let Ok(packet) = IpPacket::parse(&bytes) {
            let _ = (packet.source(), packet.destination(), packet.ports(), packet.ecn(), packet.dscp());
            prop_assert!(packet.bytes().len() <= bytes.len());
        }
        let mut coalescer = Coalescer::new(4, true);
        for range in [0..bytes.len(), split..bytes.len(), 0..split, split..usize::MAX, 0..bytes.len()] {
            let _ = coalescer.push(&bytes, range);
        }
        for arena in [&bytes[..], &bytes[..bytes.len() / 2]] {
            prop_assert!(coalescer.outputs(arena).all(|output| output.slices().count() == output.count()));
        }
        let _ = ecn::leave_tunnel(&mut bytes, ecn::Ecn::Ce);
    }

    #[test]
    fn a_damaged_batch_does_no_harm(
        flow in headers(), sizes in prop::collection::vec(1_usize..4, 2..20), at: prop::sample::Index, value: u8,
    ) {
        let mut flow = flow;
        let step = |size: &usize| Step { flow: 0, size: size * 100, event: 0 };
        let packets: Vec<_> = sizes.iter().map(|size| packet_of(&mut flow, &step(size))).collect();
        let (mut arena, ranges) = arena_of(&packets);
        let at = at.index(arena.len());
        arena[at] = value;
        let mut coalescer = Coalescer::new(packets.len(), true);
        let taken = ranges.into_iter().filter(|range| coalescer.push(&arena, range.clone()).is_ok()).count();
        prop_assert_eq!(coalescer.outputs(&arena).map(|output| output.count()).sum::<usize>(), taken);
    }
}

#[test]
fn a_full_super_packet_is_cut_to_the_last_byte() {
    // 65,483 bytes in segments of 1368, and 65,463 in segments of 1348.
    for (v6, count) in [(false, 48), (true, 49)] {
        let headers = Headers { v6, ..Headers::plain() };
        let (vnet, packet) = headers.build_partial(&pattern(65_535 - headers.length()), 1368);
        assert_eq!(packet.len(), 65_535);
        assert_eq!(cut(vnet, &packet, 1420).unwrap().len(), count);
    }
}

#[test]
fn the_smallest_packet_passes_whole() {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    super::seal_v4_header(&mut packet, 20);
    assert_eq!(cut(VnetHeader::default(), &packet, 1280).unwrap(), [packet.clone()]);
    assert_eq!(coalesced(&[packet.clone()], true), [(1, VnetHeader::default(), packet)]);
}

#[test]
fn a_single_packet_keeps_its_size() {
    let packet = Headers::plain().build(&pattern(1400));
    let segments = Segments::new(VnetHeader::default(), &packet, 1280).unwrap();
    assert_eq!((segments.count(), segments.stride()), (1, packet.len()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let headers = Headers::plain();
    let (vnet, packet) = headers.build_partial(&pattern(3000), 1000);
    let refusal = |vnet, packet: &[u8], max| Segments::new(vnet, packet, max).map(|_| ()).unwrap_err();
    assert_eq!(refusal(VnetHeader { gso_size: 0, ..vnet }, &packet, 1280), Malformed::Segmentation);
    assert_eq!(refusal(VnetHeader { gso: Gso::TcpV6, ..vnet }, &packet, 1280), Malformed::Segmentation);
    assert_eq!(refusal(VnetHeader { gso: Gso::UdpL4, ..vnet }, &packet, 1280), Malformed::Segmentation);
    assert_eq!(refusal(vnet, &packet, headers.length()), Malformed::Segmentation);
    assert_eq!(refusal(vnet, &packet[..2000], 1280), Malformed::Truncated);
    let single = VnetHeader { gso: Gso::None, ..vnet };
    assert_eq!(refusal(VnetHeader { csum_start: 12, ..single }, &packet, 1280), Malformed::Checksum);
    assert_eq!(refusal(VnetHeader { csum_offset: 4000, ..single }, &packet, 1280), Malformed::Checksum);
    let mut segments = Segments::new(vnet, &packet, 1280).unwrap();
    assert_eq!(segments.write_next(&mut [0; 500]), Some(Err(Malformed::NoRoom)));
    assert_eq!(segments.write_next(&mut [0; 1500]), None);
}

#[test]
fn what_parse_refuses() {
    let error = |bytes: &[u8]| IpPacket::parse(bytes).map(|_| ()).unwrap_err();
    assert_eq!(error(&[]), Malformed::Empty);
    assert_eq!(error(&[0x50; 60]), Malformed::Version);
    assert_eq!(error(&[0x45; 19]), Malformed::Truncated);
    assert_eq!(error(&[0x60; 39]), Malformed::Truncated);
    assert_eq!(error(&[0x44; 60]), Malformed::HeaderLength);
    assert_eq!(error(&[&[0x46, 0, 0, 23][..], &[0; 40]].concat()), Malformed::TotalLength);
    assert_eq!(error(&[&[0x45, 0, 0, 45][..], &[0; 40]].concat()), Malformed::Truncated);
    assert_eq!(
        error(&[&[0x60, 0, 0, 0, 0xff, 0xff, 6, 1][..], &[0; 65_600]].concat()),
        Malformed::TotalLength
    );
}

#[test]
fn a_parsed_packet_tells_what_it_is() {
    for v6 in [false, true] {
        let packet = Headers { v6, class: 0b1011_1001, ..Headers::plain() }.build(b"payload");
        let parsed = IpPacket::parse(&packet).unwrap();
        let address = |host: u16| match v6 {
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]),
            false => IpAddr::from([10, 0, 0, host as u8]),
        };
        assert_eq!((parsed.source(), parsed.destination()), (address(1), address(99)));
        assert_eq!((parsed.version(), parsed.protocol()), (if v6 { 6 } else { 4 }, protocol::TCP));
        assert_eq!((parsed.dscp(), parsed.ecn()), (0b10_1110, ecn::Ecn::Ect1));
        assert_eq!(parsed.ports(), Some((80, 443)));
        assert_eq!(parsed.payload().len(), 20 + 12 + 7);
    }
}

#[test]
fn a_fragment_has_no_ports() {
    let mut packet = Headers { udp: true, ..Headers::plain() }.build(&pattern(64));
    assert!(IpPacket::parse(&packet).unwrap().ports().is_some());
    packet[6] = 0x20;
    assert_eq!(IpPacket::parse(&packet).unwrap().ports(), None);
    packet[6..8].copy_from_slice(&[0, 1]);
    assert_eq!(IpPacket::parse(&packet).unwrap().ports(), None);
}
