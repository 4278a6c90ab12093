//! What an operator is told when something does not work, and the exit code that a script sees.
//!
//! Owns: [`Failure`] and [`ExitCode`]. Never: the fate of a packet, nor the blame of a peer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit codes that scripts rely on; 0 is success and no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitCode {
    /// Failed for a reason that has no code of its own.
    Other = 1,
    /// Wrong usage, also a code that can't be read.
    Usage = 2,
    /// No node is running.
    NotRunning = 3,
    /// Not permitted.
    NotPermitted = 4,
    /// Not enrolled; or the code or the passport has expired, is used up or was revoked.
    NotEnrolled = 5,
    /// No such peer.
    NoSuchPeer = 6,
    /// The peer does not answer.
    Unreachable = 7,
    /// The peer is reachable only through a relay.
    RelayOnly = 8,
    /// Timed out.
    TimedOut = 9,
    /// The configuration is invalid.
    BadConfig = 10,
    /// An address, prefix, name or port is taken.
    Conflict = 11,
    /// The node runs, but not as it should.
    Degraded = 12,
}

impl ExitCode {
    /// Every code with its meaning, for the manual.
    pub const TABLE: [(u8, &str); 13] = [
        (0, "done"),
        (1, "failed for another reason"),
        (2, "wrong usage, also a code that can't be read"),
        (3, "no node is running"),
        (4, "not permitted"),
        (5, "not enrolled; or the code or the passport has expired, is used up or was revoked"),
        (6, "no such peer"),
        (7, "peer unreachable"),
        (8, "reachable only through a relay (--require-direct, --until-direct)"),
        (9, "timed out"),
        (10, "configuration invalid"),
        (11, "conflict: an address, prefix, name or port is taken"),
        (12, "degraded (status --check ready)"),
    ];

    /// The failure that a process ended with; none for success and for what is not ours.
    #[must_use]
    pub const fn from_number(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::Other,
            2 => Self::Usage,
            3 => Self::NotRunning,
            4 => Self::NotPermitted,
            5 => Self::NotEnrolled,
            6 => Self::NoSuchPeer,
            7 => Self::Unreachable,
            8 => Self::RelayOnly,
            9 => Self::TimedOut,
            10 => Self::BadConfig,
            11 => Self::Conflict,
            12 => Self::Degraded,
            _ => return None,
        })
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// One line for the operator: what happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Failure {
    /// What a script sees.
    pub code: ExitCode,
    /// What happened, with the file, interface, address or peer in it.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl Failure {
    /// A failure with its code, what happened and what to do.
    #[must_use]
    pub fn new(code: ExitCode, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { code, what: what.into(), mend: mend.into() }
    }

    /// A failure without a code of its own.
    #[must_use]
    pub fn other(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(ExitCode::Other, what, mend)
    }

    /// Wrong usage.
    #[must_use]
    pub fn usage(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, what, mend)
    }
}

impl fmt::Display for Failure {
    /// `WHAT HAPPENED: WHAT TO DO`, on one line whatever the parts hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", one_line(&self.what), one_line(&self.mend))
    }
}

/// The text with every control character, line ends among them, turned into a blank.
fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_happened_and_what_to_do_on_one_line() {
        let failure = Failure::other("disk\nfull", "make room\u{1b}[31m\n");
        assert_eq!(failure.to_string(), "disk full: make room [31m");
    }

    #[test]
    fn travels_as_json() {
        let failure = Failure::new(ExitCode::NoSuchPeer, "no peer b", "see frejus peers");
        let json = serde_json::to_string(&failure).unwrap();
        assert_eq!(json, r#"{"code":"no-such-peer","what":"no peer b","mend":"see frejus peers"}"#);
        assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
    }

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        for (code, _) in ExitCode::TABLE {
            let known = ExitCode::from_number(code.into()).map(|named| named as u8);
            assert_eq!(known.unwrap_or(0), code);
        }
        assert!(ExitCode::TABLE.iter().enumerate().all(|(row, (code, _))| row == usize::from(*code)));
    }
}
