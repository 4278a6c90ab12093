//! Whether others can dial this node: super peers are asked to try, and what they say is held against what arrives.
//!
//! AutoNAT (libp2p specification "autonat", version 1) in a coat that lets in less. Only named super peers are
//! asked, only about the ports that this node was told to listen on, and an answer counts once the asked node's
//! connection has come in. As a server it dials nobody but the address that the request came from, and not often.
//! Never changes the mode of the directory: the task does.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::autonat::{self, NatStatus, OutboundProbeEvent};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::{DirectoryConfig, naming};

/// How often to ask once the answer is known: two handshakes and a few messages, some 25 kB, are 0.1 kbit/s.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1800);

/// The first question: by then the super peers are named and one is connected.
const FIRST_PROBE: Duration = Duration::from_secs(10);

/// The next question after a surprising answer or none: 25 kB are 1.7 kbit/s while that lasts.
const RETRY: Duration = Duration::from_secs(120);

/// How long an answer may take: two ports by two transports at four seconds each, and some.
const ANSWER: Duration = Duration::from_secs(30);

/// Super peers that may be asked: with none of them there, a burst of so many dials is all that happens.
const ASKED: usize = 8;

/// Dial-backs that a super peer makes within [`THROTTLE`]: 5,500 peers that ask every half hour are 31.
const DIAL_BACKS: usize = 60;

/// Dial-backs for one node within [`THROTTLE`].
const DIAL_BACKS_A_NODE: usize = 3;

const THROTTLE: Duration = Duration::from_secs(10);

/// Addresses tried for one request: two ports, one a family, by two transports.
const ADDRESSES: usize = 4;

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// A super peer has dialled this node at this address.
    Reachable(Multiaddr),
    /// Several in a row could not, or the address is gone.
    Unreachable,
}

/// The protocol, and the question under way.
pub(super) struct Reachability {
    inner: autonat::Behaviour,
    own: PeerId,
    /// Our ports, at an unspecified address: the super peer puts the one in that it sees. Ours may be the inner side
    /// of a NAT, and is not its business.
    candidates: Vec<Multiaddr>,
    servers: VecDeque<PeerId>,
    probe: Probe,
    confirmed: Option<IpAddr>,
    findings: VecDeque<Finding>,
}

impl Reachability {
    pub(super) fn new(own: PeerId, config: &DirectoryConfig, listening: &[SocketAddr]) -> Self {
        let mut inner = autonat::Behaviour::new(own, protocol(config));
        let candidates = if config.server || config.promotion.is_none() {
            Vec::new()
        } else {
            let any = |at: &SocketAddr| SocketAddr::new(unspecified(at.ip()), at.port());
            listening.iter().flat_map(|at| naming::multiaddrs(any(at), config.transports)).collect()
        };
        for candidate in &candidates {
            inner.probe_address(candidate.clone());
        }
        let (servers, findings, probe) = (VecDeque::new(), VecDeque::new(), Probe::default());
        Self { inner, own, candidates, servers, probe, confirmed: None, findings }
    }

    /// This super peer may be asked; of too many the one that was named first is forgotten.
    pub(super) fn may_ask(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        self.servers.retain(|known| *known != peer);
        if self.servers.len() >= ASKED
            && let Some(old) = self.servers.pop_front()
        {
            self.inner.remove_server(&old);
        }
        self.servers.push_back(peer);
        for address in addresses {
            self.inner.add_server(peer, Some(address.clone()));
        }
    }

    fn on_event(&mut self, event: autonat::Event) {
        match event {
            autonat::Event::OutboundProbe(OutboundProbeEvent::Request { peer, .. }) => {
                self.probe = Probe::of(peer);
            }
            autonat::Event::OutboundProbe(OutboundProbeEvent::Response { peer, address, .. }) => {
                if self.is_ours(&address) {
                    self.probe.on_claim(peer, address);
                    self.conclude();
                }
            }
            autonat::Event::StatusChanged { new: NatStatus::Private, .. } => self.lose(),
            autonat::Event::OutboundProbe(OutboundProbeEvent::Error { error, .. }) => {
                tracing::debug!(?error, "no dial-back");
            }
            autonat::Event::InboundProbe(event) => tracing::debug!(?event, "asked to dial back"),
            autonat::Event::StatusChanged { .. } => {}
        }
    }

    /// Whether an address is a candidate in all but its IP address.
    fn is_ours(&self, address: &Multiaddr) -> bool {
        let Some(ip) = naming::ip_of(address) else { return false };
        let other = |part: &Protocol<'_>| matches!(part, Protocol::P2p(peer) if *peer != self.own);
        let port = address.iter().skip(1).filter(|part| !matches!(part, Protocol::P2p(_)));
        let any: Multiaddr = std::iter::once(Protocol::from(unspecified(ip))).chain(port).collect();
        !address.iter().any(|part| other(&part)) && self.candidates.contains(&any)
    }

    fn conclude(&mut self) {
        if let Some(address) = self.probe.proven() {
            self.confirmed = naming::ip_of(&address);
            self.findings.push_back(Finding::Reachable(address));
        }
    }

    fn lose(&mut self) {
        self.confirmed = None;
        self.findings.push_back(Finding::Unreachable);
    }
}

/// One question: who was asked, whether that node has dialled us since, and what it says.
#[derive(Debug, Default)]
struct Probe {
    asked: Option<PeerId>,
    dialled: bool,
    claim: Option<Multiaddr>,
}

impl Probe {
    fn of(peer: PeerId) -> Self {
        Self { asked: Some(peer), dialled: false, claim: None }
    }

    /// A connection has come in.
    fn on_inbound(&mut self, from: PeerId) {
        self.dialled |= self.asked == Some(from);
    }

    /// The answer; it may overtake the connection that it speaks of.
    fn on_claim(&mut self, from: PeerId, address: Multiaddr) {
        if self.asked == Some(from) {
            self.claim = Some(address);
        }
    }

    /// The address, once both are there.
    fn proven(&mut self) -> Option<Multiaddr> {
        if self.dialled { self.claim.take() } else { None }
    }
}

fn protocol(config: &DirectoryConfig) -> autonat::Config {
    let interval = config.promotion.unwrap_or(PROBE_INTERVAL);
    let retry = RETRY.min(interval);
    autonat::Config {
        timeout: ANSWER,
        boot_delay: FIRST_PROBE.min(interval),
        refresh_interval: interval,
        retry_interval: retry,
        // One super peer alone may be asked at every turn.
        throttle_server_period: retry / 2,
        use_connected: false,
        confidence_max: 1,
        max_peer_addresses: ADDRESSES,
        throttle_clients_global_max: if config.server { DIAL_BACKS } else { 0 },
        throttle_clients_peer_max: DIAL_BACKS_A_NODE,
        throttle_clients_period: THROTTLE,
        // A network may live in a LAN; the address dialled is always the one that the request came from.
        only_global_ips: false,
    }
}

fn unspecified(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

impl NetworkBehaviour for Reachability {
    type ConnectionHandler = <autonat::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Finding;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            // What others claim to observe, and every address of this machine, are no candidates: there may be
            // any number, and a request has a kilobyte.
            FromSwarm::NewExternalAddrCandidate(_) | FromSwarm::NewListenAddr(_) => return,
            FromSwarm::ExpiredListenAddr(expired) => {
                if self.confirmed.is_some() && naming::ip_of(expired.addr) == self.confirmed {
                    self.lose();
                }
                return;
            }
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, endpoint, .. })
                if endpoint.is_listener() =>
            {
                self.probe.on_inbound(*peer_id);
                self.conclude();
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Finding, THandlerInEvent<Self>>> {
        loop {
            if let Some(finding) = self.findings.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(finding));
            }
            match self.inner.poll(context) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => self.on_event(event),
                // The task says so to the swarm, if the finding is good enough.
                Poll::Ready(ToSwarm::ExternalAddrConfirmed(_)) => {}
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_out(|_| unreachable!("events are taken above")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Multiaddr {
        "/ip4/192.0.2.1/tcp/51861".parse().unwrap()
    }

    #[test]
    fn a_claim_counts_with_the_connection_of_the_node_that_was_asked() {
        let (asked, other) = (PeerId::random(), PeerId::random());
        let mut probe = Probe::of(asked);
        probe.on_claim(asked, address());
        assert_eq!(probe.proven(), None, "nothing has arrived");
        probe.on_inbound(other);
        assert_eq!(probe.proven(), None, "somebody else's connection");
        probe.on_inbound(asked);
        assert_eq!(probe.proven(), Some(address()), "the answer came first");
        assert_eq!(probe.proven(), None, "once");

        let mut probe = Probe::of(asked);
        probe.on_inbound(asked);
        probe.on_claim(other, address());
        assert_eq!(probe.proven(), None, "not asked");
        probe.on_claim(asked, address());
        assert_eq!(probe.proven(), Some(address()));
    }

    #[test]
    fn a_claim_names_a_port_of_ours() {
        let config = DirectoryConfig {
            promotion: Some(PROBE_INTERVAL),
            ..DirectoryConfig::new(frejus_overlay::id::NetworkId([1; 32]), [1; 32])
        };
        let own = PeerId::random();
        let reachability = Reachability::new(own, &config, &["10.0.0.2:51861".parse().unwrap()]);
        let ours = |text: String| reachability.is_ours(&text.parse().unwrap());
        assert!(ours(format!("/ip4/192.0.2.1/tcp/51861/p2p/{own}")));
        assert!(ours("/ip4/192.0.2.1/udp/51861/quic-v1".to_owned()));
        assert!(!ours("/ip4/192.0.2.1/tcp/22".to_owned()));
        assert!(!ours("/ip6/2001:db8::1/tcp/51861".to_owned()), "not listened on");
        assert!(!ours(format!("/ip4/192.0.2.1/tcp/51861/p2p/{}", PeerId::random())));
    }

    #[test]
    fn only_so_many_super_peers_are_asked() {
        let config = DirectoryConfig::new(frejus_overlay::id::NetworkId([1; 32]), [1; 32]);
        let mut reachability = Reachability::new(PeerId::random(), &config, &[]);
        let first = PeerId::random();
        reachability.may_ask(first, &[address()]);
        for _ in 0..ASKED {
            reachability.may_ask(PeerId::random(), &[address()]);
        }
        assert_eq!(reachability.servers.len(), ASKED);
        assert!(!reachability.servers.contains(&first));
    }
}
