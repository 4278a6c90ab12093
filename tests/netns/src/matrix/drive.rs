//! One run of one cell on the kernel: a fresh internet, three super peers, two homes, the first packet, the path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::record::Record;
use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::nat::{Nat, NatClass};
use crate::scene::{class_of, invited, three_super_peers};
use crate::traffic::PingStream;
use crate::wait::look_for;

/// Long enough for the slowest way that there is, a birthday guess of 20 s; who is on the relay then, stays there.
const PATIENCE: Duration = Duration::from_secs(25);

/// A class that is not known after this time is not found out.
const CLASS: Duration = Duration::from_secs(10);

/// Seconds between two packets.
const PACE: f32 = 0.1;

/// Runs a cell once; what fails is a record, too. None where the machine can have no laboratory.
pub fn run(classes: [NatClass; 2], seed: u64, rivals: Option<u32>) -> Option<Record> {
    let name = format!("matrix_{}_{}_{seed}", classes[0].word(), classes[1].word());
    match catch_unwind(AssertUnwindSafe(|| attempt(&name, classes, seed, rivals))) {
        Ok(record) => record,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let why =
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
            Some(Record::failed("kernel", classes, seed, why))
        }
    }
}

fn attempt(name: &str, classes: [NatClass; 2], seed: u64, rivals: Option<u32>) -> Option<Record> {
    let mut lab = Lab::new(name)?;
    lab.stop_capture();
    let homes = [lab.home("a", Nat::from(classes[0])), lab.home("b", Nat::from(classes[1]))];
    let super_peers = three_super_peers(&mut lab);
    let [a, b] = homes.each_ref().map(|home| Daemon::join(home, &invited(&super_peers[0], "peer")));
    a.wait_ready();
    b.wait_ready();
    let known = look_for(CLASS, || Some([class_of(&a)?, class_of(&b)?]));
    if let Some(rate) = rivals {
        homes.iter().filter(|home| home.local != home.public).for_each(|home| lab.start_rivals(home, rate));
    }
    let (to, ids) = (b.ipv4().to_string(), [a.id(), b.id()]);
    let stream = PingStream::start(&a.host, &to, PACE);
    let direct = |from: &Daemon, id: &str| from.path_to(id).is_some_and(|path| path.kind == "direct");
    let found = look_for(PATIENCE, || (direct(&a, &ids[1]) && direct(&b, &ids[0])).then_some(()));
    let path = a.path_to(&ids[1]).unwrap_or_default();
    let report = stream.finish();
    let found_at = |daemon: &Daemon| class_of(daemon).unwrap_or_else(|| "unknown".to_owned());
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    Some(Record {
        connected: report.received > 0,
        kind: path.kind,
        method: path.method,
        direct_ms: found.map(|((), took)| milliseconds(took)),
        found_ms: known.as_ref().map(|(_, took)| milliseconds(*took)),
        found: known.map_or_else(|| [&a, &b].map(found_at), |(found, _)| found),
        lost: report.lost(),
        failure: None,
        ..Record::failed("kernel", classes, seed, "")
    })
}
