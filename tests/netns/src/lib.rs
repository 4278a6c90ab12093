//! The kernel laboratory: hosts, home routers and an internet, out of network namespaces, for the real binary.
//!
//! It owns namespaces, devices, rules and processes that it made itself, and removes them whatever happens. It
//! never imports the product: it knows the `frejus` binary, its verbs, its exit codes and its JSON, as any script.
//!
//! ```text
//!                     namespace "wan"
//!              +---------------------------+
//!              |  bridge br0               |   rules: cut pairs, blacked-out addresses
//!              |  203.0.113.0/24           |   tcpdump: the capture kept when a test fails
//!              +--+---------+----------+---+
//!         public  |         | wan0     | wan0     (veth, or a user-space link with delay and loss)
//!    +------------+--+  +---+------+ +-+--------+
//!    | host "s"      |  | router   | | router   |   203.0.113.10, .11, ...: one NAT class each
//!    | 203.0.113.101 |  | of "a"   | | of "b"   |
//!    +---------------+  +---+------+ +-+--------+
//!                           | lan0     | lan0     (bridges: 192.168.10.1/24, 192.168.11.1/24, ...)
//!                       +---+------+ +-+--------+
//!                       | host "a" | | host "b" |  192.168.10.2, 192.168.11.2, default route to the router
//!                       +----------+ +----------+
//! ```
//!
//! | file | owns |
//! | --- | --- |
//! | `ability` | what this machine must offer; a test that can't run says so loudly |
//! | `lab` | the topology: namespaces, bridge, cuts; the sweep of leftovers |
//! | `run` | one host: commands, background processes and sockets inside it |
//! | `nat` | the NAT classes as nft rules |
//! | `link` | delay and loss in user space |
//! | `daemon` | the `frejus` binary: start, stop, ask |
//! | `scene` | networks that most stories begin with |
//! | `traffic` | what crosses the network: ping streams, web pages, counters |
//! | `wait` | waiting for a state |
//! | `evidence` | what is kept when a test fails |

pub mod ability;
pub mod daemon;
pub mod evidence;
pub mod lab;
pub mod link;
pub mod nat;
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
