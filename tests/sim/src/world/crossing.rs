//! TCP connections that two hosts make by connecting to each other at the same moment.
//!
//! Owns: the ports that hosts open for that, and the SYNs, which every NAT on their way translates and filters by its
//! class, as it does datagrams. A host that gets a SYN connects if it has just sent one back. Never: what a connection
//! carries.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use frejus_overlay::locator::StreamId;
use frejus_overlay::stream::{Across, StreamEvent};

use super::currents::{Current, End, SETUP};
use super::{EPHEMERAL, Happening, World};
use crate::internet::{Flight, HostId};

/// Bytes of a SYN.
const SYN: usize = 60;
/// Between two of them.
const AGAIN: Duration = Duration::from_millis(900);

/// What happens to ports.
pub(in crate::world) enum Crossed {
    /// Super peers have said where they see it.
    Seen(End, [Option<SocketAddr>; 2]),
    /// It sends a SYN.
    Tries(End),
    /// That arrives.
    Arrives(End, Flight),
    /// Two ports have become a connection.
    Stands(End, End),
}

/// A port, and whom it connects to.
struct Port {
    at: SocketAddr,
    across: Option<Across>,
}

impl Port {
    /// Where it connects to; to nowhere yet.
    fn target(&self) -> SocketAddr {
        self.across.map_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into(), |across| across.to)
    }
}

/// All ports, and the SYNs that were sent.
#[derive(Default)]
pub(in crate::world) struct Crossings {
    ports: BTreeMap<End, Port>,
    sent: Vec<(HostId, SocketAddr)>,
}

impl Crossings {
    pub(in crate::world) fn close(&mut self, end: End) {
        self.ports.remove(&end);
    }
}

impl World {
    pub(super) fn begin_crossing(&mut self, host: HostId, id: StreamId, ask: &[SocketAddr]) {
        let end = (host, id);
        let port = EPHEMERAL + self.dice.below(u64::from(u16::MAX - EPHEMERAL)) as u16;
        let at = SocketAddr::new(self.hosts[host.0].address.ip(), port);
        let mut seen = [None; 2];
        for (to, seen) in ask.iter().zip(&mut seen) {
            if self.listener(host, *to).is_none() {
                continue;
            }
            *seen = self.syn(host, at, *to).map(|syn| syn.source);
        }
        self.currents.dialled.insert(end);
        self.crossings.ports.insert(end, Port { at, across: None });
        let what = if seen == [None; 2] {
            Happening::Current(Current::Ends(end))
        } else {
            Happening::Crossed(Crossed::Seen(end, seen))
        };
        self.schedule(self.now + SETUP, what);
    }

    pub(super) fn cross(&mut self, host: HostId, id: StreamId, across: Across) {
        let end = (host, id);
        if let Some(port) = self.crossings.ports.get_mut(&end) {
            port.across = Some(across);
            self.schedule(self.now + across.after, Happening::Crossed(Crossed::Tries(end)));
        }
    }

    /// A SYN leaves; `None` if it gets nowhere.
    fn syn(&mut self, host: HostId, from: SocketAddr, to: SocketAddr) -> Option<Flight> {
        let realm = self.hosts[host.0].realm;
        self.internet.depart((host, realm), from, to, SYN, self.now).ok()
    }

    /// SYNs that a host has sent to another, while it crossed.
    #[must_use]
    pub fn syns(&self, from: &str, to: IpAddr) -> usize {
        let from = self.id(from);
        self.crossings.sent.iter().filter(|(host, at)| *host == from && at.ip() == to).count()
    }

    pub(super) fn on_crossed(&mut self, what: Crossed) {
        match what {
            Crossed::Seen(end, at) => {
                if self.crossings.ports.contains_key(&end) {
                    self.tell_stream(end, StreamEvent::Seen { at });
                }
            }
            Crossed::Tries(end) => self.on_try(end),
            Crossed::Arrives(from, syn) => self.on_syn(from, &syn),
            Crossed::Stands(one, other) => {
                let ports = &mut self.crossings.ports;
                if let (Some(here), Some(there)) = (ports.remove(&one), ports.remove(&other)) {
                    self.on_crossing_stands((one, here.target()), (other, there.target()));
                }
            }
        }
    }

    fn on_try(&mut self, end: End) {
        let Some(Port { at, across: Some(across) }) = self.crossings.ports.get_mut(&end) else { return };
        if across.tries == 0 {
            return self.schedule(self.now, Happening::Current(Current::Ends(end)));
        }
        across.tries -= 1;
        let (at, to) = (*at, across.to);
        self.crossings.sent.push((end.0, to));
        if let Some(syn) = self.syn(end.0, at, to) {
            self.schedule(syn.arrival, Happening::Crossed(Crossed::Arrives(end, syn)));
        }
        self.schedule(self.now + AGAIN, Happening::Crossed(Crossed::Tries(end)));
    }

    /// Whoever gets it connects if it has sent one to where this seems to come from.
    fn on_syn(&mut self, from: End, syn: &Flight) {
        let Ok((host, source, to)) = self.internet.arrive(syn) else { return };
        let fits = |end: &End, port: &Port| end.0 == host && port.at == to && port.target() == source;
        let here = self.crossings.ports.iter().find(|(end, port)| fits(end, port)).map(|(end, _)| *end);
        if let Some(here) = here {
            self.schedule(self.now + SETUP, Happening::Crossed(Crossed::Stands(here, from)));
        }
    }
}
