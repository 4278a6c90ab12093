//! From addresses of a node to a stream, by whichever way stands first.
//!
//! Owns: which ways there are, in which order they begin, and the greeting. Never: when to try again; that is the node's
//! decision.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use frejus_overlay::stream::{Carrier, HTTPS};
use frejus_overlay::wire::stream::PREFACE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::proxy::Proxy;
use super::socket;
use super::tls::Coat;

/// The next kind of way begins this long after the one before it, if that has not succeeded: two round trips to the other
/// side of the world.
const STAGGER: Duration = Duration::from_millis(300);
/// Longer than any honest way takes; a box that swallows what it does not like would hold it for minutes.
const PATIENCE: Duration = Duration::from_secs(6);
/// Addresses of one node that are tried.
const MAX_ADDRESSES: usize = 6;

/// A stream that stands.
pub(super) struct Dialled {
    pub(super) stream: TlsStream<TcpStream>,
    /// The address of the node that it leads to.
    pub(super) at: SocketAddr,
    pub(super) carrier: Carrier,
}

/// One way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) to: SocketAddr,
    pub(super) carrier: Carrier,
    after: Duration,
}

/// Tries all ways to the node at `addresses`.
///
/// # Errors
/// The last way's, if none succeeds.
pub(super) async fn dial(
    coat: &Coat,
    proxy: Option<&Proxy>,
    addresses: &[SocketAddr],
) -> io::Result<Dialled> {
    let mut tries = JoinSet::new();
    for way in ways(addresses, proxy.is_some()) {
        let (coat, proxy) = (coat.clone(), proxy.cloned());
        tries.spawn(async move {
            sleep(way.after).await;
            timeout(PATIENCE, attempt(way, &coat, proxy.as_ref())).await.map_err(io::Error::from)?
        });
    }
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    while let Some(tried) = tries.join_next().await {
        match tried.map_err(io::Error::other)? {
            Ok(dialled) => return Ok(dialled),
            Err(error) => {
                tracing::debug!(%error, "a stream failed");
                failed = error;
            }
        }
    }
    Err(failed)
}

/// The node's own number, then 443, then the same through the proxy, which mostly allows no other than 443.
pub(super) fn ways(addresses: &[SocketAddr], has_proxy: bool) -> Vec<Way> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut https: Vec<SocketAddr> = Vec::new();
    for at in addresses {
        let to = SocketAddr::new(at.ip(), HTTPS);
        if !https.contains(&to) {
            https.push(to);
        }
    }
    let own = addresses.iter().filter(|at| at.port() != HTTPS);
    let way = |carrier, step| move |to: &SocketAddr| Way { to: *to, carrier, after: STAGGER * step };
    let mut ways: Vec<Way> = own.clone().map(way(Carrier::Tcp, 0)).collect();
    ways.extend(https.iter().map(way(Carrier::Tls, u32::from(!ways.is_empty()))));
    if has_proxy {
        ways.extend(https.iter().map(way(Carrier::Proxy, 2)));
        ways.extend(own.map(way(Carrier::Proxy, 3)));
    }
    ways
}

pub(super) async fn attempt(way: Way, coat: &Coat, proxy: Option<&Proxy>) -> io::Result<Dialled> {
    let Way { to, carrier, .. } = way;
    let socket = match (carrier, proxy) {
        (Carrier::Proxy, Some(proxy)) => proxy.connect(to).await?,
        _ => socket::connect(to).await?,
    };
    let mut stream = coat.connect(socket, to).await?;
    greet(&mut stream).await?;
    Ok(Dialled { stream, at: to, carrier })
}

/// Says who we are and hears the same, or this is some other server.
pub(super) async fn greet(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.write_all(&PREFACE).await?;
    stream.flush().await?;
    let mut said = [0; PREFACE.len()];
    stream.read_exact(&mut said).await?;
    if said == PREFACE { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "no frejus node")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(addresses: &[&str], has_proxy: bool) -> Vec<(String, Carrier, u128)> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|at| at.parse().unwrap()).collect();
        let ways = ways(&addresses, has_proxy);
        ways.iter().map(|way| (way.to.to_string(), way.carrier, way.after.as_millis())).collect()
    }

    #[test]
    fn the_own_number_first_then_443_then_the_proxy() {
        let all = kinds(&["192.0.2.1:51860", "192.0.2.1:7", "[2001:db8::1]:51860"], true);
        let place = |at: &str, carrier, after| (at.to_owned(), carrier, after);
        assert_eq!(all[0], place("192.0.2.1:51860", Carrier::Tcp, 0));
        assert_eq!(all[3], place("192.0.2.1:443", Carrier::Tls, 300));
        assert_eq!(all[4], place("[2001:db8::1]:443", Carrier::Tls, 300));
        assert_eq!(all[5], place("192.0.2.1:443", Carrier::Proxy, 600));
        assert_eq!(all[7], place("192.0.2.1:51860", Carrier::Proxy, 900));
        assert_eq!(all.len(), 3 + 2 + 2 + 3);
        assert_eq!(kinds(&["192.0.2.1:443"], false), [place("192.0.2.1:443", Carrier::Tls, 0)]);
    }
}
