//! The kernel laboratory: hosts, home routers and an internet, out of network namespaces, for the real binary.
//!
//! What an internet is made of belongs to the crate `frejus-lab`; here it is built for one test, and removed whatever
//! happens. It never imports the product: it knows the `frejus` binary, its verbs, its exit codes and its JSON, as any
//! script.
//!
//! | file | owns |
//! | --- | --- |
//! | `ability` | what this machine must offer; a test that can't run says so loudly |
//! | `lab` | one laboratory for one test; the sweep of leftovers |
//! | `run` | one host: commands, background processes and sockets inside it |
//! | `nat`, `link` | words of the laboratory, for stories |
//! | `daemon` | the `frejus` binary: start, stop, ask |
//! | `scene` | networks that most stories begin with |
//! | `probe` | single words: where they are seen to come from, who gets in |
//! | `flood` | datagrams with forged sources |
//! | `traffic` | what crosses the network: ping streams, web pages, counters |
//! | `matrix` | every pair of NAT classes: run, written down, told |
//! | `wait` | waiting for a state |
//! | `evidence` | what is kept when a test fails |

pub mod ability;
pub mod daemon;
pub mod evidence;
pub mod flood;
pub mod lab;
pub mod link;
pub mod matrix;
pub mod nat;
pub mod probe;
pub mod run;
pub mod scene;
pub mod traffic;
pub mod wait;

pub use daemon::Daemon;
pub use lab::Lab;
pub use link::Quality;
pub use nat::{Nat, NatClass};
pub use run::{Host, Output, Process};
pub use scene::Scene;
pub use wait::wait_for;
