//! What went wrong while a laboratory was built or changed, in the words that an operator sees.

use std::fmt::Display;

/// What happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {mend}")]
pub struct Trouble {
    /// What kind of trouble, for an exit code.
    pub kind: Kind,
    /// What happened, with the host, file or address in it.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// The kinds that a script tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user asked for what can't be.
    Usage,
    /// The rights of root are missing.
    NotPermitted,
    /// The topology can't be read or built.
    BadTopology,
    /// A laboratory of this name is up already.
    Conflict,
    /// There is no such laboratory.
    NotRunning,
    /// Something did not come about in time.
    TimedOut,
    /// Anything else: a program that failed, a file that can't be written.
    Other,
}

impl Trouble {
    /// Trouble of a kind.
    pub fn new(kind: Kind, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { kind, what: what.into(), mend: mend.into() }
    }

    /// Trouble without a kind of its own.
    pub fn other(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Kind::Other, what, mend)
    }

    /// The user asked for what can't be.
    pub fn usage(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what, mend)
    }

    /// A file could not be read or written.
    pub fn file(path: &std::path::Path, error: impl Display) -> Self {
        Self::other(format!("{}: {error}", path.display()), "see that it can be read and written by root")
    }
}

/// Of everything here.
pub type Result<T> = std::result::Result<T, Trouble>;
