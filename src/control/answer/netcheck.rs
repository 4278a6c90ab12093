//! The report of `netcheck`: what was found, and a sentence for each thing that was not.

use std::time::Duration;

use frejus_overlay::nat::{Dependence, Gap};
use frejus_overlay::node::{Netcheck, ServerView};
use frejus_overlay::stream::{Passage, Tried};

use crate::control::{nat_class, port_mapping};
use crate::report::SCHEMA;
use crate::report::netcheck as report;

pub(super) fn report(view: Netcheck) -> report::Netcheck {
    let Netcheck { found, external, mapped, servers, tried } = view;
    let notes = found.gaps.iter().map(note).chain(careless(found.careless)).chain(through_proxy(tried));
    report::Netcheck {
        schema: SCHEMA,
        class: nat_class(found.class),
        mapping: dependence(found.mapping),
        filtering: dependence(found.filtering),
        external,
        hairpin: found.hairpin,
        port_mapping: mapped.map(|mapped| port_mapping(mapped.protocol)),
        udp: found.udp,
        tcp: tried.own.passes(),
        tls443: tried.https.passes(),
        super_peers: servers.into_iter().map(server).collect(),
        step: found.step,
        notes: notes.collect(),
    }
}

fn server(view: ServerView) -> report::Server {
    let ms = |rtt: Duration| (rtt.as_secs_f64() * 1e6).round() / 1e3;
    report::Server { name: view.name, rtt_ms: view.rtt.map(ms) }
}

const fn dependence(dependence: Dependence) -> report::Dependence {
    match dependence {
        Dependence::Unknown => report::Dependence::Unknown,
        Dependence::Endpoint => report::Dependence::Endpoint,
        Dependence::Address => report::Dependence::Address,
        Dependence::AddressAndPort => report::Dependence::AddressAndPort,
    }
}

fn through_proxy(tried: Tried) -> Option<String> {
    let which = match (tried.own == Passage::Proxy, tried.https == Passage::Proxy) {
        (false, false) => return None,
        (true, false) => "TCP to a super peer's own port passes",
        (false, true) => "TLS on 443 passes",
        (true, true) => "TCP to a super peer's own port and TLS on 443 pass",
    };
    Some(format!("{which} through the HTTP proxy alone"))
}

/// How many super peers are missing, and for what.
fn few(what: &str, missing: u8) -> String {
    let more = match missing {
        0 | 1 => "one more is".to_owned(),
        2 => "two more are".to_owned(),
        some => format!("{some} are"),
    };
    format!("{what}: {more} needed to tell the class of the NAT")
}

fn careless(found: Option<bool>) -> Option<String> {
    let text = "the router takes what comes in before this machine has spoken for a flow of its own, which spoils direct paths: let it drop that, by a firewall on its outer side";
    found.filter(|careless| *careless).map(|_| text.to_owned())
}

fn note(gap: &Gap) -> String {
    match gap {
        Gap::NoAnswer => "no super peer answered over UDP: is UDP let out, and are they up?".to_owned(),
        Gap::FewSuperPeers(0) => few("no super peer could be asked in a tunnel", 3),
        Gap::FewSuperPeers(1) => few("only one super peer answered", 2),
        Gap::FewSuperPeers(some) => {
            few(&format!("only {some} super peers answered"), 3_u8.saturating_sub(*some))
        }
        Gap::NoAlternatePort => {
            "the super peer that was asked has no second port for STUN: see its log, or its --listen"
                .to_owned()
        }
        Gap::NoStranger => {
            "the super peer that was asked has no tunnel with a third one that this node has not spoken to"
                .to_owned()
        }
        Gap::Lossy => "too many packets were lost to conclude from silence: try again".to_owned(),
        Gap::Disagreement => {
            "super peers say different things about this node's address, and none has a majority".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use frejus_overlay::nat::Discovered;

    use super::*;

    fn reported(own: Passage, https: Passage) -> report::Netcheck {
        let found = Discovered { gaps: vec![Gap::Lossy], ..Discovered::default() };
        let (external, servers) = (Vec::new(), Vec::new());
        report(Netcheck { found, external, mapped: None, servers, tried: Tried { own, https } })
    }

    #[test]
    fn what_passes_through_a_proxy_passes_and_is_noted() {
        for (own, https, passes, note) in [
            (Passage::Untried, Passage::Blocked, (false, false), None),
            (Passage::Open, Passage::Open, (true, true), None),
            (
                Passage::Blocked,
                Passage::Proxy,
                (false, true),
                Some("TLS on 443 passes through the HTTP proxy alone"),
            ),
            (
                Passage::Proxy,
                Passage::Open,
                (true, true),
                Some("TCP to a super peer's own port passes through the HTTP proxy alone"),
            ),
        ] {
            let report = reported(own, https);
            assert_eq!((report.tcp, report.tls443), passes);
            assert_eq!(report.notes.get(1).map(String::as_str), note);
        }
    }

    #[test]
    fn too_few_super_peers_are_counted_and_a_careless_router_is_named() {
        let notes = |gaps: Vec<Gap>, careless| {
            let found = Discovered { gaps, careless, ..Discovered::default() };
            let tried = Tried { own: Passage::Open, https: Passage::Open };
            let (external, servers) = (Vec::new(), Vec::new());
            report(Netcheck { found, external, mapped: None, servers, tried }).notes
        };
        let one = "only one super peer answered: two more are needed to tell the class of the NAT";
        assert_eq!(notes(vec![Gap::FewSuperPeers(1)], Some(false)), [one]);
        let two = "only 2 super peers answered: one more is needed to tell the class of the NAT";
        assert_eq!(notes(vec![Gap::FewSuperPeers(2)], None), [two]);
        assert!(notes(Vec::new(), Some(true))[0].starts_with("the router takes what comes in before"));
    }
}
