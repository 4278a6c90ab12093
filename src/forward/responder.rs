//! Answers to STUN requests: which of them this node can afford.
//!
//! Owns: the budgets, shared by all receiving threads. What an answer says is [`frejus_overlay::stun`]'s. Never: a socket.

use std::net::{IpAddr, SocketAddr};

use frejus_overlay::stun::{self, Here, Port, Reaction};
use frejus_overlay::timing::Instant;
use frejus_overlay::verdict::Drop as Reason;

use crate::limiter::{Limiter, Rate};

/// Requests of one source prefix: a survey makes some twenty, and a household starts a dozen nodes at once.
const REQUESTS: Rate = Rate { per_second: 100, burst: 400 };
/// Of all sources together; 5,000 of 4 µs, most of it the kernel's, are 2 % of a core.
const ALL_REQUESTS: Rate = Rate { per_second: 5000, burst: 5000 };
/// Bytes by which answers to one source prefix are longer than its requests. The source may be forged: whoever wants more
/// pads its requests, as our own nodes do. A stock client's answer takes 36 to 48.
const EXCESS: Rate = Rate { per_second: 2000, burst: 8000 };
/// Of all sources together: a thousand stock clients a second, 0.4 Mb/s.
const ALL_EXCESS: Rate = Rate { per_second: 50_000, burst: 100_000 };

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send this from that port and that address of ours, to that port of whoever asked.
    Answer(Port, Option<IpAddr>, u16, Vec<u8>),
    /// For control: only another super peer could answer.
    Elsewhere,
    /// Dropped.
    Refused(Reason),
}

/// See the module.
pub(super) struct Responder {
    main: u16,
    alternate: Option<u16>,
    requests: Limiter,
    excess: Limiter,
}

impl Responder {
    /// For a node that listens on these ports.
    pub(super) fn new(main: u16, alternate: Option<u16>) -> Self {
        let (requests, excess) = (Limiter::new(REQUESTS, ALL_REQUESTS), Limiter::new(EXCESS, ALL_EXCESS));
        Self { main, alternate, requests, excess }
    }

    /// Judge a request from `from`, sent to our address `local` at the port `asked`; `None`: at a socket that is none of
    /// the two. `other` is another address with the same ports, and whether it is ours.
    pub(super) fn judge(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        (local, (other, is_ours)): (Option<IpAddr>, (Option<IpAddr>, bool)),
        asked: Option<Port>,
        now: Instant,
    ) -> Verdict {
        if !self.requests.admit(from.ip(), now) {
            return Verdict::Refused(Reason::RateLimited);
        }
        // The second port is of the first one's family only where the client is.
        let alternate = self.alternate.filter(|_| asked.is_some() && from.ip().to_canonical().is_ipv4());
        let asked = asked.unwrap_or(Port::Main);
        let here = Here { address: local, main: self.main, alternate, other, is_ours, asked };
        match stun::respond(datagram, from, &here) {
            None => Verdict::Refused(Reason::UnknownFrame),
            Some(Reaction::Elsewhere(_)) => Verdict::Elsewhere,
            Some(Reaction::Answer { from: port, by, to, bytes }) => {
                let excess = bytes.len().saturating_sub(datagram.len());
                let excess = u32::try_from(excess).unwrap_or(u32::MAX);
                if self.excess.admit_many(from.ip(), excess, now) {
                    Verdict::Answer(port, by, to, bytes)
                } else {
                    Verdict::Refused(Reason::RateLimited)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const BARE: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

    fn responder() -> Responder {
        Responder::new(51860, Some(51862))
    }

    /// The address that was asked, and another super peer's.
    fn here() -> (Option<IpAddr>, (Option<IpAddr>, bool)) {
        let [local, other] = [101, 102].map(|last| Some(Ipv4Addr::new(203, 0, 113, last).into()));
        (local, (other, false))
    }

    fn source(n: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + (n << 8)), 7))
    }

    /// Bytes out of `millis` milliseconds in which `datagram` comes ten times a millisecond, from another prefix each time.
    fn bytes_out(datagram: &[u8], millis: u64) -> (u64, u64) {
        let mut responder = responder();
        let (mut count, mut out) = (0, 0);
        for ms in 0..millis {
            for n in 0..10 {
                let now = Instant::from_start(Duration::from_millis(ms));
                let from = source((ms * 10 + n) as u32);
                let local = here();
                if let Verdict::Answer(_, _, _, bytes) =
                    responder.judge(datagram, from, local, Some(Port::Main), now)
                {
                    count += 1;
                    out += bytes.len() as u64;
                }
            }
        }
        (count, out)
    }

    #[test]
    fn a_flood_of_bare_requests_gets_no_more_than_it_sends_and_the_budget() {
        let (answers, out) = bytes_out(&BARE, 2000);
        let budget = u64::from(ALL_EXCESS.burst) + 2 * u64::from(ALL_EXCESS.per_second);
        assert!(out <= 20 * 20_000 + budget, "{out}");
        assert!(out <= 20 * answers + budget && answers > 4000, "{answers} answers, {out} bytes");
    }

    #[test]
    fn padded_requests_cost_no_budget() {
        let (answers, out) = bytes_out(&stun::request([7; 12]), 2000);
        assert!(answers >= 5000 + 2 * 4900, "{answers}: only their number is limited");
        assert!(out <= answers * stun::request([7; 12]).len() as u64);
    }

    #[test]
    fn a_million_bogus_requests_take_neither_memory_nor_bandwidth() {
        let mut responder = responder();
        let local = here();
        let (mut received, mut out) = (0, 0);
        for n in 0..1_000_000_u32 {
            // A tenth is well formed; the rest lies about its length, its attributes, or its cookie.
            let mut datagram = vec![0; 20 + (n % 7) as usize * 4];
            datagram[..20].copy_from_slice(&BARE);
            if n % 10 > 0 {
                datagram[(n % 19) as usize] ^= n as u8;
            }
            let now = Instant::from_start(Duration::from_micros(u64::from(n) * 20));
            // Sixteen million prefixes, in an order that repeats none soon.
            let from = SocketAddr::from((Ipv4Addr::from(n.wrapping_mul(2_654_435_761)), 7));
            received += datagram.len();
            if let Verdict::Answer(_, _, _, bytes) =
                responder.judge(&datagram, from, local, Some(Port::Main), now)
            {
                out += bytes.len();
            }
        }
        assert!(responder.requests.len() <= 4096 && responder.excess.len() <= 4096);
        assert!(out > 0 && out * 10 < received, "{out} bytes for {received}");
    }

    #[test]
    fn one_prefix_soon_has_had_its_share() {
        let mut responder = responder();
        let now = Instant::from_start(Duration::from_secs(1));
        let local = here();
        let mut answers = 0;
        for _ in 0..1000 {
            let verdict = responder.judge(&BARE, source(1), local, Some(Port::Main), now);
            answers += u32::from(matches!(verdict, Verdict::Answer(..)));
        }
        assert!((EXCESS.burst / 48..=EXCESS.burst / 36).contains(&answers), "{answers}");
        let other = responder.judge(&BARE, source(2), local, Some(Port::Main), now);
        assert!(matches!(other, Verdict::Answer(..)));
    }

    #[test]
    fn a_socket_that_is_neither_port_answers_for_itself() {
        let mut responder = responder();
        let now = Instant::from_start(Duration::from_secs(1));
        let Verdict::Answer(_, _, _, bytes) =
            responder.judge(&BARE, source(1), (None, (None, false)), None, now)
        else {
            panic!()
        };
        assert_eq!(stun::Answer::read(&bytes).unwrap().alternate, None);
    }
}
