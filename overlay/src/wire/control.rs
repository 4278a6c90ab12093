//! What two nodes tell each other inside the tunnel: IPv6/UDP between their key-derived addresses.
//!
//! Owns: [`Message`] and its encoding, `version (1) ‖ postcard`. The tunnel authenticates and orders against
//! replay; nothing here is signed twice.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::agreement::{Answer, Offer};
use crate::doctor::Side;
use crate::document::{Candidate, Contact, Credential, Signed, Whereabouts};
use crate::guess::{Ports, Window};
use crate::id::{NodeId, Subject};
use crate::locator::Channel;
use crate::stun::{Errand, Transaction};

/// UDP port of control messages, source and destination, at the key-derived addresses.
pub const PORT: u16 = 51860;

const VERSION: u8 = 1;

/// Largest encoded message: an inner IPv6 packet of 1280 bytes (RFC 8200, section 5) less its headers.
pub const MAX: usize = 1280 - 48;

/// A message inside the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "Do you hear me on this path?" Answered on the same path. May be padded with zeros, by which the sender finds out
    /// how large a packet the path takes ([`Message::padded`]).
    Probe {
        /// Comes back.
        token: u64,
    },
    /// "Yes, and I saw you there."
    ProbeAck {
        /// The probe's.
        token: u64,
        /// Where the probe came from; `None` through a relay.
        seen: Option<SocketAddr>,
    },
    /// "Try me at these places: I am trying you now."
    Candidates {
        /// The sender's.
        candidates: Vec<Candidate>,
        /// Whether the receiver's own candidates are wanted in return.
        answer: bool,
        /// How the NAT in front of the sender chooses ports.
        ports: Ports,
    },
    /// To a super peer: "Who holds this, and where?"
    Lookup {
        /// Comes back.
        id: u32,
        /// What is asked for.
        subject: Subject,
    },
    /// What a super peer knows; nothing at all means that it found nobody.
    LookupAnswer {
        /// The look-up's.
        id: u32,
        /// Who.
        credential: Option<Credential>,
        /// Where.
        whereabouts: Option<Signed<Whereabouts>>,
    },
    /// To a home: "Here I am: keep it, and put it into the directory."
    Publish {
        /// The sender's.
        contact: Contact,
    },
    /// "Kept."
    Published {
        /// The whereabouts' sequence.
        sequence: u64,
    },
    /// To a super peer: "Hand this to a node of yours, and open a channel to it."
    Knock {
        /// Whose door.
        to: NodeId,
        /// The channel the handshake will use.
        channel: Channel,
        /// Sealed to the addressee: the caller's contact.
        sealed: Vec<u8>,
    },
    /// From a super peer: "Somebody knocks; what comes on this channel is theirs."
    Knocked {
        /// The channel.
        channel: Channel,
        /// As the caller sealed it.
        sealed: Vec<u8>,
    },
    /// To a super peer: "Open this channel (again)."
    Channel {
        /// The channel.
        channel: Channel,
        /// The other end.
        with: NodeId,
    },
    /// From a super peer: it cannot be done.
    Refused {
        /// The channel that was asked for.
        channel: Channel,
        /// Why.
        why: Refusal,
    },
    /// To a login server: "Renew my passport."
    Renew,
    /// From a login server.
    Renewed {
        /// The new one.
        credential: Credential,
    },
    /// To a super peer: "Which others do you know?" Answered by one [`Self::SuperPeer`] each.
    SuperPeers,
    /// "Here is one."
    SuperPeer {
        /// How to reach it.
        contact: Contact,
    },
    /// "I am going down."
    Bye,
    /// "Let us have transport keys."
    Offer(Offer),
    /// "Here is my half of them."
    Answer(Answer),
    /// "You will see me at one of these ports: probe them, from where I have just probed you."
    Predicted(Window),
    /// "My ports are scattered. Would you guess at this address? Then I open many."
    GuessOffer {
        /// The sender's, as others see it.
        ip: IpAddr,
    },
    /// "I guess: open them."
    GuessAgreed,
    /// To a super peer: "Have STUN answers sent to this mapping of mine, from your other port and by another super peer."
    Reflect {
        /// The answers'.
        transaction: Transaction,
        /// At the address that the sender comes from.
        to: SocketAddr,
        /// Super peers that the mapping has seen.
        avoid: Vec<NodeId>,
    },
    /// Between super peers: "Send a STUN answer there."
    ReflectFor {
        /// Which.
        errand: Errand,
        /// A member's mapping.
        to: SocketAddr,
    },
    /// What was done about it.
    Reflected {
        /// The answer's.
        transaction: Transaction,
        /// What.
        reflected: Reflected,
    },
    /// A [`Self::Probe`] of somebody who has moved: "trust no other place of mine until it answers you." Answered like a
    /// probe.
    Moved {
        /// Comes back.
        token: u64,
    },
    /// From a super peer, asked for others: how busy it is itself.
    Load {
        /// Nodes with a tunnel to it.
        nodes: u16,
        /// What it relays, in Mbit/s, rounded down.
        mbits: u16,
    },
    /// "What do you know about your side of our path?"
    Examine {
        /// Comes back.
        id: u32,
    },
    /// "This."
    Examined {
        /// The question's.
        id: u32,
        /// The sender's.
        side: Side,
    },
    /// To a super peer: "At which address do you see the other end of this channel?"
    Sight {
        /// One of the sender's.
        channel: Channel,
    },
    /// The answer to that.
    Sighted {
        /// The channel that was asked about.
        channel: Channel,
        /// Its other end's; `None` if it is not there, or not by UDP.
        at: Option<IpAddr>,
    },
    /// A user's: "do you hear me?" Travels as data does, counts as such, and is answered by the way that the receiver's own data
    /// takes.
    Echo {
        /// Comes back.
        token: u64,
    },
    /// The answer to that.
    EchoReply {
        /// The echo's.
        token: u64,
    },
    /// "Others see a TCP port of mine there: connect to it from yours, while I connect to that."
    Cross {
        /// The sender's.
        at: SocketAddr,
        /// Whether the receiver's port is wanted in return.
        answer: bool,
    },
}

/// What a super peer did to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reflected {
    /// It has sent an answer from its second port.
    FromAlternate,
    /// Another super peer has sent one.
    ByStranger,
    /// It has no second port.
    NoAlternate,
    /// It has no tunnel with a super peer that the mapping has not seen.
    NoStranger,
}

/// Why a super peer does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The other end has no tunnel with this super peer.
    NotHere,
    /// The sender has too many channels.
    Quota,
    /// The channel belongs to others.
    Taken,
}

impl Message {
    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("messages are plain data")
    }

    /// As it travels, and zeros up to `length` bytes. Only a probe may be padded.
    #[must_use]
    pub fn padded(&self, length: usize) -> Vec<u8> {
        let mut bytes = self.encode();
        bytes.resize(length.max(bytes.len()), 0);
        bytes
    }

    /// Read what came out of a tunnel; `None` if it is no message of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [VERSION, body @ ..] = bytes else { return None };
        let (message, rest) = postcard::take_from_bytes(body).ok()?;
        let is_sound = match message {
            Self::Probe { .. } => rest.iter().all(|byte| *byte == 0),
            _ => rest.is_empty() && bytes.len() <= MAX,
        };
        is_sound.then_some(message)
    }
}
