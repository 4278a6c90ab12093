//! Names of one world in the other: node IDs and peer IDs, socket addresses and multiaddresses, the protocol.
//!
//! Never looks anything up and never decides whether an address is worth dialling.

use std::net::{IpAddr, SocketAddr};

use frejus_overlay::id::{NetworkId, NodeId};
use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use super::Transports;

/// The peer ID of a node; `None` if the ID is no point of the curve.
#[must_use]
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node of a peer ID; `None` if the peer's key is not Ed25519.
///
/// Such a peer ID is the "identity" multihash of the encoded key: short keys are not hashed (libp2p peer-ids
/// specification, "Peer IDs").
#[must_use]
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let key = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The Kademlia protocol of a network: one that other networks don't understand.
#[must_use]
pub fn protocol_name(network: &NetworkId) -> StreamProtocol {
    StreamProtocol::try_from_owned(format!("/frejus/{network}/kad/1")).expect("starts with a slash")
}

/// What identify announces; it tells networks apart before Kademlia is even tried.
pub(super) fn identity_protocol(network: &NetworkId) -> String {
    format!("/frejus/{network}/1")
}

/// The addresses at which a node that listens at `at` is dialled.
pub(super) fn multiaddrs(at: SocketAddr, transports: Transports) -> Vec<Multiaddr> {
    let tcp = Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()));
    let quic = Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1);
    match transports {
        Transports::Both => vec![quic, tcp],
        Transports::Tcp => vec![tcp],
        Transports::Quic => vec![quic],
    }
}

/// The IP address of a plain TCP or QUIC address; `None` for anything else, relayed or named ones included.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let plain = match parts.next()? {
        Protocol::Tcp(port) => port != 0,
        Protocol::Udp(port) => port != 0 && parts.next() == Some(Protocol::QuicV1),
        _ => false,
    };
    let rest = matches!(parts.next(), None | Some(Protocol::P2p(_))) && parts.next().is_none();
    (plain && rest).then_some(ip)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn node_and_peer_ids_translate_both_ways() {
        let keys = Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let node = NodeId(keys.public().try_into_ed25519().unwrap().to_bytes());
        assert_eq!(peer_id(&node), Some(keys.public().to_peer_id()));
        assert_eq!(node_id(&keys.public().to_peer_id()), Some(node));
        assert_eq!(node_id(&PeerId::random()), None, "a hashed key can't be turned back");
    }

    #[test]
    fn networks_have_different_protocols() {
        let name = protocol_name(&NetworkId([1; 32]));
        assert_ne!(name, protocol_name(&NetworkId([2; 32])));
        assert!(name.as_ref().contains(&NetworkId([1; 32]).to_string()));
    }

    #[test]
    fn only_plain_addresses_have_an_ip() {
        let ip = |text: &str| ip_of(&text.parse().unwrap());
        assert_eq!(ip("/ip4/192.0.2.1/tcp/51861"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(ip("/ip6/2001:db8::1/udp/51861/quic-v1"), Some("2001:db8::1".parse().unwrap()));
        for other in [
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1/udp/9",
            "/dns4/a.example/tcp/1",
            "/ip4/192.0.2.1/tcp/1/ws",
        ] {
            assert_eq!(ip(other), None, "{other}");
        }
        for at in multiaddrs("[2001:db8::2]:7".parse().unwrap(), Transports::Both) {
            assert_eq!(ip_of(&at), Some("2001:db8::2".parse().unwrap()));
        }
    }
}
