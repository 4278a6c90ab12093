//! STUN (RFC 8489) with the behaviour discovery of RFC 5780: "this is where I see you", and "does this reach you?"
//!
//! Owns: binding requests and their answers, and as much of RFC 3489 as clients that know no better need. Pure: bytes in,
//! bytes out. Never: credentials, a decision about whether an answer may be sent, an answer to what is no request.

mod attribute;
mod legacy;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use stun_codec::rfc5389::attributes::{
    ErrorCode, MappedAddress, Software, UnknownAttributes, XorMappedAddress,
};
use stun_codec::rfc5389::{errors::UnknownAttribute, methods::BINDING};
use stun_codec::rfc5780::attributes::{OtherAddress, ResponseOrigin};
use stun_codec::{AttributeType, Message, MessageClass, TransactionId};

use attribute::{Asked, Told, Written, decode, encode};
use legacy::{AlternatePort, ChangeRequest, ChangedAddress, ResponsePort, SourceAddress};

/// Ties an answer to its request (RFC 8489, section 5).
pub type Transaction = [u8; 12];

/// Longer requests have nothing to say to us: RFC 8489, section 6.1, keeps a message below 548 bytes over IPv4, and RFC
/// 5780, section 7.6, pads to what a link takes, which coturn's client does with 1,500 bytes of padding alone.
const MAX_REQUEST: usize = 1600;

/// Type, length, cookie, transaction ID.
const HEADER: usize = 20;

/// RFC 8489, section 5.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// Binding request and success (RFC 8489, section 5).
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;

/// Flags of CHANGE-REQUEST (RFC 5780, section 7.2).
const CHANGE_ADDRESS: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// Ports below are services' (RFC 6335, section 6).
pub(crate) const FIRST_CLIENT: u16 = 1024;

/// Unknown attributes that an error names; more are a joke, and would make the answer longer than the question.
const MAX_NAMED: usize = 4;

/// Characters of SOFTWARE in our own requests: with them a request is as long as the longest answer, three IPv6 addresses,
/// so that it costs nobody anything (RFC 8489, section 14.14 allows fewer than 128).
const PADDING: usize = 76;
const SOFTWARE: &str = "frejus";

/// A port of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Port {
    /// The one for everything.
    Main,
    /// The one for STUN alone.
    Alternate,
}

impl Port {
    const fn other(self) -> Self {
        match self {
            Self::Main => Self::Alternate,
            Self::Alternate => Self::Main,
        }
    }
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
    /// Another address with the same port numbers: of this server, or of another one.
    pub other: Option<IpAddr>,
    /// Whether it is of this server, so that answers can come from there.
    pub is_ours: bool,
    /// To which of them the request came.
    pub asked: Port,
}

impl Here {
    /// A server with one port, which need not say its address.
    pub const ALONE: Self =
        Self { address: None, main: 0, alternate: None, other: None, is_ours: false, asked: Port::Main };

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
        self.asked.other()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Send this.
    Answer {
        /// From there.
        from: Port,
        /// And from this address of ours; from any, where we don't know to which the request came.
        by: Option<IpAddr>,
        /// To this port of whoever asked.
        to: u16,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// The answer must come from an address that this server does not have.
    Elsewhere(Errand),
}

/// An answer that another server is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// The request's.
    pub transaction: Transaction,
    /// What a client of RFC 3489 has in place of the cookie.
    pub classic: Option<[u8; 4]>,
    /// From which port.
    pub from: Port,
    /// To which port of the client, if not to the one that it asked from.
    pub wanted: Option<u16>,
}

impl Errand {
    /// From the main port, to a client of our time.
    #[must_use]
    pub const fn plain(transaction: Transaction) -> Self {
        Self { transaction, classic: None, from: Port::Main, wanted: None }
    }

    /// What it says to a client that is seen at `mapped`: nothing else.
    #[must_use]
    pub fn answer(&self, mapped: SocketAddr) -> Vec<u8> {
        let Some(cookie) = self.classic else { return answer(self.transaction, mapped) };
        let mut message = message(MessageClass::SuccessResponse, self.transaction);
        message.add_attribute(MappedAddress::new(mapped));
        let mut bytes = encode(message);
        bytes[4..8].copy_from_slice(&cookie);
        bytes
    }

    /// What a request that came to the port `asked` asks another server for, if it does.
    #[must_use]
    pub fn read(datagram: &[u8], asked: Port) -> Option<Self> {
        let request = read_request(datagram, is_classic(datagram))?;
        let change = request.get_attribute::<ChangeRequest>().map_or(0, |flags| flags.0);
        (change & CHANGE_ADDRESS != 0).then(|| Self::of(&request, datagram, change, asked))
    }

    fn of(request: &Message<Asked>, datagram: &[u8], change: u32, asked: Port) -> Self {
        let cookie = datagram.get(4..8).and_then(|bytes| bytes.try_into().ok());
        Self {
            transaction: *request.transaction_id().as_bytes(),
            classic: cookie.filter(|cookie| *cookie != COOKIE),
            from: if change & CHANGE_PORT == 0 { asked } else { asked.other() },
            wanted: response_port(request),
        }
    }
}

/// What to do about `datagram`, which came from `from`; `None` if it deserves no answer.
///
/// A success is at most 96 bytes longer than the shortest request, over IPv4 48; whether that may be sent to an address that nobody has
/// proved is for the caller to say. A request for an answer from another port, where there is none, stays
/// unanswered: an answer from this one would tell the client that its NAT lets strangers in.
#[must_use]
pub fn respond(datagram: &[u8], from: SocketAddr, here: &Here) -> Option<Reaction> {
    let classic = is_classic(datagram);
    let request = read_request(datagram, classic)?;
    let transaction = *request.transaction_id().as_bytes();
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let wanted = response_port(&request);
    let mut unknown = attribute::not_understood(&request);
    // A service's port is not the asker's.
    if wanted.is_some_and(|port| port < FIRST_CLIENT) {
        unknown.push(AttributeType::new(ResponsePort::CODEPOINT));
    }
    let change = request.get_attribute::<ChangeRequest>().map(|flags| flags.0);
    let asks = request.get_attribute::<AlternatePort>().is_some();
    let to = wanted.unwrap_or(from.port());
    let mut answer = if unknown.is_empty() {
        let old = change == Some(0);
        let change = change.unwrap_or(0);
        let moved = change & CHANGE_ADDRESS != 0;
        if moved && !(here.is_ours && here.elsewhere(from).is_some()) {
            return Some(Reaction::Elsewhere(Errand::of(&request, datagram, change, here.asked)));
        }
        let by = if moved { here.other } else { here.address };
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
        let mut message = success(transaction, from, here, (by, port), style);
        if let Some(number) = here.number(here.other()).filter(|_| asks) {
            message.add_attribute(AlternatePort::new(number.to_be_bytes().to_vec()));
        }
        Reaction::Answer { from: port, by, to, bytes: encode(message) }
    } else {
        let bytes = refusal(transaction, unknown)?;
        Reaction::Answer { from: here.asked, by: here.address, to: from.port(), bytes }
    };
    if let (true, Reaction::Answer { bytes, .. }) = (classic, &mut answer) {
        bytes[4..8].copy_from_slice(&datagram[4..8]);
    }
    Some(answer)
}

/// A request; one of RFC 3489 is read as if it had the cookie, which is part of the transaction ID there.
fn read_request(datagram: &[u8], classic: bool) -> Option<Message<Asked>> {
    if datagram.len() > MAX_REQUEST {
        return None;
    }
    if !classic {
        return decode(REQUEST, datagram);
    }
    let mut modern = datagram.to_vec();
    modern.get_mut(4..8)?.copy_from_slice(&COOKIE);
    decode(REQUEST, &modern)
}

/// The port at the asker's own address that wants the answer (RFC 5780, section 7.5).
fn response_port(request: &Message<Asked>) -> Option<u16> {
    let value = &request.get_attribute::<ResponsePort>()?.0;
    value.first_chunk().map(|number| u16::from_be_bytes(*number))
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
fn success(
    transaction: Transaction,
    seen: SocketAddr,
    here: &Here,
    (by, port): (Option<IpAddr>, Port),
    style: Style,
) -> Message<Written> {
    let mut message = message(MessageClass::SuccessResponse, transaction);
    if style != Style::Classic {
        message.add_attribute(XorMappedAddress::new(seen));
    }
    if style != Style::Modern {
        message.add_attribute(MappedAddress::new(seen));
    }
    let origin = Here { address: by, ..*here }.at(port).filter(|_| here.alternate.is_some());
    let elsewhere = here.elsewhere(seen);
    if style == Style::Classic {
        origin.into_iter().for_each(|at| message.add_attribute(SourceAddress::new(at)));
        // RFC 5780, section 7.4: only a server with a second address names it. RFC 3489 knows no server without.
        let other = elsewhere.or_else(|| here.at(here.other()));
        other.into_iter().for_each(|at| message.add_attribute(ChangedAddress::new(at)));
    } else {
        origin.into_iter().for_each(|at| message.add_attribute(ResponseOrigin::new(at)));
        elsewhere.into_iter().for_each(|at| message.add_attribute(OtherAddress::new(at)));
    }
    message
}

/// RFC 8489, section 6.3.1: error 420 names what was not understood.
fn refusal(transaction: Transaction, unknown: Vec<AttributeType>) -> Option<Vec<u8>> {
    if unknown.len() > MAX_NAMED {
        return None;
    }
    let mut message = message(MessageClass::ErrorResponse, transaction);
    message.add_attribute(ErrorCode::from(UnknownAttribute));
    message.add_attribute(UnknownAttributes::new(unknown));
    Some(encode(message))
}

fn message(class: MessageClass, transaction: Transaction) -> Message<Written> {
    Message::new(class, BINDING, TransactionId::new(transaction))
}

/// A request of ours, as long as any answer to it.
#[must_use]
pub fn request(transaction: Transaction) -> Vec<u8> {
    let mut message = message(MessageClass::Request, transaction);
    let software = Software::new(format!("{SOFTWARE:<PADDING$}")).expect("fewer than 128 characters");
    message.add_attribute(AlternatePort::new(Vec::new()));
    message.add_attribute(software);
    encode(message)
}

/// An answer that says nothing but `mapped`: to somebody who waits for it from here without having asked here.
#[must_use]
pub fn answer(transaction: Transaction, mapped: SocketAddr) -> Vec<u8> {
    let mut message = message(MessageClass::SuccessResponse, transaction);
    message.add_attribute(XorMappedAddress::new(mapped));
    encode(message)
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
    read_request(datagram, false).map(|request| *request.transaction_id().as_bytes())
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
        let message: Message<Told> = decode(SUCCESS, datagram)?;
        let veiled = message.get_attribute().map(XorMappedAddress::address);
        let mapped = veiled.or_else(|| message.get_attribute().map(MappedAddress::address))?;
        let alternate = message.get_attribute::<AlternatePort>();
        let alternate =
            alternate.and_then(|number| Some(u16::from_be_bytes(number.0.as_slice().try_into().ok()?)));
        Some(Self { transaction: *message.transaction_id().as_bytes(), mapped, alternate })
    }
}

#[cfg(test)]
mod tests;
