//! `frejus peers`.

use super::arguments::Output;
use super::screen;
use crate::client::Client;
use crate::failure::Failure;
use crate::report::{Cipher, Path, PathKind, Peer, Peers, Transport};

pub(super) fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let peers = client.peers()?;
    if output.json {
        return screen::print_json(&peers);
    }
    if peers.peers.is_empty() {
        screen::hint("no tunnel yet: it is made with the first packet, such as by frejus ping PEER");
    }
    screen::print(table(&peers))
}

fn table(peers: &Peers) -> String {
    let heading =
        ["NAME", "ADDRESS", "PATH", "RTT", "LOSS", "MTU", "RECEIVED", "SENT", "HANDSHAKE", "CIPHER"];
    screen::columns(&heading, &[3, 4, 5, 6, 7, 8], peers.peers.iter().map(row).collect())
}

fn row(peer: &Peer) -> Vec<String> {
    let path = peer.path.as_ref();
    vec![
        peer.name.clone(),
        screen::or_dash(peer.addresses.first().map(ToString::to_string)),
        screen::or_dash(path.map(way)),
        screen::or_dash(path.and_then(|path| path.rtt_ms).map(screen::milliseconds)),
        screen::or_dash(path.map(|path| format!("{:.0} %", path.loss * 100.0))),
        screen::or_dash(path.map(|path| path.mtu.to_string())),
        screen::bytes(peer.rx_bytes),
        screen::bytes(peer.tx_bytes),
        screen::or_dash(peer.handshake_age_s.map(screen::age)),
        screen::or_dash(peer.cipher.map(|cipher| protection(cipher, peer.post_quantum))),
    ]
}

/// `aes-256-gcm, pq`: the second word if who keeps the packets will not read them with a quantum computer.
fn protection(cipher: Cipher, post_quantum: Option<bool>) -> String {
    if post_quantum == Some(true) { format!("{cipher}, pq") } else { cipher.to_string() }
}

/// `direct 203.0.113.11:40211, punched` or `relay via s`; what is no UDP is said.
pub(super) fn way(path: &Path) -> String {
    match path.kind {
        PathKind::Direct => {
            let method = path.method.map(|method| format!(", {method}")).unwrap_or_default();
            format!("{} {}{method}{}", path.kind, path.remote, over(path))
        }
        PathKind::Relay => {
            let relay = path.via.clone().unwrap_or_else(|| path.remote.to_string());
            format!("{} via {relay}{}", path.kind, over(path))
        }
    }
}

/// `, tls` where datagrams travel in a connection.
fn over(path: &Path) -> String {
    if path.transport == Transport::Udp { String::new() } else { format!(", {}", path.transport) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_line_for_each_peer() {
        assert_eq!(
            table(&samples::peers()),
            "\
NAME     ADDRESS      PATH                                    RTT  LOSS   MTU  RECEIVED     SENT  HANDSHAKE  CIPHER
b        10.93.4.7    direct 203.0.113.11:40211, punched  12.3 ms   0 %  1420   1.5 KiB  5.0 MiB       42 s  aes-256-gcm, pq
printer  10.93.4.200  relay via s, tls                          -  25 %  1420       0 B    148 B          -  chacha20-poly1305
new      -            -                                         -     -     -       0 B      0 B          -  -
"
        );
    }
}
