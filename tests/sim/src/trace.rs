//! What happened: a digest of every byte sent, and the last events for whoever must explain a failure.
//!
//! Owns: [`Trace`]. Never: an opinion about what it records.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use frejus_overlay::timing::Instant;
use frejus_overlay::wire::{self, Frame, Wireguard};
use sha2::{Digest, Sha256};

use crate::internet::{Fate, HostId};

/// What is kept of an event.
#[derive(Clone, Debug)]
pub enum Note {
    /// A host sent a datagram; `fate` if it went nowhere.
    Sent(HostId, SocketAddr, Arc<[u8]>, Option<Fate>),
    /// A datagram reached a host.
    Arrived(HostId, SocketAddr, Arc<[u8]>),
    /// A NAT did not let it in.
    Refused(Fate, SocketAddr, SocketAddr),
    /// Something a host did or heard.
    Said(HostId, String),
}

/// Events kept for a failure.
const KEPT: usize = 120;

/// The record of one world.
#[derive(Clone, Debug)]
pub struct Trace {
    notes: VecDeque<(Instant, Note)>,
    digest: Sha256,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Set to keep a copy of every datagram sent.
    pub capture: Option<Vec<Captured>>,
}

/// A datagram as it left a host.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// Whose.
    pub from: HostId,
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { notes: VecDeque::with_capacity(KEPT), digest: Sha256::new(), datagrams: 0, capture: None }
    }
}

impl Trace {
    /// Remember an event.
    pub fn note(&mut self, at: Instant, note: Note) {
        if self.notes.len() == KEPT {
            self.notes.pop_front();
        }
        self.notes.push_back((at, note));
    }

    /// A datagram leaves a host.
    pub fn sent(&mut self, at: Instant, from: HostId, to: SocketAddr, bytes: &[u8]) {
        self.datagrams += 1;
        self.digest.update(at.since_start().as_nanos().to_be_bytes());
        self.digest.update((from.0 as u64).to_be_bytes());
        match to.ip() {
            IpAddr::V4(v4) => self.digest.update(v4.octets()),
            IpAddr::V6(v6) => self.digest.update(v6.octets()),
        }
        self.digest.update(to.port().to_be_bytes());
        self.digest.update(bytes);
        if let Some(capture) = &mut self.capture {
            capture.push(Captured { at, from, to, bytes: bytes.to_vec() });
        }
    }

    /// Of everything sent so far, in order, with its time.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// The last events as a sequence diagram; `name` says who a host or an address is.
    #[must_use]
    pub fn draw(&self, host: impl Fn(HostId) -> String, address: impl Fn(SocketAddr) -> String) -> String {
        let mut text = String::new();
        for (at, note) in &self.notes {
            let line = match note {
                Note::Sent(from, to, bytes, fate) => {
                    let what = describe(bytes);
                    let fate = fate.map_or(String::new(), |fate| format!("   ✗ {fate:?}"));
                    format!("{:>8} ──▶ {:<28} {what}{fate}", host(*from), address(*to))
                }
                Note::Arrived(at, from, bytes) => {
                    let what = describe(bytes);
                    format!("{:>8} ◀── {:<28} {what}", host(*at), address(*from))
                }
                Note::Refused(fate, from, to) => {
                    format!("{:>8} ✗   {} ▶ {}: {fate:?}", "nat", address(*from), address(*to))
                }
                Note::Said(at, what) => format!("{:>8}  •  {what}", host(*at)),
            };
            let _ = writeln!(text, "{:>12.6} {line}", at.since_start().as_secs_f64());
        }
        text
    }
}

/// A datagram in a few words.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    let length = bytes.len();
    match wire::classify(bytes) {
        Some(Frame::Wireguard(Wireguard::Initiation)) => "initiation".to_owned(),
        Some(Frame::Wireguard(Wireguard::Answer(receiver))) => format!("response to {receiver:08x}"),
        Some(Frame::Wireguard(Wireguard::Data(receiver))) => format!("data to {receiver:08x} ({length})"),
        Some(Frame::Stun) => format!("stun ({length})"),
        Some(Frame::Relay(channel, inner)) => format!("[{channel:?}] {}", describe(inner)),
        Some(Frame::Knock(_)) => format!("knock ({length})"),
        Some(Frame::EnrolRequest(_)) => format!("enrol request ({length})"),
        Some(Frame::EnrolAnswer(_)) => format!("enrol answer ({length})"),
        Some(Frame::Stranger) => "stranger".to_owned(),
        None => format!("garbage ({length})"),
    }
}
