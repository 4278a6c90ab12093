//! Checksums that are left to the receiver: whoever fills them in has the packets that would have come complete.

use proptest::prelude::*;

use super::{Headers, arena_of, cut, headers, pattern, written};
use crate::packet::coalesce::{Coalescer, MAX_SEGMENTS, Output, Refused};
use crate::packet::partial::{Checksum, complete};
use crate::packet::segment::Segments;
use crate::packet::vnet::{Gso, VnetHeader};
use crate::packet::{IpPacket, Malformed, put_word};

/// Cuts, and leaves the checksums.
fn cut_partial(vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(vnet, packet, 65_535).unwrap();
    assert_eq!(segments.checksum(), Checksum::Partial);
    let mut out = vec![0xaa; segments.stride()];
    let next = || Some(segments.write_next_as(Checksum::Partial, &mut out)?.map(|len| out[..len].to_vec()));
    std::iter::from_fn(next).map(Result::unwrap).collect()
}

fn completed(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    complete(&mut packet).unwrap();
    packet
}

/// What the kernel makes of an output.
fn delivered(output: &Output<'_>) -> Vec<Vec<u8>> {
    let (vnet, packet) = written(output);
    cut(vnet, &packet, 65_535).unwrap()
}

/// Writes for packets, some of them partial.
fn with_outputs<T>(packets: &[(Checksum, Vec<u8>)], look: impl Fn(&Output<'_>) -> T) -> Vec<T> {
    let (arena, ranges) = arena_of(&packets.iter().map(|(_, packet)| packet.clone()).collect::<Vec<_>>());
    let mut coalescer = Coalescer::new(packets.len(), true);
    for (range, (checksum, _)) in ranges.into_iter().zip(packets) {
        coalescer.push_as(*checksum, &arena, range).unwrap();
    }
    coalescer.outputs(&arena).map(|output| look(&output)).collect()
}

fn all_partial(packets: Vec<Vec<u8>>) -> Vec<(Checksum, Vec<u8>)> {
    packets.into_iter().map(|packet| (Checksum::Partial, packet)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn completed_at_the_far_end_is_completed_here(headers in headers(), size in 1_usize..1500, length in 0_usize..20_000) {
        let (vnet, packet) = headers.build_partial(&pattern(length.min(size * MAX_SEGMENTS)), size);
        let partial = cut_partial(vnet, &packet);
        let at_the_far_end: Vec<_> = partial.iter().map(|segment| completed(segment)).collect();
        prop_assert_eq!(at_the_far_end, cut(vnet, &packet, 65_535).unwrap());
    }

    #[test]
    fn joined_again_it_is_the_super_packet(headers in headers(), size in 1_usize..1500, length in 1_usize..65_000, field: u16) {
        let length = length.min(size * MAX_SEGMENTS).min(65_535 - headers.length());
        let (vnet, packet) = headers.build_partial(&pattern(length), size);
        let mut segments = cut_partial(vnet, &packet);
        let at = usize::from(vnet.csum_start + vnet.csum_offset);
        segments.iter_mut().for_each(|segment| put_word(segment, at, field));
        let single = segments.len() == 1;
        let expected = if single {
            VnetHeader { gso: Gso::None, gso_size: 0, ecn: false, ..vnet }
        } else {
            vnet
        };
        prop_assert_eq!(with_outputs(&all_partial(segments), written), [(expected, packet)]);
    }

    #[test]
    fn refused_joined_it_is_written_one_by_one(headers in headers(), size in 1_usize..1500, length in 1_usize..20_000) {
        let (vnet, packet) = headers.build_partial(&pattern(length.min(size * MAX_SEGMENTS)), size);
        let segments = cut_partial(vnet, &packet);
        let singles = |output: &Output<'_>| {
            let singles: Vec<_> = output.singles().collect();
            assert!(singles.iter().all(|single| single.count() == 1 && single.gso() == Gso::None));
            singles.iter().flat_map(delivered).collect::<Vec<_>>()
        };
        let written = with_outputs(&all_partial(segments), singles).concat();
        prop_assert_eq!(written, cut(vnet, &packet, 65_535).unwrap());
    }

    #[test]
    fn partial_and_complete_segments_are_joined_alike(headers in headers(), which in prop::collection::vec(any::<bool>(), 1..20)) {
        let (vnet, packet) = headers.build_partial(&pattern(100 * which.len()), 100);
        let whole = cut(vnet, &packet, 65_535).unwrap();
        let mixed = whole.iter().zip(cut_partial(vnet, &packet)).zip(&which).map(|((whole, partial), left)| {
            if *left { (Checksum::Partial, partial) } else { (Checksum::Complete, whole.clone()) }
        });
        let mixed: Vec<_> = mixed.collect();
        prop_assert_eq!(with_outputs(&mixed, |output| output.count()), [which.len()]);
        prop_assert_eq!(with_outputs(&mixed, delivered).concat(), whole.clone());
        let singles = |output: &Output<'_>| output.singles().flat_map(|single| delivered(&single)).collect::<Vec<_>>();
        prop_assert_eq!(with_outputs(&mixed, singles).concat(), whole);
    }
}

#[test]
fn a_complete_packet_is_left_as_it_is() {
    let mut packet = Headers::plain().build(&pattern(100));
    packet[36] ^= 0xff;
    let mut segments = Segments::new(VnetHeader::default(), &packet, 1280).unwrap();
    assert_eq!(segments.checksum(), Checksum::Complete);
    let mut out = [0; 1280];
    let length = segments.write_next_as(Checksum::Partial, &mut out).unwrap().unwrap();
    assert_eq!(out[..length], packet, "its sender made the checksum, right or wrong");
}

#[test]
fn a_checksum_in_an_unusual_place_is_computed_here() {
    let udp = Headers { udp: true, ..Headers::plain() };
    let (vnet, packet) = udp.build_partial(&pattern(100), 0);
    let single = VnetHeader { gso: Gso::None, ..vnet };
    let checksum = |vnet, packet: &[u8]| Segments::new(vnet, packet, 1280).unwrap().checksum();
    assert_eq!(checksum(single, &packet), Checksum::Partial);
    assert_eq!(
        checksum(VnetHeader { csum_start: 22, csum_offset: 4, ..single }, &packet),
        Checksum::Complete
    );
    assert_eq!(checksum(VnetHeader { csum_offset: 8, ..single }, &packet), Checksum::Complete);
    let mut short = packet.clone();
    put_word(&mut short, 24, 50);
    assert_eq!(checksum(single, &short), Checksum::Complete, "a datagram that ends before its packet does");
    let mut other = packet.clone();
    other[9] = 136;
    assert_eq!(checksum(single, &other), Checksum::Complete, "UDP-Lite");
    let mut fragment = packet;
    put_word(&mut fragment, 6, 0x2000);
    assert_eq!(checksum(single, &fragment), Checksum::Complete);
}

#[test]
fn a_super_packet_behind_extension_headers_is_computed_here() {
    let (vnet, plain) = Headers { v6: true, ..Headers::plain() }.build_partial(&pattern(3000), 1000);
    let mut packet = plain[..40].to_vec();
    packet[6] = 60;
    put_word(&mut packet, 4, u16::try_from(plain.len() - 40 + 8).unwrap());
    packet.extend_from_slice(&[6, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(&plain[40..]);
    let segments = Segments::new(vnet, &packet, 1420).unwrap();
    assert_eq!((segments.count(), segments.checksum()), (3, Checksum::Complete));
}

#[test]
fn what_has_no_checksum_to_fill_in_is_refused() {
    let udp = Headers { udp: true, ..Headers::plain() }.build(&pattern(100));
    let changed = |at: usize, value: u8| {
        let mut packet = udp.clone();
        packet[at] = value;
        packet
    };
    for packet in [changed(9, 1), changed(6, 0x20), changed(7, 1), udp[..24].to_vec()] {
        let mut packet = packet;
        let length = u16::try_from(packet.len()).unwrap();
        put_word(&mut packet, 2, length);
        assert!(IpPacket::parse(&packet).is_ok());
        let mut coalescer = Coalescer::new(1, true);
        let refused = coalescer.push_as(Checksum::Partial, &packet, 0..packet.len());
        assert_eq!(refused, Err(Refused::Malformed(Malformed::Checksum)));
        assert!(coalescer.is_empty() && !coalescer.is_full());
        assert_eq!(complete(&mut packet), Err(Malformed::Checksum));
        assert_eq!(coalescer.push(&packet, 0..packet.len()), Ok(()));
    }
}

#[test]
fn a_udp_checksum_is_never_zero() {
    let udp = Headers { udp: true, ..Headers::plain() };
    let payload = |n: u16| n.to_be_bytes();
    let zero = (0..=u16::MAX).find(|n| udp.build(&payload(*n))[26..28] == [0xff, 0xff]).unwrap();
    let (vnet, packet) = udp.build_partial(&payload(zero), 2);
    assert_eq!(completed(&cut_partial(vnet, &packet)[0])[26..28], [0xff, 0xff]);
}
