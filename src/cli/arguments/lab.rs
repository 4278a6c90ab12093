//! What can be said after `frejus lab`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use frejus_lab::NatClass;
use frejus_lab::topology::{read_duration, read_rate};

use super::Output;

const LAB_EXAMPLES: &str = "\
Examples:
  frejus lab up two-homes.toml                 build it, start its nodes, and return
  frejus lab shell a                           a shell on host a, where `frejus status` is a's
  frejus lab shell a -- frejus ping b          one command there
  frejus lab nat b symmetric-random            b's router becomes another
  frejus lab cut a b                           the line between a and b dies without a word
  frejus lab down                              nothing of it stays on this machine";

/// `lab`.
#[derive(Debug, Args)]
#[command(after_help = LAB_EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Lab {
    /// The laboratory, where there are several [default: the only one; `lab` for a new one]
    #[arg(long, global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// What to do with it.
    #[command(subcommand)]
    pub verb: LabVerb,
}

/// What can be done with a laboratory.
#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Build a described internet, and start nodes on it
    Up(LabUp),
    /// Open a shell on a host, or run a command there
    Shell(LabShell),
    /// List hosts, NATs, lines, and how the nodes stand
    Status(Output),
    /// Make a NAT another one; what it had mapped is gone
    Nat(LabNat),
    /// Cut the line between two hosts, silently
    Cut(LabPair),
    /// Mend a line that was cut
    Mend(LabPair),
    /// Let nothing pass from or to a host, silently
    Blackout(LabHost),
    /// End a blackout
    Light(LabHost),
    /// Let a NAT forget everything, as after a power cut
    Reboot(LabHost),
    /// Give a NAT another address outside
    Readdress(LabReaddress),
    /// Give a line delay, loss or a rate; without any, make it a plain cable again
    Link(LabLink),
    /// Take it all down
    Down,
    /// Set for the process that is a link
    #[command(hide = true)]
    Emulate(LabEmulate),
    /// Set for the process that is a busy household
    #[command(hide = true)]
    Rivals(LabRivals),
}

/// `lab up`.
#[derive(Debug, Args)]
pub struct LabUp {
    /// The description, such as lab/topologies/two-homes.toml
    #[arg(value_hint = ValueHint::FilePath)]
    pub topology: PathBuf,
    /// The binary that the nodes run [default: this one]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub frejus: Option<PathBuf>,
}

/// `lab shell`.
#[derive(Debug, Args)]
pub struct LabShell {
    /// A host, or a NAT
    pub host: String,
    /// The command [default: a shell]
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `lab nat`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, by its own name")]
pub struct LabNat {
    /// A NAT, or a host behind one
    pub host: String,
    /// Such as port-restricted, symmetric-random
    pub class: NatClass,
    /// Inside hosts reach each other by outer addresses
    #[arg(long)]
    pub hairpin: bool,
    /// Stray packets reach the router itself
    #[arg(long)]
    pub careless: bool,
    /// What is not let in is answered with ICMP errors
    #[arg(long)]
    pub rejects: bool,
    /// No UDP passes
    #[arg(long)]
    pub no_udp: bool,
    /// How long a mapping lives without traffic
    #[arg(long, value_name = "TIME", value_parser = read_duration)]
    pub lifetime: Option<Duration>,
}

/// Two hosts.
#[derive(Debug, Args)]
pub struct LabPair {
    /// A host, or a NAT
    pub one: String,
    /// Another
    pub other: String,
}

/// A host.
#[derive(Debug, Args)]
pub struct LabHost {
    /// A host, or a NAT
    pub host: String,
}

/// `lab readdress`.
#[derive(Debug, Args)]
pub struct LabReaddress {
    /// A NAT, or a host behind one
    pub host: String,
    /// The address that the NAT gets
    pub address: Ipv4Addr,
}

/// `lab link`.
#[derive(Debug, Args)]
pub struct LabLink {
    /// A host with a public address, a NAT, or a host behind one
    pub host: String,
    /// One-way delay
    #[arg(long, value_name = "TIME", value_parser = read_duration)]
    pub delay: Option<Duration>,
    /// Frames lost, out of a hundred
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub loss: Option<u8>,
    /// Bits a second
    #[arg(long, value_name = "RATE", value_parser = read_rate)]
    pub rate: Option<u64>,
}

/// `lab emulate`.
#[derive(Debug, Args)]
pub struct LabEmulate {
    /// Where its devices are.
    #[arg(long)]
    pub namespace: String,
    /// Device towards the host.
    #[arg(long)]
    pub near: String,
    /// Device towards the bridge.
    #[arg(long)]
    pub far: String,
    /// Its control socket.
    pub control: PathBuf,
}

/// `lab rivals`.
#[derive(Debug, Args)]
pub struct LabRivals {
    /// Where the flows come from.
    #[arg(long)]
    pub namespace: String,
    /// New flows a second.
    #[arg(long)]
    pub rate: u32,
    /// Where they go to.
    pub sink: Ipv4Addr,
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let number: Option<u8> = number.parse().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| format!("`{text}` is not 0% to 100%"))
}
