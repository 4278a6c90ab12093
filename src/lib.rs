//! The daemon and the command line.

pub mod directory;
