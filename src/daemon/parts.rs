//! Putting a node together: every part opened, in the order in which the more likely mistake is found first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use frejus_overlay::agreement::Cipher;
use frejus_overlay::document::{Invalid, Roles};
use frejus_overlay::forward::{Exception, Table};
use frejus_overlay::locator::DoorId;
use frejus_overlay::node::{Config, Node};
use frejus_overlay::record;
use frejus_overlay::relay::server::{DEFAULT_RATE, RelayTable};
use frejus_overlay::tunnel::Crypto;
use frejus_overlay::verdict::Counters;
use ipnetwork::IpNetwork;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::host::Host;
use super::streams::{self, Wanted};
use super::{login_server, no_netlink, no_thread};
use crate::api::ControlSocket;
use crate::clock::Clock;
use crate::control::{Control, Facts, News};
use crate::directory::{self, Directory, DirectoryConfig, DirectoryError, DirectoryHandle};
use crate::failure::{ExitCode, Failure};
use crate::forward::{self, ForwardParts, Forwarding, Published};
use crate::netlink::{Change, Netlink};
use crate::offload::{Offload, Offloads, kernel_release};
use crate::options::{CipherChoice, DEFAULT_PORT, UpOptions};
use crate::portmap::{PortMapper, Wish};
use crate::sleep;
use crate::state::{Saved, StateDir};
use crate::stream::Outlets;
use crate::transport::{self, Transport};
use crate::tun::{self, Tun, TunError};
use crate::udp::{BindError, Doors, Listen, PortChoice, Udp};
use crate::wireguard::Wireguard;

/// MTU unless the user says otherwise: what fits 1500 bytes over IPv6. What a path takes is measured (docs/adr/0016).
const DEFAULT_MTU: u16 = 1420;

/// More queues than this are made only if asked for: a home line is full long before.
const MAX_QUEUES: usize = 8;

/// A node ready to run.
pub(super) struct Parts {
    pub(super) control: Control<Host>,
    pub(super) control_socket: ControlSocket,
    pub(super) exceptions: Receiver<Exception>,
    pub(super) forwarding: Forwarding,
    /// Absent where nobody wants it.
    pub(super) port_mapper: Option<PortMapper>,
}

impl Parts {
    pub(super) fn assemble(
        options: UpOptions,
        runtime: &Runtime,
        news: &Sender<News>,
        lines: Sender<String>,
    ) -> Result<Self, Failure> {
        let _context = runtime.enter();
        let state = StateDir::open(&options.state)?;
        let lock = state.lock()?;
        let saved = state.load()?;
        let clock = Clock::start();
        check_passport(&saved, &state, &clock)?;
        let control_socket = ControlSocket::bind(&options.socket)?;
        let (login, ledger) = login_server(&state, &saved)?.unzip();
        let serves = saved.passport.roles.includes(Roles::SUPER_PEER);
        let offloads = Arc::new(Offloads::new(options.offload).for_kernel(&kernel_release()));
        let queues = options.queues.map_or_else(queues, usize::from);
        let wanted = Wanted::of(&options.listen);
        let (udp, doors) = sockets(listen(&wanted.both, serves)?, queues, &offloads)?;
        let alternate = serves && open_stun(&doors, &udp);
        let (directory, directory_port) = directory(&options, &saved, serves, &udp, runtime, news, &clock)?;
        let tuns = device(&options, &saved, runtime, queues, offloads)?;
        let tun = Arc::clone(&tuns[0]);
        let transport = transport(&options, tun.offloads());
        let costs = transport.ciphers.clone();
        let crypto = Wireguard::new(saved.keys.tunnel.clone(), clock.clone()).carrying(transport);
        let (exceptions, excepted) = forward::exceptions();
        let table = Arc::new(Published::new(Arc::new(nobody(&saved))));
        let outlets = Outlets::default();
        let mut forwarding = Forwarding::start(ForwardParts {
            tuns,
            udp: udp.clone(),
            doors: doors.clone(),
            streams: outlets.clone(),
            table: Arc::clone(&table),
            exceptions,
            tunnel_key: crypto.public(),
            clock: clock.clone(),
            lost: lost(&tun, news),
        })
        .map_err(|error| no_thread(&error))?;
        let counters = Arc::new(Counters::default());
        let mut all = forwarding.counters().to_vec();
        all.extend([Arc::clone(&counters), outlets.counters()]);
        let current = forwarding.take_current().expect("there is a device, and nobody took it before");
        let streams = streams::start(outlets.clone(), current, options.proxy.clone(), news)?;
        let asked = serves || !wanted.both.is_empty();
        let listening = streams::listen(&streams, &udp.local(), &wanted, asked, serves && options.https)?;
        let host = Host {
            udp: udp.sender(),
            doors,
            streams,
            outlets,
            listening,
            tun: Arc::clone(&tun),
            table,
            directory,
            state,
            _lock: lock,
            ledger,
            lines,
            news: news.clone(),
            tells_paths: !serves,
            counters: all,
        };
        let links = links(&tun, &udp, runtime)?;
        let (relinked, links_changed) = watch::channel(());
        watch_links(&tun, &udp, news, relinked)?;
        watch_sleep(news);
        let port_mapper = options.port_mapping.then(|| port_mapper(&saved, &tun, &udp, links_changed, news));
        let facts = Facts {
            network: saved.network.clone(),
            tun: tun.name().to_owned(),
            mtu: tun.mtu(),
            listen: udp.local(),
            ciphers: costs,
        };
        let config = config(saved, login, options.advertise, directory_port, tun.mtu())?;
        let config = Config { relay_rate: options.relay_rate.map_or(DEFAULT_RATE, bytes_of_mbit), ..config };
        let node = Node::new(config, Box::new(crypto), Arc::clone(&counters), clock.now());
        let mut node = node.map_err(|why| bad_passport(&why))?;
        node.set_alternate_port(alternate);
        node.handle_links(links, clock.now());
        let control = Control::new(node, clock, host, facts, counters);
        let port_mapper = port_mapper.flatten();
        Ok(Self { control, control_socket, exceptions: excepted, forwarding, port_mapper })
    }
}

/// The sockets that the node listens on, and room for further ones.
fn sockets(listen: Listen, queues: usize, offloads: &Arc<Offloads>) -> Result<(Udp, Doors), Failure> {
    let udp = Udp::bind_queues(listen, queues, Arc::clone(offloads)).map_err(bind_failure)?;
    let doors = Doors::new(Arc::clone(offloads)).map_err(|error| no_thread(&error))?;
    Ok((udp, doors))
}

fn bad_passport(why: &Invalid) -> Failure {
    Failure::other(format!("this node's passport: {why}"), "join again")
}

/// Ends the node when somebody deletes its device: it could do nothing any more, and whoever supervises it may start
/// it again.
fn lost(tun: &Tun, news: &Sender<News>) -> Box<dyn FnOnce() + Send> {
    let (what, news) = (format!("the device {} is gone", tun.name()), news.clone());
    // A control thread that has ended already needs no reason to.
    Box::new(move || _ = news.send(News::Lost(Failure::other(what, "start the node again with frejus up"))))
}

/// What we do about transport keys; the costs are this machine's, whatever is chosen.
fn transport(options: &UpOptions, offloads: &Offloads) -> Transport {
    let mut ciphers = transport::measure();
    let only = match options.cipher {
        CipherChoice::Auto => None,
        CipherChoice::Aes256Gcm => Some(Cipher::Aes256Gcm),
        CipherChoice::ChaCha20Poly1305 => Some(Cipher::ChaCha20Poly1305),
    };
    ciphers.retain(|cost| only.is_none_or(|only| cost.cipher == only.code()));
    Transport { policy: options.transport, ciphers, partial: offloads.is_on(Offload::TunChecksum) }
}

/// A super peer's second STUN port, next to the directory's if that is free, so that others can find out which NAT they are
/// behind. Whether there is one: without, they ask another super peer.
fn open_stun(doors: &Doors, udp: &Udp) -> bool {
    let v4 = udp.local().into_iter().find_map(|at| match at {
        SocketAddr::V4(v4) => Some(*v4.ip()),
        SocketAddr::V6(_) => None,
    });
    let Some(ip) = v4 else { return false };
    let next = udp.port().checked_add(2).unwrap_or(0);
    doors.open_at(DoorId::STUN, ip, next).or_else(|_| doors.open_at(DoorId::STUN, ip, 0)).is_ok()
}

/// What forwarding knows before the node has said anything.
fn nobody(saved: &Saved) -> Table {
    let own6 = saved.passport.node.address6(&saved.network.id);
    Table::new(saved.passport.address4, own6, [], RelayTable::default())
}

/// A rate in megabits a second, in bytes.
fn bytes_of_mbit(mbit: u32) -> u64 {
    u64::from(mbit) * 1_000_000 / 8
}

fn config(
    saved: Saved,
    login: Option<frejus_overlay::login::LoginServer>,
    advertise: Vec<SocketAddr>,
    directory_port: u16,
    mtu: u16,
) -> Result<Config, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::other(error.to_string(), "try again"))?;
    Ok(Config {
        network: saved.network,
        genesis: saved.genesis,
        key: saved.keys.node.clone(),
        credential: saved.credential,
        seed,
        known: saved.super_peers,
        login,
        advertise,
        directory_port,
        mtu,
        relay_rate: DEFAULT_RATE,
    })
}

/// A passport that is not valid now keeps the node from running, and the reason is one of two.
fn check_passport(saved: &Saved, state: &StateDir, clock: &Clock) -> Result<(), Failure> {
    let now = clock.now().unix;
    let Err(why) = saved.credential.verify(&saved.network, now) else { return Ok(()) };
    let path = state.path().display();
    let until = crate::report::Timestamp(saved.passport.not_after);
    let from = crate::report::Timestamp(saved.passport.not_before);
    let clock = crate::report::Timestamp(now);
    Err(match why {
        Invalid::Expired => Failure::new(
            ExitCode::NotEnrolled,
            format!("the passport in {path} ended {until} (this clock says {clock})"),
            "check the clock with timedatectl; if it is right, frejus join with a new code",
        ),
        Invalid::NotYet => Failure::other(
            format!("the passport in {path} begins {from}, but this clock says {clock}"),
            "set the clock: timedatectl set-ntp true",
        ),
        why => Failure::other(format!("the passport in {path}: {why}"), "frejus join with a new code"),
    })
}

/// Whether a super peer could listen there.
pub(super) fn check_listen(wanted: &[SocketAddr]) -> Result<(), Failure> {
    let both = Wanted::of(wanted).both;
    if both.is_empty() {
        return Ok(());
    }
    Udp::bind(listen(&both, true)?).map(drop).map_err(bind_failure)
}

/// One number for both families. A super peer's is what others know; anybody else may take another.
fn listen(wanted: &[SocketAddr], serves: bool) -> Result<Listen, Failure> {
    let port = wanted.first().map_or(DEFAULT_PORT, SocketAddr::port);
    let v4 = wanted.iter().find_map(|at| if let IpAddr::V4(ip) = at.ip() { Some(ip) } else { None });
    let v6 = wanted.iter().find_map(|at| if let IpAddr::V6(ip) = at.ip() { Some(ip) } else { None });
    if wanted.iter().any(|at| at.port() != port) || wanted.len() > 2 {
        return Err(Failure::usage(
            "--listen names several ports or more than one address of a family",
            "give one port, with at most one IPv4 and one IPv6 address",
        ));
    }
    let choice =
        if serves || !wanted.is_empty() { PortChoice::Required(port) } else { PortChoice::Preferred(port) };
    if wanted.is_empty() { Ok(Listen::any(choice)) } else { Ok(Listen { v4, v6, port: choice }) }
}

fn bind_failure(error: BindError) -> Failure {
    let code = match error {
        BindError::Taken { .. } => ExitCode::Conflict,
        BindError::NotPermitted { .. } => ExitCode::NotPermitted,
        BindError::NotHere { .. } | BindError::NoAddress | BindError::Failed { .. } => ExitCode::Other,
    };
    split(code, &error.to_string(), "check --listen against the addresses of `ip address`")
}

/// The parts' errors say what happened and, behind the first colon, what to do.
fn split(code: ExitCode, text: &str, otherwise: &str) -> Failure {
    let (what, mend) = text.split_once(": ").unwrap_or((text, otherwise));
    Failure::new(code, what, mend)
}

/// The directory and the port that others are told; 0 if it is no super peer's.
fn directory(
    options: &UpOptions,
    saved: &Saved,
    serves: bool,
    udp: &Udp,
    runtime: &Runtime,
    news: &Sender<News>,
    clock: &Clock,
) -> Result<(DirectoryHandle, u16), Failure> {
    let mut config = DirectoryConfig::new(saved.network.id, saved.keys.node.to_bytes());
    let port = match directory_port(options.directory_listen, udp.port()) {
        Err(failure) if serves => return Err(failure),
        port => port.unwrap_or(0),
    };
    config.listen = options.directory_listen.map_or_else(|| beside(udp, port), |at| vec![at]);
    config.server = serves;
    if serves {
        config.advertise = options.advertise.iter().map(|at| SocketAddr::new(at.ip(), port)).collect();
    } else {
        config.promotion = Some(directory::PROBE_INTERVAL);
    }
    let (network, clock) = (saved.network.clone(), clock.clone());
    let check: directory::Check = Arc::new(move |key, value| {
        let now = clock.now().unix;
        let checked = record::check(&network, key, value, now).map_err(|why| why.to_string())?;
        Ok(directory::Checked { sequence: checked.sequence(), expires_in: checked.expires_in(now) })
    });
    let spawn = |config| {
        let news = news.clone();
        let replies: directory::Replies = Box::new(move |reply| _ = news.try_send(News::Reply(reply)));
        Directory::spawn(runtime.handle(), config, Arc::clone(&check), replies)
    };
    let required = serves || options.directory_listen.is_some();
    let handle = spawn_somewhere(config, required, udp, spawn).map_err(directory_failure)?;
    Ok((handle, if serves { port } else { 0 }))
}

/// Nobody was told a peer's directory port: if it is taken another one does, or none, and the node stays a client.
fn spawn_somewhere(
    config: DirectoryConfig,
    required: bool,
    udp: &Udp,
    spawn: impl Fn(DirectoryConfig) -> Result<DirectoryHandle, DirectoryError>,
) -> Result<DirectoryHandle, DirectoryError> {
    let another = DirectoryConfig { listen: beside(udp, 0), ..config.clone() };
    let nowhere = DirectoryConfig { listen: Vec::new(), ..config.clone() };
    match spawn(config) {
        Err(DirectoryError::PortTaken(_) | DirectoryError::Listen { .. }) if !required => {
            spawn(another).or_else(|_| spawn(nowhere))
        }
        done => done,
    }
}

/// The addresses that the data port listens on, with another port.
fn beside(udp: &Udp, port: u16) -> Vec<SocketAddr> {
    udp.local().iter().map(|at| SocketAddr::new(at.ip(), port)).collect()
}

fn directory_failure(error: DirectoryError) -> Failure {
    let code = match error {
        DirectoryError::PortTaken(_) => ExitCode::Conflict,
        DirectoryError::Listen { .. } | DirectoryError::Transport(_) => ExitCode::Other,
    };
    split(code, &error.to_string(), "check --directory-listen")
}

/// The next number after our own, unless another was asked for.
fn directory_port(wanted: Option<SocketAddr>, own: u16) -> Result<u16, Failure> {
    wanted.map(|at| at.port()).or_else(|| own.checked_add(1)).ok_or_else(|| {
        Failure::usage(
            format!("port {own} is the last, and the directory needs one more"),
            "say --directory-listen ADDR:PORT, or a lower --listen",
        )
    })
}

/// Queues, each with two threads: one for every two cores, since both directions of a fast flow fill one each.
fn queues() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, MAX_QUEUES)
}

/// The TUN device with its addresses, up, by its queues.
fn device(
    options: &UpOptions,
    saved: &Saved,
    runtime: &Runtime,
    queues: usize,
    offloads: Arc<Offloads>,
) -> Result<Vec<Arc<Tun>>, Failure> {
    let name = options.tun.clone().map_or(tun::Name::Any, tun::Name::Given);
    let tuns = Tun::create_queues(&name, options.mtu.unwrap_or(DEFAULT_MTU), queues, offloads);
    let tuns: Vec<_> = tuns.map_err(tun_failure)?.into_iter().map(Arc::new).collect();
    let device = &tuns[0];
    let genesis = &saved.network.genesis;
    let [v4, v6] = saved.passport.addresses(&saved.network.id);
    let networks: Vec<IpNetwork> = [(v4, genesis.prefix4.prefix()), (v6, saved.network.prefix6().prefix())]
        .into_iter()
        .filter_map(|(ip, prefix)| IpNetwork::new(ip, prefix).ok())
        .collect();
    let configured = runtime.block_on(async { Netlink::open()?.configure(device.name(), &networks).await });
    configured.map_err(|error| {
        Failure::other(
            format!("{} does not take its addresses {v4} and {v6}: {error}", device.name()),
            "run as root, or with CAP_NET_ADMIN",
        )
    })?;
    Ok(tuns)
}

fn tun_failure(error: TunError) -> Failure {
    let code = match error {
        TunError::NotPermitted { .. } => ExitCode::NotPermitted,
        TunError::Taken { .. } => ExitCode::Conflict,
        TunError::BadName { .. } => ExitCode::Usage,
        TunError::NoDriver | TunError::Failed { .. } => ExitCode::Other,
    };
    split(code, &error.to_string(), "run as root, or with CAP_NET_ADMIN")
}

/// Our UDP addresses as they are now, so that the first whereabouts are whole.
fn links(tun: &Tun, udp: &Udp, runtime: &Runtime) -> Result<Vec<SocketAddr>, Failure> {
    let hosts = runtime.block_on(async { Netlink::open()?.host_addresses(tun.name()).await });
    Ok(reachable(&udp.local(), &hosts.map_err(|error| no_netlink(&error))?))
}

/// Tell control our UDP addresses, now and whenever the machine's change.
fn watch_links(
    tun: &Tun,
    udp: &Udp,
    news: &Sender<News>,
    relinked: watch::Sender<()>,
) -> Result<(), Failure> {
    let netlink = Netlink::open().map_err(|error| no_netlink(&error))?;
    let (device, bound, news) = (tun.name().to_owned(), udp.local(), news.clone());
    let changed = move |change: Change<'_>| {
        relinked.send_replace(());
        let told = match change {
            Change::Addresses(hosts) => News::Links(reachable(&bound, hosts)),
            Change::Routes => News::Moved,
        };
        news.try_send(told).is_ok()
    };
    netlink.watch(device, changed).map_err(|error| no_netlink(&error))
}

/// Who asks the router for our UDP port.
fn port_mapper(
    saved: &Saved,
    tun: &Tun,
    udp: &Udp,
    links: watch::Receiver<()>,
    news: &Sender<News>,
) -> Option<PortMapper> {
    let port = udp.local().iter().find(|at| at.is_ipv4()).and_then(|at| NonZeroU16::new(at.port()))?;
    let wish = Wish { port, device: tun.name().to_owned(), secret: saved.keys.node.to_bytes() };
    Some(PortMapper::start(wish, links, news.clone()))
}

/// Wake control when the machine does.
fn watch_sleep(news: &Sender<News>) {
    let news = news.clone();
    // Where the queue is full control is awake anyway.
    let awake = move || !matches!(news.try_send(News::Awake), Err(TrySendError::Disconnected(_)));
    let watching = sleep::watch(awake);
    if let Err(error) = watching {
        tracing::debug!("the kernel will not say when the machine wakes up: {error}");
    }
}

/// Of the machine's addresses those that a socket listens on, with its port.
fn reachable(bound: &[SocketAddr], hosts: &[IpAddr]) -> Vec<SocketAddr> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let listens = |host: &IpAddr| {
        let socket = bound.iter().find(|at| at.is_ipv4() == host.is_ipv4())?;
        (any.contains(&socket.ip()) || socket.ip() == *host).then(|| SocketAddr::new(*host, socket.port()))
    };
    hosts.iter().filter_map(listens).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use frejus_overlay::id::NetworkId;

    use super::*;

    #[test]
    fn the_directory_has_the_next_port_if_there_is_one() {
        assert_eq!(directory_port(None, 51860), Ok(51861));
        assert_eq!(directory_port(Some("0.0.0.0:7".parse().unwrap()), 65535), Ok(7));
        assert_eq!(directory_port(None, 65535).unwrap_err().code, ExitCode::Usage);
    }

    #[test]
    fn a_peer_gives_way_where_its_directory_port_is_taken() {
        let runtime = Runtime::new().unwrap();
        let _context = runtime.enter();
        let any = Listen { v4: Some(Ipv4Addr::LOCALHOST), v6: None, port: PortChoice::Required(0) };
        let udp = Udp::bind(any).unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let mut config = DirectoryConfig::new(NetworkId([1; 32]), [1; 32]);
        config.listen = vec![taken];
        let spawn = |config| {
            let check: directory::Check = Arc::new(|_, _| Err("no records here".to_owned()));
            Directory::spawn(runtime.handle(), config, check, Box::new(|_| {}))
        };
        let refused = spawn_somewhere(config.clone(), true, &udp, spawn);
        assert!(matches!(refused, Err(DirectoryError::PortTaken(at)) if at == taken), "it was asked for");
        let handle = spawn_somewhere(config, false, &udp, spawn).unwrap();
        let [at] = handle.listening() else { panic!("one address: {:?}", handle.listening()) };
        assert!(at.ip() == taken.ip() && at.port() != taken.port() && at.port() != 0, "{at}");
    }
}
