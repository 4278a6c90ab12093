//! The counter: what of the numbered datagrams arrives, and in which order.

use std::io::{self, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};

use crate::{BATCH, NUMBER, SOCKET_BUFFER};

/// What arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Datagrams.
    pub datagrams: u64,
    /// Those with a lower number than one before them.
    pub reordered: u64,
    /// From the first to the last.
    pub time: Duration,
}

/// Counts on `socket` from the first datagram until none has come for `quiet`; waits at most `patience` for the first.
///
/// # Errors
/// The socket gives none.
pub fn count(socket: &UdpSocket, patience: Duration, quiet: Duration) -> io::Result<Counted> {
    // As root; else the system's limit holds.
    setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).ok();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut rooms = vec![[0_u8; 1500]; BATCH];
    let mut lengths = [0; BATCH];
    let (mut counted, mut next) = (Counted::default(), 0);
    let (mut first, mut last) = (None, Instant::now());
    socket.set_read_timeout(Some(patience))?;
    loop {
        let came = receive(socket, &mut headers, &mut rooms, &mut lengths)?;
        if came == 0 {
            counted.time = first.map_or(Duration::ZERO, |first| last.duration_since(first));
            return Ok(counted);
        }
        last = Instant::now();
        if first.is_none() {
            first = Some(last);
            socket.set_read_timeout(Some(quiet))?;
        }
        for (room, _) in rooms.iter().zip(&lengths[..came]).filter(|(_, length)| **length >= NUMBER) {
            let number = room.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            counted.datagrams += 1;
            counted.reordered += u64::from(number < next);
            next = next.max(number + 1);
        }
    }
}

/// Waits for one and takes what else is there; how many. None after the socket's time-out.
fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    rooms: &mut [[u8; 1500]],
    lengths: &mut [usize; BATCH],
) -> io::Result<usize> {
    let mut slices: Vec<_> = rooms.iter_mut().map(|room| [IoSliceMut::new(room)]).collect();
    match recvmmsg(socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
        Ok(results) => {
            let mut came = 0;
            for (result, length) in results.zip(lengths) {
                *length = result.bytes;
                came += 1;
            }
            Ok(came)
        }
        Err(Errno::EAGAIN) => Ok(0),
        // As if it had waited a little: the next call waits again.
        Err(Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flood, send};

    #[test]
    fn what_is_sent_is_counted_in_order() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let counter = std::thread::spawn(move || {
            count(&socket, Duration::from_secs(20), Duration::from_secs(1)).unwrap()
        });
        let flood = Flood { to, size: 64, rate: Some(5_000), time: Duration::from_millis(200) };
        let sent = send(&flood).unwrap();
        let counted = counter.join().unwrap();
        assert!(sent.datagrams > 500, "{sent:?}");
        assert_eq!((counted.datagrams, counted.reordered), (sent.datagrams, 0));
    }

    #[test]
    fn what_comes_out_of_turn_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in [0_u64, 2, 1, 3] {
            from.send_to(&number.to_le_bytes(), socket.local_addr().unwrap()).unwrap();
        }
        let counted = count(&socket, Duration::from_secs(20), Duration::from_millis(50)).unwrap();
        assert_eq!((counted.datagrams, counted.reordered), (4, 1));
    }
}
