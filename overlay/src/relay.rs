//! Relaying: sealed packets of others, by channel. See [`server`].

pub mod server;
