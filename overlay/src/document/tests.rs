//! Every link of the chain, refused when it is wrong.

use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::testing::{DAY, LOGIN, NOW, Town, address, key, node};

const A: u8 = 1;

fn second(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn verify_passport(change: impl FnOnce(&mut Passport)) -> Result<(), Invalid> {
    let town = Town::new();
    let mut passport = town.passport(A, Roles::PEER);
    change(&mut passport);
    town.sign_passport(&passport).verify(&town.network, NOW).map(|_| ())
}

fn verify_grant(change: impl FnOnce(&mut Grant)) -> Result<(), Invalid> {
    let mut town = Town::new();
    change(&mut town.grant);
    town.credential(A, Roles::PEER).verify(&town.network, NOW).map(|_| ())
}

fn verify_whereabouts(change: impl FnOnce(&mut Whereabouts)) -> Result<(), Invalid> {
    let town = Town::new();
    let mut whereabouts = town.whereabouts(A);
    change(&mut whereabouts);
    town.contact_at(A, Roles::PEER, &whereabouts).verify(&town.network, NOW).map(|_| ())
}

#[test]
fn an_honest_chain_holds() {
    assert_eq!(verify_passport(|_| {}), Ok(()));
    assert_eq!(verify_whereabouts(|_| {}), Ok(()));
}

#[test]
fn another_key_signs_nothing() {
    let town = Town::new();
    let stranger = key(9);
    let mut contact = town.contact(A, Roles::PEER);
    contact.whereabouts = town.sign_whereabouts(&town.whereabouts(A), 9);
    assert_eq!(contact.verify(&town.network, NOW).err(), Some(Invalid::Signature));

    let mut credential = town.credential(A, Roles::PEER);
    credential.passport = Signed::new(&town.passport(A, Roles::PEER), &town.network.id, &stranger);
    assert_eq!(credential.verify(&town.network, NOW).err(), Some(Invalid::Signature));

    credential.grant =
        Signed::new(&Grant { node: node(9), ..town.grant.clone() }, &town.network.id, &stranger);
    assert_eq!(credential.verify(&town.network, NOW).err(), Some(Invalid::Signature));

    let forged = Genesis { name: "forged".to_owned(), ..(*town.network.genesis).clone() }.sign(&stranger);
    assert_eq!(Network::new(&forged).err(), Some(Invalid::Signature));
}

#[test]
fn another_network_is_foreign() {
    let (town, other) = (Town::new(), Town::named("other"));
    assert_eq!(town.genesis.verify(&other.network.id).err(), Some(Invalid::Foreign));
    // The keys of both networks are the same: only the network's ID under the signatures differs.
    assert_eq!(town.credential(A, Roles::PEER).verify(&other.network, NOW).err(), Some(Invalid::Signature));
    let foreign = other.sign_whereabouts(&other.whereabouts(A), A);
    let contact = Contact { credential: town.credential(A, Roles::PEER), whereabouts: foreign };
    assert_eq!(contact.verify(&town.network, NOW).err(), Some(Invalid::Signature));
}

#[test]
fn a_genesis_with_a_public_prefix_is_none() {
    let town = Town::new();
    let genesis = Genesis { prefix4: "8.8.0.0/16".parse().unwrap(), ..(*town.network.genesis).clone() };
    assert_eq!(Network::new(&genesis.sign(&key(200))).err(), Some(Invalid::Overreach));
}

#[test]
fn a_grant_counts_in_its_time_and_inside_the_prefix() {
    assert_eq!(verify_grant(|grant| grant.not_after = NOW), Err(Invalid::Expired));
    assert_eq!(verify_grant(|grant| grant.not_before = NOW + CLOCK_SKEW + second(1)), Err(Invalid::NotYet));
    assert_eq!(verify_grant(|grant| grant.block = "10.94.0.0/24".parse().unwrap()), Err(Invalid::Overreach));
    assert_eq!(verify_grant(|grant| grant.block = "10.0.0.0/8".parse().unwrap()), Err(Invalid::Overreach));
    assert_eq!(verify_grant(|grant| grant.node = node(9)), Err(Invalid::Signature));
}

#[test]
fn a_passport_says_no_more_than_its_grant_allows() {
    let beyond = Err(Invalid::Overreach);
    assert_eq!(verify_passport(|passport| passport.roles = Roles::CLIENT), beyond);
    assert_eq!(verify_passport(|passport| passport.roles = Roles::ALL), beyond);
    assert_eq!(verify_passport(|passport| passport.address4 = [10, 93, 128, 1].into()), beyond);
    assert_eq!(verify_passport(|passport| passport.not_after = NOW + DAY * 366), beyond);
    assert_eq!(verify_passport(|passport| passport.issuer = node(9)), beyond);
    for name in ["", "Nonna", "a b", "-a", "a.b", "ä"] {
        assert_eq!(verify_passport(|passport| passport.name = name.to_owned()), beyond, "{name}");
    }
    assert_eq!(verify_passport(|passport| passport.name = "a".repeat(64)), beyond);
}

#[test]
fn a_passport_counts_in_its_time() {
    assert_eq!(verify_passport(|passport| passport.not_after = NOW), Err(Invalid::Expired));
    assert_eq!(verify_passport(|passport| passport.not_after = NOW + second(1)), Ok(()));
    assert_eq!(verify_passport(|passport| passport.not_before = NOW + CLOCK_SKEW), Ok(()));
    let early = NOW + CLOCK_SKEW + second(1);
    assert_eq!(verify_passport(|passport| passport.not_before = early), Err(Invalid::NotYet));
}

#[test]
fn whereabouts_are_the_nodes_own_and_bounded() {
    let town = Town::new();
    let mut others = town.contact(A, Roles::PEER);
    others.whereabouts = town.contact(2, Roles::PEER).whereabouts;
    assert_eq!(others.verify(&town.network, NOW).err(), Some(Invalid::Signature));
    assert_eq!(verify_whereabouts(|place| place.node = node(2)), Err(Invalid::Subject));

    let candidate = Candidate { kind: CandidateKind::Host, at: address(A) };
    let many = |n| move |place: &mut Whereabouts| place.candidates = vec![candidate; n];
    assert_eq!(verify_whereabouts(many(Whereabouts::MAX_CANDIDATES)), Ok(()));
    assert_eq!(verify_whereabouts(many(Whereabouts::MAX_CANDIDATES + 1)), Err(Invalid::Oversize));
    let homes = vec![node(LOGIN); Whereabouts::MAX_HOMES + 1];
    assert_eq!(verify_whereabouts(|place| place.homes = homes), Err(Invalid::Oversize));
    let doors = vec![address(A); Whereabouts::MAX_HOMES + 1];
    assert_eq!(verify_whereabouts(|place| place.directory = doors), Err(Invalid::Oversize));
    // So many that the envelope itself is too large.
    assert_eq!(verify_whereabouts(many(200)), Err(Invalid::Oversize));
}

#[test]
fn whereabouts_live_for_an_hour_at_most() {
    let until = |s| move |place: &mut Whereabouts| place.expires = NOW + second(s);
    assert_eq!(verify_whereabouts(until(3600)), Ok(()));
    assert_eq!(verify_whereabouts(until(3601)), Err(Invalid::Overreach));
    assert_eq!(verify_whereabouts(until(0)), Err(Invalid::Expired));
    let early = |place: &mut Whereabouts| {
        (place.issued, place.expires) = (NOW + second(301), NOW + second(400));
    };
    assert_eq!(verify_whereabouts(early), Err(Invalid::NotYet));
}

#[test]
fn stale_whereabouts_are_good_for_dialling_only() {
    let town = Town::new();
    let contact = town.contact(A, Roles::PEER);
    let late = NOW + second(900);
    assert_eq!(contact.verify(&town.network, late).err(), Some(Invalid::Expired));
    assert!(contact.verify_stale(&town.network, late).is_ok());
    assert_eq!(contact.verify_stale(&town.network, NOW + DAY * 30).err(), Some(Invalid::Expired));
}

/// An envelope of `T` with any body, properly signed.
fn envelope<T: Document>(head: [u8; 2], body: &[u8], signer: &SigningKey) -> Signed<T> {
    let town = Town::new();
    let mut bytes = [&head[..], body].concat();
    let signature = signer.sign(&signed_part::<T>(&town.network.id, &bytes)).to_bytes();
    bytes.extend(signature);
    Signed::from_bytes(bytes)
}

#[test]
fn an_envelope_is_of_one_version_and_kind_and_holds_nothing_more() {
    let town = Town::new();
    let body = postcard::to_stdvec(&town.passport(A, Roles::PEER)).unwrap();
    let open = |head, body: &[u8]| {
        envelope::<Passport>(head, body, &key(LOGIN)).open(&town.network.id, &node(LOGIN)).map(|_| ())
    };
    assert_eq!(open([VERSION, Passport::KIND], &body), Ok(()));
    assert_eq!(open([VERSION + 1, Passport::KIND], &body), Err(Invalid::Malformed));
    assert_eq!(open([VERSION, Grant::KIND], &body), Err(Invalid::Malformed));
    assert_eq!(open([VERSION, Passport::KIND], &[&body[..], &[0]].concat()), Err(Invalid::Malformed));
    assert_eq!(open([VERSION, Passport::KIND], &body[..body.len() - 1]), Err(Invalid::Malformed));
    let long = [&body[..], &[0; 1024]].concat();
    assert_eq!(open([VERSION, Passport::KIND], &long), Err(Invalid::Oversize));
}

#[test]
fn a_signature_for_one_kind_is_none_for_another() {
    let town = Town::new();
    let body = postcard::to_stdvec(&town.passport(A, Roles::PEER)).unwrap();
    // Signed as whereabouts by the login server's own key, presented as a passport.
    let disguised = envelope::<Whereabouts>([VERSION, Passport::KIND], &body, &key(LOGIN));
    let disguised = Signed::<Passport>::from_bytes(disguised.as_bytes().to_vec());
    assert_eq!(disguised.open(&town.network.id, &node(LOGIN)).err(), Some(Invalid::Signature));
    // And a whole passport, presented as a grant.
    let passport = town.credential(A, Roles::PEER).passport;
    let grant = Signed::<Grant>::from_bytes(passport.as_bytes().to_vec());
    assert_eq!(grant.verify(&town.network, NOW).err(), Some(Invalid::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_envelope_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let network = NetworkId([7; 32]);
        prop_assert!(Signed::<Whereabouts>::from_bytes(bytes.clone()).open(&network, &node(A)).is_err());
        prop_assert!(Signed::<Genesis>::from_bytes(bytes).verify(&network).is_err());
    }
}
