//! An internet in a vector, in virtual time.
#![forbid(unsafe_code)]

pub mod crypto;
pub mod dice;
pub mod internet;
pub mod link;
pub mod nat;
pub mod oracle;
pub mod tunnel;
