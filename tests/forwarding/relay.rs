//! Two nodes whose packets go through a third.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use frejus_overlay::forward::Exception;
use frejus_overlay::id::NodeId;
use frejus_overlay::locator::{Channel, Locator};
use frejus_overlay::relay::server::{Channels, DEFAULT_RATE};
use frejus_overlay::verdict::Drop as Reason;
use frejus_overlay::wire;

use crate::{Node, address4, address6, join, measure};

/// The only one of the relay.
const CHANNEL: Channel = Channel(0x1234_5678_9abc_def0);

/// Both ends, and the relay.
pub(crate) fn relayed() -> Option<(Node, Node, Node)> {
    let (mut a, mut b, relay) = (Node::start(1)?, Node::start(2)?, Node::start(3)?);
    let (id_a, id_b) = (NodeId([1; 32]), NodeId([2; 32]));
    let mut channels = Channels::new(100 * DEFAULT_RATE);
    channels.open(CHANNEL, id_a, id_b, relay.clock.instant()).unwrap();
    let (at_a, at_b) = (a.at(), b.at());
    relay.publish(channels.table(|node| Some(if *node == id_a { at_a.into() } else { at_b.into() })));
    let path = Locator::Relayed { relay: relay.at().into(), channel: CHANNEL };
    join(&mut a, &mut b, Some(path), Some(path));
    Some((a, b, relay))
}

#[test]
fn a_relay_passes_on_what_it_cannot_read() {
    let Some((a, b, relay)) = relayed() else { return };
    const TOTAL: usize = if cfg!(debug_assertions) { 12 << 20 } else { 512 << 20 };
    measure("relayed", &a, &b, address4(2).into(), 7201, TOTAL);
    measure("relayed back", &b, &a, address6(1).into(), 7202, TOTAL);
    let counters = relay.forwarding.as_ref().unwrap().counters();
    assert!(counters[1].relayed.load(Ordering::Relaxed) > 2 * TOTAL as u64 / 1300);
    assert!(!a.exceptions.try_iter().any(|exception| matches!(exception, Exception::Strayed { .. })));

    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let frame = [&wire::relay_header(CHANNEL)[..], &[4; 40]].concat();
    stranger.send_to(&frame, relay.at()).unwrap();
    relay.until_dropped(Reason::WrongChannelEnd, 1);
    let nested = [&wire::relay_header(Channel(7))[..], &frame].concat();
    stranger.send_to(&nested, relay.at()).unwrap();
    relay.until_dropped(Reason::UnknownFrame, 1);
}
