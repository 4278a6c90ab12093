//! Packets of every kind, each with what has to come out at the far end. etherparse builds them, the expected
//! segments one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    PacketBuilder, TcpHeader,
};
use frejus_overlay::packet::checksum::Sum;
use frejus_overlay::packet::vnet::{Gso, VnetHeader};

/// What is put in front of the near device, and what must come out of the far one, in this order.
pub(crate) struct Sample {
    pub(crate) what: String,
    pub(crate) injected: Vec<(VnetHeader, Vec<u8>)>,
    pub(crate) expected: Vec<Vec<u8>>,
}

impl Sample {
    fn whole(what: impl Into<String>, packets: Vec<Vec<u8>>) -> Self {
        let injected = packets.iter().map(|packet| (VnetHeader::default(), packet.clone())).collect();
        Self { what: what.into(), injected, expected: packets }
    }
}

/// From whom to whom.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) from4: Ipv4Addr,
    pub(crate) to4: Ipv4Addr,
    pub(crate) from6: Ipv6Addr,
    pub(crate) to6: Ipv6Addr,
}

/// A flow's headers.
#[derive(Clone)]
struct Flow {
    ends: Ends,
    v6: bool,
    udp: bool,
    port: u16,
    class: u8,
    id: u16,
    dont_fragment: bool,
    /// Bytes of IPv4 options, a multiple of four.
    ip_options: usize,
    sequence: u32,
    tcp_options: usize,
    push: bool,
    fin: bool,
    cwr: bool,
}

impl Flow {
    fn new(ends: Ends, v6: bool, udp: bool) -> Self {
        Self {
            ends,
            v6,
            udp,
            port: 9,
            class: 0,
            id: 0xfff0,
            dont_fragment: true,
            ip_options: 0,
            sequence: 0xffff_f000,
            tcp_options: 12,
            push: false,
            fin: false,
            cwr: false,
        }
    }

    fn ip(&self) -> IpHeaders {
        let number = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.class,
                flow_label: Ipv6FlowLabel::try_new(0xabcde).unwrap(),
                payload_length: 0,
                next_header: number,
                hop_limit: 61,
                source: self.ends.from6.octets(),
                destination: self.ends.to6.octets(),
            };
            return IpHeaders::Ipv6(header, Ipv6Extensions::default());
        }
        let (from, to) = (self.ends.from4.octets(), self.ends.to4.octets());
        let mut header = Ipv4Header::new(0, 61, number, from, to).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.dont_fragment;
        header.dscp = (self.class >> 2).try_into().unwrap();
        header.ecn = (self.class & 3).try_into().unwrap();
        // No-operations, and the end of the list.
        let mut options = vec![1; self.ip_options];
        options.iter_mut().skip(3).for_each(|option| *option = 0);
        header.options = options.as_slice().try_into().unwrap();
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn headers(&self) -> usize {
        let ip = if self.v6 { 40 } else { 20 + self.ip_options };
        ip + if self.udp { 8 } else { 20 + self.tcp_options }
    }

    /// One packet with every checksum.
    fn build(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let builder = PacketBuilder::ip(self.ip());
        if self.udp {
            builder.udp(4000, self.port).write(&mut out, payload).unwrap();
            return out;
        }
        let mut tcp = TcpHeader::new(4000, self.port, self.sequence, 1000);
        (tcp.ack, tcp.psh, tcp.fin, tcp.cwr) = (true, self.push, self.fin, self.cwr);
        tcp.acknowledgment_number = 77;
        tcp.set_options_raw(&vec![1; self.tcp_options]).unwrap();
        builder.tcp_header(tcp).write(&mut out, payload).unwrap();
        out
    }

    /// The packets that `payload` makes in pieces of `size`, one after another.
    fn pieces(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (mut flow, count) = (self.clone(), payload.chunks(size).count());
        let piece = |(index, piece): (usize, &[u8])| {
            let last = index + 1 == count;
            (flow.push, flow.fin) = (self.push && last, self.fin && last);
            flow.cwr = self.cwr && index == 0;
            let packet = flow.build(piece);
            flow.sequence = flow.sequence.wrapping_add(piece.len() as u32);
            flow.id = flow.id.wrapping_add(1);
            packet
        };
        payload.chunks(size).enumerate().map(piece).collect()
    }

    /// All of `payload` in one, to be cut by whoever has to.
    fn super_packet(&self, payload: &[u8], size: usize) -> (VnetHeader, Vec<u8>) {
        let mut packet = self.build(payload);
        let start = self.headers() - if self.udp { 8 } else { 20 + self.tcp_options };
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        let (protocol, offset) = if self.udp { (17, 6) } else { (6, 16) };
        let sum = Sum::pseudo(&packet[addresses], protocol, packet.len() - start).folded();
        packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        let gso = match (self.udp, self.v6) {
            (true, _) => Gso::UdpL4,
            (false, false) => Gso::TcpV4,
            (false, true) => Gso::TcpV6,
        };
        let word = |number: usize| u16::try_from(number).unwrap();
        let vnet = VnetHeader {
            needs_csum: true,
            gso: if payload.len() > size { gso } else { Gso::None },
            ecn: self.cwr && payload.len() > size,
            hdr_len: word(self.headers()),
            gso_size: if payload.len() > size { word(size) } else { 0 },
            csum_start: word(start),
            csum_offset: word(offset),
        };
        (vnet, packet)
    }

    fn cut(&self, what: &str, length: usize, size: usize) -> Sample {
        let payload = pattern(length);
        let kind = if self.udp { "UDP" } else { "TCP" };
        let version = if self.v6 { 6 } else { 4 };
        Sample {
            what: format!("{what}: {kind} over IPv{version}, {length} bytes in segments of {size}"),
            injected: vec![self.super_packet(&payload, size)],
            expected: self.pieces(&payload, size),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Everything, for devices with this MTU.
pub(crate) fn all(ends: Ends, mtu: usize) -> Vec<Sample> {
    let mut all = every_size(ends, mtu);
    for v6 in [false, true] {
        for udp in [false, true] {
            all.extend(super_packets(&Flow::new(ends, v6, udp), mtu));
            all.push(unjoined(&Flow::new(ends, v6, udp)));
        }
    }
    all.extend(odd(ends, mtu));
    all
}

/// Single packets from the shortest to the longest.
fn every_size(ends: Ends, mtu: usize) -> Vec<Sample> {
    let mut packets = Vec::new();
    for length in 20..=mtu {
        // Protocol 253 is for experiments (RFC 3692): nobody looks into it.
        let mut header =
            Ipv4Header::new((length - 20) as u16, 9, IpNumber(253), ends.from4.octets(), ends.to4.octets())
                .unwrap();
        (header.identification, header.ecn) = (length as u16, ((length % 4) as u8).try_into().unwrap());
        header.header_checksum = header.calc_header_checksum();
        packets.push([&header.to_bytes()[..], &pattern(length - 20)].concat());
    }
    let flow = Flow { udp: true, ..Flow::new(ends, true, true) };
    packets.extend((48..=mtu).map(|length| flow.build(&pattern(length - 48))));
    packets
        .chunks(40)
        .map(|some| {
            Sample::whole(format!("single packets of {} bytes and more", some[0].len()), some.to_vec())
        })
        .collect()
}

/// Cut by the near node or its kernel, and perhaps joined by the far one.
fn super_packets(flow: &Flow, mtu: usize) -> Vec<Sample> {
    let most = mtu - flow.headers();
    let longest = 65_535 - flow.headers();
    let mut all = Vec::new();
    for size in [1, 2, 31, 100, 536, 1000, most - 1, most] {
        for segments in [1, 2, 3, 17, 49, 50, 63, 64] {
            for tail in [0, 1, size / 2] {
                let length = (segments * size + tail).min(longest);
                // The kernel takes no more than 64 datagrams in one.
                if length > 0 && !(flow.udp && length.div_ceil(size) > 64) {
                    all.push(flow.cut("sizes", length, size));
                }
            }
        }
    }
    all.push(flow.cut("the longest", longest, most));
    for class in 0..4 {
        all.push(Flow { class: class | 0xb8, ..flow.clone() }.cut("ECN and DSCP", 5000, 1100));
    }
    all.push(Flow { dont_fragment: false, ..flow.clone() }.cut("may be fragmented", 5000, 1100));
    if !flow.udp {
        all.push(Flow { push: true, ..flow.clone() }.cut("PSH", 5000, 1100));
        all.push(Flow { push: true, fin: true, ..flow.clone() }.cut("PSH and FIN", 5000, 1100));
        all.push(Flow { cwr: true, class: 2, ..flow.clone() }.cut("CWR", 5000, 1100));
        all.push(Flow { tcp_options: 40, ..flow.clone() }.cut("all TCP options", 5000, 1100));
        all.push(Flow { tcp_options: 0, ..flow.clone() }.cut("no TCP options", 5000, 1100));
    }
    if !flow.v6 {
        all.push(Flow { ip_options: 8, ..flow.clone() }.cut("IPv4 options", 5000, 1100));
        all.push(Flow { ip_options: 40, ..flow.clone() }.cut("all IPv4 options", 5000, 1100));
    }
    all
}

/// A flow in single packets, which the far node may join.
fn unjoined(flow: &Flow) -> Sample {
    let mut packets = flow.pieces(&pattern(30_000), 1000);
    packets.extend(Flow { class: 1, ..flow.clone() }.pieces(&pattern(900), 100));
    Sample::whole("a flow in single packets", packets)
}

/// What is never cut nor joined.
fn odd(ends: Ends, mtu: usize) -> Vec<Sample> {
    let mut all = Vec::new();
    let udp4 = Flow::new(ends, false, true);
    let mut unsummed = udp4.pieces(&pattern(9000), 1000);
    unsummed.iter_mut().for_each(|packet| packet[26..28].fill(0));
    all.push(Sample::whole("UDP without a checksum", unsummed));
    let mut wrong = udp4.pieces(&pattern(9000), 1000);
    wrong.iter_mut().for_each(|packet| packet[26] ^= 0x40);
    all.push(Sample::whole("UDP with a wrong checksum", wrong));
    all.push(Sample::whole("IPv4 fragments", fragments4(&udp4, mtu)));
    all.push(Sample::whole("IPv6 fragments", fragments6(ends, mtu)));
    for next in [0, 60, 43] {
        all.push(Sample::whole(format!("IPv6 extension header {next}"), vec![extended(ends, next); 3]));
    }
    for v6 in [false, true] {
        let tcp = Flow::new(ends, v6, false);
        all.push(Sample::whole("acknowledgements", vec![tcp.build(b""); 3]));
        for flags in [0x02, 0x12, 0x04, 0x14, 0x31, 0x00, 0xff] {
            let mut packet = tcp.build(&pattern(100));
            let at = if v6 { 40 } else { 20 };
            packet[at + 13] = flags;
            seal_tcp(&mut packet, at);
            all.push(Sample::whole(format!("TCP flags {flags:02x}"), vec![packet]));
        }
    }
    let protocols = [1, 4, 41, 47, 50, 58, 132, 255];
    for v6 in [false, true] {
        all.extend(protocols.map(|number| {
            let mut packet = Flow::new(ends, v6, true).build(&pattern(300));
            if v6 {
                packet[6] = number;
            } else {
                packet[9] = number;
                packet[10..12].fill(0);
                let sum = Sum::default().bytes(&packet[..20]).checksum();
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Sample::whole(format!("protocol {number}"), vec![packet; 2])
        }));
    }
    all
}

fn seal_tcp(packet: &mut [u8], at: usize) {
    packet[at + 16..at + 18].fill(0);
    let addresses = if at == 40 { 8..40 } else { 12..20 };
    let pseudo = Sum::pseudo(&packet[addresses], 6, packet.len() - at);
    let sum = pseudo.bytes(&packet[at..]).checksum();
    packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

fn fragments4(flow: &Flow, mtu: usize) -> Vec<Vec<u8>> {
    let whole = flow.build(&pattern(5000));
    let size = (mtu - 20) / 8 * 8;
    let body = &whole[20..];
    let fragment = |(index, piece): (usize, &[u8])| {
        let mut header = Ipv4Header::from_slice(&whole).unwrap().0;
        header.set_payload_len(piece.len()).unwrap();
        header.dont_fragment = false;
        header.more_fragments = (index + 1) * size < body.len();
        header.fragment_offset = IpFragOffset::try_new((index * size / 8) as u16).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], piece].concat()
    };
    body.chunks(size).enumerate().map(fragment).collect()
}

fn fragments6(ends: Ends, mtu: usize) -> Vec<Vec<u8>> {
    let whole = Flow::new(ends, true, true).build(&pattern(5000));
    let size = (mtu - 48) / 8 * 8;
    let body = &whole[40..];
    let fragment = |(index, piece): (usize, &[u8])| {
        let more = u16::from((index + 1) * size < body.len());
        let [high, low] = ((index * size) as u16 | more).to_be_bytes();
        let mut packet = whole[..40].to_vec();
        packet[4..6].copy_from_slice(&(piece.len() as u16 + 8).to_be_bytes());
        packet[6] = 44;
        packet.extend_from_slice(&[17, 0, high, low, 1, 2, 3, 4]);
        packet.extend_from_slice(piece);
        packet
    };
    body.chunks(size).enumerate().map(fragment).collect()
}

/// A datagram behind an extension header of eight bytes: options of padding, or a route with no stop left.
fn extended(ends: Ends, next: u8) -> Vec<u8> {
    let plain = Flow::new(ends, true, true).build(&pattern(500));
    let mut packet = plain[..40].to_vec();
    packet[4..6].copy_from_slice(&(plain.len() as u16 - 40 + 8).to_be_bytes());
    packet[6] = next;
    packet.extend_from_slice(if next == 43 {
        &[17, 0, 253, 0, 0, 0, 0, 0]
    } else {
        &[17, 0, 1, 4, 0, 0, 0, 0]
    });
    packet.extend_from_slice(&plain[40..]);
    packet
}

/// Whether `packet` is from one end to the other: what the hosts say of themselves is not.
pub(crate) fn is_between(ends: Ends, packet: &[u8]) -> bool {
    let parsed = frejus_overlay::packet::IpPacket::parse(packet).unwrap();
    let pair = (parsed.source(), parsed.destination());
    pair == (IpAddr::V4(ends.from4), IpAddr::V4(ends.to4))
        || pair == (IpAddr::V6(ends.from6), IpAddr::V6(ends.to6))
}

/// One super-packet of ten segments.
pub(crate) fn large(ends: Ends, v6: bool, udp: bool) -> Sample {
    Flow::new(ends, v6, udp).cut("large", 10_000, 1000)
}

/// One datagram to `port` that may be fragmented, its checksum left to be filled in; and its payload.
pub(crate) fn fragmentable(ends: Ends, port: u16, length: usize) -> (VnetHeader, Vec<u8>, Vec<u8>) {
    let payload = pattern(length);
    let flow = Flow { port, dont_fragment: false, ..Flow::new(ends, false, true) };
    let (vnet, packet) = flow.super_packet(&payload, length);
    (vnet, packet, payload)
}

/// A datagram of the flow to `port`.
pub(crate) fn datagram(ends: Ends, port: u16) -> Vec<u8> {
    Flow { port, ..Flow::new(ends, false, true) }.build(b"datagram")
}
