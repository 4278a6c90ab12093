//! Transport keys between two nodes, as control would agree on them.

use frejus::clock::Clock;
use frejus::transport::Transport;
use frejus::wireguard::Wireguard;
use frejus_overlay::agreement::{Binding, Party};
use frejus_overlay::id::{NetworkId, NodeId};
use frejus_overlay::tunnel::{Content, Crypto, Opened, seal_one, seal_one_as};

use x25519_dalek::StaticSecret;

use crate::Node;

/// The tunnel key of node `number`, and what it says of partial checksums.
pub(crate) fn node(number: u8, partial: bool, clock: &Clock) -> Wireguard {
    let secret = StaticSecret::from([number + 0x40; 32]);
    Wireguard::new(secret, clock.clone()).carrying(Transport { partial, ..Transport::default() })
}

/// The nodes, who have a session that `a` initiated, agree on keys and use them. Whether checksums may be partial then.
pub(crate) fn agree(a: &Node, b: &Node) -> bool {
    let (to_b, to_a) = (&*a.slots[0].tunnel, &*b.slots[0].tunnel);
    let party = |node: &Node| Party { node: NodeId([node.number; 32]), key: node.crypto.public() };
    let binding = Binding { network: NetworkId([7; 32]), offerer: party(a), answerer: party(b) };
    let offer = to_b.offer(a.clock.instant()).unwrap();
    let answer = to_a.answer(&offer, &binding, b.clock.instant()).unwrap();
    assert!(to_b.accept(&answer, &binding, a.clock.instant()));
    let mut first = seal_one(to_b, &[]).unwrap();
    assert_eq!(to_a.open(&mut first), Opened::Keepalive);
    assert!(to_a.protection().is_some_and(|protection| protection.post_quantum));
    let partial = |tunnel| seal_one_as(tunnel, Content::Partial, &[0x45; 40]).is_some();
    assert_eq!(partial(to_b), partial(to_a));
    partial(to_b)
}
