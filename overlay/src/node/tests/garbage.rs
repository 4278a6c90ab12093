//! Whatever comes, from strangers or from members that misbehave: no panic, no unbounded growth, and the laws hold.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::document::{Candidate, CandidateKind};
use crate::guess::{Ports, Window};
use crate::limits::{DOORS, LOOKUPS, PEERS};
use crate::locator::Channel;
use crate::stun::Errand;
use crate::wire::control::{Reflected, Refusal};

struct Dice(ChaCha20Rng);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0.next_u32() % n
    }

    fn bytes(&mut self, most: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most + 1) as usize];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A frame of any kind around noise, of a length that its kind may have.
    fn datagram(&mut self) -> Vec<u8> {
        let first =
            [1, 2, 3, 4, wire::RELAY, wire::KNOCK, wire::ENROL_REQUEST, wire::ENROL_ANSWER, wire::STRANGER];
        let kind = first[self.below(9) as usize];
        let length = [148, 92, 64, 100, 40, 200, 1400, 60, 4][self.below(9) as usize];
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        let version = if kind < 5 { 0 } else { wire::VERSION };
        bytes[..4].copy_from_slice(&[kind, version, 0, 0]);
        bytes
    }

    fn message(&mut self, world: &World) -> Message {
        let some = |dice: &mut Self| [A, B, LOGIN, 9][dice.below(4) as usize];
        let (who, channel) = (some(self), Channel(u64::from(self.below(3))));
        let contact = || world.contact(who);
        match self.below(30) {
            0 => Message::Probe { token: self.0.next_u64() },
            1 => Message::ProbeAck { token: self.0.next_u64(), seen: Some(address(9)) },
            2 | 3 => {
                let kind = CandidateKind::Host;
                let many = (0..self.below(40)).map(|n| Candidate { kind, at: address(n as u8) });
                let ports = [Ports::Unknown, Ports::Kept, Ports::Counted(1), Ports::Scattered]
                    [self.below(4) as usize];
                Message::Candidates { candidates: many.collect(), answer: self.below(2) == 0, ports }
            }
            4 => Message::Lookup {
                id: self.below(9),
                subject: Subject::Name(format!("n{}", self.below(5000))),
            },
            5 => Message::Lookup { id: self.below(9), subject: Subject::Node(node(who)) },
            6 => Message::LookupAnswer {
                id: self.below(9),
                credential: Some(contact().credential),
                whereabouts: None,
            },
            7 => Message::Publish { contact: contact() },
            8 => Message::Published { sequence: self.0.next_u64() },
            9 => Message::Knock { to: node(some(self)), channel, sealed: self.bytes(1000) },
            10 => Message::Knocked { channel, sealed: self.bytes(1000) },
            11 => Message::Channel { channel, with: node(who) },
            12 => Message::Refused { channel, why: Refusal::NotHere },
            13 => Message::Renew,
            14 => Message::Renewed { credential: contact().credential },
            15 => Message::SuperPeers,
            16 => {
                let (first, step, count) =
                    (self.below(65536) as u16, self.below(65536) as i16, self.below(256) as u8);
                Message::Predicted(Window { ip: address(who).ip(), first, step, count })
            }
            17 => Message::GuessOffer { ip: address(who).ip() },
            18 => Message::GuessAgreed,
            19 => Message::Moved { token: self.0.next_u64() },
            20 => Message::Load { nodes: self.below(65536) as u16, mbits: self.below(65536) as u16 },
            21 => Message::Sight { channel },
            22 => Message::Sighted { channel, at: Some(address(who).ip()) },
            23 => {
                let avoid = (0..self.below(9)).map(|n| node(n as u8)).collect();
                Message::Reflect { transaction: [1; 12], to: address(who), avoid }
            }
            24 => Message::ReflectFor { errand: Errand::plain([1; 12]), to: address(who) },
            27 => Message::Echo { token: self.0.next_u64() },
            28 => Message::EchoReply { token: self.0.next_u64() },
            26 => Message::Examine { id: self.below(9) },
            25 => Message::Reflected { transaction: [1; 12], reflected: Reflected::ByStranger },
            _ => Message::SuperPeer { contact: contact() },
        }
    }
}

#[test]
fn nodes_survive_garbage_and_misbehaviour() {
    for seed in 0..3 {
        let mut dice = Dice(ChaCha20Rng::seed_from_u64(seed));
        let mut world = acquainted();
        for step in 0..600 {
            let pair = [(A, B), (B, A), (A, LOGIN), (LOGIN, A), (LOGIN, B)][dice.below(5) as usize];
            if dice.below(2) == 0 && world.hosts[&pair.0].node.peers.contains_key(&node(pair.1)) {
                let message = dice.message(&world);
                world.tell(pair.0, pair.1, &message);
            } else {
                let from = [address(pair.1), address(9)][dice.below(2) as usize];
                let datagram = dice.datagram();
                world.inject(pair.0, from, datagram);
            }
            world.run(u64::from(dice.below(40)));
            assert!(world.hosts.values().all(|host| is_bounded(&host.node)), "seed {seed}, step {step}");
        }
        // And afterwards they still talk.
        world.run(30_000);
        let heard = world.host(B).tun.len();
        world.say(A, B);
        world.run(5000);
        assert_eq!(world.host(B).tun.len(), heard + 1, "seed {seed}");
    }
}

fn is_bounded(node: &Node) -> bool {
    let keys: BTreeSet<NodeId> = node.by_key.values().copied().collect();
    let peers: BTreeSet<NodeId> = node.peers.keys().copied().collect();
    let slots = node.slots.iter().flatten().count();
    keys == peers
        && slots == peers.len()
        && node.wakes.len() == peers.len()
        && node.slots.len() <= PEERS
        && node.waiting.len() <= LOOKUPS
        && node.doors.len() <= DOORS
        && node.outputs.is_empty()
}

#[test]
fn noise_from_strangers_is_counted_and_forgotten() {
    let mut dice = Dice(ChaCha20Rng::seed_from_u64(7));
    let mut world = acquainted();
    let before: u64 = Drop::ALL.iter().map(|reason| world.dropped(A, *reason)).sum();
    let (peers, sent) = (world.hosts[&A].node.peers.len(), world.hosts[&A].sent.len());
    for _ in 0..1000 {
        let datagram = dice.datagram();
        world.inject(A, address(9), datagram);
    }
    let after: u64 = Drop::ALL.iter().map(|reason| world.dropped(A, *reason)).sum();
    // Hints from nowhere have no counter: they are what they are.
    assert!(after - before > 800, "{} counted", after - before);
    assert_eq!(
        (world.hosts[&A].node.peers.len(), world.hosts[&A].sent.len()),
        (peers, sent),
        "and no answer"
    );
}
