//! `frejus lab`: an internet out of namespaces, with nodes on it, for those who test and those who search.
//!
//! Owns: what is said while it is built and changed. Never: what an internet is made of, see `frejus-lab`.

mod status;

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use frejus_lab::store::{Place, ROOT, Record};
use frejus_lab::topology::Topology;
use frejus_lab::{Host, Kind, Lab, Nat, Quality, Trouble, emulator, nodes};

use super::arguments::lab::{
    Lab as Arguments, LabEmulate, LabLink, LabNat, LabRivals, LabShell, LabUp, LabVerb,
};
use super::screen;
use crate::failure::{ExitCode, Failure};

/// What a new laboratory is called.
const NAME: &str = "lab";

impl From<Trouble> for Failure {
    fn from(Trouble { kind, what, mend }: Trouble) -> Self {
        let code = match kind {
            Kind::Usage => ExitCode::Usage,
            Kind::NotPermitted => ExitCode::NotPermitted,
            Kind::BadTopology => ExitCode::BadConfig,
            Kind::Conflict => ExitCode::Conflict,
            Kind::NotRunning => ExitCode::NotRunning,
            Kind::TimedOut => ExitCode::TimedOut,
            Kind::Other => ExitCode::Other,
        };
        Self::new(code, what, mend)
    }
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        let what = "network namespaces belong to root";
        return Err(Failure::new(ExitCode::NotPermitted, what, "sudo frejus lab …"));
    }
    let name = arguments.name;
    match arguments.verb {
        LabVerb::Up(verb) => up(name.as_deref().unwrap_or(NAME), &verb),
        LabVerb::Shell(verb) => shell(&place(name)?, &verb),
        LabVerb::Status(output) => status::run(&place(name)?, output),
        LabVerb::Down => down(&place(name)?),
        LabVerb::Emulate(verb) => emulate(&verb),
        LabVerb::Rivals(verb) => rivals(&verb),
        verb => change(&place(name)?, verb),
    }
}

fn place(name: Option<String>) -> Result<Place, Failure> {
    let root = Path::new(ROOT);
    Ok(name.map_or_else(|| Place::only(root), |name| Place::new(root, &name))?)
}

/// One line a step; a reader who has gone does not stop the work.
fn say(line: &str) {
    let _ = screen::print_line(line);
}

fn up(name: &str, verb: &LabUp) -> Result<(), Failure> {
    let topology = Topology::read(&verb.topology)?;
    topology.check_programs()?;
    let ours = std::env::current_exe().map_err(|error| {
        Failure::other(format!("frejus does not find itself: {error}"), "say --frejus PATH")
    })?;
    let binary = match &verb.frejus {
        Some(path) => path.canonicalize().map_err(|error| {
            Failure::usage(
                format!("--frejus {}: {error}", path.display()),
                "say where the program is, or leave --frejus out",
            )
        })?,
        None => ours.clone(),
    };
    let place = Place::new(Path::new(ROOT), name)?;
    place.claim()?;
    let built = build(&place, &topology, &ours, binary);
    let record = built.inspect_err(|_| place.fail())?;
    let late: Vec<&str> =
        record.nodes.iter().filter(|node| node.trouble.is_some()).map(|node| node.host.as_str()).collect();
    let missing = topology.nodes.len() - record.nodes.len();
    if !late.is_empty() || missing > 0 {
        let what = format!("{} of {} nodes are not ready", late.len() + missing, topology.nodes.len());
        let mend = format!("frejus lab status; logs are in {}/logs", place.directory().display());
        return Err(Failure::new(ExitCode::Degraded, what, mend));
    }
    screen::hint(format_args!("up: frejus lab status, frejus lab shell HOST, frejus lab down"));
    Ok(())
}

fn build(place: &Place, topology: &Topology, ours: &Path, binary: PathBuf) -> Result<Record, Failure> {
    let lab = Lab::new(&place.tag(), place.directory(), Some(ours))?;
    let lab = topology.build(lab, &mut say)?;
    let mut record = Record { binary, lab, nodes: Vec::new() };
    place.save(&record)?;
    let started = nodes::start(topology, &record.lab, &record.binary, &mut record.nodes, &mut say);
    place.save(&record)?;
    started?;
    Ok(record)
}

fn down(place: &Place) -> Result<(), Failure> {
    if !place.exists() {
        return Err(place.load().err().map_or_else(
            || Failure::new(ExitCode::NotRunning, "no laboratory is up", "frejus lab up TOPOLOGY.toml"),
            Failure::from,
        ));
    }
    place.remove();
    say(&format!("{} is down, nothing of it is left", place.name()));
    Ok(())
}

fn shell(place: &Place, verb: &LabShell) -> Result<(), Failure> {
    let record = place.load()?;
    let host = record.lab.machine_of(&verb.host)?;
    let program = std::env::var("SHELL").ok().filter(|shell| Path::new(shell).is_file());
    let program = program.unwrap_or_else(|| "/bin/sh".to_owned());
    let argv: Vec<&str> = if verb.command.is_empty() {
        screen::hint(format_args!("on {}; exit leaves it", host.name));
        vec![&program]
    } else {
        verb.command.iter().map(String::as_str).collect()
    };
    let mut command = host.command(&argv);
    // What `Host::command` pins for programs whose words are read, a person may have as they like.
    command.env_remove("LC_ALL").envs(std::env::var_os("LC_ALL").map(|value| ("LC_ALL", value)));
    command.env("FREJUS_LAB_HOST", &host.name).env_remove("FREJUS_SOCKET");
    if let Some(node) = record.nodes.iter().find(|node| node.host == host.name) {
        command.env("FREJUS_SOCKET", node.socket());
    }
    command.envs(nodes::environment(&record.lab, &host.name));
    let path = std::env::var("PATH").unwrap_or_default();
    if let Some(directory) = record.binary.parent() {
        command.env("PATH", format!("{}:{path}", directory.display()));
    }
    let error = command.exec();
    Err(Failure::other(format!("{}: {error}", argv[0]), "install iproute2"))
}

/// Loads, changes, writes down: what another command is told next is how it is.
fn change(place: &Place, verb: LabVerb) -> Result<(), Failure> {
    let mut record = place.load()?;
    let lab = &mut record.lab;
    let said = match verb {
        LabVerb::Cut(pair) => {
            lab.cut(&pair.one, &pair.other)?;
            format!("{} and {} do not hear each other", pair.one, pair.other)
        }
        LabVerb::Mend(pair) => {
            lab.mend(&pair.one, &pair.other)?;
            format!("{} and {} hear each other", pair.one, pair.other)
        }
        LabVerb::Blackout(on) => {
            lab.blackout(&on.host)?;
            format!("{} is dark", on.host)
        }
        LabVerb::Light(on) => {
            lab.light(&on.host)?;
            format!("{} is light", on.host)
        }
        LabVerb::Reboot(on) => {
            lab.reboot(&on.host)?;
            format!("{} has forgotten every mapping", lab.router_of(&on.host)?.host.name)
        }
        LabVerb::Readdress(on) => readdress(lab, &on.host, on.address)?,
        LabVerb::Nat(verb) => renat(lab, &verb)?,
        LabVerb::Link(verb) => relink(lab, &verb)?,
        // The caller has done with these.
        LabVerb::Up(_)
        | LabVerb::Shell(_)
        | LabVerb::Status(_)
        | LabVerb::Down
        | LabVerb::Emulate(_)
        | LabVerb::Rivals(_) => return Ok(()),
    };
    place.save(&record)?;
    screen::print_line(said)
}

fn readdress(lab: &mut Lab, name: &str, address: Ipv4Addr) -> Result<String, Failure> {
    lab.readdress(name, address)?;
    Ok(format!("{} is {address} outside", lab.router_of(name)?.host.name))
}

fn renat(lab: &mut Lab, verb: &LabNat) -> Result<String, Failure> {
    let before = lab.router_of(&verb.host)?.nat;
    if verb.hairpin && !verb.class.is_cone() {
        let mend = "take full-cone, address-restricted or port-restricted";
        return Err(Failure::usage(format!("a {} NAT has no hairpin", verb.class), mend));
    }
    let mut nat = Nat::from(verb.class);
    for (said, with) in [
        (verb.hairpin, Nat::hairpin as fn(Nat) -> Nat),
        (verb.careless, Nat::careless),
        (verb.rejects, Nat::rejecting),
        (verb.no_udp, Nat::without_udp),
        (before.maps_ports(), Nat::mapping),
    ] {
        nat = if said { with(nat) } else { nat };
    }
    if let Some(life) = verb.lifetime {
        nat = nat.lifetime(u32::try_from(life.as_secs().max(1)).unwrap_or(u32::MAX));
    }
    lab.renat(&verb.host, nat)?;
    Ok(format!("{} is {nat}", lab.router_of(&verb.host)?.host.name))
}

fn relink(lab: &mut Lab, verb: &LabLink) -> Result<String, Failure> {
    let quality = Quality {
        delay: verb.delay.unwrap_or_default(),
        loss_percent: verb.loss.unwrap_or_default(),
        rate: verb.rate,
    };
    lab.set_link(&verb.host, quality)?;
    Ok(format!("the line of {}: {quality}", verb.host))
}

fn emulate(verb: &LabEmulate) -> Result<(), Failure> {
    Ok(emulator::link(&inside(&verb.namespace), [&verb.near, &verb.far], &verb.control)?)
}

fn rivals(verb: &LabRivals) -> Result<(), Failure> {
    // Fails for the leader of a session, who has left already.
    nix::unistd::setsid().ok();
    Ok(emulator::rivals(&inside(&verb.namespace), verb.sink, verb.rate)?)
}

/// A machine of which only the namespace counts.
fn inside(namespace: &str) -> Host {
    let (public, local) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
    Host {
        name: namespace.to_owned(),
        namespace: namespace.to_owned(),
        public,
        local,
        scratch: PathBuf::new(),
    }
}
