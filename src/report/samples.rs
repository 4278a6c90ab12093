//! One report of each kind, for the tests of shapes and of tables.

use frejus_overlay::timing::UnixTime;

use super::doctor::{Doctor, Side, Tried};
use super::netcheck::{Dependence, Netcheck, Server};
use super::*;

pub(crate) fn status() -> Status {
    Status {
        schema: SCHEMA,
        state: State::Degraded,
        network: Network {
            name: "mymed".into(),
            id: "netid".into(),
            prefix: "10.93.0.0/16".into(),
            prefix6: "fd12:3456:789a::/48".into(),
        },
        node: Node {
            id: "nodeid-b".into(),
            name: "b".into(),
            roles: vec![Role::Peer],
            addresses: addresses(),
            tun: "frejus0".into(),
            mtu: 1280,
            listen: vec!["0.0.0.0:51860".parse().unwrap(), "[::]:51860".parse().unwrap()],
            advertised: vec!["203.0.113.11:51860".parse().unwrap()],
        },
        nat: Nat {
            class: NatClass::PortRestricted,
            port_mapping: Some(PortMapping::NatPmp),
            mapped: Some("203.0.113.11:51860".parse().unwrap()),
        },
        nat_classes: [("open".to_owned(), 2), ("port-restricted".to_owned(), 31)].into(),
        super_peers: vec![SuperPeer {
            name: "s".into(),
            id: "nodeid-s".into(),
            rtt_ms: Some(20.125),
            transport: Transport::Udp,
            home: true,
        }],
        directory: Directory {
            mode: DirectoryMode::Client,
            peers: 12,
            published: Published { lease: true, whereabouts: false },
        },
        streams: Streams {
            listen: vec!["0.0.0.0:51860".parse().unwrap()],
            refused: vec!["0.0.0.0:443: taken".into()],
            open: 1,
        },
        offload: [("udp_gro", None), ("udp_gso", Some("this kernel has none"))]
            .map(|(name, why)| (name.into(), Offload { on: why.is_none(), why: why.map(Into::into) }))
            .into(),
        socket_buffers: SocketBuffers { send: 2 << 20, receive: 8 << 20 },
        ciphers: vec![
            CipherCost { name: Cipher::ChaCha20Poly1305, seal_1420_ns: 1020 },
            CipherCost { name: Cipher::Aes256Gcm, seal_1420_ns: 736 },
        ],
        attention: vec![Attention {
            what: "the clock is 90 s slow".into(),
            mend: "timedatectl set-ntp true".into(),
        }],
        counters: Counters {
            packets_out: 1234,
            packets_in: 2345,
            dropped: [("no-route".to_owned(), 2), ("spoofed".to_owned(), 1)].into(),
        },
    }
}

fn addresses() -> Vec<IpAddr> {
    vec!["10.93.4.7".parse().unwrap(), "fd12:3456:789a::7".parse().unwrap()]
}

pub(crate) fn direct() -> Path {
    Path {
        kind: PathKind::Direct,
        transport: Transport::Udp,
        remote: "203.0.113.11:40211".parse().unwrap(),
        via: None,
        method: Some(Method::Punched),
        rtt_ms: Some(12.34),
        loss: 0.0,
        mtu: 1420,
        since_s: 75,
    }
}

pub(crate) fn relayed() -> Path {
    Path {
        kind: PathKind::Relay,
        transport: Transport::Tls,
        remote: "203.0.113.101:443".parse().unwrap(),
        via: Some("s".into()),
        method: None,
        rtt_ms: None,
        loss: 0.25,
        mtu: 1420,
        since_s: 3,
    }
}

pub(crate) fn peers() -> Peers {
    let b = Peer {
        name: "b".into(),
        id: "nodeid-b".into(),
        addresses: addresses(),
        roles: vec![Role::Peer],
        path: Some(direct()),
        handshake_age_s: Some(42),
        cipher: Some(Cipher::Aes256Gcm),
        post_quantum: Some(true),
        rx_bytes: 1536,
        tx_bytes: 5 << 20,
    };
    let printer = Peer {
        name: "printer".into(),
        id: "nodeid-p".into(),
        addresses: vec!["10.93.4.200".parse().unwrap()],
        roles: vec![Role::SuperPeer, Role::LoginServer],
        path: Some(relayed()),
        handshake_age_s: None,
        cipher: Some(Cipher::ChaCha20Poly1305),
        post_quantum: Some(false),
        rx_bytes: 0,
        tx_bytes: 148,
    };
    let new = Peer {
        name: "new".into(),
        id: "nodeid-n".into(),
        addresses: Vec::new(),
        roles: Vec::new(),
        path: None,
        handshake_age_s: None,
        cipher: None,
        post_quantum: None,
        rx_bytes: 0,
        tx_bytes: 0,
    };
    Peers { schema: SCHEMA, peers: vec![b, printer, new] }
}

pub(crate) fn ping_reply(path: Path) -> PingReply {
    PingReply {
        schema: SCHEMA,
        peer: "b".into(),
        address: "10.93.4.7".parse().unwrap(),
        rtt_ms: 12.34,
        path,
        guessing: false,
    }
}

pub(crate) fn ping() -> Ping {
    Ping {
        schema: SCHEMA,
        peer: "b".into(),
        replies: vec![Echo { seq: 1, rtt_ms: 12.34, path: direct() }],
        sent: 2,
        received: 1,
    }
}

pub(crate) fn netcheck() -> Netcheck {
    let server = |name: &str, rtt_ms| Server { name: name.into(), rtt_ms };
    Netcheck {
        schema: SCHEMA,
        class: NatClass::SymmetricSequential,
        mapping: Dependence::AddressAndPort,
        filtering: Dependence::Unknown,
        external: vec!["203.0.113.11:40211".parse().unwrap()],
        hairpin: Some(false),
        port_mapping: Some(PortMapping::Pcp),
        udp: true,
        tcp: false,
        tls443: true,
        super_peers: vec![server("s", Some(20.125)), server("t", None)],
        step: Some(1),
        notes: vec!["only 2 super peers answered: one more is needed to tell the class of the NAT".into()],
    }
}

pub(crate) fn resolve() -> Resolve {
    let candidate = |kind, at: &str| Candidate { kind, at: at.into() };
    Resolve {
        schema: SCHEMA,
        query: "b".into(),
        address: "10.93.4.7".parse().unwrap(),
        node: NodeName { id: "nodeid-b".into(), name: "b".into() },
        lease: Some(Lease { issuer: "s".into(), expires: Timestamp(UnixTime(1_795_171_070)) }),
        whereabouts: Some(Whereabouts {
            sequence: 12,
            age_s: 34,
            candidates: vec![
                candidate(CandidateKind::Host, "192.168.1.2:51860"),
                candidate(CandidateKind::Reflexive, "203.0.113.11:40211"),
            ],
        }),
        stages: vec![
            LookUp { stage: Stage::Lease, source: Source::Cache, elapsed_ms: 0.02 },
            LookUp { stage: Stage::Whereabouts, source: Source::SuperPeer, elapsed_ms: 41.5 },
        ],
    }
}

pub(crate) fn doctor() -> Doctor {
    let tried = Tried { at: "203.0.113.11:51860".parse().unwrap(), sent: 8, answered: 0, heard: 0 };
    let here = Side {
        name: "a".into(),
        class: NatClass::SymmetricRandom,
        external: vec!["203.0.113.10:40211".parse().unwrap()],
        port_mapping: None,
        udp: true,
        candidates: vec![tried],
    };
    let there =
        Side { name: "b".into(), external: Vec::new(), udp: false, candidates: Vec::new(), ..here.clone() };
    Doctor {
        schema: SCHEMA,
        peer: "b".into(),
        path: Some(relayed()),
        here,
        there: Some(there),
        why: "the router of b gives every destination a random port, and so does that of a".into(),
        mend: vec!["forward UDP 51860 on either router".into()],
    }
}
