//! The daemon and the command line.

pub mod founding;
pub mod joining;
pub mod ledger;
pub mod state;
