//! The configuration file: what a user may say once, and not at every start. TOML, optional.
//!
//! Owns: its keys and its error messages. Never: defaults of what is not in it, nor secrets.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::failure::{ExitCode, Failure};
use crate::offload::Wishes;
use crate::options::{self, CipherChoice, TransportPolicy};
use crate::stream::Proxy;

/// A configuration. What the command line says goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where the directory listens.
    pub directory_listen: Option<SocketAddr>,
    /// Addresses that others are told.
    pub advertise: Vec<SocketAddr>,
    /// What a super peer relays for one node, in Mb/s.
    pub relay_rate: Option<u32>,
    /// Pairs of threads that forward.
    #[serde(deserialize_with = "queues")]
    pub queues: Option<u8>,
    /// The device's name.
    #[serde(deserialize_with = "device")]
    pub tun: Option<String>,
    /// The device's MTU in bytes.
    #[serde(deserialize_with = "mtu")]
    pub mtu: Option<u16>,
    /// The node's name, for `create` and `join`.
    #[serde(deserialize_with = "label")]
    pub name: Option<String>,
    /// What the kernel may do in bulk.
    pub offload: Wishes,
    /// Whether the router is asked to open a port.
    pub port_mapping: PortMapping,
    /// Connections for those whose UDP is blocked.
    pub stream: StreamConfig,
    /// The HTTP proxy that leads out of this network.
    pub proxy: Option<ProxyConfig>,
    /// What to do about transport keys.
    pub transport: Option<TransportPolicy>,
    /// Which cipher to use them with.
    pub cipher: Option<CipherChoice>,
}

/// What the router is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortMapping {
    /// Whether it is asked at all; not said: yes.
    pub enabled: Option<bool>,
}

/// `[stream]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Whether a super peer listens on TCP 443 as well, if that is free.
    pub https: Option<bool>,
}

/// `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where it is, and who we are to it.
    #[serde(deserialize_with = "proxy")]
    pub url: Proxy,
    /// Where the password is, if it is not in the URL: a file that only its owner can read.
    pub password_file: Option<PathBuf>,
}

impl ProxyConfig {
    /// The proxy with its password.
    ///
    /// # Errors
    /// [`ExitCode::BadConfig`]: the file can't be read, others can read it, or there is no user.
    pub fn proxy(&self) -> Result<Proxy, Failure> {
        let Some(file) = &self.password_file else { return Ok(self.url.clone()) };
        let bad = |what: String, mend: &str| Failure::new(ExitCode::BadConfig, what, mend);
        let shown = file.display();
        let unreadable =
            |error: std::io::Error| bad(format!("{shown}: {error}"), "name a file that can be read");
        let mode = std::fs::metadata(file).map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad(format!("others can read the proxy's password in {shown}"), "chmod 600 it"));
        }
        let password = std::fs::read_to_string(file).map_err(unreadable)?;
        let with = self.url.clone().with_password(password.trim_end_matches(['\r', '\n']));
        with.map_err(|what| bad(what, "give the user's name in [proxy] url"))
    }
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Proxy, D::Error> {
    Proxy::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn device<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    options::device(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn queues<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    let queues = u8::deserialize(deserializer)?;
    if (1..=64).contains(&queues) { Ok(Some(queues)) } else { Err(D::Error::custom("queues: 1 to 64")) }
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    options::mtu(u16::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    options::label(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

impl Config {
    /// The configuration in `file`.
    ///
    /// # Errors
    /// It can't be read ([`ExitCode::NotPermitted`] or [`ExitCode::BadConfig`]), or says what no configuration
    /// can ([`ExitCode::BadConfig`], with file and line).
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::PermissionDenied => ExitCode::NotPermitted,
                _ => ExitCode::BadConfig,
            };
            Failure::new(
                code,
                format!("configuration {}: {error}", file.display()),
                "name a file that can be read",
            )
        })?;
        Self::parse(&text, file)
    }

    /// The configuration in `file`, or an empty one if there is no such file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_if_there(file: &Path) -> Result<Self, Failure> {
        if matches!(file.try_exists(), Ok(false)) { Ok(Self::default()) } else { Self::read(file) }
    }

    fn parse(text: &str, file: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let what = format!("configuration {}, line {line}: {}", file.display(), error.message());
            Failure::new(ExitCode::BadConfig, what, "correct that line")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/frejus/mymed.toml")).map_err(|failure| {
            assert_eq!(failure.code, ExitCode::BadConfig);
            failure.to_string()
        })
    }

    #[test]
    fn every_key() {
        let config = parse(
            "listen = ['0.0.0.0:51860', '[::]:443']\ndirectory_listen = '0.0.0.0:51861'\n\
             relay_rate = 100\nqueues = 2\nadvertise = ['203.0.113.1:51860']\ntun = 'vpn0'\nmtu = 1400\nname = 'b'\n\
             [offload]\ntun_tso = false\ntun_uso = false\ntcp_coalescing = false\n\
             udp_coalescing = false\ntun_checksum = false\nudp_gso = true\nudp_gro = false\n[port_mapping]\nenabled = false\n[stream]\nhttps = false\n",
        )
        .unwrap();
        assert_eq!(config.listen[1].port(), 443);
        assert_eq!((config.relay_rate, config.queues), (Some(100), Some(2)));
        assert_eq!(config.directory_listen, Some("0.0.0.0:51861".parse().unwrap()));
        assert_eq!(config.advertise, ["203.0.113.1:51860".parse().unwrap()]);
        assert_eq!(
            (config.tun.as_deref(), config.mtu, config.name.as_deref()),
            (Some("vpn0"), Some(1400), Some("b"))
        );
        assert_eq!(config.offload.off().count(), 6);
        assert_eq!(config.stream.https, Some(false));
        assert_eq!(config.offload.udp_gso, Some(true));
        assert_eq!(config.port_mapping.enabled, Some(false));
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn an_error_names_file_and_line() {
        for (text, line, part) in [
            ("mtu = 1400\nmtoo = 1\n", 2, "unknown field `mtoo`"),
            ("queues = 0\n", 1, "1 to 64"),
            ("\n\nmtu = 900\n", 3, "IPv6 needs 1280"),
            ("listen = ['51860']", 1, "invalid socket address"),
            ("name = 'a b'", 1, "can't be in a name"),
            ("tun = ''", 1, "not a device name"),
            ("mtu = 1400\n[half", 2, ""),
            ("[port_mapping]\nenabled = 'no'\n", 2, "invalid type"),
            ("[offload]\nudp_tso = false\n", 2, "unknown field `udp_tso`"),
            ("[proxy]\nurl = 'socks5://eva:hush@p'\n", 2, "only http:// is understood"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("configuration /etc/frejus/mymed.toml, line {line}: ")),
                "{error}"
            );
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n') && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_password_in_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "hush\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let text = format!("[proxy]\nurl = 'http://eva@p:3128'\npassword_file = '{}'\n", file.display());
        let proxy = parse(&text).unwrap().proxy.unwrap();
        mode(0o644);
        let failure = proxy.proxy().unwrap_err();
        assert!(
            failure.code == ExitCode::BadConfig && failure.what.contains("others can read"),
            "{failure:?}"
        );
        mode(0o600);
        assert_eq!(proxy.proxy(), Ok(Proxy::parse("http://eva:hush@p:3128").unwrap()));
        let nobody = text.replace("eva@", "");
        assert!(parse(&nobody).unwrap().proxy.unwrap().proxy().is_err(), "whose password is it?");
    }

    #[test]
    fn a_file_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("none.toml");
        assert_eq!(Config::read_if_there(&file), Ok(Config::default()));
        assert_eq!(Config::read(&file).unwrap_err().code, ExitCode::BadConfig);
    }
}
