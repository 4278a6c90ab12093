//! Founding, and what is in the way of it.

use super::*;

const NOW: UnixTime = UnixTime(1_750_000_000);

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("mymed")).unwrap();
    (dir, state)
}

fn wishes<'a>() -> Wishes<'a> {
    Wishes {
        network: "mymed",
        prefix: None,
        node: Some("s"),
        passport_life: Duration::from_secs(86_400),
        routes: &[],
    }
}

fn route(text: &str) -> (IpNetwork, String) {
    (text.parse().unwrap(), "eth7".to_owned())
}

#[test]
fn the_founder_is_super_peer_and_login_server() {
    let (_dir, state) = state();
    let founded = found(&state, &wishes(), NOW).unwrap();
    let roles = Roles::PEER.with(Roles::SUPER_PEER).with(Roles::LOGIN);
    assert_eq!(founded.passport.roles, roles);
    assert_eq!(founded.passport.not_after, NOW + Duration::from_secs(86_400));
    assert!(founded.network.genesis.prefix4.contains(founded.passport.address4));
    assert_eq!(state.load().unwrap().network.id, founded.network.id);
}

#[test]
fn a_prefix_that_clashes_is_refused_with_the_command_that_does_not() {
    let (_dir, state) = state();
    let routes = [route("0.0.0.0/0"), route("10.93.7.0/24")];
    let prefix = Some("10.93.0.0/16".parse().unwrap());
    let failure = found(&state, &Wishes { prefix, routes: &routes, ..wishes() }, NOW).unwrap_err();
    assert_eq!(failure.code, ExitCode::Conflict);
    assert_eq!(failure.what, "the prefix 10.93.0.0/16 overlaps the route 10.93.7.0/24 on eth7");
    assert_eq!(failure.mend, "frejus create mymed --prefix 10.94.0.0/16");
    assert!(!state.holds_node().unwrap());
    let prefix = Some("10.94.0.0/16".parse().unwrap());
    found(&state, &Wishes { prefix, routes: &routes, ..wishes() }, NOW).unwrap();
}

#[test]
fn a_prefix_of_nobodys_choice_avoids_the_routes() {
    let (_dir, state) = state();
    // Half of all prefixes that a key can lead to.
    let routes = [route("10.0.0.0/9")];
    let founded = found(&state, &Wishes { routes: &routes, ..wishes() }, NOW).unwrap();
    assert!(founded.network.genesis.prefix4.ip().octets()[1] >= 128);
}

#[test]
fn a_machine_that_routes_all_of_ten_is_offered_another_space() {
    let (_dir, state) = state();
    let routes = [route("10.0.0.0/8")];
    let failure = found(&state, &Wishes { routes: &routes, ..wishes() }, NOW).unwrap_err();
    assert_eq!(failure.code, ExitCode::Conflict);
    assert_eq!(failure.mend, "frejus create mymed --prefix 172.16.0.0/16");
}

#[test]
fn a_node_is_not_overwritten() {
    let (_dir, state) = state();
    let first = found(&state, &wishes(), NOW).unwrap();
    let failure = found(&state, &wishes(), NOW).unwrap_err();
    assert_eq!(failure.code, ExitCode::Conflict);
    assert!(failure.what.contains("mymed"), "{failure}");
    assert_eq!(state.load().unwrap().network.id, first.network.id);
    assert!(state.forget_network_key().is_err());
}

#[test]
fn wishes_that_cannot_be_are_wrong_usage() {
    let (_dir, state) = state();
    let life = |s| Duration::from_secs(s);
    for bad in [
        Wishes { network: "my med", ..wishes() },
        Wishes { node: Some("-"), ..wishes() },
        Wishes { prefix: Some("8.8.0.0/16".parse().unwrap()), ..wishes() },
        Wishes { prefix: Some("100.64.0.0/16".parse().unwrap()), ..wishes() },
        Wishes { passport_life: life(1), ..wishes() },
        Wishes { passport_life: life(1 << 40), ..wishes() },
    ] {
        assert_eq!(found(&state, &bad, NOW).unwrap_err().code, ExitCode::Usage, "{bad:?}");
    }
}
