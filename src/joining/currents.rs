//! The doors of a code by TCP, for a newcomer whose UDP is blocked.
//!
//! Owns: when a door is dialled, and what it is sent once a stream stands. Never: what is said, which is the enrolment's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use frejus_overlay::code::Door;
use frejus_overlay::locator::StreamId;
use frejus_overlay::stream::StreamEvent;
use frejus_overlay::timing::Instant;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::failure::Failure;
use crate::stream::{Inward, Outlets, Proxy, Run, Streams};

/// How long UDP has to itself, as for a node's home.
const AFTER_UDP: Duration = Duration::from_millis(700);
/// A door that did not open is dialled again after this long.
const AGAIN: Duration = Duration::from_secs(2);
/// How long any other way has before a proxy that refuses is the reason: a few requests over UDP.
const OTHER_WAYS: Duration = Duration::from_secs(4);
/// Words from the streams that wait to be heard: a few doors, an answer each.
const WORDS: usize = 64;

/// See the module.
pub(super) struct Currents {
    doors: Vec<Door>,
    proxy: Option<Proxy>,
    /// When each door is dialled next; `None` while it is, or stands open.
    dial: Vec<Option<Instant>>,
    open: Vec<bool>,
    /// The last request to each door.
    requests: BTreeMap<usize, Vec<u8>>,
    running: Option<Streams>,
    outlets: Outlets,
    words: (Sender<Word>, Receiver<Word>),
    wake: Arc<EventFd>,
    began: Instant,
}

/// What the streams say.
enum Word {
    Event(usize, StreamEvent),
    Datagram(usize, Vec<u8>),
}

/// What was read, on its way to the newcomer.
struct Mail {
    words: Sender<Word>,
    wake: Arc<EventFd>,
}

impl Mail {
    fn tell(&self, word: Word) -> bool {
        let told = self.words.try_send(word).is_ok();
        self.wake.write(1).ok();
        told
    }
}

impl Inward for Mail {
    fn take(&mut self, id: StreamId, _from: SocketAddr, arena: &mut [u8], runs: &[Run]) {
        let Some(door) = door_of(id) else { return };
        for run in runs {
            for datagram in arena[run.start..run.end].chunks(run.stride) {
                self.tell(Word::Datagram(door, datagram.to_vec()));
            }
        }
    }
}

/// Streams have even numbers, from 2 on.
fn stream_to(door: usize) -> StreamId {
    StreamId(u32::try_from(door).map_or(u32::MAX, |door| 2 * (door + 1)))
}

fn door_of(id: StreamId) -> Option<usize> {
    (id.0 / 2).checked_sub(1).and_then(|door| usize::try_from(door).ok())
}

impl Currents {
    pub(super) fn new(doors: &[Door], proxy: Option<&Proxy>, now: Instant) -> Result<Self, Failure> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let wake =
            wake.map_err(|error| Failure::other(format!("no event descriptor: {error}"), "try again"))?;
        Ok(Self {
            dial: vec![Some(now + AFTER_UDP); doors.len()],
            open: vec![false; doors.len()],
            doors: doors.to_vec(),
            proxy: proxy.cloned(),
            requests: BTreeMap::new(),
            running: None,
            outlets: Outlets::default(),
            words: bounded(WORDS),
            wake: Arc::new(wake),
            began: now,
        })
    }

    /// Why the proxy lets nobody through, once no other way has worked for a while.
    pub(super) fn refusal(&self, now: Instant) -> Option<(String, String)> {
        let alone = !self.open.contains(&true) && now.since(self.began) >= OTHER_WAYS;
        self.proxy.as_ref().filter(|_| alone)?.refusal()
    }

    /// Ready to read when [`Self::hear`] has something.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.dial.iter().flatten().min().copied()
    }

    /// Dials what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for door in 0..self.doors.len() {
            if self.dial[door].is_some_and(|at| at <= now) {
                self.dial[door] = None;
                let to = self.doors[door].addresses.clone();
                match self.streams() {
                    Ok(streams) => streams.open(stream_to(door), to),
                    Err(error) => tracing::debug!(%error, "no streams"),
                }
            }
        }
    }

    fn streams(&mut self) -> std::io::Result<&Streams> {
        if self.running.is_none() {
            let mail = || Mail { words: self.words.0.clone(), wake: Arc::clone(&self.wake) };
            let events = mail();
            let tell = move |id, event| door_of(id).is_some_and(|door| events.tell(Word::Event(door, event)));
            let (outlets, proxy) = (self.outlets.clone(), self.proxy.clone());
            self.running = Some(Streams::start(outlets, Box::new(mail()), Box::new(tell), proxy)?);
        }
        self.running.as_ref().ok_or_else(|| std::io::ErrorKind::NotConnected.into())
    }

    /// The same request as over UDP; kept until the door opens.
    pub(super) fn send(&mut self, to: SocketAddr, request: &[u8]) {
        // Every address of a door gets the same request, and one stream leads to all.
        let Some(door) = self.doors.iter().position(|door| door.addresses.first() == Some(&to)) else {
            return;
        };
        self.requests.insert(door, request.to_vec());
        self.ask(door);
    }

    fn ask(&self, door: usize) {
        if let Some(request) = self.requests.get(&door).filter(|_| self.open[door]) {
            self.outlets.send(stream_to(door), request, request.len()).ok();
        }
    }

    /// The next answer, and an address of the door that gave it.
    pub(super) fn hear(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.wake.read().ok();
        while let Ok(word) = self.words.1.try_recv() {
            match word {
                Word::Datagram(door, bytes) => {
                    return self.doors.get(door)?.addresses.first().map(|at| (*at, bytes));
                }
                Word::Event(door, StreamEvent::Open { .. }) => {
                    self.open[door] = true;
                    self.ask(door);
                }
                // No port is ever asked about.
                Word::Event(_, StreamEvent::Seen { .. }) => {}
                Word::Event(door, StreamEvent::Closed) => {
                    self.open[door] = false;
                    self.dial[door] = Some(now + AGAIN);
                }
            }
        }
        None
    }
}
