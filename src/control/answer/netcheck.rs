//! The report of `netcheck`: what was found, and a sentence for each thing that was not.

use std::time::Duration;

use frejus_overlay::nat::{Dependence, Gap};
use frejus_overlay::node::{Netcheck, ServerView};

use crate::control::{nat_class, port_mapping};
use crate::report::SCHEMA;
use crate::report::netcheck as report;

pub(super) fn report(view: Netcheck) -> report::Netcheck {
    let Netcheck { found, external, servers, by_stream, mapped } = view;
    report::Netcheck {
        schema: SCHEMA,
        class: nat_class(found.class),
        mapping: dependence(found.mapping),
        filtering: dependence(found.filtering),
        external,
        hairpin: found.hairpin,
        port_mapping: mapped.map(|mapped| port_mapping(mapped.protocol)),
        udp: found.udp,
        tcp: !by_stream.is_empty(),
        tls443: by_stream.iter().any(|at| at.port() == 443),
        super_peers: servers.into_iter().map(server).collect(),
        step: found.step,
        notes: found.gaps.iter().map(note).collect(),
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

fn note(gap: &Gap) -> String {
    match gap {
        Gap::NoAnswer => "no super peer answered over UDP: is UDP let out, and are they up?".to_owned(),
        Gap::FewSuperPeers(0) => "no super peer could be asked in a tunnel, and three are needed".to_owned(),
        Gap::FewSuperPeers(1) => "only one super peer answered, and three are needed".to_owned(),
        Gap::FewSuperPeers(some) => format!("only {some} super peers answered, and three are needed"),
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
