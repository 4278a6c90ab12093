//! The network's mind: pure state machines and packet functions.
#![forbid(unsafe_code)]

pub mod id;
pub mod packet;
pub mod port;
pub mod timing;
