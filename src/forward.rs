//! The forwarding plane: pairs of plain blocking threads, TUN→UDP and UDP→TUN, that run to completion.
//!
//! Owns: starting and stopping them, and what they share. Each reads a batch, asks the table, seals or opens, and
//! sends; what it cannot decide goes to control through a bounded queue. Never: an allocation, a channel, a log
//! line or a clock reading per packet.

mod current;
mod doors;
mod duty;
mod interrupt;
mod inward;
mod opener;
mod outward;
mod oversize;
mod responder;
mod tables;
mod writer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use frejus_overlay::forward::Exception;
use frejus_overlay::id::TunnelKey;
use frejus_overlay::locator::DoorId;
use frejus_overlay::verdict::{Counters, Drop as Reason};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::pthread::pthread_kill;

use crate::clock::Clock;
use crate::exits::Exits;
use crate::gate::Gate;
use crate::stream::{self, Outlets};
use crate::tun::Tun;
use crate::udp::{Doors, Udp};

use current::Current;
use doors::Doorway;
use duty::Duty;
use inward::Inward;
use opener::Opener;
use outward::Outward;
use responder::Responder;
pub use tables::Published;

/// Threads that are to end are woken this often until they have.
const AGAIN: Duration = Duration::from_millis(1);
/// What may wait for control: 1,024 messages of at most [`LONGEST_EXCEPTION`] are 16 MiB at the very worst, and some
/// 200 KiB in real life. Control handles that many in a few milliseconds.
pub const EXCEPTION_QUEUE: usize = 1024;
/// The longest message that control gets; a knock with every document in it is a quarter of that.
const LONGEST_EXCEPTION: usize = 16 << 10;

/// What is called once, when the device has disappeared.
type Lost = Box<dyn FnOnce() + Send>;

/// The queue to control, bounded by [`EXCEPTION_QUEUE`].
#[must_use]
pub fn exceptions() -> (Sender<Exception>, Receiver<Exception>) {
    crossbeam_channel::bounded(EXCEPTION_QUEUE)
}

/// What forwarding is made of.
pub struct ForwardParts {
    /// The device, by its queues. Each has a pair of threads, and the kernel keeps a flow in one of them.
    pub tuns: Vec<Arc<Tun>>,
    /// The sockets, as many of a family as the device has queues.
    pub udp: Udp,
    /// Further ones, that control opens and closes.
    pub doors: Doors,
    /// Connections, that control opens and closes.
    pub streams: Outlets,
    /// Swapped by control.
    pub table: Arc<Published>,
    /// To control, see [`exceptions`].
    pub exceptions: Sender<Exception>,
    /// Our public one, which handshakes must name.
    pub tunnel_key: TunnelKey,
    /// Read once a batch.
    pub clock: Clock,
    /// Called if the device disappears.
    pub lost: Box<dyn FnOnce() + Send>,
}

/// What every pair of threads has of the same.
struct Shared {
    doors: Doors,
    streams: Outlets,
    table: Arc<Published>,
    exceptions: Sender<Exception>,
    gate: Arc<Mutex<Gate>>,
    responder: Arc<Mutex<Responder>>,
    clock: Clock,
    /// Whoever notices first calls it.
    lost: Arc<Mutex<Option<Lost>>>,
}

impl Shared {
    fn exits(&self, udp: &Udp) -> Exits {
        Exits { udp: udp.clone(), doors: self.doors.clone(), streams: self.streams.clone() }
    }
}

/// The running threads, a pair for each queue of the device.
pub struct Forwarding {
    stops: Vec<Arc<Stop>>,
    threads: Vec<JoinHandle<()>>,
    counters: Vec<Arc<Counters>>,
    current: Option<Current>,
}

impl Forwarding {
    /// Starts the threads.
    ///
    /// # Errors
    /// The kernel gives no event descriptor or no thread; or there are fewer sockets than queues.
    pub fn start(parts: ForwardParts) -> io::Result<Self> {
        interrupt::install()?;
        let ForwardParts { tuns, udp, doors, streams, table, exceptions, tunnel_key, clock, lost } = parts;
        let gate = Arc::new(Mutex::new(Gate::new(&tunnel_key)));
        let lost = Arc::new(Mutex::new(Some(lost)));
        let mut forwarding =
            Self { stops: Vec::new(), threads: Vec::new(), counters: Vec::new(), current: None };
        let responder = Arc::new(Mutex::new(Responder::new(udp.port(), doors.port(DoorId::STUN))));
        let shared = Shared { doors, streams, table, exceptions, gate, responder, clock, lost };
        let first = tuns.first().map(Arc::clone);
        for (queue, tun) in tuns.into_iter().enumerate() {
            let udp = udp.queue(queue).ok_or(io::ErrorKind::InvalidInput)?;
            forwarding.start_pair(&tun, &udp, &shared)?;
        }
        if let Some(tun) = first {
            forwarding.start_doorway(&tun, &udp, &shared)?;
            let opener = forwarding.opener(&tun, shared.exits(&udp), &shared);
            let current = Current::new(Arc::clone(&shared.table), opener, shared.clock.clone());
            forwarding.current = Some(current);
        }
        Ok(forwarding)
    }

    fn start_pair(&mut self, tun: &Arc<Tun>, udp: &Udp, shared: &Shared) -> io::Result<()> {
        let stop = self.stop_sign()?;
        let exits = shared.exits(udp);
        let (table, clock) = (&shared.table, &shared.clock);
        let control = self.control(shared);
        let outward = Outward::new(Arc::clone(tun), exits.clone(), Arc::clone(table), control, clock.clone());
        let opener = self.opener(tun, exits, shared);
        let inward = Inward::new(Arc::clone(tun), udp.clone(), Arc::clone(table), opener, clock.clone());
        let duty = Arc::new(Duty::new(outward));
        let (stops, outwards) = (Arc::clone(&stop), Arc::clone(&duty));
        let lost = Arc::clone(&shared.lost);
        let lost = move || {
            if let Some(lost) = lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
                lost();
            }
        };
        let thread = self.spawn("frejus-outward", move || outwards.run(&stops, lost))?;
        self.spawn("frejus-inward", move || inward.run(&stop, &duty, &thread))?;
        Ok(())
    }

    fn start_doorway(&mut self, tun: &Arc<Tun>, udp: &Udp, shared: &Shared) -> io::Result<()> {
        let stop = self.stop_sign()?;
        let opener = self.opener(tun, shared.exits(udp), shared);
        let (doors, table) = (shared.doors.clone(), Arc::clone(&shared.table));
        let doorway = Doorway::new(doors, table, opener, shared.clock.clone());
        self.spawn("frejus-doors", move || doorway.run(&stop))?;
        Ok(())
    }

    fn opener(&mut self, tun: &Arc<Tun>, exits: Exits, shared: &Shared) -> Opener {
        Opener::new(Arc::clone(tun), exits, self.control(shared), shared)
    }

    /// What reads streams hands their datagrams to this; once.
    pub fn take_current(&mut self) -> Option<Box<dyn stream::Inward>> {
        self.current.take().map(|current| Box::new(current) as Box<dyn stream::Inward>)
    }

    fn stop_sign(&mut self) -> io::Result<Arc<Stop>> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let stop = Arc::new(Stop { flag: AtomicBool::new(false), event });
        self.stops.push(Arc::clone(&stop));
        Ok(stop)
    }

    /// The way to control of one more thread, with counters of its own.
    fn control(&mut self, shared: &Shared) -> Control {
        let counters = Arc::<Counters>::default();
        self.counters.push(Arc::clone(&counters));
        Control { queue: shared.exceptions.clone(), counters }
    }

    /// What the threads counted: outward and inward, of one pair after the other; then the doors' and the streams'.
    #[must_use]
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Ends both threads and waits for them; what they have read is still sent.
    pub fn stop(mut self) {
        self.end();
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        let thread = handle.thread().clone();
        self.threads.push(handle);
        Ok(thread)
    }

    fn end(&mut self) {
        for stop in &self.stops {
            stop.flag.store(true, Ordering::Relaxed);
            stop.kick();
        }
        for thread in self.threads.drain(..) {
            // A signal that comes before the call it should interrupt is lost: it is sent until the thread has ended.
            while !thread.is_finished() {
                thread.thread().unpark();
                pthread_kill(thread.as_pthread_t(), interrupt::WAKE).ok();
                std::thread::sleep(AGAIN);
            }
            if thread.join().is_err() {
                tracing::error!("a forwarding thread panicked");
            }
        }
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.end();
    }
}

/// The sum of several threads' counters.
#[must_use]
pub fn sum<'a>(sets: impl IntoIterator<Item = &'a Counters>) -> Counters {
    let total = Counters::default();
    for set in sets {
        for (to, from) in [
            (&total.packets_out, &set.packets_out),
            (&total.packets_in, &set.packets_in),
            (&total.relayed, &set.relayed),
        ] {
            to.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for reason in Reason::ALL {
            total.count_many(*reason, set.dropped(*reason));
        }
    }
    total
}

/// How the threads are told to end: the flag between batches, the descriptor while they sleep.
struct Stop {
    flag: AtomicBool,
    event: EventFd,
}

/// Descriptors that a thread waits for at once: a socket of each family, the device.
const WAITED: usize = 3;

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Makes [`Self::wait`] return, for a look at what has changed.
    fn kick(&self) {
        self.event.write(1).ok();
    }

    /// Sleeps until one of the descriptors has something to read, or until a [`Self::kick`]; for each whether it has.
    /// `None` at the end.
    fn wait(&self, descriptors: [Option<BorrowedFd<'_>>; WAITED]) -> Option<[bool; WAITED]> {
        let wake = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut all = [const { None }; WAITED + 1].map(|_: Option<()>| wake(self.event.as_fd()));
        let mut polled = 1;
        for descriptor in descriptors.into_iter().flatten() {
            all[polled] = wake(descriptor);
            polled += 1;
        }
        while poll(&mut all[..polled], PollTimeout::NONE) == Err(Errno::EINTR) && !self.is_set() {}
        if self.is_set() {
            return None;
        }
        let mut ready = all[..polled].iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if ready.next() == Some(true) {
            self.event.read().ok();
        }
        Some(descriptors.map(|descriptor| descriptor.is_some() && ready.next() == Some(true)))
    }
}

/// The way to control.
struct Control {
    queue: Sender<Exception>,
    counters: Arc<Counters>,
}

impl Control {
    /// As [`Self::tell`], for packets of this host: they fill no more than half of the queue, so that a program that
    /// calls a dead address at full speed keeps no handshake out.
    fn tell_of_our_own(&self, exception: Exception) {
        if self.queue.len() < EXCEPTION_QUEUE / 2 {
            self.tell(exception);
        } else {
            self.counters.count_many(Reason::ControlBusy, 1);
        }
    }

    /// Whether control will get it; if not, that is counted.
    fn tell(&self, exception: Exception) -> bool {
        match self.queue.try_send(exception) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.count_many(Reason::ControlBusy, 1);
                false
            }
        }
    }
}
