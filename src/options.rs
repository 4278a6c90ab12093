//! What the user asked for, parsed and checked: the arguments of [`crate::daemon`]'s deeds.
//!
//! Owns: the option structs, and how a label, a device name, an MTU and a duration are written. Never: where
//! they come from (command line, configuration), nor what becomes of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::offload::Wishes;
use crate::report::Role;
use crate::stream::Proxy;

/// A joining code. It holds a secret, so it is shown to nobody who does not ask for it by name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(String);

impl Code {
    /// A code as it was read or made; nothing is checked.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The code itself, secret and all.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// What to do where a state is already on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfEnrolled {
    /// Refuse: a conflict.
    Refuse,
    /// Keep it as it is, provided it is of the same network: `up --create` can be repeated.
    Keep,
}

/// What `create` and `up --create` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// The network's name, a label.
    pub network: String,
    /// The state directory to write.
    pub state: PathBuf,
    /// Its IPv4 prefix; none: derived from the network ID.
    pub prefix: Option<Ipv4Network>,
    /// This node's name, a label; none: [`host_label`].
    pub name: Option<String>,
    /// How long the passports issued by this node live.
    pub passport_life: Duration,
    /// Where the node is going to listen: nothing is made unless it could; empty: that is not known.
    pub listen: Vec<SocketAddr>,
    /// What to do where a network is in `state` already.
    pub if_enrolled: IfEnrolled,
}

/// A network on disk, with this node as its founder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The network ID in full.
    pub network_id: String,
    /// Whether it was made by this call, and not kept as it was.
    pub fresh: bool,
}

/// What `join` and `up --join` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The code as the user gave it.
    pub code: Code,
    /// The state directory to write; none: the one of the network in the code,
    /// [`crate::paths_on_disk::Roots::state_of`].
    pub state: Option<PathBuf>,
    /// The name to ask for, a label that must be free; none: [`host_label`], which the login server may number.
    pub name: Option<String>,
    /// The HTTP proxy to ask through where nothing else gets through.
    pub proxy: Option<Proxy>,
}

/// A node on disk, enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The network's name.
    pub network: String,
    /// The state directory.
    pub state: PathBuf,
    /// The node's name.
    pub name: String,
    /// Its virtual addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Whether it was enrolled by this call, and not before.
    pub fresh: bool,
}

/// What to do about transport keys, which two nodes agree on inside their WireGuard session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TransportPolicy {
    /// Use them with every peer that can; WireGuard's keys until then, and with the others.
    #[default]
    Prefer,
    /// Carry no data without them.
    Require,
    /// Do without them.
    Wireguard,
}

/// Which cipher transport keys are used with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
pub enum CipherChoice {
    /// Whatever a measurement at the start finds fastest for both ends.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    #[serde(rename = "chacha20-poly1305")]
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

/// What `up` asks for, once the node is enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpOptions {
    /// The state directory to read.
    pub state: PathBuf,
    /// The control socket to make.
    pub socket: PathBuf,
    /// Where to listen, UDP and TCP, and TCP alone on 443 beside another port; empty: [`DEFAULT_PORT`] on every address,
    /// or another port if it is taken.
    pub listen: Vec<SocketAddr>,
    /// Where the directory listens; none: the port after that of `listen`, and for a peer another one, or none, if
    /// it is taken.
    pub directory_listen: Option<SocketAddr>,
    /// Whether a super peer listens on TCP 443 as well, if that is free.
    pub https: bool,
    /// The HTTP proxy to connect through where nothing else gets through.
    pub proxy: Option<Proxy>,
    /// Addresses that others are told, beyond what the node finds out itself.
    pub advertise: Vec<SocketAddr>,
    /// What a super peer relays for one node, in Mb/s; none: 1000.
    pub relay_rate: Option<u32>,
    /// Pairs of threads that forward, 1 to 64; none: by the number of cores.
    pub queues: Option<u8>,
    /// The device's name; none: the first free `frejusN`.
    pub tun: Option<String>,
    /// The device's MTU in bytes; none: 1420.
    pub mtu: Option<u16>,
    /// What the kernel may do in bulk.
    pub offload: Wishes,
    /// Whether the router is asked to open a port.
    pub port_mapping: bool,
    /// What to do about transport keys.
    pub transport: TransportPolicy,
    /// Which cipher to use them with.
    pub cipher: CipherChoice,
}

/// The number a node listens on, UDP and TCP.
pub const DEFAULT_PORT: u16 = 51860;

/// How long a passport lives unless the founder says otherwise: 30 days.
pub const DEFAULT_PASSPORT_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a code is good unless its maker says otherwise: a day.
pub const DEFAULT_INVITATION_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What `invite` asks of a login server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// What the newcomer may do: peer, super peer or client.
    pub role: Role,
    /// How many nodes may join with the code; at least one.
    pub uses: u32,
    /// How long it is good, in whole seconds.
    #[serde(rename = "expires_s", with = "seconds")]
    pub expires: Duration,
    /// The name that the newcomer gets.
    pub name: Option<String>,
    /// The virtual IPv4 address that the newcomer gets; IPv6 follows from its key.
    pub address: Option<Ipv4Addr>,
}

impl Default for InviteRequest {
    /// One peer, once, within a day.
    fn default() -> Self {
        Self { role: Role::Peer, uses: 1, expires: DEFAULT_INVITATION_LIFE, name: None, address: None }
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(life: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(life.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// A duration as people write it: `500ms`, `30s`, `5m`, `24h`, `7d`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a duration such as 30s or 24h"))?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        "" => return Err(format!("`{text}` has no unit: ms, s, m, h or d")),
        _ => return Err(format!("`{unit}` is not a unit: ms, s, m, h or d")),
    };
    // Ten thousand years: what calendar arithmetic bears without overflow.
    let bound = 10_000 * 365 * 24 * 3600 * 1000;
    match number.checked_mul(milliseconds) {
        Some(total) if total <= bound => Ok(Duration::from_millis(total)),
        _ => Err(format!("`{text}` is longer than ten thousand years")),
    }
}

/// The life of a document: a [`duration`] of a second or more.
///
/// # Errors
/// Says what is wrong with the text.
pub fn life(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life.as_secs() == 0 => Err(format!("`{text}` is shorter than a second")),
        life => Ok(life),
    }
}

/// How long to wait: a [`duration`] longer than none.
///
/// # Errors
/// Says what is wrong with the text.
pub fn patience(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("`{text}` is no time to wait for anything")),
        time => Ok(time),
    }
}

/// A label: the name of a network or a node. RFC 1035, section 2.3.1, in lower case; a digit may come first
/// (RFC 1123, section 2.1).
///
/// # Errors
/// Says what is wrong with the text.
pub fn label(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let lower = text.to_ascii_lowercase();
    if lower.is_empty() || lower.len() > 63 || lower.starts_with('-') || lower.ends_with('-') {
        return Err(format!("`{text}` is not a name: 1 to 63 letters, digits and inner hyphens"));
    }
    match lower.chars().find(|c| !fits(*c)) {
        Some(wrong) => Err(format!("`{wrong}` can't be in a name: letters, digits and hyphens only")),
        None => Ok(lower),
    }
}

/// The name of a device: what Linux takes, 1 to 15 bytes without blank, slash or colon.
///
/// # Errors
/// Says what is wrong with the text.
pub fn device(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    if fits && (1..=15).contains(&text.len()) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a device name: 1 to 15 characters, no blank, slash or colon among them"))
    }
}

/// An MTU in bytes that IPv6 can live with (RFC 8200, section 5) and a device can have.
///
/// # Errors
/// Says what is wrong with the number.
pub fn mtu(bytes: u16) -> Result<u16, String> {
    if bytes >= 1280 { Ok(bytes) } else { Err(format!("{bytes} is too small: IPv6 needs 1280")) }
}

/// The machine's host name, up to its first dot, as a label; none if nothing of it is left.
#[must_use]
pub fn host_label() -> Option<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    label_like(&host)
}

/// The label nearest to `text`.
fn label_like(text: &str) -> Option<String> {
    let first = text.trim().split('.').next()?.to_ascii_lowercase();
    let kept: String =
        first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    label(kept.trim_matches('-')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "30", "30 s", "-1s", "1.5h", "30sec", "99999999999999999999s", "9999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(patience("0s").is_err() && patience("0ms").is_err());
        assert_eq!(patience("1ms"), Ok(Duration::from_millis(1)));
        assert!(life("999ms").is_err());
        assert_eq!(life("1s"), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn labels() {
        assert_eq!(label("MyMed"), Ok("mymed".into()));
        assert_eq!(label("3com-a"), Ok("3com-a".into()));
        let long = "a".repeat(64);
        for text in ["", "-a", "a-", "a.b", "a b", "ü", "a/../b", &long] {
            assert!(label(text).is_err(), "{text}");
        }
        assert_eq!(label_like("Laptop_of Eva.example.org\n"), Some("laptop-of-eva".into()));
        assert_eq!(label_like("...\n"), None);
    }

    #[test]
    fn devices_and_mtus() {
        assert!(device("frejus0").is_ok());
        for text in ["", "a/b", "a b", "a:b", "0123456789abcdef", ".."] {
            assert!(device(text).is_err(), "{text}");
        }
        assert!(mtu(1279).is_err());
        assert_eq!(mtu(1280), Ok(1280));
    }

    #[test]
    fn a_code_is_not_shown_by_accident() {
        let options = JoinOptions { code: Code::new("hush"), state: None, name: None, proxy: None };
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn an_invitation_travels_as_json() {
        let json = serde_json::to_string(&InviteRequest::default()).unwrap();
        assert_eq!(json, r#"{"role":"peer","uses":1,"expires_s":86400,"name":null,"address":null}"#);
        assert_eq!(serde_json::from_str::<InviteRequest>(&json).unwrap(), InviteRequest::default());
    }
}
