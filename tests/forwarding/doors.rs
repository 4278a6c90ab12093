//! A path that leaves by a further socket carries everything, and only what belongs to it.

use std::net::SocketAddr;

use frejus_overlay::forward::Exception;
use frejus_overlay::locator::{DoorId, Endpoint, Locator};

use crate::{Node, address4, address6, join, transfer};

#[test]
fn a_path_by_a_door_carries_both_directions() {
    let (Some(mut a), Some(mut b)) = (Node::start(1), Node::start(2)) else { return };
    let door = DoorId(7);
    a.doors.open(door).unwrap();
    let port = a.doors.list()[0].1.local().unwrap().port();
    let at_door = SocketAddr::new(a.at().ip(), port);
    let by_door = Locator::Direct(Endpoint::by_door(door, b.at()));
    join(&mut a, &mut b, Some(by_door), Some(Locator::Direct(at_door.into())));
    const TOTAL: usize = 4 << 20;
    transfer(&a, &b, address4(2).into(), 7301, TOTAL);
    transfer(&b, &a, address6(1).into(), 7302, TOTAL);
    for node in [&a, &b] {
        let strayed = |exception: Exception| matches!(exception, Exception::Strayed { .. });
        assert!(!node.exceptions.try_iter().any(strayed), "it comes where it is expected");
    }
}
