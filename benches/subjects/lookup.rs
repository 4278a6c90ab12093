//! What forwarding asks its table.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use frejus::clock::Clock;
use frejus::wireguard::Wireguard;
use frejus_overlay::forward::{Outward, Slot, SlotCounters, SlotId, Table};
use frejus_overlay::locator::{Endpoint, Locator};
use frejus_overlay::path_mtu::Mtu;
use frejus_overlay::relay::server::RelayTable;
use frejus_overlay::tunnel::Crypto;
use x25519_dalek::StaticSecret;

use super::{Entry, Subject};

/// One peer, a busy super peer, and everybody.
const PEERS: [u16; 3] = [1, 1000, 5500];
/// A step through the peers that meets each, and has no two neighbours in one cache line.
const STEP: u16 = 1009;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for peers in PEERS {
        let make = move |what| Walk { table: table(peers), peers, at: 0, what };
        let outward = move || make(What::Outward);
        entries.push(Entry::new(format!("table/outward/{peers}"), 0, outward));
        entries.push(Entry::new(format!("table/by receiver/{peers}"), 0, move || make(What::Receiver)));
    }
    entries
}

fn table(peers: u16) -> Table {
    let mut node = Wireguard::new(StaticSecret::from([1; 32]), Clock::start());
    let other = Wireguard::new(StaticSecret::from([2; 32]), Clock::start()).public();
    let tunnel = node.tunnel(&other, 1);
    let slot = |number: u16| Slot {
        id: SlotId(number),
        index: number.into(),
        tunnel: Arc::clone(&tunnel),
        path: Some(Locator::Direct(Endpoint::main(([203, 0, 113, 1], 51860).into()))),
        also: None,
        mtu: Mtu::UNKNOWN,
        address4: peer(number),
        address6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number),
        counters: Arc::new(SlotCounters::default()),
    };
    let own6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    Table::new(OWN, own6, (0..peers).map(slot), RelayTable::default())
}

const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 255, 255);

fn peer(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

#[derive(Clone, Copy)]
enum What {
    Outward,
    Receiver,
}

/// One question a run, each time about another peer.
struct Walk {
    table: Table,
    peers: u16,
    at: u16,
    what: What,
}

impl Subject for Walk {
    fn run(&mut self) {
        self.at = (self.at + STEP) % self.peers;
        match self.what {
            What::Outward => {
                let decision = self.table.outward(OWN.into(), black_box(peer(self.at).into()));
                assert!(matches!(decision, Outward::Send(slot, _) if slot.id.0 == self.at));
            }
            What::Receiver => {
                let slot = self.table.by_receiver(black_box(u32::from(self.at) << 8));
                assert!(slot.is_some_and(|slot| slot.id.0 == self.at));
            }
        }
    }
}
