//! The node: one sans-IO state machine. Time and bytes in; datagrams, tables, commands and deadlines out.
//!
//! The contract: after every input, drain [`Node::poll_output`], then sleep until [`Node::poll_timeout`] and call
//! [`Node::handle_timeout`].

mod io;

pub use io::*;
