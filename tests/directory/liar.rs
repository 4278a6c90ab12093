//! A libp2p node that speaks the network's protocols and checks nothing: it stores and spreads what it likes.

use std::net::SocketAddr;
use std::sync::mpsc;

use frejus::directory::{peer_id, protocol_name};
use frejus_overlay::id::{NetworkId, NodeId};
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, Mode, QueryResult, Quorum, Record};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::node::Node;
use super::record;

#[derive(NetworkBehaviour)]
struct Lies {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

pub(crate) struct Liar {
    id: NodeId,
    at: SocketAddr,
    task: JoinHandle<()>,
}

impl Liar {
    /// Starts once it has pushed every record to every one of `servers`, and they have acknowledged.
    pub(crate) fn start(
        runtime: &Runtime,
        network: NetworkId,
        seed: u8,
        servers: &[Node],
        records: Vec<Record>,
    ) -> Self {
        let mut swarm = runtime.block_on(async { build(network, seed) });
        let peers: Vec<_> = servers.iter().map(|server| peer_id(&server.id()).expect("a node")).collect();
        for (server, peer) in servers.iter().zip(&peers) {
            let at = server.listening()[0];
            let address = Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()));
            swarm.behaviour_mut().kad.add_address(peer, address);
        }
        let wanted = records.len();
        for record in records {
            let kad = &mut swarm.behaviour_mut().kad;
            kad.store_mut().put(record.clone()).expect("room");
            kad.put_record_to(record, peers.clone().into_iter(), Quorum::All);
        }
        let (ready, waiting) = mpsc::channel();
        let task = runtime.spawn(run(swarm, wanted, ready));
        let at = waiting.recv().expect("an address").expect("every server acknowledges");
        Self { id: record::node_id(seed), at, task }
    }

    pub(crate) fn neighbour(&self) -> (NodeId, Vec<SocketAddr>) {
        (self.id, vec![self.at])
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn build(network: NetworkId, seed: u8) -> Swarm<Lies> {
    let keys = Keypair::ed25519_from_bytes([seed; 32]).expect("a seed");
    let peer = keys.public().to_peer_id();
    let config = kad::Config::new(protocol_name(&network));
    let store = MemoryStoreConfig { max_value_bytes: 64 << 10, ..MemoryStoreConfig::default() };
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), config);
    kad.set_mode(Some(Mode::Server));
    let announced = identify::Config::new(format!("/frejus/{network}/1"), keys.public());
    let lies = Lies { identify: identify::Behaviour::new(announced), kad };
    let mut swarm = SwarmBuilder::with_existing_identity(keys)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| lies)
        .expect("a behaviour")
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("a free port");
    swarm
}

async fn run(mut swarm: Swarm<Lies>, mut wanted: usize, ready: mpsc::Sender<Result<SocketAddr, String>>) {
    let mut at = None;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => at = socket_addr(&address),
            SwarmEvent::Behaviour(LiesEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: QueryResult::PutRecord(result),
                ..
            })) => {
                wanted -= 1;
                if let Err(error) = result {
                    let _ = ready.send(Err(error.to_string()));
                }
                if let (0, Some(at)) = (wanted, at) {
                    let _ = ready.send(Ok(at));
                }
            }
            _ => {}
        }
    }
}

fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?) {
        (Protocol::Ip4(ip), Protocol::Tcp(port)) => Some((ip, port).into()),
        _ => None,
    }
}
