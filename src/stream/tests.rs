//! Streams over loopback: both ends, strangers, proxies.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use frejus_overlay::stream::Passage;
use frejus_overlay::stun;
use frejus_overlay::wire::stream::PREFACE;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const ID: StreamId = StreamId(2);

/// What one side of a test sees.
struct End {
    streams: Streams,
    outlets: Outlets,
    events: Receiver<(StreamId, StreamEvent)>,
    /// Sender, bytes of a run, its stride.
    runs: Receiver<(StreamId, Vec<u8>, usize)>,
}

struct Collect(crossbeam_channel::Sender<(StreamId, Vec<u8>, usize)>);

impl Inward for Collect {
    fn take(&mut self, id: StreamId, _from: SocketAddr, arena: &mut [u8], runs: &[Run]) {
        for run in runs {
            self.0.send((id, arena[run.start..run.end].to_vec(), run.stride)).ok();
        }
    }
}

impl End {
    fn new(proxy: Option<Proxy>) -> Self {
        let (tell, events) = unbounded();
        let (collect, runs) = unbounded();
        let tell: Tell = Box::new(move |id, event| tell.send((id, event)).is_ok());
        let outlets = Outlets::default();
        let streams = Streams::start(outlets.clone(), Box::new(Collect(collect)), tell, proxy).unwrap();
        Self { streams, outlets, events, runs }
    }

    fn listening() -> (Self, SocketAddr) {
        let end = Self::new(None);
        let at = end.streams.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        (end, at)
    }

    fn event(&self) -> (StreamId, StreamEvent) {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn run(&self) -> (StreamId, Vec<u8>, usize) {
        self.runs.recv_timeout(PATIENCE).expect("a record")
    }
}

/// Dials and greets: the dialling end, the listening end, and the stream's number there.
fn pair() -> (End, End, StreamId) {
    let (there, at) = End::listening();
    let here = End::new(None);
    here.streams.open(ID, vec![at]);
    assert_eq!(here.event(), (ID, StreamEvent::Open { at, carrier: Carrier::Tcp }));
    let (id, event) = there.event();
    assert!(id.0 % 2 == 1 && matches!(event, StreamEvent::Open { carrier: Carrier::Tcp, .. }), "{event:?}");
    (here, there, id)
}

#[test]
fn whole_runs_travel_both_ways() {
    let (here, there, id) = pair();
    there.streams.trust(id);
    let long: Vec<u8> = (0..65_507_u32).map(|n| n as u8).collect();
    for (run, stride) in [(&b"hello"[..], 5), (&long, 1312), (&[7; 64], 32)] {
        assert_eq!(here.outlets.send(ID, run, stride), Ok(()));
        assert!(there.run() == (id, run.to_vec(), stride), "{} bytes", run.len());
        assert_eq!(there.outlets.send(id, run, stride), Ok(()));
        assert!(here.run() == (ID, run.to_vec(), stride), "{} bytes back", run.len());
    }
}

#[test]
fn the_other_end_hears_that_a_stream_is_closed() {
    let (here, there, id) = pair();
    here.streams.close(ID);
    assert_eq!(there.event(), (id, StreamEvent::Closed));
    assert_eq!(here.outlets.send(ID, b"gone", 4), Err(NoStream));
    assert!(here.events.try_recv().is_err(), "whoever closes knows it");
    let (here, there, id) = pair();
    drop(there.streams);
    assert_eq!(here.event(), (ID, StreamEvent::Closed), "{id:?}");
}

#[test]
fn a_reader_who_dawdles_loses_the_oldest_and_nobody_waits() {
    let (there, at) = End::listening();
    let mut silent = plain_client(at);
    let (id, _) = there.event();
    there.streams.trust(id);
    let began = std::time::Instant::now();
    for _ in 0..4000 {
        there.outlets.send(id, &[1; 65_000], 1300).unwrap();
    }
    let dropped = there.outlets.counters().dropped(Reason::StreamFull);
    assert!(began.elapsed() < PATIENCE, "nobody waits for a full stream");
    // 260 MB are more than the kernel takes for somebody who reads nothing, and than the queue holds.
    assert!(dropped > 3000 * 50, "{dropped} datagrams gave way");
    // The stream is still in step: the next record begins where one ended.
    let mut header = [0; 4];
    silent.read_exact(&mut header).unwrap();
    assert_eq!(header, [0xfd, 0xe8, 0x05, 0x14]);
}

/// A client that is nobody: TLS and the preface, then whatever the test does.
fn plain_client(at: SocketAddr) -> rustls::StreamOwned<rustls::ClientConnection, StdStream> {
    let mut stream = tls::tests::client(at, StdStream::connect(at).unwrap());
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&PREFACE).unwrap();
    let mut said = [0; PREFACE.len()];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(said, PREFACE);
    stream
}

#[test]
fn a_stranger_who_sends_too_much_is_cut_off() {
    let (there, at) = End::listening();
    let mut client = plain_client(at);
    let (id, _) = there.event();
    client.write_all(&[0x40, 0, 0x05, 0x14]).unwrap();
    assert_eq!(there.event(), (id, StreamEvent::Closed));
}

#[test]
fn a_stranger_who_proves_nothing_is_cut_off_in_time() {
    let (there, at) = End::listening();
    let mut silent = StdStream::connect(at).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = plain_client(at);
    let (id, _) = there.event();
    assert_eq!(there.event(), (id, StreamEvent::Closed), "the greeting alone is not enough");
    drop(client);
    assert_eq!(silent.read(&mut [0; 100]).unwrap(), 0, "nor is a connection that says nothing");
    assert!(there.streams.count() == 0, "nothing is left of either");
}

#[test]
fn many_silent_strangers_keep_nobody_out() {
    let (there, at) = End::listening();
    let crowd: Vec<StdStream> = (0..100).map(|_| StdStream::connect(at).unwrap()).collect();
    let here = End::new(None);
    here.streams.open(ID, vec![at]);
    assert!(matches!(here.event(), (ID, StreamEvent::Open { .. })));
    assert!(there.streams.count() <= 17, "of one source so many wait");
    drop(crowd);
}

#[test]
fn another_server_is_not_a_node() {
    let web = StdListener::bind("127.0.0.1:0").unwrap();
    let at = web.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let (mut socket, _) = web.accept().unwrap();
        _ = socket.read(&mut [0; 1000]);
        _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let here = End::new(None);
    here.streams.open(ID, vec![at]);
    assert_eq!(here.event(), (ID, StreamEvent::Closed));
    serving.join().unwrap();
}

#[test]
fn nobody_there() {
    let here = End::new(None);
    here.streams.open(ID, Vec::new());
    assert_eq!(here.event(), (ID, StreamEvent::Closed));
    here.streams.open(ID, vec!["192.0.2.1:9".parse().unwrap()]);
    here.streams.close(ID);
    assert_eq!(here.outlets.send(ID, b"gone", 4), Err(NoStream));
}

/// A proxy that wants `eva:hush` and connects to `node` whatever it is asked for; what it was asked.
fn proxy(node: SocketAddr) -> (SocketAddr, Receiver<String>) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, asked) = unbounded();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, tell) = (client.unwrap(), tell.clone());
            thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let welcome = head.contains("Proxy-Authorization: Basic ZXZhOmh1c2g=\r\n");
                tell.send(head).ok();
                if !welcome {
                    client.write_all(b"HTTP/1.1 407 Who?\r\n\r\nA page").unwrap();
                    return;
                }
                let mut server = StdStream::connect(node).unwrap();
                client.write_all(b"HTTP/1.0 200 Connection established\r\n\r\n").unwrap();
                let (mut back, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut back, &mut to));
                io::copy(&mut client, &mut server).ok();
            });
        }
    });
    (at, asked)
}

#[test]
fn through_a_proxy_with_a_password() {
    let (there, node) = End::listening();
    let (at, asked) = proxy(node);
    let here = End::new(Some(Proxy::parse(&format!("http://eva:hush@{at}")).unwrap()));
    // An address that nobody answers at: loopback but for the proxy.
    let target = SocketAddr::from(([127, 9, 9, 9], 9));
    here.streams.open(ID, vec![target]);
    let (_, event) = here.event();
    assert!(
        matches!(event, StreamEvent::Open { carrier: Carrier::Proxy, at } if at.ip() == target.ip()),
        "{event:?}"
    );
    assert!(asked.recv().unwrap().starts_with("CONNECT 127.9.9.9:443 HTTP/1.1\r\n"));
    assert_eq!(here.outlets.send(ID, b"through", 7), Ok(()));
    assert_eq!(there.run().1, b"through");
}

#[test]
fn segments_are_short_in_both_directions() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The kernel may take 12 bytes of them for timestamps.
        for (at, most) in [("127.0.0.1:0", 1240), ("[::1]:0", 1220)] {
            let listener = match socket::listen(at.parse().unwrap()) {
                Err(error) if at.contains(':') && error.kind() == io::ErrorKind::AddrNotAvailable => continue,
                listener => listener.unwrap(),
            };
            let (dialled, accepted) =
                tokio::join!(socket::connect(listener.local_addr().unwrap()), listener.accept());
            for socket in [dialled.unwrap(), accepted.unwrap().0] {
                let mss = socket2::SockRef::from(&socket).tcp_mss().unwrap();
                assert!((most - 12..=most).contains(&mss), "{at}: {mss}");
            }
        }
    });
}

#[test]
fn a_proxy_that_refuses() {
    let (_there, node) = End::listening();
    let (at, _asked) = proxy(node);
    let proxy = Proxy::parse(&format!("http://eva:wrong@{at}")).unwrap();
    assert_eq!(proxy.refusal(), None);
    let here = End::new(Some(proxy.clone()));
    here.streams.open(ID, vec![SocketAddr::from(([127, 9, 9, 9], 9))]);
    assert_eq!(here.event(), (ID, StreamEvent::Closed));
    let (what, mend) = proxy.refusal().expect("it said why");
    assert!(what.contains(&format!("the proxy {at} does not take this login")), "{what}");
    assert!(mend.contains("FREJUS_PROXY") && !what.contains("wrong"), "{mend}");
}

fn try_out(here: &End, target: SocketAddr) -> Tried {
    let (tell, told) = crossbeam_channel::bounded(1);
    let full = AtomicBool::new(true);
    // A queue that is full at first.
    let tell = move |tried| !full.swap(false, Ordering::Relaxed) && tell.try_send(tried).is_ok();
    here.streams.try_out(vec![target], tell);
    told.recv_timeout(PATIENCE).expect("it is told")
}

#[test]
fn a_trial_opens_and_closes() {
    let (there, at) = End::listening();
    let here = End::new(None);
    let began = std::time::Instant::now();
    assert_eq!(try_out(&here, at), Tried { own: Passage::Open, https: Passage::Blocked });
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let (id, event) = there.event();
    assert!(matches!(event, StreamEvent::Open { .. }), "{event:?}");
    assert_eq!(there.event(), (id, StreamEvent::Closed));
    assert_eq!((here.streams.count(), here.events.len()), (0, 0), "nothing stays, and nobody hears of it");
}

#[test]
fn a_trial_of_something_that_is_no_node_or_says_nothing() {
    let here = End::new(None);
    let nothing = Tried { own: Passage::Blocked, https: Passage::Blocked };
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let began = std::time::Instant::now();
    assert_eq!(try_out(&here, silent.local_addr().unwrap()), nothing);
    assert!(began.elapsed() >= frejus_overlay::stream::TRIAL, "it had its time: {:?}", began.elapsed());
    let refused = silent.local_addr().unwrap();
    drop(silent);
    assert_eq!(try_out(&here, refused), nothing);
}

#[test]
fn a_trial_through_a_proxy() {
    let (_there, node) = End::listening();
    let (at, _asked) = proxy(node);
    let here = End::new(Some(Proxy::parse(&format!("http://eva:hush@{at}")).unwrap()));
    let tried = try_out(&here, SocketAddr::from(([127, 9, 9, 9], 9)));
    assert_eq!(tried, Tried { own: Passage::Proxy, https: Passage::Proxy });
}

/// Says where it sees whoever asks.
struct Observer(Outlets);

impl Inward for Observer {
    fn take(&mut self, id: StreamId, from: SocketAddr, arena: &mut [u8], runs: &[Run]) {
        for run in runs {
            let asked = stun::transaction_of_request(&arena[run.start..run.end]);
            let answer = stun::answer(asked.expect("nothing else is said"), from);
            self.0.send(id, &answer, answer.len()).unwrap();
        }
    }
}

/// An observer's address, and its streams.
fn observer() -> (SocketAddr, Streams) {
    let outlets = Outlets::default();
    let tell: Tell = Box::new(|_, _| true);
    let streams = Streams::start(outlets.clone(), Box::new(Observer(outlets)), tell, None).unwrap();
    (streams.listen("127.0.0.1:0".parse().unwrap()).unwrap(), streams)
}

/// Both ends of a crossing need a network between them: tests/netns has that.
#[test]
fn two_super_peers_are_asked_about_one_port() {
    let observers = [observer(), observer()];
    let end = End::new(None);
    let mut ports = Vec::new();
    for _ in 0..5 {
        end.streams.begin_crossing(ID, observers.iter().map(|(at, _)| *at).collect());
        let (_, event) = end.event();
        let StreamEvent::Seen { at: [Some(at), Some(other)] } = event else { panic!("{event:?}") };
        assert!(at == other && at.ip().is_loopback(), "nothing translates: {at}, {other}");
        end.streams.close(ID);
        ports.push(at.port());
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 5, "a fresh one each time");
}

#[test]
fn a_crossing_ends_when_nobody_comes() {
    let (at, _observer) = observer();
    let end = End::new(None);
    end.streams.begin_crossing(ID, vec![at]);
    assert!(matches!(end.event(), (ID, StreamEvent::Seen { at: [Some(_), None] })));
    let nobody = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let across = Across { to: nobody, leads: true, tries: 3, after: Duration::from_millis(1) };
    end.streams.cross(ID, across);
    assert_eq!(end.event(), (ID, StreamEvent::Closed));
    end.streams.begin_crossing(ID, vec![nobody]);
    assert_eq!(end.event(), (ID, StreamEvent::Closed), "no super peer is there");
    assert_eq!(end.streams.count(), 0);
}
