//! The device on a real kernel: what is switched off is off, the trial passes, several queues share the flows.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::sync::Arc;

use frejus::netlink::Netlink;
use frejus::offload::{Offload, Offloads, Why, Wishes};
use frejus::tun::{Name, Tun};
use frejus_overlay::packet::IpPacket;
use frejus_overlay::packet::vnet::{Gso, LENGTH, VnetHeader};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sample::{self, Ends, Sample, is_between};
use super::tap::Tap;
use crate::{Host, address4, address6, network};

const MTU: u16 = 1280;

fn ends() -> Ends {
    Ends { from4: address4(1), to4: address4(2), from6: address6(1), to6: address6(2) }
}

/// In the caller's namespace: the device, up.
fn device(queues: usize, offloads: &Arc<Offloads>) -> Vec<Tun> {
    let tuns = Tun::create_queues(&Name::Any, MTU, queues, Arc::clone(offloads)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let addresses = [network(address4(1).into(), 16), network(address6(1).into(), 48)];
        Netlink::open().unwrap().configure(tuns[0].name(), &addresses).await.unwrap();
    });
    tuns
}

/// The next packet between the ends that one of the queues gives, and which queue.
fn read(tuns: &[Tun]) -> (usize, Gso, Vec<u8>) {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let mut fds: Vec<_> = tuns.iter().map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN)).collect();
        assert_ne!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(0), "nothing comes");
        let ready: Vec<_> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (queue, tun) in tuns.iter().enumerate().filter(|(queue, _)| ready[*queue]) {
            let len = tun.read(&mut buffer).unwrap();
            let (mut gso, mut packet) = (Gso::None, &buffer[..len]);
            if tun.has_header() {
                let (header, rest) = packet.split_first_chunk::<LENGTH>().unwrap();
                (gso, packet) = (VnetHeader::decode(header).unwrap().gso, rest);
            }
            if is_between(ends(), packet) {
                return (queue, gso, packet.to_vec());
            }
        }
    }
}

/// Whether the device hands a super-packet over as it is; if not, what it is cut into must be right.
fn hands_over(tun: &[Tun], tap: &Tap, sample: &Sample) -> bool {
    let [(vnet, packet)] = &sample.injected[..] else { panic!("one packet") };
    tap.inject(*vnet, packet);
    let (_, gso, first) = read(tun);
    if gso != Gso::None {
        assert_eq!(&first, packet);
        return true;
    }
    let rest = (1..sample.expected.len()).map(|_| read(tun).2);
    let lengths: Vec<_> = std::iter::once(first).chain(rest).map(|packet| packet.len()).collect();
    assert!(lengths.iter().eq(sample.expected.iter().map(Vec::len).collect::<Vec<_>>().iter()));
    false
}

#[test]
fn the_kernel_hands_over_only_what_is_switched_on() {
    let Some(host) = Host::new() else { return };
    let off = |all: &[Offload]| all.iter().fold(Wishes::default(), |wishes, which| wishes.without(*which));
    for (wishes, tcp, udp) in [
        (Wishes::default(), true, true),
        (off(&[Offload::TunTso]), false, true),
        (off(&[Offload::TunUso]), true, false),
        (off(&[Offload::TunTso, Offload::TunUso]), false, false),
        (off(Offload::ALL), false, false),
    ] {
        host.run(move || {
            let offloads = Arc::new(Offloads::new(wishes));
            let tun = device(1, &offloads);
            let tap = Tap::open(tun[0].name());
            for v6 in [false, true] {
                assert_eq!(hands_over(&tun, &tap, &sample::large(ends(), v6, false)), tcp, "TCP, {wishes:?}");
                assert_eq!(hands_over(&tun, &tap, &sample::large(ends(), v6, true)), udp, "UDP, {wishes:?}");
            }
            assert_eq!(tun[0].has_header(), wishes != off(Offload::ALL));
            for which in Offload::ALL {
                let expected = wishes.of(*which).map(|_| Why::Ordered);
                assert_eq!(offloads.why(*which), expected, "{which}: the trial on a device that is down");
            }
        });
    }
}

#[test]
fn a_device_that_is_down_tells_what_it_would_refuse() {
    let Some(host) = Host::new() else { return };
    host.run(|| {
        let offloads = Arc::new(Offloads::default());
        let tun = Tun::create_queues(&Name::Any, MTU, 1, Arc::clone(&offloads)).unwrap().remove(0);
        for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
            let (vnet, packet) = sample::large(ends(), v6, udp).injected.remove(0);
            let write = |vnet: VnetHeader| tun.write(&[IoSlice::new(&vnet.encode()), IoSlice::new(&packet)]);
            assert_eq!(write(vnet), Err(Errno::EIO), "taken, and thrown away");
            assert_eq!(write(VnetHeader { gso_size: 0, ..vnet }), Err(Errno::EINVAL), "refused");
        }
    });
}

#[test]
fn a_flow_stays_in_one_of_several_queues() {
    const QUEUES: usize = 3;
    let Some(host) = Host::new() else { return };
    host.run(|| {
        let tuns = device(QUEUES, &Arc::default());
        assert_eq!(tuns.len(), QUEUES);
        let tap = Tap::open(tuns[0].name());
        let (mut queues, mut used) = (BTreeMap::new(), [false; QUEUES]);
        for _ in 0..10 {
            for port in 1..40 {
                tap.inject(VnetHeader::default(), &sample::datagram(ends(), port));
            }
            for _ in 1..40 {
                let (queue, _, packet) = read(&tuns);
                let ports = IpPacket::parse(&packet).unwrap().ports().unwrap();
                assert_eq!(*queues.entry(ports).or_insert(queue), queue);
                used[queue] = true;
            }
        }
        assert_eq!(queues.len(), 39);
        assert_eq!(used, [true; QUEUES], "all have work");
    });
}
