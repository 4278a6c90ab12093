//! What comes out of the far device is what went into the near one: byte for byte, in order, with each offload on and
//! off.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use frejus::offload::{Offload, Wishes};
use frejus_overlay::packet::segment::Segments;
use frejus_overlay::packet::vnet::{Gso, VnetHeader};
use frejus_overlay::path_mtu::Mtu;
use frejus_overlay::relay::server::RelayTable;
use frejus_overlay::verdict::Drop as Reason;
use nix::sys::socket::{setsockopt, sockopt};

use super::keys;
use super::relay::relayed;
use super::sample::{self, Ends, Sample, is_between};
use super::tap::Tap;
use crate::{Node, address4, address6, pair_of, pair_with, transfer};

/// Longer than the machine is ever busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

fn ends() -> Ends {
    Ends { from4: address4(1), to4: address4(2), from6: address6(1), to6: address6(2) }
}

/// Injects the sample, and compares what the far device hands to its host. For each packet how it was joined, and whether
/// its checksum was left to the kernel.
fn check(near: &Tap, far: &Tap, sample: &Sample, wishes: Wishes) -> Vec<(Gso, bool)> {
    sample.injected.iter().for_each(|(vnet, packet)| near.inject(*vnet, packet));
    let (mut got, mut joined) = (Vec::new(), Vec::new());
    while got.len() < sample.expected.len() {
        let Some((vnet, packet)) = far.next(PATIENCE) else { break };
        if is_between(ends(), &packet) {
            got.extend(cut(vnet, &packet));
            joined.push((vnet.gso, vnet.needs_csum));
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

/// Whose keys the packets travel under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    Wireguard,
    Transport,
}

fn compare(keys: Keys, wishes: Wishes, mtu: u16) {
    let Some((a, b)) = pair_with(mtu, wishes) else { return };
    let partial = keys == Keys::Transport && keys::agree(&a, &b);
    let left = wishes.of(Offload::TunChecksum).is_none();
    assert_eq!(partial, keys == Keys::Transport && left, "{keys:?} {wishes:?}");
    let kinds = compare_pair(&a, &b, wishes, mtu);
    for (kind, which) in [
        (Gso::TcpV4, Offload::TcpCoalescing),
        (Gso::TcpV6, Offload::TcpCoalescing),
        (Gso::UdpL4, Offload::UdpCoalescing),
    ] {
        assert_eq!(
            kinds.iter().any(|(gso, _)| *gso == kind),
            wishes.of(which).is_none(),
            "{kind:?} written joined with {wishes:?}"
        );
    }
    assert_eq!(
        kinds.contains(&(Gso::None, true)),
        partial,
        "{keys:?} {wishes:?}: checksums left to the device"
    );
}

/// Every sample from `a` to `b`; the kinds of packets that the far device handed over, and whether it was to fill in
/// their checksums.
fn compare_pair(a: &Node, b: &Node, wishes: Wishes, mtu: u16) -> Vec<(Gso, bool)> {
    let open = |node: &Node| node.host.run(|| Tap::open("frejus0"));
    let (near, far) = (open(a), open(b));
    let samples = sample::all(ends(), mtu.into());
    let kinds = samples.iter().flat_map(|sample| check(&near, &far, sample, wishes)).collect();
    for node in [a, b] {
        for reason in [Reason::Malformed, Reason::TunFailed, Reason::SendFailed, Reason::NotAuthentic] {
            assert_eq!(node.dropped(reason), 0, "{} with {wishes:?}", reason.name());
        }
    }
    kinds
}

fn nothing() -> Wishes {
    Offload::ALL.iter().fold(Wishes::default(), |wishes, which| wishes.without(*which))
}

#[test]
fn with_every_offload() {
    compare(Keys::Transport, Wishes::default(), 1280);
    compare(Keys::Wireguard, Wishes::default(), 1280);
}

#[test]
fn with_an_mtu_of_another_size() {
    compare(Keys::Transport, Wishes::default(), 1420);
    compare(Keys::Transport, Wishes::default(), 9000);
}

#[test]
fn with_each_offload_off() {
    for which in Offload::ALL {
        compare(Keys::Transport, Wishes::default().without(*which), 1280);
    }
}

#[test]
fn with_every_offload_off() {
    compare(Keys::Wireguard, nothing(), 1280);
}

#[test]
fn a_device_that_fills_in_no_checksum_gets_complete_packets() {
    let (Some(a), Some(mut b)) = (Node::start(1), Node::start_with(2, 1280, nothing())) else { return };
    b.crypto = keys::node(2, true, &b.clock);
    let (a, b) = pair_of(a, b);
    assert!(!b.tun.has_header() && keys::agree(&a, &b));
    let kinds = compare_pair(&a, &b, nothing(), 1280);
    assert!(kinds.iter().all(|kind| *kind == (Gso::None, false)), "{kinds:?}");
}

#[test]
fn through_a_relay_checksums_are_left_as_well() {
    let Some((a, b, _relay)) = relayed() else { return };
    assert!(keys::agree(&a, &b));
    let kinds = compare_pair(&a, &b, Wishes::default(), 1280);
    assert!(kinds.contains(&(Gso::None, true)) && kinds.iter().any(|(gso, _)| *gso == Gso::TcpV4));
}

#[test]
fn a_checksum_is_filled_in_before_its_packet_is_fragmented() {
    let Some((mut a, b)) = pair_with(1280, Wishes::default()) else { return };
    assert!(keys::agree(&a, &b));
    a.slots[0].mtu = Mtu { bytes: 1220, is_known: true };
    a.publish(RelayTable::default());
    let near = a.host.run(|| Tap::open("frejus0"));
    let (listening, ready) = mpsc::channel();
    let received = b.host.start(move || {
        let socket = UdpSocket::bind((address4(2), 7310)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        listening.send(()).unwrap();
        let mut buffer = vec![0; 2000];
        let len = socket.recv(&mut buffer).expect("the kernel found the checksum right");
        buffer[..len].to_vec()
    });
    ready.recv().unwrap();
    let (vnet, packet, payload) = sample::fragmentable(ends(), 7310, 1230);
    near.inject(vnet, &packet);
    assert_eq!(received.recv_timeout(PATIENCE).unwrap(), payload);
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
