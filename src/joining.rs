//! Joining a network: from a code to a node on disk.
//!
//! Owns: [`join`], which drives [`Enrolment`] over blocking sockets. Never: a running node, the routing table, the
//! cryptography; they are handed in.
//!
//! The keys are on disk before the first request, so that a second try is made by the same node and the code is not
//! burnt twice, whatever happened to the first.

mod currents;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use frejus_overlay::code::{Code, CodeError};
use frejus_overlay::document::{Network, Passport};
use frejus_overlay::enrolment::{EnrolError, Enrolled, Enrolment};
use frejus_overlay::id::TunnelKey;
use frejus_overlay::timing::Now;
use frejus_overlay::tunnel::Crypto;
use frejus_overlay::wire::enrol::Refusal;
use ipnetwork::IpNetwork;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use x25519_dalek::PublicKey;

use crate::failure::{ExitCode, Failure};
use crate::founding::{clash, free_prefix};
use crate::fragmentation;
use crate::state::StateDir;
use crate::stream::Proxy;

use currents::Currents;

/// An answer is smaller than a full Ethernet frame.
const ROOM: usize = 2048;

/// A node that was just enrolled.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The network.
    pub network: Network,
    /// Who this node is.
    pub passport: Passport,
    /// Its virtual addresses.
    pub addresses: [IpAddr; 2],
}

/// What the newcomer brings.
#[derive(Clone, Debug)]
pub struct Bid<'a> {
    /// Its code.
    pub code: &'a Code,
    /// The name that it would like.
    pub name: Option<String>,
    /// Local addresses to ask from, at most one a family; their ports don't matter. None: what the kernel chooses.
    pub from: &'a [SocketAddr],
    /// The HTTP proxy to ask through where nothing else gets through.
    pub proxy: Option<Proxy>,
    /// Routes of this machine, each with its interface.
    pub routes: &'a [(IpNetwork, String)],
}

/// The code in what a user pasted.
///
/// # Errors
/// [`ExitCode::Usage`], with what is wrong; the text is not repeated, as it may be a secret.
pub fn read_code(text: &str) -> Result<Code, Failure> {
    text.parse().map_err(|error: CodeError| {
        let mend = match error {
            CodeError::NotACode => "give the line that frejus invite printed",
            CodeError::Altered => "copy the whole line again, or ask for a new code",
            CodeError::Newer => "update frejus on this machine",
        };
        let what = error.to_string();
        Failure::usage(what.split(": ").next().unwrap_or(&what), mend)
    })
}

/// Enrol the node of `state` and write it down. `crypto` has the tunnel key of [`StateDir::keys`]; `progress` gets a
/// line a change.
///
/// # Errors
/// [`ExitCode::NotEnrolled`] for a code that is expired, used up or unknown; [`ExitCode::Unreachable`] if no door
/// answers; [`ExitCode::Conflict`] if the network's prefix overlaps a route, or `state` holds a node or is in use. The
/// keys stay after every error, and nothing else.
pub fn join(
    state: &StateDir,
    bid: &Bid<'_>,
    crypto: &mut dyn Crypto,
    clock: &dyn Fn() -> Now,
    progress: &mut dyn FnMut(&str),
) -> Result<Joined, Failure> {
    let _lock = state.lock()?;
    refuse_another(state, bid.code)?;
    let keys = state.keys()?;
    let tunnel_key = TunnelKey(PublicKey::from(&keys.tunnel).to_bytes());
    if crypto.public() != tunnel_key {
        let file = state.path().join("tunnel.key");
        return Err(Failure::other(format!("{} changed meanwhile", file.display()), "try again"));
    }
    let mut enrolment = Enrolment::new(bid.code, keys.node, tunnel_key, bid.name.clone());
    let doors = Doors::open(bid)?;
    progress(&format!("asking {}", bid.code.network_name));
    let mut currents = Currents::new(&bid.code.doors, bid.proxy.as_ref(), clock().instant)?;
    let enrolled = doors.run(&mut currents, &mut enrolment, crypto, clock)?;
    check_routes(&enrolled, bid)?;
    state.write_genesis(&enrolled.genesis)?;
    state.write_super_peers(std::slice::from_ref(&enrolled.contact))?;
    state.write_passport(&enrolled.credential)?;
    let passport = enrolled.member.passport.clone();
    let addresses = passport.addresses(&enrolled.network.id);
    progress(&format!("enrolled as {}, {} and {}", passport.name, addresses[0], addresses[1]));
    Ok(Joined { network: enrolled.network, passport, addresses })
}

/// A node may enrol again where it is a member already: its passport has expired, or it lost all super peers.
fn refuse_another(state: &StateDir, code: &Code) -> Result<(), Failure> {
    let Some(there) = state.network()?.filter(|there| there.id != code.network) else { return Ok(()) };
    let path = state.path().display();
    Err(Failure::new(
        ExitCode::Conflict,
        format!(
            "{path} holds a node of the network {}, and the code is of {}",
            there.genesis.name, code.network_name
        ),
        "choose another directory with --state",
    ))
}

/// The sockets to ask through, one a family that this machine has.
struct Doors(Vec<UdpSocket>);

impl Doors {
    fn open(bid: &Bid<'_>) -> Result<Self, Failure> {
        let wished = |v6: bool| bid.from.iter().map(SocketAddr::ip).find(|ip| ip.is_ipv6() == v6);
        let v4 = wished(false).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let v6 = wished(true).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let (mut sockets, mut refused) = (Vec::new(), String::new());
        for ip in [v4, v6] {
            match bind(ip) {
                Ok(socket) => sockets.push(socket),
                Err(error) => refused = format!("no UDP socket on {ip}: {error}"),
            }
        }
        if sockets.is_empty() {
            return Err(Failure::other(refused, "check the machine's addresses, or --listen"));
        }
        Ok(Self(sockets))
    }

    /// Carry datagrams to and fro until there is an outcome.
    fn run(
        &self,
        currents: &mut Currents,
        enrolment: &mut Enrolment,
        crypto: &mut dyn Crypto,
        clock: &dyn Fn() -> Now,
    ) -> Result<Enrolled, Failure> {
        let (mut sent, mut unsent) = (false, None);
        let mut buffer = [0; ROOM];
        loop {
            enrolment.handle_timeout(clock(), crypto);
            while let Some((to, bytes)) = enrolment.poll_output() {
                currents.send(to, &bytes);
                match self.send(to, &bytes) {
                    Ok(()) => sent = true,
                    Err(error) => unsent = Some(error),
                }
            }
            if let Some(outcome) = enrolment.outcome() {
                return outcome.map_err(|error| refused(&error, unsent.filter(|_| !sent)));
            }
            let now = clock().instant;
            currents.handle_timeout(now);
            if let Some((what, mend)) = currents.refusal(now) {
                return Err(Failure::new(ExitCode::Unreachable, what, mend));
            }
            let due = enrolment.poll_timeout().unwrap_or(now);
            let due = currents.poll_timeout().map_or(due, |at| due.min(at));
            self.wait(currents, due.since(now))?;
            while let Some((from, bytes)) = currents.hear(clock().instant) {
                enrolment.handle_datagram(from, &bytes, clock(), crypto);
            }
            for socket in &self.0 {
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    enrolment.handle_datagram(from, &buffer[..length], clock(), crypto);
                }
            }
        }
    }

    fn send(&self, to: SocketAddr, bytes: &[u8]) -> std::io::Result<()> {
        let family = |socket: &&UdpSocket| socket.local_addr().is_ok_and(|at| at.is_ipv6() == to.is_ipv6());
        let socket = self.0.iter().find(family);
        let socket = socket.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(bytes, to).map(|_| ())
    }

    /// Until something comes, or `patience` is over.
    fn wait(&self, currents: &Currents, patience: Duration) -> Result<(), Failure> {
        let all = self.0.iter().map(AsFd::as_fd).chain([currents.descriptor()]);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up, so that a deadline less than a millisecond away is not waited for in a busy loop.
        let ms = u16::try_from(patience.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(ms)) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(Failure::other(format!("waiting for an answer: {error}"), "try again")),
        }
    }
}

fn bind(ip: IpAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    // No path is measured yet, and the request is as long as its answer may be.
    fragmentation::set(&socket, ip.is_ipv4(), true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The prefix is known once the genesis has come. The lease waits for the next try, which burns nothing.
fn check_routes(enrolled: &Enrolled, bid: &Bid<'_>) -> Result<(), Failure> {
    let genesis = &enrolled.network.genesis;
    let Some((route, interface)) = clash(genesis.prefix4, bid.routes) else { return Ok(()) };
    let what = format!(
        "the prefix {} of {} overlaps the route {route} on {interface}",
        genesis.prefix4, genesis.name
    );
    let remedy = match free_prefix(genesis.prefix4, bid.routes) {
        Some(free) => format!(" or let the founder make the network with --prefix {free}"),
        None => String::new(),
    };
    Err(Failure::new(
        ExitCode::Conflict,
        what,
        format!("remove that route and join again with the same code,{remedy}"),
    ))
}

/// What an operator is told; `unsent` is why not one request left this machine.
fn refused(error: &EnrolError, unsent: Option<std::io::Error>) -> Failure {
    match error {
        EnrolError::Silent { .. } => {
            let why = unsent.map(|error| format!(" ({error})")).unwrap_or_default();
            Failure::new(
                ExitCode::Unreachable,
                format!("{error}{why}"),
                "check that the super peer is up, and that UDP, or TCP to the same port or to 443, passes every firewall",
            )
        }
        EnrolError::Clock { .. } => {
            Failure::other(error.to_string(), "set it (timedatectl set-ntp true) and join again")
        }
        EnrolError::Invalid(_) => Failure::other(error.to_string(), "ask for a new code"),
        EnrolError::Refused(refusal) => denied(refusal),
    }
}

fn denied(refusal: &Refusal) -> Failure {
    let what = refusal.to_string();
    match refusal {
        Refusal::UnknownCode | Refusal::ExpiredCode | Refusal::UsedCode => {
            Failure::new(ExitCode::NotEnrolled, what, "ask for a new code (frejus invite)")
        }
        Refusal::NameTaken(_) => Failure::new(ExitCode::Conflict, what, "choose another with --name"),
        Refusal::BadName(_) => Failure::usage(what, "choose another with --name"),
        Refusal::Clock { .. } => {
            Failure::other(what, "set the clock (timedatectl set-ntp true) and join again")
        }
        Refusal::Full => Failure::other(what, "ask the founder to grant the login server another block"),
    }
}

#[cfg(test)]
mod tests;
