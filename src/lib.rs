//! The daemon and the command line: everything that touches the world.

pub mod api;
#[cfg(frejus_null_cipher)]
mod ceiling;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod directory;
pub mod exits;
pub mod failure;
pub mod forward;
pub mod founding;
mod fragmentation;
pub mod gate;
pub mod joining;
pub mod ledger;
pub mod limiter;
pub mod netlink;
pub mod offload;
pub mod options;
pub mod paths_on_disk;
pub mod portmap;
pub mod question;
pub mod report;
mod seal;
mod sleep;
pub mod state;
pub mod stream;
pub mod transport;
pub mod tun;
pub mod udp;
pub mod wireguard;
