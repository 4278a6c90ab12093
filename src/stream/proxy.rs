//! The HTTP proxy that a network may ask its machines to use.
//!
//! Owns: where it is and who we are to it, from the configuration or the environment, and how it is asked for a
//! connection. Never: a password in `Debug`, a log or an error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use frejus_overlay::wire::connect::{self, Answer, Credentials, LONGEST_ANSWER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

use super::socket;

/// Our own, which goes before those of all programs.
pub const ENVIRONMENT: &str = "FREJUS_PROXY";
/// Where programs look for a proxy, the first that is set.
const VARIABLES: [&str; 5] = [ENVIRONMENT, "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The port of a URL that names none (RFC 9110, section 4.2.1).
const HTTP: u16 = 80;
/// Proxy Authentication Required (RFC 9110, section 15.5.8).
const LOGIN: u16 = 407;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address, an IPv6 one without brackets.
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    refusal: Refusal,
}

/// The status with which it last refused a connection, 0 for none; clones share it. It is no part of who the proxy is.
#[derive(Clone, Debug, Default)]
struct Refusal(Arc<AtomicU16>);

impl PartialEq for Refusal {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Refusal {}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, credentials, refusal: _ } = self;
        f.debug_struct("Proxy")
            .field("host", host)
            .field("port", port)
            .field("credentials", credentials)
            .finish()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// `http://HOST:PORT`, with `USER:PASSWORD@` in front of the host if the proxy wants to know; both may be written with
    /// percent signs (RFC 3986, section 2.1).
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let bare = || "the proxy's URL is not http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned();
        let url = url.trim();
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(format!("the proxy's URL begins with {scheme}://: only http:// is understood"));
            }
            Some(_) => return Err(bare()),
            None => url,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (who, place) = match authority.rsplit_once('@') {
            Some((who, place)) => (Some(who), place),
            None => (None, authority),
        };
        let (host, port) = place_of(place).ok_or_else(bare)?;
        let credentials = who.map(|who| {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            Some(Credentials { user: decode(user)?, password: decode(password)? })
        });
        let credentials = match credentials {
            Some(None) => return Err(bare()),
            Some(known) => known,
            None => None,
        };
        Ok(Self { host, port, credentials, refusal: Refusal::default() })
    }

    /// The same with a password that was kept elsewhere.
    ///
    /// # Errors
    /// The URL names no user whose password it could be.
    pub fn with_password(mut self, password: &str) -> Result<Self, String> {
        let credentials =
            self.credentials.as_mut().ok_or("the proxy has a password and no user: http://USER@HOST:PORT")?;
        password.clone_into(&mut credentials.password);
        Ok(self)
    }

    /// As [`Self::parse`] takes it, password and all.
    #[must_use]
    pub fn url(&self) -> String {
        let who = self
            .credentials
            .as_ref()
            .map(|Credentials { user, password }| format!("{}:{}@", encode(user), encode(password)));
        format!("http://{}{self}", who.unwrap_or_default())
    }

    /// The one that the environment names, if it does.
    ///
    /// # Errors
    /// As [`Self::parse`], with the variable's name.
    pub fn from_environment() -> Result<Option<Self>, String> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let set =
            VARIABLES.iter().find_map(|name| Some((name, read(name).filter(|url| !url.trim().is_empty())?)));
        let Some((name, url)) = set else { return Ok(None) };
        Self::parse(&url).map(Some).map_err(|why| format!("{name}: {why}"))
    }

    /// A connection to `to`.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let mut socket = self.reach().await?;
        socket.write_all(&connect::request(to, self.credentials.as_ref())).await?;
        let (mut said, mut filled) = (vec![0; LONGEST_ANSWER], 0);
        loop {
            match connect::answer(&said[..filled]) {
                // Whoever is behind it waits for us to speak first.
                Answer::Connected(end) if end == filled => return Ok(socket),
                Answer::Connected(_) | Answer::Nonsense => {
                    return Err(io::Error::other(format!("{self} is no HTTP proxy")));
                }
                Answer::Refused(status) => {
                    self.refusal.0.store(status, Ordering::Relaxed);
                    return Err(io::Error::other(format!("the proxy {self} refuses with status {status}")));
                }
                Answer::Incomplete => {}
            }
            match socket.read(&mut said[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
    }

    /// Why it last refused a connection, if it has: what happened, and what to do.
    #[must_use]
    pub fn refusal(&self) -> Option<(String, String)> {
        Some(match self.refusal.0.load(Ordering::Relaxed) {
            0 => return None,
            status @ LOGIN => (
                format!("the proxy {self} does not take this login (status {status})"),
                format!(
                    "give http://USER:PASSWORD@HOST:PORT in {ENVIRONMENT}, or under [proxy] in the configuration"
                ),
            ),
            status => (
                format!("the proxy {self} refuses connections to the super peer (status {status})"),
                "ask whoever runs it to allow CONNECT to port 443".to_owned(),
            ),
        })
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for at in lookup_host((self.host.as_str(), self.port)).await? {
            match socket::connect(at).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn place_of(place: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, Some("")),
        }
    };
    let port = match port? {
        "" => HTTP,
        digits => digits.parse().ok().filter(|port| *port > 0)?,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(fits)).then(|| (host.to_owned(), port))
}

/// Percent encoding of everything that is not certainly harmless.
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02x}"),
    });
    encoded.collect()
}

/// Undoes percent encoding; `None` if that is broken, or it hides a line's end.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn urls() {
        for (url, host, port, who) in [
            ("http://proxy.example:3128", "proxy.example", 3128, None),
            ("proxy.example", "proxy.example", 80, None),
            ("http://10.0.0.1:8888/", "10.0.0.1", 8888, None),
            ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, None),
            ("HTTP://eva:s%40cret%3a@proxy:1", "proxy", 1, credentials("eva", "s@cret:")),
            ("http://eva@proxy:1", "proxy", 1, credentials("eva", "")),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!(Proxy::parse(&proxy.url()).as_ref(), Ok(&proxy), "{url}");
            assert_eq!((proxy.host.as_str(), proxy.port, &proxy.credentials), (host, port, &who), "{url}");
        }
        for url in ["", "http://", "socks5://a:1", "https://a:1", "http://a:0", "http://a:x", "http://a b:1"]
        {
            assert!(Proxy::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let proxy = Proxy::parse("http://eva:hush@proxy:3128").unwrap();
        assert!(!format!("{proxy:?} {proxy}").contains("hush"));
        for url in ["http://eva:hush@proxy:x", "http://eva:hu%0ash@proxy:1", "socks5://eva:hush@proxy:1"] {
            assert!(!Proxy::parse(url).unwrap_err().contains("hush"), "{url}");
        }
    }

    #[test]
    fn a_password_kept_elsewhere_needs_a_user() {
        let proxy = Proxy::parse("http://eva@proxy:1").unwrap().with_password("hush").unwrap();
        assert_eq!(proxy.credentials, credentials("eva", "hush"));
        assert!(Proxy::parse("http://proxy:1").unwrap().with_password("hush").is_err());
    }

    #[test]
    fn the_environment() {
        let set = |name: &str| (name == "ALL_PROXY").then(|| "http://p:1".to_owned());
        assert_eq!(Proxy::from_variables(set).unwrap(), Some(Proxy::parse("http://p:1").unwrap()));
        assert_eq!(Proxy::from_variables(|_| Some(" ".to_owned())), Ok(None));
        let wrong = Proxy::from_variables(|_| Some("ftp://p".to_owned())).unwrap_err();
        assert!(wrong.starts_with("FREJUS_PROXY: "), "{wrong}");
    }
}
