//! STUN (RFC 8489) with the behaviour discovery of RFC 5780: "this is where I see you", and "does this reach you?"
//!
//! Owns: binding requests and their answers, and as much of RFC 3489 as clients that know no better need. Pure: bytes in,
//! bytes out. Never: credentials, a decision about whether an answer may be sent, an answer to what is no request.

mod attribute;

use std::net::{IpAddr, SocketAddr};

use attribute::{Attributes, kind};

/// Ties an answer to its request (RFC 8489, section 5).
pub type Transaction = [u8; 12];

/// Longer requests have nothing to say to us: RFC 8489, section 6.1, keeps a message below 548 bytes over IPv4, and RFC
/// 5780, section 6.1, pads to what a link takes.
const MAX_REQUEST: usize = 1500;

/// Type, length, cookie, transaction ID.
const HEADER: usize = 20;

/// RFC 8489, section 5.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// Binding request, success and error (RFC 8489, section 5).
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;

/// Flags of CHANGE-REQUEST (RFC 5780, section 7.2).
const CHANGE_ADDRESS: u8 = 4;
const CHANGE_PORT: u8 = 2;

/// Unknown attributes that an error names; more are a joke, and would make the answer longer than the question.
const MAX_NAMED: usize = 4;

/// Bytes of SOFTWARE in our own requests: with them a request is as long as the longest answer, three IPv6 addresses, so
/// that it costs nobody anything (RFC 8489, section 14.14 allows 763).
const PADDING: usize = 76;
const SOFTWARE: &[u8] = b"frejus";

/// A port of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The one for everything.
    Main,
    /// The one for STUN alone.
    Alternate,
}

/// A server as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// The address that the client has sent to, if that is known.
    pub address: Option<IpAddr>,
    /// Number of the main port.
    pub main: u16,
    /// Number of the other one, if it is open.
    pub alternate: Option<u16>,
    /// Another server with the same port numbers.
    pub other: Option<IpAddr>,
    /// To which of them the request came.
    pub asked: Port,
}

impl Here {
    /// A server with one port, which need not say its address.
    pub const ALONE: Self = Self { address: None, main: 0, alternate: None, other: None, asked: Port::Main };

    const fn number(&self, port: Port) -> Option<u16> {
        match port {
            Port::Main => Some(self.main),
            Port::Alternate => self.alternate,
        }
    }

    fn at(&self, port: Port) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address?.to_canonical(), self.number(port)?))
    }

    /// The other address with the other port, of the family of `from`.
    fn elsewhere(&self, from: SocketAddr) -> Option<SocketAddr> {
        let other = self.other.filter(|other| other.is_ipv4() == from.is_ipv4())?;
        self.alternate?;
        Some(SocketAddr::new(other, self.number(self.other())?))
    }

    const fn other(&self) -> Port {
        match self.asked {
            Port::Main => Port::Alternate,
            Port::Alternate => Port::Main,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Send this.
    Answer {
        /// From there.
        from: Port,
        /// To whoever asked.
        bytes: Vec<u8>,
    },
    /// The answer must come from an address that this server does not have.
    Elsewhere(Transaction),
}

/// What to do about `datagram`, which came from `from`; `None` if it deserves no answer.
///
/// A success is at most 96 bytes longer than the shortest request, over IPv4 48; whether that may be sent to an address that nobody has
/// proved is for the caller to say. A request for an answer from another port, where there is none, stays
/// unanswered: an answer from this one would tell the client that its NAT lets strangers in.
#[must_use]
pub fn respond(datagram: &[u8], from: SocketAddr, here: &Here) -> Option<Reaction> {
    let classic = is_classic(datagram);
    let (transaction, body) = request_parts(datagram, classic)?;
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let (mut change, mut unknown, mut asks) = (None, Vec::new(), false);
    for (kind, value) in Attributes(body) {
        match kind {
            kind::ALTERNATE_PORT => asks = true,
            kind::CHANGE_REQUEST => change = Some(value.last().copied().unwrap_or(0)),
            kind if attribute::must_be_known(kind) => unknown.push(kind),
            _ => {}
        }
    }
    let mut answer = if unknown.is_empty() {
        let old = change == Some(0);
        let change = change.unwrap_or(0);
        if change & CHANGE_ADDRESS != 0 {
            return (!classic).then_some(Reaction::Elsewhere(transaction));
        }
        let port = if change & CHANGE_PORT == 0 { here.asked } else { here.other() };
        if port == Port::Alternate {
            here.alternate?;
        }
        // A client that says "change nothing" is of the age of RFC 3489, even if it puts the cookie where that had none.
        let style = if classic {
            Style::Classic
        } else if old {
            Style::Both
        } else {
            Style::Modern
        };
        let mut bytes = success(transaction, from, here, port, style);
        if let Some(number) = here.number(here.other()).filter(|_| asks) {
            attribute::put(&mut bytes, kind::ALTERNATE_PORT, &number.to_be_bytes());
        }
        Reaction::Answer { from: port, bytes: finish(bytes) }
    } else {
        Reaction::Answer { from: here.asked, bytes: refusal(transaction, &unknown)? }
    };
    if let (true, Reaction::Answer { bytes, .. }) = (classic, &mut answer) {
        bytes[4..8].copy_from_slice(&datagram[4..8]);
    }
    Some(answer)
}

/// The transaction and the attributes of a request.
fn request_parts(datagram: &[u8], classic: bool) -> Option<(Transaction, &[u8])> {
    let (head, body) = datagram.split_at_checked(HEADER)?;
    let sound = datagram.len() <= MAX_REQUEST
        && u16::from_be_bytes([head[0], head[1]]) == REQUEST
        && usize::from(u16::from_be_bytes([head[2], head[3]])) == body.len()
        && (classic || head[4..8] == COOKIE)
        && attribute::is_sound(body);
    let transaction = head[8..].try_into().ok()?;
    sound.then_some((transaction, body))
}

/// In which words a client wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// RFC 3489.
    Classic,
    /// RFC 8489, and the plain address beside.
    Both,
    /// RFC 8489.
    Modern,
}

/// Clients of RFC 3489 get the addresses in its own words (sections 11.2.1, 11.2.3 and 11.2.5).
fn success(transaction: Transaction, seen: SocketAddr, here: &Here, port: Port, style: Style) -> Vec<u8> {
    let (origin, other) = match style {
        Style::Classic => (kind::SOURCE_ADDRESS, kind::CHANGED_ADDRESS),
        Style::Both | Style::Modern => (kind::RESPONSE_ORIGIN, kind::OTHER_ADDRESS),
    };
    let mut bytes = header(SUCCESS, transaction);
    if style != Style::Classic {
        attribute::put_address(&mut bytes, kind::XOR_MAPPED_ADDRESS, seen);
    }
    if style != Style::Modern {
        attribute::put_address(&mut bytes, kind::MAPPED_ADDRESS, seen);
    }
    // RFC 5780, section 7.4: only a server with a second address names it. RFC 3489 knows no server without.
    let classic = here.at(here.other()).filter(|_| style == Style::Classic);
    if let Some(at) = here.at(port).filter(|_| here.alternate.is_some()) {
        attribute::put_address(&mut bytes, origin, at);
    }
    if let Some(at) = here.elsewhere(seen).or(classic) {
        attribute::put_address(&mut bytes, other, at);
    }
    bytes
}

/// RFC 8489, section 6.3.1: error 420 names what was not understood.
fn refusal(transaction: Transaction, unknown: &[u16]) -> Option<Vec<u8>> {
    if unknown.len() > MAX_NAMED {
        return None;
    }
    let mut bytes = header(ERROR, transaction);
    attribute::put(&mut bytes, kind::ERROR_CODE, b"\0\0\x04\x14Unknown Attribute");
    let named: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    attribute::put(&mut bytes, kind::UNKNOWN_ATTRIBUTES, &named);
    Some(finish(bytes))
}

fn header(kind: u16, transaction: Transaction) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(COOKIE);
    bytes.extend(transaction);
    bytes
}

fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(bytes.len() - HEADER).expect("a few attributes");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A request of ours, as long as any answer to it.
#[must_use]
pub fn request(transaction: Transaction) -> Vec<u8> {
    let mut bytes = header(REQUEST, transaction);
    let mut software = SOFTWARE.to_vec();
    software.resize(PADDING, b' ');
    attribute::put(&mut bytes, kind::ALTERNATE_PORT, &[]);
    attribute::put(&mut bytes, kind::SOFTWARE, &software);
    finish(bytes)
}

/// An answer that says nothing but `mapped`: to somebody who waits for it from here without having asked here.
#[must_use]
pub fn answer(transaction: Transaction, mapped: SocketAddr) -> Vec<u8> {
    let mut bytes = header(SUCCESS, transaction);
    attribute::put_address(&mut bytes, kind::XOR_MAPPED_ADDRESS, mapped);
    finish(bytes)
}

/// Whether a STUN message answers a request: the upper bit of its class (RFC 8489, section 5).
#[must_use]
pub fn is_answer(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 1 == 1)
}

/// Whether this is a binding request of RFC 3489, section 11.1: no magic cookie, and a length that fits.
#[must_use]
pub fn is_classic(datagram: &[u8]) -> bool {
    match datagram {
        [0, 1, high, low, cookie @ ..] => {
            usize::from(u16::from_be_bytes([*high, *low])) + HEADER == datagram.len()
                && !cookie.starts_with(&COOKIE)
        }
        _ => false,
    }
}

/// The transaction of a request by RFC 8489.
#[must_use]
pub fn transaction_of_request(datagram: &[u8]) -> Option<Transaction> {
    request_parts(datagram, false).map(|(transaction, _)| transaction)
}

/// A success as its receiver reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's.
    pub transaction: Transaction,
    /// Where the server saw us.
    pub mapped: SocketAddr,
    /// Number of the server's other port, if it was asked and has one.
    pub alternate: Option<u16>,
}

impl Answer {
    /// Read a binding success; `None` if it is none, or says nothing.
    #[must_use]
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let (head, body) = datagram.split_at_checked(HEADER)?;
        let sound = u16::from_be_bytes([head[0], head[1]]) == SUCCESS
            && usize::from(u16::from_be_bytes([head[2], head[3]])) == body.len()
            && head[4..8] == COOKIE
            && attribute::is_sound(body);
        if !sound {
            return None;
        }
        let transaction: Transaction = head[8..].try_into().ok()?;
        let find = |wanted| {
            let (_, value) = Attributes(body).find(|(kind, _)| *kind == wanted)?;
            attribute::read_address(wanted, value, &transaction)
        };
        let mapped = find(kind::XOR_MAPPED_ADDRESS).or_else(|| find(kind::MAPPED_ADDRESS))?;
        let alternate = Attributes(body).find(|(number, _)| *number == kind::ALTERNATE_PORT);
        let alternate = alternate.and_then(|(_, value)| Some(u16::from_be_bytes(value.try_into().ok()?)));
        Some(Self { transaction, mapped, alternate })
    }
}

#[cfg(test)]
mod tests;
