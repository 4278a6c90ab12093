//! Internets out of network namespaces: hosts, home routers with NATs, carriers, links; changed while they run.
//!
//! It owns namespaces, devices, rules and processes that it made itself. It knows the `frejus` binary by its verbs
//! ([`nodes`]) and is used by the binary's own `lab` and by the tests on the kernel; it knows neither.
//!
//! ```text
//!                     namespace "wan"
//!              +---------------------------+
//!              |  bridge br0               |   rules: cut pairs, dark addresses
//!              |  203.0.113.0/24           |
//!              +--+---------+----------+---+
//!         public  |         | wan0     | wan0     (veth; a link with delay and loss stands before its port)
//!    +------------+--+  +---+------+ +-+---------+
//!    | host "s"      |  | router   | | carrier   |  203.0.113.10, .11, ...: one NAT class each
//!    | 203.0.113.101 |  | of "a"   | | 100.64.x  |
//!    +---------------+  +---+------+ +-+---------+
//!                           | lan0     | lan0     (bridges; behind a carrier there are routers again)
//!                       +---+------+ +-+---------+
//!                       | host "a" | | router    |  192.168.10.2, default route to the router
//!                       +----------+ | of "b"... |
//!                                    +-----------+
//! ```
//!
//! | file | owns |
//! | --- | --- |
//! | `topology` | what a TOML file says, checked |
//! | `lab` | namespaces, bridges, routers, hosts; their removal |
//! | `change` | cuts, darkness, reboots, other addresses, classes and links |
//! | `extras` | IPv6, proxies, port mapping, rival flows |
//! | `nodes` | a network of the product on it, known by the binary's verbs |
//! | `store` | what is written down, so that another command finds it |
//! | `nat`, `recipe` | the NAT classes, and their nft rules |
//! | `link`, `emulator` | delay, loss and rate in user space; as processes of their own |
//! | `host`, `service` | one machine and its commands; one background process |

pub mod emulator;
pub mod host;
pub mod lab;
pub mod link;
pub mod nat;
pub mod nodes;
pub mod service;
pub mod store;
pub mod topology;
pub mod trouble;

mod change;
mod extras;
mod recipe;

pub use extras::Credentials;
pub use host::{Host, Output};
pub use lab::{INTERNET, Lab, Member, Router, RouterPlan};
pub use link::Quality;
pub use nat::{Nat, NatClass, Tcp};
pub use trouble::{Kind, Trouble};
