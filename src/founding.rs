//! Founding a network: its key, its genesis, and its first node.
//!
//! Owns: [`found`]. Never: a running node; the routing table, which is handed in.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use frejus_ipam::Label;
use frejus_overlay::document::{Genesis, Grant, Network, Passport, Roles, Signed};
use frejus_overlay::id::NodeId;
use frejus_overlay::login::LoginServer;
use frejus_overlay::timing::UnixTime;
use ipnetwork::{IpNetwork, Ipv4Network};

use crate::failure::{ExitCode, Failure};
use crate::ledger::Ledger;
use crate::state::{Keys, StateDir};

/// How long the founder may issue passports.
const GRANT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A passport of less life could not be renewed in time over a slow link; one of more is no lease.
const PASSPORT_LIFE: std::ops::RangeInclusive<u64> = 30..=366 * 86_400;

/// Keys that are drawn until one has a prefix that is free on this machine. Each has a chance of 252 in 253 against
/// one local /16; a machine on which so many fail has a route to all of 10.0.0.0/8.
const DRAWS: u32 = 64;

/// A network that was just made.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The network.
    pub network: Network,
    /// Its first node: this one.
    pub passport: Passport,
}

/// What the founder wants.
#[derive(Clone, Debug)]
pub struct Wishes<'a> {
    /// The network's name, a label.
    pub network: &'a str,
    /// Its IPv4 prefix; none: derived from its key.
    pub prefix: Option<Ipv4Network>,
    /// This node's name, a label; none: `node`.
    pub node: Option<&'a str>,
    /// How long passports live.
    pub passport_life: Duration,
    /// Routes of this machine, each with its interface.
    pub routes: &'a [(IpNetwork, String)],
}

/// Make a network, with the node of `state` as its first super peer and login server.
///
/// # Errors
/// [`ExitCode::Conflict`] if the prefix overlaps a route (both are named, and the command that takes a free one), or if
/// `state` holds a node or is in use; [`ExitCode::Usage`] for a name or prefix that can't be; else what the disk says.
pub fn found(state: &StateDir, wishes: &Wishes<'_>, now: UnixTime) -> Result<Founded, Failure> {
    let network = label(wishes.network)?;
    let node = label(wishes.node.unwrap_or("node"))?;
    let life = wishes.passport_life.as_secs();
    if !PASSPORT_LIFE.contains(&life) {
        return Err(Failure::usage(
            format!("a passport can't live for {life} s"),
            "choose between 30 seconds and 366 days",
        ));
    }
    let _lock = state.lock()?;
    refuse_second(state)?;
    let (network_key, prefix4) = key_and_prefix(state, &network, wishes)?;
    let genesis = Genesis {
        name: network.to_string(),
        prefix4,
        key: NodeId(network_key.verifying_key().to_bytes()),
        created: now,
        passport_life_s: u32::try_from(life).expect("at most 366 days"),
    };
    let genesis = genesis.sign(&network_key);
    let network = Network::new(&genesis).map_err(|error| unmade(&error))?;
    let keys = state.keys()?;
    let grant = grant(&network, &network_key, &keys, now);
    state.write_genesis(&genesis)?;
    state.write_grant(&grant)?;
    let passport = first_passport(state, network.clone(), grant, &keys, &node, now)?;
    Ok(Founded { network, passport })
}

/// Refuse to put a node where there is one.
///
/// # Errors
/// [`ExitCode::Conflict`], naming the network that is there.
pub(crate) fn refuse_second(state: &StateDir) -> Result<(), Failure> {
    if !state.holds_node()? {
        return Ok(());
    }
    let there = state.load()?;
    let path = state.path().display();
    Err(Failure::new(
        ExitCode::Conflict,
        format!("{path} already holds {} of the network {}", there.passport.name, there.network.genesis.name),
        format!("run it with frejus up --state {path}, or choose another directory with --state"),
    ))
}

/// The route that `prefix` overlaps, if any, with its interface.
pub(crate) fn clash(prefix: Ipv4Network, routes: &[(IpNetwork, String)]) -> Option<&(IpNetwork, String)> {
    routes.iter().find(|(route, _)| frejus_ipam::overlap(prefix, &[*route]).is_some())
}

/// A prefix that overlaps none of the routes, for the error that offers another.
pub(crate) fn free_prefix(wanted: Ipv4Network, routes: &[(IpNetwork, String)]) -> Option<Ipv4Network> {
    let taken: Vec<IpNetwork> = routes.iter().map(|(route, _)| *route).collect();
    frejus_ipam::suggest(&taken, wanted)
}

/// The network's key and a prefix for it: the wished one, or the one that follows from the key.
fn key_and_prefix(
    state: &StateDir,
    name: &Label,
    wishes: &Wishes<'_>,
) -> Result<(SigningKey, Ipv4Network), Failure> {
    if let Some(wish) = wishes.prefix {
        let prefix = frejus_ipam::check_prefix4(wish)
            .map_err(|error| Failure::usage(format!("--prefix {wish}"), error.to_string()))?;
        check_routes(prefix, name, wishes.routes)?;
        return Ok((state.network_key()?, prefix));
    }
    let mut first = None;
    for _ in 0..DRAWS {
        let key = state.network_key()?;
        let prefix = frejus_ipam::default_prefix4(&key.verifying_key().to_bytes());
        if clash(prefix, wishes.routes).is_none() {
            return Ok((key, prefix));
        }
        first.get_or_insert(prefix);
        state.forget_network_key()?;
    }
    let prefix = first.expect("one draw or more was made");
    check_routes(prefix, name, wishes.routes)?;
    Err(Failure::other("no prefix is free", "choose one with --prefix"))
}

fn check_routes(prefix: Ipv4Network, name: &Label, routes: &[(IpNetwork, String)]) -> Result<(), Failure> {
    let Some((route, interface)) = clash(prefix, routes) else { return Ok(()) };
    let what = format!("the prefix {prefix} overlaps the route {route} on {interface}");
    let mend = match free_prefix(prefix, routes) {
        Some(free) => format!("frejus create {name} --prefix {free}"),
        None => "remove a route, as all private address space is in use".to_owned(),
    };
    Err(Failure::new(ExitCode::Conflict, what, mend))
}

/// The founder may lease every address and give every role.
fn grant(network: &Network, key: &SigningKey, keys: &Keys, now: UnixTime) -> Signed<Grant> {
    let grant = Grant {
        node: NodeId(keys.node.verifying_key().to_bytes()),
        roles: Roles::ALL,
        block: network.genesis.prefix4,
        serial: 1,
        not_before: now,
        not_after: now + GRANT_LIFE,
    };
    Signed::new(&grant, &network.id, key)
}

/// The founder enrols itself. The ledger of an attempt that came to nothing is of another network: it goes.
fn first_passport(
    state: &StateDir,
    network: Network,
    grant: Signed<Grant>,
    keys: &Keys,
    name: &Label,
    now: UnixTime,
) -> Result<Passport, Failure> {
    let ledger = state.ledger();
    if let Err(error) = std::fs::remove_file(&ledger)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Failure::other(format!("{}: {error}", ledger.display()), "remove it and try again"));
    }
    let mut ledger = Ledger::create(&ledger)?;
    let mut server =
        LoginServer::new(network.clone(), grant, keys.node.clone(), []).map_err(|error| unmade(&error))?;
    let roles = Roles::PEER.with(Roles::SUPER_PEER).with(Roles::LOGIN);
    let (credential, entries) = server.issue_own(name, roles, now).map_err(|error| unmade(&error))?;
    ledger.record(&entries)?;
    state.write_passport(&credential)?;
    let member = credential.verify(&network, now).map_err(|error| unmade(&error))?;
    Ok(member.passport.clone())
}

fn label(text: &str) -> Result<Label, Failure> {
    Label::parse(text).map_err(|error| Failure::usage(format!("{text:?} is no name"), error.to_string()))
}

fn unmade(error: &dyn std::error::Error) -> Failure {
    Failure::other(format!("the network could not be made: {error}"), "report this, with the command")
}

#[cfg(test)]
mod tests;
