//! This machine, as the control thread's [`World`]: sockets, device, directory, disk, terminal.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::Sender;
use frejus_overlay::document::{Contact, Credential};
use frejus_overlay::forward::Table;
use frejus_overlay::locator::{DoorId, Endpoint, StreamId, Via};
use frejus_overlay::login::Entry;
use frejus_overlay::node::Event;
use frejus_overlay::port::Command;
use frejus_overlay::stream::Across;
use frejus_overlay::verdict::{Counters, Drop};
use std::sync::atomic::Ordering;

use crate::control::{News, Offloading, World};
use crate::directory::DirectoryHandle;
use crate::failure::Failure;
use crate::forward::{self, Published};
use crate::ledger::Ledger;
use crate::report;
use crate::state::{Lock, StateDir};
use crate::stream::{Outlets, Streams};
use crate::tun::Tun;
use crate::udp::{Buffers, Doors, UdpSender, WhenFull};

pub(super) struct Host {
    pub(super) udp: UdpSender,
    pub(super) doors: Doors,
    pub(super) streams: Streams,
    pub(super) outlets: Outlets,
    pub(super) listening: report::Streams,
    pub(super) tun: Arc<Tun>,
    pub(super) table: Arc<Published>,
    pub(super) directory: DirectoryHandle,
    pub(super) state: StateDir,
    /// Held for as long as the node runs.
    pub(super) _lock: Lock,
    /// Present with the login role.
    pub(super) ledger: Option<Ledger>,
    pub(super) lines: Sender<String>,
    pub(super) news: Sender<News>,
    /// A super peer does not tell of everybody's paths.
    pub(super) tells_paths: bool,
    /// Every thread's counters, control's own included.
    pub(super) counters: Vec<Arc<Counters>>,
}

impl World for Host {
    fn send(&mut self, to: Endpoint, datagram: &[u8]) -> bool {
        match to.via {
            Via::Main => self.udp.send(to.at, datagram).is_ok(),
            Via::Door(door) => self.doors.send(door, to.at, datagram, datagram.len(), WhenFull::Drop).is_ok(),
            Via::Stream(stream) => self.outlets.send(stream, datagram, datagram.len()).is_ok(),
        }
    }

    fn send_near(&mut self, to: Endpoint, datagram: &[u8], hops: u8) -> bool {
        let Via::Door(door) = to.via else { return false };
        self.doors.send_near(door, to.at, datagram, hops).is_ok()
    }

    fn open_door(&mut self, door: DoorId) {
        if let Err(error) = self.doors.open(door) {
            tracing::warn!(?door, %error, "a further UDP socket cannot be opened");
        }
    }

    fn close_door(&mut self, door: DoorId) {
        self.doors.close(door);
    }

    fn open_stream(&mut self, stream: StreamId, to: Vec<SocketAddr>) {
        self.streams.open(stream, to);
    }

    fn begin_crossing(&mut self, stream: StreamId, ask: Vec<SocketAddr>) {
        self.streams.begin_crossing(stream, ask);
    }

    fn cross(&mut self, stream: StreamId, across: Across) {
        self.streams.cross(stream, across);
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.streams.close(stream);
    }

    fn try_streams(&mut self, to: Vec<SocketAddr>) {
        let news = self.news.clone();
        self.streams.try_out(to, move |tried| news.try_send(News::Tried(tried)).is_ok());
    }

    fn trust_stream(&mut self, stream: StreamId) {
        self.streams.trust(stream);
    }

    fn to_tun(&mut self, packet: &[u8]) -> bool {
        self.tun.write_packet(packet).is_ok()
    }

    fn publish(&mut self, table: Arc<Table>) {
        self.table.publish(table);
    }

    fn command(&mut self, command: Command) -> bool {
        self.directory.send(command)
    }

    fn record(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        self.ledger.as_mut().map_or(Ok(()), |ledger| ledger.record(entries))
    }

    fn keep_passport(&mut self, credential: &Credential) -> Result<(), Failure> {
        self.state.write_passport(credential)
    }

    fn keep_super_peers(&mut self, contacts: &[Contact]) -> Result<(), Failure> {
        self.state.write_super_peers(contacts)
    }

    fn tell(&mut self, event: &Event) {
        let line = match event {
            Event::HomeUp { name } => format!("connected to super peer {name}"),
            Event::HomeDown { name } => format!("super peer {name} does not answer"),
            Event::Ready => "ready".to_owned(),
            Event::Renewed { until } => format!("passport renewed until {}", report::Timestamp(*until)),
            Event::Path { .. } if !self.tells_paths => return,
            Event::Path { name, direct: true, .. } => format!("direct to {name}"),
            Event::Path { name, direct: false, .. } => format!("to {name} through a relay"),
        };
        tracing::debug!("{line}");
        _ = self.lines.try_send(line);
    }

    fn counters(&self) -> report::Counters {
        let sum = forward::sum(self.counters.iter().map(Arc::as_ref));
        sum.count_many(Drop::SocketOverflow, self.udp.overflow());
        let dropped = Drop::ALL.iter().map(|reason| (reason.name().to_owned(), sum.dropped(*reason)));
        report::Counters {
            packets_out: sum.packets_out.load(Ordering::Relaxed),
            packets_in: sum.packets_in.load(Ordering::Relaxed),
            dropped: dropped.filter(|(_, packets)| *packets > 0).collect(),
        }
    }

    fn streams(&self) -> report::Streams {
        report::Streams { open: self.streams.count(), ..self.listening.clone() }
    }

    fn offloading(&self) -> Offloading {
        let Buffers { send, receive } = self.udp.buffers();
        Offloading {
            offload: self.udp.report(),
            buffers: report::SocketBuffers { send, receive },
            attention: self.udp.attention(),
        }
    }
}
