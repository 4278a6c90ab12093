//! Letters between applications: sent, answered, one after the other.

use std::net::IpAddr;
use std::time::Duration;

use frejus_overlay::timing::Instant;

use super::{Happening, Sent, Stream, StreamId, World};
use crate::app::{self, Kind, Letter};
use crate::internet::HostId;

impl World {
    /// A letter over virtual IPv4; its number.
    pub fn send(&mut self, from: &str, to: &str, kind: Kind) -> u64 {
        self.send_sized(from, to, kind, 0, false)
    }

    /// A letter of a size over IPv4 or IPv6; its number.
    pub fn send_sized(&mut self, from: &str, to: &str, kind: Kind, size: usize, six: bool) -> u64 {
        self.send_between(self.id(from), self.id(to), kind, size, six)
    }

    fn send_between(&mut self, from: HostId, to: HostId, kind: Kind, size: usize, six: bool) -> u64 {
        let number = self.letters.len() as u64 + 1;
        self.letters.insert(number, Sent { at: self.now, from, to });
        let source = self.hosts[from.0].virtual_address(six);
        let destination = self.hosts[to.0].virtual_address(six);
        let packet = app::write(&Letter { source, destination, kind, number }, size);
        self.from_tun(from, &packet);
        number
    }

    /// A packet leaves a host's kernel through the TUN device.
    pub fn from_tun(&mut self, from: HostId, packet: &[u8]) {
        if self.hosts[from.0].node.is_some() && !self.hosts[from.0].is_asleep {
            let deeds = self.hosts[from.0].forwarding.outward(packet);
            self.carry_out(from, deeds.into());
        }
    }

    /// A dishonest host seals a packet with whatever source.
    pub fn forge(&mut self, from: HostId, destination: IpAddr, packet: &[u8]) {
        let deeds = self.hosts[from.0].forwarding.seal_unchecked(destination, packet);
        assert!(!deeds.is_empty(), "no session to seal with");
        self.carry_out(from, deeds.into());
    }

    /// How long a letter took to its addressee; `None` if it has not arrived.
    #[must_use]
    pub fn took(&self, number: u64) -> Option<Duration> {
        let sent = self.letters.get(&number)?;
        let mail = &self.hosts[sent.to.0].mail;
        let arrived = mail.arrived(Kind::Request, number).or_else(|| mail.arrived(Kind::Note, number))?;
        Some(arrived.since(sent.at))
    }

    /// How long a request took there and back.
    #[must_use]
    pub fn answered(&self, number: u64) -> Option<Duration> {
        let sent = self.letters.get(&number)?;
        Some(self.hosts[sent.from.0].mail.arrived(Kind::Reply, number)?.since(sent.at))
    }

    /// A request every so often, for so long.
    pub fn stream(&mut self, from: &str, to: &str, every: Duration, time: Duration) -> StreamId {
        let id = self.streams.len();
        let until = self.now + time;
        let (from, to) = (self.id(from), self.id(to));
        self.streams.push(Stream { from, to, every, until, numbers: Vec::new() });
        self.schedule(self.now, Happening::Tick(id));
        StreamId(id)
    }

    pub(super) fn tick(&mut self, id: usize) {
        let Stream { from, to, every, until, .. } = self.streams[id];
        if self.now < until {
            let number = self.send_between(from, to, Kind::Request, 0, false);
            self.streams[id].numbers.push(number);
            self.schedule(self.now + every, Happening::Tick(id));
        }
    }

    /// When each letter of a stream was sent, and how long until its answer.
    #[must_use]
    pub fn answers_of(&self, stream: StreamId) -> Vec<(Instant, Option<Duration>)> {
        let one = |number: &u64| (self.letters[number].at, self.answered(*number));
        self.streams[stream.0].numbers.iter().map(one).collect()
    }
}
