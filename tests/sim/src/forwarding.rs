//! The forwarding plane of a simulated host: the daemon's two threads as two plain functions.
//!
//! Owns: the same decisions, taken through `overlay::forward` and `overlay::wire`, and their counting. Never: a
//! decision of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use frejus_overlay::forward::{Exception, Inward, Outward, Slot, Table};
use frejus_overlay::locator::{Channel, DoorId, Endpoint, Locator, Via};
use frejus_overlay::packet::fragment::{Oversize, oversize};
use frejus_overlay::packet::{IpPacket, icmp};
use frejus_overlay::stun::{self, Here, Port, Reaction};
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{HEADER, OVERHEAD, Opened};
use frejus_overlay::verdict::{Counters, Drop};
use frejus_overlay::wire::{self, Frame, Wireguard};

use crate::app;

/// What comes of a packet or a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send this datagram.
    Send(Endpoint, Vec<u8>),
    /// Send it so that it dies after so many hops.
    SendNear(Endpoint, Vec<u8>, u8),
    /// Write this packet to the TUN device.
    Tun(Vec<u8>),
    /// Ask control.
    Ask(Exception),
}

/// What the two threads know.
#[derive(Default)]
pub struct Forwarding {
    /// As control published it last.
    pub table: Option<Arc<Table>>,
    /// What became of each packet.
    pub counters: Arc<Counters>,
    /// What this super peer says to see by STUN, if it lies.
    pub lie: Option<SocketAddr>,
    /// A super peer's two ports.
    pub stun: Option<Here>,
    /// The place last told as strayed, and when, by tunnel index.
    told: BTreeMap<u32, (Locator, Instant)>,
    /// When a source was last called a stranger.
    strangers: BTreeMap<Endpoint, Instant>,
}

/// A source is told at most this often that its session is not ours.
const HINT: Duration = Duration::from_secs(1);
/// A peer that goes on sending from a place off its path is told of again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Sources remembered for [`HINT`].
const MAX_STRANGERS: usize = 1024;

impl Forwarding {
    /// A packet from the TUN device.
    pub fn outward(&mut self, packet: &[u8]) -> Vec<Deed> {
        let Some(table) = self.table.clone() else { return self.drop(Drop::NoRoute) };
        let Some((source, destination)) = app::addresses(packet) else { return self.drop(Drop::Malformed) };
        if is_noise(destination) {
            return self.drop(Drop::NoRoute);
        }
        match table.outward(source, destination) {
            Outward::Drop(reason) => self.drop(reason),
            Outward::Ask => vec![unroutable(packet)],
            Outward::Send(slot, locator) if slot.mtu.takes(packet.len()) => self.seal(slot, locator, packet),
            Outward::Send(slot, locator) => self.oversize(slot, locator, packet),
        }
    }

    /// A packet that the path is known not to take.
    fn oversize(&self, slot: &Slot, locator: Locator, packet: &[u8]) -> Vec<Deed> {
        let Ok(packet) = IpPacket::parse(packet) else { return self.drop(Drop::Malformed) };
        let number = self.counters.packets_out.load(Ordering::Relaxed) as u32;
        let mut out = [0; icmp::LONGEST];
        match oversize(&packet, slot.mtu.bytes, number) {
            Oversize::Fragments(mut fragments) => {
                let mut deeds = Vec::new();
                while let Some(Ok(length)) = fragments.write_next(&mut out) {
                    deeds.extend(self.seal(slot, locator, &out[..length]));
                }
                deeds
            }
            Oversize::Tell(mtu) => {
                self.counters.count(Drop::TooBig);
                let answer = icmp::too_big(packet.bytes(), packet.destination(), mtu, &mut out);
                answer.map(|length| Deed::Tun(out[..length].to_vec())).into_iter().collect()
            }
        }
    }

    /// Seal any packet for a peer, without asking whether we may send it: what an honest node never does.
    pub fn seal_unchecked(&mut self, destination: IpAddr, packet: &[u8]) -> Vec<Deed> {
        let Some(table) = self.table.clone() else { return Vec::new() };
        let own = if destination.is_ipv4() { table.own4.into() } else { table.own6.into() };
        match table.outward(own, destination) {
            Outward::Send(slot, locator) => self.seal(slot, locator, packet),
            Outward::Ask | Outward::Drop(_) => Vec::new(),
        }
    }

    fn seal(&self, slot: &Slot, locator: Locator, packet: &[u8]) -> Vec<Deed> {
        let mut message = vec![0; packet.len() + OVERHEAD];
        message[HEADER..HEADER + packet.len()].copy_from_slice(packet);
        let Some(sealed) = slot.tunnel.seal(&mut message, packet.len()) else {
            return vec![unroutable(packet)];
        };
        message.truncate(sealed);
        self.counters.packets_out.fetch_add(1, Ordering::Relaxed);
        let send = |way: Locator| match way {
            Locator::Direct(_) => Deed::Send(way.endpoint(), message.clone()),
            Locator::Relayed { channel, .. } => {
                Deed::Send(way.endpoint(), [&wire::relay_header(channel)[..], &message].concat())
            }
        };
        let mut deeds: Vec<Deed> = [Some(locator), slot.also].into_iter().flatten().map(send).collect();
        if slot.counters.sent(packet.len() as u64) {
            deeds.push(Deed::Ask(Exception::Woken { slot: slot.id }));
        }
        deeds
    }

    /// A datagram from the socket.
    pub fn inward(&mut self, from: Endpoint, datagram: &[u8], now: Instant) -> Vec<Deed> {
        match wire::classify(datagram) {
            Some(Frame::Relay(channel, inner)) => self.relay(from, channel, inner, datagram, now),
            Some(Frame::Wireguard(Wireguard::Data(receiver))) => {
                self.open(Locator::Direct(from), receiver, datagram, now)
            }
            Some(Frame::Stun) if !stun::is_answer(datagram) => self.stun(from, datagram),
            Some(_) => {
                let bytes = datagram.to_vec();
                vec![Deed::Ask(Exception::Datagram { from: Locator::Direct(from), bytes })]
            }
            None => self.drop(Drop::UnknownFrame),
        }
    }

    /// As the daemon's responder, without its budgets.
    fn stun(&self, from: Endpoint, datagram: &[u8]) -> Vec<Deed> {
        let alternate = Endpoint::by_door(DoorId::STUN, from.at);
        let asked = if from.via == Via::Door(DoorId::STUN) { Port::Alternate } else { Port::Main };
        let here = match self.stun {
            Some(here) => {
                Here { asked, other: self.table.as_ref().and_then(|table| table.other_stun), ..here }
            }
            None => {
                let main = from.at.port();
                Here { main, ..Here::ALONE }
            }
        };
        match stun::respond(datagram, self.lie.unwrap_or(from.at), &here) {
            Some(Reaction::Answer { from: port, bytes, .. }) if port == asked => {
                vec![Deed::Send(from, bytes)]
            }
            Some(Reaction::Answer { from: Port::Main, bytes, .. }) => {
                vec![Deed::Send(Endpoint::main(from.at), bytes)]
            }
            Some(Reaction::Answer { from: Port::Alternate, bytes, .. }) => vec![Deed::Send(alternate, bytes)],
            Some(Reaction::Elsewhere(_)) => {
                vec![Deed::Ask(Exception::Datagram { from: Locator::Direct(from), bytes: datagram.to_vec() })]
            }
            None => self.drop(Drop::UnknownFrame),
        }
    }

    fn relay(
        &mut self,
        from: Endpoint,
        channel: Channel,
        inner: &[u8],
        whole: &[u8],
        now: Instant,
    ) -> Vec<Deed> {
        let Some(table) = self.table.clone() else { return self.drop(Drop::UnknownChannel) };
        match table.relay.forward(channel, from, whole.len(), now) {
            Ok(to) => {
                self.counters.relayed.fetch_add(1, Ordering::Relaxed);
                return vec![Deed::Send(to, whole.to_vec())];
            }
            Err(Drop::UnknownChannel) => {}
            Err(reason) => return self.drop(reason),
        }
        let at = Locator::Relayed { relay: from, channel };
        match wire::classify(inner) {
            Some(Frame::Wireguard(Wireguard::Data(receiver))) => self.open(at, receiver, inner, now),
            Some(Frame::Wireguard(Wireguard::Initiation | Wireguard::Answer(_))) => {
                vec![Deed::Ask(Exception::Datagram { from: at, bytes: inner.to_vec() })]
            }
            _ => self.drop(Drop::UnknownFrame),
        }
    }

    fn open(&mut self, from: Locator, receiver: u32, datagram: &[u8], now: Instant) -> Vec<Deed> {
        let table = self.table.clone();
        let Some((table, slot)) = table.as_deref().and_then(|t| Some((t, t.by_receiver(receiver)?))) else {
            self.counters.count(Drop::UnknownSession);
            return self.stranger(from.endpoint(), now);
        };
        let mut inner = datagram.to_vec();
        let mut deeds = match slot.tunnel.open(&mut inner) {
            // The model's hosts compute every checksum, and its tunnels take no others.
            Opened::Rejected | Opened::Partial(_) => return self.drop(Drop::NotAuthentic),
            Opened::Duplicate => return self.drop(Drop::Duplicate),
            Opened::Refused => return self.drop(Drop::WireguardKeys),
            Opened::Keepalive => Vec::new(),
            Opened::Packet(length) => {
                inner.truncate(HEADER + length);
                inner.drain(..HEADER);
                self.deliver(table, slot, from, inner)
            }
        };
        match slot.path {
            None => {
                if !slot.counters.announced.swap(true, Ordering::Relaxed) {
                    deeds.push(Deed::Ask(Exception::Established { slot: slot.id, from }));
                }
            }
            Some(path) => {
                let told = |(place, at): &(Locator, Instant)| *place == from && now.since(*at) < TELL_AGAIN;
                let is_news = !self.told.get(&slot.index).is_some_and(told);
                if path != from && slot.also != Some(from) && is_news {
                    self.told.insert(slot.index, (from, now));
                    deeds.push(Deed::Ask(Exception::Strayed { slot: slot.id, from }));
                }
            }
        }
        deeds
    }

    fn deliver(&self, table: &Table, slot: &Slot, from: Locator, packet: Vec<u8>) -> Vec<Deed> {
        let Some((source, destination)) = app::addresses(&packet) else { return self.drop(Drop::Malformed) };
        match table.inward(slot, source, destination, is_control(&packet)) {
            Inward::Deliver => {
                slot.counters.received(packet.len() as u64);
                self.counters.packets_in.fetch_add(1, Ordering::Relaxed);
                vec![Deed::Tun(packet)]
            }
            Inward::Control => vec![Deed::Ask(Exception::Control { slot: slot.id, from, packet })],
            Inward::Drop(reason) => self.drop(reason),
        }
    }

    fn stranger(&mut self, from: Endpoint, now: Instant) -> Vec<Deed> {
        if self.strangers.get(&from).is_some_and(|told| now.since(*told) < HINT) {
            return Vec::new();
        }
        if self.strangers.len() >= MAX_STRANGERS {
            self.strangers.clear();
        }
        self.strangers.insert(from, now);
        vec![Deed::Ask(Exception::Stranger { from })]
    }

    fn drop(&self, reason: Drop) -> Vec<Deed> {
        self.counters.count(reason);
        Vec::new()
    }
}

fn unroutable(packet: &[u8]) -> Deed {
    Deed::Ask(Exception::Unroutable { packet: packet.to_vec() })
}

/// What a kernel sends on its own and nobody wants: multicast, broadcast, link-local.
fn is_noise(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// IPv6, next header UDP, destination port of control messages.
fn is_control(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6
        && packet.get(6) == Some(&17)
        && packet.get(42..44) == Some(&wire::control::PORT.to_be_bytes()[..])
}
