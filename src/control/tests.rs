//! A login server whose disk is full, and queues that end.

use crossbeam_channel::bounded;
use frejus_overlay::code::{Code as JoinCode, Door};
use frejus_overlay::enrolment::Enrolment;
use frejus_overlay::id::TunnelKey;
use frejus_overlay::locator::Locator;
use frejus_overlay::login::LoginServer;
use frejus_overlay::node::Config;
use frejus_overlay::tunnel::Crypto;
use tokio::sync::oneshot;
use x25519_dalek::StaticSecret;

use super::*;
use crate::founding::{Wishes, found};
use crate::ledger::Ledger;
use crate::options::{Code, InviteRequest};
use crate::state::StateDir;
use crate::wireguard::Wireguard;

#[derive(Default)]
struct Fake {
    full: bool,
    tries: usize,
    recorded: Vec<Entry>,
    sent: Vec<Vec<u8>>,
}

impl Fake {
    fn disk(&mut self) -> Result<(), Failure> {
        self.tries += 1;
        if self.full { Err(Failure::other("the disk is full", "make room")) } else { Ok(()) }
    }

    fn enrolments(&self) -> usize {
        self.sent.iter().filter(|bytes| matches!(classify(bytes), Some(Frame::EnrolAnswer(_)))).count()
    }
}

impl World for Fake {
    fn send(&mut self, _: Endpoint, datagram: &[u8]) -> bool {
        self.sent.push(datagram.to_vec());
        true
    }
    fn send_near(&mut self, to: Endpoint, datagram: &[u8], _: u8) -> bool {
        self.send(to, datagram)
    }

    fn open_door(&mut self, _: DoorId) {}
    fn close_door(&mut self, _: DoorId) {}
    fn open_stream(&mut self, _: StreamId, _: Vec<SocketAddr>) {}
    fn begin_crossing(&mut self, _: StreamId, _: Vec<SocketAddr>) {}
    fn cross(&mut self, _: StreamId, _: Across) {}
    fn close_stream(&mut self, _: StreamId) {}
    fn trust_stream(&mut self, _: StreamId) {}
    fn try_streams(&mut self, _: Vec<SocketAddr>) {}
    fn streams(&self) -> report::Streams {
        report::Streams::default()
    }
    fn to_tun(&mut self, _: &[u8]) -> bool {
        true
    }
    fn publish(&mut self, _: Arc<Table>) {}
    fn command(&mut self, _: Command) -> bool {
        true
    }
    fn record(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        self.disk()?;
        self.recorded.extend_from_slice(entries);
        Ok(())
    }
    fn keep_passport(&mut self, _: &Credential) -> Result<(), Failure> {
        self.disk()
    }
    fn keep_super_peers(&mut self, _: &[Contact]) -> Result<(), Failure> {
        self.disk()
    }
    fn tell(&mut self, _: &Event) {}
    fn counters(&self) -> report::Counters {
        report::Counters::default()
    }
    fn offloading(&self) -> Offloading {
        Offloading::default()
    }
}

/// The founder of a network, with a secret that a code may be made of.
fn founder() -> (Control<Fake>, JoinCode) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::create(dir.path()).unwrap();
    let clock = Clock::start();
    let now = clock.now();
    let wishes = Wishes {
        network: "mymed",
        prefix: Some("10.93.0.0/16".parse().unwrap()),
        node: None,
        passport_life: Duration::from_secs(86_400),
        routes: &[],
    };
    found(&state, &wishes, now.unix).unwrap();
    let saved = state.load().unwrap();
    let mut ledger = Ledger::open(&state.ledger()).unwrap();
    let mut login = LoginServer::new(
        saved.network.clone(),
        saved.grant.unwrap(),
        saved.keys.node.clone(),
        ledger.load().unwrap(),
    )
    .unwrap();
    let life = Duration::from_secs(3600);
    let invitation = Invitation { roles: Roles::PEER, uses: 1, life, name: None, address: None };
    login.invite(&invitation, [1; 16], now.unix).unwrap();
    let crypto = Wireguard::new(saved.keys.tunnel.clone(), clock.clone());
    let at = "192.0.2.1:51860".parse().unwrap();
    let code = JoinCode {
        network: saved.network.id,
        network_name: "mymed".to_owned(),
        secret: [1; 16],
        doors: vec![Door { tunnel_key: crypto.public(), addresses: vec![at] }],
        expires: now.unix + life,
    };
    let facts = Facts {
        network: saved.network.clone(),
        tun: "frejus0".to_owned(),
        mtu: 1280,
        listen: vec![at],
        ciphers: Vec::new(),
    };
    let config = Config {
        network: saved.network,
        genesis: saved.genesis,
        key: saved.keys.node.clone(),
        credential: saved.credential,
        seed: [0; 32],
        known: Vec::new(),
        login: Some(login),
        advertise: vec![at],
        directory_port: 0,
        mtu: 1280,
        relay_rate: 1,
    };
    let counters = Arc::new(Counters::default());
    let node = Node::new(config, Box::new(crypto), Arc::clone(&counters), now).unwrap();
    (Control::new(node, clock, Fake::default(), facts, counters), code)
}

fn invite(control: &mut Control<Fake>) -> Result<Code, Failure> {
    let (reply, mut answer) = oneshot::channel();
    control.on_question(Question::Invite { request: InviteRequest::default(), reply });
    control.carry_out();
    answer.try_recv().unwrap()
}

/// A newcomer asks, for the first time or again.
fn ask(control: &mut Control<Fake>, code: &JoinCode) {
    let tunnel = StaticSecret::from([9; 32]);
    let mut crypto = Wireguard::new(tunnel.clone(), control.clock.clone());
    let tunnel_key: TunnelKey = crypto.public();
    let key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let mut enrolment = Enrolment::new(code, key, tunnel_key, None);
    enrolment.handle_timeout(control.clock.now(), &mut crypto);
    let (_, bytes) = enrolment.poll_output().unwrap();
    let from = Locator::Direct(Endpoint::main("198.51.100.1:7".parse().unwrap()));
    control.node.handle_exception(Exception::Datagram { from, bytes }, control.clock.now());
    control.carry_out();
}

#[test]
fn no_code_is_handed_out_that_is_not_on_disk() {
    let (mut control, _) = founder();
    control.world.full = true;
    assert_eq!(invite(&mut control).unwrap_err().what, "the disk is full");
    let attention = control.status().attention;
    assert!(attention.iter().any(|item| item.what == "the disk is full"), "{attention:?}");
    control.world.full = false;
    invite(&mut control).unwrap();
    let codes = control.world.recorded.iter().filter(|entry| matches!(entry, Entry::Invitation(..)));
    assert_eq!(codes.count(), 2, "what was withheld is written too");
    assert!(control.status().attention.iter().all(|item| item.what != "the disk is full"));
}

#[test]
fn nobody_is_let_in_whom_the_ledger_does_not_know_however_often_they_ask() {
    let (mut control, code) = founder();
    control.world.full = true;
    for _ in 0..3 {
        ask(&mut control, &code);
    }
    assert_eq!((control.world.enrolments(), control.world.recorded.len()), (0, 0));
    assert_eq!(control.world.tries, 1, "asked again, the disk is left alone for a while");
    control.world.full = false;
    control.save();
    ask(&mut control, &code);
    assert_eq!(control.world.enrolments(), 1);
    assert!(control.world.recorded.iter().any(|entry| matches!(entry, Entry::Use(..))));
}

#[test]
fn a_control_socket_that_failed_keeps_nobody_busy() {
    let (control, _) = founder();
    let (_exceptions, excepted) = bounded(1);
    let (news, told) = bounded(1);
    let (_, asked) = bounded(1);
    let queues = Queues { exceptions: excepted, news: told, questions: asked };
    let thread = std::thread::spawn(move || {
        let ended = control.run(&queues);
        (ended, nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
    });
    std::thread::sleep(Duration::from_millis(400));
    news.send(News::Stop).unwrap();
    let (ended, spent) = thread.join().unwrap();
    assert_eq!(ended, Ok(()));
    assert!(Duration::from(spent) < Duration::from_millis(200), "{spent:?} of processor time");
}

#[test]
fn a_node_without_its_device_ends_with_the_reason() {
    let (control, _) = founder();
    let (_exceptions, excepted) = bounded(1);
    let (news, told) = bounded(1);
    let (_questions, asked) = bounded(1);
    let gone = Failure::other("frejus0 is gone", "start the node again");
    news.send(News::Lost(gone.clone())).unwrap();
    assert_eq!(control.run(&Queues { exceptions: excepted, news: told, questions: asked }), Err(gone));
}
