//! The NAT classes, as the laboratory has them.

pub use frejus_lab::nat::{Nat, NatClass, Tcp};
