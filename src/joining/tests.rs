//! Joining over the loopback interface, with a login server on a thread and a model of the sealing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant as Wall;

use frejus_overlay::code::Door;
use frejus_overlay::document::{Contact, NatClass, Roles, Signed, Whereabouts};
use frejus_overlay::enrolment;
use frejus_overlay::login::LoginServer;
use frejus_overlay::node::Invitation;
use frejus_overlay::timing::{Instant, UnixTime};
use frejus_overlay::tunnel::{Purpose, SharedTunnel};
use frejus_overlay::wire::{Frame, classify};

use super::*;
use crate::founding::{Wishes, found};
use crate::ledger::Ledger;

const NOW: UnixTime = UnixTime(1_750_000_000);
const DOOR: TunnelKey = TunnelKey([50; 32]);
const SECRET: [u8; 16] = [1; 16];

/// Sealing that seals nothing.
struct Model(TunnelKey);

impl Crypto for Model {
    fn public(&self) -> TunnelKey {
        self.0
    }
    fn tunnel(&mut self, _: &TunnelKey, _: u32) -> SharedTunnel {
        unreachable!("enrolment has no tunnels")
    }
    fn initiator(&mut self, _: &[u8]) -> Option<TunnelKey> {
        None
    }
    fn seal_to(&mut self, to: &TunnelKey, purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
        [&to.0[..], &[purpose as u8; 16], plaintext].concat()
    }
    fn open_sealed(&mut self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        sealed.strip_prefix(&self.0.0)?.strip_prefix(&[purpose as u8; 16]).map(<[u8]>::to_vec)
    }
}

/// A founder that answers at a port of the loopback interface until it is dropped.
struct Founder {
    dir: tempfile::TempDir,
    network: Network,
    at: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Founder {
    /// With a code of so many uses; the first `deaf` requests are answered by nobody, but they are obeyed.
    fn open(uses: u32, deaf: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("founder")).unwrap();
        let prefix = Some("10.93.0.0/16".parse().unwrap());
        let life = Duration::from_secs(86_400);
        let wishes = Wishes { network: "mymed", prefix, node: Some("s"), passport_life: life, routes: &[] };
        found(&state, &wishes, NOW).unwrap();
        let mut ledger = Ledger::open(&state.ledger()).unwrap();
        let saved = state.load().unwrap();
        let (network, grant) = (saved.network.clone(), saved.grant.clone().unwrap());
        let mut server =
            LoginServer::new(network.clone(), grant, saved.keys.node.clone(), ledger.load().unwrap())
                .unwrap();
        let invitation = Invitation {
            roles: Roles::PEER,
            uses,
            life: Duration::from_secs(3600),
            name: None,
            address: None,
        };
        ledger.record(&server.invite(&invitation, SECRET, NOW).unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let at = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let contact = contact(&network, &saved, at);
        let thread = std::thread::spawn(move || {
            let (mut buffer, mut deaf) = ([0; 2048], deaf);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some(Frame::EnrolRequest(sealed)) = classify(&buffer[..length]) else { continue };
                let mut crypto = Model(DOOR);
                let answer =
                    enrolment::answer(&mut server, &saved.genesis, &contact, sealed, &mut crypto, NOW);
                let (bytes, entries) = answer.unwrap();
                ledger.record(&entries).unwrap();
                if deaf > 0 {
                    deaf -= 1;
                } else {
                    socket.send_to(&bytes, from).unwrap();
                }
            }
        });
        Self { dir, network, at, stop, thread: Some(thread) }
    }

    fn code(&self) -> Code {
        Code {
            network: self.network.id,
            secret: SECRET,
            doors: vec![Door { tunnel_key: DOOR, addresses: vec![self.at] }],
            network_name: "mymed".to_owned(),
            expires: NOW + Duration::from_secs(3600),
        }
    }

    fn state(&self, name: &str) -> StateDir {
        StateDir::create(&self.dir.path().join(name)).unwrap()
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn contact(network: &Network, saved: &crate::state::Saved, at: SocketAddr) -> Contact {
    let whereabouts = Whereabouts {
        node: saved.passport.node,
        sequence: 1,
        tunnel_key: DOOR,
        candidates: vec![],
        homes: vec![],
        directory: vec![at],
        nat: NatClass::Open,
        issued: NOW,
        expires: NOW + Duration::from_secs(600),
    };
    let whereabouts = Signed::new(&whereabouts, &network.id, &saved.keys.node);
    Contact { credential: saved.credential.clone(), whereabouts }
}

/// Join with a clock that runs `speed` times as fast as the wall's and is `ahead` of it.
fn try_join(
    state: &StateDir,
    code: &Code,
    routes: &[(IpNetwork, String)],
    speed: u32,
    ahead: Duration,
) -> Result<Joined, Failure> {
    let tunnel = state.keys().unwrap().tunnel;
    let mut crypto = Model(TunnelKey(PublicKey::from(&tunnel).to_bytes()));
    let start = Wall::now();
    let clock = || {
        let elapsed = start.elapsed() * speed;
        Now { instant: Instant::from_start(elapsed), unix: NOW + ahead + elapsed }
    };
    let bid = Bid { code, name: Some("laptop".to_owned()), from: &[], routes, proxy: None };
    join(state, &bid, &mut crypto, &clock, &mut |_| {})
}

fn join_now(state: &StateDir, code: &Code) -> Result<Joined, Failure> {
    try_join(state, code, &[], 1, Duration::ZERO)
}

#[test]
fn a_code_makes_a_node_on_disk() {
    let founder = Founder::open(1, 0);
    let state = founder.state("a");
    let joined = join_now(&state, &founder.code()).unwrap();
    assert_eq!(joined.passport.name, "laptop");
    assert_eq!(joined.addresses, joined.passport.addresses(&founder.network.id));
    let saved = StateDir::open(state.path()).unwrap().load().unwrap();
    assert_eq!(saved.passport, joined.passport);
    assert_eq!(saved.super_peers.len(), 1);
    assert!(saved.grant.is_none());
    let again = join_now(&state, &founder.code()).unwrap();
    assert_eq!(
        (again.passport.node, again.addresses),
        (joined.passport.node, joined.addresses),
        "the same node"
    );
    let failure = join_now(&founder.state("b"), &founder.code()).unwrap_err();
    assert_eq!((failure.code, failure.what.as_str()), (ExitCode::NotEnrolled, "the code is used up"));
}

#[test]
fn a_lost_answer_burns_no_code() {
    let founder = Founder::open(1, 1);
    let state = founder.state("a");
    assert_eq!(join_now(&state, &founder.code()).unwrap().passport.name, "laptop");
}

#[test]
fn a_clashing_prefix_leaves_no_node_and_a_code_that_is_still_good() {
    let founder = Founder::open(1, 0);
    let state = founder.state("a");
    let routes = [("10.93.4.0/24".parse().unwrap(), "eth0".to_owned())];
    let failure = try_join(&state, &founder.code(), &routes, 1, Duration::ZERO).unwrap_err();
    assert_eq!(failure.code, ExitCode::Conflict);
    assert_eq!(failure.what, "the prefix 10.93.0.0/16 of mymed overlaps the route 10.93.4.0/24 on eth0");
    assert!(failure.mend.contains("--prefix 10.94.0.0/16"), "{failure}");
    assert!(!state.holds_node().unwrap());
    assert!(!state.path().join("genesis").exists());
    join_now(&state, &founder.code()).unwrap();
}

#[test]
fn a_silent_door_is_unreachable() {
    let founder = Founder::open(1, u32::MAX);
    let state = founder.state("a");
    let failure = try_join(&state, &founder.code(), &[], 100, Duration::ZERO).unwrap_err();
    assert_eq!(failure.code, ExitCode::Unreachable);
    assert!(failure.what.contains(&founder.at.to_string()), "{failure}");
    assert!(!state.holds_node().unwrap());
}

#[test]
fn a_proxy_that_does_not_know_us_is_named() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = proxy.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            use std::io::{Read, Write};
            let mut client = client.unwrap();
            assert!(client.read(&mut [0; 1024]).unwrap() > 0);
            client.write_all(b"HTTP/1.1 407 Who?\r\n\r\n").unwrap();
        }
    });
    let founder = Founder::open(1, u32::MAX);
    let (code, state) = (founder.code(), founder.state("a"));
    let tunnel = state.keys().unwrap().tunnel;
    let mut crypto = Model(TunnelKey(PublicKey::from(&tunnel).to_bytes()));
    let start = Wall::now();
    let clock = || Now { instant: Instant::from_start(start.elapsed()), unix: NOW + start.elapsed() };
    let proxy = Proxy::parse(&format!("http://eva:hush@{at}")).unwrap();
    let bid = Bid { code: &code, name: None, from: &[], routes: &[], proxy: Some(proxy) };
    let failure = join(&state, &bid, &mut crypto, &clock, &mut |_| {}).unwrap_err();
    assert_eq!(failure.code, ExitCode::Unreachable);
    assert!(failure.what.contains(&format!("the proxy {at} does not take this login")), "{failure}");
    assert!(failure.mend.contains("FREJUS_PROXY") && !failure.to_string().contains("hush"), "{failure}");
}

#[test]
fn a_wrong_clock_is_told() {
    let founder = Founder::open(1, 0);
    let day = Duration::from_secs(86_400);
    let failure = try_join(&founder.state("a"), &founder.code(), &[], 1, day).unwrap_err();
    assert_eq!(failure.code, ExitCode::Other);
    assert!(failure.what.contains("24 h fast") && failure.mend.contains("timedatectl"), "{failure}");
}

#[test]
fn a_text_that_is_no_code_is_wrong_usage() {
    let founder = Founder::open(1, 0);
    let text = founder.code().reveal();
    assert_eq!(read_code(&text), Ok(founder.code()));
    for bad in ["hello", &text[..60], &format!("frejus2{}", &text[7..])] {
        let failure = read_code(bad).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        assert!(!failure.to_string().contains(&text[20..40]), "{failure}");
    }
}

#[test]
fn someone_elses_crypto_is_noticed() {
    let founder = Founder::open(1, 0);
    let code = founder.code();
    let bid = Bid { code: &code, name: None, from: &[], routes: &[], proxy: None };
    let clock = || Now { instant: Instant::ZERO, unix: NOW };
    let joined = join(&founder.state("a"), &bid, &mut Model(DOOR), &clock, &mut |_| {});
    assert!(joined.unwrap_err().what.contains("tunnel.key"));
}
