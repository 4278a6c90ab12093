//! Who holds which virtual address, and under which name. Pure: no clock, no randomness, no input or output;
//! the time is an argument, and whoever owns a [`Pool`] persists what it returns.
//!
//! | module | owns |
//! | --- | --- |
//! | [`address`] | the IPv6 prefix of a network and the IPv6 address of a node, both derived, never leased |
//! | [`prefix`] | the IPv4 prefix of a network: which may be chosen, which clash, which to take in its place |
//! | [`block`] | the pieces of that prefix, one a login server; disjoint, so that nothing races |
//! | [`lease`] | one address, its holder, and until when |
//! | [`pool`] | the leases of one block: grant, renew, release, expire |
//! | [`name`] | the labels of nodes and networks |
//!
//! The law of the crate, held by property tests: an address has at most one holder whose passport could still be
//! valid anywhere, whatever the order of deeds, and however many login servers can't see each other.
#![forbid(unsafe_code)]

pub mod address;
pub mod block;
pub mod lease;
pub mod name;
pub mod pool;
pub mod prefix;

pub use address::{address6, prefix6};
pub use block::{Block, BlockError, Usable};
pub use lease::{Lease, LeaseState};
pub use name::{Label, LabelError};
pub use pool::{Counts, Pool, PoolError};
pub use prefix::{PrefixError, check_prefix4, default_prefix4, overlap, suggest};

use sha2::{Digest, Sha256};

/// SHA-256 over `domain`, a zero byte and `input`: no two derivations of the crate can meet.
fn hash(domain: &str, input: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(domain.as_bytes());
    hasher.update([0]);
    hasher.update(input);
    hasher.finalize().into()
}
