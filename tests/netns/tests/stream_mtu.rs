//! A line that takes 1280 bytes and a router that says nothing about it, where UDP does not pass: TLS stands all the same.

use frejus_netns::scene::{NO_UDP, ONLY_443, first_ping, founder};
use frejus_netns::traffic::DownloadSite;
use frejus_netns::{Daemon, Lab, NatClass};

/// Enrolment, traffic and `netcheck` by streams alone.
fn works(test: &str, rules: &str, transport: &str) {
    let Some(mut lab) = Lab::new(test) else { return };
    let (s, code) = founder(&mut lab);
    let host = lab.home("a", NatClass::PortRestricted);
    lab.narrow(&host, 1280);
    lab.router(&host).nft(rules);
    let a = Daemon::join(&host, &code);
    a.wait_ready();
    assert_eq!(a.home_by().as_deref(), Some(transport));
    first_ping(&a.host, &s.ipv4().to_string());
    let page = "no black hole for streams\n".repeat(40_000);
    for (server, client) in [(&s, &a), (&a, &s)] {
        let site = DownloadSite::open(&server.host, server.ipv4().into(), &page);
        assert!(site.fetch(&client.host) == page, "the page from {} is whole", server.host.name);
    }
    let found = a.json(&["netcheck"]);
    assert_eq!((&found["udp"], &found["tls443"]), (&false.into(), &true.into()), "{found}");
}

#[test]
fn without_udp() {
    works("stream_mtu", NO_UDP, "tcp");
}

#[test]
fn through_443_alone() {
    works("stream_mtu443", ONLY_443, "tls");
}
