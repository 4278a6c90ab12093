//! What can be said on the command line: every verb, flag and help text, once.
//!
//! Completions and manual pages are made from this definition too. Never: what a verb does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use ipnetwork::Ipv4Network;

use crate::offload::Offload;
use crate::options::{self, CipherChoice, TransportPolicy};
use crate::paths_on_disk::Selection;
use crate::report::Role;

pub mod lab;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What a newcomer is told first.
pub(super) const START: &str = "\
A network out of two commands:
  on a machine with a public address   frejus up --create mymed
  on every other one                   frejus up --join CODE

Then `frejus status` says who you are, and `frejus peers` whom you reach, and how.";

/// A virtual network with no server in the middle.
#[derive(Debug, Parser)]
#[command(name = "frejus", version, styles = STYLES, max_term_width = 100, after_help = START)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Which node, and how much to say.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What goes with every verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Common {
    /// The network, where this machine is in several
    #[arg(short, long, global = true, value_name = "NETWORK", value_parser = options::label)]
    pub network: Option<String>,
    /// State directory [default: /var/lib/frejus/NETWORK]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Control socket [default: /run/frejus/NETWORK.sock, or DIR/control.sock with --state]
    /// [env: FREJUS_SOCKET]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Configuration [default: /etc/frejus/NETWORK.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Log more, on standard error; twice: even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Common {
    /// Which node is meant, as far as the user says.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            network: self.network.clone(),
            state: self.state.clone(),
            socket: self.socket.clone(),
            environment: std::env::var_os("FREJUS_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from),
        }
    }
}

/// What frejus can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring the node up, and stay until SIGINT, SIGTERM or `frejus down`
    Up(Up),
    /// Stop the running node; nothing of it stays on this machine
    Down,
    /// Say who this node is, how it stands, and what needs attention
    Status(Status),
    /// List the peers with a tunnel, and the path in use to each
    Peers(Output),
    /// Find out which NAT or firewall is in front of this node, and what it lets pass
    Netcheck(Output),
    /// Find out why the path to a peer is what it is, and what would make it direct
    Doctor(Doctor),
    /// Send echoes through the data path, and say which path each one took
    Ping(Ping),
    /// Look a peer up: its address, its node, its whereabouts
    Resolve(Resolve),
    /// Block until the node is ready, or a peer reachable
    Wait(Wait),
    /// Make a code with which others join the network
    Invite(Invite),
    /// Join a network with a code, without bringing the node up
    Join(Join),
    /// Found a network, with this node as its first super peer and login server
    Create(Create),
    /// Print the completions for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// Print the version
    Version(Output),
    /// Build an internet out of network namespaces, with nodes on it, to test and to search
    Lab(lab::Lab),
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print JSON, one object
    #[arg(long)]
    pub json: bool,
}

const UP_EXAMPLES: &str = "\
Examples:
  frejus up --create mymed                    found a network; prints a code for the first peer
  frejus up --join @code.txt                  join with a code that `ps` does not show
  frejus up -n mymed --detach                 bring it up again, in the background
  frejus up --state /tmp/b --listen 0.0.0.0:4000

--create and --join may be repeated at every start: who is enrolled stays so.";

/// `up`.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct Up {
    /// Found this network first
    #[arg(long, value_name = "NETWORK", conflicts_with_all = ["join", "network"], value_parser = options::label)]
    pub create: Option<String>,
    /// Join with this code first: the code itself, - for standard input, or @FILE
    #[arg(long, value_name = "CODE")]
    pub join: Option<String>,
    /// This node's name, with --create or --join [default: the host name]
    #[arg(long, value_parser = options::label)]
    pub name: Option<String>,
    /// The network's IPv4 prefix, with --create [default: 10.x.0.0/16, x from the network ID]
    #[arg(long, value_name = "CIDR", requires = "create")]
    pub prefix: Option<Ipv4Network>,
    /// How long a passport lives, with --create
    #[arg(long, value_name = "TIME", requires = "create", default_value = "30d", value_parser = options::life)]
    pub passport_life: Duration,
    /// Listen here, UDP and TCP; may be repeated, with port 443 beside another for TCP alone [default: port 51860 on every
    /// address]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// As a super peer, do not listen on TCP 443
    #[arg(long)]
    pub no_https: bool,
    /// Where the directory listens, TCP and QUIC [default: the next port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub directory_listen: Option<SocketAddr>,
    /// Tell others this address too; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    pub advertise: Vec<SocketAddr>,
    /// What a super peer relays for one node, in Mb/s [default: 1000]
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u32).range(1..))]
    pub relay_rate: Option<u32>,
    /// Pairs of threads that forward packets [default: one for every two cores, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub queues: Option<u8>,
    /// The device's name [default: the first free frejusN]
    #[arg(long, value_name = "NAME", value_parser = options::device)]
    pub tun: Option<String>,
    /// The device's MTU in bytes [default: 1420]
    #[arg(long, value_name = "N", value_parser = mtu)]
    pub mtu: Option<u16>,
    /// Do without what the kernel could do in bulk: tun_tso, tun_uso, tcp_coalescing, udp_coalescing,
    /// tun_checksum, udp_gso or udp_gro; may be repeated
    #[arg(long, value_name = "OFFLOAD")]
    pub no_offload: Vec<Offload>,
    /// Set for the process in the background: an offload that the configuration insists on
    #[arg(long, hide = true, value_name = "OFFLOAD")]
    pub offload: Vec<Offload>,
    /// Do not ask the router to open a port (PCP, NAT-PMP, UPnP)
    #[arg(long)]
    pub no_port_mapping: bool,
    /// Set for the process in the background: the router is asked, whatever the configuration says
    #[arg(long, hide = true, conflicts_with = "no_port_mapping")]
    pub port_mapping: bool,
    /// Transport keys, post-quantum, inside WireGuard [default: prefer]
    #[arg(long, value_name = "POLICY")]
    pub transport: Option<TransportPolicy>,
    /// The cipher of transport keys [default: auto, what is fastest for both ends]
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<CipherChoice>,
    /// Return once the node is ready, and leave it in the background
    #[arg(long)]
    pub detach: bool,
    /// Set for the process in the background: a session of its own
    #[arg(long, hide = true, conflicts_with_all = ["detach", "create", "join"])]
    pub background: bool,
}

fn mtu(text: &str) -> Result<u16, String> {
    options::mtu(text.parse().map_err(|_| format!("`{text}` is not a number from 1280 to 65535"))?)
}

/// `status`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Status {
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// Exit with 12 unless the node is in this state
    #[arg(long, value_name = "STATE")]
    pub check: Option<Check>,
}

/// The state to check for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// All is up.
    Ready,
}

/// `ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// A name, a virtual address, or a node ID or at least eight characters of one
    pub peer: String,
    /// Echoes to send [default: 4; with --until-direct at most 30, and 130 while the node still guesses ports]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: Option<u32>,
    /// Stop at the first echo that came back by a direct path; exit with 8 if there was none
    #[arg(long)]
    pub until_direct: bool,
    /// Exit with 8 if all echoes came back through a relay
    #[arg(long)]
    pub require_direct: bool,
    /// How long to wait for each echo
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = options::patience)]
    pub timeout: Duration,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// A name, a virtual address, or a node ID or at least eight characters of one
    pub peer: String,
    /// Look for a direct path that long before saying why there is none
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = options::duration)]
    pub wait: Duration,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// `resolve`.
#[derive(Debug, Args)]
pub struct Resolve {
    /// A name, a virtual address, or a node ID or at least eight characters of one
    #[arg(value_name = "PEER|IP")]
    pub query: String,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Until this peer answers, and not only until the node is ready
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// Until it answers by a direct path
    #[arg(long, requires = "peer")]
    pub direct: bool,
    /// Give up after this time, and exit with 9
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = options::duration)]
    pub timeout: Duration,
}

/// `invite`.
#[derive(Debug, Args)]
pub struct Invite {
    /// What the newcomer may do
    #[arg(long, value_name = "ROLE", default_value = "peer")]
    pub role: InviteRole,
    /// How many nodes may join with the code
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub uses: u32,
    /// How long the code is good
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = options::life)]
    pub expires: Duration,
    /// The name that the newcomer gets [default: what it asks for]
    #[arg(long, value_parser = options::label)]
    pub name: Option<String>,
    /// The virtual IPv4 address that the newcomer gets [default: a free one]
    #[arg(long, value_name = "IP")]
    pub address: Option<Ipv4Addr>,
}

/// The roles that a code can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InviteRole {
    /// An ordinary machine.
    Peer,
    /// A machine with a public address that helps the others.
    SuperPeer,
    /// A phone, looked after by a super peer.
    Client,
}

impl From<InviteRole> for Role {
    fn from(role: InviteRole) -> Self {
        match role {
            InviteRole::Peer => Self::Peer,
            InviteRole::SuperPeer => Self::SuperPeer,
            InviteRole::Client => Self::Client,
        }
    }
}

/// `join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The code itself, - for standard input, or @FILE
    pub code: String,
    /// The name to ask for [default: the host name]
    #[arg(long, value_parser = options::label)]
    pub name: Option<String>,
}

/// `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The network's name: letters, digits and hyphens
    #[arg(value_name = "NETWORK", value_parser = options::label)]
    pub network_name: String,
    /// The network's IPv4 prefix [default: 10.x.0.0/16, x from the network ID]
    #[arg(long, value_name = "CIDR")]
    pub prefix: Option<Ipv4Network>,
    /// This node's name [default: the host name]
    #[arg(long, value_parser = options::label)]
    pub name: Option<String>,
    /// How long a passport lives
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = options::life)]
    pub passport_life: Duration,
}

/// `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Where to write them; made if missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}
