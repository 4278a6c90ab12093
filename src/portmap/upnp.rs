//! A UPnP Internet Gateway Device: found by its answer, called over HTTP.
//!
//! Owns: the sockets. What is said and what it means is [`frejus_overlay::igd`]'s. Never: another machine than the
//! gateway of the default route, whatever an answer or a description says; nor more of an answer than that module's bound.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use frejus_overlay::igd::{self, Call, Place, Service};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::is_from;

/// Searches are sent so often; answers come within the second that they allow (UPnP Device Architecture 2.0, 1.3.2).
const SEARCHES: usize = 2;
const SEARCH_PAUSE: Duration = Duration::from_millis(1250);
/// One HTTP exchange with a router that is busy.
const EXCHANGE: Duration = Duration::from_secs(4);
/// External ports tried before we give up: where others have the number that we want.
const PORTS: usize = 4;
/// How long a mapping that the router keeps for ever is held to be good without a look.
const PERMANENT: Duration = Duration::from_secs(3600);
/// The answer to a search is one datagram.
const DATAGRAM: usize = 2048;

/// A router that maps ports.
#[derive(Debug)]
pub(super) struct Igd {
    service: Service,
    own: Ipv4Addr,
}

impl Igd {
    /// Look for it: at the gateway itself, and in the group, where only the gateway is listened to.
    pub(super) async fn find(gateway: Ipv4Addr, own: Ipv4Addr) -> Result<Self, String> {
        let described = search(gateway, own).await.map_err(|why| why.to_string())?;
        let described = described.ok_or("no answer to the search")?;
        let request = Request::get(&described.path).body(Full::default()).map_err(|why| why.to_string())?;
        let (_, description) = exchange(own, &described, request).await?;
        let service = Service::find(&description, &described).ok_or("its description has no such service")?;
        Ok(Self { service, own })
    }

    /// Map a port, `wanted` if it is free, and say where and for how long.
    pub(super) async fn add(
        &self,
        wanted: u16,
        internal: SocketAddrV4,
        life: Duration,
    ) -> Result<(SocketAddrV4, Duration), String> {
        let (mut external, mut lease) = (wanted, u32::try_from(life.as_secs()).unwrap_or(u32::MAX));
        for _ in 0..PORTS {
            match self.call(&Call::Add { external, internal, lease }).await {
                Ok(_) => {
                    let answer =
                        self.call(&Call::ExternalAddress).await.map_err(|refused| refused.to_string());
                    let ip = igd::external_address(&answer?).ok_or("it does not say its address")?;
                    let life = if lease == 0 { PERMANENT } else { life };
                    return Ok((SocketAddrV4::new(ip, external), life));
                }
                Err(Refused::Code(igd::CONFLICT)) => external = another_port()?,
                Err(Refused::Code(igd::ONLY_PERMANENT)) if lease != 0 => lease = 0,
                Err(refused) => return Err(refused.to_string()),
            }
        }
        Err("every port that was tried is somebody else's".to_owned())
    }

    /// The router's address on its far side.
    pub(super) async fn outer(&self) -> Option<Ipv4Addr> {
        igd::external_address(&self.call(&Call::ExternalAddress).await.ok()?)
    }

    /// Take a mapping back.
    pub(super) async fn delete(&self, external: u16) -> Result<(), String> {
        self.call(&Call::Delete { external }).await.map(|_| ()).map_err(|refused| refused.to_string())
    }

    async fn call(&self, call: &Call) -> Result<String, Refused> {
        let (action, body) = self.service.call(call);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.service.control.path)
            .header("content-type", "text/xml; charset=\"utf-8\"")
            .header("soapaction", action)
            .body(Full::from(body))
            .map_err(|why| Refused::Broken(why.to_string()))?;
        match exchange(self.own, &self.service.control, request).await {
            Ok((true, answer)) => Ok(answer),
            Ok((false, answer)) => {
                Err(igd::error_code(&answer).map_or(Refused::Broken("it refuses".to_owned()), Refused::Code))
            }
            Err(why) => Err(Refused::Broken(why)),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it refuses with code {0}")]
    Code(u16),
    #[error("{0}")]
    Broken(String),
}

/// Where the gateway says that it is described.
async fn search(gateway: Ipv4Addr, own: Ipv4Addr) -> std::io::Result<Option<Place>> {
    let socket = UdpSocket::bind((own, 0)).await?;
    SockRef::from(&socket).set_multicast_if_v4(&own)?;
    for _ in 0..SEARCHES {
        for to in [SocketAddrV4::new(gateway, igd::PORT), igd::GROUP] {
            for search in igd::searches(to) {
                // One of the two may be refused, such as the group by a host without a route for it.
                _ = socket.send_to(search.as_bytes(), to).await;
            }
        }
        if let Ok(described) = timeout(SEARCH_PAUSE, answer(&socket, gateway)).await {
            return described.map(Some);
        }
    }
    Ok(None)
}

async fn answer(socket: &UdpSocket, gateway: Ipv4Addr) -> std::io::Result<Place> {
    let mut datagram = [0; DATAGRAM];
    loop {
        let (length, source) = socket.recv_from(&mut datagram).await?;
        let described = igd::location(&datagram[..length]).filter(|place| *place.at.ip() == gateway);
        if let Some(described) = described.filter(|_| is_from(source, gateway)) {
            return Ok(described);
        }
    }
}

/// One request over a connection of its own: whether it was granted, and what was said.
async fn exchange(
    own: Ipv4Addr,
    place: &Place,
    request: Request<Full<Bytes>>,
) -> Result<(bool, String), String> {
    match timeout(EXCHANGE, exchange_patiently(own, place, request)).await {
        Ok(outcome) => outcome.map_err(|why| why.to_string()),
        Err(_) => Err(format!("no answer from {}", place.at)),
    }
}

async fn exchange_patiently(
    own: Ipv4Addr,
    place: &Place,
    mut request: Request<Full<Bytes>>,
) -> Result<(bool, String), Box<dyn std::error::Error + Send + Sync>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    let stream: TcpStream = socket.connect(place.at.into()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let headers = request.headers_mut();
    headers.insert("host", place.at.to_string().parse()?);
    headers.insert("connection", "close".parse()?);
    let conversation = async {
        let response = sender.send_request(request).await?;
        let granted = response.status().is_success();
        let body = Limited::new(response.into_body(), igd::LONGEST).collect().await?.to_bytes();
        Ok((granted, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection lives in this future: dropped with it, it leaves no task behind.
    tokio::pin!(conversation);
    tokio::select! {
        outcome = &mut conversation => outcome,
        ended = connection => {
            ended?;
            conversation.await
        }
    }
}

/// Any port above the system's own.
fn another_port() -> Result<u16, String> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(|why| why.to_string())?;
    Ok(u16::from_be_bytes(bytes) | 0x4000)
}
