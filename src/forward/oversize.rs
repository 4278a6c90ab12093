//! The word to our own host about packets that are longer than their path takes.
//!
//! Owns: [`Teller`], which writes Packet Too Big to the device, at a bounded rate (RFC 1812, section 4.3.2.8; RFC 4443,
//! section 2.4). Never: the choice between that and fragments.

use std::sync::Arc;

use frejus_overlay::packet::{IpPacket, icmp};
use frejus_overlay::timing::Instant;

use crate::limiter::{Bucket, Rate};
use crate::tun::Tun;

/// A sender needs to hear it once, and every flow may have its own.
const RATE: Rate = Rate { per_second: 100, burst: 50 };

pub(super) struct Teller {
    tun: Arc<Tun>,
    bucket: Bucket,
    /// When the batch was read.
    pub(super) now: Instant,
}

impl Teller {
    pub(super) fn new(tun: Arc<Tun>) -> Self {
        Self { tun, bucket: Bucket::default(), now: Instant::ZERO }
    }

    /// `packet` is dropped: its path takes `mtu` bytes. The word comes as from its destination, since our host would not
    /// believe its own address.
    pub(super) fn tell(&mut self, packet: &IpPacket<'_>, mtu: u16) {
        let mut out = [0; icmp::LONGEST];
        if self.bucket.take(RATE, self.now)
            && let Some(length) = icmp::too_big(packet.bytes(), packet.destination(), mtu, &mut out)
        {
            // A device that takes nothing has its error from those who write more to it.
            self.tun.write_packet(&out[..length]).ok();
        }
    }
}
