//! Homes: the super peers that this node keeps a tunnel with.
//!
//! Owns: which super peers are known, which are chosen, and what happens when one comes or goes. Every node has homes,
//! a super peer too, as soon as it knows another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Event, Node, Output, Persist};
use crate::document::{CandidateKind, Contact, Network, Place, Roles, Verified};
use crate::id::{NodeId, Subject};
use crate::limits::{HOMES, KNOWN_SUPER_PEERS};
use crate::locator::{Channel, Locator};
use crate::peer::Peer;
use crate::port::Command;
use crate::ranking::{Load, Standing, neighbourhood, place};
use crate::timing::{Instant, Now};
use crate::wire::control::Message;

/// The choice is looked at this often.
const REVIEW: Duration = Duration::from_secs(5);
/// A chosen super peer that has been silent for this long gives way to one not tried lately.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for one that was up, while another is: that one is gone, and not our own line. Time for a session anew over UDP,
/// and over TCP if that has just been blocked.
const GONE: Duration = Duration::from_secs(5);
/// Channels at relays are renewed this often; they live five times as long.
const RENEW_CHANNELS: Duration = Duration::from_secs(60);
/// Homes are left for better ones once they have been up this long; and super peers are measured that often at first.
const SETTLED: Duration = Duration::from_secs(30);
/// Super peers measured soon after the start: with the two homes enough to find a near one among fifty.
const FIRST_AUDITIONS: usize = 6;
/// Later one is measured this often: a handshake in ten minutes.
const AUDITION: Duration = Duration::from_secs(600);
/// Super peers whose costs differ by less are equally good.
const EQUAL: Duration = Duration::from_millis(10);
/// A second home in another network may cost this much more.
const ELSEWHERE: Duration = Duration::from_millis(100);
/// A super peer that did not answer has its turn again after this long.
const FORGIVE: Duration = Duration::from_secs(600);
/// Homes are asked for other super peers this often.
const ASK_FOR_OTHERS: Duration = Duration::from_secs(600);

/// How a chosen super peer does.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    up: bool,
    /// Whether it was up before.
    fell: bool,
    /// Up or down since.
    since: Instant,
}

impl Chosen {
    const fn new(now: Instant) -> Self {
        Self { up: false, fell: false, since: now }
    }
}

#[derive(Debug)]
pub(super) struct Homes {
    me: NodeId,
    known: BTreeMap<NodeId, Verified<Place>>,
    standings: BTreeMap<NodeId, Standing>,
    /// Who is being measured though it is no home.
    audition: Option<NodeId>,
    next_audition: Instant,
    auditions: usize,
    chosen: BTreeMap<NodeId, Chosen>,
    /// When a super peer last lost its turn.
    tried: BTreeMap<NodeId, Instant>,
    review: Instant,
    renew_channels: Instant,
    ask: Instant,
    was_up: bool,
}

impl Homes {
    pub(super) fn new(known: &[Contact], network: &Network, me: NodeId, now: Now) -> Self {
        let checked = known.iter().filter_map(|contact| contact.verify_stale(network, now.unix).ok());
        let known = checked.filter(|place| place.passport.node != me && is_super_peer(place));
        Self {
            me,
            standings: BTreeMap::new(),
            audition: None,
            next_audition: now.instant + SETTLED,
            auditions: 0,
            known: known.map(|place| (place.passport.node, place)).collect(),
            chosen: BTreeMap::new(),
            tried: BTreeMap::new(),
            review: now.instant,
            renew_channels: now.instant + RENEW_CHANNELS,
            ask: now.instant + ASK_FOR_OTHERS,
            was_up: false,
        }
    }

    pub(super) fn place(&self, node: &NodeId) -> Option<&Verified<Place>> {
        self.known.get(node)
    }

    /// Homes that answer.
    pub(super) fn up(&self) -> usize {
        self.chosen.values().filter(|home| home.up).count()
    }

    /// Homes that a question can be put to; while none is up, the first that will be, so that whoever asks early waits
    /// for it.
    pub(super) fn askable(&self) -> usize {
        if self.known.is_empty() { 0 } else { self.up().max(1) }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.chosen.iter().filter(|(_, home)| home.up).map(|(node, _)| *node)
    }

    pub(super) fn chosen(&self) -> impl Iterator<Item = (&Verified<Place>, bool)> {
        self.chosen.iter().filter_map(|(node, home)| Some((self.known.get(node)?, home.up)))
    }

    /// Whether any home was ever up.
    pub(super) const fn was_up(&self) -> bool {
        self.was_up
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Verified<Place>> {
        self.known.values()
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.review.min(self.renew_channels).min(self.ask)
    }

    /// Keep what is known of a super peer; whether it is news. One that is nowhere can't be reached: what we knew of it
    /// may still be true.
    fn learn(&mut self, place: Verified<Place>) -> bool {
        let node = place.passport.node;
        let known = self.known.get(&node).map(|known| known.whereabouts.sequence);
        if place.whereabouts.candidates.is_empty()
            || known.is_some_and(|known| known >= place.whereabouts.sequence)
            || (known.is_none() && self.known.len() >= KNOWN_SUPER_PEERS)
        {
            return false;
        }
        let moved = self
            .known
            .get(&node)
            .is_none_or(|old| old.whereabouts.candidates != place.whereabouts.candidates);
        self.known.insert(node, place);
        moved
    }

    /// What was measured of a super peer, or what it says of itself.
    pub(super) fn standing(&mut self, node: NodeId) -> Option<&mut Standing> {
        self.known.contains_key(&node).then(|| self.standings.entry(node).or_default())
    }

    /// How busy a super peer said it was; not at all if it never did.
    pub(super) fn load(&self, node: &NodeId) -> Load {
        self.standings.get(node).map(|standing| standing.load).unwrap_or_default()
    }

    fn cost(&self, node: &NodeId, now: Instant) -> Duration {
        self.standings.get(node).copied().unwrap_or_default().cost(now)
    }

    /// Whether a network that may fail as a whole holds `node` and another home.
    fn crowds(&self, node: &NodeId, others: impl Fn(&NodeId) -> bool) -> bool {
        let near = |node: &NodeId| {
            let places = self.known.get(node).map(|place| place.whereabouts.candidates.iter());
            let hosts = places.into_iter().flatten().filter(|at| at.kind == CandidateKind::Host);
            hosts.map(|at| neighbourhood(at.at.ip())).collect::<BTreeSet<_>>()
        };
        let own = near(node);
        let others = self.chosen.keys().filter(|other| *other != node && others(other));
        others.into_iter().any(|other| !own.is_disjoint(&near(other)))
    }

    /// The best of those that are not chosen; those that lost their turn lately come last.
    fn best_waiting(&self, now: Instant) -> Option<NodeId> {
        let waiting = self.known.keys().filter(|node| !self.chosen.contains_key(node));
        let rank = |node: &&NodeId| {
            let tried = self.tried.get(node).filter(|at| now.since(**at) < FORGIVE);
            (tried, self.crowds(node, |_| true), self.cost(node, now), place(&self.me, node))
        };
        waiting.min_by_key(rank).copied()
    }

    /// A home gives way to one that was measured and is much better, or to one that is elsewhere while it is where the other
    /// home is. Who it is.
    fn improve(&mut self, now: Instant) -> Option<NodeId> {
        let candidate = self.audition.filter(|node| !self.chosen.contains_key(node))?;
        let standing = *self.standings.get(&candidate)?;
        standing.rtt?;
        self.audition = None;
        let settled = self.chosen.iter().all(|(_, home)| home.up && now.since(home.since) >= SETTLED);
        let coarse = |node: &NodeId| self.cost(node, now).as_millis() / (2 * EQUAL.as_millis());
        let worst = self.chosen.keys().max_by_key(|node| (coarse(node), place(&self.me, node))).copied()?;
        let current = self.standings.get(&worst).copied().unwrap_or_default();
        let crowded = self.crowds(&worst, |_| true);
        let would_crowd = self.crowds(&candidate, |other| *other != worst);
        let spreads = crowded && !would_crowd && standing.cost(now) < current.cost(now) + ELSEWHERE;
        let better = standing.beats(&current, now) && (crowded || !would_crowd);
        // At first equals are sorted out, so that those who began with the same few super peers part.
        let (near, far) = (standing.cost(now), current.cost(now));
        let turn = place(&self.me, &candidate) < place(&self.me, &worst) && near < far + EQUAL;
        let better = better || (self.auditions <= FIRST_AUDITIONS && turn && (crowded || !would_crowd));
        (settled && self.chosen.len() == HOMES && (spreads || better)).then(|| {
            self.chosen.remove(&worst);
            self.chosen.insert(candidate, Chosen::new(now));
            candidate
        })
    }

    /// Whom to measure next, if it is time: a few soon after the start, then one now and then.
    fn next_audition(&mut self, now: Instant) -> Option<NodeId> {
        if now < self.next_audition || self.up() < HOMES || self.known.len() <= HOMES {
            return None;
        }
        self.auditions += 1;
        self.next_audition = now + if self.auditions < FIRST_AUDITIONS { SETTLED } else { AUDITION };
        let waiting = self.known.keys().filter(|node| !self.chosen.contains_key(node));
        let rank = |node: &&NodeId| {
            let measured = self.standings.get(node).is_some_and(|standing| standing.rtt.is_some());
            let cost = if measured { self.cost(node, now) } else { Duration::ZERO };
            (measured, cost, place(&self.me, node))
        };
        self.audition = waiting.min_by_key(rank).copied();
        self.audition
    }

    /// Drop those that were silent for too long if others wait for a turn; fill the places.
    fn choose(&mut self, now: Instant) -> Vec<NodeId> {
        let alone = self.up() == 0;
        let tired = |home: &Chosen| {
            let patience = if home.fell && !alone { GONE } else { PATIENCE };
            !home.up && now.since(home.since) >= patience
        };
        if self.known.len() > self.chosen.len()
            && let Some(node) = self.chosen.iter().find(|(_, home)| tired(home)).map(|(node, _)| *node)
        {
            self.chosen.remove(&node);
            self.tried.insert(node, now);
        }
        let mut fresh = Vec::new();
        while self.chosen.len() < HOMES {
            let Some(node) = self.best_waiting(now) else { break };
            self.chosen.insert(node, Chosen::new(now));
            fresh.push(node);
        }
        fresh
    }

    /// At the latest when one that is gone is to be replaced.
    fn next_review(&self, now: Instant) -> Instant {
        let gone = self.chosen.values().filter(|home| home.fell).map(|home| home.since + GONE);
        gone.filter(|at| *at > now).min().map_or(now + REVIEW, |at| at.min(now + REVIEW))
    }

    fn set_up(&mut self, node: NodeId, up: bool, now: Instant) -> bool {
        let Some(home) = self.chosen.get_mut(&node).filter(|home| home.up != up) else { return false };
        let fell = home.up && !up;
        *home = Chosen { up, fell, since: now };
        self.was_up |= up;
        if fell && let Some(standing) = self.standing(node) {
            standing.failed(now);
        }
        true
    }
}

fn is_super_peer(place: &Place) -> bool {
    place.passport.roles.includes(Roles::SUPER_PEER)
}

impl Node {
    pub(super) fn on_homes_timeout(&mut self) {
        let now = self.now.instant;
        if self.homes.review <= now {
            self.homes.review = self.homes.next_review(now);
            let dropped: Vec<NodeId> = self.peers.values().filter(|p| p.is_home).map(Peer::id).collect();
            self.measure_super_peers();
            self.survey_if_udp_changed();
            let mut fresh: Vec<NodeId> = self.homes.improve(now).into_iter().collect();
            fresh.extend(self.homes.choose(now));
            for node in &fresh {
                self.connect(*node);
            }
            for node in dropped {
                let chosen = self.homes.chosen.contains_key(&node);
                let Some(peer) = self.peer(node) else { continue };
                peer.is_home = chosen;
                if !chosen && peer.is_forgotten(now) {
                    self.remove_peer(node);
                }
            }
            let homes: Vec<NodeId> = self.homes.chosen.keys().copied().collect();
            for node in homes {
                if let Some(peer) = self.peer(node) {
                    peer.is_home = true;
                }
            }
            for node in fresh {
                self.adopt(node);
            }
        }
        if self.homes.renew_channels <= now {
            self.homes.renew_channels = now + RENEW_CHANNELS;
            let homes: Vec<NodeId> = self.homes.ids().collect();
            for home in homes {
                self.open_channels(home, false);
            }
        }
        if self.homes.ask <= now {
            self.homes.ask = now + ASK_FOR_OTHERS;
            let homes: Vec<NodeId> = self.homes.ids().collect();
            for home in homes {
                self.send(home, &Message::SuperPeers);
            }
        }
    }

    /// Note the round trips to super peers that we have a tunnel with, and get one with somebody else's if it is time.
    fn measure_super_peers(&mut self) {
        let now = self.now.instant;
        let measured: Vec<(NodeId, Duration)> = self
            .peers
            .values()
            .filter(|peer| peer.is_super_peer() && peer.has_session())
            .filter_map(|peer| Some((peer.id(), peer.paths.selected()?.rtt()?)))
            .collect();
        for (node, rtt) in measured {
            if let Some(standing) = self.homes.standing(node) {
                standing.rtt = Some(rtt);
            }
        }
        if let Some(node) = self.homes.next_audition(now) {
            self.connect(node);
            self.send(node, &Message::SuperPeers);
        }
    }

    /// A super peer says how busy it is.
    pub(super) fn on_load(&mut self, from: NodeId, load: Load) {
        if let Some(standing) = self.homes.standing(from) {
            standing.load = load;
        }
    }

    /// A new home with which a session stands already, for another reason: it is up, and its path is kept from here on.
    fn adopt(&mut self, node: NodeId) {
        if self.peers.get(&node).is_some_and(|peer| peer.path().is_some() && peer.has_session()) {
            self.on_session(node);
            self.on_paths_timeout(node);
        }
    }

    /// A session was made anew before anybody missed the old one: if the other side has just begun, it knows nothing of
    /// us.
    pub(super) fn on_session_again(&mut self, node: NodeId) {
        if self.homes.ids().any(|home| home == node) {
            self.presence.homes_changed(self.now.instant);
            self.open_channels(node, true);
        }
    }

    /// A session with somebody stands for the first time, or again.
    pub(super) fn on_session(&mut self, node: NodeId) {
        if !self.homes.set_up(node, true, self.now.instant) {
            if self.peers.get(&node).is_some_and(Peer::is_super_peer) {
                self.redial_through(node);
                if self.homes.audition == Some(node) {
                    self.send(node, &Message::SuperPeers);
                }
            }
            return;
        }
        // Homes are ranked by it.
        if let Some(peer) = self.peer(node) {
            peer.paths.ask_twice();
        }
        let name = self.peers.get(&node).map(|peer| peer.name().to_owned()).unwrap_or_default();
        self.event(Event::HomeUp { name });
        self.survey_with_new_home();
        self.presence.homes_changed(self.now.instant);
        self.send(node, &Message::SuperPeers);
        self.open_channels(node, true);
        self.redial_through(node);
        self.resolver.ask_again();
    }

    /// A session is gone.
    pub(super) fn on_session_lost(&mut self, node: NodeId) {
        self.presence.unobserve(node);
        if !self.homes.set_up(node, false, self.now.instant) {
            return;
        }
        self.homes.review = self.homes.review.min(self.now.instant + GONE);
        let Some(peer) = self.peers.get(&node) else { return };
        let name = peer.name().to_owned();
        self.event(Event::HomeDown { name });
        self.presence.homes_changed(self.now.instant);
    }

    /// Say to a relay which channels we have there. `all`: it may have forgotten them; else only those in use.
    fn open_channels(&mut self, home: NodeId, all: bool) {
        let Some(relay) = self.peers.get(&home).and_then(Peer::direct_remote) else { return };
        let now = self.now.instant;
        let channels: Vec<(Channel, NodeId)> = self
            .peers
            .values()
            .filter(|peer| all || peer.is_kept(now))
            .flat_map(|peer| peer.paths.iter().map(|path| (path.locator, peer.id())))
            .filter_map(|(locator, with)| match locator {
                Locator::Relayed { relay: at, channel } if at == relay => Some((channel, with)),
                Locator::Relayed { .. } | Locator::Direct(_) => None,
            })
            .collect();
        for (channel, with) in channels {
            self.send(home, &Message::Channel { channel, with });
        }
    }

    /// Ask the homes; for a subject that one of them may know better than the table.
    pub(super) fn ask_homes(&mut self, id: u32, subject: &Subject) {
        let homes: Vec<NodeId> = self.homes.ids().collect();
        for home in homes {
            self.send(home, &Message::Lookup { id, subject: subject.clone() });
        }
    }

    /// Somebody told us of a super peer.
    pub(super) fn on_super_peer(&mut self, place: Verified<Place>) {
        if place.passport.node == self.me.passport.node || !is_super_peer(&place) {
            return;
        }
        self.resolver.learn_place(&place, self.now);
        let contact = place.contact.clone();
        if self.homes.learn(place) {
            self.pass_on(&contact);
            let contacts = self.homes.known().map(|place| place.contact.clone()).collect();
            self.outputs.push_back(Output::Persist(Persist::SuperPeers(contacts)));
            self.announce_neighbours();
            self.survey_with_new_home();
            self.homes.review = self.homes.review.min(self.now.instant);
        }
    }

    /// Those whose home we are hear of a new super peer at once: it may be their second home.
    pub(super) fn pass_on(&mut self, contact: &Contact) {
        if !self.is_super_peer() {
            return;
        }
        let near: Vec<NodeId> =
            self.peers.values().filter(|peer| peer.path().is_some()).map(Peer::id).collect();
        for node in near {
            self.send(node, &Message::SuperPeer { contact: contact.clone() });
        }
    }

    /// Tell the directory which nodes serve it.
    pub(super) fn announce_neighbours(&mut self) {
        let neighbours: Vec<_> = self
            .homes
            .known()
            .filter(|place| !place.whereabouts.directory.is_empty())
            .map(|place| (place.passport.node, place.whereabouts.directory.clone()))
            .collect();
        if !neighbours.is_empty() {
            self.outputs.push_back(Output::Command(Command::Neighbours(neighbours)));
        }
    }
}
