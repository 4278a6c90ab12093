//! The control socket's server: HTTP and JSON over a unix socket, for the node's own user and for root.
//!
//! Owns: the paths, the bodies, who may ask, and how long an answer may take. Never: an answer; every one comes
//! from the control plane, through a bounded queue.

use std::future::Future;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use crossbeam_channel::{Sender, TrySendError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::failure::{ExitCode, Failure};
use crate::options::{Code, InviteRequest};
use crate::question::{Answer, Question};
use crate::report::SCHEMA;

mod socket;
pub use socket::{ControlSocket, Remains, clean};

/// A body longer than this is no question of ours: the longest holds a name and an address.
const LONGEST_BODY: usize = 16 << 10;
/// How long the control plane may think.
const THINKING: Duration = Duration::from_secs(5);
/// How long a look-up or an enrolment's preparation may take: several walks of the table, one after the other.
const LOOKING: Duration = Duration::from_secs(20);
/// The longest that a ping may wait for its echo.
pub const LONGEST_PING: Duration = Duration::from_secs(60);
/// How long a shutdown waits for answers under way.
const GRACE: Duration = Duration::from_secs(1);

/// `POST /v1/ping`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PingRequest {
    /// A name, a virtual address, or a node ID or an unambiguous prefix of one.
    pub peer: String,
    /// How long to wait for the echo, in milliseconds; at most [`LONGEST_PING`].
    pub timeout_ms: u64,
}

/// `POST /v1/doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DoctorRequest {
    /// As `peer` of a ping.
    pub peer: String,
}

/// `POST /v1/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// As `peer` of a ping.
    pub query: String,
}

/// The answer to `POST /v1/invite`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The code.
    pub code: Code,
}

/// The answer to a deed that has nothing to say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// [`SCHEMA`].
    pub schema: u32,
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Caller {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

/// Answers at the control socket until `shutdown` is over, then takes the socket away.
///
/// # Errors
/// The socket can't be served on this runtime.
pub async fn serve(
    socket: ControlSocket,
    questions: Sender<Question>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let (begin, begun) = oneshot::channel::<()>();
    let service = router(questions).into_make_service_with_connect_info::<Caller>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
        shutdown.await;
        // Nobody listens once serving has ended by itself.
        let _ = begin.send(());
    });
    // A caller that never finishes its request must not keep the node from ending.
    let patience = async {
        let _ = begun.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = patience => Ok(()),
    }
}

fn router(questions: Sender<Question>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/netcheck", get(netcheck))
        .route("/v1/doctor", post(doctor))
        .route("/v1/ping", post(ping))
        .route("/v1/resolve", post(resolve))
        .route("/v1/invite", post(invite))
        .route("/v1/down", post(down))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(middleware::from_fn(only_the_owner))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(questions)
}

/// Root, and whoever the node runs as, may do all; nobody else anything.
async fn only_the_owner(ConnectInfo(caller): ConnectInfo<Caller>, request: Request, next: Next) -> Response {
    if permitted(caller, nix::unistd::geteuid().as_raw()) {
        return next.run(request).await;
    }
    let who = caller.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    refuse(Failure::new(
        ExitCode::NotPermitted,
        format!("{who} may not control this node"),
        "run it as root, such as with sudo",
    ))
}

fn permitted(caller: Caller, own: u32) -> bool {
    caller.uid.is_some_and(|uid| uid == 0 || uid == own)
}

async fn status(State(questions): State<Sender<Question>>) -> Response {
    respond(ask(&questions, THINKING, |reply| Question::Status { reply }).await)
}

async fn peers(State(questions): State<Sender<Question>>) -> Response {
    respond(ask(&questions, THINKING, |reply| Question::Peers { reply }).await)
}

async fn netcheck(State(questions): State<Sender<Question>>) -> Response {
    respond(ask(&questions, THINKING, |reply| Question::Netcheck { reply }).await)
}

async fn doctor(State(questions): State<Sender<Question>>, body: Bytes) -> Response {
    let DoctorRequest { peer } = match read(&body) {
        Ok(request) => request,
        Err(failure) => return refuse(failure),
    };
    respond(ask(&questions, LOOKING, |reply| Question::Doctor { peer, reply }).await)
}

async fn ping(State(questions): State<Sender<Question>>, body: Bytes) -> Response {
    let PingRequest { peer, timeout_ms } = match read(&body) {
        Ok(request) => request,
        Err(failure) => return refuse(failure),
    };
    let timeout = Duration::from_millis(timeout_ms).min(LONGEST_PING);
    respond(ask(&questions, timeout + THINKING, |reply| Question::Ping { peer, timeout, reply }).await)
}

async fn resolve(State(questions): State<Sender<Question>>, body: Bytes) -> Response {
    let ResolveRequest { query } = match read(&body) {
        Ok(request) => request,
        Err(failure) => return refuse(failure),
    };
    respond(ask(&questions, LOOKING, |reply| Question::Resolve { query, reply }).await)
}

async fn invite(State(questions): State<Sender<Question>>, body: Bytes) -> Response {
    let request: InviteRequest = match read(&body) {
        Ok(request) => request,
        Err(failure) => return refuse(failure),
    };
    let answer = ask(&questions, LOOKING, |reply| Question::Invite { request, reply }).await;
    respond(answer.map(|code| Invitation { schema: SCHEMA, code }))
}

async fn down(State(questions): State<Sender<Question>>) -> Response {
    let answer = ask(&questions, THINKING, |reply| Question::Down { reply }).await;
    respond(answer.map(|()| Done { schema: SCHEMA }))
}

async fn unknown(request: Request) -> Response {
    let what = format!("the node does not know {} {}", request.method(), request.uri().path());
    refuse(Failure::usage(what, "use the frejus that the node was started with"))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::usage(
            format!("the node can't read the request ({error})"),
            "use the frejus that the node was started with",
        )
    })
}

/// Puts a question to the control plane, and waits for the answer up to `limit`.
async fn ask<T>(
    questions: &Sender<Question>,
    limit: Duration,
    question: impl FnOnce(Answer<T>) -> Question,
) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    let stopping = || Failure::other("the node is stopping", "start it again with frejus up");
    questions.try_send(question(reply)).map_err(|refused| match refused {
        TrySendError::Full(_) => Failure::other("the node is busy", "try again in a moment"),
        TrySendError::Disconnected(_) => stopping(),
    })?;
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(Failure::new(
            ExitCode::TimedOut,
            format!("the node did not answer within {} s", limit.as_secs()),
            "try again, or look at its log",
        )),
    }
}

fn respond<T: Serialize>(answer: Result<T, Failure>) -> Response {
    match answer {
        Ok(report) => Json(report).into_response(),
        Err(failure) => refuse(failure),
    }
}

/// The failure as the body, with the status code that curl's user expects.
fn refuse(failure: Failure) -> Response {
    let status = match failure.code {
        ExitCode::Usage | ExitCode::BadConfig => StatusCode::BAD_REQUEST,
        ExitCode::NotPermitted => StatusCode::FORBIDDEN,
        ExitCode::NoSuchPeer => StatusCode::NOT_FOUND,
        ExitCode::Conflict => StatusCode::CONFLICT,
        ExitCode::Unreachable | ExitCode::RelayOnly | ExitCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ExitCode::Other | ExitCode::NotRunning | ExitCode::NotEnrolled | ExitCode::Degraded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    (status, Json(failure)).into_response()
}

#[cfg(test)]
mod tests;
