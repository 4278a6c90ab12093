//! The source: numbered datagrams, at a rate or as fast as the kernel takes them.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};

use crate::{BATCH, NUMBER, SOCKET_BUFFER};

/// Below this many due datagrams the source sleeps a little, so that it does not burn the core it shares.
const FEW: u64 = 8;
/// How long it sleeps then.
const NAP: Duration = Duration::from_micros(50);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Where to.
    pub to: SocketAddr,
    /// UDP payload of each datagram in bytes, at least 8 and at most 1472.
    pub size: usize,
    /// Datagrams a second; `None` for as many as possible.
    pub rate: Option<u64>,
    /// How long.
    pub time: Duration,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// How long that lasted.
    pub time: Duration,
}

/// Sends, until the time is over.
///
/// # Errors
/// No socket, or the kernel refuses a datagram for another reason than a full queue.
pub fn send(flood: &Flood) -> io::Result<Sent> {
    // Naps of 50 µs; the default slack would double them.
    prctl::set_timerslack(1)?;
    let any = if flood.to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    // As root; else the system's limit holds.
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).ok();
    socket.connect(flood.to)?;
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut payloads = vec![[0_u8; 1472]; BATCH];
    let (began, mut sent) = (Instant::now(), 0);
    loop {
        let passed = began.elapsed();
        if passed >= flood.time {
            return Ok(Sent { datagrams: sent, time: passed });
        }
        let due = flood.rate.map_or(BATCH as u64, |rate| due(rate, passed).saturating_sub(sent));
        if due < FEW {
            std::thread::sleep(NAP);
            continue;
        }
        let batch = BATCH.min(usize::try_from(due).unwrap_or(BATCH));
        sent += send_batch(&socket, &mut headers, &mut payloads[..batch], flood.size, sent)?;
    }
}

/// How many datagrams should have left after that time.
fn due(rate: u64, passed: Duration) -> u64 {
    u64::try_from(u128::from(rate) * passed.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Numbers and sends those payloads; how many the kernel took.
fn send_batch(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    payloads: &mut [[u8; 1472]],
    size: usize,
    first: u64,
) -> io::Result<u64> {
    for (payload, number) in payloads.iter_mut().zip(first..) {
        payload[..NUMBER].copy_from_slice(&number.to_le_bytes());
    }
    let slices: Vec<_> = payloads.iter().map(|payload| [IoSlice::new(&payload[..size])]).collect();
    // Connected: no address, and none is encoded.
    let addresses = [None::<SockaddrStorage>; BATCH];
    match sendmmsg(socket.as_raw_fd(), headers, &slices, &addresses[..slices.len()], [], MsgFlags::empty()) {
        Ok(results) => Ok(results.count() as u64),
        // The far port may not be open yet, or a queue is full: not the source's affair.
        Err(nix::errno::Errno::ECONNREFUSED | nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_any_time() {
        assert_eq!(due(200_000, Duration::from_micros(50)), 10);
        assert_eq!(due(200_000, Duration::from_secs(3600)), 720_000_000);
        assert_eq!(due(u64::MAX, Duration::from_secs(3600)), u64::MAX);
    }
}
