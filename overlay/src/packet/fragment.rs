//! Packets that are longer than their path takes: told to their sender, or fragmented.
//!
//! Owns: [`oversize`], the choice, and [`Fragments`], written straight into the caller's buffer. Fragments are plain IP ones
//! (RFC 791, section 3.2; RFC 8200, section 4.5), put together by the peer's kernel. For IPv6 only the source may fragment:
//! whatever comes from our device, our own host is the source. Never: reassembly, or a packet that says "don't fragment".

use super::{
    IPV4_HEADER, IPV6_HEADER, IpPacket, Malformed, length_field, long, protocol, put_long, put_word,
    seal_v4_header, word,
};

/// Length of the IPv6 Fragment header (RFC 8200, section 4.5).
const FRAGMENT_HEADER: usize = 8;
/// What an IPv6 sender may be told at the least (RFC 8200, section 5).
const LEAST_V6: u16 = 1280;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_V4: u16 = 0x2000;
const OFFSET_V4: u16 = 0x1fff;

/// What becomes of a packet that is too long.
#[derive(Clone, Copy, Debug)]
pub enum Oversize<'a> {
    /// It goes in these.
    Fragments(Fragments<'a>),
    /// It is dropped, and its sender should keep to so many bytes: [`super::icmp::too_big`].
    Tell(u16),
}

/// Decides on a packet that is longer than `mtu`, what its path takes, in bytes. `number` is the identification of its
/// fragments if it has none; it should be another for every packet.
#[must_use]
pub fn oversize<'a>(packet: &IpPacket<'a>, mtu: u16, number: u32) -> Oversize<'a> {
    let told = if packet.is_v6() { mtu.max(LEAST_V6) } else { mtu };
    let fits = packet.is_v6() && packet.bytes().len() <= usize::from(told)
        || !packet.is_v6() && may_fragment(packet);
    let fragments = fits.then(|| Fragments::new(packet, mtu, number)).flatten();
    fragments.map_or(Oversize::Tell(told), Oversize::Fragments)
}

fn may_fragment(packet: &IpPacket<'_>) -> bool {
    word(packet.bytes(), 6) & DONT_FRAGMENT == 0
}

/// A packet in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    is_v6: bool,
    /// Where the payload begins that is cut.
    payload: usize,
    /// Headers in front of each piece, in bytes.
    headers: usize,
    /// Payload of every piece but the last, a multiple of eight.
    step: usize,
    /// The packet's own place if it is a fragment itself, in units of eight bytes; whether more follow it.
    offset: u16,
    more: bool,
    number: u32,
    /// IPv6: what stands behind the headers.
    next_header: u8,
    done: usize,
}

impl<'a> Fragments<'a> {
    /// `None` if there are headers or options that not every piece may carry, or if `mtu` leaves no room.
    fn new(packet: &IpPacket<'a>, mtu: u16, number: u32) -> Option<Self> {
        let (bytes, is_v6) = (packet.bytes(), packet.is_v6());
        let mut fragments = Self {
            packet: bytes,
            is_v6,
            payload: IPV4_HEADER,
            headers: IPV4_HEADER,
            step: 0,
            offset: 0,
            more: false,
            number,
            next_header: 0,
            done: 0,
        };
        if is_v6 {
            fragments.plan_v6()?;
        } else {
            fragments.plan_v4(packet.header_len())?;
        }
        fragments.step = usize::from(mtu).checked_sub(fragments.headers)? / 8 * 8;
        (fragments.step > 0).then_some(fragments)
    }

    fn plan_v4(&mut self, header: usize) -> Option<()> {
        if header != IPV4_HEADER {
            return None;
        }
        let field = word(self.packet, 6);
        (self.offset, self.more) = (field & OFFSET_V4, field & MORE_V4 != 0);
        let own = u32::from(word(self.packet, 4));
        if own != 0 || self.offset != 0 || self.more {
            self.number = own;
        }
        Some(())
    }

    fn plan_v6(&mut self) -> Option<()> {
        self.headers = IPV6_HEADER + FRAGMENT_HEADER;
        self.payload = IPV6_HEADER;
        self.next_header = self.packet[6];
        match self.next_header {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => None,
            protocol::FRAGMENT => {
                let header = self.packet.get(IPV6_HEADER..IPV6_HEADER + FRAGMENT_HEADER)?;
                let field = word(header, 2);
                (self.offset, self.more) = (field >> 3, field & 1 != 0);
                self.number = long(header, 4);
                self.next_header = header[0];
                self.payload = self.headers;
                Some(())
            }
            _ => Some(()),
        }
    }

    /// Length of the piece that [`Self::write_next`] writes next, in bytes; `None` after the last.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let left = self.packet.len() - self.payload - self.done;
        (left > 0).then(|| self.headers + left.min(self.step))
    }

    /// Writes the next piece to the front of `out` and returns its length in bytes; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed::NoRoom`] if `out` is shorter than the piece.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<Result<usize, Malformed>> {
        let total = self.next_len()?;
        let Some(piece) = out.get_mut(..total) else { return Some(Err(Malformed::NoRoom)) };
        let from = self.payload + self.done;
        let share = total - self.headers;
        piece[self.headers..].copy_from_slice(&self.packet[from..from + share]);
        let place = self.offset + length_field(self.done / 8);
        let more = self.more || from + share < self.packet.len();
        if self.is_v6 {
            self.write_v6(piece, place, more);
        } else {
            self.write_v4(piece, place, more);
        }
        self.done += share;
        Some(Ok(total))
    }

    fn write_v4(&self, piece: &mut [u8], place: u16, more: bool) {
        let total = length_field(piece.len());
        piece[..IPV4_HEADER].copy_from_slice(&self.packet[..IPV4_HEADER]);
        put_word(piece, 2, total);
        put_word(piece, 4, self.number as u16);
        put_word(piece, 6, place & OFFSET_V4 | if more { MORE_V4 } else { 0 });
        seal_v4_header(piece, IPV4_HEADER);
    }

    fn write_v6(&self, piece: &mut [u8], place: u16, more: bool) {
        let length = length_field(piece.len() - IPV6_HEADER);
        piece[..IPV6_HEADER].copy_from_slice(&self.packet[..IPV6_HEADER]);
        put_word(piece, 4, length);
        piece[6] = protocol::FRAGMENT;
        piece[IPV6_HEADER] = self.next_header;
        piece[IPV6_HEADER + 1] = 0;
        put_word(piece, IPV6_HEADER + 2, place << 3 | u16::from(more));
        put_long(piece, IPV6_HEADER + 4, self.number);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::defrag::IpDefragPool;
    use etherparse::{LaxSlicedPacket, PacketBuilder, SlicedPacket};
    use proptest::prelude::*;

    use super::*;

    const A6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const B6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    fn udp(v6: bool, length: usize) -> Vec<u8> {
        let builder = if v6 {
            PacketBuilder::ipv6(A6, B6, 9)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
        };
        let mut packet = Vec::new();
        let payload: Vec<u8> = (0..length).map(|at| (at / 3) as u8).collect();
        builder.udp(5, 6).write(&mut packet, &payload).unwrap();
        if !v6 {
            packet[6] = 0;
            seal_v4_header(&mut packet, IPV4_HEADER);
        }
        packet
    }

    fn pieces(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let Oversize::Fragments(mut fragments) = oversize(&IpPacket::parse(packet).unwrap(), mtu, 77) else {
            return Vec::new();
        };
        let mut out = vec![0; usize::from(mtu)];
        let mut pieces = Vec::new();
        while let Some(length) = fragments.next_len() {
            assert_eq!(fragments.write_next(&mut out), Some(Ok(length)));
            pieces.push(out[..length].to_vec());
        }
        pieces
    }

    /// What a receiver makes of the pieces: the payload of the IP packet.
    fn together(pieces: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut pool = IpDefragPool::<(), ()>::new();
        pieces.iter().find_map(|piece| {
            let sliced = SlicedPacket::from_ip(piece)
                .unwrap_or_else(|_| panic!("{:?}", LaxSlicedPacket::from_ip(piece)));
            pool.process_sliced_packet(&sliced, (), ()).unwrap().map(|whole| whole.payload)
        })
    }

    proptest! {
        #[test]
        fn the_peers_kernel_gets_what_was_sent(length in 600_usize..1230, mtu in 256_u16..620, v6: bool, turned: bool) {
            let packet = udp(v6, length);
            let mut pieces = pieces(&packet, mtu);
            prop_assert!(pieces.len() >= 2 && pieces.iter().all(|piece| piece.len() <= usize::from(mtu)));
            if turned {
                pieces.reverse();
            }
            let headers = if v6 { IPV6_HEADER } else { IPV4_HEADER };
            prop_assert_eq!(together(&pieces), Some(packet[headers..].to_vec()));
        }

        #[test]
        fn a_fragment_is_fragmented_again(length in 900_usize..1230, mtu in 500_u16..800, smaller in 128_u16..400, v6: bool) {
            let packet = udp(v6, length);
            let smaller = smaller.max(64);
            let again: Vec<_> = pieces(&packet, mtu)
                .into_iter()
                .flat_map(|piece| if piece.len() > usize::from(smaller) { pieces(&piece, smaller) } else { vec![piece] })
                .collect();
            let headers = if v6 { IPV6_HEADER } else { IPV4_HEADER };
            prop_assert!(again.iter().all(|piece| piece.len() <= usize::from(smaller)));
            prop_assert_eq!(together(&again), Some(packet[headers..].to_vec()));
        }

        #[test]
        fn no_packet_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), v6: bool, mtu in 0_u16..120) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let Ok(packet) = IpPacket::parse(&bytes) else { return Ok(()) };
            if let Oversize::Fragments(mut fragments) = oversize(&packet, mtu, 1) {
                let mut out = [0; 200];
                while let Some(written) = fragments.write_next(&mut out) {
                    prop_assert!(IpPacket::parse(&out[..written.unwrap()]).is_ok());
                }
            }
        }
    }

    #[test]
    fn who_may_not_fragment_is_told() {
        let told = |packet: &[u8], mtu| match oversize(&IpPacket::parse(packet).unwrap(), mtu, 1) {
            Oversize::Tell(mtu) => Some(mtu),
            Oversize::Fragments(_) => None,
        };
        let mut v4 = udp(false, 1300);
        assert_eq!(told(&v4, 1220), None);
        v4[6] = 0x40;
        assert_eq!(told(&v4, 1220), Some(1220));
        assert_eq!(told(&udp(true, 1300), 1300), Some(1300), "IPv6 learns the path's size");
        assert_eq!(told(&udp(true, 1300), 1220), Some(1280), "but never less than this");
        assert_eq!(told(&udp(true, 1200), 1220), None, "and what that allows arrives");
        let mut optional = udp(true, 1200);
        optional[6] = protocol::HOP_BY_HOP;
        assert_eq!(told(&optional, 1220), Some(1280), "options for every hop are not repeated");
    }
}
