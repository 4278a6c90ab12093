//! Ports that routers open when they are asked.
//!
//! Owns: the asking, which in the daemon is a task's. Never: what the node makes of it.

use std::net::{IpAddr, SocketAddr};

use frejus_overlay::mapping::{Mapped, MappingProtocol};

use crate::scenario::router_of;
use crate::world::World;

impl World {
    /// This host's router opens a port for it, and its node is told; where.
    pub fn open_port(&mut self, name: &str) -> SocketAddr {
        let (id, host) = (self.id(name), self.host(name));
        let (realm, inner, now) = (host.realm, host.address, host.now(self.now()));
        let router = router_of(realm).expect("a host behind a router");
        let at = self.internet.nat(router).open(inner);
        let mapped = Mapped { at, protocol: MappingProtocol::Pcp };
        self.input(id, false, |node| node.handle_mapping(Some(mapped), now));
        at
    }

    /// This host's router opens no port, and says where it is on its far side.
    pub fn router_says(&mut self, name: &str) -> IpAddr {
        let (id, host) = (self.id(name), self.host(name));
        let (realm, now) = (host.realm, host.now(self.now()));
        let router = router_of(realm).expect("a host behind a router");
        let at = IpAddr::V4(self.internet.nat(router).outer());
        self.input(id, false, |node| node.handle_router(Some(at), now));
        at
    }

    /// The router says that it has none open any more.
    pub fn lose_port(&mut self, name: &str) {
        let (id, now) = (self.id(name), self.host(name).now(self.now()));
        self.input(id, false, |node| node.handle_mapping(None, now));
    }
}
