//! A toy application: inner packets with a number in them, an echo server, and a record of what arrived.
//!
//! Owns: the packet's bytes ([`write()`], [`read`]) and the [`Mailbox`]. Never: a decision about where a packet goes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use frejus_overlay::timing::Instant;

/// In every payload: bytes that must never be seen on the wire.
pub const MARK: [u8; 8] = *b"PLAINTXT";

/// What a packet asks of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Note,
    /// To be answered.
    Request,
    /// The answer.
    Reply,
}

/// An inner packet, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Inner source.
    pub source: IpAddr,
    /// Inner destination.
    pub destination: IpAddr,
    /// What it asks for.
    pub kind: Kind,
    /// Its number; an answer has its request's.
    pub number: u64,
}

const PORT: u16 = 40_000;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const BODY: usize = MARK.len() + 1 + 8;

/// The packet that says this, in `size` bytes or as few as it takes; both addresses are of one family.
#[must_use]
pub fn write(letter: &Letter, size: usize) -> Vec<u8> {
    let header = match letter.source {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let size = size.max(header + UDP_HEADER + BODY);
    let mut udp = Vec::with_capacity(size - header);
    let length = u16::try_from(size - header).expect("packets are small");
    for field in [PORT, PORT, length, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(MARK);
    udp.push(letter.kind as u8);
    udp.extend(letter.number.to_be_bytes());
    udp.resize(size - header, 0);
    let total = u16::try_from(size).expect("packets are small").to_be_bytes();
    let mut packet = match (letter.source, letter.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0];
            ip.extend(source.octets());
            ip.extend(destination.octets());
            let checksum = checksum(&[&ip]);
            ip[10..12].copy_from_slice(&checksum);
            ip
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length.to_be_bytes();
            let mut ip = vec![0x60, 0, 0, 0, high, low, UDP, 64];
            ip.extend(source.octets());
            ip.extend(destination.octets());
            ip
        }
        _ => panic!("a letter between two families"),
    };
    let addresses = &packet[if header == 20 { 12 } else { 8 }..];
    let pseudo = [u32::from(length).to_be_bytes(), u32::from(UDP).to_be_bytes()].concat();
    let sum = checksum(&[addresses, &pseudo, &udp]);
    udp[6..8].copy_from_slice(&if sum == [0, 0] { [0xff, 0xff] } else { sum });
    packet.extend(udp);
    packet
}

/// RFC 1071 over parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// What a packet says; `None` if it is none of ours.
#[must_use]
pub fn read(packet: &[u8]) -> Option<Letter> {
    let (source, destination) = addresses(packet)?;
    let header = if source.is_ipv4() { 20 } else { 40 };
    let body = packet.get(header + UDP_HEADER..)?.strip_prefix(&MARK)?;
    let (kind, rest) = body.split_first()?;
    let kind = [Kind::Note, Kind::Request, Kind::Reply].into_iter().find(|k| *k as u8 == *kind)?;
    let number = u64::from_be_bytes(*rest.first_chunk()?);
    Some(Letter { source, destination, kind, number })
}

/// What a "fragmentation needed" (RFC 1191) or a "packet too big" (RFC 4443) tells; `None` if it is neither.
fn too_big(packet: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    match (packet.first()? >> 4, packet.get(9), packet.get(6)) {
        (4, Some(1), _) if word(20)? == 0x0304 => word(26),
        (6, _, Some(58)) if word(40)? == 0x0200 => word(46),
        _ => None,
    }
}

/// Source and destination of an IP packet.
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let at = |from: usize| packet.get(from..from + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            Some((at(12)?.into(), at(16)?.into()))
        }
        6 => {
            let at = |from: usize| packet.get(from..from + 16).and_then(|b| <[u8; 16]>::try_from(b).ok());
            Some((at(8)?.into(), at(24)?.into()))
        }
        _ => None,
    }
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// When.
    pub at: Instant,
    /// What.
    pub letter: Letter,
}

/// What arrived at a host, by kind and number.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    receipts: BTreeMap<(u8, u64), Receipt>,
    /// Letters that arrived more than once.
    pub duplicates: u64,
    /// Packets that are no letters.
    pub strange: u64,
    /// What Packets Too Big told, in bytes.
    pub told: Vec<u16>,
}

impl Mailbox {
    /// A packet came out of the TUN device; the answer, if it asks for one.
    pub fn take(&mut self, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let Some(letter) = read(packet) else {
            match too_big(packet) {
                Some(mtu) => self.told.push(mtu),
                None => self.strange += 1,
            }
            return None;
        };
        let receipt = Receipt { at: now, letter };
        if self.receipts.insert((letter.kind as u8, letter.number), receipt).is_some() {
            self.duplicates += 1;
        }
        let Letter { source, destination, number, .. } = letter;
        let reply = Letter { source: destination, destination: source, kind: Kind::Reply, number };
        (letter.kind == Kind::Request).then(|| write(&reply, packet.len()))
    }

    /// When this letter arrived.
    #[must_use]
    pub fn arrived(&self, kind: Kind, number: u64) -> Option<Instant> {
        self.receipts.get(&(kind as u8, number)).map(|receipt| receipt.at)
    }

    /// Every arrival.
    pub fn iter(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_written_and_checksums_hold() {
        for (source, destination) in [("10.9.0.1", "10.9.0.2"), ("fd00::1", "fd00::2")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let letter = Letter { source, destination, kind: Kind::Request, number: 77 };
            let packet = write(&letter, 301);
            assert_eq!(packet.len(), 301);
            assert_eq!(read(&packet), Some(letter));
            let headers = if source.is_ipv4() { (20, 12) } else { (40, 8) };
            if source.is_ipv4() {
                assert_eq!(checksum(&[&packet[..20]]), [0, 0]);
            }
            let length = (packet.len() - headers.0) as u32;
            let pseudo = [length.to_be_bytes(), 17_u32.to_be_bytes()].concat();
            assert_eq!(checksum(&[&packet[headers.1..headers.0], &pseudo, &packet[headers.0..]]), [0, 0]);
        }
    }
}
