//! A path in doubt: everything goes a second way as well, and arrives once.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use frejus_overlay::locator::Locator;
use frejus_overlay::relay::server::RelayTable;
use frejus_overlay::verdict::Drop as Reason;
use nix::sys::socket::{setsockopt, sockopt};

use super::relay::relayed;
use crate::{Node, address4, address6, transfer};

/// As many as fit every queue on the way, twice.
const DATAGRAMS: u64 = 100;

/// From here on `a` sends by `path`, and by `also`.
fn doubt(a: &mut Node, path: Locator, also: Option<Locator>) {
    (a.slots[0].path, a.slots[0].also) = (Some(path), also);
    a.publish(RelayTable::default());
}

/// Datagrams of many lengths from A to B, one after the other; each must arrive, once.
fn each_arrives_once(a: &Node, b: &Node, port: u16) {
    let (ready, listening) = mpsc::channel();
    let heard = b.host.start(move || {
        let socket = UdpSocket::bind((address4(2), port)).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 2048];
        let mut next = || socket.recv(&mut buffer).map(|len| (buffer[0], len));
        let heard: Vec<_> = (0..DATAGRAMS).map(|_| next().unwrap()).collect();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let more = socket.recv(&mut [0; 2048]);
        assert!(more.is_err(), "a second copy of one");
        heard
    });
    listening.recv().unwrap();
    let sent = a.host.run(move || {
        let socket = UdpSocket::bind((address4(1), 0)).unwrap();
        socket.connect((address4(2), port)).unwrap();
        let send = |number: u64| {
            let (mark, len) = (number as u8, 1 + number as usize * 12);
            socket.send(&vec![mark; len]).unwrap();
            (mark, len)
        };
        (0..DATAGRAMS).map(send).collect::<Vec<_>>()
    });
    let mut heard = heard.recv_timeout(Duration::from_secs(30)).unwrap();
    heard.sort_unstable();
    assert_eq!(heard, sent);
}

#[test]
fn in_doubt_everything_goes_two_ways_and_arrives_once() {
    let Some((mut a, b, _relay)) = relayed() else { return };
    let (direct, through) = (Locator::Direct(b.at().into()), a.slots[0].path.unwrap());
    each_arrives_once(&a, &b, 7500);
    assert_eq!(b.dropped(Reason::Duplicate), 0, "nothing is in doubt");
    for (port, path, also) in [(7501, direct, through), (7502, through, direct)] {
        let before = b.dropped(Reason::Duplicate);
        doubt(&mut a, path, Some(also));
        each_arrives_once(&a, &b, port);
        b.until_dropped(Reason::Duplicate, before + DATAGRAMS);
    }
    assert_eq!(a.dropped(Reason::SendFailed) + b.dropped(Reason::NotAuthentic), 0);
}

#[test]
fn what_only_the_second_way_carries_arrives() {
    let Some((mut a, b, _relay)) = relayed() else { return };
    let (direct, through) = (Locator::Direct(b.at().into()), a.slots[0].path.unwrap());
    // It takes everything and says nothing.
    let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nowhere = nowhere.local_addr().map(|at| (nowhere, Locator::Direct(at.into()))).unwrap();
    for (port, also) in [(7511, direct), (7512, through)] {
        doubt(&mut a, nowhere.1, Some(also));
        each_arrives_once(&a, &b, port);
        // Runs of many segments, longer by a header on a relay.
        transfer(&a, &b, address6(2).into(), port + 10, 2 << 20);
    }
    assert_eq!(b.dropped(Reason::Duplicate), 0, "one way carried all of it");
}
