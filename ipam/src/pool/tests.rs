//! Stories of one pool, and the law of the crate under random deeds over two.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const GRACE: u64 = 50;

fn holder(n: u8) -> Holder {
    [n; 32]
}

fn prefix() -> Ipv4Network {
    "10.93.0.0/28".parse().unwrap()
}

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 93, 0, last)
}

/// All 14 addresses of a /28.
fn pool() -> Pool {
    Pool::new(prefix(), Block::whole(prefix()), GRACE).unwrap()
}

#[test]
fn a_holder_that_comes_again_gets_the_same_address() {
    let mut pool = pool();
    let address = pool.lease(holder(1), 0, 100).unwrap();
    assert_eq!(pool.lease(holder(1), 50, 150), Ok(address));
    assert_eq!(pool.renew(holder(1), 180, 280), Ok(address), "in grace");
    assert_eq!(pool.lease_of(&holder(1)).unwrap().until, 280);
    assert_eq!(pool.counts(200), Counts { held: 1, grace: 0, reserved: 0, free: 13 });
}

#[test]
fn a_network_built_anew_finds_its_nodes_at_the_same_places() {
    let whole: Ipv4Network = "10.93.0.0/16".parse().unwrap();
    let mut first = Pool::new(whole, Block::whole(whole), GRACE).unwrap();
    let mut again = first.clone();
    let before: Vec<_> = (0..20).map(|n| first.lease(holder(n), 0, 100).unwrap()).collect();
    let mut after: Vec<_> = (0..20).rev().map(|n| again.lease(holder(n), 0, 100).unwrap()).collect();
    after.reverse();
    assert_eq!(before, after);
}

#[test]
fn a_lease_is_never_shortened() {
    let mut pool = pool();
    let address = pool.lease(holder(1), 0, 1000).unwrap();
    pool.lease(holder(1), 10, 20).unwrap();
    pool.release(&holder(1)).unwrap();
    assert_eq!(pool.lease_pinned(holder(2), address, 1049, 2000), Err(PoolError::Taken(address)));
    assert_eq!(pool.lease_pinned(holder(2), address, 1050, 2000), Ok(()));
}

#[test]
fn a_released_address_is_kept_through_the_grace() {
    let mut pool = pool();
    let address = pool.lease(holder(1), 0, 100).unwrap();
    let released = pool.release(&holder(1)).unwrap();
    assert_eq!(released, Lease { address, holder: holder(1), until: 100, released: true });
    assert_eq!(pool.release(&holder(1)), Ok(released));
    assert_eq!(pool.counts(10), Counts { held: 0, grace: 1, reserved: 0, free: 13 });
    assert_eq!(pool.renew(holder(1), 10, 200), Err(PoolError::NotHeld(pool.block())));
    assert_eq!(pool.expire(149), []);
    assert_eq!(pool.lease(holder(1), 149, 200), Ok(address), "its holder may have it back");
    pool.release(&holder(1)).unwrap();
    assert_eq!(pool.expire(250).len(), 1);
    assert_eq!(pool.release(&holder(1)), Err(PoolError::NotHeld(pool.block())));
    assert_eq!(pool.counts(250).free, 14);
}

#[test]
fn an_exhausted_pool_says_so_and_recovers() {
    let mut pool = pool();
    let mut given: Vec<_> = (0..14).map(|n| pool.lease(holder(n), 0, 100 + u64::from(n)).unwrap()).collect();
    let first = given[0];
    given.sort();
    assert_eq!(given, (1..15).map(at).collect::<Vec<_>>());
    assert_eq!(pool.lease(holder(99), 149, 300), Err(PoolError::Exhausted(pool.block())));
    assert_eq!(pool.reserve(first), Err(PoolError::Taken(first)));
    assert_eq!(pool.lease(holder(99), 150, 300), Ok(first), "the one whose grace is over");
}

#[test]
fn a_block_without_usable_addresses_is_exhausted_at_once() {
    let block: Block = "10.93.0.0/32".parse().unwrap();
    let mut pool = Pool::new(prefix(), block, GRACE).unwrap();
    assert_eq!(pool.lease(holder(1), 0, 100), Err(PoolError::Exhausted(block)));
    assert_eq!(pool.reserve(at(0)), Err(PoolError::Outside { address: at(0), block }));
    assert_eq!(pool.counts(0), Counts::default());
}

#[test]
fn a_pinned_address_is_had_or_refused_by_name() {
    let mut pool = pool();
    let block = pool.block();
    assert_eq!(pool.lease_pinned(holder(1), at(1), 0, 100), Ok(()));
    assert_eq!(pool.lease_pinned(holder(1), at(1), 0, 120), Ok(()));
    assert_eq!(pool.lease(holder(1), 0, 100), Ok(at(1)));
    assert_eq!(pool.lease_pinned(holder(2), at(1), 0, 100), Err(PoolError::Taken(at(1))));
    assert_eq!(pool.lease_pinned(holder(1), at(2), 0, 100), Err(PoolError::Holds(at(1))));
    for outside in [at(0), at(15), at(16)] {
        let refused = PoolError::Outside { address: outside, block };
        assert_eq!(pool.lease_pinned(holder(2), outside, 0, 100), Err(refused));
    }
    assert!(PoolError::Taken(at(1)).to_string().starts_with("10.93.0.1 is taken:"));
}

#[test]
fn a_holder_moves_to_a_pinned_address_once_its_own_is_released() {
    let mut pool = pool();
    pool.lease_pinned(holder(1), at(1), 0, 100).unwrap();
    pool.release(&holder(1)).unwrap();
    assert_eq!(pool.lease_pinned(holder(1), at(2), 10, 300), Ok(()));
    assert_eq!(pool.lease_pinned(holder(2), at(1), 149, 300), Err(PoolError::Taken(at(1))));
    assert_eq!(pool.expire(150).len(), 1);
    assert_eq!(pool.lease(holder(1), 150, 400), Ok(at(2)), "the old address took nothing along");
}

#[test]
fn a_reserved_address_waits_for_its_invitation() {
    let mut pool = pool();
    pool.reserve(at(3)).unwrap();
    assert_eq!(pool.reserve(at(3)), Err(PoolError::Taken(at(3))));
    assert_eq!(pool.lease_pinned(holder(1), at(3), 0, 100), Err(PoolError::Taken(at(3))));
    for n in 1..14 {
        assert_ne!(pool.lease(holder(n), 0, 100), Ok(at(3)));
    }
    assert_eq!(pool.lease(holder(20), 0, 100), Err(PoolError::Exhausted(pool.block())));
    assert!(matches!(pool.lease_reserved(holder(1), at(3), 0, 100), Err(PoolError::Holds(_))));
    assert_eq!(pool.reserved().collect::<Vec<_>>(), [at(3)], "a refusal leaves the reservation");
    assert_eq!(pool.lease_reserved(holder(20), at(3), 0, 100), Ok(()));
    assert_eq!(
        pool.lease_reserved(holder(20), at(3), 0, 100),
        Ok(()),
        "the answer was lost, the node asks again"
    );
    assert_eq!(pool.lease_reserved(holder(21), at(3), 0, 100), Err(PoolError::NotReserved(at(3))));
}

#[test]
fn an_unreserved_address_is_free_again() {
    let mut pool = pool();
    pool.reserve(at(3)).unwrap();
    assert!(pool.unreserve(at(3)));
    assert!(!pool.unreserve(at(3)));
    assert_eq!(pool.lease_pinned(holder(1), at(3), 0, 100), Ok(()));
}

#[test]
fn what_has_ended_is_not_leased() {
    let mut pool = pool();
    assert_eq!(pool.lease(holder(1), 100, 100), Err(PoolError::Ended { until: 100, now: 100 }));
    assert_eq!(pool.counts(100).free, 14);
}

#[test]
fn a_block_of_another_network_makes_no_pool() {
    let block: Block = "10.94.0.0/28".parse().unwrap();
    let refused = Pool::new(prefix(), block, GRACE).err();
    assert_eq!(refused, Some(PoolError::NotInPrefix { block, prefix: prefix() }));
}

#[test]
fn a_ledger_may_be_restored_in_any_order_and_twice() {
    let old = Lease { address: at(1), holder: holder(1), until: 500, released: true };
    let new = Lease { address: at(2), holder: holder(1), until: 300, released: false };
    for order in [[old, new, old], [new, old, new]] {
        let mut pool = pool();
        for lease in order {
            pool.restore(lease).unwrap();
        }
        assert_eq!(pool.lease_of(&holder(1)), Some(&new));
        assert_eq!(pool.leases().count(), 2);
    }
}

#[test]
fn a_renewal_by_another_login_server_counts() {
    let mut pool = pool();
    let address = pool.lease(holder(1), 0, 100).unwrap();
    pool.restore(Lease { address, holder: holder(1), until: 400, released: false }).unwrap();
    pool.restore(Lease { address, holder: holder(1), until: 100, released: true }).unwrap();
    assert_eq!(pool.expire(300), []);
    assert_eq!(pool.renew(holder(1), 300, 600), Ok(address));
}

#[test]
fn a_ledger_that_contradicts_itself_is_refused() {
    let mut pool = pool();
    let lease = Lease { address: at(1), holder: holder(1), until: 100, released: false };
    pool.restore(lease).unwrap();
    assert_eq!(pool.restore(Lease { holder: holder(2), ..lease }), Err(PoolError::Taken(at(1))));
    assert!(matches!(pool.restore(Lease { address: at(0), ..lease }), Err(PoolError::Outside { .. })));
    pool.reserve(at(4)).unwrap();
    assert_eq!(pool.restore(Lease { address: at(4), ..lease }), Err(PoolError::Taken(at(4))));
}

/// What may happen to a pool, apart from the time passing.
#[derive(Debug, Clone)]
enum Deed {
    Lease { holder: u8, term: u64 },
    Pin { holder: u8, last: u8, term: u64 },
    Redeem { holder: u8, last: u8, term: u64 },
    Renew { holder: u8, term: u64 },
    Release { holder: u8 },
    Reserve { last: u8 },
    Unreserve { last: u8 },
    Expire,
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<(bool, u64, Deed)>> {
    let (holder, last, term) = (0..20u8, 0..16u8, 1..60u64);
    let deed = prop_oneof![
        6 => (holder.clone(), term.clone()).prop_map(|(holder, term)| Deed::Lease { holder, term }),
        3 => (holder.clone(), last.clone(), term.clone())
            .prop_map(|(holder, last, term)| Deed::Pin { holder, last, term }),
        2 => (holder.clone(), last.clone(), term.clone())
            .prop_map(|(holder, last, term)| Deed::Redeem { holder, last, term }),
        2 => (holder.clone(), term).prop_map(|(holder, term)| Deed::Renew { holder, term }),
        3 => holder.prop_map(|holder| Deed::Release { holder }),
        2 => last.clone().prop_map(|last| Deed::Reserve { last }),
        1 => last.prop_map(|last| Deed::Unreserve { last }),
        1 => Just(Deed::Expire),
        1 => Just(Deed::Restart),
    ];
    proptest::collection::vec((any::<bool>(), 0..25u64, deed), 1..200)
}

/// The address that a deed gave, and to whom until when.
type Grant = Option<(Ipv4Addr, u8, u64)>;

fn apply(pool: &mut Pool, deed: &Deed, now: u64) -> Grant {
    match *deed {
        Deed::Lease { holder: h, term } => {
            Some((pool.lease(holder(h), now, now + term).ok()?, h, now + term))
        }
        Deed::Renew { holder: h, term } => {
            Some((pool.renew(holder(h), now, now + term).ok()?, h, now + term))
        }
        Deed::Pin { holder: h, last, term } => {
            pool.lease_pinned(holder(h), at(last), now, now + term).ok()?;
            Some((at(last), h, now + term))
        }
        Deed::Redeem { holder: h, last, term } => {
            pool.lease_reserved(holder(h), at(last), now, now + term).ok()?;
            Some((at(last), h, now + term))
        }
        Deed::Release { holder: h } => pool.release(&holder(h)).ok().and(None),
        Deed::Reserve { last } => pool.reserve(at(last)).ok().and(None),
        Deed::Unreserve { last } => {
            pool.unreserve(at(last));
            None
        }
        Deed::Expire => {
            pool.expire(now);
            None
        }
        Deed::Restart => {
            *pool = rebuilt(pool);
            None
        }
    }
}

/// The pool as it would be after a restart, from its ledger.
fn rebuilt(pool: &Pool) -> Pool {
    let mut again = Pool::new(prefix(), pool.block(), GRACE).unwrap();
    pool.reserved().for_each(|address| again.reserve(address).unwrap());
    pool.leases().for_each(|lease| again.restore(*lease).unwrap());
    again
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_address_never_has_two_holders(deeds in deeds()) {
        let (low, high) = Block::whole(prefix()).halves().unwrap();
        let mut pools = [low, high].map(|block| Pool::new(prefix(), block, GRACE).unwrap());
        // Who could still show a passport for an address, and until when, grace included.
        let mut shown: BTreeMap<Ipv4Addr, (u8, u64)> = BTreeMap::new();
        let mut now = 1_000;
        for (second, step, deed) in deeds {
            now += step;
            let pool = &mut pools[usize::from(second)];
            let kept: Vec<_> = pool.reserved().collect();
            if let Some((address, by, until)) = apply(pool, &deed, now) {
                prop_assert!(pool.block().contains(address));
                prop_assert!(matches!(deed, Deed::Redeem { .. }) || !kept.contains(&address), "reserved {address}");
                let lease = *pool.lease_of(&holder(by)).expect("it has just been leased");
                prop_assert_eq!(lease.address, address);
                prop_assert!(lease.until >= until && !lease.released);
                let end = shown.entry(address).or_insert((by, 0));
                prop_assert!(end.0 == by || end.1 <= now, "{address} of {} until {} given to {by}", end.0, end.1);
                *end = (by, if end.0 == by { end.1.max(until + GRACE) } else { until + GRACE });
            }
            let counts = pool.counts(now);
            prop_assert_eq!(counts.held + counts.grace + counts.reserved + counts.free, 7);
            prop_assert_eq!(pool.leases.len(), pool.frees.len());
            prop_assert!(pool.current.iter().all(|(holder, address)| pool.leases[address].holder == *holder));
        }
    }

    #[test]
    fn a_restart_forgets_nothing(deeds in deeds()) {
        let block = Block::whole(prefix());
        let mut pool = Pool::new(prefix(), block, GRACE).unwrap();
        let mut now = 1_000;
        for (_, step, deed) in deeds {
            now += step;
            apply(&mut pool, &deed, now);
        }
        let again = rebuilt(&pool);
        prop_assert_eq!(pool.leases, again.leases);
        prop_assert_eq!(pool.frees, again.frees);
        prop_assert_eq!(pool.reserved, again.reserved);
        prop_assert_eq!(
            pool.current.keys().collect::<Vec<_>>(),
            again.current.keys().collect::<Vec<_>>()
        );
    }
}
