//! Inward: packets of one flow that follow each other are joined, so that the kernel takes them in one write.
//!
//! Owns: [`Coalescer`]. Joins only what Linux's own receive offload would (same header but for length, sequence and
//! last flags; equal sizes but the last; checksum right, or left to us), so that cutting the result gives the packets
//! back. Payload is never copied: a result is a header and slices of the caller's arena, made for `writev`.
//! Never: changes the order of packets within a flow, drops a packet, or holds one back beyond the batch.

use std::ops::Range;

use super::checksum::Sum;
use super::partial::{self, Checksum};
use super::segment::{
    TCP_CHECKSUM, TCP_CWR, TCP_FIN, TCP_FLAGS, TCP_PSH, TCP_SEQUENCE, UDP_CHECKSUM, UDP_LENGTH,
};
use super::vnet::{self, Gso, VnetHeader};
use super::{
    IPV4_HEADER, IpPacket, MAX_PACKET, Malformed, Transport, length_field, long, protocol, put_word,
    seal_v4_header, word,
};

/// Flows that may grow at the same time; a ninth closes the one that has been open longest.
const OPEN_FLOWS: usize = 8;
/// Segments in one super-packet, the kernel's own limit for UDP.
pub const MAX_SEGMENTS: usize = 64;
/// The device's header, the longest IPv4 header and the longest TCP header: 10 + 60 + 60.
const LONGEST_HEADER: usize = vnet::LENGTH + 60 + 60;

const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const TCP_URG: u8 = 0x20;

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none; it goes nowhere.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The batch is full: write it out, clear, push again.
    #[error("batch full")]
    Full,
}

/// Groups the packets of one batch; made once a thread, used again for each batch.
#[derive(Debug)]
pub struct Coalescer {
    udp: bool,
    capacity: usize,
    pieces: Vec<Piece>,
    groups: Vec<Group>,
    /// The longest open first.
    open: [Option<Open>; OPEN_FLOWS],
}

/// One packet in the arena, linked to the next of its group.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    length: usize,
    checksum: Checksum,
    next: Option<u32>,
}

/// What will be one write.
#[derive(Clone, Copy, Debug)]
struct Group {
    first: u32,
    last: u32,
    count: usize,
    /// Length of the joined packet so far, headers once.
    total: usize,
    /// Of the first packet; all are laid out alike.
    layout: Layout,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    gso: Gso,
    /// TCP or UDP, or zero where the kernel has nothing to do.
    protocol: u8,
    start: usize,
    payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    addresses: [u8; 32],
    v6: bool,
    protocol: u8,
    ports: u32,
}

/// A group that may still grow.
#[derive(Clone, Copy, Debug)]
struct Open {
    key: Key,
    group: usize,
    /// Payload of each segment so far.
    size: usize,
    sequence: u32,
    id: u16,
}

/// A packet that could be joined with its neighbours.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    ip: IpPacket<'a>,
    transport: Transport,
    /// Payload, in bytes; not zero.
    size: usize,
    sequence: u32,
    id: u16,
    flags: u8,
}

impl Coalescer {
    /// For batches of at most `capacity` packets. `udp` joins UDP too: vxlan and geneve can't bear that.
    #[must_use]
    pub fn new(capacity: usize, udp: bool) -> Self {
        let capacity = capacity.min(u32::MAX as usize);
        let (pieces, groups) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        Self { udp, capacity, pieces, groups, open: [None; OPEN_FLOWS] }
    }

    /// Takes the packet at `range` of `arena`, in the order in which packets are to arrive. Bytes behind the
    /// packet's own length are ignored. All pushes of a batch and [`Self::outputs`] get the same arena.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for what is no IP packet, [`Refused::Full`] after `capacity` packets.
    pub fn push(&mut self, arena: &[u8], range: Range<usize>) -> Result<(), Refused> {
        self.push_as(Checksum::Complete, arena, range)
    }

    /// [`Self::push`] for packets whose checksum may be [`Checksum::Partial`]: the kernel is told to fill it in.
    ///
    /// # Errors
    /// As [`Self::push`], and [`Malformed::Checksum`] for what [`partial::complete`] refuses.
    pub fn push_as(&mut self, checksum: Checksum, arena: &[u8], range: Range<usize>) -> Result<(), Refused> {
        if self.pieces.len() == self.capacity {
            return Err(Refused::Full);
        }
        let start = range.start;
        let ip = IpPacket::parse(arena.get(range).ok_or(Malformed::Truncated)?)?;
        let transport = ip.transport();
        if checksum == Checksum::Partial && transport.is_none() {
            return Err(Malformed::Checksum.into());
        }
        let piece = Piece { start, length: ip.bytes().len(), checksum, next: None };
        let Some(candidate) = transport.and_then(|transport| self.candidate(ip, transport, checksum)) else {
            self.close_flow(&ip, transport);
            let transport = transport.unwrap_or(Transport { protocol: 0, start: 0, payload: 0 });
            self.begin(piece, Layout::new(Gso::None, &transport));
            return Ok(());
        };
        let key = Key::new(&ip, candidate.ports());
        if let Some(slot) = self.slot_of(&key) {
            if self.try_append(slot, arena, piece, &candidate) {
                return Ok(());
            }
            self.close(slot);
        }
        let group = self.begin(piece, candidate.layout());
        if !candidate.ends_group() {
            self.open_flow(Open {
                key,
                group,
                size: candidate.size,
                sequence: candidate.next_sequence(),
                id: candidate.id.wrapping_add(1),
            });
        }
        Ok(())
    }

    /// What to write, in an order that keeps each flow's own. `arena` is the one that the packets were pushed from.
    pub fn outputs<'a>(&'a self, arena: &'a [u8]) -> impl ExactSizeIterator<Item = Output<'a>> + 'a {
        self.groups.iter().map(move |group| Output::new(arena, &self.pieces, group))
    }

    /// Forgets the batch; the storage stays.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.groups.clear();
        self.open = [None; OPEN_FLOWS];
    }

    /// Whether there is room for no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pieces.len() == self.capacity
    }

    /// Whether nothing was pushed since the last [`Self::clear`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn candidate<'a>(
        &self,
        ip: IpPacket<'a>,
        transport: Transport,
        checksum: Checksum,
    ) -> Option<Candidate<'a>> {
        if transport.protocol == protocol::UDP && !self.udp {
            return None;
        }
        Candidate::new(ip, transport, checksum)
    }

    fn begin(&mut self, piece: Piece, layout: Layout) -> usize {
        let first = self.add_piece(piece);
        self.groups.push(Group { first, last: first, count: 1, total: piece.length, layout });
        self.groups.len() - 1
    }

    fn add_piece(&mut self, piece: Piece) -> u32 {
        let index = u32::try_from(self.pieces.len()).expect("the capacity fits 32 bits");
        self.pieces.push(piece);
        index
    }

    /// Puts the packet at the end of an open group, if the kernel would; closes the group if it was the last.
    fn try_append(&mut self, slot: usize, arena: &[u8], piece: Piece, candidate: &Candidate<'_>) -> bool {
        let Some(open) = self.open[slot] else { return false };
        let group = self.groups[open.group];
        let head = self.pieces[group.first as usize];
        let Some(head) = arena.get(head.start..head.start + head.length) else { return false };
        if !candidate.follows(&open)
            || !candidate.resembles(head, &group.layout)
            || group.total + candidate.size > MAX_PACKET
        {
            return false;
        }
        let index = self.add_piece(piece);
        self.pieces[group.last as usize].next = Some(index);
        let (count, total) = (group.count + 1, group.total + candidate.size);
        self.groups[open.group] = Group { last: index, count, total, ..group };
        if candidate.ends_group() || candidate.size < open.size || count == MAX_SEGMENTS {
            self.close(slot);
        } else {
            let (sequence, id) = (candidate.next_sequence(), candidate.id.wrapping_add(1));
            self.open[slot] = Some(Open { sequence, id, ..open });
        }
        true
    }

    fn slot_of(&self, key: &Key) -> Option<usize> {
        self.open.iter().position(|open| open.as_ref().is_some_and(|open| open.key == *key))
    }

    fn open_flow(&mut self, open: Open) {
        if self.open[OPEN_FLOWS - 1].is_some() {
            self.close(0);
        }
        if let Some(free) = self.open.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(open);
        }
    }

    /// Later slots move up, so that the first stays the longest open.
    fn close(&mut self, slot: usize) {
        self.open[slot..].rotate_left(1);
        self.open[OPEN_FLOWS - 1] = None;
    }

    /// Nothing of this packet's flow may be appended to a group that began before it. A packet without ports may
    /// belong to any flow between its addresses.
    fn close_flow(&mut self, ip: &IpPacket<'_>, transport: Option<Transport>) {
        let ports = transport.map(|transport| long(ip.bytes(), transport.start));
        let key = Key::new(ip, ports.unwrap_or(0));
        let same = |open: &Open| match ports {
            Some(_) => open.key == key,
            None => open.key.v6 == key.v6 && open.key.addresses == key.addresses,
        };
        while let Some(slot) = self.open.iter().position(|open| open.as_ref().is_some_and(same)) {
            self.close(slot);
        }
    }
}

impl Layout {
    const fn new(gso: Gso, transport: &Transport) -> Self {
        Self { gso, protocol: transport.protocol, start: transport.start, payload: transport.payload }
    }
}

impl Key {
    fn new(ip: &IpPacket<'_>, ports: u32) -> Self {
        let mut addresses = [0; 32];
        let from = ip.addresses();
        addresses[..from.len()].copy_from_slice(from);
        Self { addresses, v6: ip.is_v6(), protocol: ip.protocol(), ports }
    }
}

impl<'a> Candidate<'a> {
    /// `None` for what always goes alone. The checksums are looked at last, being the only cost that grows with
    /// the packet.
    fn new(ip: IpPacket<'a>, transport: Transport, checksum: Checksum) -> Option<Self> {
        let bytes = ip.bytes();
        let complete = checksum == Checksum::Complete;
        let part = &bytes[transport.start..];
        let size = bytes.len() - transport.payload;
        let (sequence, flags) = if transport.protocol == protocol::TCP {
            let flags = part[TCP_FLAGS];
            if flags & (TCP_SYN | TCP_RST | TCP_URG | TCP_ACK) != TCP_ACK {
                return None;
            }
            (long(part, TCP_SEQUENCE), flags)
        } else {
            // The kernel joins no UDP without a checksum.
            let summed = !complete || word(part, UDP_CHECKSUM) != 0;
            if usize::from(word(part, UDP_LENGTH)) != part.len() || !summed {
                return None;
            }
            (0, 0)
        };
        let header_intact = ip.is_v6()
            || ip.header_len() == IPV4_HEADER && Sum::default().words(&bytes[..IPV4_HEADER]).is_intact();
        let intact = || !complete || partial::pseudo(&ip, &transport).bytes(part).is_intact();
        if size == 0 || !header_intact || !intact() {
            return None;
        }
        let id = if ip.is_v6() { 0 } else { word(bytes, 4) };
        Some(Self { ip, transport, size, sequence, id, flags })
    }

    fn ports(&self) -> u32 {
        long(self.ip.bytes(), self.transport.start)
    }

    fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(length_field(self.size)))
    }

    fn layout(&self) -> Layout {
        let gso = match (self.transport.protocol, self.ip.is_v6()) {
            (protocol::TCP, false) => Gso::TcpV4,
            (protocol::TCP, true) => Gso::TcpV6,
            _ => Gso::UdpL4,
        };
        Layout::new(gso, &self.transport)
    }

    /// Whether nothing may be joined behind it.
    fn ends_group(&self) -> bool {
        self.flags & (TCP_PSH | TCP_FIN) != 0
    }

    /// Whether it is the next of its flow. The identification of IPv4 counts only where the packet may be
    /// fragmented (RFC 6864, section 4.1).
    fn follows(&self, open: &Open) -> bool {
        let dont_fragment = self.ip.is_v6() || self.ip.bytes()[6] & 0x40 != 0;
        let in_sequence = self.transport.protocol == protocol::UDP || self.sequence == open.sequence;
        in_sequence
            && self.size <= open.size
            && (dont_fragment || self.id == open.id)
            && self.flags & TCP_CWR == 0
    }

    /// Whether its headers differ from those of the group's first packet only where segments of one super-packet
    /// do.
    fn resembles(&self, head: &[u8], layout: &Layout) -> bool {
        let (mine, Transport { start, payload, .. }) = (self.ip.bytes(), self.transport);
        if start != layout.start || payload != layout.payload || head.len() < payload {
            return false;
        }
        // Not compared: lengths, identification, checksums; addresses and ports, since the key holds them.
        let same_ip = if self.ip.is_v6() {
            mine[..4] == head[..4] && mine[6..8] == head[6..8]
        } else {
            mine[..2] == head[..2] && mine[6..10] == head[6..10]
        };
        same_ip
            && (self.transport.protocol == protocol::UDP
                || same_tcp(&mine[start..payload], &head[start..payload]))
    }
}

/// Acknowledgement, header length, flags, window, urgent pointer (idle as it is) and options; CWR may stand on the
/// first, FIN and PSH on the last.
fn same_tcp(mine: &[u8], head: &[u8]) -> bool {
    mine[8..TCP_FLAGS] == head[8..TCP_FLAGS]
        && (mine[TCP_FLAGS] ^ head[TCP_FLAGS]) & !(TCP_CWR | TCP_FIN | TCP_PSH) == 0
        && mine[TCP_FLAGS + 1..TCP_CHECKSUM] == head[TCP_FLAGS + 1..TCP_CHECKSUM]
        && mine[TCP_CHECKSUM + 2..] == head[TCP_CHECKSUM + 2..]
}

/// One write to the device: [`Self::header`], then all of [`Self::slices`].
#[derive(Clone, Debug)]
pub struct Output<'a> {
    arena: &'a [u8],
    pieces: &'a [Piece],
    first: u32,
    count: usize,
    layout: Layout,
    /// What of each packet is not payload of the joined one.
    skip: usize,
    header: [u8; LONGEST_HEADER],
    header_len: usize,
}

impl<'a> Output<'a> {
    fn new(arena: &'a [u8], pieces: &'a [Piece], group: &Group) -> Self {
        let (first, count, mut layout) = (group.first, group.count, group.layout);
        if count == 1 {
            layout.gso = Gso::None;
        }
        let header = [0; LONGEST_HEADER];
        let mut output =
            Self { arena, pieces, first, count, layout, skip: 0, header, header_len: vnet::LENGTH };
        if count > 1 {
            output.join_headers(group);
        } else if pieces[first as usize].checksum == Checksum::Partial {
            output.leave_checksum();
        }
        output
    }

    /// The device's header, and behind it the headers of the packet; the device's alone for a single packet that is
    /// complete.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }

    /// What kind of packets were joined; none if it is one packet.
    #[must_use]
    pub fn gso(&self) -> Gso {
        self.layout.gso
    }

    /// What follows the header, at most [`MAX_SEGMENTS`] slices of the arena.
    pub fn slices(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let skip = self.skip;
        self.packets().map(move |packet| packet.get(skip..).unwrap_or_default())
    }

    /// The packets that were joined, each by itself, if the kernel refuses them joined.
    pub fn singles(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (arena, pieces, layout) = (self.arena, self.pieces, self.layout);
        self.indices().map(move |index| {
            let total = pieces[index as usize].length;
            Self::new(arena, pieces, &Group { first: index, last: index, count: 1, total, layout })
        })
    }

    /// The packets that were joined, each whole, as they came.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (arena, pieces) = (self.arena, self.pieces);
        self.indices()
            .map(move |index| &pieces[index as usize])
            .map(move |piece| arena.get(piece.start..piece.start + piece.length).unwrap_or_default())
    }

    /// Where the packets stand among the pieces.
    fn indices(&self) -> impl Iterator<Item = u32> + use<'a> {
        let pieces = self.pieces;
        std::iter::successors(Some(self.first), move |last| pieces[*last as usize].next).take(self.count)
    }

    /// How many packets were joined; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Copies the headers of `packet`, if there are as many bytes.
    fn copy_headers(&mut self, packet: &[u8]) -> Option<&mut [u8]> {
        let Layout { payload, .. } = self.layout;
        let from = packet.get(..payload)?;
        self.skip = payload;
        self.header_len = vnet::LENGTH + payload;
        let to = self.header.get_mut(vnet::LENGTH..vnet::LENGTH + payload)?;
        to.copy_from_slice(from);
        Some(to)
    }

    fn join_headers(&mut self, group: &Group) {
        let Layout { gso, protocol, start, payload } = group.layout;
        let size = self.pieces[group.first as usize].length - payload;
        let mut packets = self.packets();
        let (Some(head), Some(last)) = (packets.next(), packets.last()) else { return };
        let Some(joined) = self.copy_headers(head) else { return };

        let length = group.total - start;
        if gso == Gso::UdpL4 {
            put_word(joined, start + UDP_LENGTH, length_field(length));
        } else {
            joined[start + TCP_FLAGS] |= last.get(start + TCP_FLAGS).unwrap_or(&0) & (TCP_FIN | TCP_PSH);
        }
        if joined[0] >> 4 == 6 {
            put_word(joined, 4, length_field(length));
        } else {
            put_word(joined, 2, length_field(group.total));
            seal_v4_header(joined, start);
        }
        let ecn = protocol == protocol::TCP && joined[start + TCP_FLAGS] & TCP_CWR != 0;
        self.ask_for_checksum(
            length,
            VnetHeader { gso, ecn, gso_size: length_field(size), ..Default::default() },
        );
    }

    /// A single packet of which the kernel is to fill in the checksum.
    fn leave_checksum(&mut self) {
        let packet = self.packets().next().unwrap_or_default();
        let length = packet.len().saturating_sub(self.layout.start);
        if self.copy_headers(packet).is_some() {
            self.ask_for_checksum(length, VnetHeader::default());
        }
    }

    /// Puts the sum of the pseudo header where the kernel begins with it, and completes `vnet`; `length` is that of the
    /// transport header and its payload.
    fn ask_for_checksum(&mut self, length: usize, vnet: VnetHeader) {
        let Layout { protocol, start, payload, .. } = self.layout;
        let (device, joined) = self.header.split_at_mut(vnet::LENGTH);
        let addresses = if joined[0] >> 4 == 6 { 8..40 } else { 12..20 };
        let offset = partial::offset(protocol);
        let sum = Sum::pseudo(&joined[addresses], protocol, length).folded();
        put_word(joined, start + offset, sum);
        let vnet = VnetHeader {
            needs_csum: true,
            hdr_len: length_field(payload),
            csum_start: length_field(start),
            csum_offset: length_field(offset),
            ..vnet
        };
        device.copy_from_slice(&vnet.encode());
    }
}

/// The device's header in front of a single packet that is complete.
pub const SINGLE: [u8; vnet::LENGTH] = [0; vnet::LENGTH];
