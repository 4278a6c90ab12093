//! What a failed test tells.
//!
//! Owns: the text. Never: a change of the world.

use std::net::SocketAddr;

use super::World;
use crate::internet::HostId;

impl World {
    /// The seed, the last events, and how every node stands.
    #[must_use]
    pub fn story(&self) -> String {
        let host = |id: HostId| self.hosts[id.0].name.clone();
        let address = |at: SocketAddr| {
            let owner = self.hosts.iter().find(|host| host.address == at);
            owner.map_or_else(|| at.to_string(), |host| format!("{at} ({})", host.name))
        };
        let mut text = format!("seed {}, at {:?}\n{}", self.seed, self.now, self.trace.draw(host, address));
        for host in self.hosts.iter().take(12) {
            text += &format!("--- {} at {}, drops {:?}\n", host.name, host.address, host.drops());
            let Some(node) = &host.node else { continue };
            let status = node.status(host.now(self.now));
            let homes: Vec<_> = status.super_peers.iter().map(|s| (&s.name, s.home)).collect();
            text += &format!(
                "    ready {} degraded {} nat {:?} homes {homes:?} candidates {:?} attention {:?}\n",
                status.ready, status.degraded, status.nat, status.candidates, status.attention
            );
            for peer in node.peers(host.now(self.now)) {
                text += &format!("    {}: {:?}\n", peer.passport.name, peer.path);
            }
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
    }
}
