//! What is said to a UPnP Internet Gateway Device, and read of its answers: text in, text out.
//!
//! Owns: the search (UPnP Device Architecture 2.0, section 1.3), the description's one interesting service, and the
//! calls of WANIPConnection:1 and :2 (and of WANPPPConnection:1, which has the same). Never: a socket.
//!
//! The reader looks for elements by name and believes no structure: the text is a stranger's, may be of any shape, and
//! nothing that it says leads anywhere but back to the router that said it ([`Place`]). It expands no entities, follows
//! no references, and is linear in what it is given, of which [`LONGEST`] bytes are enough.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Descriptions are a few KiB; more is no router's.
pub const LONGEST: usize = 64 * 1024;

/// Where searches go, besides the router itself: the group and port of SSDP.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), PORT);

/// The port of SSDP.
pub const PORT: u16 = 1900;

/// What is searched for; a version 2 device answers to 1 as well, but not every one does.
const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// Services that map ports, the best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The searches to send, to `host`.
#[must_use]
pub fn searches(host: SocketAddrV4) -> [String; 2] {
    TARGETS.map(|target| {
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
        )
    })
}

/// A page on the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its HTTP server.
    pub at: SocketAddrV4,
    /// Absolute path, with a query if there is one.
    pub path: String,
}

impl Place {
    /// What `http://A.B.C.D:PORT/PATH` means; names and other schemes are refused.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        let rest = strip_prefix_caseless(url.trim(), "http://")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let at = host.parse().or_else(|_| host.parse().map(|ip| SocketAddrV4::new(ip, 80))).ok()?;
        Self::new(at, path)
    }

    /// The page that `reference` names, seen from this one; `None` if it is another machine's.
    #[must_use]
    pub fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.trim();
        if reference.contains("://") {
            return Self::parse(reference).filter(|place| place.at.ip() == self.at.ip());
        }
        if reference.starts_with('/') {
            return Self::new(self.at, reference);
        }
        let folder = &self.path[..=self.path.rfind('/')?];
        Self::new(self.at, &format!("{folder}{reference}"))
    }

    fn new(at: SocketAddrV4, path: &str) -> Option<Self> {
        // What could end the request line or begin a header.
        let clean = path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic());
        (clean && at.port() != 0).then(|| Self { at, path: path.to_owned() })
    }
}

/// Where the answer to a search says that the device is described.
#[must_use]
pub fn location(answer: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?;
    if !(status.starts_with("HTTP/1.") && status.split_whitespace().nth(1) == Some("200")) {
        return None;
    }
    let header = |line: &str| strip_prefix_caseless(line, "location:").map(str::to_owned);
    Place::parse(&lines.find_map(header)?)
}

/// The service that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    kind: &'static str,
    /// Where it is called.
    pub control: Place,
}

impl Service {
    /// The best one in the description that was found at `base`.
    #[must_use]
    pub fn find(description: &str, base: &Place) -> Option<Self> {
        let root = element(description, "URLBase").map(unescape).and_then(|url| base.join(&url));
        let base = root.as_ref().unwrap_or(base);
        SERVICES.into_iter().find_map(|kind| {
            let mut rest = description;
            while let Some((service, after)) = next_element(rest, "service") {
                rest = after;
                if element(service, "serviceType").map(str::trim) == Some(kind) {
                    let control = base.join(&unescape(element(service, "controlURL")?))?;
                    return Some(Self { kind, control });
                }
            }
            None
        })
    }

    /// Headers and body of a call: the value of `SOAPAction`, then the envelope.
    #[must_use]
    pub fn call(&self, call: &Call) -> (String, String) {
        let (name, mut arguments) = (call.name(), String::new());
        for (key, value) in call.arguments() {
            // Values are numbers, addresses and our own words: nothing to escape.
            _ = write!(arguments, "<{key}>{value}</{key}>");
        }
        let envelope = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{}\">\
             {arguments}</u:{name}></s:Body></s:Envelope>\r\n",
            self.kind
        );
        (format!("\"{}#{name}\"", self.kind), envelope)
    }
}

/// What a router is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Its address on the far side.
    ExternalAddress,
    /// What comes to `external` goes to `internal`, for so many seconds; 0 means for ever. UDP.
    Add {
        /// Port on the router.
        external: u16,
        /// Ours.
        internal: SocketAddrV4,
        /// Seconds.
        lease: u32,
    },
    /// No more. UDP.
    Delete {
        /// Port on the router.
        external: u16,
    },
}

impl Call {
    const fn name(&self) -> &'static str {
        match self {
            Self::ExternalAddress => "GetExternalIPAddress",
            Self::Add { .. } => "AddPortMapping",
            Self::Delete { .. } => "DeletePortMapping",
        }
    }

    fn arguments(&self) -> Vec<(&'static str, String)> {
        let mapping = |external: &u16| {
            vec![
                ("NewRemoteHost", String::new()),
                ("NewExternalPort", external.to_string()),
                ("NewProtocol", "UDP".to_owned()),
            ]
        };
        match self {
            Self::ExternalAddress => Vec::new(),
            Self::Delete { external } => mapping(external),
            Self::Add { external, internal, lease } => {
                let mut arguments = mapping(external);
                arguments.extend([
                    ("NewInternalPort", internal.port().to_string()),
                    ("NewInternalClient", internal.ip().to_string()),
                    ("NewEnabled", "1".to_owned()),
                    ("NewPortMappingDescription", "frejus".to_owned()),
                    ("NewLeaseDuration", lease.to_string()),
                ]);
                arguments
            }
        }
    }
}

/// The far address in the answer to [`Call::ExternalAddress`].
#[must_use]
pub fn external_address(answer: &str) -> Option<Ipv4Addr> {
    element(answer, "NewExternalIPAddress")?.trim().parse().ok()
}

/// The number in a refusal: 718, the port is somebody else's; 725, only for ever.
#[must_use]
pub fn error_code(answer: &str) -> Option<u16> {
    element(answer, "errorCode")?.trim().parse().ok()
}

/// Somebody else has that port.
pub const CONFLICT: u16 = 718;
/// The router knows only mappings that last for ever.
pub const ONLY_PERMANENT: u16 = 725;

/// What stands in the first element of this name, whatever its prefix.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    next_element(text, name).map(|(inside, _)| inside)
}

/// The inside of the first element of this name, and what follows it.
fn next_element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (start, _) = tag(text, |inner| is_opening(inner, name))?;
    let inside = &text[start..];
    let (after, at) = tag(inside, |inner| inner.strip_prefix('/').is_some_and(|end| local(end) == name))?;
    Some((&inside[..at], &inside[after..]))
}

fn is_opening(inner: &str, name: &str) -> bool {
    !inner.ends_with('/') && inner.split_whitespace().next().is_some_and(|word| local(word) == name)
}

/// The first tag that `wanted` likes, by what stands between its brackets: where it ends, and where it begins.
fn tag(text: &str, wanted: impl Fn(&str) -> bool) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(open) = text[at..].find('<').map(|open| at + open) {
        let close = open + text[open..].find('>')?;
        if wanted(&text[open + 1..close]) {
            return Some((close + 1, open));
        }
        at = close + 1;
    }
    None
}

/// A name without its namespace's prefix.
fn local(name: &str) -> &str {
    let name = name.trim();
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// The one entity that URLs need.
fn unescape(text: &str) -> String {
    text.replace("&amp;", "&")
}

fn strip_prefix_caseless<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests;
