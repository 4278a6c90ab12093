//! The network's mind: pure state machines and packet functions.
#![forbid(unsafe_code)]

pub mod document;
pub mod forward;
pub mod id;
pub mod locator;
pub mod packet;
pub mod port;
pub mod record;
pub mod relay;
pub mod timing;
pub mod tunnel;
#[doc(hidden)]
pub mod tunnel_contract;
pub mod verdict;
pub mod wire;
