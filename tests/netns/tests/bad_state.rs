//! State directories that are not ours, damaged, on a full disk or in use.

use std::fs;
use std::path::{Path, PathBuf};

use frejus_netns::daemon::{LIMIT, assert_refused, binary, frejus, state_of, text};
use frejus_netns::scene::founder;
use frejus_netns::{Daemon, Host, Lab, NatClass, Output, wait_for};

/// Failed, not permitted, not enrolled, configuration invalid, conflict: which one depends on the damage.
const REFUSALS: [i32; 5] = [1, 4, 5, 10, 11];

fn up(host: &Host, options: &[&str]) -> Output {
    frejus(host, &[&["up", "--state", text(&state_of(host))], options].concat())
}

#[test]
fn a_directory_with_other_contents_is_left_alone() {
    let Some(mut lab) = Lab::new("state_alien") else { return };
    let host = lab.public("s", "203.0.113.101");
    let state = state_of(&host);
    fs::create_dir(&state).unwrap();
    fs::write(state.join("holiday.jpg"), "not a node's state").unwrap();
    assert_refused(&up(&host, &["--create", "mymed"]), &REFUSALS, &[text(&state)]);
    let names: Vec<_> = fs::read_dir(&state).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["holiday.jpg"], "nothing was added or removed");
    assert_eq!(fs::read_to_string(state.join("holiday.jpg")).unwrap(), "not a node's state");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let Some(mut lab) = Lab::new("state_foreign") else { return };
    let host = lab.public("s", "203.0.113.101");
    let state = state_of(&host);
    let created = frejus(&host, &["create", "mymed", "--state", text(&state)]);
    assert_eq!(created.code, 0, "{created}");
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert_refused(&up(&host, &[]), &REFUSALS, &[text(&state)]);
}

/// Every file under a directory; sockets and directories are not files.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// A node whose `file` was cut in half is either itself again or says which directory is damaged.
fn survives_truncation(host: &Host, id: &str, file: &Path) {
    let whole = fs::read(file).expect("it was listed a moment ago");
    fs::write(file, &whole[..whole.len() / 2]).expect("root may write it");
    let mut daemon = Daemon::start(host, &[]);
    wait_for(&format!("{} is told or mended", file.display()), LIMIT, || {
        !daemon.process().is_alive() || daemon.is("ready")
    });
    if daemon.process().is_alive() {
        assert_eq!(daemon.id(), id, "{} was halved: the node must not become another", file.display());
        assert_eq!(daemon.terminate(), 0);
    } else {
        let refused = up(host, &[]);
        assert_refused(&refused, &REFUSALS, &[text(&state_of(host))]);
    }
}

#[test]
fn a_half_written_file_is_told_or_mended() {
    let Some(mut lab) = Lab::new("state_half") else { return };
    let (_s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let mut a = Daemon::join(&host, &code);
    a.wait_ready();
    let id = a.id();
    a.terminate();
    let (state, sound) = (state_of(&host), lab.scratch().join("sound"));
    host.ok(&["cp", "-a", text(&state), text(&sound)]);
    let kept = files(&state);
    assert!(!kept.is_empty(), "an enrolled node keeps its identity on disk");
    for file in kept {
        survives_truncation(&host, &id, &file);
        host.ok(&["rm", "-rf", text(&state)]);
        host.ok(&["cp", "-a", text(&sound), text(&state)]);
    }
    a.restart();
    a.wait_ready();
    assert_eq!(a.id(), id);
}

#[test]
fn secrets_are_the_owners_alone() {
    let Some(mut lab) = Lab::new("state_mode") else { return };
    let (s, _) = founder(&mut lab);
    let mode = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
    };
    assert_eq!(mode(s.state()), 0o700);
    for file in files(s.state()) {
        assert_eq!(mode(&file) & 0o077, 0, "{} is readable by others", file.display());
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_half_made_is_believed() {
    let Some(mut lab) = Lab::new("state_full") else { return };
    let (_s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    let (binary, state) = (binary(), state_of(&host));
    let (frejus, dir) = (text(&binary), text(&state));
    let script = format!(
        "mkdir -p {dir}; mount -t tmpfs -o size=4k,mode=700 none {dir}; exec {frejus} join {code} --state {dir}"
    );
    let refused = host.run(&["unshare", "-m", "sh", "-ec", &script]);
    assert_refused(&refused, &[1], &[dir]);
}

#[test]
fn a_second_node_on_the_same_state_is_refused() {
    let Some(mut lab) = Lab::new("state_twice") else { return };
    let (mut s, _) = founder(&mut lab);
    let (id, pid) = (s.id(), s.process().pid());
    let second = frejus(&s.host, &["up", "--state", text(s.state())]);
    assert_refused(&second, &[1, 11], &[text(s.state())]);
    assert!(s.process().is_alive() && s.process().pid() == pid && s.is("ready"), "the first is untouched");
    assert_eq!(s.id(), id);
}
