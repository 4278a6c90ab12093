//! Streams whose other end has proved nothing yet.
//!
//! Owns: how many there may be, in all and of one source, and which gives way to a newcomer: an honest one is through its
//! handshakes in a few round trips, so the oldest is the one that dawdles. Never: a socket.

use std::collections::VecDeque;
use std::net::IpAddr;

use frejus_overlay::locator::StreamId;

use crate::limiter::Prefix;

/// In all: some 40 KiB each while TLS shakes hands, 5 MiB together. With handshakes of 300 ms somebody must make 400
/// connections a second, from a dozen prefixes, to keep honest ones out.
const MOST: usize = 128;
/// Of one IPv4 /24 or IPv6 /48: an office behind one address whose machines all start at once has to try twice.
const OF_ONE: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Strangers(VecDeque<(StreamId, Prefix)>);

impl Strangers {
    /// One more; who has to go for it.
    pub(super) fn admit(&mut self, id: StreamId, from: IpAddr) -> Option<StreamId> {
        let prefix = Prefix::of(from);
        let alike = self.0.iter().filter(|(_, other)| *other == prefix).count();
        let oldest = if alike >= OF_ONE {
            self.0.iter().position(|(_, other)| *other == prefix)
        } else {
            (self.0.len() >= MOST).then_some(0)
        };
        let gone = oldest.and_then(|at| self.0.remove(at)).map(|(id, _)| id);
        self.0.push_back((id, prefix));
        gone
    }

    /// It is one of us, or gone.
    pub(super) fn remove(&mut self, id: StreamId) {
        self.0.retain(|(other, _)| *other != id);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([192, n, 2, 1])
    }

    #[test]
    fn the_oldest_of_the_same_source_gives_way() {
        let mut strangers = Strangers::default();
        assert_eq!(strangers.admit(StreamId(0), source(9)), None);
        for n in 1..=OF_ONE as u32 {
            assert_eq!(strangers.admit(StreamId(n), source(1)), None);
        }
        assert_eq!(strangers.admit(StreamId(100), source(1)), Some(StreamId(1)));
        strangers.remove(StreamId(2));
        assert_eq!(strangers.admit(StreamId(101), source(1)), None, "there is room again");
    }

    #[test]
    fn a_crowd_never_keeps_a_newcomer_out() {
        let mut strangers = Strangers::default();
        for n in 0..10_000_u32 {
            let gone = strangers.admit(StreamId(n), source((n % 200) as u8));
            assert_eq!(gone.is_some(), n >= MOST as u32, "{n}");
            assert!(strangers.len() <= MOST);
        }
    }
}
