//! Datagrams over TCP and TLS, for nodes whose UDP is blocked.
//!
//! Owns: the connections, on a runtime of their own with one thread: listening, dialling, reading, writing, and the limits
//! of what strangers may hold. Never: a decision about which node to dial or which stream to use, which is the node's; a
//! look into a datagram; a wait of whoever sends one.

mod crossing;
mod dial;
mod inlet;
mod outlet;
mod proxy;
mod socket;
mod strangers;
#[cfg(test)]
mod tests;
mod tls;
mod trial;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use frejus_overlay::locator::StreamId;
use frejus_overlay::stream::{Across, Carrier, StreamEvent, Tried};
use frejus_overlay::verdict::{Counters, Drop as Reason};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsStream;

use crossing::{Port, Word};
use dial::Dialled;
use inlet::Inlet;
use outlet::{Gone, Outlet};
use strangers::Strangers;
use tls::Coat;

pub use frejus_overlay::stream::HTTPS;
pub use inlet::Run;
pub use proxy::{ENVIRONMENT, Proxy};

/// A stranger must have shown within this time that it is a member: TLS, a knock and a handshake are five round trips.
const PROBATION: Duration = Duration::from_secs(10);
/// Streams of members, and those that we dial; each may hold 640 KiB at the worst, and a descriptor.
const MEMBERS: usize = 512;
/// Whoever takes nothing for this long is not written to any more.
const STALLED: Duration = Duration::from_secs(15);
/// At the end, what waits is still written for this long.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// An event that finds its queue full is told again after this long.
const TELL_AGAIN: Duration = Duration::from_millis(20);
/// After the kernel gave no descriptor for a connection.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);
/// What we accept has odd numbers; even ones are the node's to give.
const ACCEPTED: u32 = 1;

/// Where what was read goes.
pub trait Inward: Send {
    /// Runs of datagrams from the stream `id`, whose other end is at `from`, lie in `arena`, where they may be opened.
    fn take(&mut self, id: StreamId, from: SocketAddr, arena: &mut [u8], runs: &[Run]);
}

/// Whoever is told what becomes of streams; `false` if it can't take it just now.
pub type Tell = Box<dyn Fn(StreamId, StreamEvent) -> bool + Send + Sync>;

/// The streams of a node; all end when this is dropped.
pub struct Streams {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

/// The way to write to streams, for every thread.
#[derive(Clone, Default)]
pub struct Outlets {
    live: Arc<ArcSwap<HashMap<StreamId, Arc<Live>>>>,
    counters: Arc<Counters>,
}

/// The stream is gone, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is gone")]
pub struct NoStream;

/// One stream, standing or being dialled.
struct Live {
    outlet: Outlet,
    /// Its other end has proved who it is; those that we dial need not.
    member: AtomicBool,
    /// Of a crossing.
    across: Word,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    coat: Coat,
    proxy: Option<Proxy>,
    outlets: Outlets,
    inward: Mutex<Box<dyn Inward>>,
    tell: Tell,
    strangers: Mutex<Strangers>,
    accepted: AtomicU32,
}

impl Streams {
    /// None yet; nothing listens.
    ///
    /// # Errors
    /// The kernel gives no thread, or there is no randomness for a key.
    pub fn start(
        outlets: Outlets,
        inward: Box<dyn Inward>,
        tell: Tell,
        proxy: Option<Proxy>,
    ) -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("frejus-streams").enable_all().build()?;
        let shared = Shared {
            coat: Coat::new()?,
            proxy,
            outlets,
            inward: Mutex::new(inward),
            tell,
            strangers: Mutex::default(),
            accepted: AtomicU32::new(ACCEPTED),
        };
        Ok(Self { runtime: Some(runtime), shared: Arc::new(shared) })
    }

    /// How many stand or are being dialled, strangers included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.outlets.live.load().len()
    }

    /// Listens for streams; the address, with its port.
    ///
    /// # Errors
    /// What the kernel says: taken, not permitted, no such address.
    pub fn listen(&self, at: SocketAddr) -> io::Result<SocketAddr> {
        let runtime = self.runtime();
        let _context = runtime.enter();
        let listener = socket::listen(at)?;
        let at = listener.local_addr()?;
        runtime.spawn(accept(Arc::clone(&self.shared), listener, carrier_at(at)));
        Ok(at)
    }

    /// Dials the node that may be at any of `addresses`; an event follows. `id` is even.
    pub fn open(&self, id: StreamId, addresses: Vec<SocketAddr>) {
        let live = Arc::new(Live::new(true));
        self.shared.insert(id, &live);
        let shared = Arc::clone(&self.shared);
        let task = self.runtime().spawn(async move {
            let dialled = dial::dial(&shared.coat, shared.proxy.as_ref(), &addresses).await;
            match dialled {
                Ok(dialled) => {
                    let event = StreamEvent::Open { at: dialled.at, carrier: dialled.carrier };
                    _ = carry(&shared, id, dialled.at, dialled.stream, event).await;
                }
                Err(error) => tracing::debug!(?addresses, %error, "no stream stands"),
            }
            shared.end(id, true).await;
        });
        _ = live.task.set(task.abort_handle());
    }

    /// Opens a port and asks the super peers at `ask` where they see it, which is told. Then [`Self::cross`], in time.
    pub fn begin_crossing(&self, id: StreamId, ask: Vec<SocketAddr>) {
        let live = Arc::new(Live::new(true));
        self.shared.insert(id, &live);
        let (shared, crossing) = (Arc::clone(&self.shared), Arc::clone(&live));
        let task = self.runtime().spawn(async move {
            match shared.cross(id, &crossing.across, &ask).await {
                Ok(crossed) => {
                    let event = StreamEvent::Open { at: crossed.at, carrier: crossed.carrier };
                    _ = carry(&shared, id, crossed.at, crossed.stream, event).await;
                }
                Err(error) => tracing::debug!(%error, "a crossing came to nothing"),
            }
            shared.end(id, true).await;
        });
        _ = live.task.set(task.abort_handle());
    }

    /// Connects from a port whose peer is known, while the peer connects to it; an event follows.
    pub fn cross(&self, id: StreamId, across: Across) {
        if let Some(live) = self.shared.outlets.find(id) {
            live.across.set(across);
        }
    }

    /// Opens streams to the nodes at `addresses` and closes them as soon as they stand. `tell` is told once what was
    /// reached; it may say `false` if it can't take that just now.
    pub fn try_out(&self, addresses: Vec<SocketAddr>, tell: impl Fn(Tried) -> bool + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.runtime().spawn(async move {
            let tried = trial::attempt_all(&shared.coat, shared.proxy.as_ref(), &addresses).await;
            while !tell(tried) {
                sleep(TELL_AGAIN).await;
            }
        });
    }

    /// Ends a stream, or the dialling of one. No event follows.
    pub fn close(&self, id: StreamId) {
        self.shared.strangers().remove(id);
        if let Some(live) = self.shared.outlets.remove(id) {
            live.abort();
        }
    }

    /// The other end has proved to be a member: its stream may stay.
    pub fn trust(&self, id: StreamId) {
        if self.count().saturating_sub(self.shared.strangers().len()) > MEMBERS {
            return;
        }
        if let Some(live) = self.shared.outlets.find(id) {
            live.member.store(true, Ordering::Relaxed);
            self.shared.strangers().remove(id);
        }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken by drop alone")
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The goodbyes.
            let began = std::time::Instant::now();
            while began.elapsed() < LAST_WORDS && self.shared.outlets.has_waiting() {
                std::thread::sleep(LAST_WORDS / 20);
            }
            runtime.shutdown_background();
        }
    }
}

impl Outlets {
    /// What gave way is counted here.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Queues datagrams of `stride` bytes, the last maybe shorter; older ones may give way.
    ///
    /// # Errors
    /// The stream is gone.
    pub fn send(&self, id: StreamId, frames: &[u8], stride: usize) -> Result<(), NoStream> {
        let live = self.live.load();
        let dropped = live.get(&id).ok_or(NoStream)?.outlet.push(frames, stride).map_err(|Gone| NoStream)?;
        if dropped > 0 {
            self.counters.count_many(Reason::StreamFull, dropped);
        }
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        self.live.load().values().any(|live| !live.outlet.is_empty())
    }

    fn find(&self, id: StreamId) -> Option<Arc<Live>> {
        self.live.load().get(&id).cloned()
    }

    fn insert(&self, id: StreamId, live: &Arc<Live>) {
        self.live.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(id, Arc::clone(live));
            all
        });
    }

    fn remove(&self, id: StreamId) -> Option<Arc<Live>> {
        let before = self.live.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.remove(&id);
            all
        });
        before.get(&id).cloned()
    }
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlets").field("streams", &self.live.load().len()).finish()
    }
}

impl Live {
    fn new(member: bool) -> Self {
        Self {
            outlet: Outlet::new(),
            member: AtomicBool::new(member),
            across: Word::default(),
            task: OnceLock::new(),
        }
    }

    fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }

    fn abort(&self) {
        self.outlet.close();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Shared {
    fn insert(&self, id: StreamId, live: &Arc<Live>) {
        self.outlets.insert(id, live);
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream ended by itself: whoever knows of it is told, however full the queue.
    async fn end(&self, id: StreamId, known: bool) {
        self.strangers().remove(id);
        if let Some(live) = self.outlets.remove(id) {
            live.outlet.close();
            while known && !(self.tell)(id, StreamEvent::Closed) {
                sleep(TELL_AGAIN).await;
            }
        }
    }

    /// A whole crossing: the port, what the super peers say of it, and the connection.
    async fn cross(&self, id: StreamId, word: &Word, ask: &[SocketAddr]) -> io::Result<Dialled> {
        let port = Port::open(&self.coat, ask).await?;
        while !(self.tell)(id, StreamEvent::Seen { at: port.seen() }) {
            sleep(TELL_AGAIN).await;
        }
        let across = word.hear().await?;
        port.cross(&self.coat, across).await
    }

    /// Takes a connection on, for some other stranger's if there are too many.
    fn welcome(self: &Arc<Self>, socket: TcpStream, from: SocketAddr, carrier: Carrier) {
        let id = StreamId(self.accepted.fetch_add(2, Ordering::Relaxed));
        let gone = self.strangers().admit(id, from.ip());
        if let Some(live) = gone.and_then(|gone| self.outlets.find(gone)) {
            // It ends itself, so that its users hear of it.
            live.outlet.close();
        }
        let live = Arc::new(Live::new(false));
        self.insert(id, &live);
        let (shared, probation) = (Arc::clone(self), Arc::clone(&live));
        let task = tokio::spawn(async move {
            let greeted = tokio::select! {
                greeted = timeout(PROBATION, greet(&shared.coat, socket)) => greeted,
                () = probation.outlet.ended() => Ok(Err(io::ErrorKind::ConnectionAborted.into())),
            };
            let told = match greeted {
                Ok(Ok(stream)) => {
                    carry(&shared, id, from, stream, StreamEvent::Open { at: from, carrier }).await
                }
                Ok(Err(_)) | Err(_) => false,
            };
            shared.end(id, told).await;
        });
        _ = live.task.set(task.abort_handle());
    }
}

const fn carrier_at(at: SocketAddr) -> Carrier {
    if at.port() == HTTPS { Carrier::Tls } else { Carrier::Tcp }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, carrier: Carrier) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => shared.welcome(socket, from, carrier),
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                sleep(NO_DESCRIPTOR).await;
            }
        }
    }
}

async fn greet(coat: &Coat, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    socket::prepare(&socket)?;
    let mut stream = coat.accept(socket).await?;
    dial::greet(&mut stream).await?;
    Ok(stream)
}

/// A stream that stands, until its end; whether anybody knows of it.
async fn carry(
    shared: &Shared,
    id: StreamId,
    at: SocketAddr,
    stream: TlsStream<TcpStream>,
    event: StreamEvent,
) -> bool {
    let Some(live) = shared.outlets.find(id) else { return false };
    // Somebody who does not know that the stream stands can't use it.
    if !(shared.tell)(id, event) {
        return false;
    }
    let (from, to) = tokio::io::split(stream);
    let probation = async {
        sleep(PROBATION).await;
        if live.is_member() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = read(shared, id, at, &live, from) => ended,
        ended = write(&live.outlet, to) => ended,
        () = probation => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = ended {
        tracing::debug!(?id, %error, "a stream ended");
    }
    true
}

async fn read<R: AsyncRead + Unpin>(
    shared: &Shared,
    id: StreamId,
    at: SocketAddr,
    live: &Live,
    mut from: R,
) -> io::Result<()> {
    let mut inlet = Inlet::new();
    while inlet.read(&mut from, live.is_member()).await? {
        let (arena, runs) = inlet.records();
        if !runs.is_empty() {
            shared.inward.lock().unwrap_or_else(PoisonError::into_inner).take(id, at, arena, runs);
        }
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(outlet: &Outlet, mut to: W) -> io::Result<()> {
    let mut chunk = Vec::new();
    while outlet.take(&mut chunk).await {
        let began = Instant::now();
        let written = async {
            to.write_all(&chunk).await?;
            to.flush().await
        };
        timeout(STALLED, written).await??;
        outlet.drained(chunk.len(), began.elapsed());
    }
    Ok(())
}
