//! The forwarding threads on a real kernel: TUN devices in network namespaces of their own, tunnels with static
//! peers, UDP over the loopback of this one.
//!
//! Needs root. Without it the tests say SKIPPED, or fail if the environment has `NETNS=required`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by its line, and shows its figures"
)]

mod forwarding {
    //! A way past the programs of a host, packets of every kind, and what becomes of them.
    mod device;
    mod doors;
    mod doubt;
    pub(crate) mod keys;
    pub(crate) mod relay;
    pub(crate) mod sample;
    pub(crate) mod tap;
    mod whole;
}

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use frejus::clock::Clock;
use frejus::forward::{ForwardParts, Forwarding, Published, exceptions, sum};
use frejus::netlink::Netlink;
use frejus::offload::{Offload, Offloads, Wishes};
use frejus::stream::Outlets;
use frejus::tun::{Name, Tun};
use frejus::udp::{Doors, Listen, PortChoice, Udp};
use frejus::wireguard::Wireguard;
use frejus_overlay::forward::{Exception, Slot, SlotCounters, SlotId, Table};
use frejus_overlay::locator::Locator;
use frejus_overlay::packet::udp6::Udp6;
use frejus_overlay::path_mtu::Mtu;
use frejus_overlay::relay::server::RelayTable;
use frejus_overlay::tunnel::{Crypto, HANDSHAKE_ROOM, Handshake, Opened, SharedTunnel, seal_one};
use frejus_overlay::verdict::Drop as Reason;
use frejus_overlay::wire;
use ipnetwork::IpNetwork;
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

use forwarding::keys;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
#[derive(Clone)]
struct Host(Arc<Mutex<mpsc::Sender<Job>>>);

impl Host {
    fn new() -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, done) = mpsc::channel();
        thread::spawn(move || {
            ready.send(unshare(CloneFlags::CLONE_NEWNET)).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        match done.recv().unwrap() {
            Ok(()) => Some(Self(Arc::new(Mutex::new(jobs)))),
            Err(error) => {
                let required = std::env::var("NETNS").is_ok_and(|value| value == "required");
                assert!(!required, "no network namespace: {error}");
                println!("SKIPPED: no network namespace: {error}");
                None
            }
        }
    }

    /// Runs `job` in the namespace.
    fn start<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (give, take) = mpsc::channel();
        // A thread of the namespace's thread is in the namespace as well.
        let body = move || drop(thread::spawn(move || give.send(job()).ok()));
        self.0.lock().unwrap().send(Box::new(body)).unwrap();
        take
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(job).recv_timeout(Duration::from_secs(120)).expect("done in time")
    }
}

fn address4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn address6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}

/// One node: a device in its namespace, sockets on our loopback, no control thread.
struct Node {
    host: Host,
    number: u8,
    udp: Udp,
    doors: Doors,
    tun: Arc<Tun>,
    crypto: Wireguard,
    clock: Clock,
    table: Arc<Published>,
    slots: Vec<Slot>,
    exceptions: Receiver<Exception>,
    lost: Receiver<()>,
    forwarding: Option<Forwarding>,
}

impl Node {
    fn start(number: u8) -> Option<Self> {
        Self::start_with(number, 1280, Wishes::default())
    }

    fn start_with(number: u8, mtu: u16, wishes: Wishes) -> Option<Self> {
        Self::start_queues(number, mtu, wishes, 1)
    }

    fn start_queues(number: u8, mtu: u16, wishes: Wishes, queues: usize) -> Option<Self> {
        let host = Host::new()?;
        let listen = Listen { v4: Some(Ipv4Addr::LOCALHOST), v6: None, port: PortChoice::Required(0) };
        let offloads = Arc::new(Offloads::new(wishes));
        let udp = Udp::bind_queues(listen, queues, Arc::clone(&offloads)).unwrap();
        let clock = Clock::start();
        let crypto = keys::node(number, offloads.is_on(Offload::TunChecksum), &clock);
        let (own4, own6) = (address4(number), address6(number));
        let empty = Table::new(own4, own6, [], RelayTable::default());
        let table = Arc::new(Published::new(Arc::new(empty)));
        let (tell, told) = exceptions();
        let (lose, lost) = bounded(1);
        let tunnel_key = crypto.public();
        let doors = Doors::new(Arc::clone(&offloads)).unwrap();
        let parts = (udp.clone(), doors.clone(), Arc::clone(&table), clock.clone());
        let (tun, forwarding) = host.run(move || {
            let tuns = Tun::create_queues(&Name::Any, mtu, queues, offloads).unwrap();
            let tuns: Vec<_> = tuns.into_iter().map(Arc::new).collect();
            let tun = Arc::clone(&tuns[0]);
            assert_eq!(tun.name(), "frejus0");
            let addresses = [network(own4.into(), 16), network(own6.into(), 48)];
            let name = tun.name().to_owned();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
                async move {
                    let netlink = Netlink::open().unwrap();
                    netlink.configure(&name, &addresses).await.unwrap();
                    let routes = netlink.routes().await.unwrap();
                    let expected = ("10.77.0.0/16".parse().unwrap(), name.clone());
                    assert!(routes.contains(&expected), "{routes:?}");
                    assert_eq!(netlink.host_addresses(&name).await.unwrap(), [] as [IpAddr; 0]);
                },
            );
            let (udp, doors, table, clock) = parts;
            let lost = Box::new(move || lose.send(()).unwrap());
            let exceptions = tell;
            let parts = ForwardParts {
                tuns,
                udp,
                doors,
                streams: Outlets::default(),
                table,
                exceptions,
                tunnel_key,
                clock,
                lost,
            };
            (tun, Forwarding::start(parts).unwrap())
        });
        let forwarding = Some(forwarding);
        Some(Self {
            host,
            number,
            udp,
            doors,
            tun,
            crypto,
            clock,
            table,
            slots: Vec::new(),
            exceptions: told,
            lost,
            forwarding,
        })
    }

    fn at(&self) -> SocketAddr {
        self.udp.local()[0]
    }

    fn add(&mut self, peer: u8, tunnel: SharedTunnel, index: u32, path: Option<Locator>) {
        let id = SlotId((index & 0x3fff) as u16);
        let (address4, address6) = (address4(peer), address6(peer));
        self.slots.push(Slot {
            id,
            index,
            tunnel,
            path,
            also: None,
            mtu: Mtu { bytes: u16::MAX, is_known: true },
            address4,
            address6,
            counters: Arc::default(),
        });
        self.publish(RelayTable::default());
    }

    fn publish(&self, relay: RelayTable) {
        let table = Table::new(address4(self.number), address6(self.number), self.slots.clone(), relay);
        self.table.publish(Arc::new(table));
    }

    /// The next exception that `wanted` picks; others, such as what the kernel sends of itself, are passed over.
    fn expect<T>(&self, what: &str, wanted: impl Fn(&Exception) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(10);
        while let Ok(exception) = self.exceptions.recv_deadline(until) {
            if let Some(found) = wanted(&exception) {
                return found;
            }
        }
        panic!("no {what}");
    }

    fn dropped(&self, reason: Reason) -> u64 {
        let counters = self.forwarding.as_ref().unwrap().counters();
        sum(counters.iter().map(Arc::as_ref)).dropped(reason)
    }

    fn until_dropped(&self, reason: Reason, count: u64) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.dropped(reason) < count {
            assert!(Instant::now() < until, "{} dropped as {}", self.dropped(reason), reason.name());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn network(ip: IpAddr, prefix: u8) -> IpNetwork {
    IpNetwork::new(ip, prefix).unwrap()
}

/// Two nodes with a session between them, each with the other in its table.
fn join(a: &mut Node, b: &mut Node, path_a: Option<Locator>, path_b: Option<Locator>) {
    let (index_a, index_b) = (0x12_4003, 0x43_8005);
    let to_b = a.crypto.tunnel(&b.crypto.public(), index_a);
    let to_a = b.crypto.tunnel(&a.crypto.public(), index_b);
    let mut first = [0; HANDSHAKE_ROOM];
    let mut second = [0; HANDSHAKE_ROOM];
    let len = to_b.initiate(&mut first, a.clock.instant()).unwrap();
    let reply = to_a.handshake(&first[..len], &mut second, b.clock.instant());
    let Handshake::Reply(len) = reply else { panic!("{reply:?}") };
    let reply = to_b.handshake(&second[..len], &mut first, a.clock.instant());
    let Handshake::Reply(len) = reply else { panic!("{reply:?}") };
    assert_eq!(to_a.open(&mut first[..len]), Opened::Keepalive);
    a.add(b.number, to_b, index_a, path_a);
    b.add(a.number, to_a, index_b, path_b);
}

fn pair() -> Option<(Node, Node)> {
    pair_with(1280, Wishes::default())
}

fn pair_with(mtu: u16, wishes: Wishes) -> Option<(Node, Node)> {
    Some(pair_of(Node::start_with(1, mtu, wishes)?, Node::start_with(2, mtu, wishes)?))
}

fn pair_of(mut a: Node, mut b: Node) -> (Node, Node) {
    let (at_a, at_b) = (a.at(), b.at());
    join(&mut a, &mut b, Some(Locator::Direct(at_b.into())), Some(Locator::Direct(at_a.into())));
    (a, b)
}

/// The bytes of a transfer from `at` on: a block of prime length over and over, so that no shift or loss leaves them
/// alike, and checking costs no more than comparing.
fn pattern(at: usize, bytes: &mut [u8]) {
    const BLOCK: usize = 1_048_573;
    static RANDOM: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut x = 1_u64;
        let mut next = || {
            // Xorshift by Marsaglia.
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        };
        (0..BLOCK).map(|_| next()).collect()
    });
    let mut done = 0;
    while done < bytes.len() {
        let from = &RANDOM[(at + done) % BLOCK..];
        let len = from.len().min(bytes.len() - done);
        bytes[done..done + len].copy_from_slice(&from[..len]);
        done += len;
    }
}

/// Sends `total` bytes from `from` to `to` by TCP, and checks each; how long it took.
fn transfer(from: &Node, to: &Node, at: IpAddr, port: u16, total: usize) -> Duration {
    const CHUNK: usize = 1 << 17;
    let (listening, ready) = mpsc::channel();
    let received = to.host.start(move || {
        let listener = TcpListener::bind((at, port)).unwrap();
        listening.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut got, mut expected, mut at) = (vec![0; CHUNK], vec![0; CHUNK], 0);
        loop {
            let len = stream.read(&mut got).unwrap();
            if len == 0 {
                stream.write_all(b"k").unwrap();
                return at;
            }
            pattern(at, &mut expected[..len]);
            assert!(got[..len] == expected[..len], "bytes from {at} on differ");
            at += len;
        }
    });
    ready.recv().unwrap();
    let begun = Instant::now();
    from.host.run(move || {
        let mut stream = TcpStream::connect_timeout(&(at, port).into(), Duration::from_secs(10)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
        let mut chunk = vec![0; CHUNK];
        for start in (0..total).step_by(CHUNK) {
            let len = CHUNK.min(total - start);
            pattern(start, &mut chunk[..len]);
            stream.write_all(&chunk[..len]).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    let elapsed = begun.elapsed();
    assert_eq!(received.recv_timeout(Duration::from_secs(5)).unwrap(), total);
    elapsed
}

/// Processor time of this process: both nodes and both programs.
fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// Runs a transfer and prints its figures; of these the processor time bears other load on the machine.
fn measure(what: &str, from: &Node, to: &Node, at: IpAddr, port: u16, total: usize) {
    let before = processor();
    let elapsed = transfer(from, to, at, port, total);
    let (bytes, cost) = (total as f64, processor() - before);
    let (speed, cost) = (bytes * 8e-9 / elapsed.as_secs_f64(), cost.as_secs_f64() / (bytes * 1e-9));
    println!("{what}: {speed:.2} Gb/s, {cost:.2} CPU s/GB");
}

#[test]
fn ping_and_tcp_arrive_whole_both_ways() {
    let Some((a, b)) = pair() else { return };
    let ping =
        a.host.run(|| Command::new("ping").args(["-c3", "-i0.01", "-W5", "10.77.0.2"]).output().unwrap());
    assert!(ping.status.success(), "{ping:?}");
    let big = b.host.run(|| Command::new("ping").args(["-c3", "-s8000", "-W5", "fd77::1"]).output().unwrap());
    assert!(big.status.success(), "fragments: {big:?}");
    const TOTAL: usize = if cfg!(debug_assertions) { 24 << 20 } else { 1 << 30 };
    measure("IPv4 there", &a, &b, address4(2).into(), 7001, TOTAL);
    measure("IPv6 back", &b, &a, address6(1).into(), 7002, TOTAL);
    transfer(&b, &a, address4(1).into(), 7003, 1_000_003);
    for node in [&a, &b] {
        let counters = node.forwarding.as_ref().unwrap().counters();
        let total = sum(counters.iter().map(Arc::as_ref));
        for reason in [Reason::NotAuthentic, Reason::Malformed, Reason::TunFailed, Reason::ForeignSource] {
            assert_eq!(total.dropped(reason), 0, "{}", reason.name());
        }
        assert!(total.packets_out.load(Ordering::Relaxed) > 1000);
        assert!(total.packets_in.load(Ordering::Relaxed) > 1000);
    }
    let slot = &a.slots[0].counters;
    assert!(slot.tx_bytes.load(Ordering::Relaxed) > TOTAL as u64);
    assert!(slot.rx_bytes.load(Ordering::Relaxed) > TOTAL as u64);
    a.expect("first data", |exception| matches!(exception, Exception::Woken { .. }).then_some(()));
    assert!(
        !a.exceptions.try_iter().any(|exception| matches!(exception, Exception::Woken { .. })),
        "told twice"
    );
}

#[test]
fn what_the_path_does_not_take_is_told_or_fragmented() {
    let Some((mut a, b)) = pair() else { return };
    a.slots[0].mtu = Mtu { bytes: 1220, is_known: true };
    a.publish(RelayTable::default());
    transfer(&a, &b, address4(2).into(), 7001, 4 << 20);
    transfer(&a, &b, address6(2).into(), 7002, 4 << 20);
    let ping = |arguments: &'static str| {
        let run = move || Command::new("ping").args(arguments.split(' ')).output().unwrap();
        let output = a.host.run(run);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (passed, said) = ping("-c1 -W5 -Mdo -s1192 10.77.0.2");
    assert!(passed, "{said}");
    let before = a.dropped(Reason::TooBig);
    let (passed, said) = ping("-c1 -W1 -Mdo -s1193 10.77.0.2");
    assert!(!passed && said.contains("1220"), "{said}");
    a.until_dropped(Reason::TooBig, before + 1);
    for (what, arguments) in [
        ("IPv6 up to 1280", "-c1 -W5 -Mdo -s1232 fd77::2"),
        ("IPv4 that may be fragmented", "-c1 -W5 -Mdont -s1240 10.77.0.2"),
        ("fragments of its own", "-c1 -W5 -Mdont -s4000 10.77.0.2"),
        ("the same over IPv6", "-c1 -W5 -s4000 fd77::2"),
    ] {
        let (passed, said) = ping(arguments);
        assert!(passed, "{what}: {said}");
    }
    assert_eq!(b.dropped(Reason::Malformed) + b.dropped(Reason::TunFailed), 0);
}

#[test]
fn udp_of_every_size_arrives_as_it_was_sent() {
    let Some((a, b)) = pair() else { return };
    let (listening, ready) = mpsc::channel();
    let echo = b.host.start(move || {
        let socket = UdpSocket::bind((address4(2), 7100)).unwrap();
        listening.send(()).unwrap();
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..len], from).unwrap();
            if len == 0 {
                return;
            }
        }
    });
    ready.recv().unwrap();
    a.host.run(|| {
        let socket = UdpSocket::bind((address4(1), 0)).unwrap();
        socket.connect((address4(2), 7100)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = vec![0; 65_536];
        for len in (1..1252).chain([1253, 5000, 60_000]).chain([0]) {
            let mut sent = vec![0; len];
            pattern(len, &mut sent);
            socket.send(&sent).unwrap();
            let got = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
            assert!(buffer[..got] == sent, "{len} bytes differ");
        }
    });
    echo.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn what_forwarding_cannot_decide_goes_to_control() {
    let Some((a, b)) = pair() else { return };
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = Locator::Direct(outside.local_addr().unwrap().into());

    a.host.run(|| UdpSocket::bind((address4(1), 0)).unwrap().send_to(b"anybody?", (address4(9), 7)).unwrap());
    let packet = a.expect("unroutable packet", |exception| match exception {
        Exception::Unroutable { packet } if packet[0] == 0x45 => Some(packet.clone()),
        _ => None,
    });
    assert_eq!((&packet[16..20], &packet[28..]), (&[10, 77, 0, 9][..], &b"anybody?"[..]));

    while a.dropped(Reason::ControlBusy) == 0 {
        a.host.run(|| {
            let socket = UdpSocket::bind((address4(1), 0)).unwrap();
            (0..100).for_each(|_| drop(socket.send_to(b"anybody?", (address4(9), 7))));
        });
    }
    let knock = wire::frame(wire::KNOCK, b"sealed");
    outside.send_to(&knock, a.at()).unwrap();
    let (came, bytes) = a.expect("knock", |exception| match exception {
        Exception::Datagram { from, bytes } => Some((*from, bytes.clone())),
        _ => None,
    });
    assert_eq!((came, bytes), (from, knock.clone()));

    let unknown = [&[4, 0, 0, 0, 1, 2, 3, 4][..], &[0; 24]].concat();
    for _ in 0..20 {
        outside.send_to(&unknown, a.at()).unwrap();
    }
    a.until_dropped(Reason::UnknownSession, 20);
    let is_stranger = |exception: &Exception| matches!(exception, Exception::Stranger { .. }).then_some(());
    a.expect("stranger", is_stranger);
    assert_eq!(a.exceptions.try_iter().filter(|exception| is_stranger(exception).is_some()).count(), 0);

    outside.send_to(&[0xff; 40], a.at()).unwrap();
    a.until_dropped(Reason::UnknownFrame, 1);
    while a.dropped(Reason::RateLimited) < 100 {
        (0..100).for_each(|_| drop(outside.send_to(&knock, a.at())));
        thread::sleep(Duration::from_millis(1));
    }
    control_and_spoofs(&a, &b, &outside);
}

/// What the peer sends from elsewhere, to control, or under a false name.
fn control_and_spoofs(a: &Node, b: &Node, outside: &UdpSocket) {
    let from = Locator::Direct(outside.local_addr().unwrap().into());
    let send = |packet: &[u8]| {
        let _ = b.clock.instant();
        let message = seal_one(&*b.slots[0].tunnel, packet).unwrap();
        outside.send_to(&message, a.at()).unwrap();
    };
    let datagram = |source: Ipv6Addr, destination: Ipv6Addr, port: u16| {
        let mut room = [0; 100];
        let datagram =
            Udp6 { source, destination, source_port: port, destination_port: port, payload: b"message" };
        let len = datagram.write(&mut room).unwrap();
        room[..len].to_vec()
    };
    let message = datagram(address6(2), address6(1), wire::control::PORT);
    send(&message);
    let (slot, came, packet) = a.expect("control message", |exception| match exception {
        Exception::Control { slot, from, packet } => Some((*slot, *from, packet.clone())),
        _ => None,
    });
    assert_eq!((slot, came, packet), (a.slots[0].id, from, message.clone()));
    a.expect("stray", |exception| {
        (*exception == Exception::Strayed { slot: a.slots[0].id, from }).then_some(())
    });
    send(&datagram(address6(3), address6(1), 9));
    a.until_dropped(Reason::SpoofedSource, 1);
    send(&datagram(address6(2), address6(3), wire::control::PORT));
    a.until_dropped(Reason::ForeignDestination, 1);
    let strayed = |exception: Exception| matches!(exception, Exception::Strayed { .. });
    assert_eq!(
        a.exceptions.try_iter().filter(|exception| strayed(exception.clone())).count(),
        0,
        "told once"
    );
    // A counter that has not come; one that has would be a duplicate, whoever sends it.
    let receiver = (0x12_4003_u32 << 8 | 1).to_le_bytes();
    let forged = [&[4, 0, 0, 0], &receiver[..], &(1_u64 << 40).to_le_bytes(), &[0; 32]].concat();
    outside.send_to(&forged, a.at()).unwrap();
    a.until_dropped(Reason::NotAuthentic, 1);
    for _ in 0..1000 {
        send(&message);
    }
    a.until_dropped(Reason::RateLimited, 100);
}

#[test]
fn stun_is_answered_and_a_first_word_is_announced_once() {
    let (Some(mut a), Some(mut b)) = (Node::start(1), Node::start(2)) else { return };
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    outside.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    outside.send_to(&request, a.at()).unwrap();
    let mut answer = [0; 100];
    let (len, _) = outside.recv_from(&mut answer).unwrap();
    assert_eq!((answer[..2].to_vec(), len), (vec![1, 1], 32));

    let at_a = a.at();
    join(&mut a, &mut b, None, Some(Locator::Direct(at_a.into())));
    let sent = b
        .host
        .run(|| UdpSocket::bind((address4(2), 0)).unwrap().send_to(b"hello", (address4(1), 7)).unwrap());
    assert_eq!(sent, 5);
    let from = Locator::Direct(b.at().into());
    a.expect("session", |exception| {
        (*exception == Exception::Established { slot: a.slots[0].id, from }).then_some(())
    });
    let counters: &SlotCounters = &a.slots[0].counters;
    assert!(counters.announced.load(Ordering::Relaxed));
}

#[test]
fn the_threads_end_at_once() {
    let Some(mut a) = Node::start(1) else { return };
    let begun = Instant::now();
    a.forwarding.take().unwrap().stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(Arc::strong_count(&a.tun), 1, "nobody holds the device any more");
}

#[test]
fn a_deleted_device_is_told() {
    let Some(a) = Node::start(1) else { return };
    let deleted = a.host.run(|| Command::new("ip").args(["link", "del", "frejus0"]).status().unwrap());
    assert!(deleted.success());
    a.lost.recv_timeout(Duration::from_secs(10)).expect("told");
}
