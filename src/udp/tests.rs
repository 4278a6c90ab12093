//! The sockets on a real loopback interface.

#![allow(unsafe_code, reason = "nix's macro for socket options that nix does not name itself")]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

use super::*;
use crate::offload::{Why, Wishes};

sockopt_impl!(
    /// How the path MTU is found.
    Discover4, GetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
sockopt_impl!(
    /// The same of IPv6.
    Discover6, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int);

fn loopback(port: PortChoice) -> Listen {
    Listen { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST), port }
}

sockopt_impl!(
    /// Whether checksums are left out.
    NoCheck,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_NO_CHECK,
    libc::c_int
);

/// Everything that arrives, datagram by datagram.
fn receive_all(udp: &Udp, family: usize, datagrams: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut buffers = vec![vec![0; 65_536]; 4];
    while got.len() < datagrams {
        let fd = udp.descriptors().nth(family).unwrap();
        let ready = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(5000_u16)).unwrap();
        assert_eq!(ready, 1, "{} of {datagrams} came", got.len());
        let mut meta = [RecvMeta::default(); 4];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let filled = udp.receive(family, &mut slices, &mut meta).unwrap();
        for (meta, buffer) in meta[..filled].iter().zip(&buffers) {
            got.extend(buffer[..meta.len].chunks(meta.stride).map(<[u8]>::to_vec));
        }
    }
    got
}

#[test]
fn a_run_arrives_as_the_datagrams_it_was_made_of() {
    let (a, b) = (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
    let (a, b) = (a.unwrap(), b.unwrap());
    let bytes: Vec<u8> = (0..63 * 1000 - 300_u32).map(|n| (n / 7) as u8).collect();
    for (family, to) in b.local().into_iter().enumerate() {
        a.send(to, &bytes, 1000, WhenFull::Wait).unwrap();
        let expected: Vec<_> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(receive_all(&b, family, 63), expected);
    }
}

#[test]
fn more_than_the_kernel_cuts_at_once_arrives_too() {
    let (a, b) = (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
    let (a, b) = (a.unwrap(), b.unwrap());
    let to = b.local()[0];
    a.send(to, &[7; 200 * 100 + 1], 100, WhenFull::Wait).unwrap();
    assert_eq!(receive_all(&b, 0, 201).last().map(Vec::len), Some(1));
    assert_eq!(a.v4.as_ref().unwrap().refusals.count(), (0, false), "and nothing was refused on the way");
}

#[test]
fn where_segmentation_is_refused_the_pieces_go_one_by_one() {
    let (a, b) = (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
    let (a, b) = (a.unwrap(), b.unwrap());
    let (to, v4) = (b.local()[0], a.v4.as_ref().unwrap());
    v4.refusals.add(to);
    assert!(!v4.may_segment(to));
    assert!(v4.may_segment("127.0.0.1:9".parse().unwrap()));
    a.send(to, &[7; 2500], 1000, WhenFull::Wait).unwrap();
    assert_eq!(receive_all(&b, 0, 3), [vec![7; 1000], vec![7; 1000], vec![7; 500]]);
    let sender = a.sender();
    assert!(sender.report()["udp_gso"].why.as_ref().unwrap().contains("1 destination"));
    assert!(sender.report()["udp_gso"].on && sender.attention()[0].what.contains("udp_gso"));
}

#[test]
fn what_the_kernel_refuses_to_cut_is_sent_once_each_and_remembered() {
    // A socket without checksums can't have its datagrams cut: EINVAL.
    let (a, b) = (Udp::bind(loopback(PortChoice::Required(0))), Udp::bind(loopback(PortChoice::Required(0))));
    let (a, b) = (a.unwrap(), b.unwrap());
    let (to, v4) = (b.local()[0], a.v4.as_ref().unwrap());
    nix::sys::socket::setsockopt(&v4.ports[0].socket, NoCheck, &1).unwrap();
    let bytes: Vec<u8> = (0..70 * 1000 + 9_u32).map(|n| (n / 7) as u8).collect();
    a.send(to, &bytes, 1000, WhenFull::Wait).unwrap();
    assert!(!v4.may_segment(to), "remembered");
    assert_eq!(receive_all(&b, 0, 71), bytes.chunks(1000).collect::<Vec<_>>());
    let fd = b.descriptors().next().unwrap();
    assert_eq!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0), "nothing twice");
}

#[test]
fn what_did_not_leave_is_counted() {
    let a = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
    // Longer than any datagram may be; loopback's MTU is just above.
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let unsent = a.send(to, &vec![0; 3 * 65_508], 65_508, WhenFull::Drop).unwrap_err();
    assert_eq!((unsent.datagrams, unsent.source.raw_os_error()), (3, Some(Errno::EMSGSIZE as i32)));
    assert!(a.v4.as_ref().unwrap().may_segment(to), "no reason to mistrust segmentation");
    let v4_only = Udp { v6: None, ..a };
    let to = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    assert_eq!(v4_only.send(to, &[0; 25], 10, WhenFull::Drop).unwrap_err().datagrams, 3);
}

#[test]
fn what_is_switched_off_is_off() {
    for which in [Offload::UdpGso, Offload::UdpGro] {
        let offloads = Arc::new(Offloads::new(Wishes::default().without(which)));
        let udp = Udp::bind_queues(loopback(PortChoice::Required(0)), 1, Arc::clone(&offloads)).unwrap();
        for family in udp.families() {
            let gro = getsockopt(&family.ports[0].socket, sockopt::UdpGroSegment).unwrap();
            assert_eq!(gro, which != Offload::UdpGro);
            let to = family.local().unwrap();
            assert_eq!(family.may_segment(to), which != Offload::UdpGso);
        }
        let to = udp.local()[0];
        udp.send(to, &[7; 2500], 1000, WhenFull::Wait).unwrap();
        assert_eq!(receive_all(&udp, 0, 3), [vec![7; 1000], vec![7; 1000], vec![7; 500]]);
        assert_eq!(offloads.why(which), Some(Why::Ordered));
    }
}

#[test]
fn datagrams_are_never_fragmented_nor_held_to_a_guess_of_the_mtu() {
    let udp = Udp::bind_queues(loopback(PortChoice::Required(0)), 2, Arc::default()).unwrap();
    for port in &udp.v4.as_ref().unwrap().ports {
        assert_eq!(getsockopt(&port.socket, Discover4), Ok(libc::IP_PMTUDISC_PROBE));
    }
    for port in &udp.v6.as_ref().unwrap().ports {
        assert_eq!(getsockopt(&port.socket, Discover6), Ok(libc::IPV6_PMTUDISC_PROBE));
    }
}

#[test]
fn what_nobody_reads_in_time_is_counted() {
    let udp = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
    let (to, sender) = (udp.local()[0], udp.sender());
    assert_eq!(sender.overflow(), 0);
    for _ in 0..100_000 {
        if sender.overflow() >= 10 {
            return;
        }
        udp.send(to, &[7; 60_000], 60_000, WhenFull::Wait).unwrap();
    }
    panic!("{} dropped", sender.overflow());
}

#[test]
fn small_buffers_are_told() {
    let granted = Buffers { send: SEND_BUFFER, receive: RECEIVE_BUFFER };
    assert_eq!(granted.attention(), None);
    let told = |buffers: Buffers| buffers.attention().unwrap().what;
    assert!(told(Buffers { receive: 212_992, ..granted }).contains("receive buffer"));
    assert!(told(Buffers { send: 212_992, ..granted }).contains("send buffer"));
    let udp = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
    let buffers = udp.sender().buffers();
    assert!(buffers.send > 0 && buffers.send <= SEND_BUFFER && buffers.receive <= RECEIVE_BUFFER);
}

#[test]
fn several_sockets_share_a_port_and_each_sender_keeps_to_one() {
    let udp = Udp::bind_queues(loopback(PortChoice::Required(0)), 3, Arc::default()).unwrap();
    assert_eq!(udp.queues(), 3);
    assert!(udp.queue(3).is_none());
    let queues: Vec<_> = (0..3).map(|queue| udp.queue(queue).unwrap()).collect();
    let to = udp.local()[0];
    let senders: Vec<_> = (0..32).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for round in 0..10_u8 {
        senders.iter().for_each(|sender| _ = sender.send_to(&[round], to).unwrap());
    }
    let (mut homes, mut total, mut used) = (BTreeMap::new(), 0, [false; 3]);
    for (number, queue) in queues.iter().enumerate() {
        let mut buffer = vec![0; 65_536];
        let mut meta = [RecvMeta::default()];
        while queue.receive(0, &mut [IoSliceMut::new(&mut buffer)], &mut meta).is_ok() {
            assert_eq!(*homes.entry(meta[0].addr).or_insert(number), number, "one sender, one socket");
            total += meta[0].len;
            used[number] = true;
        }
    }
    assert_eq!((homes.len(), total), (32, 320));
    assert!(used.iter().filter(|used| **used).count() > 1, "spread");
    let taken = Udp::bind(loopback(PortChoice::Required(udp.port()))).unwrap_err();
    assert!(matches!(taken, BindError::Taken { .. }), "still a conflict for others: {taken}");
    let both = Udp::bind_queues(loopback(PortChoice::Required(udp.port())), 2, Arc::default()).unwrap_err();
    assert!(matches!(both, BindError::Taken { .. }), "even for those who would share: {both}");
}

#[test]
fn a_taken_port_is_an_error_or_replaced_as_was_asked() {
    let first = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
    let taken = first.port();
    let refused = Udp::bind(loopback(PortChoice::Required(taken))).unwrap_err();
    assert!(matches!(refused, BindError::Taken { at } if at.port() == taken), "{refused}");
    assert!(refused.to_string().contains(&format!("127.0.0.1:{taken}")));
    let other = Udp::bind(loopback(PortChoice::Preferred(taken))).unwrap();
    assert_ne!(other.port(), taken);
    assert!(other.local().iter().all(|at| at.port() == other.port()), "one number for both families");
}

#[test]
fn a_closed_port_at_the_other_end_is_no_error() {
    let a = Udp::bind(loopback(PortChoice::Required(0))).unwrap();
    let closed = Udp::bind(loopback(PortChoice::Required(0))).unwrap().local()[0];
    for _ in 0..5 {
        a.sender().send(closed, b"anybody?").unwrap();
    }
    assert!(UdpSender(Udp { v6: None, ..a }).send("[::1]:9".parse().unwrap(), b"x").is_err());
}
