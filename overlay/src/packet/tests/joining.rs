//! What is joined and what is not, case by case.

use super::{Headers, Step, arena_of, coalesced, packet_of, pattern};
use crate::packet::Malformed;
use crate::packet::coalesce::{Coalescer, Refused, SINGLE};

/// Groups, by their counts, that packets `count` of one flow make when the middle one is changed.
fn groups_with(change: impl Fn(&mut Headers)) -> Vec<usize> {
    let mut flow = Headers::plain();
    let step = Step { flow: 0, size: 1000, event: 0 };
    let mut packets = vec![packet_of(&mut flow, &step), packet_of(&mut flow, &step)];
    change(&mut flow);
    packets.extend([packet_of(&mut flow, &step), packet_of(&mut flow, &step)]);
    coalesced(&packets, true).iter().map(|(count, ..)| *count).collect()
}

#[test]
fn only_what_the_kernel_would_join_is_joined() {
    assert_eq!(groups_with(|_| {}), [4]);
    assert_eq!(groups_with(|flow| flow.sequence += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.acknowledgment += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.window += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.urgent += 1), [2, 2], "idle without its flag, but not ours to lose");
    assert_eq!(groups_with(|flow| flow.ttl += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.class = 3), [2, 2]);
    assert_eq!(groups_with(|flow| flow.options = 4), [2, 2]);
    assert_eq!(groups_with(|flow| flow.dont_fragment = false), [2, 2]);
    assert_eq!(groups_with(|flow| flow.ece = true), [2, 2]);
    assert_eq!(groups_with(|flow| flow.port += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.host += 1), [2, 2]);
    assert_eq!(groups_with(|flow| flow.id += 1), [4], "never fragmented: the identification is idle");
}

#[test]
fn identification_counts_where_fragments_are_allowed() {
    let mut flow = Headers { dont_fragment: false, ..Headers::plain() };
    let step = Step { flow: 0, size: 1000, event: 0 };
    let first = packet_of(&mut flow, &step);
    flow.id += 1;
    assert_eq!(coalesced(&[first, packet_of(&mut flow, &step)], true).len(), 2);
}

#[test]
fn interleaved_flows_each_make_one_write() {
    let mut flows: Vec<_> =
        (0..8).map(|host| Headers { host, v6: host % 2 == 0, ..Headers::plain() }).collect();
    let step = Step { flow: 0, size: 1200, event: 0 };
    let packets: Vec<_> = (0..80).map(|index| packet_of(&mut flows[index % 8], &step)).collect();
    assert!(coalesced(&packets, false).iter().map(|(count, ..)| *count).eq([10; 8]));
}

#[test]
fn a_group_ends_at_its_limits() {
    let counts = |size: usize, packets: usize| -> Vec<usize> {
        let mut flow = Headers::plain();
        let step = Step { flow: 0, size, event: 0 };
        let packets: Vec<_> = (0..packets).map(|_| packet_of(&mut flow, &step)).collect();
        coalesced(&packets, false).iter().map(|(count, ..)| *count).collect()
    };
    assert_eq!(counts(100, 130), [64, 64, 2], "64 segments");
    assert_eq!(counts(1368, 60), [47, 13], "65,535 bytes");
}

#[test]
fn udp_is_joined_only_where_allowed() {
    let packets = vec![Headers { udp: true, ..Headers::plain() }.build(&pattern(500)); 3];
    assert_eq!(coalesced(&packets, false).len(), 3);
    assert_eq!(coalesced(&packets, true).len(), 1);
    let mut unsummed = packets;
    unsummed.iter_mut().for_each(|packet| packet[26..28].fill(0));
    assert_eq!(coalesced(&unsummed, true).len(), 3, "the kernel joins no UDP without a checksum");
}

#[test]
fn single_packets_stay_as_they_came() {
    let mut flow = Headers::plain();
    let ack = packet_of(&mut flow, &Step { flow: 0, size: 0, event: 0 });
    let (arena, ranges) = arena_of(std::slice::from_ref(&ack));
    let mut coalescer = Coalescer::new(1, true);
    coalescer.push(&arena, ranges[0].clone()).unwrap();
    let output = coalescer.outputs(&arena).next().unwrap();
    assert_eq!(output.header(), SINGLE);
    assert!(output.slices().eq([&ack[..]]));
}

#[test]
fn a_full_batch_says_so_and_can_be_used_again() {
    let packet = Headers::plain().build(b"x");
    let mut coalescer = Coalescer::new(1, true);
    assert_eq!(coalescer.push(&packet, 0..packet.len()), Ok(()));
    assert_eq!(coalescer.push(&packet, 0..packet.len()), Err(Refused::Full));
    coalescer.clear();
    assert!(coalescer.is_empty());
    assert_eq!(coalescer.push(&packet, 0..10), Err(Refused::Malformed(Malformed::Truncated)));
    assert_eq!(coalescer.push(&packet, 0..packet.len()), Ok(()));
}
