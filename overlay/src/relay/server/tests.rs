//! Who may send what through whom, and how much.

use super::*;
use crate::locator::{DoorId, StreamId, Via};
use crate::testing::{address, at, node};

const RATE: u64 = 10_000;
const CHANNEL: Channel = Channel(7);

fn open(by: u8, with: u8) -> Channels {
    let mut channels = Channels::new(RATE);
    assert_eq!(channels.open(CHANNEL, node(by), node(with), at(0)), Ok(true));
    channels
}

fn place(n: u8) -> Endpoint {
    address(n).into()
}

/// Everybody has a tunnel but node 9.
fn whereabouts(of: &NodeId) -> Option<Endpoint> {
    (1..9).find(|n| node(*n) == *of).map(place)
}

#[test]
fn a_frame_goes_from_one_end_to_the_other() {
    let table = open(1, 2).table(whereabouts);
    assert_eq!(table.forward(CHANNEL, place(1), 100, at(0)), Ok(place(2)));
    assert_eq!(table.forward(CHANNEL, place(2), 100, at(0)), Ok(place(1)));
    assert_eq!(table.forward(CHANNEL, place(3), 100, at(0)), Err(Drop::WrongChannelEnd));
    assert_eq!(table.forward(Channel(8), place(1), 100, at(0)), Err(Drop::UnknownChannel));
    let port = std::net::SocketAddr::new(address(1).ip(), 1);
    let door = Endpoint::by_door(DoorId(1), address(1));
    for elsewhere in [port.into(), door] {
        assert_eq!(table.forward(CHANNEL, elsewhere, 100, at(0)), Err(Drop::WrongChannelEnd));
    }
}

#[test]
fn a_channel_works_while_both_ends_are_here() {
    let channels = open(1, 9);
    assert!(channels.table(whereabouts).is_empty());
    assert_eq!(channels.other_end(CHANNEL, node(1)), Some(node(9)));
    assert_eq!(channels.other_end(CHANNEL, node(9)), Some(node(1)));
    assert_eq!(channels.other_end(CHANNEL, node(2)), None);
}

#[test]
fn a_channel_belongs_to_its_two_ends() {
    let mut channels = open(1, 2);
    assert_eq!(channels.open(CHANNEL, node(1), node(2), at(1)), Ok(false));
    assert_eq!(channels.open(CHANNEL, node(2), node(1), at(1)), Ok(false), "either end renews it");
    assert_eq!(channels.open(CHANNEL, node(1), node(3), at(1)), Err(Refusal::Taken));
    assert_eq!(channels.open(CHANNEL, node(3), node(4), at(1)), Err(Refusal::Taken));
    assert_eq!(channels.open(Channel(8), node(1), node(1), at(1)), Err(Refusal::Quota), "not to oneself");
}

#[test]
fn a_channel_that_nobody_renews_is_closed() {
    let mut channels = open(1, 2);
    let life = CHANNEL_LIFE;
    assert_eq!(channels.open(CHANNEL, node(2), node(1), at(0) + life), Ok(false));
    assert!(!channels.expire(at(1) + life));
    assert!(!channels.expire(at(0) + life + life));
    assert!(channels.expire(at(1) + life + life));
    assert!(channels.table(whereabouts).is_empty());
    assert_eq!(channels.open(CHANNEL, node(3), node(4), at(2) + life + life), Ok(true), "and is free again");
}

#[test]
fn a_node_opens_so_many_channels_and_no_more() {
    let mut channels = Channels::new(RATE);
    let open =
        |channels: &mut Channels, n: usize, by| channels.open(Channel(n as u64), node(by), node(2), at(0));
    for n in 0..MAX_CHANNELS_PER_NODE {
        assert_eq!(open(&mut channels, n, 1), Ok(true));
    }
    assert_eq!(open(&mut channels, MAX_CHANNELS_PER_NODE, 1), Err(Refusal::Quota));
    assert_eq!(open(&mut channels, 0, 1), Ok(false), "those it has are renewed");
    let own = channels.open(Channel(u64::MAX), node(2), node(3), at(0));
    assert_eq!(own, Ok(true), "what others open to a node does not count against it");
    assert!(channels.expire(at(1) + CHANNEL_LIFE));
    assert_eq!(open(&mut channels, 0, 1), Ok(true), "and when they are closed there is room");
}

#[test]
fn each_end_pays_for_what_it_sends() {
    let table = open(1, 2).table(whereabouts);
    let sent = (0..100).filter(|_| table.forward(CHANNEL, place(1), 1000, at(0)).is_ok()).count();
    assert_eq!(sent, 11, "a second's budget, and the frame that breaks it");
    assert_eq!(table.forward(CHANNEL, place(1), 1000, at(0)), Err(Drop::RelayQuota));
    assert_eq!(table.forward(CHANNEL, place(2), 1000, at(0)), Ok(place(1)), "the other end is not charged");
    assert_eq!(table.forward(CHANNEL, place(1), 1000, at(200)), Ok(place(2)), "time pays it back");
}

#[test]
fn a_quota_survives_a_new_table() {
    let channels = open(1, 2);
    let table = channels.table(whereabouts);
    while table.forward(CHANNEL, place(1), 1000, at(0)).is_ok() {}
    let next = channels.table(whereabouts).forward(CHANNEL, place(1), 1000, at(0));
    assert_eq!(next, Err(Drop::RelayQuota));
}

#[test]
fn small_frames_at_short_intervals_are_paid_back_too() {
    let quota = Quota::new(1000);
    let micros = |n: u64| Instant::from_start(Duration::from_micros(n * 100));
    let sent = (0..100_000).filter(|n| quota.charge(1, micros(*n))).count();
    // Ten seconds at a thousand bytes, and the second saved up.
    assert!((10_900..=11_100).contains(&sent), "{sent} bytes in ten seconds");
}

#[test]
fn an_end_may_send_by_another_way_than_we_use() {
    let stream = Endpoint { via: Via::Stream(StreamId(3)), at: address(1) };
    let others = |of: &NodeId| if *of == node(1) { vec![stream] } else { Vec::new() };
    let table = open(1, 2).table_of_ways(whereabouts, others);
    assert_eq!(table.forward(CHANNEL, stream, 100, at(0)), Ok(place(2)));
    assert_eq!(table.forward(CHANNEL, place(2), 100, at(0)), Ok(place(1)), "back by the way that we use");
    let stranger = Endpoint { via: Via::Stream(StreamId(5)), at: address(1) };
    assert_eq!(table.forward(CHANNEL, stranger, 100, at(0)), Err(Drop::WrongChannelEnd));
}
