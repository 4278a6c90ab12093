//! `frejus netcheck`.

use std::fmt::Write;

use super::arguments::Output;
use super::screen::{self, Colours};
use crate::client::Client;
use crate::failure::Failure;
use crate::report::NatClass;
use crate::report::netcheck::{Dependence, Netcheck};

pub(super) fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let found = client.netcheck()?;
    if output.json { screen::print_json(&found) } else { screen::print(table(&found, Colours::of_stdout())) }
}

fn table(found: &Netcheck, colours: Colours) -> String {
    let mut text = format!("{}: {}\n\n", colours.bold(found.class), meaning(found));
    let mut line = |label: &str, value: String| writeln!(text, "  {label:<13} {value}").expect("memory");
    line("mapping", format!("{}: {}", found.mapping, mapping(found)));
    line("filtering", format!("{}: {}", found.filtering, filtering(found.filtering)));
    line("external", screen::list(&found.external, "  "));
    line("hairpin", hairpin(found.hairpin).to_owned());
    line("port mapping", port_mapping(found));
    let passes = |passes, yes, no| passes_or_not(passes, yes, no, found.super_peers.is_empty());
    line("udp", passes(found.udp, "super peers answer", "no super peer answers"));
    line(
        "tcp",
        passes(
            found.tcp,
            "a super peer is reached at its own port",
            "no super peer is reached at its own port",
        ),
    );
    line(
        "tls on 443",
        passes(found.tls443, "a super peer is reached on 443", "no super peer is reached on 443"),
    );
    text.push('\n');
    if found.super_peers.is_empty() {
        text.push_str("no other super peer yet\n");
    } else {
        let rows = found.super_peers.iter().map(|server| {
            vec![server.name.clone(), screen::or_dash(server.rtt_ms.map(screen::milliseconds))]
        });
        text.push_str(&screen::columns(&["SUPER PEER", "RTT"], &[1], rows.collect()));
    }
    for note in &found.notes {
        write!(text, "\n{}\n", colours.warning(format_args!("! {note}"))).expect("memory");
    }
    text
}

const fn meaning(found: &Netcheck) -> &'static str {
    match found.class {
        NatClass::Open => "this machine has a public address, and everybody reaches it.",
        NatClass::Firewalled => {
            "this machine has a public address, and a firewall that lets in only answers; two such open it together."
        }
        NatClass::FullCone => "once this machine has sent anything, everybody reaches it at its outer port.",
        NatClass::AddressRestricted => "whoever this machine has sent to reaches it, from any port.",
        NatClass::PortRestricted => {
            "whoever this machine has sent to reaches it from that port; most peers find a direct path."
        }
        NatClass::SymmetricSequential => {
            "every destination sees another port, in sequence; the next one can be predicted."
        }
        NatClass::SymmetricRandom => {
            "every destination sees another port, at random; peers with such a NAT too need a relay."
        }
        NatClass::UdpBlocked => "UDP does not pass; all goes through TCP or TLS to a super peer.",
        NatClass::Unknown => match found.mapping {
            Dependence::Endpoint => {
                "all destinations see the same outer port, which is what a direct path needs most; who may send there was not found out."
            }
            Dependence::Address | Dependence::AddressAndPort => {
                "every destination sees another port; how they are chosen was not found out."
            }
            Dependence::Unknown => "what stands between this machine and the Internet was not found out.",
        },
    }
}

fn mapping(found: &Netcheck) -> String {
    match found.mapping {
        Dependence::Endpoint => "all destinations see the same outer port.".to_owned(),
        Dependence::Address => "every address sees an outer port of its own.".to_owned(),
        Dependence::AddressAndPort => {
            let step = found.step.map(|step| format!(", each {step:+} from the last"));
            format!("every destination sees an outer port of its own{}.", step.unwrap_or_default())
        }
        Dependence::Unknown => "not found out.".to_owned(),
    }
}

const fn filtering(filtering: Dependence) -> &'static str {
    match filtering {
        Dependence::Endpoint => "everybody may send to an outer port that is in use.",
        Dependence::Address => "only addresses that were sent to may answer, from any port.",
        Dependence::AddressAndPort => "only who was sent to may answer, from the same port.",
        Dependence::Unknown => "not found out.",
    }
}

const fn hairpin(hairpin: Option<bool>) -> &'static str {
    match hairpin {
        Some(true) => "yes: machines behind this NAT reach each other by its outer address.",
        Some(false) => "no: machines behind this NAT do not reach each other by its outer address.",
        None => "-",
    }
}

fn port_mapping(found: &Netcheck) -> String {
    found.port_mapping.map_or_else(
        || "none: no port was opened by PCP, NAT-PMP or UPnP.".to_owned(),
        |protocol| format!("the router opened a port, asked by {protocol}."),
    )
}

fn passes_or_not(passes: bool, yes: &str, no: &str, is_alone: bool) -> String {
    match (passes, is_alone) {
        (true, _) => format!("yes: {yes}."),
        (false, false) => format!("no: {no}."),
        (false, true) => "not tried: no super peer known.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn nothing_is_tried_where_no_super_peer_is_known() {
        let alone = Netcheck { udp: false, tls443: false, super_peers: Vec::new(), ..samples::netcheck() };
        let text = table(&alone, Colours::new(false));
        for label in ["udp       ", "tcp       ", "tls on 443"] {
            assert!(text.contains(&format!("  {label}    not tried: no super peer known.\n")), "{text}");
        }
    }

    #[test]
    fn what_can_be_told_of_an_unknown_nat_is_told() {
        let says = |mapping| {
            let found = Netcheck { class: NatClass::Unknown, mapping, ..samples::netcheck() };
            table(&found, Colours::new(false)).lines().next().unwrap_or_default().to_owned()
        };
        assert!(says(Dependence::Endpoint).contains("the same outer port"));
        assert!(says(Dependence::AddressAndPort).contains("another port"));
        assert!(says(Dependence::Unknown).contains("was not found out"));
    }

    #[test]
    fn a_sentence_for_each() {
        assert_eq!(
            table(&samples::netcheck(), Colours::new(false)),
            "\
symmetric-sequential: every destination sees another port, in sequence; the next one can be predicted.

  mapping       address-and-port-dependent: every destination sees an outer port of its own, each +1 from the last.
  filtering     unknown: not found out.
  external      203.0.113.11:40211
  hairpin       no: machines behind this NAT do not reach each other by its outer address.
  port mapping  the router opened a port, asked by pcp.
  udp           yes: super peers answer.
  tcp           no: no super peer is reached at its own port.
  tls on 443    yes: a super peer is reached on 443.

SUPER PEER      RTT
s           20.1 ms
t                 -

! only 2 super peers answered: one more is needed to tell the class of the NAT
"
        );
    }
}
