//! What waits to be written to one stream.
//!
//! Owns: [`Outlet`], a queue bounded in bytes, in which the oldest give way to the newest: TCP sends again what was lost,
//! so the only place where a stream can drop what came too late is before it. Never: a system call, or a wait of whoever
//! puts something in.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frejus_overlay::wire::stream::{HEADER, Header, MAX};
use tokio::sync::Notify;

/// What may wait, as a time: longer, and a ping behind a download is lost rather than late.
const PATIENCE: Duration = Duration::from_millis(100);
/// Even on the slowest line some packets may wait, or no burst survives: 100 ms at 2.6 Mb/s.
const LEAST: usize = 32 << 10;
/// More does no good on the fastest: 100 ms at 42 Mb/s, and whoever is faster drains it sooner.
const MOST: usize = 512 << 10;
/// Until the first measurement.
const FIRST: usize = 128 << 10;
/// Taken out at once, if there is more than one record: one TLS record (RFC 8446, section 5.1).
const CHUNK: usize = 16 << 10;
/// A measurement takes so long, or so many bytes.
const MEASURED: (Duration, usize) = (Duration::from_millis(100), 1 << 20);

/// See the module.
#[derive(Debug)]
pub(super) struct Outlet {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// The stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

#[derive(Debug)]
struct Waiting {
    /// Records, one behind the other.
    bytes: VecDeque<u8>,
    limit: usize,
    /// Written since the last measurement, and how long that took.
    drained: (Duration, usize),
    open: bool,
}

impl Outlet {
    pub(super) fn new() -> Self {
        let waiting =
            Waiting { bytes: VecDeque::new(), limit: FIRST, drained: (Duration::ZERO, 0), open: true };
        Self { waiting: Mutex::new(waiting), filled: Notify::new() }
    }

    /// Puts datagrams of `stride` bytes in, the last maybe shorter; how many older ones had to go, or these themselves if
    /// they fit into no record.
    pub(super) fn push(&self, frames: &[u8], stride: usize) -> Result<u64, Gone> {
        let mut waiting = self.lock();
        if !waiting.open {
            return Err(Gone);
        }
        let mut dropped = 0;
        // A relay's run may be longer than a record.
        let stride = stride.max(1);
        let most = if frames.len() <= MAX { MAX } else { (MAX / stride).max(1) * stride };
        for run in frames.chunks(most) {
            dropped += waiting.push(run, stride);
        }
        drop(waiting);
        self.filled.notify_one();
        Ok(dropped)
    }

    /// Waits for records, and moves some into `chunk`; `false` at the end.
    pub(super) async fn take(&self, chunk: &mut Vec<u8>) -> bool {
        chunk.clear();
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.open {
                    return false;
                }
                waiting.take(chunk);
            }
            if !chunk.is_empty() {
                return true;
            }
            self.filled.notified().await;
        }
    }

    /// So many bytes were written in that time; what may wait is what the stream drains in [`PATIENCE`].
    pub(super) fn drained(&self, bytes: usize, took: Duration) {
        self.lock().measure(bytes, took);
    }

    /// Nothing goes in or out any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.open = false;
        waiting.bytes = VecDeque::new();
        drop(waiting);
        self.filled.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().bytes.is_empty()
    }

    /// Waits for [`Self::close`], while nobody takes anything.
    pub(super) async fn ended(&self) {
        while self.lock().open {
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, run: &[u8], stride: usize) -> u64 {
        let Some(header) = Header::new(run.len(), stride) else {
            return run.len().div_ceil(stride.max(1)) as u64;
        };
        let mut dropped = 0;
        while self.bytes.len() + HEADER + run.len() > self.limit
            && let Some(oldest) = self.front()
        {
            self.bytes.drain(..HEADER + oldest.length());
            dropped += oldest.datagrams();
        }
        self.bytes.extend(&header.encode());
        self.bytes.extend(run);
        dropped
    }

    fn take(&mut self, chunk: &mut Vec<u8>) {
        while let Some(header) = self.front() {
            let size = HEADER + header.length();
            if !chunk.is_empty() && chunk.len() + size > CHUNK {
                return;
            }
            chunk.extend(self.bytes.drain(..size));
        }
    }

    fn front(&self) -> Option<Header> {
        let mut bytes = self.bytes.iter().copied();
        let header = [bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?];
        Some(Header::decode(header).expect("whole records go in and out"))
    }

    fn measure(&mut self, bytes: usize, took: Duration) {
        let (time, amount) = (self.drained.0 + took, self.drained.1 + bytes);
        if time < MEASURED.0 && amount < MEASURED.1 {
            self.drained = (time, amount);
            return;
        }
        self.drained = (Duration::ZERO, 0);
        let fits = amount as f64 * PATIENCE.as_secs_f64() / time.as_secs_f64().max(1e-6);
        self.limit = (fits as usize).clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outlet: &Outlet) -> usize {
        outlet.lock().bytes.len()
    }

    async fn all(outlet: &Outlet) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), Vec::new());
        while waiting(outlet) > 0 && outlet.take(&mut chunk).await {
            all.extend_from_slice(&chunk);
        }
        all
    }

    #[tokio::test]
    async fn records_come_out_whole_and_in_order() {
        let outlet = Outlet::new();
        assert_eq!(outlet.push(b"one", 3), Ok(0));
        assert_eq!(outlet.push(&[2; 100], 64), Ok(0));
        let mut chunk = Vec::new();
        assert!(outlet.take(&mut chunk).await);
        assert_eq!(chunk, [&[0, 3, 0, 3][..], b"one", &[0, 100, 0, 64], &[2; 100]].concat());
        assert_eq!(waiting(&outlet), 0);
    }

    #[tokio::test]
    async fn the_oldest_give_way() {
        let outlet = Outlet::new();
        let mut dropped = 0;
        for number in 0..1000_u16 {
            dropped += outlet.push(&[number as u8; 1300], 1300).unwrap();
            assert!(waiting(&outlet) <= FIRST);
        }
        let kept = FIRST / (1300 + HEADER);
        assert_eq!(dropped, 1000 - kept as u64);
        let bytes = all(&outlet).await;
        assert_eq!(bytes.len(), kept * 1304);
        assert_eq!(bytes[4], (1000 - kept) as u8, "the oldest that is left");
        assert_eq!(bytes.last(), Some(&(999_u16 as u8)), "the newest is never dropped");
    }

    #[test]
    fn what_may_wait_follows_the_line() {
        let outlet = Outlet::new();
        let limit = || outlet.lock().limit;
        // 5 Mb/s: 62.5 kB in 100 ms.
        outlet.drained(31_250, Duration::from_millis(50));
        assert_eq!(limit(), FIRST, "not measured for long enough");
        outlet.drained(31_250, Duration::from_millis(50));
        assert_eq!(limit(), 62_500);
        outlet.drained(1000, Duration::from_millis(500));
        assert_eq!(limit(), LEAST);
        outlet.drained(4 << 20, Duration::from_millis(2));
        assert_eq!(limit(), MOST);
    }

    #[test]
    fn the_longest_run_fits_even_where_little_may_wait() {
        let outlet = Outlet::new();
        outlet.drained(1000, Duration::from_millis(500));
        assert_eq!(outlet.push(&[0; 100], 100), Ok(0));
        assert_eq!(outlet.push(&[0; 65_500], 1310), Ok(1), "it alone waits");
        assert_eq!(waiting(&outlet), 65_504);
        assert_eq!(outlet.push(&[0; 131_000], 1310), Ok(50 + 50), "two records, of which one is left");
        assert_eq!(outlet.push(&[0; 70_000], 70_000), Ok(1), "too long for any record");
    }

    #[tokio::test]
    async fn after_the_end_nothing_waits() {
        let outlet = Outlet::new();
        outlet.push(b"late", 4).unwrap();
        outlet.close();
        assert_eq!(outlet.push(b"later", 5), Err(Gone));
        assert!(!outlet.take(&mut Vec::new()).await);
        outlet.ended().await;
        assert_eq!(waiting(&outlet), 0);
    }
}
