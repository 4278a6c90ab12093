//! The daemon and the command line.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod failure;
pub mod options;
pub mod paths_on_disk;
pub mod question;
pub mod report;
