//! What a home router does: its class, and what else it does to packets. Never runs anything; see [`crate::recipe`].

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::recipe;
use crate::trouble::{Result, Trouble};

/// What a router does to UDP; RFC 4787 by mapping and filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatClass {
    /// No NAT and no filter: a public address.
    Open,
    /// A public address, inbound denied unless it answers.
    Firewalled,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// A mapping per destination, ports one after the other.
    SymmetricSequential,
    /// A mapping per destination, random ports.
    SymmetricRandom,
}

impl NatClass {
    /// Every class once.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Firewalled,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::SymmetricSequential,
        Self::SymmetricRandom,
    ];

    /// The class's word in the product's JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Firewalled => "firewalled",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
        }
    }

    /// True where addresses are translated.
    pub const fn translates(self) -> bool {
        !matches!(self, Self::Open | Self::Firewalled)
    }

    /// True where a port keeps its mapping whoever is spoken to.
    pub const fn is_cone(self) -> bool {
        matches!(self, Self::FullCone | Self::AddressRestricted | Self::PortRestricted)
    }
}

impl fmt::Display for NatClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for NatClass {
    type Err = Trouble;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::word).join(", ");
            Trouble::usage(format!("there is no NAT class `{word}`"), format!("say one of {words}"))
        })
    }
}

/// A class with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// The class.
    pub class: NatClass,
    pub(crate) hairpin: bool,
    pub(crate) lifetime: Option<Lifetime>,
    pub(crate) careless: bool,
    pub(crate) rejects: bool,
    pub(crate) udp: bool,
    pub(crate) tcp: Tcp,
    pub(crate) mapping: bool,
}

/// How long a mapping lives without traffic, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lifetime {
    pub(crate) unanswered: u32,
    pub(crate) answered: u32,
}

/// Which TCP connections the inside may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tcp {
    /// All.
    All,
    /// Those to these ports; 0 stands for no port.
    To([u16; 4]),
    /// None: there is a proxy in the router, or nothing.
    None,
}

impl From<NatClass> for Nat {
    fn from(class: NatClass) -> Self {
        let (udp, tcp) = (true, Tcp::All);
        let (hairpin, careless, rejects, mapping) = (false, false, false, false);
        Self { class, hairpin, lifetime: None, careless, rejects, udp, tcp, mapping }
    }
}

impl From<&NatClass> for Nat {
    fn from(class: &NatClass) -> Self {
        (*class).into()
    }
}

impl Nat {
    /// Inside hosts reach each other through the external address, whatever the filter says.
    ///
    /// # Panics
    /// For a class that is no cone. A class that does not translate has no use for it; with a mapping for each
    /// destination, a hairpin would have to know the mapping that was made for the router itself.
    #[must_use]
    pub const fn hairpin(self) -> Self {
        assert!(self.class.is_cone(), "only a cone has a hairpin");
        Self { hairpin: true, ..self }
    }

    /// Mappings live two seconds, three once answered.
    #[must_use]
    pub const fn fast_expiry(self) -> Self {
        Self { lifetime: Some(Lifetime { unanswered: 2, answered: 3 }), ..self }
    }

    /// Mappings live thirty seconds: the shortest life that was found among 34 home gateways.
    #[must_use]
    pub const fn short_lived(self) -> Self {
        self.lifetime(30)
    }

    /// Mappings live so many seconds without traffic, answered or not.
    #[must_use]
    pub const fn lifetime(self, seconds: u32) -> Self {
        Self { lifetime: Some(Lifetime { unanswered: seconds, answered: seconds }), ..self }
    }

    /// Stray packets reach the router itself, and push the mappings of others aside.
    #[must_use]
    pub const fn careless(self) -> Self {
        Self { careless: true, ..self }
    }

    /// What is not let in is answered with ICMP port unreachable.
    #[must_use]
    pub const fn rejecting(self) -> Self {
        Self { rejects: true, ..self }
    }

    /// No UDP passes, in no direction.
    #[must_use]
    pub const fn without_udp(self) -> Self {
        Self { udp: false, ..self }
    }

    /// Of TCP passes only this.
    #[must_use]
    pub const fn tcp(self, tcp: Tcp) -> Self {
        Self { tcp, ..self }
    }

    /// The inside may ask the router for mappings: PCP, NAT-PMP and UPnP; see [`crate::Lab::map_ports`].
    #[must_use]
    pub const fn mapping(self) -> Self {
        Self { mapping: true, ..self }
    }

    /// True where the inside may ask the router for mappings.
    pub const fn maps_ports(&self) -> bool {
        self.mapping
    }

    /// The kernel settings of the router, as arguments for `sysctl`.
    pub fn settings(&self) -> Vec<String> {
        recipe::settings(self)
    }

    /// The rules of a router whose external address is `external`, with `lan` (CIDR) behind it.
    pub fn rules(&self, external: Ipv4Addr, lan: &str) -> String {
        recipe::rules(self, external, lan)
    }
}

impl fmt::Display for Nat {
    /// The class, and what is not ordinary about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        let words = [
            (self.hairpin, "hairpin"),
            (self.careless, "careless"),
            (self.rejects, "rejects"),
            (!self.udp, "no UDP"),
            (self.mapping, "maps ports"),
        ];
        for (_, word) in words.into_iter().filter(|(said, _)| *said) {
            write!(f, ", {word}")?;
        }
        match self.tcp {
            Tcp::All => {}
            Tcp::None => f.write_str(", no TCP")?,
            Tcp::To(ports) => {
                let ports: Vec<String> = open(&ports).map(|port| port.to_string()).collect();
                write!(f, ", TCP to {} only", ports.join(" "))?;
            }
        }
        self.lifetime.map_or(Ok(()), |life| write!(f, ", mappings live {} s", life.answered))
    }
}

/// The ports that are meant.
pub(crate) fn open(ports: &[u16; 4]) -> impl Iterator<Item = u16> {
    ports.iter().copied().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for class in NatClass::ALL {
            assert_eq!(class.word().parse::<NatClass>().unwrap(), class);
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("\"{}\"", class.word()));
        }
        assert!("cone".parse::<NatClass>().unwrap_err().to_string().contains("full-cone"));
    }

    #[test]
    fn a_nat_says_what_is_not_ordinary() {
        let nat = Nat::from(NatClass::PortRestricted);
        assert_eq!(nat.to_string(), "port-restricted");
        let nat = nat.without_udp().tcp(Tcp::To([443, 0, 0, 0])).short_lived();
        assert_eq!(nat.to_string(), "port-restricted, no UDP, TCP to 443 only, mappings live 30 s");
    }
}
