//! The network's mind: pure state machines and packet functions.
//!
//! Nothing here opens a socket or a file, asks for the time, or draws a random number: time, bytes and seeds are
//! arguments, datagrams and wishes are results. So the daemon runs it on a real kernel, and the simulator runs
//! hundreds of it in virtual time, and both run the same code.
//!
//! # Map
//!
//! | to understand | read |
//! | --- | --- |
//! | who is who, and why one believes it | [`id`], [`document`], [`record`], [`code`] |
//! | how a node comes in | [`enrolment`] (the newcomer), [`login`] (the login server) |
//! | address → node → whereabouts | [`resolver`], [`port`] (to the directory) |
//! | how a path is found, judged and left | [`nat`], [`punch`], [`guess`], [`paths`], [`score`], [`path_mtu`], [`locator`], [`stun`] |
//! | the port that a router opens for us | [`mapping`], [`igd`] |
//! | what a packet meets | [`forward`], [`packet`], [`relay`], [`verdict`] |
//! | what travels | [`wire`], [`tunnel`] |
//! | what protects it, beside WireGuard | [`agreement`] |
//! | what holds it together | [`node`] |
//! | how much and how long | [`limits`], [`timing`] |
//!
//! # The loop
//!
//! [`node::Node`] takes an input (`handle_*`), then is drained (`poll_output`), then says when it wants to be woken
//! (`poll_timeout`). Its parts have the same shape.
//!
//! # The laws
//!
//! 1. After any input: drain `poll_output`, then ask `poll_timeout`.
//! 2. Queued output means that `poll_timeout` is not later than the last `now`.
//! 3. After `handle_timeout(t)` and draining, `poll_timeout` is later than `t`.
//! 4. Time never runs backwards; equal times may interleave.
//! 5. Every queue has a bound, with its arithmetic; overflow is a counted [`verdict::Drop`].
//! 6. Same seed and inputs, same bytes out.
//!
//! The simulator asserts them at every step.
#![forbid(unsafe_code)]

pub mod agreement;
mod backlog;
pub mod code;
pub mod crossing;
pub mod doctor;
pub mod document;
pub mod enrolment;
pub mod forward;
pub mod guess;
pub mod id;
pub mod igd;
pub mod limits;
pub mod locator;
pub mod login;
pub mod mapping;
mod move_back;
pub mod nat;
pub mod node;
pub mod packet;
pub mod path_mtu;
pub mod paths;
pub mod pcp;
mod peer;
pub mod port;
pub mod punch;
pub mod ranking;
pub mod record;
pub mod relay;
pub mod resolver;
pub mod score;
mod sight;
mod standby;
pub mod stream;
pub mod stun;
#[cfg(test)]
mod testing;
pub mod timing;
pub mod tunnel;
#[doc(hidden)]
pub mod tunnel_contract;
#[doc(hidden)]
pub mod tunnel_model;
pub mod unproved;
pub mod verdict;
pub mod wire;
