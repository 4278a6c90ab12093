//! From what the node knows to what a user reads: the reports of the contract.

mod doctor;
mod netcheck;

use std::collections::BTreeMap;
use std::time::Duration;

use frejus_overlay::agreement::{Cipher, Cost};
use frejus_overlay::document::{Candidate, CandidateKind, Passport, Roles};
use frejus_overlay::node::{
    Answer, Failed, Method, PathView, PeerView, Resolution, Source, Status, SuperPeerView,
};
use frejus_overlay::stream::Carrier;
use frejus_overlay::timing::UnixTime;

use super::Facts;
use crate::failure::{ExitCode, Failure};
use crate::options::Code;
use crate::question::Answer as Reply;
use crate::report::{self, SCHEMA, State, Timestamp};

/// A question whose answer the node still owes.
pub(super) enum Asked {
    Ping(Reply<report::PingReply>),
    Resolve(String, Reply<report::Resolve>),
    Netcheck(Reply<report::netcheck::Netcheck>),
    Doctor(Reply<report::doctor::Doctor>),
    Invite(Reply<Code>),
    Stop,
}

impl Asked {
    /// Pass the node's answer on. An asker that has gone away is no error. Whether the node is to end.
    pub(super) fn answer(self, answer: Answer, now: UnixTime) -> bool {
        match (self, answer) {
            (Self::Ping(reply), Answer::Pong { name, address, rtt, path, guessing }) => {
                let (rtt_ms, path) = (ms(rtt), self::path(path));
                let address = address.into();
                let pong = report::PingReply { schema: SCHEMA, peer: name, address, rtt_ms, path, guessing };
                _ = reply.send(Ok(pong));
            }
            (Self::Resolve(query, reply), Answer::Resolved(found)) => {
                _ = reply.send(Ok(resolve(query, *found, now)));
            }
            (Self::Netcheck(reply), Answer::Netcheck(found)) => _ = reply.send(Ok(netcheck::report(*found))),
            (Self::Doctor(reply), Answer::Examined(found)) => _ = reply.send(Ok(doctor::report(*found))),
            (Self::Invite(reply), Answer::Invited { code }) => _ = reply.send(Ok(Code::new(code))),
            (Self::Ping(reply), answer) => _ = reply.send(Err(unexpected(answer))),
            (Self::Resolve(_, reply), answer) => _ = reply.send(Err(unexpected(answer))),
            (Self::Netcheck(reply), answer) => _ = reply.send(Err(unexpected(answer))),
            (Self::Doctor(reply), answer) => _ = reply.send(Err(unexpected(answer))),
            (Self::Invite(reply), answer) => _ = reply.send(Err(unexpected(answer))),
            (Self::Stop, _) => return true,
        }
        false
    }
}

fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Failed(failed) => failure(&failed),
        _ => Failure::other("the node answered something else", "report this as a defect of frejus"),
    }
}

/// What a user is told.
pub(crate) fn failure(failed: &Failed) -> Failure {
    let (code, mend) = match failed {
        Failed::NoSuchPeer(_) => {
            (ExitCode::NoSuchPeer, "check the name or address; frejus peers shows who is near")
        }
        Failed::Ambiguous(_) => (ExitCode::NoSuchPeer, "give more of the node ID"),
        Failed::Unreachable(_) => (ExitCode::Unreachable, "see whether frejus is up there: frejus status"),
        Failed::TimedOut(_) => (ExitCode::Unreachable, "try again; frejus peers shows the path in use"),
        Failed::NotLogin => {
            (ExitCode::NotPermitted, "run frejus invite on the founder or another login server")
        }
        Failed::NoAddress => (
            ExitCode::Other,
            "connect this machine, or start it with --advertise ADDR:PORT, the address that the others see",
        ),
        Failed::NameTaken(_) => (ExitCode::Conflict, "choose another --name"),
        Failed::AddressTaken(_) => (ExitCode::Conflict, "choose another --address"),
        Failed::Senseless(_) => (ExitCode::Usage, "see frejus help"),
        Failed::Busy => (ExitCode::Other, "try again in a moment"),
    };
    Failure::new(code, failed.to_string(), mend)
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

pub(super) fn roles(roles: Roles) -> Vec<report::Role> {
    [
        (Roles::LOGIN, report::Role::LoginServer),
        (Roles::SUPER_PEER, report::Role::SuperPeer),
        (Roles::PEER, report::Role::Peer),
        (Roles::CLIENT, report::Role::Client),
    ]
    .into_iter()
    .filter(|(role, _)| roles.includes(*role))
    .map(|(_, word)| word)
    .collect()
}

pub(super) fn path(path: PathView) -> report::Path {
    report::Path {
        kind: if path.locator.is_direct() { report::PathKind::Direct } else { report::PathKind::Relay },
        transport: transport(path.carrier),
        remote: path.locator.remote(),
        via: path.via,
        method: match path.method {
            Method::Public => Some(report::Method::Public),
            Method::Local => Some(report::Method::Local),
            Method::Reversed => Some(report::Method::Reversed),
            Method::Punched => Some(report::Method::Punched),
            Method::Predicted => Some(report::Method::Predicted),
            Method::Guessed => Some(report::Method::Guessed),
            Method::Mapped => Some(report::Method::Mapped),
            Method::Hairpin => Some(report::Method::Hairpin),
            Method::Relayed => None,
        },
        rtt_ms: path.rtt.map(ms),
        loss: (path.loss * 1000.0).round() / 1000.0,
        mtu: path.mtu,
        since_s: path.age.as_secs(),
    }
}

const fn transport(carrier: Option<Carrier>) -> report::Transport {
    match carrier {
        None => report::Transport::Udp,
        Some(Carrier::Tcp) => report::Transport::Tcp,
        Some(Carrier::Tls | Carrier::Proxy) => report::Transport::Tls,
    }
}

pub(super) fn peer(peer: PeerView) -> report::Peer {
    report::Peer {
        name: peer.passport.name,
        id: peer.passport.node.to_string(),
        addresses: peer.addresses.to_vec(),
        roles: roles(peer.passport.roles),
        path: peer.path.map(path),
        handshake_age_s: peer.handshake_age_s,
        cipher: peer.protection.and_then(|protection| cipher(protection.cipher)),
        post_quantum: peer.protection.map(|protection| protection.post_quantum),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
    }
}

const fn cipher(cipher: Cipher) -> Option<report::Cipher> {
    match cipher {
        Cipher::ChaCha20Poly1305 => Some(report::Cipher::ChaCha20Poly1305),
        Cipher::Aes256Gcm => Some(report::Cipher::Aes256Gcm),
        #[cfg(frejus_null_cipher)]
        Cipher::None => None,
    }
}

fn cost(cost: &Cost) -> Option<report::CipherCost> {
    let name = cipher(Cipher::of_code(cost.cipher)?)?;
    Some(report::CipherCost { name, seal_1420_ns: cost.nanos() })
}

fn super_peer(view: SuperPeerView) -> report::SuperPeer {
    report::SuperPeer {
        name: view.name,
        id: view.id.to_string(),
        rtt_ms: view.rtt.filter(|_| view.home).map(ms),
        transport: transport(view.carrier),
        home: view.home,
    }
}

pub(super) fn status(
    status: Status,
    state: State,
    facts: &Facts,
    counters: report::Counters,
) -> report::Status {
    let host = |kind| matches!(kind, CandidateKind::Host | CandidateKind::Reflexive | CandidateKind::Mapped);
    let advertised = status.candidates.iter().filter(|c| host(c.kind)).map(|c| c.at).collect();
    report::Status {
        schema: SCHEMA,
        state,
        network: report::Network {
            name: facts.genesis().name.clone(),
            id: facts.network.id.to_string(),
            prefix: facts.genesis().prefix4.to_string(),
            prefix6: facts.network.prefix6().to_string(),
        },
        node: node(&status.passport, &status.addresses, advertised, facts),
        nat: report::Nat {
            class: super::nat_class(status.nat),
            port_mapping: status.mapped.map(|mapped| super::port_mapping(mapped.protocol)),
            mapped: status.mapped.map(|mapped| mapped.at),
        },
        nat_classes: status.nat_classes.into_iter().map(|(class, nodes)| (class.to_owned(), nodes)).collect(),
        super_peers: status.super_peers.into_iter().map(super_peer).collect(),
        directory: report::Directory {
            mode: if status.directory_server {
                report::DirectoryMode::Server
            } else {
                report::DirectoryMode::Client
            },
            peers: status.directory_peers,
            published: report::Published {
                lease: status.lease_published,
                whereabouts: status.whereabouts_published,
            },
        },
        streams: report::Streams::default(),
        offload: BTreeMap::new(),
        socket_buffers: report::SocketBuffers::default(),
        ciphers: facts.ciphers.iter().filter_map(cost).collect(),
        attention: status
            .attention
            .into_iter()
            .map(|(what, mend)| report::Attention { what, mend })
            .collect(),
        counters,
    }
}

fn node(
    passport: &Passport,
    addresses: &[std::net::IpAddr],
    advertised: Vec<std::net::SocketAddr>,
    facts: &Facts,
) -> report::Node {
    report::Node {
        id: passport.node.to_string(),
        name: passport.name.clone(),
        roles: roles(passport.roles),
        addresses: addresses.to_vec(),
        tun: facts.tun.clone(),
        mtu: facts.mtu,
        listen: facts.listen.clone(),
        advertised,
    }
}

fn candidate(candidate: &Candidate) -> report::Candidate {
    let kind = match candidate.kind {
        CandidateKind::Host => report::CandidateKind::Host,
        CandidateKind::Reflexive => report::CandidateKind::Reflexive,
        CandidateKind::Mapped => report::CandidateKind::Mapped,
        CandidateKind::Relay => report::CandidateKind::Relay,
    };
    report::Candidate { kind, at: candidate.at.to_string() }
}

fn resolve(query: String, found: Resolution, now: UnixTime) -> report::Resolve {
    let source = |source| match source {
        Source::Cache => report::Source::Cache,
        Source::SuperPeer => report::Source::SuperPeer,
        Source::Dht => report::Source::Dht,
    };
    let stage =
        |stage, (from, elapsed)| report::LookUp { stage, source: source(from), elapsed_ms: ms(elapsed) };
    let mut stages = vec![stage(report::Stage::Lease, found.lease_stage)];
    stages.extend(found.whereabouts_stage.map(|found| stage(report::Stage::Whereabouts, found)));
    let wanted: Option<std::net::IpAddr> = query.parse().ok();
    report::Resolve {
        schema: SCHEMA,
        query,
        address: wanted.unwrap_or(found.addresses[0]),
        node: report::NodeName { id: found.passport.node.to_string(), name: found.passport.name.clone() },
        lease: Some(report::Lease {
            issuer: found.passport.issuer.to_string(),
            expires: Timestamp(found.passport.not_after),
        }),
        whereabouts: found.whereabouts.map(|place| report::Whereabouts {
            sequence: place.sequence,
            age_s: now.since(place.issued).as_secs(),
            candidates: place.candidates.iter().map(candidate).collect(),
        }),
        stages,
    }
}
