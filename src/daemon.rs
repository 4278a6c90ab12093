//! The deeds that the command line asks for: founding, enrolling, running.
//!
//! Owns: how a node is put together out of its parts, and taken apart again so that nothing of it stays. Never: a
//! decision about a packet or a peer.

mod host;
mod parts;
mod streams;

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use frejus_overlay::code::{Code as JoinCode, Door};
use frejus_overlay::id::TunnelKey;
use frejus_overlay::locator::is_public;
use frejus_overlay::login::LoginServer;
use frejus_overlay::node::Invitation;
use ipnetwork::IpNetwork;
use tokio::runtime::{Builder, Runtime};
use x25519_dalek::PublicKey;

use crate::clock::Clock;
use crate::control::{self, NEWS, News, Queues};
use crate::failure::{ExitCode, Failure};
use crate::founding::{self, Wishes};
use crate::joining::{self, Bid};
use crate::ledger::Ledger;
use crate::netlink::{self, Netlink};
use crate::options::{
    CreateOptions, Created, DEFAULT_PORT, IfEnrolled, InviteRequest, JoinOptions, Joined, UpOptions,
    host_label,
};
use crate::paths_on_disk::Roots;
use crate::question::QUESTIONS;
use crate::state::{Saved, StateDir};
use crate::wireguard::Wireguard;

use parts::Parts;

/// Lines of progress that may wait for a slow terminal; more are lost, the log has them.
const LINES: usize = 256;

/// A control thread that has no room for the order to stop gets it again after this long.
const STOP_AGAIN: Duration = Duration::from_millis(20);

/// Founds a network in a state directory.
///
/// # Errors
/// Whatever keeps the state from being made; see [`founding::found`].
pub fn create(options: &CreateOptions) -> Result<Created, Failure> {
    let state = StateDir::create(&options.state)?;
    if options.if_enrolled == IfEnrolled::Keep && state.holds_node()? {
        let saved = state.load()?;
        if saved.network.genesis.name != options.network {
            return Err(another_network(&state, &saved));
        }
        return Ok(Created { network_id: saved.network.id.to_string(), fresh: false });
    }
    parts::check_listen(&options.listen)?;
    let name = options.name.clone().or_else(host_label);
    let wishes = Wishes {
        network: &options.network,
        prefix: options.prefix,
        node: name.as_deref(),
        passport_life: options.passport_life,
        routes: &routes()?,
    };
    let founded = founding::found(&state, &wishes, Clock::start().now().unix)?;
    Ok(Created { network_id: founded.network.id.to_string(), fresh: true })
}

/// Enrols this node with a code; `progress` gets one line a change. A member of that network stays who it is, and the code
/// is left for somebody else.
///
/// # Errors
/// Whatever keeps the node out; see [`joining::join`].
pub fn join(options: &JoinOptions, progress: &mut dyn FnMut(&str)) -> Result<Joined, Failure> {
    let code = joining::read_code(options.code.reveal())?;
    let path = options.state.clone().unwrap_or_else(|| Roots::default().state_of(&code.network_name));
    let state = StateDir::create(&path)?;
    let clock = Clock::start();
    let known = state.network()?.is_some_and(|network| network.id == code.network);
    if known {
        let saved = state.load()?;
        if saved.credential.verify(&saved.network, clock.now().unix).is_err() {
            progress("the passport is not valid any more: enrolling again");
            return enrol(options, &code, &state, &clock, progress);
        }
        return Ok(Joined {
            network: saved.network.genesis.name.clone(),
            state: path,
            name: saved.passport.name.clone(),
            addresses: saved.passport.addresses(&saved.network.id).to_vec(),
            fresh: false,
        });
    }
    enrol(options, &code, &state, &clock, progress)
}

/// Enrols, for the first time or again.
fn enrol(
    options: &JoinOptions,
    code: &JoinCode,
    state: &StateDir,
    clock: &Clock,
    progress: &mut dyn FnMut(&str),
) -> Result<Joined, Failure> {
    let mut crypto = Wireguard::new(state.keys()?.tunnel.clone(), clock.clone());
    let name = options.name.clone().or_else(host_label);
    let bid = Bid { code, name, from: &[], routes: &foreign_routes(state)?, proxy: options.proxy.clone() };
    let joined = joining::join(state, &bid, &mut crypto, &|| clock.now(), progress)?;
    Ok(Joined {
        network: joined.network.genesis.name.clone(),
        state: state.path().to_owned(),
        name: joined.passport.name.clone(),
        addresses: joined.addresses.to_vec(),
        fresh: true,
    })
}

/// Runs the node until it is told to stop; `progress` gets one line a change.
///
/// # Errors
/// Whatever keeps the node from running.
pub fn up(options: UpOptions, progress: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    #[cfg(frejus_null_cipher)]
    crate::ceiling::confess(progress)?;
    let runtime = runtime()?;
    let (news, told) = bounded(NEWS);
    let (questions, asked) = bounded(QUESTIONS);
    let (lines, shown) = bounded(LINES);
    // First, so that whoever stops a node that is just starting leaves nothing behind.
    stop_on_signal(&runtime, &news)?;
    let parts = Parts::assemble(options, &runtime, &news, lines)?;
    let end = serve(&runtime, parts.control_socket, questions);
    let queues = Queues { exceptions: parts.exceptions, news: told, questions: asked };
    let control = std::thread::Builder::new().name("control".to_owned());
    let control = control.spawn(move || parts.control.run(&queues)).map_err(|error| no_thread(&error))?;
    // Ends when the control thread drops the world, and the sender of lines with it.
    for line in &shown {
        progress(&line);
    }
    let ended = control.join();
    if let Some(port_mapper) = parts.port_mapper {
        runtime.block_on(port_mapper.release());
    }
    parts.forwarding.stop();
    drop(end);
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended.unwrap_or_else(|_| {
        Err(Failure::other("the control thread died", "report this as a defect of frejus, with the log"))
    })
}

/// Makes a code out of the founder's state on disk, while no node runs.
///
/// # Errors
/// Whatever keeps the code from being made.
pub fn invite_offline(state: &Path, request: InviteRequest) -> Result<String, Failure> {
    let state = StateDir::open(state)?;
    let _lock = state.lock()?;
    let saved = state.load()?;
    let (mut login, mut ledger) = login_server(&state, &saved)?.ok_or_else(|| {
        Failure::new(
            ExitCode::NotPermitted,
            format!("the node in {} has no login role", state.path().display()),
            "run frejus invite on the founder or another login server",
        )
    })?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| Failure::other(error.to_string(), "try again"))?;
    let now = Clock::start().now().unix;
    let invitation = Invitation {
        roles: control::roles(request.role),
        uses: request.uses,
        life: request.expires,
        name: request.name,
        address: request.address,
    };
    let entries = login.invite(&invitation, secret, now).map_err(|failed| control::failure(&failed))?;
    ledger.record(&entries)?;
    let code = JoinCode {
        network: saved.network.id,
        network_name: saved.network.genesis.name.clone(),
        secret,
        doors: vec![door(&saved)?],
        expires: now + invitation.life,
    };
    Ok(code.reveal())
}

/// Where this machine will most likely be asked: its public addresses, or all it has, with the default port.
fn door(saved: &Saved) -> Result<Door, Failure> {
    let runtime = runtime()?;
    let mut hosts = runtime
        .block_on(async { Netlink::open()?.host_addresses("").await })
        .map_err(|error| no_netlink(&error))?;
    if hosts.iter().any(|ip| is_public(*ip)) {
        hosts.retain(|ip| is_public(*ip));
    }
    hosts.truncate(4);
    let addresses = netlink::with_port(&hosts, Some(DEFAULT_PORT), Some(DEFAULT_PORT));
    if addresses.is_empty() {
        return Err(Failure::other(
            "this machine has no address",
            "connect it, or ask the running node for a code",
        ));
    }
    Ok(Door { tunnel_key: TunnelKey(PublicKey::from(&saved.keys.tunnel).to_bytes()), addresses })
}

/// Serve the control socket until the returned sender is dropped.
fn serve(
    runtime: &Runtime,
    socket: crate::api::ControlSocket,
    questions: Sender<crate::question::Question>,
) -> tokio::sync::oneshot::Sender<()> {
    let (end, ended) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let ended = async move { _ = ended.await };
        if let Err(error) = crate::api::serve(socket, questions, ended).await {
            tracing::error!("the control socket failed: {error}");
        }
    });
    end
}

fn stop_on_signal(runtime: &Runtime, news: &Sender<News>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let _context = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signal = signal(kind).map_err(|error| Failure::other(error.to_string(), "try again"))?;
        let news = news.clone();
        runtime.spawn(async move {
            while signal.recv().await.is_some() {
                // The queue may be full of the directory's replies; this must not be lost among them.
                while news.try_send(News::Stop).is_err_and(|refused| refused.is_full()) {
                    tokio::time::sleep(STOP_AGAIN).await;
                }
            }
        });
    }
    Ok(())
}

fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("world").enable_all().build();
    runtime.map_err(|error| no_thread(&error))
}

fn routes() -> Result<Vec<(IpNetwork, String)>, Failure> {
    let routes = runtime()?.block_on(async { Netlink::open()?.routes().await });
    routes.map_err(|error| no_netlink(&error))
}

/// As [`routes`], without those of the network itself: an earlier life of this node may still be up.
fn foreign_routes(state: &StateDir) -> Result<Vec<(IpNetwork, String)>, Failure> {
    let mut routes = routes()?;
    if let Some(network) = state.network()? {
        routes.retain(|(route, _)| *route != IpNetwork::V4(network.genesis.prefix4));
    }
    Ok(routes)
}

/// The login server and its ledger, if this node has the role.
fn login_server(state: &StateDir, saved: &Saved) -> Result<Option<(LoginServer, Ledger)>, Failure> {
    let Some(grant) = saved.grant.clone() else { return Ok(None) };
    let mut ledger = Ledger::open(&state.ledger())?;
    let login = LoginServer::new(saved.network.clone(), grant, saved.keys.node.clone(), ledger.load()?);
    let login = login.map_err(|why| {
        Failure::other(
            format!("the login grant in {} is not valid: {why}", state.path().display()),
            "restore the file from a backup",
        )
    })?;
    Ok(Some((login, ledger)))
}

fn another_network(state: &StateDir, saved: &Saved) -> Failure {
    Failure::new(
        ExitCode::Conflict,
        format!("{} holds a node of network {}", state.path().display(), saved.network.genesis.name),
        "choose another directory with --state",
    )
}

fn no_netlink(error: &std::io::Error) -> Failure {
    Failure::other(
        format!("the kernel does not say which routes and addresses there are: {error}"),
        "try as root",
    )
}

fn no_thread(error: &std::io::Error) -> Failure {
    Failure::other(format!("no thread can be started: {error}"), "raise the limit of processes of this user")
}
