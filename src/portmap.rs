//! The port that the router opens for us: asked for, kept, given back.
//!
//! Owns: one task, which finds the router, asks it in the order PCP, NAT-PMP, UPnP, remembers what worked, and asks
//! again before the lease ends, when the router says that it has restarted, and when our addresses change. Control hears
//! of the outcome only. Never: a route through our own device, a request where this machine has a public address, or a
//! word to the operator about a router that does not do it: most don't.
//!
//! Every renewal is the whole request again, so a router that lost the mapping makes it anew, and one that has another
//! address by now says so.

mod announcement;
mod router;
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use frejus_overlay::locator::is_public;
use frejus_overlay::mapping::{Mapped, MappingProtocol};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::control::News;
use crate::netlink::Netlink;

use announcement::Announcements;
use router::{Grant, Nonces, Router};

/// What we ask for (RFC 6886, section 3.3); the router may give less.
const LIFE: Duration = Duration::from_secs(7200);
/// At least this much between two requests of ours, whatever the router grants or announces (RFC 6887, section 11.2.1).
const LEAST: Duration = Duration::from_secs(4);
/// A router that restarts without an announcement is noticed within this time: 88 bytes there and as many back, 23
/// bit/s on the local link.
const CHECK: Duration = Duration::from_secs(60);
/// The same for UPnP, whose requests are some 2500 bytes: 67 bit/s.
const CHECK_UPNP: Duration = Duration::from_secs(300);
/// After a failure; doubled by each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two tries while no router does it: some come to it when somebody flips a switch.
const LONGEST_PAUSE: Duration = Duration::from_secs(180);
/// While a lease runs that could not be renewed.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// What the end of the node may wait for the router.
const RELEASE: Duration = Duration::from_secs(1);
/// A control thread that has no room for news gets them again after this long.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// What is to be mapped.
#[derive(Debug)]
pub struct Wish {
    /// The node's UDP port.
    pub port: NonZeroU16,
    /// Our own device, through which no router is looked for.
    pub device: String,
    /// Makes the nonces by which a router knows us again after a crash; what it makes can't be traced back to it.
    pub secret: [u8; 32],
}

/// The task, from outside.
#[derive(Debug)]
pub struct PortMapper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortMapper {
    /// Start it on the current runtime. `links` changes when the machine's addresses do.
    #[must_use]
    pub fn start(wish: Wish, links: watch::Receiver<()>, news: Sender<News>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let keeper = Keeper {
            nonces: Nonces::new(&wish.secret),
            wish,
            links,
            news,
            announcements: Announcements::new(),
            router: None,
            held: None,
            asking: None,
            outer: None,
        };
        Self { stop, task: tokio::spawn(keeper.run(stopped)) }
    }

    /// Give the port back, and end; a router that does not answer is not waited for.
    pub async fn release(self) {
        // It has ended already if the control thread has.
        _ = self.stop.send(());
        _ = tokio::time::timeout(RELEASE * 2, self.task).await;
    }
}

/// A mapping that stands.
#[derive(Clone, Copy, Debug)]
struct Held {
    mapped: Mapped,
    grant: Grant,
    granted: Instant,
}

impl Held {
    fn expires(&self) -> Instant {
        self.granted + self.grant.life
    }

    /// Whether a router that says `epoch` has restarted since (RFC 6886, section 3.6: seconds since it did, with the
    /// tolerance of that section).
    fn is_older_than(&self, epoch: Option<u32>, now: Instant) -> bool {
        let (Some(old), Some(new)) = (self.grant.epoch, epoch) else { return false };
        let passed = now.duration_since(self.granted).as_secs() * 7 / 8;
        u64::from(new) + 2 < u64::from(old) + passed
    }
}

struct Keeper {
    wish: Wish,
    nonces: Nonces,
    links: watch::Receiver<()>,
    news: Sender<News>,
    announcements: Announcements,
    router: Option<Router>,
    held: Option<Held>,
    /// What is being asked for, or was last: if we are stopped meanwhile, it may have been granted.
    asking: Option<MappingProtocol>,
    /// Where the router is that opens no port, as control knows it.
    outer: Option<Ipv4Addr>,
}

impl Keeper {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = &mut stopped => {}
            () = self.keep() => {}
        }
        let protocol = self.held.map(|held| held.mapped.protocol).or(self.asking);
        if let (Some(router), Some(protocol)) = (&self.router, protocol) {
            let at = self.held.map(|held| held.mapped.at);
            if tokio::time::timeout(RELEASE, router.release(protocol, at)).await.is_err() {
                tracing::debug!("the router does not answer: the mapping ends with its lease");
            }
        }
    }

    async fn keep(&mut self) {
        let mut pause = PAUSE;
        loop {
            self.find_router().await;
            let wait = match self.ask().await {
                Some(wait) => {
                    pause = PAUSE;
                    wait
                }
                None => {
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            if self.wait(wait).await {
                pause = PAUSE;
            }
        }
    }

    /// Wait so long, or until there is a reason not to; whether our addresses changed.
    async fn wait(&mut self, wait: Duration) -> bool {
        let asked = Instant::now();
        let gateway = self.router.as_ref().map(Router::gateway);
        let relinked = tokio::select! {
            () = tokio::time::sleep(wait) => return false,
            changed = self.links.changed() => changed.is_ok(),
            () = self.announcements.next_from(gateway) => false,
        };
        // Nobody but us may have noticed: the same addresses may be those of another network.
        let elsewhere = relinked && (self.held.is_none() || self.place() != self.whereabouts().await);
        if !elsewhere {
            tokio::time::sleep_until(asked + LEAST).await;
        }
        relinked
    }

    /// Whom to ask. Another router, or another address of ours, is another mapping.
    async fn find_router(&mut self) {
        let found = self.whereabouts().await;
        if self.place() == found {
            return;
        }
        self.lose().await;
        self.tell_outer(None).await;
        self.asking = None;
        self.router = found
            .map(|(gateway, own)| Router::new(gateway, own, self.wish.port, self.nonces.of(gateway, own)));
    }

    fn place(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.router.as_ref().map(|router| (router.gateway(), router.own()))
    }

    /// The gateway of the default route, and our private address there.
    async fn whereabouts(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let netlink = Netlink::open().ok()?;
        let hosts = netlink.host_addresses(&self.wish.device).await.ok()?;
        if hosts.iter().any(|host| host.is_ipv4() && is_public(*host)) {
            return None;
        }
        let gateway = netlink.gateway4(&self.wish.device).await.ok()??;
        let own = own_address(gateway)?;
        (hosts.contains(&own.into()) && !is_public(gateway.into())).then_some((gateway, own))
    }

    /// Ask in every way until one works, first in that which worked last; how long to wait then.
    async fn ask(&mut self) -> Option<Duration> {
        let last = self.held.map(|held| held.mapped.protocol);
        let order =
            last.into_iter().chain(MappingProtocol::ALL.into_iter().filter(|other| Some(*other) != last));
        let suggestion = self.held.map(|held| held.mapped.at);
        for protocol in order {
            self.asking = Some(protocol);
            let router = self.router.as_mut()?;
            match router.ask(protocol, suggestion, LIFE).await {
                Ok(grant) => {
                    self.hold(protocol, grant).await;
                    return Some(next_check(protocol, grant.life));
                }
                Err(why) => tracing::debug!(protocol = protocol.name(), "no port from the router: {why}"),
            }
        }
        self.asking = None;
        if self.held.is_some_and(|held| Instant::now() < held.expires()) {
            return Some(RENEW_AGAIN);
        }
        self.lose().await;
        let outer = self.router.as_ref()?.outer().await;
        self.tell_outer(outer).await;
        None
    }

    async fn hold(&mut self, protocol: MappingProtocol, grant: Grant) {
        self.tell_outer(None).await;
        let now = Instant::now();
        let mapped = Mapped { at: grant.at, protocol };
        let last = self.held.replace(Held { mapped, grant, granted: now });
        if last.is_some_and(|last| last.is_older_than(grant.epoch, now)) {
            tracing::info!("the router has restarted");
            self.tell(News::RouterRestarted).await;
        }
        if last.map(|last| last.mapped) != Some(mapped) {
            let (life, protocol) = (grant.life.as_secs(), protocol.name());
            tracing::info!(protocol, life, public = mapped.is_public(), "the router opened a port");
            self.tell(News::Mapped(Some(mapped))).await;
        }
    }

    async fn lose(&mut self) {
        if self.held.take().is_some() {
            tracing::info!("the router has no port open for us any more");
            self.tell(News::Mapped(None)).await;
        }
    }

    /// Where the router is that opens no port.
    async fn tell_outer(&mut self, outer: Option<Ipv4Addr>) {
        if self.outer != outer {
            self.outer = outer;
            if let Some(at) = outer {
                tracing::info!(%at, "the router opens no port, and is behind another one");
            }
            self.tell(News::RouterAt(outer.map(IpAddr::V4))).await;
        }
    }

    /// Tell control, whose queue may be full of the directory's replies.
    async fn tell(&self, mut news: News) {
        while let Err(TrySendError::Full(refused)) = self.news.try_send(news) {
            news = refused;
            tokio::time::sleep(TELL_AGAIN).await;
        }
    }
}

/// When to ask again: at half the lease (RFC 6887, section 11.2.1), or when it is time to see whether the router is still
/// the one that granted it.
fn next_check(protocol: MappingProtocol, life: Duration) -> Duration {
    let check = match protocol {
        MappingProtocol::Pcp | MappingProtocol::NatPmp => CHECK,
        MappingProtocol::Upnp => CHECK_UPNP,
    };
    (life / 2).clamp(LEAST, check)
}

/// The address that this machine has towards `gateway`.
fn own_address(gateway: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(own) => Some(*own.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// Whether a datagram from `source` is the router's.
fn is_from(source: SocketAddr, gateway: Ipv4Addr) -> bool {
    source.ip() == IpAddr::V4(gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(epoch: Option<u32>, granted: Instant) -> Held {
        let at = "198.51.100.7:51860".parse().unwrap();
        let grant = Grant { at, life: LIFE, epoch };
        Held { mapped: Mapped { at, protocol: MappingProtocol::Pcp }, grant, granted }
    }

    #[test]
    fn a_lease_is_renewed_at_half_and_never_in_haste() {
        use MappingProtocol::{NatPmp, Pcp, Upnp};
        let seconds = Duration::from_secs;
        assert_eq!(next_check(Pcp, seconds(20)), seconds(10));
        assert_eq!(next_check(NatPmp, seconds(7200)), CHECK);
        assert_eq!(next_check(Upnp, seconds(7200)), CHECK_UPNP);
        assert_eq!(next_check(Pcp, seconds(0)), LEAST);
    }

    #[test]
    fn a_clock_that_went_back_tells_a_restart() {
        let granted = Instant::now();
        let later = granted + Duration::from_secs(80);
        let held = held(Some(1000), granted);
        assert!(!held.is_older_than(Some(1080), later));
        assert!(!held.is_older_than(Some(1068), later), "its clock may be slow by an eighth, and 2 s");
        assert!(held.is_older_than(Some(1067), later));
        assert!(held.is_older_than(Some(3), later));
        assert!(!held.is_older_than(None, later));
    }
}
