//! Outward: what a TUN device with offloads hands over is cut into the packets that the peer will get.
//!
//! Owns: [`Segments`], which cuts TCP and UDP super-packets and completes checksums in software (or leaves them to the
//! receiver), straight into the caller's buffer. Never: fragments IP, answers packets that are too big for the path, or believes the lengths
//! in the device's header.

use super::checksum::Sum;
use super::partial::{self, Checksum};
use super::vnet::{Gso, VnetHeader};
use super::{
    IpPacket, Malformed, Transport, length_field, long, protocol, put_long, put_word, seal_v4_header,
    transport_at, word,
};

pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
pub(crate) const TCP_CWR: u8 = 0x80;
/// Offsets inside the transport headers, in bytes.
pub(crate) const TCP_SEQUENCE: usize = 4;
pub(crate) const TCP_FLAGS: usize = 13;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_LENGTH: usize = 4;
pub(crate) const UDP_CHECKSUM: usize = 6;

/// One packet read from the device, yielding the packets to send one after another.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: IpPacket<'a>,
    plan: Plan,
    /// How the checksums may be left.
    checksum: Checksum,
    count: usize,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    /// One packet, complete.
    Whole,
    /// One packet; sum from `start` on, and put the checksum at `field`.
    Complete { start: usize, field: usize },
    /// Many.
    Cut(Cut),
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    transport: Transport,
    /// Payload of every segment but the last.
    mss: usize,
    /// Addresses and protocol: the part of the pseudo header that all segments share.
    pseudo: Sum,
}

impl<'a> Segments<'a> {
    /// Plans the cutting of `packet`, which came with `vnet`.
    ///
    /// TCP super-packets are cut so that no segment is longer than `max_segment` bytes, IP header included. What
    /// may not be cut further (single packets, the datagrams in a UDP super-packet) keeps its size: compare
    /// [`Self::stride`] with the path and answer with [`super::icmp::too_big`].
    ///
    /// # Errors
    /// [`Malformed`] if the packet is none, or the device asks for what can't be done with it.
    pub fn new(vnet: VnetHeader, packet: &'a [u8], max_segment: usize) -> Result<Self, Malformed> {
        Self::of(vnet, IpPacket::parse(packet)?, max_segment)
    }

    /// [`Self::new`] for a packet that is checked already.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(vnet: VnetHeader, packet: IpPacket<'a>, max_segment: usize) -> Result<Self, Malformed> {
        if vnet.gso != Gso::None {
            let cut = Cut::plan(vnet, &packet, max_segment)?;
            let count = (packet.bytes().len() - cut.transport.payload).div_ceil(cut.mss).max(1);
            let checksum = cut.checksum(&packet);
            return Ok(Self { packet, plan: Plan::Cut(cut), checksum, count, next: 0 });
        }
        if !vnet.needs_csum {
            let checksum = Checksum::Complete;
            return Ok(Self { packet, plan: Plan::Whole, checksum, count: 1, next: 0 });
        }
        let start = usize::from(vnet.csum_start);
        let field = start + usize::from(vnet.csum_offset);
        if start < packet.header_len() || field + 2 > packet.bytes().len() {
            return Err(Malformed::Checksum);
        }
        let checksum = single_checksum(&packet, start, field);
        Ok(Self { packet, plan: Plan::Complete { start, field }, checksum, count: 1, next: 0 })
    }

    /// Whether [`Self::write_next_as`] may leave the checksums to a receiver that knows of it: the device has not
    /// computed them, and [`partial::complete`] can.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The packet as it was read, checked.
    #[must_use]
    pub fn packet(&self) -> &IpPacket<'a> {
        &self.packet
    }

    /// How many segments there are, written ones included; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of every segment but the last, and of the only one, in bytes; the last is never longer.
    #[must_use]
    pub fn stride(&self) -> usize {
        match self.plan {
            Plan::Cut(cut) if self.count > 1 => cut.transport.payload + cut.mss,
            Plan::Cut(_) | Plan::Whole | Plan::Complete { .. } => self.packet.bytes().len(),
        }
    }

    /// Length of the segment that [`Self::write_next`] writes next, in bytes; `None` after the last.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let whole = self.packet.bytes().len();
        match self.plan {
            _ if self.next >= self.count => None,
            Plan::Cut(cut) => {
                let headers = cut.transport.payload;
                Some(headers + cut.mss.min(whole.saturating_sub(headers + self.next * cut.mss)))
            }
            Plan::Whole | Plan::Complete { .. } => Some(whole),
        }
    }

    /// Leaves the next segment out.
    pub fn skip_next(&mut self) {
        self.next = self.count.min(self.next + 1);
    }

    /// Writes the next segment to the front of `out` and returns its length in bytes; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed::NoRoom`] if `out` is shorter than the segment ([`Self::stride`] suffices for each); nothing
    /// follows it.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<Result<usize, Malformed>> {
        self.write_next_as(Checksum::Complete, out)
    }

    /// [`Self::write_next`], its checksum not computed if that is what [`Self::checksum`] and `checksum` say.
    ///
    /// # Errors
    /// As [`Self::write_next`].
    pub fn write_next_as(&mut self, checksum: Checksum, out: &mut [u8]) -> Option<Result<usize, Malformed>> {
        if self.next == self.count {
            return None;
        }
        let leave = checksum == Checksum::Partial && self.checksum == Checksum::Partial;
        let written = match self.plan {
            Plan::Complete { .. } if leave => self.write_whole(out).map(|segment| segment.len()),
            Plan::Whole => self.write_whole(out).map(|segment| segment.len()),
            Plan::Complete { start, field } => self.write_whole(out).map(|segment| {
                let sum = Sum::default().bytes(&segment[start..]);
                // In UDP, and only there, zero would mean "no checksum".
                let udp = field - start == UDP_CHECKSUM;
                put_word(segment, field, if udp { sum.checksum_nonzero() } else { sum.checksum() });
                segment.len()
            }),
            Plan::Cut(cut) => {
                let place = Place { index: self.next, last: self.next + 1 == self.count, leave };
                cut.write(&self.packet, place, out)
            }
        };
        self.next = if written.is_ok() { self.next + 1 } else { self.count };
        Some(written)
    }

    fn write_whole<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], Malformed> {
        let packet = self.packet.bytes();
        let segment = out.get_mut(..packet.len()).ok_or(Malformed::NoRoom)?;
        segment.copy_from_slice(packet);
        Ok(segment)
    }
}

/// Which segment is written, and whether its checksum is left out.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    last: bool,
    leave: bool,
}

/// How the checksum at `field`, over what begins at `start`, may be left: the receiver is told no place, so it must be the
/// usual one.
fn single_checksum(packet: &IpPacket<'_>, start: usize, field: usize) -> Checksum {
    let usual = |transport: &Transport| {
        let part = &packet.bytes()[transport.start..];
        let whole = transport.protocol == protocol::TCP || usize::from(word(part, UDP_LENGTH)) == part.len();
        transport.start == start && field == start + partial::offset(transport.protocol) && whole
    };
    match packet.transport() {
        Some(transport) if usual(&transport) => Checksum::Partial,
        _ => Checksum::Complete,
    }
}

impl Cut {
    /// Behind extension headers the receiver does not look for it.
    fn checksum(&self, packet: &IpPacket<'_>) -> Checksum {
        match packet.transport() {
            Some(transport) if transport == self.transport => Checksum::Partial,
            _ => Checksum::Complete,
        }
    }

    fn plan(vnet: VnetHeader, packet: &IpPacket<'_>, max_segment: usize) -> Result<Self, Malformed> {
        let upper = packet.upper_layer().ok_or(Malformed::Segmentation)?;
        let fits = match vnet.gso {
            Gso::None => false,
            Gso::TcpV4 => upper.protocol == protocol::TCP && !packet.is_v6(),
            Gso::TcpV6 => upper.protocol == protocol::TCP && packet.is_v6(),
            Gso::UdpL4 => upper.protocol == protocol::UDP,
        };
        if !fits || upper.fragment || upper.routed || vnet.gso_size == 0 {
            return Err(Malformed::Segmentation);
        }
        let transport =
            transport_at(packet.bytes(), upper.protocol, upper.start).ok_or(Malformed::Segmentation)?;
        let mut mss = usize::from(vnet.gso_size);
        if upper.protocol == protocol::TCP {
            let room = max_segment.checked_sub(transport.payload).filter(|room| *room > 0);
            mss = mss.min(room.ok_or(Malformed::Segmentation)?);
        }
        Ok(Self { transport, mss, pseudo: Sum::pseudo(packet.addresses(), upper.protocol, 0) })
    }

    fn write(&self, packet: &IpPacket<'_>, place: Place, out: &mut [u8]) -> Result<usize, Malformed> {
        let (whole, index) = (packet.bytes(), place.index);
        let Transport { start, payload: headers, .. } = self.transport;
        let from = headers + index * self.mss;
        let payload = &whole[from..whole.len().min(from + self.mss)];
        let total = headers + payload.len();
        let segment = out.get_mut(..total).ok_or(Malformed::NoRoom)?;
        segment[..headers].copy_from_slice(&whole[..headers]);
        segment[headers..].copy_from_slice(payload);

        if packet.is_v6() {
            put_word(segment, 4, length_field(total - packet.header_len()));
        } else {
            put_word(segment, 2, length_field(total));
            put_word(segment, 4, word(whole, 4).wrapping_add(length_field(index)));
            seal_v4_header(segment, packet.header_len());
        }
        self.finish_transport(&mut segment[start..], place);
        Ok(total)
    }

    /// Rewrites the transport header at the front of `part`, which ends with the segment.
    fn finish_transport(&self, part: &mut [u8], Place { index, last, leave }: Place) {
        let length = part.len();
        if self.transport.protocol == protocol::UDP {
            put_word(part, UDP_LENGTH, length_field(length));
        } else {
            let offset = u32::from(length_field(index * self.mss));
            let sequence = long(part, TCP_SEQUENCE).wrapping_add(offset);
            put_long(part, TCP_SEQUENCE, sequence);
            if !last {
                part[TCP_FLAGS] &= !(TCP_FIN | TCP_PSH);
            }
            if index > 0 {
                part[TCP_FLAGS] &= !TCP_CWR;
            }
        }
        if !leave {
            partial::fill(part, self.transport.protocol, self.pseudo.number(length));
        }
    }
}
