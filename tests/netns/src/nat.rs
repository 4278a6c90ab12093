//! The NAT classes as nft rules, under the names that the simulator uses. Never runs anything.
//!
//! A stray packet that the router delivers to itself becomes a connection of its own and pushes our mapping to
//! another port, so that neither side ever hears the other. The `self` chain drops it first; [`Nat::careless`]
//! leaves that chain out, because such routers exist.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// What a home router does to UDP; RFC 4787 by mapping and filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    const fn is_cone(self) -> bool {
        matches!(self, Self::FullCone | Self::AddressRestricted | Self::PortRestricted)
    }
}

/// A class with its options.
#[derive(Clone, Copy, Debug)]
pub struct Nat {
    /// The class.
    pub class: NatClass,
    hairpin: bool,
    lifetime: Option<Lifetime>,
    careless: bool,
}

/// How long a mapping lives without traffic, in seconds.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    unanswered: u32,
    answered: u32,
}

impl From<NatClass> for Nat {
    fn from(class: NatClass) -> Self {
        Self { class, hairpin: false, lifetime: None, careless: false }
    }
}

impl Nat {
    /// Inside hosts reach each other through the external address.
    ///
    /// # Panics
    /// For a class that is no cone: the other recipes have no hairpin.
    pub fn hairpin(mut self) -> Self {
        assert!(self.class.is_cone(), "no hairpin recipe for {:?}", self.class);
        self.hairpin = true;
        self
    }

    /// Mappings live two seconds, three once answered.
    pub const fn fast_expiry(mut self) -> Self {
        self.lifetime = Some(Lifetime { unanswered: 2, answered: 3 });
        self
    }

    /// Mappings live thirty seconds: the shortest life that was found among 34 home gateways.
    pub const fn short_lived(mut self) -> Self {
        self.lifetime = Some(Lifetime { unanswered: 30, answered: 30 });
        self
    }

    /// Stray packets reach the router itself.
    pub const fn careless(mut self) -> Self {
        self.careless = true;
        self
    }

    /// The kernel settings of the router, as arguments for `sysctl`.
    pub fn settings(&self) -> Vec<String> {
        let mut settings = vec!["net.ipv4.ip_forward=1".to_owned()];
        if !self.class.translates() {
            for device in ["wan0", "lan0"] {
                settings.push(format!("net.ipv4.conf.{device}.proxy_arp=1"));
                settings.push(format!("net.ipv4.neigh.{device}.proxy_delay=0"));
            }
        }
        if let Some(Lifetime { unanswered, answered }) = self.lifetime {
            settings.push(format!("net.netfilter.nf_conntrack_udp_timeout={unanswered}"));
            settings.push(format!("net.netfilter.nf_conntrack_udp_timeout_stream={answered}"));
        }
        settings
    }

    /// The rules of a router whose external address is `external`, with `lan` (CIDR) behind it.
    pub fn rules(&self, external: Ipv4Addr, lan: &str) -> String {
        let mut rules = match self.class {
            NatClass::Open | NatClass::Firewalled => String::new(),
            NatClass::FullCone | NatClass::AddressRestricted => self.cone(external, lan),
            NatClass::PortRestricted if self.hairpin => self.cone(external, lan),
            NatClass::PortRestricted => masquerade(""),
            NatClass::SymmetricRandom => masquerade(" fully-random"),
            NatClass::SymmetricSequential => sequential(external),
        };
        rules.push_str(&self.filter());
        rules
    }

    /// Endpoint-independent mapping: the port that a host uses is the port that the public side sees.
    ///
    /// Chain `refresh` keeps an entry alive with every packet; a nat chain sees only a flow's first.
    fn cone(&self, external: Ipv4Addr, lan: &str) -> String {
        let timeout = self.timeout();
        let (back_in, back_out) = if self.hairpin {
            (
                format!(
                    "iifname \"lan0\" ip daddr {external} meta l4proto udp dnat ip to udp dport map @eim"
                ),
                format!("oifname \"lan0\" ip saddr {lan} ct status dnat snat to {external}"),
            )
        } else {
            (String::new(), String::new())
        };
        format!(
            r#"
table ip boxnat {{
  map eim {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
  chain inbound {{ type nat hook prerouting priority dstnat;
    iifname "wan0" meta l4proto udp dnat ip to udp dport map @eim
    {back_in}
  }}
  chain outbound {{ type nat hook postrouting priority srcnat;
    oifname "wan0" meta l4proto udp update @eim {{ udp sport : ip saddr . udp sport }}
    oifname "wan0" snat to {external}
    {back_out}
  }}
  chain refresh {{ type filter hook forward priority -10;
    iifname "lan0" oifname "wan0" meta l4proto udp update @eim {{ udp sport : ip saddr . udp sport }}
  }}
}}
"#
        )
    }

    fn filter(&self) -> String {
        let timeout = self.timeout();
        let mut filter = String::from("table ip boxfilter {\n");
        if self.class == NatClass::AddressRestricted {
            let _ = write!(
                filter,
                r#"  set spoken {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
  chain note {{ type filter hook forward priority -10;
    oifname "wan0" meta l4proto udp update @spoken {{ ip daddr . udp sport }}
  }}
"#
            );
        }
        if self.class != NatClass::Open {
            filter.push_str(&self.gate());
        }
        if !self.careless {
            filter.push_str("  chain self { type filter hook input priority 0; iifname \"wan0\" drop; }\n");
        }
        filter + "}\n"
    }

    fn gate(&self) -> String {
        let mut gate = String::from("  chain gate { type filter hook forward priority 0;\n");
        gate.push_str("    iifname \"wan0\" ct state established,related accept\n");
        if self.class == NatClass::AddressRestricted {
            gate.push_str("    iifname \"wan0\" meta l4proto udp ip saddr . udp dport @spoken accept\n");
        }
        if self.class != NatClass::FullCone {
            gate.push_str("    iifname \"wan0\" drop\n");
        }
        gate + "  }\n"
    }

    /// Life of an entry in the recipes' own map and set.
    fn timeout(&self) -> String {
        format!("{}s", self.lifetime.map_or(120, |lifetime| lifetime.answered))
    }
}

fn masquerade(how: &str) -> String {
    format!(
        "table ip boxnat {{\n  chain outbound {{ type nat hook postrouting priority srcnat; \
         oifname \"wan0\" masquerade{how}; }}\n}}\n"
    )
}

fn sequential(external: Ipv4Addr) -> String {
    let ports: Vec<String> = (0..1024).map(|i| format!("{i} : {}", 40000 + i)).collect();
    format!(
        "table ip boxnat {{\n  chain outbound {{ type nat hook postrouting priority srcnat;\n    \
         oifname \"wan0\" meta l4proto udp snat ip to {external} : numgen inc mod 1024 map {{ {} }}\n    \
         oifname \"wan0\" snat to {external}\n  }}\n}}\n",
        ports.join(", ")
    )
}
