//! The network's mind: pure state machines and packet functions.
#![forbid(unsafe_code)]

mod backlog;
pub mod code;
pub mod document;
pub mod enrolment;
pub mod forward;
pub mod id;
pub mod limits;
pub mod locator;
pub mod login;
pub mod node;
pub mod packet;
pub mod paths;
mod peer;
pub mod port;
pub mod punch;
pub mod record;
pub mod relay;
pub mod resolver;
pub mod score;
pub mod timing;
pub mod tunnel;
pub mod verdict;
pub mod wire;
