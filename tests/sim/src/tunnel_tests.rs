//! The contract of the tunnel seam, held against the model.

use frejus_overlay::tunnel::OVERHEAD;

use super::*;

struct Pair {
    clock: Clock,
    a: ModelTunnel,
    b: ModelTunnel,
}

const ROOM: usize = 2048;

impl Pair {
    fn new() -> Self {
        let clock = Clock::default();
        clock.set(Instant::from_start(Duration::from_secs(1)));
        let (a, b) = (TunnelKey([1; 32]), TunnelKey([2; 32]));
        let tunnel = |own, peer, index| {
            ModelTunnel::new(
                own,
                peer,
                index,
                Dice::new(u64::from(index), "t"),
                clock.clone(),
                UnixTime(1_800_000_000),
            )
        };
        Self { a: tunnel(a, b, 0x20_0001), b: tunnel(b, a, 0x30_0002), clock }
    }

    fn advance(&self, by: Duration) {
        self.clock.set(self.clock.now() + by);
    }

    fn initiation(&mut self) -> Vec<u8> {
        let mut out = [0; ROOM];
        let n = self.a.initiate(&mut out, self.clock.now()).unwrap();
        out[..n].to_vec()
    }

    fn answer(&mut self, initiation: &[u8]) -> Vec<u8> {
        let mut out = [0; ROOM];
        let Handshake::Reply(n) = self.b.handshake(initiation, &mut out, self.clock.now()) else {
            panic!("refused");
        };
        out[..n].to_vec()
    }

    fn finish(&mut self, response: &[u8]) -> Vec<u8> {
        let mut out = [0; ROOM];
        let Handshake::Reply(n) = self.a.handshake(response, &mut out, self.clock.now()) else {
            panic!("refused");
        };
        out[..n].to_vec()
    }

    /// A session that both may use.
    fn establish(&mut self) {
        let initiation = self.initiation();
        let response = self.answer(&initiation);
        let keepalive = self.finish(&response);
        assert_eq!(self.b.open(&keepalive, &mut [0; ROOM]), Opened::Keepalive);
    }
}

fn seal(tunnel: &mut ModelTunnel, packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0; ROOM];
    tunnel.seal(Content::Data, packet, &mut out).map(|n| out[..n].to_vec())
}

fn open(tunnel: &mut ModelTunnel, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0; ROOM];
    match tunnel.open(datagram, &mut out) {
        Opened::Packet(n) => Some(out[..n].to_vec()),
        Opened::Keepalive | Opened::Rejected | Opened::Duplicate | Opened::Refused | Opened::Partial(_) => {
            None
        }
    }
}

#[test]
fn messages_have_wireguards_sizes_first_bytes_and_indices() {
    use frejus_overlay::wire::{Frame, Wireguard, classify};
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    assert_eq!(classify(&initiation), Some(Frame::Wireguard(Wireguard::Initiation)));
    let response = pair.answer(&initiation);
    let Some(Frame::Wireguard(Wireguard::Answer(receiver))) = classify(&response) else { panic!() };
    assert_eq!(receiver >> 8, 0x20_0001);
    let keepalive = pair.finish(&response);
    assert_eq!(keepalive.len(), OVERHEAD);
    let Some(Frame::Wireguard(Wireguard::Data(receiver))) = classify(&keepalive) else { panic!() };
    assert_eq!(receiver >> 8, 0x30_0002);
}

#[test]
fn a_responder_waits_for_the_first_data() {
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    let response = pair.answer(&initiation);
    assert_eq!(seal(&mut pair.b, b"early"), None);
    assert_eq!(pair.b.session_age_s(), None);
    let keepalive = pair.finish(&response);
    assert_eq!(pair.b.open(&keepalive, &mut [0; ROOM]), Opened::Keepalive);
    let data = seal(&mut pair.b, b"on time").unwrap();
    assert_eq!(open(&mut pair.a, &data).as_deref(), Some(&b"on time"[..]));
}

#[test]
fn data_is_accepted_once_unaltered_and_by_its_addressee() {
    let mut pair = Pair::new();
    pair.establish();
    let data = seal(&mut pair.a, b"hello, this is secret").unwrap();
    assert!(!data.windows(5).any(|window| window == b"hello"));
    assert_eq!(open(&mut pair.a, &data), None, "not to its sender");
    for at in 0..data.len() {
        let mut altered = data.clone();
        altered[at] ^= 0x80;
        assert_eq!(open(&mut pair.b, &altered), None, "byte {at}");
    }
    assert!(open(&mut pair.b, &data).is_some());
    assert_eq!(open(&mut pair.b, &data), None, "replayed");
}

#[test]
fn the_window_takes_late_packets_and_refuses_very_late_ones() {
    let mut pair = Pair::new();
    pair.establish();
    let late: Vec<_> = (0..3).map(|_| seal(&mut pair.a, b"late").unwrap()).collect();
    for _ in 0..WINDOW - 3 {
        let data = seal(&mut pair.a, b"x").unwrap();
        assert!(open(&mut pair.b, &data).is_some());
    }
    assert!(open(&mut pair.b, &late[2]).is_some());
    for _ in 0..8 {
        let data = seal(&mut pair.a, b"x").unwrap();
        assert!(open(&mut pair.b, &data).is_some());
    }
    assert_eq!(open(&mut pair.b, &late[0]), None);
}

#[test]
fn an_initiation_works_once_and_timestamps_grow() {
    let mut pair = Pair::new();
    let old = pair.initiation();
    pair.advance(Duration::from_secs(6));
    let new = pair.initiation();
    pair.answer(&new);
    let now = pair.clock.now();
    assert_eq!(pair.b.handshake(&new, &mut [0; ROOM], now), Handshake::Rejected);
    assert_eq!(pair.b.handshake(&old, &mut [0; ROOM], now), Handshake::Rejected);
}

#[test]
fn an_initiation_names_its_sender_to_its_addressee_only() {
    let mut pair = Pair::new();
    let mut initiation = pair.initiation();
    assert_eq!(initiator(&TunnelKey([2; 32]), &initiation), Some(TunnelKey([1; 32])));
    assert_eq!(initiator(&TunnelKey([3; 32]), &initiation), None);
    initiation[50] ^= 1;
    assert_eq!(initiator(&TunnelKey([2; 32]), &initiation), None);
}

#[test]
fn both_may_begin_at_once() {
    let mut pair = Pair::new();
    let (mut out, now) = ([0; ROOM], pair.clock.now());
    let from_a = pair.initiation();
    let n = pair.b.initiate(&mut out, now).unwrap();
    let from_b = out[..n].to_vec();
    let response_b = pair.answer(&from_a);
    let Handshake::Reply(n) = pair.a.handshake(&from_b, &mut out, now) else { panic!() };
    let response_a = out[..n].to_vec();
    pair.finish(&response_b);
    assert!(matches!(pair.b.handshake(&response_a, &mut out, now), Handshake::Reply(_)));
    let (one, other) = (seal(&mut pair.a, b"1").unwrap(), seal(&mut pair.b, b"2").unwrap());
    assert!(open(&mut pair.b, &one).is_some() && open(&mut pair.a, &other).is_some());
}

#[test]
fn sessions_are_renewed_by_the_initiator_and_end() {
    let mut pair = Pair::new();
    pair.establish();
    pair.advance(Duration::from_secs(121));
    let data = seal(&mut pair.a, b"x").unwrap();
    open(&mut pair.b, &data).unwrap();
    let data = seal(&mut pair.b, b"x").unwrap();
    open(&mut pair.a, &data).unwrap();
    let (mut out, now) = ([0; ROOM], pair.clock.now());
    assert_eq!(pair.b.handle_timeout(&mut out, now), None, "the responder leaves it to the initiator");
    assert_eq!(pair.a.handle_timeout(&mut out, now), Some(INITIATION));
    assert_eq!(pair.a.handle_timeout(&mut out, now), None, "not again at once");
    assert_eq!(pair.a.session_age_s(), Some(121));
    pair.advance(Duration::from_secs(60));
    assert_eq!(seal(&mut pair.a, b"x"), None);
    assert_eq!(pair.a.session_age_s(), None);
}

#[test]
fn silence_is_answered_by_a_keepalive_and_then_by_a_handshake() {
    let mut pair = Pair::new();
    pair.establish();
    pair.advance(Duration::from_secs(1));
    let data = seal(&mut pair.a, b"x").unwrap();
    open(&mut pair.b, &data).unwrap();
    pair.advance(Duration::from_secs(10));
    let (mut out, now) = ([0; ROOM], pair.clock.now());
    assert_eq!(pair.b.handle_timeout(&mut out, now), Some(OVERHEAD));
    assert_eq!(pair.b.handle_timeout(&mut out, now), None);
    pair.advance(Duration::from_secs(6));
    assert_eq!(
        pair.a.handle_timeout(&mut out, pair.clock.now()),
        Some(INITIATION),
        "the keepalive never came"
    );
}
