//! Codes, passports and the ledger behind them.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::document::Genesis;
use crate::id::TunnelKey;

pub(crate) const NOW: UnixTime = UnixTime(1_750_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A network with a login server that may lease all of its prefix.
pub(crate) struct Founder {
    pub(crate) genesis: Signed<Genesis>,
    pub(crate) network: Network,
    pub(crate) grant: Signed<Grant>,
    pub(crate) key: SigningKey,
}

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

impl Founder {
    pub(crate) fn new(prefix: &str, life: Duration, grant_life: Duration) -> Self {
        let genesis = Genesis {
            name: "mymed".to_owned(),
            prefix4: prefix.parse().unwrap(),
            key: node(200),
            created: NOW,
            passport_life_s: u32::try_from(life.as_secs()).unwrap(),
        };
        let genesis = genesis.sign(&key(200));
        let network = Network::new(&genesis).unwrap();
        let grant = Grant {
            node: node(100),
            roles: Roles::ALL,
            block: network.genesis.prefix4,
            serial: 1,
            not_before: NOW,
            not_after: NOW + grant_life,
        };
        let grant = Signed::new(&grant, &network.id, &key(200));
        Self { genesis, network, grant, key: key(100) }
    }

    pub(crate) fn usual() -> Self {
        Self::new("10.93.0.0/16", DAY * 30, DAY * 3650)
    }

    pub(crate) fn server(&self, entries: impl IntoIterator<Item = Entry>) -> LoginServer {
        LoginServer::new(self.network.clone(), self.grant.clone(), self.key.clone(), entries).unwrap()
    }

    pub(crate) fn passport(&self, credential: &Credential, now: UnixTime) -> Passport {
        credential.verify(&self.network, now).unwrap().passport.clone()
    }

    fn ask(&self, n: u8, name: &str, secret: u8, time: UnixTime) -> Request {
        let name = Some(name.to_owned());
        Request::new(&self.network.id, &key(n), TunnelKey([n; 32]), name, [secret; 16], time)
    }
}

pub(crate) fn once() -> Invitation {
    Invitation { roles: Roles::PEER, uses: 1, life: DAY, name: None, address: None }
}

#[test]
fn a_code_lets_one_node_in() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&once(), [1; 16], NOW).unwrap();
    let (credential, _) = server.enrol(&founder.ask(1, "Nonna's Laptop", 1, NOW), NOW).unwrap();
    let passport = founder.passport(&credential, NOW);
    assert_eq!((passport.node, passport.name.as_str()), (node(1), "nonnas-laptop"));
    assert_eq!(passport.roles, Roles::PEER);
    assert_eq!(passport.not_after, NOW + DAY * 30);
    assert!(founder.network.genesis.prefix4.contains(passport.address4));
    assert_eq!(server.enrol(&founder.ask(2, "b", 1, NOW), NOW), Err(Refusal::UsedCode));
    assert_eq!(server.enrol(&founder.ask(2, "b", 9, NOW), NOW), Err(Refusal::UnknownCode));
}

#[test]
fn a_lost_answer_can_be_asked_for_again() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&Invitation { uses: 2, ..once() }, [1; 16], NOW).unwrap();
    let (first, written) = server.enrol(&founder.ask(1, "a", 1, NOW), NOW).unwrap();
    assert!(!written.is_empty());
    let later = NOW + Duration::from_secs(9);
    let (again, written) = server.enrol(&founder.ask(1, "other", 1, later), later).unwrap();
    assert_eq!((first, written), (again, vec![]));
    assert!(server.enrol(&founder.ask(2, "b", 1, NOW), NOW).is_ok());
    assert_eq!(server.enrol(&founder.ask(3, "c", 1, NOW), NOW), Err(Refusal::UsedCode));
    // Long after, it is a renewal; the code is not needed for it.
    let late = NOW + DAY * 4;
    let (renewed, written) = server.enrol(&founder.ask(1, "a", 1, late), late).unwrap();
    assert_ne!(founder.passport(&renewed, late).serial, 0);
    assert!(!written.is_empty());
}

#[test]
fn a_code_ends() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&once(), [1; 16], NOW).unwrap();
    let late = NOW + DAY;
    assert_eq!(server.enrol(&founder.ask(1, "a", 1, late), late), Err(Refusal::ExpiredCode));
    let forgotten = NOW + DAY + REMEMBERED;
    assert_eq!(server.enrol(&founder.ask(1, "a", 1, forgotten), forgotten), Err(Refusal::UnknownCode));
}

#[test]
fn a_wrong_clock_is_told_by_how_much() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&once(), [1; 16], NOW).unwrap();
    for (clock, ahead_s) in [(NOW + DAY, 86_400), (NOW - DAY, -86_400), (NOW + Duration::from_secs(301), 301)]
    {
        let refused = server.enrol(&founder.ask(1, "a", 1, clock), NOW);
        assert_eq!(refused, Err(Refusal::Clock { ahead_s }));
    }
    assert!(server.enrol(&founder.ask(1, "a", 1, NOW + CLOCK_SKEW), NOW).is_ok());
}

#[test]
fn names_are_numbered_and_pinned_ones_kept() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&Invitation { uses: 9, ..once() }, [1; 16], NOW).unwrap();
    let pinned = Invitation { name: Some("printer".to_owned()), ..once() };
    server.invite(&pinned, [2; 16], NOW).unwrap();
    assert_eq!(server.invite(&pinned, [3; 16], NOW), Err(Failed::NameTaken("printer".to_owned())));
    let mut name = |n, wish: &str, secret| {
        let (credential, _) = server.enrol(&founder.ask(n, wish, secret, NOW), NOW).unwrap();
        founder.passport(&credential, NOW).name
    };
    assert_eq!(name(1, "laptop", 1), "laptop");
    assert_eq!(name(2, "LAPTOP.local", 1), "laptop-2");
    assert_eq!(name(3, "laptop", 1), "laptop-3");
    assert_eq!(name(4, "printer", 1), "printer-2");
    assert_eq!(name(5, "whatever", 2), "printer");
    assert_eq!(name(6, "", 1), "node");
    let too_long = founder.ask(7, &"x".repeat(300), 1, NOW);
    assert!(matches!(server.enrol(&too_long, NOW), Err(Refusal::BadName(_))));
}

#[test]
fn pinned_addresses_are_kept_until_the_code_ends() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    let address = Ipv4Addr::new(10, 93, 7, 7);
    let pinned = Invitation { address: Some(address), ..once() };
    server.invite(&pinned, [1; 16], NOW).unwrap();
    assert_eq!(server.invite(&pinned, [2; 16], NOW), Err(Failed::AddressTaken(address)));
    // Ended unused: another code may have it, and the end of the first is not the end of the second.
    let late = NOW + DAY;
    server.invite(&pinned, [3; 16], late).unwrap();
    server.expire(late);
    let (credential, _) = server.enrol(&founder.ask(1, "a", 3, late), late).unwrap();
    assert_eq!(founder.passport(&credential, late).address4, address);
    let outside = Invitation { address: Some(Ipv4Addr::new(192, 0, 2, 1)), ..once() };
    assert!(matches!(server.invite(&outside, [4; 16], late), Err(Failed::Senseless(_))));
}

#[test]
fn a_known_node_keeps_its_place_with_a_fresh_code() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&once(), [1; 16], NOW).unwrap();
    server.invite(&Invitation { roles: Roles::SUPER_PEER, ..once() }, [2; 16], NOW).unwrap();
    let address = Ipv4Addr::new(10, 93, 9, 9);
    server.invite(&Invitation { address: Some(address), ..once() }, [3; 16], NOW).unwrap();
    let mut enrol = |secret| {
        let (credential, _) = server.enrol(&founder.ask(1, "a", secret, NOW), NOW).unwrap();
        founder.passport(&credential, NOW)
    };
    let (first, second, third) = (enrol(1), enrol(2), enrol(3));
    assert_eq!((&first.name, first.address4), (&second.name, second.address4));
    assert_eq!(second.roles, Roles::PEER.with(Roles::SUPER_PEER));
    assert!(first.serial < second.serial && second.serial < third.serial);
    assert_eq!((third.name.as_str(), third.address4), ("a", address));
}

#[test]
fn senseless_codes_are_not_made() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    for bad in [
        Invitation { uses: 0, ..once() },
        Invitation { life: Duration::ZERO, ..once() },
        Invitation { life: MAX_CODE_LIFE + DAY, ..once() },
        Invitation { uses: 2, name: Some("a".to_owned()), ..once() },
        Invitation { uses: 2, address: Some(Ipv4Addr::new(10, 93, 0, 9)), ..once() },
        Invitation { name: Some("not a label".to_owned()), ..once() },
        Invitation { roles: Roles::LOGIN, ..once() },
    ] {
        assert!(matches!(server.invite(&bad, [1; 16], NOW), Err(Failed::Senseless(_))), "{bad:?}");
    }
}

#[test]
fn a_passport_is_renewed_until_its_lease_is_forgotten() {
    let founder = Founder::usual();
    let mut server = founder.server([]);
    server.invite(&once(), [1; 16], NOW).unwrap();
    let (first, _) = server.enrol(&founder.ask(1, "a", 1, NOW), NOW).unwrap();
    assert_eq!(server.renew(&node(1), NOW + DAY), Some((first.clone(), vec![])));
    let late = NOW + DAY * 31;
    let (second, _) = server.renew(&node(1), late).unwrap();
    let (first, second) = (founder.passport(&first, NOW), founder.passport(&second, late));
    assert_eq!((first.address4, first.name), (second.address4, second.name));
    assert!(first.serial < second.serial);
    assert_eq!(server.renew(&node(2), late), None);
    let gone = late + DAY * 62;
    let entries = server.expire(gone);
    assert!(entries.contains(&Entry::HolderGone(node(1))));
    assert!(entries.contains(&Entry::LeaseGone(second.address4)));
    assert_eq!(server.renew(&node(1), gone), None);
}

#[test]
fn no_passport_outlives_the_grant() {
    let founder = Founder::new("10.93.0.0/16", DAY * 30, DAY * 10);
    let mut server = founder.server([]);
    let (own, _) = server.issue_own(&Label::suggest("s"), Roles::ALL, NOW).unwrap();
    assert_eq!(founder.passport(&own, NOW).not_after, NOW + DAY * 10);
    assert_eq!(server.renew(&node(100), NOW + DAY * 10), None);
}

#[test]
fn a_full_block_is_said_to_be_full() {
    let founder = Founder::new("10.93.0.0/29", DAY, DAY * 10);
    let mut server = founder.server([]);
    server.invite(&Invitation { uses: 99, ..once() }, [1; 16], NOW).unwrap();
    for n in 1..=6 {
        assert!(server.enrol(&founder.ask(n, "a", 1, NOW), NOW).is_ok());
    }
    assert_eq!(server.enrol(&founder.ask(7, "a", 1, NOW), NOW), Err(Refusal::Full));
}

#[test]
fn another_nodes_grant_makes_no_login_server() {
    let founder = Founder::usual();
    let other = LoginServer::new(founder.network.clone(), founder.grant.clone(), key(1), []);
    assert_eq!(other.err(), Some(Invalid::Subject));
    let forged = Signed::new(&founder.grant.claim().unwrap(), &founder.network.id, &key(1));
    let forged = LoginServer::new(founder.network.clone(), forged, founder.key.clone(), []);
    assert_eq!(forged.err(), Some(Invalid::Signature));
}

/// What a user does to a login server.
#[derive(Clone, Debug)]
enum Deed {
    Invite { secret: u8, uses: u32, name: Option<u8>, address: Option<u8> },
    Enrol { node: u8, secret: u8, wish: u8 },
    Renew { node: u8 },
    Wait { hours: u8 },
    Restart,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let pin = || proptest::option::weighted(0.3, 0..4u8);
    prop_oneof![
        (0..12u8, 1..3u32, pin(), pin()).prop_map(|(secret, uses, name, address)| Deed::Invite {
            secret,
            uses,
            name,
            address
        }),
        (1..8u8, 0..12u8, 0..4u8).prop_map(|(node, secret, wish)| Deed::Enrol { node, secret, wish }),
        (1..8u8).prop_map(|node| Deed::Renew { node }),
        any::<u8>().prop_map(|hours| Deed::Wait { hours }),
        Just(Deed::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, and however often the server restarts from its ledger in the middle: of two passports that
    /// are valid at once, no two nodes' share a name or an address, and serials grow.
    #[test]
    fn nobody_shares_a_name_or_an_address(deeds in proptest::collection::vec(any_deed(), 1..40)) {
        let founder = Founder::new("10.93.0.0/28", DAY * 2, DAY * 3650);
        let (mut server, mut ledger, mut now) = (founder.server([]), Vec::new(), NOW);
        let mut passports: Vec<Passport> = Vec::new();
        let mut uses: BTreeMap<u8, (u32, BTreeSet<u8>)> = BTreeMap::new();
        for deed in deeds {
            let issued = match deed {
                Deed::Invite { secret, uses: n, name, address } => {
                    let pinned = name.is_some() || address.is_some();
                    let invitation = Invitation {
                        uses: if pinned { 1 } else { n },
                        name: name.map(|n| format!("n{n}")),
                        address: address.map(|a| Ipv4Addr::new(10, 93, 0, a + 1)),
                        ..once()
                    };
                    if let Ok(entries) = server.invite(&invitation, [secret; 16], now) {
                        ledger.extend(entries);
                        uses.insert(secret, (invitation.uses, BTreeSet::new()));
                    }
                    None
                }
                Deed::Enrol { node, secret, wish } => {
                    let enrolled = server.enrol(&founder.ask(node, &format!("n{wish}"), secret, now), now);
                    if enrolled.is_ok() {
                        let (most, used) = uses.get_mut(&secret).unwrap();
                        used.insert(node);
                        prop_assert!(used.len() as u64 <= u64::from(*most));
                    }
                    enrolled.ok()
                }
                Deed::Renew { node: n } => server.renew(&node(n), now),
                Deed::Wait { hours } => {
                    now = now + Duration::from_secs(3600 * u64::from(hours));
                    ledger.extend(server.expire(now));
                    None
                }
                Deed::Restart => {
                    server = founder.server(ledger.clone());
                    None
                }
            };
            let Some((credential, entries)) = issued else { continue };
            ledger.extend(entries);
            let new = founder.passport(&credential, now);
            for old in passports.iter().filter(|old| old.node != new.node && old.not_after > now) {
                prop_assert_ne!(old.address4, new.address4);
                let renamed = passports.iter().rfind(|p| p.node == old.node).unwrap();
                prop_assert!(renamed.serial != old.serial || old.name != new.name);
            }
            let last = passports.iter().rfind(|old| old.node == new.node).map_or(0, |old| old.serial);
            prop_assert!(new.serial >= last);
            passports.push(new);
        }
    }
}
