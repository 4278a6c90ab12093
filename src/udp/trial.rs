//! The trial of UDP segmentation and joining, over the loopback interface before any real packet is sent.
//!
//! Owns: a few datagrams between sockets of its own, about a millisecond of time. What happens only between the kernel
//! and a network card it cannot show. Never: the node's sockets.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quinn_udp::RecvMeta;

use super::WhenFull;
use super::family::Port;
use crate::offload::{Offload, Offloads, Why, Wishes};

/// Segments of a usual size: a run of equal ones, and one with a shorter tail.
const SEGMENT: usize = 1200;
const RUNS: [usize; 2] = [5 * SEGMENT, 5 * SEGMENT + 77];
/// What is lost on the loopback interface is given up after this long, in milliseconds.
const PATIENCE_MS: u16 = 20;

/// Turns off what does not deliver what it was given. A loopback interface that is down or filtered proves nothing.
pub(super) fn run(offloads: &Offloads) {
    let (gso, gro) = (offloads.is_on(Offload::UdpGso), offloads.is_on(Offload::UdpGro));
    if !gso || plain() != Some(true) {
        return;
    }
    let without = Wishes::default().without(Offload::UdpGro);
    if delivers(without) == Some(false) {
        offloads.turn_off(Offload::UdpGso, Why::Trial);
    } else if gro && delivers(Wishes::default()) == Some(false) {
        offloads.turn_off(Offload::UdpGro, Why::Trial);
    }
}

/// Whether a datagram gets through at all.
fn plain() -> Option<bool> {
    let (from, to) = (open(Wishes::default())?, open(Wishes::default())?);
    // That it has none is found out where the node's sockets are opened.
    if from.state.max_gso_segments() == 1 { None } else { exchange(&from, &to, &[7; 100], 100) }
}

/// Whether runs arrive as they were sent at a socket with these wishes; `None` if there are no sockets.
fn delivers(receiver: Wishes) -> Option<bool> {
    let (from, to) = (open(Wishes::default())?, open(receiver)?);
    let bytes: Vec<u8> = (0..RUNS[1]).map(|at| (at * 31 + at / 251) as u8).collect();
    RUNS.iter()
        .map(|run| exchange(&from, &to, &bytes[..*run], SEGMENT))
        .try_fold(true, |all, one| Some(all & one?))
}

fn open(wishes: Wishes) -> Option<Port> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Port::open(at, false, &Arc::new(Offloads::new(wishes))).ok()
}

fn exchange(from: &Port, to: &Port, run: &[u8], segment: usize) -> Option<bool> {
    let at = to.socket.local_addr().ok()?;
    let cut = (segment < run.len()).then_some(segment);
    if from.send_patiently(at, run, cut, WhenFull::Drop).is_err() {
        return Some(false);
    }
    Some(receive(to, run.len()) == run.chunks(segment).collect::<Vec<_>>())
}

/// Datagrams as they come, until there are `bytes` of them or no more come.
fn receive(port: &Port, bytes: usize) -> Vec<Vec<u8>> {
    let (mut got, mut total, mut buffer) = (Vec::new(), 0, vec![0; 1 << 16]);
    while total < bytes {
        let mut fds = [PollFd::new(port.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(PATIENCE_MS)) != Ok(1) {
            break;
        }
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        if port.state.recv((&port.socket).into(), &mut slices, &mut meta).is_err() || meta[0].stride == 0 {
            break;
        }
        total += meta[0].len;
        got.extend(buffer[..meta[0].len].chunks(meta[0].stride).map(<[u8]>::to_vec));
    }
    got
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_kernel_passes() {
        let offloads = Offloads::default();
        let began = std::time::Instant::now();
        run(&offloads);
        println!("the trial took {:?}", began.elapsed());
        assert!(offloads.is_on(Offload::UdpGso) && offloads.is_on(Offload::UdpGro));
    }

    #[test]
    fn what_arrives_otherwise_is_noticed() {
        let (from, to) = (open(Wishes::default()).unwrap(), open(Wishes::default()).unwrap());
        let run: Vec<u8> = (0..5000_u32).map(|at| (at / 7) as u8).collect();
        assert_eq!(exchange(&from, &to, &run, 1000), Some(true));
        let at = to.socket.local_addr().unwrap();
        from.send_patiently(at, &run[1..], Some(1000), WhenFull::Drop).unwrap();
        assert_ne!(receive(&to, run.len()), run.chunks(1000).collect::<Vec<_>>());
    }
}
