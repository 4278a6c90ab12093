//! Sealing, opening, handshakes.

use std::hint::black_box;
use std::time::Duration;

use frejus::clock::Clock;
use frejus::options::TransportPolicy;
use frejus::transport::Transport;
use frejus::wireguard::Wireguard;
use frejus_overlay::agreement::{Binding, Cipher, Cost, Party};
use frejus_overlay::id::{NetworkId, NodeId, TunnelKey};
use frejus_overlay::timing::Instant;
use frejus_overlay::tunnel::{
    Crypto, HANDSHAKE_ROOM, HEADER, Handshake, OVERHEAD, Opened, SharedTunnel, seal_one,
};
use x25519_dalek::StaticSecret;

use super::{Entry, Subject, packets};

/// Inner packets: a full one of the device's own MTU, and a small one.
const SIZES: [usize; 2] = [1280, 64];
/// Longer than any pause that a tunnel makes between two initiations.
const PAUSE: Duration = Duration::from_secs(10);

/// Ways to make two ends that share keys, by the name of the keys.
/// A name, and what makes a session of that kind.
type Kind = (&'static str, fn() -> Pair);

const KEYS: [Kind; 3] = [
    ("wireguard", || Pair::established(None)),
    ("chacha20-poly1305", || Pair::established(Some(Cipher::ChaCha20Poly1305))),
    ("aes-256-gcm", || Pair::established(Some(Cipher::Aes256Gcm))),
];

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (keys, pair) in KEYS {
        for size in SIZES {
            entries.push(Entry::new(format!("seal/{keys}/{size}"), size, move || Seal::new(pair(), size)));
            entries.push(Entry::new(format!("open/{keys}/{size}"), size, move || Open::new(pair(), size)));
        }
    }
    entries.push(Entry::new("handshake/wireguard".to_owned(), 0, Meet::new));
    entries.push(Entry::new("handshake/transport keys".to_owned(), 0, Agree::new));
    entries
}

/// Both ends of a tunnel.
struct Pair {
    clock: Clock,
    a: SharedTunnel,
    b: SharedTunnel,
    binding: Binding,
}

impl Pair {
    /// Two nodes that never met; with transport keys of that cipher, once they agree on them.
    fn strangers(cipher: Option<Cipher>) -> Self {
        let clock = Clock::start();
        let node = |seed| {
            let policy = if cipher.is_some() { TransportPolicy::Prefer } else { TransportPolicy::Wireguard };
            let ciphers = cipher.iter().map(|cipher| Cost::new(*cipher, 1)).collect();
            let node = Wireguard::new(StaticSecret::from([seed; 32]), clock.clone());
            node.carrying(Transport { policy, ciphers, partial: true })
        };
        let (mut a, mut b) = (node(0x48), node(0x50));
        let (to_b, to_a) = (a.tunnel(&b.public(), 0x12_3456), b.tunnel(&a.public(), 0x35_4321));
        let party = |seed, key: TunnelKey| Party { node: NodeId([seed; 32]), key };
        let (offerer, answerer) = (party(1, a.public()), party(2, b.public()));
        let binding = Binding { network: NetworkId([3; 32]), offerer, answerer };
        Self { clock, a: to_b, b: to_a, binding }
    }

    fn established(cipher: Option<Cipher>) -> Self {
        let pair = Self::strangers(cipher);
        pair.meet(pair.clock.instant());
        if cipher.is_some() {
            pair.agree();
        }
        pair
    }

    /// New transport keys, both sides.
    fn agree(&self) {
        let now = self.clock.instant();
        let offer = self.a.offer(now).expect("transport keys are wanted");
        let answer = self.b.answer(&offer, &self.binding, now).expect("and a cipher is shared");
        assert!(self.a.accept(&answer, &self.binding, now));
    }

    /// A whole handshake, both sides, up to the confirmation that lets B seal.
    fn meet(&self, now: Instant) {
        let (mut there, mut back) = ([0; HANDSHAKE_ROOM], [0; HANDSHAKE_ROOM]);
        let len = self.a.initiate(&mut there, now).expect("the last one is long ago");
        let Handshake::Reply(len) = self.b.handshake(&there[..len], &mut back, now) else {
            panic!("B answers an initiation");
        };
        let Handshake::Reply(len) = self.a.handshake(&back[..len], &mut there, now) else {
            panic!("A confirms an answer");
        };
        assert_eq!(self.b.open(&mut there[..len]), Opened::Keepalive);
    }
}

struct Seal {
    pair: Pair,
    room: Vec<u8>,
    size: usize,
}

impl Seal {
    fn new(pair: Pair, size: usize) -> Self {
        Self { pair, room: vec![0x45; size + OVERHEAD], size }
    }
}

impl Subject for Seal {
    fn run(&mut self) {
        black_box(self.pair.a.seal(black_box(&mut self.room), self.size).expect("there is a session"));
    }
}

struct Open {
    pair: Pair,
    packet: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
    next: usize,
}

impl Open {
    fn new(pair: Pair, size: usize) -> Self {
        Self { pair, packet: packets::tcp4(size, 0), datagrams: Vec::new(), next: 0 }
    }
}

impl Subject for Open {
    fn prepare(&mut self, runs: usize) {
        let seal = |_| seal_one(&*self.pair.a, &self.packet).expect("there is a session");
        self.datagrams = (0..runs).map(seal).collect();
        self.next = 0;
    }

    fn run(&mut self) {
        let datagram = &mut self.datagrams[self.next];
        self.next += 1;
        let opened = self.pair.b.open(black_box(datagram));
        assert_eq!(opened, Opened::Packet(datagram.len() - OVERHEAD));
        black_box(&datagram[HEADER..]);
    }
}

/// Handshakes between the same two, as often as they like.
struct Meet {
    pair: Pair,
    now: Instant,
}

impl Meet {
    fn new() -> Self {
        let pair = Pair::strangers(None);
        let now = pair.clock.instant();
        Self { pair, now }
    }
}

/// The agreement on transport keys, X25519 and ML-KEM-768, as often as they like.
struct Agree(Pair);

impl Agree {
    fn new() -> Self {
        Self(Pair::established(Some(Cipher::Aes256Gcm)))
    }
}

impl Subject for Agree {
    fn run(&mut self) {
        self.0.agree();
    }
}

impl Subject for Meet {
    fn run(&mut self) {
        self.now += PAUSE;
        self.pair.meet(self.now);
    }
}
