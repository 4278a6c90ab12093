//! Who holds which virtual address. Pure: no clock, no randomness, no input or output.
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

/// placeholder, completed in its own file
#[must_use]
pub fn address6(_network: &[u8; 32], _node: &[u8; 32]) -> Ipv6Addr {
    Ipv6Addr::UNSPECIFIED
}
/// placeholder
pub fn prefix6(_n: &[u8; 32]) -> ipnetwork::Ipv6Network { todo!() }
/// placeholder
pub fn check_prefix4(_p: ipnetwork::Ipv4Network) -> Result<(), ()> { Ok(()) }
/// placeholder
pub struct Label;
impl Label { /// placeholder
pub fn parse(_t: &str) -> Result<Self, ()> { Ok(Self) } }
