//! The ways to a peer, as time goes by: probed, measured, chosen, doubted, lost, and looked for anew.
//!
//! Owns: what follows when a deadline of [`crate::paths`] or [`crate::punch`] has come. What a message brings is
//! `session`'s.

use std::sync::atomic::Ordering;

use rand_core::Rng;

use super::session::HEADERS;
use super::{Event, Method, Node};
use crate::document::Roles;
use crate::id::NodeId;
use crate::locator::{Endpoint, Locator};
use crate::paths;
use crate::peer::{Dial, Peer};
use crate::punch;
use crate::tunnel::Content;
use crate::wire::control::Message;

impl Node {
    /// Send a probe that makes an inner packet of `size` bytes, and beside it a small one, unless one is under way: only if
    /// that arrives is the size to blame.
    fn measure(&mut self, node: NodeId, way: Locator, size: u16) {
        let token = self.rng.next_u64();
        let payload = Message::Probe { token }.padded(usize::from(size).saturating_sub(HEADERS));
        self.send_payload(node, (way, None), Content::Control, &payload);
        let Some(peer) = self.peer(node) else { return };
        peer.paths.measuring(way, token, size);
        if peer.paths.unasked() == Some(way) {
            self.probe(node, way);
        }
    }

    /// Choose the path again, and let everybody know if it changed.
    pub(super) fn reselect(&mut self, node: NodeId) {
        let now = self.now.instant;
        let super_peers = self.is_super_peer();
        let Some(peer) = self.peer(node) else { return };
        let Some(path) = peer.paths.select(now) else { return };
        let has_relay = !super_peers && !peer.member.passport.roles.includes(Roles::SUPER_PEER);
        if path.is_direct() {
            peer.punch.stop();
            peer.guess.stop();
        } else if peer.is_active(now) && has_relay && !peer.punch.is_running() {
            peer.punch.start(now);
        }
        let name = peer.name().to_owned();
        self.close_idle_doors(node);
        if path.is_direct() {
            self.stop_crossing(node, true);
        }
        self.on_path_for_streams(node, path);
        self.unlisted.insert(node);
        self.event(Event::Path { name, direct: path.is_direct(), remote: path.remote() });
    }

    pub(super) fn on_paths_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        let had_path = self.peers.get(&node).is_some_and(|peer| peer.path().is_some());
        // A path that takes over may be due for a probe itself.
        while let Some(peer) = self.peer(node) {
            let (active, kept) = (peer.is_active(now), peer.is_kept(now));
            if peer.paths.poll_timeout(active, kept).is_none_or(|at| at > now) {
                break;
            }
            for due in peer.paths.handle_timeout(active, kept, now) {
                match due {
                    paths::Due::Probe(way) => _ = self.probe(node, way),
                    paths::Due::Measure(way, size) => self.measure(node, way, size),
                    paths::Due::Doubted(way) => self.on_path_doubted(way),
                    paths::Due::Died(way) => {
                        self.on_stream_path_died(way);
                        self.on_path_doubted(way);
                    }
                }
            }
            self.reselect(node);
        }
        if had_path && self.peers.get(&node).is_some_and(|peer| peer.path().is_none()) {
            self.on_path_lost(node);
        }
    }

    /// No path is left, or no session: begin again if anybody cares.
    pub(super) fn on_path_lost(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        peer.paths.clear();
        peer.punch.stop();
        self.stop_guessing(node);
        self.stop_crossing(node, false);
        let Some(peer) = self.peer(node) else { return };
        peer.counters.announced.store(false, Ordering::Relaxed);
        let wanted = peer.is_home || peer.is_active(now);
        let relay = peer.listed.filter(|_| peer.is_super_peer());
        self.unlisted.insert(node);
        if let Some(relay) = relay {
            self.on_relay_lost(relay);
        }
        self.on_session_lost(node);
        if wanted && let Some(peer) = self.peer(node) {
            peer.dial = Some(Dial::new(now));
            self.attempt(node);
        }
    }

    pub(super) fn on_punch_timeout(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        for due in peer.punch.handle_timeout(now) {
            match due {
                punch::Due::Exchange => {
                    self.seek_stream(node);
                    self.tell_candidates(node, true);
                }
                punch::Due::Probe(at) => {
                    let method = self.peers.get(&node).map_or(Method::Punched, |peer| peer.punch.method(&at));
                    self.try_at(node, at.into(), method);
                }
            }
        }
    }

    /// Look for a direct path, unless that makes no sense.
    pub(super) fn search(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if !peer.punch.is_running() {
            peer.punch.start(now);
        }
    }

    /// A path that needs a socket of its own gives way to one that does not, if there is such a one.
    pub(super) fn move_back(&mut self, node: NodeId) {
        let now = self.now.instant;
        let Some(peer) = self.peer(node) else { return };
        if peer.paths.retire(now) {
            return self.close_idle_doors(node);
        }
        if !peer.punch.is_running()
            && let Some(since) = peer.paths.on_own_socket(now)
            && peer.move_back.is_due(since, now)
        {
            peer.punch.try_once(now);
            self.tell_candidates(node, true);
        }
    }

    /// A direct path that does not answer may mean that our own address changed: the homes can tell, and what they relay
    /// to us finds us again.
    fn on_path_doubted(&mut self, way: Locator) {
        if !way.is_direct() {
            return;
        }
        let homes: Vec<NodeId> = self.homes.ids().collect();
        for home in homes {
            if let Some(path) = self.peers.get(&home).and_then(|peer| peer.paths.unasked()) {
                self.probe(home, path);
            }
        }
    }

    /// A super peer does not answer: what goes through it is asked at once whether it arrives.
    fn on_relay_lost(&mut self, relay: Endpoint) {
        let now = self.now.instant;
        let through = |way: &Locator| way.endpoint() == relay;
        let users = self.peers.values().filter(|peer| peer.paths.relays().any(|way| through(&way)));
        let users: Vec<NodeId> = users.map(Peer::id).collect();
        for user in users {
            if let Some(peer) = self.peer(user) {
                peer.paths.distrust_relay(relay, now);
                peer.standby.hurry();
            }
        }
    }
}
