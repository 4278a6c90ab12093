//! What may lie under which key.

use proptest::prelude::*;

use super::*;
use crate::document::{Passport, Roles};
use crate::testing::{DAY, NOW, Town, node};

const A: u8 = 1;

fn passport_record(town: &Town, n: u8) -> Vec<u8> {
    Record::Passport(town.credential(n, Roles::PEER)).encode()
}

fn whereabouts_record(town: &Town, n: u8) -> Vec<u8> {
    Record::Whereabouts(town.contact(n, Roles::PEER)).encode()
}

/// The five keys of node `n`.
fn all_keys(town: &Town, n: u8) -> Vec<RecordKey> {
    let member = town.member(&town.passport(n, Roles::PEER));
    let whereabouts = RecordKey::whereabouts(&town.network.id, &node(n));
    keys(&town.network, &member).into_iter().chain([whereabouts]).collect()
}

#[test]
fn each_record_fits_its_own_keys_only() {
    let town = Town::new();
    let (own, others) = (all_keys(&town, A), all_keys(&town, 2));
    let passport = |key| check(&town.network, key, &passport_record(&town, A), NOW).map(|found| found.node());
    let place = |key| check(&town.network, key, &whereabouts_record(&town, A), NOW).map(|found| found.node());
    for key in &own[..4] {
        assert_eq!(passport(key), Ok(node(A)));
        assert_eq!(place(key), Err(Invalid::Subject));
    }
    assert_eq!(place(&own[4]), Ok(node(A)));
    assert_eq!(passport(&own[4]), Err(Invalid::Subject));
    for key in &others {
        assert_eq!(passport(key), Err(Invalid::Subject));
        assert_eq!(place(key), Err(Invalid::Subject));
    }
}

#[test]
fn the_keys_of_a_node_all_differ_and_depend_on_the_network() {
    let keys: std::collections::BTreeSet<RecordKey> =
        [Town::new(), Town::named("other")].iter().flat_map(|town| all_keys(town, A)).collect();
    assert_eq!(keys.len(), 10);
}

#[test]
fn the_newer_of_two_has_the_greater_sequence() {
    let town = Town::new();
    let key = all_keys(&town, A)[0];
    let sequence = |serial| {
        let passport = Passport { serial, ..town.passport(A, Roles::PEER) };
        let value = Record::Passport(town.sign_passport(&passport)).encode();
        check(&town.network, &key, &value, NOW).unwrap().sequence()
    };
    assert!(sequence(8) > sequence(7));
}

#[test]
fn a_record_is_true_as_long_as_its_document() {
    let town = Town::new();
    let keys = all_keys(&town, A);
    let check =
        |key, value: &[u8], now| check(&town.network, key, value, now).map(|found| found.expires_in(now));
    let minute = Duration::from_secs(60);
    assert_eq!(check(&keys[0], &passport_record(&town, A), NOW + DAY), Ok(DAY * 29));
    assert_eq!(check(&keys[4], &whereabouts_record(&town, A), NOW + minute), Ok(minute * 14));
    assert_eq!(check(&keys[4], &whereabouts_record(&town, A), NOW + minute * 15), Err(Invalid::Expired));
}

#[test]
fn oversize_and_trailing_bytes_are_refused() {
    let mut value = passport_record(&Town::new(), A);
    value.push(0);
    assert_eq!(Record::decode(&value), Err(Invalid::Malformed));
    value.resize(MAX_RECORD + 1, 0);
    assert_eq!(Record::decode(&value), Err(Invalid::Oversize));
    assert_eq!(Record::decode(&[]), Err(Invalid::Malformed));
}

proptest! {
    // A chain is six signatures, slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn one_altered_byte_anywhere_is_noticed(whereabouts: bool, at: prop::sample::Index, flip in 1_u8..=255) {
        let town = Town::new();
        let (key, mut value) = if whereabouts {
            (all_keys(&town, A)[4], whereabouts_record(&town, A))
        } else {
            (all_keys(&town, A)[0], passport_record(&town, A))
        };
        prop_assert!(check(&town.network, &key, &value, NOW).is_ok());
        let at = at.index(value.len());
        value[at] ^= flip;
        prop_assert!(check(&town.network, &key, &value, NOW).is_err(), "byte {}", at);
    }
}
