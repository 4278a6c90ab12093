//! Enrolment: a newcomer asks the doors in its code, a login server answers.
//!
//! Owns: [`Enrolment`], the newcomer's state machine, and [`answer`], the login server's half of the exchange. Time
//! and datagrams come in, datagrams and deadlines come out. Never: a socket; what a code is good for
//! ([`crate::login`]); what a joined node does next.
//!
//! The exchange is one sealed datagram each way. All doors are asked at once and again until one answers, since
//! whoever loses an answer may ask again without burning the code. A refusal can't be checked as a welcome can: the
//! answer opens only with our tunnel key, which only the doors were told.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::code::{Code, Door};
use crate::document::{Contact, Credential, Genesis, Invalid, Member, Network, Signed, Verified};
use crate::id::{NetworkId, NodeId, TunnelKey};
use crate::login::{Entry, LoginServer};
use crate::timing::{Instant, Now, UnixTime};
use crate::tunnel::{Crypto, Purpose};
use crate::wire::enrol::{Answer, PADDED, Refusal, Request};
use crate::wire::{ENROL_ANSWER, ENROL_REQUEST, Frame, classify, frame};

/// The first wait for an answer: longer than most round trips. Each further wait is twice as long, up to
/// [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_millis(1200);

/// Requests go out after 0, 0.3, 0.9 and 2.1 seconds, and every 1.2 s from there on: thirteen, all of which a link that
/// loses three of ten datagrams swallows once in six thousand times. A person has waited long enough then.
const PATIENCE: Duration = Duration::from_secs(15);

/// A passport whose name is longest (1 + 63 bytes), with two identifiers and a signature (2 × 32 + 64), numbers (30),
/// the rest (8), and the answer's own bytes (4).
const PASSPORT_ROOM: usize = 240;

/// A network that this node has joined.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The envelope that hashes to the network's ID.
    pub genesis: Signed<Genesis>,
    /// The network, checked against the code.
    pub network: Network,
    /// Our own passport with its grant, as it is kept and shown to others.
    pub credential: Credential,
    /// Who we are.
    pub member: Verified<Member>,
    /// A super peer to begin with.
    pub contact: Contact,
}

/// Why a node was not enrolled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// No door answered.
    #[error("no answer from {}", list(.asked))]
    Silent {
        /// The addresses that were asked.
        asked: Vec<SocketAddr>,
    },
    /// A login server said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Our clock, or the login server's, is too wrong for documents to be valid.
    #[error("the clock of this machine is {}", off(*.ahead_s))]
    Clock {
        /// How far our clock is ahead of the login server's, in seconds.
        ahead_s: i64,
    },
    /// An answer came whose documents don't hold.
    #[error("the login server's answer does not hold: {0}")]
    Invalid(Invalid),
}

/// The newcomer's half. Drive it like every machine: after each input drain [`Self::poll_output`], sleep until
/// [`Self::poll_timeout`], stop when there is an [`Self::outcome`].
pub struct Enrolment {
    network: NetworkId,
    secret: [u8; 16],
    doors: Vec<Door>,
    key: SigningKey,
    tunnel_key: TunnelKey,
    name: Option<String>,
    give_up: Option<Instant>,
    send_at: Instant,
    wait: Duration,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Doors that don't know the code; another may.
    ignorant: BTreeSet<usize>,
    /// What to say if nothing better comes.
    doubt: Option<EnrolError>,
    outcome: Option<Result<Enrolled, EnrolError>>,
}

impl Enrolment {
    /// Ask the doors of `code` to enrol the node with `key`. `name` is a wish.
    #[must_use]
    pub fn new(code: &Code, key: SigningKey, tunnel_key: TunnelKey, name: Option<String>) -> Self {
        Self {
            network: code.network,
            secret: code.secret,
            doors: code.doors.clone(),
            key,
            tunnel_key,
            name,
            give_up: None,
            send_at: Instant::ZERO,
            wait: FIRST_WAIT,
            queue: VecDeque::new(),
            ignorant: BTreeSet::new(),
            doubt: None,
            outcome: None,
        }
    }

    /// Ask, ask again, or give up, whichever is due.
    pub fn handle_timeout(&mut self, now: Now, crypto: &mut dyn Crypto) {
        if self.outcome.is_some() {
            return;
        }
        let give_up = *self.give_up.get_or_insert(now.instant + PATIENCE);
        if now.instant >= give_up {
            let silent = EnrolError::Silent { asked: self.asked() };
            let error = self.doubt.take().unwrap_or(silent);
            self.finish(Err(error));
        } else if now.instant >= self.send_at {
            self.ask(now.unix, crypto);
            self.send_at = now.instant + self.wait;
            self.wait = LONGEST_WAIT.min(self.wait * 2);
        }
    }

    /// A datagram came; all but a door's answer is ignored.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Now, crypto: &mut dyn Crypto) {
        if self.outcome.is_some() || self.give_up.is_none() {
            return;
        }
        let Some(Frame::EnrolAnswer(sealed)) = classify(bytes) else { return };
        let opened = crypto.open_sealed(Purpose::EnrolAnswer, sealed);
        match opened.as_deref().and_then(Answer::decode) {
            None => {}
            Some(Answer::Welcome { genesis, credential, contact }) => {
                match self.check(genesis, credential, contact, now.unix) {
                    Err(EnrolError::Invalid(invalid)) => self.doubt = Some(EnrolError::Invalid(invalid)),
                    checked => self.finish(checked),
                }
            }
            Some(Answer::Refused(refusal)) => self.on_refusal(from, refusal),
        }
    }

    /// The next datagram to send.
    pub fn poll_output(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.queue.pop_front()
    }

    /// When to call [`Self::handle_timeout`]; `None` once there is an outcome.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.outcome.is_some(), self.give_up) {
            (true, _) => None,
            (false, Some(give_up)) if self.queue.is_empty() => Some(self.send_at.min(give_up)),
            (false, _) => Some(Instant::ZERO),
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Enrolled, EnrolError>> {
        self.outcome.clone()
    }

    fn ask(&mut self, now: UnixTime, crypto: &mut dyn Crypto) {
        let name = self.name.clone();
        let request =
            Request::new(&self.network, &self.key, self.tunnel_key, name, self.secret, now).encode();
        for door in &self.doors {
            let sealed = crypto.seal_to(&door.tunnel_key, Purpose::EnrolRequest, &request);
            let bytes = frame(ENROL_REQUEST, &sealed);
            self.queue.extend(door.addresses.iter().map(|to| (*to, bytes.clone())));
        }
    }

    /// A door that does not know the code is not the last word while there are others.
    fn on_refusal(&mut self, from: SocketAddr, refusal: Refusal) {
        if let Refusal::Clock { ahead_s } = refusal {
            return self.finish(Err(EnrolError::Clock { ahead_s }));
        }
        let is_final = refusal != Refusal::UnknownCode || {
            let door = self.doors.iter().position(|door| door.addresses.contains(&from));
            self.ignorant.extend(door);
            self.ignorant.len() == self.doors.len() || self.doors.len() == 1
        };
        let refused = EnrolError::Refused(refusal);
        if is_final { self.finish(Err(refused)) } else { self.doubt = Some(refused) }
    }

    /// The whole chain, down to us and to the first super peer.
    fn check(
        &self,
        genesis: Signed<Genesis>,
        credential: Credential,
        contact: Contact,
        now: UnixTime,
    ) -> Result<Enrolled, EnrolError> {
        if genesis.network() != self.network {
            return Err(EnrolError::Invalid(Invalid::Foreign));
        }
        let network = Network::new(&genesis).map_err(EnrolError::Invalid)?;
        let member = verify(&credential, &network, now)?;
        if member.passport.node != NodeId(self.key.verifying_key().to_bytes()) {
            return Err(EnrolError::Invalid(Invalid::Subject));
        }
        // Whereabouts live minutes, so that clocks within the tolerance may disagree about them: what counts is that
        // they were valid when they were signed.
        let issued = contact.whereabouts.claim().map_err(EnrolError::Invalid)?.issued;
        let known = contact.verify(&network, now).or_else(|_| contact.verify(&network, issued));
        known.map_err(EnrolError::Invalid)?;
        Ok(Enrolled { genesis, network, credential, member, contact })
    }

    fn finish(&mut self, outcome: Result<Enrolled, EnrolError>) {
        self.queue.clear();
        self.outcome = Some(outcome);
    }

    fn asked(&self) -> Vec<SocketAddr> {
        self.doors.iter().flat_map(|door| door.addresses.iter().copied()).collect()
    }
}

/// Check our new passport. If all that is wrong is the time, then it is our clock: the passport was made just now.
fn verify(credential: &Credential, network: &Network, now: UnixTime) -> Result<Verified<Member>, EnrolError> {
    let invalid = match credential.verify(network, now) {
        Ok(member) => return Ok(member),
        Err(invalid) => invalid,
    };
    let made = credential.passport.claim().map_err(EnrolError::Invalid)?.not_before;
    let untimely = matches!(invalid, Invalid::NotYet | Invalid::Expired);
    if untimely && credential.verify(network, made).is_ok() {
        let signed = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
        return Err(EnrolError::Clock { ahead_s: signed(now) - signed(made) });
    }
    Err(EnrolError::Invalid(invalid))
}

/// The login server's half: what to send back to whoever sent `sealed`, the body of an enrolment request's frame, and
/// the ledger's entries, which must be on disk before that. `None`, silently, for what can't be authenticated. The
/// answer is never larger than the request, so that nobody is flooded by asking in another's name.
///
/// `contact` is this node's own, with few enough candidates to fit into an answer: twelve IPv6
/// candidates do, unless names are very long.
#[must_use]
pub fn answer(
    server: &mut LoginServer,
    genesis: &Signed<Genesis>,
    contact: &Contact,
    sealed: &[u8],
    crypto: &mut dyn Crypto,
    now: UnixTime,
) -> Option<(Vec<u8>, Vec<Entry>)> {
    if sealed.len() < PADDED {
        return None;
    }
    let request = Request::decode(&crypto.open_sealed(Purpose::EnrolRequest, sealed)?)?;
    if !request.is_authentic(&server.network().id) {
        return None;
    }
    // Checked before the code is burnt for an answer that can't be sent.
    let parts = [server.grant().as_bytes(), genesis.as_bytes(), contact.credential.grant.as_bytes()];
    let rest = [contact.credential.passport.as_bytes(), contact.whereabouts.as_bytes()];
    let size: usize = parts.iter().chain(&rest).map(|part| part.len() + 2).sum();
    if size + PASSPORT_ROOM > PADDED {
        tracing::error!(size, "our own contact is too large to be handed to newcomers");
        return None;
    }
    let (answer, entries) = match server.enrol(&request, now) {
        Ok((credential, entries)) => {
            let (genesis, contact) = (genesis.clone(), contact.clone());
            (Answer::Welcome { genesis, credential, contact }, entries)
        }
        Err(refusal) => (Answer::Refused(refusal), Vec::new()),
    };
    let sealed = crypto.seal_to(&request.tunnel_key, Purpose::EnrolAnswer, &answer.encode());
    Some((frame(ENROL_ANSWER, &sealed), entries))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// "3 h fast", for people.
fn off(ahead_s: i64) -> String {
    let (size, direction) = (ahead_s.unsigned_abs(), if ahead_s < 0 { "slow" } else { "fast" });
    let (number, unit) = match size {
        0..120 => (size, "s"),
        120..7_200 => (size / 60, "min"),
        7_200..172_800 => (size / 3_600, "h"),
        _ => (size / 86_400, "days"),
    };
    format!("{number} {unit} {direction}")
}

#[cfg(test)]
mod tests;
