//! Ten nodes, every NAT class among them, all talking to each other.

use frejus_netns::daemon::LIMIT;
use frejus_netns::scene::{first_ping, founder};
use frejus_netns::{Daemon, Lab, Nat, NatClass, wait_for};

use NatClass::{
    AddressRestricted, Firewalled, FullCone, Open, PortRestricted, SymmetricRandom, SymmetricSequential,
};

/// Nine homes; the founder is the tenth node.
const HOMES: [NatClass; 9] = [
    Open,
    Firewalled,
    FullCone,
    AddressRestricted,
    PortRestricted,
    PortRestricted,
    SymmetricSequential,
    SymmetricRandom,
    SymmetricRandom,
];

/// Pairs that simultaneous punching, or plain reachability, must make direct.
fn can_be_direct(one: NatClass, other: NatClass) -> bool {
    let hard = |class| matches!(class, SymmetricSequential | SymmetricRandom);
    !hard(one) && !hard(other)
}

#[test]
fn ten_nodes_all_talk() {
    let Some(mut lab) = Lab::new("ten_nodes") else { return };
    let (s, _) = founder(&mut lab);
    let code = s.invite(9);
    let homes: Vec<Daemon> = (0..)
        .zip(HOMES)
        .map(|(i, class)| Daemon::join(&lab.home(&format!("h{i}"), Nat::from(class)), &code))
        .collect();
    for home in &homes {
        let took = home.wait_ready();
        eprintln!("{}: ready, {took:?} after the one before", home.host.name);
    }
    let all: Vec<&Daemon> = std::iter::once(&s).chain(&homes).collect();
    let addresses: Vec<String> = all.iter().map(|node| node.ipv4().to_string()).collect();
    let distinct = addresses.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(distinct.len(), 10, "ten leases: {addresses:?}");

    for (i, from) in all.iter().enumerate() {
        for (_, to) in addresses.iter().enumerate().filter(|(j, _)| *j != i) {
            first_ping(&from.host, to);
        }
    }
    for (i, (home, class)) in homes.iter().zip(HOMES).enumerate() {
        for (other, far) in homes.iter().zip(HOMES).skip(i + 1) {
            let id = other.id();
            if can_be_direct(class, far) {
                let what = format!("{class:?} and {far:?} are direct");
                let direct = || home.path_to(&id).is_some_and(|path| path.kind == "direct");
                wait_for(&what, LIMIT * 2, direct);
            }
            let kind = home.path_to(&id).map(|path| format!("{} {}", path.kind, path.method));
            eprintln!("{class:?} - {far:?}: {}", kind.unwrap_or_default());
        }
    }
    let memory = homes.iter().map(Daemon::resident_kib).max().unwrap_or(0);
    eprintln!(
        "resident memory of a peer with nine tunnels: {memory} KiB at most (target 40 MB, release build)"
    );
}
