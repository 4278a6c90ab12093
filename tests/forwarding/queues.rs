//! Several queues, each with its pair of threads: flows are spread over them, and none is torn apart.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;

use frejus::offload::Wishes;
use frejus_overlay::locator::Locator;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::whole::{counted, numbered_datagrams};
use crate::{Node, address4, address6, join, transfer};

const QUEUES: usize = 3;
const FLOWS: u16 = 8;

/// Keeps the forwarding threads of this process on one processor each, in turn, as on a machine that has enough of
/// them; how many there are.
fn pin_forwarding_threads() -> usize {
    let processors = thread::available_parallelism().unwrap().get();
    let mut pinned = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap();
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("frejus-") {
            let mut set = CpuSet::new();
            set.set(pinned % processors).unwrap();
            let id = task.file_name().to_str().unwrap().parse().unwrap();
            sched_setaffinity(Pid::from_raw(id), &set).unwrap();
            pinned += 1;
        }
    }
    pinned
}

fn used(node: &Node) -> usize {
    let counters = node.forwarding.as_ref().unwrap().counters();
    counters.iter().filter(|set| set.packets_out.load(Ordering::Relaxed) > 0).count()
}

#[test]
fn flows_are_spread_and_stay_whole() {
    let start = |number| Node::start_queues(number, 1280, Wishes::default(), QUEUES);
    let (Some(mut a), Some(mut b)) = (start(1), start(2)) else { return };
    let (at_a, at_b) = (a.at(), b.at());
    join(&mut a, &mut b, Some(Locator::Direct(at_b)), Some(Locator::Direct(at_a)));
    assert!(pin_forwarding_threads() >= 4 * QUEUES, "two a queue, of two nodes");
    for flow in 0..FLOWS {
        numbered_datagrams(&a, &b, 7400 + flow, 64 + 100 * usize::from(flow));
    }
    transfer(&a, &b, address4(2).into(), 7420, 8 << 20);
    transfer(&b, &a, address6(1).into(), 7421, 8 << 20);
    assert_eq!(b.host.run(|| counted("TCPOFOQueue")), 0, "TCP segments out of order");
    assert!(used(&a) >= 2, "eight flows use more than one of three queues");
}
