//! NAT classes and other manners of routers as nft rules. Never runs anything.
//!
//! A stray packet that the router delivers to itself becomes a connection of its own and pushes our mapping to
//! another port, so that neither side ever hears the other. The `self` chain drops it first; a careless router does
//! without that chain, because such routers exist.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::nat::{Nat, NatClass, Tcp, open};

/// The mark of connections that came in through a port that was asked for.
const MAPPED: u32 = 1;

/// The tables that a router's recipe may have made; all go before another recipe comes.
pub(crate) const TABLES: [&str; 6] =
    ["ip boxnat", "ip boxfilter", "inet boxblock", "inet boxmap", "ip6 boxfilter", "inet quiet"];

/// The kernel settings of a router, as arguments for `sysctl`.
pub(crate) fn settings(nat: &Nat) -> Vec<String> {
    let mut settings = vec!["net.ipv4.ip_forward=1".to_owned()];
    if !nat.class.translates() {
        for device in ["wan0", "lan0"] {
            settings.push(format!("net.ipv4.conf.{device}.proxy_arp=1"));
            settings.push(format!("net.ipv4.neigh.{device}.proxy_delay=0"));
        }
    }
    if let Some(life) = nat.lifetime {
        settings.push(format!("net.netfilter.nf_conntrack_udp_timeout={}", life.unanswered));
        settings.push(format!("net.netfilter.nf_conntrack_udp_timeout_stream={}", life.answered));
    }
    settings
}

/// The rules of a router whose external address is `external`, with `lan` (CIDR) behind it.
pub(crate) fn rules(nat: &Nat, external: Ipv4Addr, lan: &str) -> String {
    let mut rules = match nat.class {
        NatClass::Open | NatClass::Firewalled => String::new(),
        NatClass::FullCone | NatClass::AddressRestricted => cone(nat, external, lan),
        NatClass::PortRestricted if nat.hairpin => cone(nat, external, lan),
        NatClass::PortRestricted => masquerade(""),
        NatClass::SymmetricRandom => masquerade(" fully-random"),
        NatClass::SymmetricSequential => sequential(external),
    };
    rules.push_str(&filter(nat));
    rules.push_str(&block(nat));
    if nat.mapping {
        rules.push_str(&mapping());
    }
    rules
}

/// A stateful filter for IPv6; neighbour discovery does not cross it, and errors about our own packets do.
pub(crate) fn filter6(nat: &Nat) -> String {
    if nat.class == NatClass::Open {
        return String::new();
    }
    format!(
        "table ip6 boxfilter {{\n  chain gate {{ type filter hook forward priority 0;\n    \
         iifname \"wan0\" ct state established,related accept\n    \
         iifname \"wan0\" {}\n  }}\n}}\n",
        if nat.rejects { "reject with icmpv6 type port-unreachable" } else { "drop" }
    )
}

/// The last numbers of those in a LAN who can share a port: hosts, and routers behind a carrier.
const OTHERS: [RangeInclusive<u8>; 2] = [2..=9, 100..=107];

/// Endpoint-independent mapping: the port that a host uses is the port that the public side sees, if no other has it.
///
/// Two hosts may have the same port, and the map from outer to inner endpoints must hold both. Set `owned` has the
/// ports that are seen outside as they are, `mine` whose they are; the port of any other host is changed in its lower
/// byte by the host's number, so that no two of a port meet. Chain `refresh` keeps entries alive with every packet; a
/// nat chain sees only a flow's first.
fn cone(nat: &Nat, external: Ipv4Addr, lan: &str) -> String {
    let timeout = timeout(nat);
    let (back_in, back_out) = if nat.hairpin {
        (
            format!("iifname \"lan0\" ip daddr {external} meta l4proto udp dnat ip to udp dport map @eim"),
            format!(
                "oifname \"lan0\" ip saddr {lan} ct status dnat meta l4proto udp jump mapped
    oifname \"lan0\" ip saddr {lan} ct status dnat snat to {external}"
            ),
        )
    } else {
        (String::new(), String::new())
    };
    let (mut chains, mut seen, mut mapped) = (String::new(), Vec::new(), Vec::new());
    for (number, address) in others(lan) {
        let other = number - 1;
        let _ = write!(
            chains,
            "  chain seen{number} {{
    update @eim {{ udp sport ^ {other} : ip saddr . udp sport }}
  }}
  chain mapped{number} {{
    update @eim {{ udp sport ^ {other} : ip saddr . udp sport }}
    meta l4proto udp snat ip to {external} : udp sport ^ {other}
  }}
"
        );
        seen.push(format!("{address} : goto seen{number}"));
        mapped.push(format!("{address} : goto mapped{number}"));
    }
    let (seen, mapped) = (seen.join(", "), mapped.join(", "));
    format!(
        r#"
table ip boxnat {{
  map eim {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
  set owned {{ type inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
  set mine {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
{chains}  chain own {{
    update @owned {{ udp sport }}
    update @mine {{ ip saddr . udp sport }}
    update @eim {{ udp sport : ip saddr . udp sport }}
  }}
  chain seen {{
    ip saddr . udp sport @mine goto own
    udp sport @owned ip saddr vmap {{ {seen} }}
  }}
  chain mapped {{
    ip saddr . udp sport != @mine udp sport @owned ip saddr vmap {{ {mapped} }}
    jump own
    snat to {external}
  }}
  chain inbound {{ type nat hook prerouting priority dstnat;
    iifname "wan0" meta l4proto udp dnat ip to udp dport map @eim
    {back_in}
  }}
  chain outbound {{ type nat hook postrouting priority srcnat;
    oifname "wan0" meta l4proto udp jump mapped
    oifname "wan0" snat to {external}
    {back_out}
  }}
  chain refresh {{ type filter hook forward priority -10;
    iifname "lan0" oifname "wan0" meta l4proto udp jump seen
  }}
}}
"#
    )
}

/// Numbers and addresses of those in the LAN (CIDR) who can share a port.
fn others(lan: &str) -> impl Iterator<Item = (u8, Ipv4Addr)> {
    let network: Ipv4Addr = lan.split('/').next().and_then(|text| text.parse().ok()).expect("our own CIDR");
    let [a, b, c, _] = network.octets();
    OTHERS.into_iter().flatten().map(move |number| (number, Ipv4Addr::new(a, b, c, number)))
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

/// Who gets in, and what reaches the router itself.
fn filter(nat: &Nat) -> String {
    let timeout = timeout(nat);
    let mut filter = String::from("table ip boxfilter {\n");
    if nat.class == NatClass::AddressRestricted {
        let _ = write!(
            filter,
            r#"  set spoken {{ type ipv4_addr . ipv4_addr . inet_service; flags dynamic,timeout; timeout {timeout}; size 65535; }}
  chain note {{ type filter hook forward priority -10;
    oifname "wan0" meta l4proto udp update @spoken {{ ip daddr . ip saddr . udp sport }}
  }}
"#
        );
    }
    if nat.class != NatClass::Open {
        filter.push_str(&gate(nat));
    }
    if !nat.careless {
        // Answers to what the router itself has asked, such as its proxy; a stray packet answers nothing.
        let _ = write!(
            filter,
            "  chain self {{ type filter hook input priority 0;\n    \
             iifname \"wan0\" ct state established,related accept\n    iifname \"wan0\" {}\n  }}\n",
            deny(nat)
        );
    }
    filter + "}\n"
}

fn gate(nat: &Nat) -> String {
    let mut gate = String::from("  chain gate { type filter hook forward priority 0;\n");
    gate.push_str("    iifname \"wan0\" ct state established,related accept\n");
    if nat.mapping {
        let _ = writeln!(gate, "    iifname \"wan0\" ct mark {MAPPED} accept");
    }
    if nat.class == NatClass::AddressRestricted {
        gate.push_str(
            "    iifname \"wan0\" meta l4proto udp ip saddr . ip daddr . udp dport @spoken accept\n",
        );
    }
    if nat.class != NatClass::FullCone {
        let _ = writeln!(gate, "    iifname \"wan0\" {}", deny(nat));
    }
    gate + "  }\n"
}

/// What the inside may not say at all.
fn block(nat: &Nat) -> String {
    let tcp = match nat.tcp {
        Tcp::All if nat.udp => return String::new(),
        Tcp::All => "meta l4proto tcp accept".to_owned(),
        Tcp::None => String::new(),
        Tcp::To(ports) => {
            let ports: Vec<String> = open(&ports).map(|port| port.to_string()).collect();
            format!("tcp dport {{ {} }} accept", ports.join(", "))
        }
    };
    let udp = if nat.udp { "meta l4proto udp accept" } else { "" };
    // An inet chain can say "port unreachable" in both families by one word.
    let rest = if nat.rejects { "reject with icmpx type port-unreachable" } else { "drop" };
    let icmp = if matches!(nat.tcp, Tcp::All) { "meta l4proto { icmp, ipv6-icmp } accept" } else { "" };
    format!(
        "table inet boxblock {{\n  chain pass {{ type filter hook forward priority 10;\n    \
         ct state established,related accept\n    {udp}\n    {tcp}\n    {icmp}\n    {rest}\n  }}\n}}\n"
    )
}

/// The chains that `miniupnpd` fills, in front of everything that translates by itself.
///
/// What they let in keeps its mark: a filter can't tell their translations from those of a cone.
fn mapping() -> String {
    format!(
        r#"
table inet boxmap {{
  chain miniupnpd {{ }}
  chain prerouting_miniupnpd {{ }}
  chain postrouting_miniupnpd {{ }}
  chain inbound {{ type nat hook prerouting priority -103;
    jump prerouting_miniupnpd
  }}
  chain allowed {{ type filter hook forward priority -1;
    iifname "wan0" ct state new ct mark set {MAPPED}
    jump miniupnpd
    iifname "wan0" ct state new ct mark set 0
  }}
  chain outbound {{ type nat hook postrouting priority 99;
    jump postrouting_miniupnpd
  }}
}}
"#
    )
}

const fn deny(nat: &Nat) -> &'static str {
    if nat.rejects { "reject with icmp type port-unreachable" } else { "drop" }
}

/// Life of an entry in the recipes' own map and set.
fn timeout(nat: &Nat) -> String {
    format!("{}s", nat.lifetime.map_or(120, |lifetime| lifetime.answered))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    #[test]
    fn a_careless_router_differs_by_the_self_chain_alone() {
        for class in NatClass::ALL {
            let careful = rules(&class.into(), EXTERNAL, "192.168.10.0/24");
            let careless = rules(&Nat::from(class).careless(), EXTERNAL, "192.168.10.0/24");
            assert!(careful.contains("chain self") && !careless.contains("chain self"), "{class}");
        }
    }

    #[test]
    fn what_is_blocked_has_a_table_and_what_is_not_has_none() {
        let plain = Nat::from(NatClass::PortRestricted);
        assert_eq!(block(&plain), "");
        assert!(block(&plain.without_udp()).contains("meta l4proto tcp accept"));
        let only = block(&plain.without_udp().tcp(Tcp::To([443, 0, 0, 0])));
        assert!(only.contains("tcp dport { 443 } accept") && !only.contains("udp accept"), "{only}");
    }
}
