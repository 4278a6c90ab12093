//! A link with delay and loss, in user space: two TAP devices and what carries frames between them.
//!
//! Kernels without netem have nothing else. The kernel finishes checksums and segments before a TAP device hands a
//! frame out, so what crosses is what a cable would carry. Never used where throughput is measured.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::run::Host;

/// Frames on their way in one direction: 20 ms at 1 Gbit/s is 1700 full frames; what is beyond is lost, as in a queue.
const IN_FLIGHT: usize = 2048;

/// Ethernet header and 1500 bytes, with room for a tag.
const FRAME: usize = 1600;

/// What a link does to frames; the default is a plain cable, made of veth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// One-way delay, in both directions.
    pub delay: Duration,
    /// Frames lost out of a hundred, in both directions.
    pub loss_percent: u8,
}

impl Quality {
    /// A link with this one-way delay and no loss.
    pub const fn delayed(milliseconds: u64) -> Self {
        Self { delay: Duration::from_millis(milliseconds), loss_percent: 0 }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A running link; its devices vanish, and its threads end, when it is dropped.
#[derive(Debug)]
pub struct Link {
    ends: [(Host, String); 2],
}

impl Link {
    /// Makes device `ends.1` in each host `ends.0` and carries frames between them.
    pub fn join(ends: [(&Host, &str); 2], quality: Quality) -> Self {
        let [one, other] = ends.map(|(host, name)| Arc::new(device(host, name)));
        carry(&one, &other, quality, 1);
        carry(&other, &one, quality, 2);
        Self { ends: ends.map(|(host, name)| (host.clone(), name.to_owned())) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for (host, name) in &self.ends {
            host.run(&["ip", "link", "del", name]);
        }
    }
}

fn device(host: &Host, name: &str) -> SyncDevice {
    host.within(|| {
        let built = DeviceBuilder::new().name(name).layer(Layer::L2).mtu(1500).build_sync();
        built.expect("the preflight found /dev/net/tun, and the name is free in a fresh namespace")
    })
}

fn carry(from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, quality: Quality, seed: u64) {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    let (from, to) = (Arc::clone(from), Arc::clone(to));
    std::thread::spawn(move || take(&from, &sender, quality, seed));
    std::thread::spawn(move || give(&to, &receiver));
}

/// Reads until the device is deleted.
fn take(device: &SyncDevice, line: &SyncSender<(Instant, Vec<u8>)>, quality: Quality, seed: u64) {
    let mut frame = [0u8; FRAME];
    let mut dice = seed;
    while let Ok(length) = device.recv(&mut frame) {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (dice >> 33) % 100 >= u64::from(quality.loss_percent) {
            line.try_send((Instant::now() + quality.delay, frame[..length].to_vec())).ok();
        }
    }
}

/// Writes each frame when it is due, until the reading side has ended.
fn give(device: &SyncDevice, line: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, frame)) = line.recv() {
        sleep(due.saturating_duration_since(Instant::now()));
        device.send(&frame).ok();
    }
}
