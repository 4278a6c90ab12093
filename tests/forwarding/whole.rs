//! What comes out of the far device is what went into the near one: byte for byte, in order, with each offload on and
//! off.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use frejus::offload::{Offload, Wishes};
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::vnet::{Gso, VnetHeader};
use frejus_overlay::verdict::Drop as Reason;
use nix::sys::socket::{setsockopt, sockopt};

use super::sample::{self, Ends, Sample, is_between};
use super::tap::Tap;
use crate::{Node, address4, address6, pair_with, transfer};

/// Longer than the machine is ever busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

fn ends() -> Ends {
    Ends { from4: address4(1), to4: address4(2), from6: address6(1), to6: address6(2) }
}

/// Injects the sample, and compares what the far device hands to its host. What kinds of packets it handed over joined.
fn check(near: &Tap, far: &Tap, sample: &Sample, wishes: Wishes) -> Vec<Gso> {
    sample.injected.iter().for_each(|(vnet, packet)| near.inject(*vnet, packet));
    let (mut got, mut joined) = (Vec::new(), Vec::new());
    while got.len() < sample.expected.len() {
        let Some((vnet, packet)) = far.next(PATIENCE) else { break };
        if is_between(ends(), &packet) {
            got.extend(cut(vnet, &packet));
            joined.push(vnet.gso);
        }
    }
    let same = sample.expected.iter().zip(&got).take_while(|(expected, got)| expected == got).count();
    if (same, got.len()) != (sample.expected.len(), sample.expected.len()) {
        let show =
            |packets: &[Vec<u8>]| packets.get(same).map(|packet| packet[..packet.len().min(80)].to_vec());
        panic!(
            "{} with {wishes:?}: {} of {} came, the first {same} as sent; then\n{:02x?} instead of\n{:02x?}",
            sample.what,
            got.len(),
            sample.expected.len(),
            show(&got),
            show(&sample.expected),
        );
    }
    joined
}

/// What the host makes of a packet that was written joined.
fn cut(vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(vnet, packet, 65_535).unwrap();
    let mut out = vec![0; 65_535];
    std::iter::from_fn(|| Some(segments.write_next(&mut out)?.map(|len| out[..len].to_vec()).unwrap()))
        .collect()
}

fn compare(wishes: Wishes, mtu: u16) {
    let Some((a, b)) = pair_with(mtu, wishes) else { return };
    let open = |node: &Node| node.host.run(|| Tap::open("frejus0"));
    let (near, far) = (open(&a), open(&b));
    let mut joined = Vec::new();
    for sample in sample::all(ends(), mtu.into()) {
        joined.extend(check(&near, &far, &sample, wishes));
    }
    for (kind, which) in [
        (Gso::TcpV4, Offload::TcpCoalescing),
        (Gso::TcpV6, Offload::TcpCoalescing),
        (Gso::UdpL4, Offload::UdpCoalescing),
    ] {
        assert_eq!(
            joined.contains(&kind),
            wishes.of(which).is_none(),
            "{kind:?} written joined with {wishes:?}"
        );
    }
    for node in [&a, &b] {
        for reason in [Reason::Malformed, Reason::TunFailed, Reason::SendFailed, Reason::NotAuthentic] {
            assert_eq!(node.dropped(reason), 0, "{} with {wishes:?}", reason.name());
        }
    }
}

#[test]
fn with_every_offload() {
    compare(Wishes::default(), 1280);
}

#[test]
fn with_an_mtu_of_another_size() {
    compare(Wishes::default(), 1420);
    compare(Wishes::default(), 9000);
}

#[test]
fn with_each_offload_off() {
    for which in Offload::ALL {
        compare(Wishes::default().without(*which), 1280);
    }
}

#[test]
fn with_every_offload_off() {
    compare(Offload::ALL.iter().fold(Wishes::default(), |wishes, which| wishes.without(*which)), 1280);
}

/// What the kernel counted in the caller's namespace: the column `name` of /proc/net/netstat.
pub(super) fn counted(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some((_, value)) = names.split(' ').zip(values.split(' ')).find(|(each, _)| *each == name) {
            return value.parse().unwrap();
        }
    }
    panic!("the kernel does not count {name}");
}

/// Bursts that fit every queue on the way, the next one after all of the last have come.
pub(super) fn numbered_datagrams(a: &Node, b: &Node, port: u16, size: usize) {
    const BURSTS: u32 = 40;
    const BURST: u32 = 100;
    let (listening, ready) = mpsc::channel();
    let (done, next) = mpsc::channel();
    let received = b.host.start(move || {
        let socket = UdpSocket::bind((address4(2), port)).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        listening.send(()).unwrap();
        let mut buffer = vec![0; 65_536];
        for number in 0..BURSTS * BURST {
            let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{number} is lost: {error}"));
            let got = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            assert_eq!((got, len), (number, size), "out of order");
            if (number + 1).is_multiple_of(BURST) {
                done.send(()).unwrap();
            }
        }
    });
    ready.recv().unwrap();
    a.host.run(move || {
        let socket = UdpSocket::bind((address4(1), 0)).unwrap();
        socket.connect((address4(2), port)).unwrap();
        let mut datagram = vec![7; size];
        for burst in 0..BURSTS {
            for number in burst * BURST..(burst + 1) * BURST {
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                socket.send(&datagram).unwrap();
            }
            next.recv_timeout(PATIENCE).expect("the burst came");
        }
    });
    received.recv_timeout(PATIENCE).expect("all came, in order");
}

#[test]
fn nothing_is_lost_or_overtaken_within_a_flow() {
    let Some((a, b)) = pair_with(1280, Wishes::default()) else { return };
    for (port, size) in [(7301, 64), (7302, 1200), (7303, 1252)] {
        numbered_datagrams(&a, &b, port, size);
    }
    transfer(&a, &b, address4(2).into(), 7304, 8 << 20);
    transfer(&a, &b, address6(2).into(), 7305, 8 << 20);
    assert_eq!(b.host.run(|| counted("TCPOFOQueue")), 0, "TCP segments out of order");
    assert_eq!(b.udp.sender().overflow(), 0);
}
