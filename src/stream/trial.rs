//! Which ports of a node let TCP in: every way to it at once, for a moment.
//!
//! Owns: the attempts and their limit. Never: a stream that stays, or when and to whom to try; that is the node's decision.

use std::net::SocketAddr;

use frejus_overlay::stream::{HTTPS, Passage, TRIAL, Tried};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::dial::{Way, attempt, ways};
use super::proxy::Proxy;
use super::tls::Coat;

/// Nothing better is to be found.
const BEST: Tried = Tried { own: Passage::Open, https: Passage::Open };

/// Tries all ways to the nodes at `addresses`.
pub(super) async fn attempt_all(coat: &Coat, proxy: Option<&Proxy>, addresses: &[SocketAddr]) -> Tried {
    let deadline = Instant::now() + TRIAL;
    let mut tries = JoinSet::new();
    let mut found = Tried { own: Passage::Blocked, https: Passage::Blocked };
    for way in ways(addresses, proxy.is_some()) {
        let (coat, proxy, shown) = (coat.clone(), proxy.cloned(), shown(way, addresses));
        tries.spawn(async move {
            let dialled = attempt(way, &coat, proxy.as_ref()).await;
            dialled.map_or_else(|_| Tried::default(), |_| shown)
        });
    }
    while found != BEST
        && let Ok(Some(tried)) = timeout_at(deadline, tries.join_next()).await
    {
        found = found.or(tried.unwrap_or_default());
    }
    found
}

fn shown(way: Way, numbers: &[SocketAddr]) -> Tried {
    Tried::by(way.carrier, numbers.contains(&way.to), way.to.port() == HTTPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_shows_the_port_that_it_leads_to() {
        let numbers: Vec<SocketAddr> =
            ["192.0.2.1:51860", "192.0.2.2:443"].map(|at| at.parse().unwrap()).into();
        let shown: Vec<(String, Tried)> =
            ways(&numbers, true).into_iter().map(|way| (way.to.to_string(), shown(way, &numbers))).collect();
        let tried = |own, https| Tried { own, https };
        let (no, open, proxy) = (Passage::Untried, Passage::Open, Passage::Proxy);
        let expected = [
            ("192.0.2.1:51860", tried(open, no)),
            ("192.0.2.1:443", tried(no, open)),
            ("192.0.2.2:443", tried(open, open)),
            ("192.0.2.1:443", tried(no, proxy)),
            ("192.0.2.2:443", tried(proxy, proxy)),
            ("192.0.2.1:51860", tried(proxy, no)),
        ];
        assert_eq!(shown, expected.map(|(at, shown)| (at.to_owned(), shown)));
    }
}
