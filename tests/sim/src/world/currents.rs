//! TCP: connections that carry datagrams in order and lose none, and hosts whose UDP is blocked.
//!
//! Owns: which connections stand, and when what they carry arrives. A connection can be made to every host on the public
//! Internet, from anywhere but across a cut, at its own number; nobody listens on 443. Never: a decision of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use frejus_overlay::locator::{Endpoint, StreamId, Via};
use frejus_overlay::stream::{Carrier, Passage, StreamEvent, TRIAL, Tried};

use super::{Happening, World};
use crate::internet::{HostId, PUBLIC};
use crate::link::WAN;

/// TCP's handshake, that of TLS 1.3, and the greeting: three round trips.
pub(super) const SETUP: Duration = WAN.latency.saturating_mul(6);
/// Nobody is there.
const REFUSED: Duration = Duration::from_secs(6);
/// Who proved nothing for so long is cut off.
const PROBATION: Duration = Duration::from_secs(10);

/// One end of a connection.
pub(super) type End = (HostId, StreamId);

/// What happens on connections.
pub(super) enum Current {
    /// The dialled connection stands.
    Stands(End, HostId, SocketAddr),
    /// It does not, or not any more.
    Ends(End),
    /// A datagram arrives at this end.
    Arrives(End, Arc<[u8]>),
    /// What a host that tried all ways has reached.
    Tried(HostId, Tried),
    /// Has the other end shown that it is a member?
    Review(End),
}

#[derive(Default)]
pub(super) struct Currents {
    /// Each end with the other one, and where that seems to be.
    ends: BTreeMap<End, (End, SocketAddr)>,
    /// Being dialled.
    pub(super) dialled: BTreeSet<End>,
    trusted: BTreeSet<End>,
    accepted: u32,
    udp_blocked: BTreeSet<HostId>,
}

impl World {
    /// Let UDP pass at a host, or none.
    pub fn block_udp(&mut self, name: &str, blocked: bool) {
        let id = self.id(name);
        if blocked {
            self.currents.udp_blocked.insert(id);
        } else {
            self.currents.udp_blocked.remove(&id);
        }
    }

    /// Connections that a host has.
    #[must_use]
    pub fn connections(&self, name: &str) -> usize {
        let id = self.id(name);
        self.currents.ends.keys().filter(|(host, _)| *host == id).count()
    }

    pub(super) fn is_udp_blocked(&self, id: HostId) -> bool {
        self.currents.udp_blocked.contains(&id)
    }

    pub(super) fn open_stream(&mut self, from: HostId, id: StreamId, to: &[SocketAddr]) {
        let end = (from, id);
        self.currents.dialled.insert(end);
        match to.iter().find_map(|at| self.listener(from, *at)) {
            Some((host, at)) => {
                self.schedule(self.now + SETUP, Happening::Current(Current::Stands(end, host, at)));
            }
            None => self.schedule(self.now + REFUSED, Happening::Current(Current::Ends(end))),
        }
    }

    /// Who takes connections there from this host.
    pub(super) fn listener(&self, from: HostId, at: SocketAddr) -> Option<(HostId, SocketAddr)> {
        let found = self.hosts.iter().position(|host| host.realm == PUBLIC && host.address == at);
        let found = found.filter(|host| self.hosts[*host].node.is_some()).map(HostId);
        found.filter(|host| !self.is_severed(from, *host)).map(|host| (host, at))
    }

    pub(super) fn try_streams(&mut self, from: HostId, to: &[SocketAddr]) {
        let is_open = to.iter().any(|at| self.listener(from, *at).is_some());
        let (own, after) = if is_open { (Passage::Open, SETUP) } else { (Passage::Blocked, TRIAL) };
        let tried = Tried { own, https: Passage::Blocked };
        self.schedule(self.now + after, Happening::Current(Current::Tried(from, tried)));
    }

    pub(super) fn close_stream(&mut self, host: HostId, id: StreamId) {
        let end = (host, id);
        self.currents.dialled.remove(&end);
        self.crossings.close(end);
        if let Some((other, _)) = self.currents.ends.remove(&end) {
            self.schedule(self.now + WAN.latency, Happening::Current(Current::Ends(other)));
        }
    }

    pub(super) fn trust_stream(&mut self, host: HostId, id: StreamId) {
        self.currents.trusted.insert((host, id));
    }

    /// A host is gone, and its connections with it.
    pub(super) fn close_streams_of(&mut self, host: HostId) {
        let own: Vec<StreamId> =
            self.currents.ends.keys().filter(|(of, _)| *of == host).map(|(_, id)| *id).collect();
        for id in own {
            self.close_stream(host, id);
        }
        self.currents.dialled.retain(|(of, _)| *of != host);
    }

    pub(super) fn send_along(&mut self, host: HostId, id: StreamId, bytes: &[u8]) {
        let other = self.currents.ends.get(&(host, id)).filter(|(other, _)| !self.is_severed(host, other.0));
        if let Some((other, _)) = other {
            let arrives = Current::Arrives(*other, bytes.into());
            self.schedule(self.now + WAN.latency, Happening::Current(arrives));
        }
    }

    /// What is sent meanwhile waits until it gives way to what is newer.
    fn is_severed(&self, one: HostId, other: HostId) -> bool {
        self.severed.contains(&(one.min(other), one.max(other)))
    }

    pub(super) fn on_current(&mut self, current: Current) {
        match current {
            Current::Stands(end, host, at) => self.on_stands(end, host, at),
            Current::Ends(end) => {
                let known = self.currents.dialled.remove(&end) | self.currents.ends.remove(&end).is_some();
                self.crossings.close(end);
                if known {
                    self.tell_stream(end, StreamEvent::Closed);
                }
            }
            Current::Arrives(end, bytes) => {
                if let Some((_, at)) = self.currents.ends.get(&end) {
                    let from = Endpoint { via: Via::Stream(end.1), at: *at };
                    self.deliver(end.0, from, &bytes);
                }
            }
            Current::Tried(host, tried) => {
                let now = self.hosts[host.0].now(self.now);
                self.input(host, false, |node| node.handle_tried(tried, now));
            }
            Current::Review(end) => {
                if self.currents.ends.contains_key(&end) && !self.currents.trusted.contains(&end) {
                    self.close_stream(end.0, end.1);
                    self.tell_stream(end, StreamEvent::Closed);
                }
            }
        }
    }

    fn on_stands(&mut self, end: End, host: HostId, at: SocketAddr) {
        if !self.currents.dialled.remove(&end) || self.hosts[host.0].node.is_none() {
            return;
        }
        self.currents.accepted += 1;
        let other = (host, StreamId(2 * self.currents.accepted + 1));
        let source = SocketAddr::new(
            self.hosts[end.0.0].address.ip(),
            40_000 + (self.currents.accepted % 20_000) as u16,
        );
        self.currents.ends.insert(end, (other, at));
        self.currents.ends.insert(other, (end, source));
        self.tell_stream(other, StreamEvent::Open { at: source, carrier: Carrier::Tcp });
        self.tell_stream(end, StreamEvent::Open { at, carrier: Carrier::Tcp });
        self.schedule(self.now + PROBATION, Happening::Current(Current::Review(other)));
    }

    /// Two hosts have connected to each other; each with where it connected to.
    pub(super) fn on_crossing_stands(&mut self, one: (End, SocketAddr), other: (End, SocketAddr)) {
        for ((end, to), (peer, _)) in [(one, other), (other, one)] {
            self.currents.dialled.remove(&end);
            self.currents.ends.insert(end, (peer, to));
        }
        for (end, at) in [one, other] {
            self.tell_stream(end, StreamEvent::Open { at, carrier: Carrier::Tcp });
        }
    }

    pub(super) fn tell_stream(&mut self, (host, id): End, event: StreamEvent) {
        let now = self.hosts[host.0].now(self.now);
        self.input(host, false, |node| node.handle_stream(id, event, now));
    }
}
