//! The daemon and the command line.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod failure;
pub mod founding;
pub mod joining;
pub mod ledger;
pub mod options;
pub mod paths_on_disk;
pub mod question;
pub mod report;
pub mod state;
