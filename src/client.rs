//! The other end of the control socket: one question, one answer, one connection.
//!
//! Owns: how a node that does not answer is told from one that refuses. Never: what to do about it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::api::{DoctorRequest, Done, Invitation, LONGEST_PING, PingRequest, ResolveRequest};
use crate::failure::{ExitCode, Failure};
use crate::options::{Code, InviteRequest};
use crate::report::doctor::Doctor;
use crate::report::netcheck::Netcheck;
use crate::report::{Peers, PingReply, Resolve, Status};

/// Longer than the server gives the control plane for its slowest answer: a look-up, or the mint of a code.
const PATIENCE: Duration = Duration::from_secs(25);
/// The same for what the control plane knows by heart.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);
/// An answer of 16 MiB holds 30,000 peers at half a KiB each.
const LONGEST_ANSWER: usize = 16 << 20;

/// Asks the node at one control socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the node at `socket`; nothing is connected yet.
    ///
    /// # Errors
    /// The system gives no descriptors.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::other(format!("no runtime: {error}"), "close some programs"))?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// How the node stands.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn status(&self) -> Result<Status, Failure> {
        self.status_within(SHORT_PATIENCE)
    }

    /// The same, for somebody who is in a hurry.
    ///
    /// # Errors
    /// The node's own, or that it does not answer within `limit`.
    pub fn status_within(&self, limit: Duration) -> Result<Status, Failure> {
        self.ask(Method::GET, "/v1/status", None::<()>, limit.min(SHORT_PATIENCE))
    }

    /// Every peer with a tunnel.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn peers(&self) -> Result<Peers, Failure> {
        self.ask(Method::GET, "/v1/peers", None::<()>, SHORT_PATIENCE)
    }

    /// What the node finds out about its own connection.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn netcheck(&self) -> Result<Netcheck, Failure> {
        self.ask(Method::GET, "/v1/netcheck", None::<()>, SHORT_PATIENCE)
    }

    /// Both sides of the path to a peer.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn doctor(&self, peer: &str) -> Result<Doctor, Failure> {
        let request = DoctorRequest { peer: peer.to_owned() };
        self.ask(Method::POST, "/v1/doctor", Some(request), PATIENCE)
    }

    /// One echo through the data path, waited for up to `timeout`.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn ping(&self, peer: &str, timeout: Duration) -> Result<PingReply, Failure> {
        let timeout = timeout.min(LONGEST_PING);
        let timeout_ms = u64::try_from(timeout.as_millis()).expect("a minute at most");
        let request = PingRequest { peer: peer.to_owned(), timeout_ms };
        self.ask(Method::POST, "/v1/ping", Some(request), timeout + SHORT_PATIENCE)
    }

    /// Both look-ups.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn resolve(&self, query: &str) -> Result<Resolve, Failure> {
        let request = ResolveRequest { query: query.to_owned() };
        self.ask(Method::POST, "/v1/resolve", Some(request), PATIENCE)
    }

    /// A code for newcomers.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn invite(&self, request: &InviteRequest) -> Result<Code, Failure> {
        let made: Invitation = self.ask(Method::POST, "/v1/invite", Some(request), PATIENCE)?;
        Ok(made.code)
    }

    /// Tells the node to stop; it answers before it has stopped.
    ///
    /// # Errors
    /// The node's own, or that it does not answer.
    pub fn down(&self) -> Result<(), Failure> {
        self.ask(Method::POST, "/v1/down", None::<()>, SHORT_PATIENCE).map(|Done { .. }| ())
    }

    /// The process that listens at the socket; none if it lives where this process can't see it.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn pid(&self) -> Result<Option<u32>, Failure> {
        let stream = self.runtime.block_on(self.connect())?;
        Ok(stream
            .peer_cred()
            .ok()
            .and_then(|credentials| credentials.pid())
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0))
    }

    fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<B>,
        limit: Duration,
    ) -> Result<T, Failure> {
        let body = body.map(|body| serde_json::to_vec(&body).expect("our requests have string keys only"));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "frejus")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .expect("a constant path and constant headers");
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(limit, self.exchange(request)).await });
        answer.unwrap_or_else(|_| Err(self.stuck()))
    }

    /// A node that has stopped, or hangs: its process is all that can be got hold of.
    fn stuck(&self) -> Failure {
        let mend = match self.pid() {
            Ok(Some(pid)) => format!("look at its log; kill -9 {pid}; frejus down"),
            Ok(None) | Err(_) => "look at its log, and end its process".to_owned(),
        };
        let what = format!("the node at {} does not answer", self.socket.display());
        Failure::new(ExitCode::TimedOut, what, mend)
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        UnixStream::connect(&self.socket).await.map_err(|error| {
            let socket = self.socket.display();
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                    Failure::new(
                        ExitCode::NotRunning,
                        format!("no node is running at {socket}"),
                        "start it with frejus up",
                    )
                }
                ErrorKind::PermissionDenied => Failure::new(
                    ExitCode::NotPermitted,
                    format!("control socket {socket}: permission denied"),
                    "run it as root, such as with sudo",
                ),
                ErrorKind::InvalidInput => {
                    Failure::usage(format!("control socket {socket}: {error}"), "say a shorter --socket PATH")
                }
                _ => Failure::other(format!("control socket {socket}: {error}"), "see frejus status"),
            }
        })
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // Ends by itself when the sender is dropped.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        self.answer(response).await
    }

    async fn answer<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let good = response.status().is_success();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| self.broken(&error))?
            .to_bytes();
        if !good {
            return Err(serde_json::from_slice(&body).unwrap_or_else(|error| self.broken(&error)));
        }
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::other(
            format!("the node at {} broke off its answer ({error})", self.socket.display()),
            "try again, or look at its log",
        )
    }
}
