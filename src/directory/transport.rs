//! The way out: TCP and QUIC, dialled from sockets that nobody listens on.
//!
//! libp2p dials from the listening port where it can. A NAT that lets in whoever comes from an address that was
//! dialled from that port would then let a super peer's dial-back in, and nobody else: a node would be called
//! reachable that is not. Never decides whom to dial.

use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, OrTransport, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, quic, tcp, yamux};

type Link = (PeerId, StreamMuxerBox);

/// Two transports of one kind: one listens, the other dials.
pub(super) struct Apart {
    listening: Boxed<Link>,
    dialling: Boxed<Link>,
}

impl Apart {
    /// TCP with Noise and yamux, and QUIC, as `quic` and `yamux` tune them.
    pub(super) fn new(
        keys: &Keypair,
        quic: fn(quic::Config) -> quic::Config,
        yamux: fn() -> yamux::Config,
    ) -> Result<Self, noise::Error> {
        let both = || both(keys, quic(quic::Config::new(keys)), yamux());
        Ok(Self { listening: both()?, dialling: both()? })
    }
}

fn both(keys: &Keypair, quic: quic::Config, yamux: yamux::Config) -> Result<Boxed<Link>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keys)?)
        .multiplex(yamux)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let quic = quic::tokio::Transport::new(quic).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed())
}

impl Transport for Apart {
    type Output = Link;
    type Error = <Boxed<Link> as Transport>::Error;
    type ListenerUpgrade = <Boxed<Link> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<Link> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.listening.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        self.dialling.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        if let Poll::Ready(event) = Pin::new(&mut self.listening).poll(context) {
            return Poll::Ready(event);
        }
        // Its sockets live by being polled, though it never accepts anybody.
        Pin::new(&mut self.dialling).poll(context)
    }
}
