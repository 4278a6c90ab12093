//! Datagrams with forged sources, from one thread, at a rate or as fast as the machine takes them.
//!
//! Owns the socket that they leave by, and the count of what left. Never: what is thrown, or what becomes of it.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

use crate::daemon::LIMIT;
use crate::run::Host;
use crate::wait::{let_pass, wait_for};

/// Port that everything comes from.
const FROM_PORT: u16 = 40_000;
/// Datagrams between two looks at the clock, where no rate is set.
const BURST: u64 = 64;

/// Who throws at whom.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Where it is thrown from; see [`Flood::ways`].
    pub from: Host,
    /// Addresses that it pretends to come from.
    pub sources: Sources,
    /// Whom it hits.
    pub to: SocketAddrV4,
    /// Datagrams a second; as many as it can without.
    pub rate: Option<u64>,
}

/// An address in each of so many neighbouring /24.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The prefix that they are in, as `ip route` writes it.
    pub within: &'static str,
    /// Network address of it.
    pub first: Ipv4Addr,
    /// How many.
    pub count: u32,
}

impl Sources {
    fn address(&self, n: u64) -> Ipv4Addr {
        let at = u32::try_from(n % u64::from(self.count)).expect("less than a number of 32 bits");
        Ipv4Addr::from(u32::from(self.first) + (at << 8) + 1)
    }
}

/// What was thrown.
#[derive(Clone, Copy, Debug)]
pub struct Thrown {
    /// Datagrams that left.
    pub datagrams: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
    /// How long it took.
    pub time: Duration,
}

impl Thrown {
    /// Datagrams a second.
    pub fn rate(&self) -> f64 {
        self.datagrams as f64 / self.time.as_secs_f64()
    }
}

impl Flood {
    /// Lets the thrower have every source, and `victim` send its answers there, by `gateway`.
    pub fn ways(&self, victim: &Host, gateway: &str) {
        self.from.sh(&format!("ip route add local {} dev lo", self.sources.within));
        victim.sh(&format!("ip route add {} via {gateway}", self.sources.within));
    }

    /// Throws these in turn while `deed` runs, which begins once it is under way.
    pub fn during(&self, datagrams: &[Vec<u8>], deed: impl FnOnce()) -> Thrown {
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.throw(datagrams, 0, &sent, |_| over.load(Ordering::Relaxed)));
            // Also when the deed fails: the scope waits for the flood.
            let end = Ends(&over);
            let under_way = self.rate.map_or(BURST, |rate| rate / 10);
            wait_for("the flood runs", LIMIT, || sent.load(Ordering::Relaxed) > under_way);
            deed();
            drop(end);
            thread.join().expect("the flood ends in good order")
        })
    }

    /// Throws `count` of these, in turn, the first from the source of number `first`.
    pub fn so_many(&self, datagrams: &[Vec<u8>], first: u64, count: u64) -> Thrown {
        self.throw(datagrams, first, &AtomicU64::new(0), |sent| sent >= count)
    }

    fn throw(
        &self,
        datagrams: &[Vec<u8>],
        first: u64,
        sent: &AtomicU64,
        is_over: impl Fn(u64) -> bool + Sync,
    ) -> Thrown {
        self.from.within(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FROM_PORT)).expect("the port is free");
            let (begun, mut count, mut bytes) = (Instant::now(), 0, 0);
            while !is_over(count) {
                let due = self.rate.map_or(count + BURST, |rate| due(begun.elapsed(), rate));
                for n in count..due {
                    let datagram = &datagrams[n as usize % datagrams.len()];
                    // What a full queue refuses is as lost as what the queue behind it refuses.
                    if self.send(&socket, datagram, first + n).is_ok() {
                        bytes += datagram.len() as u64;
                    }
                }
                count = count.max(due);
                sent.store(count, Ordering::Relaxed);
                if self.rate.is_some() {
                    let_pass("a burst's gap", Duration::from_millis(1));
                }
            }
            Thrown { datagrams: count, bytes, time: begun.elapsed() }
        })
    }

    fn send(&self, socket: &UdpSocket, datagram: &[u8], n: u64) -> nix::Result<usize> {
        let source = in_addr { s_addr: u32::from_ne_bytes(self.sources.address(n).octets()) };
        let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
        let forged = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrIn::from(self.to);
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(datagram)], &forged, MsgFlags::empty(), Some(&to))
    }
}

/// How many of a `rate` are due after so long.
fn due(elapsed: Duration, rate: u64) -> u64 {
    elapsed.as_micros() as u64 * rate / 1_000_000
}

/// Ends a flood.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
