//! An internet in a vector, in virtual time: nodes, NATs, links and a directory, all from one seed.
//!
//! | module | owns |
//! | --- | --- |
//! | [`scenario`] | stages: who is where, behind what |
//! | [`world`] | the events, the hosts, virtual time |
//! | [`host`], [`forwarding`], [`app`] | one machine: node, data path, application |
//! | [`internet`], [`nat`], [`link`], `mapping` | between machines |
//! | [`crypto`], [`tunnel`], [`keys`] | a model of the cryptographic seam |
//! | [`directory`], [`founder`] | a model of the table; who enrolled whom |
//! | [`laws`], [`trace`] | what must hold at every step; what happened |
//! | [`dice`] | all randomness |
//!
//! The same seed gives the same bytes. A failing story prints its seed, the last events and every node's state.
#![forbid(unsafe_code)]

pub mod app;
pub mod crypto;
pub mod dice;
pub mod directory;
pub mod forwarding;
pub mod founder;
pub mod host;
pub mod internet;
pub mod keys;
pub mod laws;
pub mod link;
mod mapping;
pub mod nat;
mod newcomer;
pub mod scenario;
pub mod trace;
pub mod tunnel;
mod view;
pub mod world;
