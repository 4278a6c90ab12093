//! Decisions about one packet.

use std::sync::Mutex;

use super::*;
use crate::testing::address;
use crate::tunnel_model::Exclusive;

struct NoTunnel;

impl Exclusive for NoTunnel {}

const OWN4: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 1);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

fn v4(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 93, 1, n).into()
}

fn v6(n: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, u16::from(n)).into()
}

/// Peer `n` in slot `n`, its tunnel the `generation`th there.
fn slot(n: u8, generation: u32, path: Option<Locator>) -> Slot {
    let (IpAddr::V4(address4), IpAddr::V6(address6)) = (v4(n), v6(n)) else { unreachable!() };
    Slot {
        id: SlotId(u16::from(n)),
        index: generation << SLOT_BITS | u32::from(n),
        tunnel: Arc::new(Mutex::new(NoTunnel)),
        path,
        also: None,
        mtu: Mtu::UNKNOWN,
        address4,
        address6,
        counters: Arc::default(),
    }
}

fn table(slots: impl IntoIterator<Item = Slot>) -> Table {
    Table::new(OWN4, OWN6, slots, RelayTable::default())
}

#[test]
fn a_late_packet_for_the_last_holder_of_a_slot_finds_nobody() {
    let old = table([slot(3, 5, None)]);
    let receiver = |generation: u32, n: u32, session: u32| (generation << SLOT_BITS | n) << 8 | session;
    for session in [0, 1, 255] {
        assert_eq!(old.by_receiver(receiver(5, 3, session)).map(|slot| slot.id), Some(SlotId(3)));
    }
    let new = table([slot(3, 6, None)]);
    assert!(new.by_receiver(receiver(5, 3, 1)).is_none());
    assert!(new.by_receiver(receiver(6, 2, 1)).is_none(), "an empty slot");
    assert!(new.by_receiver(receiver(6, 4, 1)).is_none(), "beyond the last");
    assert!(new.by_receiver(u32::MAX).is_none());
}

#[test]
fn a_peer_may_send_from_its_two_addresses_only() {
    let slot = slot(3, 0, None);
    assert!(slot.owns(v4(3)) && slot.owns(v6(3)));
    for other in [v4(4), v6(4), OWN4.into(), OWN6.into(), "0.0.0.0".parse().unwrap(), "::".parse().unwrap()] {
        assert!(!slot.owns(other), "{other}");
    }
}

#[test]
fn what_came_in_goes_to_the_device_to_control_or_nowhere() {
    let peer = slot(3, 0, None);
    let table = table([peer.clone(), slot(4, 0, None)]);
    let inward = |from, to, is_control| table.inward(&peer, from, to, is_control);
    assert_eq!(inward(v4(3), OWN4.into(), false), Inward::Deliver);
    assert_eq!(inward(v6(3), OWN6.into(), false), Inward::Deliver);
    assert_eq!(inward(v6(3), OWN6.into(), true), Inward::Control);
    assert_eq!(inward(v4(4), OWN4.into(), false), Inward::Drop(Drop::SpoofedSource));
    assert_eq!(inward(v6(4), OWN6.into(), true), Inward::Drop(Drop::SpoofedSource));
    assert_eq!(inward(OWN4.into(), OWN4.into(), false), Inward::Drop(Drop::SpoofedSource));
    assert_eq!(inward(v4(3), v4(4), false), Inward::Drop(Drop::ForeignDestination), "nobody is a router");
    assert_eq!(inward(v6(3), v6(4), true), Inward::Drop(Drop::ForeignDestination));
}

#[test]
fn what_goes_out_has_our_source_and_a_path() {
    let path = Locator::Direct(address(3).into());
    let table = table([slot(3, 0, Some(path)), slot(4, 0, None)]);
    for (from, to) in [(OWN4.into(), v4(3)), (OWN6.into(), v6(3))] {
        let Outward::Send(slot, locator) = table.outward(from, to) else { panic!("{to} has a path") };
        assert_eq!((slot.id, locator), (SlotId(3), path));
    }
    assert!(matches!(table.outward(OWN4.into(), v4(4)), Outward::Ask), "no session");
    assert!(matches!(table.outward(OWN4.into(), v4(5)), Outward::Ask), "no peer");
    assert!(matches!(table.outward(v4(3), v4(4)), Outward::Drop(Drop::ForeignSource)));
    assert!(matches!(table.outward(v6(9), v6(3)), Outward::Drop(Drop::ForeignSource)));
}

#[test]
fn the_first_data_after_a_silence_wakes_control_once() {
    let counters = SlotCounters::default();
    assert!(counters.sent(10));
    assert!(!counters.sent(10));
    counters.awake.store(false, Ordering::Relaxed);
    assert!(counters.sent(10));
    counters.received(7);
    assert_eq!(
        (counters.tx_bytes.load(Ordering::Relaxed), counters.rx_bytes.load(Ordering::Relaxed)),
        (30, 7)
    );
}

/// The slot that a packet to `destination` would go to; every slot needs a path.
fn found(table: &Table, destination: IpAddr) -> Option<SlotId> {
    match table.outward(OWN4.into(), destination) {
        Outward::Send(slot, _) => Some(slot.id),
        Outward::Ask | Outward::Drop(_) => None,
    }
}

fn reached(n: u8) -> Slot {
    slot(n, 0, Some(Locator::Direct(address(n).into())))
}

#[test]
fn a_changed_copy_leaves_the_original_as_it_was() {
    let old = table((1..=200).map(reached));
    let mut new = old.clone();
    new.remove(SlotId(7));
    new.set(Slot { address4: Ipv4Addr::new(10, 93, 2, 2), ..reached(9) });
    assert_eq!((found(&old, v4(7)), found(&new, v4(7))), (Some(SlotId(7)), None));
    assert_eq!((found(&old, v6(7)), found(&new, v6(7))), (Some(SlotId(7)), None));
    assert_eq!((found(&old, v4(9)), found(&new, v4(9))), (Some(SlotId(9)), None));
    assert_eq!(found(&new, Ipv4Addr::new(10, 93, 2, 2).into()), Some(SlotId(9)));
    for n in (1..=200).filter(|n| ![7, 9].contains(n)) {
        assert_eq!(found(&new, v4(n)), Some(SlotId(n.into())));
    }
    let shared = old.chunks.iter().zip(&new.chunks).filter(|(old, new)| Arc::ptr_eq(old, new)).count();
    assert_eq!(shared, old.chunks.len() - 1, "only what changed is copied");
}

#[test]
fn an_address_that_two_claimed_stays_with_the_one_who_stays() {
    let twin = || Slot { address4: reached(1).address4, ..reached(2) };
    for gone in [1, 2] {
        let mut table = table([reached(1), twin(), reached(3)]);
        assert_eq!(found(&table, v4(1)), Some(SlotId(2)), "the last to come");
        table.remove(SlotId(gone));
        assert_eq!(found(&table, v4(1)), Some(SlotId(3 - gone)));
        table.remove(SlotId(3 - gone));
        assert_eq!(found(&table, v4(1)), None);
        assert!(table.by_address.len() == 2 && table.contested.is_empty());
    }
}

#[test]
fn a_second_address_of_ours_is_named_before_another_super_peers() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let (one, other, third) = (ip("203.0.113.101"), ip("203.0.113.151"), ip("198.51.100.1"));
    let mut table = Table::new(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, [], RelayTable::default());
    table.other_stun = Some(third);
    table.own_stun = vec![one];
    assert_eq!(table.elsewhere(Some(one)), (Some(third), false), "there is no second one");
    table.own_stun.push(other);
    assert_eq!(table.elsewhere(Some(one)), (Some(other), true));
    assert_eq!(table.elsewhere(Some(ip("::ffff:203.0.113.151"))), (Some(one), true));
    assert_eq!(table.elsewhere(Some(ip("192.168.1.7"))), (Some(third), false), "who asks from inside");
    assert_eq!(table.elsewhere(None), (Some(third), false));
}
