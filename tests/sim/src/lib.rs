//! An internet in a vector, in virtual time.
#![forbid(unsafe_code)]

pub mod app;
pub mod crypto;
pub mod dice;
pub mod directory;
pub mod forwarding;
pub mod internet;
pub mod link;
pub mod nat;
pub mod oracle;
pub mod tunnel;
