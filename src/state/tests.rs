//! The state directory under bad conditions.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::founding::{Wishes, found};
use frejus_overlay::timing::UnixTime;

const NOW: UnixTime = UnixTime(1_750_000_000);

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lib/mymed");
    (dir, path)
}

fn founded(path: &Path) -> StateDir {
    let state = StateDir::create(path).unwrap();
    let wishes = Wishes {
        network: "mymed",
        prefix: None,
        node: Some("s"),
        passport_life: Duration::from_secs(86_400),
        routes: &[],
    };
    found(&state, &wishes, NOW).unwrap();
    state
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn nobody_else_can_read_it() {
    let (_dir, path) = place();
    founded(&path);
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.file_name());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path.join(NODE_KEY), fs::Permissions::from_mode(0o644)).unwrap();
    StateDir::open(&path).unwrap().load().unwrap();
    assert_eq!((mode(&path), mode(&path.join(NODE_KEY))), (0o700, 0o600));
}

#[test]
fn a_node_is_read_as_it_was_written() {
    let (_dir, path) = place();
    let keys = founded(&path).keys().unwrap();
    let saved = StateDir::open(&path).unwrap().load().unwrap();
    assert_eq!(saved.keys.node.to_bytes(), keys.node.to_bytes());
    assert_eq!(saved.keys.tunnel.to_bytes(), keys.tunnel.to_bytes());
    assert_eq!(saved.passport.name, "s");
    assert_eq!(saved.network.genesis.name, "mymed");
    assert!(saved.grant.is_some() && saved.super_peers.is_empty());
}

#[test]
fn only_so_many_super_peers_are_kept() {
    let (_dir, path) = place();
    let state = founded(&path);
    let credential = state.load().unwrap().credential;
    let contact = Contact { credential, whereabouts: Signed::from_bytes(vec![1, 2, 3]) };
    state.write_super_peers(&vec![contact; MAX_SUPER_PEERS + 5]).unwrap();
    assert_eq!(state.load().unwrap().super_peers.len(), MAX_SUPER_PEERS);
    fs::write(path.join(SUPER_PEERS), b"\xff\xff rubbish").unwrap();
    let failure = state.load().err().unwrap();
    assert!(failure.what.contains(SUPER_PEERS) && failure.mend.contains("frejus join"), "{failure}");
}

#[test]
fn no_node_is_not_enrolled() {
    let (_dir, path) = place();
    assert_eq!(StateDir::open(&path).unwrap_err().code, ExitCode::NotEnrolled);
    let state = StateDir::create(&path).unwrap();
    assert_eq!(state.load().err().unwrap().code, ExitCode::NotEnrolled);
    assert!(!state.holds_node().unwrap());
}

#[test]
fn a_directory_of_others_is_refused() {
    let (_dir, path) = place();
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("thesis.tex"), "years of work").unwrap();
    let failure = StateDir::create(&path).unwrap_err();
    assert!(failure.what.contains("thesis.tex") && failure.mend.contains("--state"), "{failure}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was added");
    let file = path.join("thesis.tex");
    assert!(StateDir::create(&file).unwrap_err().what.contains("thesis.tex"));
}

#[test]
fn another_version_is_refused() {
    let (_dir, path) = place();
    founded(&path);
    fs::write(path.join(MARKER), "frejus state 2\n").unwrap();
    let failure = StateDir::open(&path).unwrap_err();
    assert!(failure.what.contains("another version"), "{failure}");
}

#[test]
fn an_empty_directory_and_a_fresh_file_system_will_do() {
    let (_dir, path) = place();
    fs::create_dir_all(path.join(FOREIGN_BUT_EMPTY)).unwrap();
    fs::write(path.join(disk::temporary(MARKER)), "fre").unwrap();
    StateDir::create(&path).unwrap();
    assert_eq!(fs::read_to_string(path.join(MARKER)).unwrap(), MARK);
}

#[test]
fn a_second_process_is_told_who_was_first() {
    let (_dir, path) = place();
    let state = founded(&path);
    let lock = state.lock().unwrap();
    assert_eq!(state.pid(), Some(std::process::id()));
    let second = StateDir::open(&path).unwrap();
    let failure = second.lock().unwrap_err();
    assert_eq!(failure.code, ExitCode::Conflict);
    assert!(failure.what.contains(&format!("process {}", std::process::id())), "{failure}");
    drop(lock);
    assert_eq!(state.pid(), None);
    second.lock().unwrap();
}

#[test]
fn leftovers_of_a_crash_are_ignored_and_removed() {
    let (_dir, path) = place();
    founded(&path);
    for name in [PASSPORT, NODE_KEY, SUPER_PEERS] {
        fs::write(path.join(disk::temporary(name)), "half of a f").unwrap();
    }
    fs::write(path.join(PID), "4242\n").unwrap();
    let state = StateDir::open(&path).unwrap();
    assert_eq!(state.load().unwrap().passport.name, "s");
    let _lock = state.lock().unwrap();
    let left = fs::read_dir(&path)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(left.count(), 0);
    assert_eq!(state.pid(), Some(std::process::id()));
}

#[test]
fn a_crash_before_the_passport_leaves_no_node_but_its_keys() {
    let (_dir, path) = place();
    let keys = founded(&path).keys().unwrap();
    fs::remove_file(path.join(PASSPORT)).unwrap();
    let state = founded(&path);
    assert_eq!(state.keys().unwrap().node.to_bytes(), keys.node.to_bytes());
    assert!(state.holds_node().unwrap());
}

#[test]
fn a_link_in_place_of_a_leftover_is_not_followed() {
    let (dir, path) = place();
    let state = founded(&path);
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, path.join(disk::temporary(SUPER_PEERS))).unwrap();
    state.write_super_peers(&[]).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn a_damaged_file_is_named() {
    for name in [NODE_KEY, TUNNEL_KEY, GENESIS, PASSPORT, GRANT] {
        let (_dir, path) = place();
        let state = founded(&path);
        let whole = fs::read(path.join(name)).unwrap();
        fs::write(path.join(name), &whole[..whole.len() / 2]).unwrap();
        let failure = state.load().err().unwrap();
        assert!(failure.what.contains(path.join(name).to_str().unwrap()), "{name}: {failure}");
        assert!(failure.mend.contains("join again"), "{failure}");
        let mut altered = whole.clone();
        altered[whole.len() - 3] ^= 1;
        fs::write(path.join(name), altered).unwrap();
        // A tunnel key has no proof of its own; another node key does not fit the passport.
        if name != TUNNEL_KEY {
            assert!(state.load().is_err(), "{name}");
        }
        fs::remove_file(path.join(name)).unwrap();
        assert!(name == GRANT || state.load().is_err(), "{name}");
    }
}

#[test]
fn a_huge_file_is_not_read() {
    let (_dir, path) = place();
    let state = founded(&path);
    File::create(path.join(PASSPORT)).unwrap().set_len(1 << 40).unwrap();
    assert!(state.load().err().unwrap().what.contains("passport"));
}

#[test]
fn somebody_elses_directory_is_refused() {
    if !is_root() {
        eprintln!("SKIPPED: only root can give a directory to another user");
        return;
    }
    let (_dir, path) = place();
    founded(&path);
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    let failure = StateDir::open(&path).unwrap_err();
    assert_eq!(failure.code, ExitCode::NotPermitted);
    assert!(failure.what.contains("12345"), "{failure}");
    assert_eq!(fs::metadata(&path).unwrap().uid(), 12_345);
}

#[test]
fn what_may_not_be_read_is_not_permitted() {
    // Root may read everything, so the error is made and not met.
    let failure = failed(Path::new("/x/node.key"), &std::io::ErrorKind::PermissionDenied.into());
    assert_eq!(failure.code, ExitCode::NotPermitted);
    assert!(failure.what.contains("/x/node.key"));
    if is_root() {
        return;
    }
    let (_dir, path) = place();
    let state = founded(&path);
    fs::set_permissions(path.join(NODE_KEY), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(state.load().err().unwrap().code, ExitCode::NotPermitted);
}

/// A file system of a few pages, gone with the value.
pub(crate) struct Tiny(tempfile::TempDir);

impl Tiny {
    pub(crate) fn mount(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
                .arg(dir.path())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: no tmpfs can be mounted here, so no full disk");
        }
        mounted.then(|| Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(tiny) = Tiny::mount(64) else { return };
    let state = StateDir::create(&tiny.0.path().join("mymed")).unwrap();
    let keys = state.keys().unwrap();
    let genesis = Signed::from_bytes(vec![7; 100]);
    state.write_genesis(&genesis).unwrap();
    fs::write(tiny.0.path().join("filler"), vec![0; 1 << 20]).unwrap_err();
    let failure = state.write_genesis(&Signed::from_bytes(vec![8; 9000])).unwrap_err();
    assert!(failure.what.contains("genesis") && failure.mend.contains("make room"), "{failure}");
    assert_eq!(fs::read(state.path().join(GENESIS)).unwrap(), genesis.as_bytes(), "the old file stands");
    assert!(!state.path().join(disk::temporary(GENESIS)).exists());
    fs::remove_file(tiny.0.path().join("filler")).unwrap();
    assert_eq!(state.keys().unwrap().node.to_bytes(), keys.node.to_bytes());
    state.write_genesis(&Signed::from_bytes(vec![8; 9000])).unwrap();
}
