//! A link with delay, loss and a rate, in user space: two TAP devices and what carries frames between them.
//!
//! Kernels without netem have nothing else. The kernel finishes checksums and segments before a TAP device hands a
//! frame out, so what crosses is what a cable would carry. Never used where throughput is measured.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, RwLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::host::Host;
use crate::trouble::{Result, Trouble};

/// Frames on their way in one direction: 20 ms at 1 Gbit/s is 1700 full frames; what is beyond is lost, as in a queue.
const IN_FLIGHT: usize = 2048;

/// Ethernet header and 1500 bytes, with room for a tag.
const FRAME: usize = 1600;

/// How much a link with a rate keeps waiting, as time: what home routers are known for.
const BUFFER: Duration = Duration::from_millis(250);

/// What a link does to frames, in both directions; the default is a plain cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// One-way delay.
    pub delay: Duration,
    /// Frames lost out of a hundred.
    pub loss_percent: u8,
    /// Bits a second; none: as fast as this machine copies.
    pub rate: Option<u64>,
}

impl Quality {
    /// A link with this one-way delay and no loss.
    pub const fn delayed(milliseconds: u64) -> Self {
        Self { delay: Duration::from_millis(milliseconds), loss_percent: 0, rate: None }
    }

    /// True for a cable that needs no user space.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate.map(|rate| format!(", {} kbit/s", rate / 1000)).unwrap_or_default();
        write!(f, "{} ms each way, {} % lost{rate}", self.delay.as_millis(), self.loss_percent)
    }
}

/// A running link; its threads end when its devices are deleted.
#[derive(Clone, Debug)]
pub struct Link {
    quality: Arc<RwLock<Quality>>,
}

impl Link {
    /// Makes two TAP devices in `host` and carries frames between them.
    ///
    /// # Errors
    /// A name is taken, or there is no /dev/net/tun.
    pub fn join(host: &Host, names: [&str; 2], quality: Quality) -> Result<Self> {
        let [one, other] = [device(host, names[0])?, device(host, names[1])?].map(Arc::new);
        let quality = Arc::new(RwLock::new(quality));
        carry(&one, &other, &quality, 1);
        carry(&other, &one, &quality, 2);
        Ok(Self { quality })
    }

    /// From the next frame on.
    pub fn set(&self, quality: Quality) {
        *self.quality.write().unwrap_or_else(std::sync::PoisonError::into_inner) = quality;
    }
}

fn device(host: &Host, name: &str) -> Result<SyncDevice> {
    host.within(|| DeviceBuilder::new().name(name).layer(Layer::L2).mtu(1500).build_sync())?
        .map_err(|error| Trouble::other(format!("{}: device {name}: {error}", host.name), "modprobe tun"))
}

fn carry(from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, quality: &Arc<RwLock<Quality>>, seed: u64) {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    let (from, to, quality) = (Arc::clone(from), Arc::clone(to), Arc::clone(quality));
    std::thread::spawn(move || take(&from, &sender, &quality, seed));
    std::thread::spawn(move || give(&to, &receiver));
}

/// Reads until the device is deleted.
fn take(device: &SyncDevice, line: &SyncSender<(Instant, Vec<u8>)>, quality: &RwLock<Quality>, seed: u64) {
    let mut frame = [0u8; FRAME];
    let mut wire = Wire { free_at: Instant::now(), dice: seed };
    while let Ok(length) = device.recv(&mut frame) {
        let quality = *quality.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(due) = wire.due(quality, length, Instant::now()) {
            line.try_send((due, frame[..length].to_vec())).ok();
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

/// One direction: when it is free again, and what is lost.
struct Wire {
    free_at: Instant,
    dice: u64,
}

impl Wire {
    /// When a frame of `length` bytes arrives that came at `now`; none if it is lost.
    fn due(&mut self, quality: Quality, length: usize, now: Instant) -> Option<Instant> {
        // Knuth's multiplier and increment (MMIX), the high bits of which are good enough for losses.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (self.dice >> 33) % 100 < u64::from(quality.loss_percent) {
            return None;
        }
        let begin = self.free_at.max(now);
        if begin.duration_since(now) > BUFFER {
            return None;
        }
        let nanoseconds = |rate: u64| (length as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1);
        self.free_at = begin + Duration::from_nanos(quality.rate.map_or(0, nanoseconds));
        Some(self.free_at + quality.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spaces_frames_and_its_queue_has_an_end() {
        let now = Instant::now();
        let mut wire = Wire { free_at: now, dice: 1 };
        // 1,250 bytes at 1 Mbit/s take ten milliseconds.
        let quality = Quality { rate: Some(1_000_000), ..Quality::delayed(5) };
        let due: Vec<_> = (0..100).filter_map(|_| wire.due(quality, 1250, now)).collect();
        assert_eq!(due[0] - now, Duration::from_millis(15));
        assert_eq!(due[1] - due[0], Duration::from_millis(10));
        assert_eq!(due.len(), 26, "250 ms of frames wait, and the one that is on the wire");
    }

    #[test]
    fn loss_is_what_it_says() {
        let now = Instant::now();
        let mut wire = Wire { free_at: now, dice: 1 };
        let quality = Quality { loss_percent: 20, ..Quality::default() };
        let arrived = (0..10_000).filter(|_| wire.due(quality, 100, now).is_some()).count();
        assert!((7_800..8_200).contains(&arrived), "{arrived} of 10,000");
    }
}
