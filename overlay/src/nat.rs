//! What stands between this node and the Internet, by the words of RFC 4787 and the procedure of RFC 5780.
//!
//! Owns: the vocabulary, and how mapping and filtering make a class. Finding them out is [`discovery`]'s. Never: a
//! socket, a message to anybody.

pub mod discovery;
pub mod observers;
pub mod ports;

use std::net::SocketAddr;

use crate::document::NatClass;
use crate::guess::Ports;

/// What a NAT's decision depends on (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dependence {
    /// Not found out.
    #[default]
    Unknown,
    /// On the inner endpoint alone.
    Endpoint,
    /// On the remote address too.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// As scripts read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Endpoint => "endpoint-independent",
            Self::Address => "address-dependent",
            Self::AddressAndPort => "address-and-port-dependent",
        }
    }
}

/// Why something could not be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// No super peer's answer came back over UDP.
    NoAnswer,
    /// Fewer super peers than the procedure needs; so many answered.
    FewSuperPeers(u8),
    /// The super peer asked has no second port.
    NoAlternatePort,
    /// The super peer asked has no third one at hand that we have not spoken to.
    NoStranger,
    /// Too many packets were lost to conclude from silence.
    Lossy,
    /// The super peers say different things, and neither side has a majority.
    Disagreement,
}

/// What a discovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The class of interface.md.
    pub class: NatClass,
    /// What the outer port depends on.
    pub mapping: Dependence,
    /// Who may send to it.
    pub filtering: Dependence,
    /// Outer endpoints of the mappings that were made, those that most super peers agree on first; their ports are of
    /// sockets that are closed again.
    pub external: Vec<SocketAddr>,
    /// From one mapping to the next, where ports are given out in sequence: a multiple of it, signed.
    pub step: Option<i32>,
    /// Whether two sockets of ours reach each other by outer endpoints; `None` where there is no NAT to try it on.
    pub hairpin: Option<bool>,
    /// Whether the router takes what comes in before the inside has spoken for a flow to itself, and then sends the
    /// inside's packets from another port; `None` where that was not found out.
    pub careless: Option<bool>,
    /// Whether any answer came over UDP.
    pub udp: bool,
    /// What could not be found out, and why.
    pub gaps: Vec<Gap>,
}

impl Discovered {
    /// How outer ports are chosen, as far as guessing needs to know.
    #[must_use]
    pub fn ports(&self) -> Ports {
        let step = self.step.and_then(|step| i16::try_from(step).ok()).filter(|step| *step != 0);
        match (self.mapping, self.class, step) {
            (Dependence::Endpoint, ..) | (_, NatClass::Open | NatClass::Firewalled, _) => Ports::Kept,
            (_, _, Some(step)) => Ports::Counted(step),
            (_, NatClass::SymmetricRandom, None) => Ports::Scattered,
            _ => Ports::Unknown,
        }
    }
}

/// The class of what was found. `translated`: whether the outside sees another address than ours; `step` and
/// `mappings` are those of a symmetric NAT.
#[must_use]
pub fn class(
    translated: Option<bool>,
    mapping: Dependence,
    filtering: Dependence,
    sequence: ports::Sequence,
) -> NatClass {
    match (translated, mapping, filtering) {
        (Some(false), _, Dependence::Endpoint) => NatClass::Open,
        (Some(false), _, Dependence::Address | Dependence::AddressAndPort) => NatClass::Firewalled,
        (Some(true), Dependence::Endpoint, Dependence::Endpoint) => NatClass::FullCone,
        (Some(true), Dependence::Endpoint, Dependence::Address) => NatClass::AddressRestricted,
        (Some(true), Dependence::Endpoint, Dependence::AddressAndPort) => NatClass::PortRestricted,
        (Some(true), Dependence::Address | Dependence::AddressAndPort, _) => match sequence {
            ports::Sequence::Unknown => NatClass::Unknown,
            ports::Sequence::Step(_) => NatClass::SymmetricSequential,
            ports::Sequence::Random => NatClass::SymmetricRandom,
        },
        _ => NatClass::Unknown,
    }
}
