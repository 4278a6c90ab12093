//! What the machine must offer before a laboratory can be built. Never repairs anything.

use std::path::Path;
use std::process::{Command, Stdio};

/// Programs that every laboratory uses.
const PROGRAMS: [&str; 6] = ["ip", "nft", "ping", "timeout", "sysctl", "tcpdump"];

/// True when the laboratory can be built; else says loudly that `test` is skipped.
///
/// # Panics
/// When something is missing and the environment says `NETNS=required`.
pub fn present(test: &str) -> bool {
    let Some(missing) = missing(&PROGRAMS) else { return true };
    assert!(
        std::env::var("NETNS").as_deref() != Ok("required"),
        "{test}: NETNS=required, but this machine lacks {missing}"
    );
    eprintln!("SKIPPED {test}: this machine lacks {missing}");
    false
}

/// True when `program` is found; else says loudly what is skipped, or panics as [`present`] does.
pub fn program(test: &str, program: &str) -> bool {
    if found(program) {
        return true;
    }
    let required = std::env::var("NETNS").as_deref() == Ok("required");
    assert!(!required, "{test}: NETNS=required, but there is no program {program}");
    eprintln!("SKIPPED {test}: there is no program {program}");
    false
}

/// True when `program` is in the search path.
pub fn found(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}

fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the rights of root".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun".into());
    }
    if let Some(program) = programs.iter().find(|program| !found(program)) {
        return Some(format!("the program {program}"));
    }
    (!namespaces_work()).then(|| "network namespaces with nft (unshare and nft list must work)".into())
}

fn namespaces_work() -> bool {
    Command::new("unshare")
        .args(["-n", "nft", "add table bridge probe"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
