//! What is kept when a test fails: logs, rules, addresses, routes, connections and a capture of the public side.
//!
//! Kept under `target/netns/TEST/`. Never copies a state directory: keys stay where they are, and go with the scratch.

use std::path::{Path, PathBuf};

use crate::run::Host;

/// Questions whose answers explain most failures.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("rules", &["nft", "list", "ruleset"]),
    ("addresses", &["ip", "-d", "addr"]),
    ("routes", &["ip", "route", "show", "table", "all"]),
    ("routes6", &["ip", "-6", "route", "show", "table", "all"]),
    ("connections", &["conntrack", "-L"]),
    ("sockets", &["ss", "-tulpn"]),
];

/// The build directory that this test was started from.
pub fn target_dir() -> PathBuf {
    let profile = profile_dir();
    profile.parent().map_or_else(|| profile.clone(), Path::to_path_buf)
}

/// Where cargo puts the binaries of the profile that this test was built with.
pub fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().ok();
    let deps = test.as_deref().and_then(Path::parent);
    if let Some(profile) = deps.filter(|path| path.ends_with("deps")).and_then(Path::parent) {
        return profile.to_path_buf();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root, PathBuf::from);
    target.join(if cfg!(debug_assertions) { "debug" } else { "release" })
}

/// Where a failure of `test` leaves its evidence.
pub fn directory(test: &str) -> PathBuf {
    target_dir().join("netns").join(test)
}

/// Asks every host and copies the logs; what can't be had is left out.
pub fn keep(test: &str, scratch: &Path, hosts: &[Host]) {
    let kept = directory(test);
    std::fs::remove_dir_all(&kept).ok();
    if let Err(error) = std::fs::create_dir_all(&kept) {
        eprintln!("{test}: no evidence kept: {}: {error}", kept.display());
        return;
    }
    for host in hosts {
        for (name, argv) in QUESTIONS {
            let answer = host.run(argv).to_string();
            std::fs::write(kept.join(format!("{}.{name}", host.name)), answer).ok();
        }
    }
    for entry in std::fs::read_dir(scratch.join("logs")).into_iter().flatten().flatten() {
        std::fs::copy(entry.path(), kept.join(entry.file_name())).ok();
    }
    eprintln!("{test}: logs, rules and capture are in {}", kept.display());
}
