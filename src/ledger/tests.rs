//! The ledger across restarts.

use std::time::Duration;

use frejus_overlay::document::Roles;
use frejus_overlay::id::TunnelKey;
use frejus_overlay::login::LoginServer;
use frejus_overlay::node::Invitation;
use frejus_overlay::timing::UnixTime;
use frejus_overlay::wire::enrol::{Refusal, Request};

use super::*;
use crate::founding::{Wishes, found};
use crate::state::StateDir;
use crate::state::tests::Tiny;

const NOW: UnixTime = UnixTime(1_750_000_000);

fn founded() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(&dir.path().join("mymed")).unwrap();
    let wishes = Wishes {
        network: "mymed",
        prefix: None,
        node: Some("s"),
        passport_life: Duration::from_secs(86_400),
        routes: &[],
    };
    found(&state, &wishes, NOW).unwrap();
    (dir, state)
}

fn server(state: &StateDir, ledger: &mut Ledger) -> LoginServer {
    let saved = state.load().unwrap();
    LoginServer::new(saved.network, saved.grant.unwrap(), saved.keys.node, ledger.load().unwrap()).unwrap()
}

fn once() -> Invitation {
    Invitation { roles: Roles::PEER, uses: 1, life: Duration::from_secs(3600), name: None, address: None }
}

fn ask(server: &LoginServer, n: u8) -> Request {
    let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]);
    Request::new(&server.network().id, &key, TunnelKey([n; 32]), None, [1; 16], NOW)
}

#[test]
fn a_restarted_login_server_knows_everything() {
    let (_dir, state) = founded();
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let mut before = server(&state, &mut ledger);
    ledger.record(&before.invite(&once(), [1; 16], NOW).unwrap()).unwrap();
    let (credential, entries) = before.enrol(&ask(&before, 1), NOW).unwrap();
    ledger.record(&entries).unwrap();
    drop(ledger);
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let mut after = server(&state, &mut ledger);
    assert_eq!(after.enrol(&ask(&after, 1), NOW), Ok((credential, vec![])));
    assert_eq!(after.enrol(&ask(&after, 2), NOW), Err(Refusal::UsedCode));
}

#[test]
fn what_is_struck_is_gone() {
    let (_dir, state) = founded();
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let own = ledger.load().unwrap();
    assert_eq!(own.len(), 2, "the founder's lease and the founder: {own:?}");
    let mut login = server(&state, &mut ledger);
    ledger.record(&login.invite(&once(), [1; 16], NOW).unwrap()).unwrap();
    let (_, entries) = login.enrol(&ask(&login, 1), NOW).unwrap();
    ledger.record(&entries).unwrap();
    assert_eq!(ledger.load().unwrap().len(), 2 + 4);
    // Two passport lives and more later, all that is left is nothing.
    ledger.record(&login.expire(NOW + Duration::from_secs(30 * 86_400))).unwrap();
    assert_eq!(ledger.load().unwrap(), []);
}

/// A process that is killed in the middle leaves the file as it was synced: a copy of it, taken while it is open.
#[test]
fn a_kill_loses_nothing_that_was_recorded() {
    let (dir, state) = founded();
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let mut login = server(&state, &mut ledger);
    for n in 0..20 {
        ledger.record(&login.invite(&once(), [n; 16], NOW).unwrap()).unwrap();
    }
    let copy = dir.path().join("copy.redb");
    std::fs::copy(state.ledger(), &copy).unwrap();
    assert_eq!(Ledger::open(&copy).unwrap().load().unwrap(), ledger.load().unwrap());
}

#[test]
fn a_second_process_is_kept_out() {
    let (_dir, state) = founded();
    let _ledger = Ledger::open(&state.ledger()).unwrap();
    assert_eq!(Ledger::open(&state.ledger()).err().unwrap().code, ExitCode::Conflict);
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let (_dir, state) = founded();
    let whole = std::fs::read(state.ledger()).unwrap();
    let refuse = |what: &str| {
        let failure = Ledger::open(&state.ledger()).and_then(|mut ledger| ledger.load()).err();
        let failure = failure.unwrap_or_else(|| panic!("{what} passed for a ledger"));
        assert!(failure.what.contains("ledger.redb") && failure.mend.contains("backup"), "{what}: {failure}");
    };
    std::fs::write(state.ledger(), vec![0x55; 10_000]).unwrap();
    refuse("rubbish");
    std::fs::write(state.ledger(), []).unwrap();
    refuse("an empty file");
    for length in [100, 4096, whole.len() / 2] {
        std::fs::write(state.ledger(), &whole[..length]).unwrap();
        refuse("a truncated file");
    }
    std::fs::remove_file(state.ledger()).unwrap();
    refuse("nothing");
}

#[test]
fn a_row_that_is_none_is_not_passed_over() {
    let (_dir, state) = founded();
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let change = ledger.database.as_ref().unwrap().begin_write().unwrap();
    change.open_table(ROWS).unwrap().insert([9].as_slice(), [0xff].as_slice()).unwrap();
    change.commit().unwrap();
    assert!(ledger.load().unwrap_err().what.contains("damaged"));
}

#[test]
fn a_disk_that_was_full_takes_the_next_change() {
    let (_dir, founder) = founded();
    let Some(small) = Tiny::mount(200) else { return };
    let path = small.path().join("ledger.redb");
    std::fs::copy(founder.ledger(), &path).unwrap();
    let mut ledger = Ledger::open(&path).unwrap();
    let mut login = server(&founder, &mut ledger);
    let before = ledger.load().unwrap().len();
    let fill = small.path().join("fill");
    let filled = std::fs::write(&fill, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let codes: Vec<Entry> = (0..200).flat_map(|n| login.invite(&once(), [n; 16], NOW).unwrap()).collect();
    for _ in 0..3 {
        let failure = ledger.record(&codes).unwrap_err();
        assert!(failure.mend.contains("make room"), "{failure}");
    }
    std::fs::remove_file(fill).unwrap();
    ledger.record(&codes).unwrap();
    assert_eq!(ledger.load().unwrap().len(), before + 200);
}
