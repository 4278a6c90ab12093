//! A port from which a node connects to a peer that connects to it at the same time.
//!
//! Owns: the port, what super peers say of it by STUN (RFC 8489, section 6.2.2), and the attempts. Never: to whom, when or
//! how often; that is the node's decision.
//!
//! Nothing listens there: both sides connect, and TCP makes one connection of it (RFC 9293, section 3.5). A SYN that the
//! peer's router drops is enough to let the peer's in. One that it refuses ends the attempt, and the peer's finds nobody,
//! so the next attempt follows at once. (To listen meanwhile is no use: a router that knows sequence numbers, as Linux
//! does, lets through what continues the SYN that it saw, and not an answer of another socket.)

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use frejus_overlay::stream::{Across, Carrier};
use frejus_overlay::stun;
use frejus_overlay::wire::stream::Header;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsStream;

use super::dial::{Dialled, greet};
use super::inlet::Inlet;
use super::socket;
use super::tls::Coat;

/// Super peers have answered in this time: TCP, TLS, the greeting and the question are five round trips.
const LOOK: Duration = Duration::from_secs(4);
/// When one has, the other is waited for so long.
const OTHER: Duration = Duration::from_secs(1);
/// The peer has found out as much in this time, or never will.
const WORD: Duration = Duration::from_secs(15);
/// One attempt: shorter than the second after which the kernel sends its SYN again (RFC 6298, section 2), so that an
/// attempt is one packet to whoever is there.
const ATTEMPT: Duration = Duration::from_millis(900);
/// Pauses after an attempt that was refused; the last one repeats. The first are much shorter than a round trip, so that
/// mostly an attempt is under way when the peer's SYN comes.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(3),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
];
/// TLS and the greeting.
const DRESS: Duration = Duration::from_secs(6);

/// What the node says to the task that waits with a port.
#[derive(Debug, Default)]
pub(super) struct Word {
    across: OnceLock<Across>,
    said: Notify,
}

impl Word {
    /// Says it, once.
    pub(super) fn set(&self, across: Across) {
        if self.across.set(across).is_ok() {
            self.said.notify_one();
        }
    }

    /// Waits for it.
    pub(super) async fn hear(&self) -> io::Result<Across> {
        timeout(WORD, self.said.notified()).await?;
        self.across.get().copied().ok_or_else(|| io::ErrorKind::Interrupted.into())
    }
}

/// A port that nobody else has, and what is known of it.
#[derive(Debug)]
pub(super) struct Port {
    at: SocketAddr,
    seen: [Option<SocketAddr>; 2],
    /// Keeps the port ours between attempts.
    _held: TcpSocket,
    /// Connections to super peers keep the mapping in the NAT.
    _asked: Vec<TlsStream<TcpStream>>,
}

impl Port {
    /// Opens one, and asks the super peers at `ask` where they see it.
    ///
    /// # Errors
    /// The kernel gives no port, or none of them answers.
    pub(super) async fn open(coat: &Coat, ask: &[SocketAddr]) -> io::Result<Self> {
        let held = socket::at_port((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let at = held.local_addr()?;
        let mut answers = JoinSet::new();
        for to in ask.iter().copied().take(2) {
            let coat = coat.clone();
            answers.spawn(async move { question(&coat, at, to).await });
        }
        let (mut seen, mut asked) = ([None; 2], Vec::new());
        let mut deadline = Instant::now() + LOOK;
        while let Ok(Some(answer)) = timeout_at(deadline, answers.join_next()).await {
            match answer.map_err(io::Error::other)? {
                Ok((stream, place)) => {
                    seen[asked.len()] = Some(place);
                    asked.push(stream);
                    deadline = deadline.min(Instant::now() + OTHER);
                }
                Err(error) => tracing::debug!(%error, "a super peer does not say where it sees a port"),
            }
        }
        if asked.is_empty() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(Self { at, seen, _held: held, _asked: asked })
    }

    /// Where super peers see it.
    pub(super) const fn seen(&self) -> [Option<SocketAddr>; 2] {
        self.seen
    }

    /// Connects from it to the peer's.
    ///
    /// # Errors
    /// The last attempt's, or whoever answered is no node.
    pub(super) async fn cross(self, coat: &Coat, across: Across) -> io::Result<Dialled> {
        let Across { to, leads, tries, after } = across;
        sleep(after).await;
        let mut failed = io::Error::from(io::ErrorKind::TimedOut);
        let mut pauses = AGAIN.iter().chain(std::iter::repeat(&AGAIN[AGAIN.len() - 1]));
        for _ in 0..tries {
            match timeout(ATTEMPT, socket::at_port(self.at)?.connect(to)).await {
                Ok(Ok(socket)) => {
                    let stream = timeout(DRESS, dress(coat, socket, to, leads)).await??;
                    return Ok(Dialled { stream, at: to, carrier: Carrier::Tcp });
                }
                Ok(Err(error)) => {
                    failed = error;
                    sleep(pauses.next().copied().unwrap_or_default()).await;
                }
                Err(_) => {}
            }
        }
        Err(failed)
    }
}

async fn dress(
    coat: &Coat,
    socket: TcpStream,
    to: SocketAddr,
    leads: bool,
) -> io::Result<TlsStream<TcpStream>> {
    socket::prepare(&socket)?;
    let mut stream = if leads { coat.connect(socket, to).await? } else { coat.accept(socket).await? };
    greet(&mut stream).await?;
    Ok(stream)
}

/// Where the super peer at `to` sees the port `at`, and the connection that asked.
async fn question(
    coat: &Coat,
    at: SocketAddr,
    to: SocketAddr,
) -> io::Result<(TlsStream<TcpStream>, SocketAddr)> {
    let socket = socket::at_port(at)?.connect(to).await?;
    let mut stream = dress(coat, socket, to, true).await?;
    let mut transaction = stun::Transaction::default();
    getrandom::fill(&mut transaction).map_err(io::Error::other)?;
    let request = stun::request(transaction);
    let header = Header::new(request.len(), request.len()).expect("a request fits a record");
    stream.write_all(&[&header.encode()[..], &request].concat()).await?;
    stream.flush().await?;
    let mut inlet = Inlet::new();
    while inlet.read(&mut stream, false).await? {
        let (arena, runs) = inlet.records();
        let answers = runs.iter().filter_map(|run| stun::Answer::read(&arena[run.start..run.end]));
        if let Some(answer) = answers.into_iter().find(|answer| answer.transaction == transaction) {
            return Ok((stream, answer.mapped));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
