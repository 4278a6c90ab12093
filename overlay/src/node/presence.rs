//! Presence: where this node is, and that others know it.
//!
//! Owns: the node's own candidates, its signed whereabouts, and their publication: at every home, which puts them into
//! the directory, or, for a super peer, in the directory itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Event, Node, Output, Persist};
use crate::document::{Candidate, CandidateKind, Contact, Credential, Roles, Signed, Whereabouts};
use crate::id::{NodeId, RecordKey};
use crate::limits::{LEASE_REFRESH, WHEREABOUTS_LIFE, WHEREABOUTS_REFRESH};
use crate::locator::is_public;
use crate::mapping::Mapped;
use crate::nat::observers::{Observation, believed};
use crate::peer::{Dial, Peer};
use crate::port::{Command, CommandId, Reply};
use crate::record::{self, Record};
use crate::timing::Instant;
use crate::wire::control::Message;

/// Changes come in swarms (an interface goes, another comes): sign once for all of them.
const SETTLE: Duration = Duration::from_millis(20);
/// A publication that a home has not confirmed is repeated.
const REPEAT: Duration = Duration::from_millis(700);
/// A publication that the directory did not take is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// Look whether the passport wants renewal this often, or sixteen times in its life if that is more often: five of them
/// fall into its last third, so that a few lost messages cost nothing.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// Login servers asked at once; each answers for the nodes that it enrolled.
const LOGIN_SERVERS: usize = 4;
/// Publications remembered until the directory is done with them: one round of everything takes five.
const PUBLISHING: usize = 64;
/// Our own commands to the directory have this bit; the resolver's are below 2³³.
pub(super) const OWN_COMMAND: CommandId = 1 << 40;

#[derive(Debug)]
pub(super) struct Presence {
    advertise: Vec<SocketAddr>,
    directory_port: u16,
    local: Vec<SocketAddr>,
    /// The port that our router opened for us.
    mapped: Option<Mapped>,
    /// Our router's address on its far side, if that is not public.
    router: Option<IpAddr>,
    /// Where each super peer, which is there, saw us.
    seen: BTreeMap<NodeId, Observation>,
    /// What others saw of other sockets of ours: their word on our address.
    surveyed: Vec<Observation>,
    contact: Option<Contact>,
    sequence: u64,
    candidates: Vec<Candidate>,
    /// What peers were last told beside them.
    told: Option<Candidate>,
    /// Homes that keep the current whereabouts.
    confirmed: BTreeSet<NodeId>,
    issue_at: Instant,
    repeat_at: Option<Instant>,
    lease_at: Instant,
    renew_at: Instant,
    next_command: CommandId,
    /// Commands to the directory under way: whether they publish the passport.
    publishing: BTreeMap<CommandId, bool>,
    pub(super) lease_published: bool,
    pub(super) whereabouts_published: bool,
    pub(super) directory_server: bool,
    pub(super) directory_peers: usize,
    announced_ready: bool,
}

impl Presence {
    pub(super) const fn new(advertise: Vec<SocketAddr>, directory_port: u16, now: Instant) -> Self {
        Self {
            advertise,
            directory_port,
            local: Vec::new(),
            mapped: None,
            router: None,
            seen: BTreeMap::new(),
            surveyed: Vec::new(),
            contact: None,
            sequence: 0,
            candidates: Vec::new(),
            told: None,
            confirmed: BTreeSet::new(),
            issue_at: now,
            repeat_at: None,
            lease_at: now,
            renew_at: now,
            next_command: OWN_COMMAND,
            publishing: BTreeMap::new(),
            lease_published: false,
            whereabouts_published: false,
            directory_server: false,
            directory_peers: 0,
            announced_ready: false,
        }
    }

    /// Our contact as last signed.
    pub(super) fn contact(&self) -> &Contact {
        self.contact.as_ref().expect("signed when the node was made")
    }

    /// Where others may try us.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.candidates.clone()
    }

    /// Addresses of this machine that strangers may be told of: public ones, and those that the administrator advertises.
    pub(super) fn told_to_strangers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let advertised = |ip: IpAddr| self.advertise.iter().any(|at| at.ip() == ip);
        self.local.iter().map(|at| at.ip().to_canonical()).filter(move |ip| is_public(*ip) || advertised(*ip))
    }

    /// Whether an interface of ours has a public address.
    pub(super) fn is_open(&self) -> bool {
        self.advertise.iter().chain(&self.local).any(|at| is_public(at.ip()))
    }

    /// Whether others see us at this address, which is a router's.
    pub(super) fn is_outer(&self, ip: IpAddr) -> bool {
        let seen =
            |candidate: &Candidate| candidate.kind == CandidateKind::Reflexive && candidate.at.ip() == ip;
        self.candidates.iter().any(seen) && !self.local.iter().any(|at| at.ip() == ip)
    }

    /// Whether we know of no place where others could try us.
    pub(super) const fn is_nowhere(&self) -> bool {
        self.candidates.is_empty()
    }

    /// What was just signed is published at the next opportunity.
    pub(super) const fn publish_soon(&mut self, now: Instant) {
        self.issue_at = now;
    }

    /// Whether these addresses are news.
    pub(super) fn set_local(&mut self, mut local: Vec<SocketAddr>, now: Instant) -> bool {
        local.sort_unstable();
        let changed = self.local != local;
        if changed {
            self.local = local;
            // They saw us elsewhere.
            self.surveyed.clear();
            self.change(now);
        }
        changed
    }

    /// Our router opened a port for us, or none.
    pub(super) fn set_mapped(&mut self, mapped: Option<Mapped>, now: Instant) {
        if self.mapped != mapped {
            self.mapped = mapped;
            self.change(now);
        }
    }

    /// Our router says where it is, or does not.
    pub(super) fn set_router(&mut self, at: Option<IpAddr>, now: Instant) {
        if self.router != at {
            self.router = at;
            self.change(now);
        }
    }

    /// Our place in the realm between our router and the Internet: the port that is open there, or the one that a
    /// router which keeps ports gives us.
    pub(super) fn middle(&self) -> Option<Candidate> {
        let open = self.mapped.filter(|mapped| !mapped.is_public());
        let own = self.local.iter().find(|at| at.is_ipv4()).map(SocketAddr::port);
        let opened = open.map(|mapped| Candidate { kind: CandidateKind::Mapped, at: mapped.at });
        let kept = || {
            let at = SocketAddr::new(self.router?, own?);
            Some(Candidate { kind: CandidateKind::Reflexive, at })
        };
        opened.or_else(kept)
    }

    /// Whether those in that realm can send to us through a port of our router.
    pub(super) fn is_mapped_inside(&self) -> bool {
        self.mapped.is_some_and(|mapped| !mapped.is_public())
    }

    /// The port that our router opened for us.
    pub(super) const fn mapped(&self) -> Option<Mapped> {
        self.mapped
    }

    /// Whether anybody can send to us through a port of our router.
    pub(super) fn is_mapped(&self) -> bool {
        self.mapped.is_some_and(|mapped| mapped.is_public())
    }

    /// A super peer saw us there; whether it had seen us elsewhere.
    pub(super) fn observe(&mut self, by: NodeId, seen: Observation, now: Instant) -> bool {
        let before = self.seen.insert(by, seen);
        if before != Some(seen) {
            self.change(now);
        }
        before.is_some_and(|before| before.seen != seen.seen)
    }

    /// A survey heard this of our address.
    pub(super) fn surveyed(&mut self, observations: Vec<Observation>, now: Instant) {
        let before = self.observed();
        self.surveyed = observations;
        if before != self.observed() {
            self.change(now);
        }
    }

    /// Where super peers see the socket that we listen on, as far as they are believed.
    pub(super) fn observed(&self) -> Vec<SocketAddr> {
        let all: Vec<Observation> = self.seen.values().chain(&self.surveyed).copied().collect();
        let mut observed: Vec<SocketAddr> = believed(&all).into_iter().map(|(at, _)| at).collect();
        observed.retain(|at| self.seen.values().any(|seen| seen.seen == *at));
        observed
    }

    /// Our addresses on local interfaces.
    pub(super) fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// A super peer does not see us any more.
    pub(super) fn unobserve(&mut self, by: NodeId) {
        self.seen.remove(&by);
    }

    pub(super) fn homes_changed(&mut self, now: Instant) {
        self.change(now);
    }

    fn change(&mut self, now: Instant) {
        self.issue_at = self.issue_at.min(now + SETTLE);
    }

    pub(super) fn handle_reply(&mut self, reply: &Reply, now: Instant) {
        match reply {
            Reply::State { server, peers } => {
                (self.directory_server, self.directory_peers) = (*server, *peers)
            }
            Reply::Finished { id, ok } => {
                if let Some(lease) = self.publishing.remove(id) {
                    let flag =
                        if lease { &mut self.lease_published } else { &mut self.whereabouts_published };
                    *flag = *flag || *ok;
                    if !*ok {
                        let again = if lease { &mut self.lease_at } else { &mut self.issue_at };
                        *again = (*again).min(now + RETRY);
                    }
                }
            }
            Reply::Found { .. } => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.repeat_at.into_iter().fold(self.issue_at.min(self.lease_at).min(self.renew_at), Instant::min)
    }

    fn command_id(&mut self, lease: bool) -> CommandId {
        self.next_command += 1;
        if self.publishing.len() >= PUBLISHING {
            self.publishing.pop_first();
        }
        self.publishing.insert(self.next_command, lease);
        self.next_command
    }

    /// Publish so many times without an answer; how many are remembered.
    #[cfg(test)]
    pub(super) fn publish_unanswered(&mut self, times: usize) -> usize {
        for _ in 0..times {
            self.command_id(false);
        }
        self.publishing.len()
    }

    /// Candidates in the order in which they are worth trying, as many as fit.
    fn gather(&self, relays: &[SocketAddr]) -> Vec<Candidate> {
        let of = |kind| move |at: &SocketAddr| Candidate { kind, at: *at };
        let (public, private): (Vec<SocketAddr>, Vec<SocketAddr>) =
            self.local.iter().partition(|at| is_public(at.ip()));
        let mapped = self.mapped.map(|mapped| mapped.at);
        let told = |at: &SocketAddr| self.local.contains(at) || mapped.as_ref() == Some(at);
        let seen: BTreeSet<SocketAddr> = self.observed().into_iter().filter(|at| !told(at)).collect();
        let mut candidates: Vec<Candidate> = Vec::new();
        let all = (self.advertise.iter().map(of(CandidateKind::Host)))
            .chain(public.iter().map(of(CandidateKind::Host)))
            .chain(mapped.iter().filter(|at| is_public(at.ip())).map(of(CandidateKind::Mapped)))
            .chain(seen.iter().take(3).map(of(CandidateKind::Reflexive)))
            .chain(relays.iter().map(of(CandidateKind::Relay)))
            .chain(private.iter().map(of(CandidateKind::Host)));
        for candidate in all {
            if candidates.len() < Whereabouts::MAX_CANDIDATES
                && !candidates.iter().any(|other| other.at == candidate.at && other.kind == candidate.kind)
            {
                candidates.push(candidate);
            }
        }
        candidates
    }

    /// Where the directory is served: next to every public candidate.
    fn directory(&self) -> Vec<SocketAddr> {
        let hosts = self.candidates.iter().filter(|candidate| candidate.kind == CandidateKind::Host);
        let port = self.directory_port;
        let (public, private): (Vec<SocketAddr>, Vec<SocketAddr>) = hosts
            .map(|candidate| SocketAddr::new(candidate.at.ip(), port))
            .partition(|at| is_public(at.ip()));
        let chosen = if public.is_empty() { private } else { public };
        chosen.into_iter().take(Whereabouts::MAX_HOMES).collect()
    }
}

impl Node {
    /// Sign anew where we are.
    pub(super) fn issue_whereabouts(&mut self) {
        let (now, unix) = (self.now.instant, self.now.unix);
        let homes: Vec<NodeId> = self.homes.ids().take(Whereabouts::MAX_HOMES).collect();
        let homes = if self.is_super_peer() { Vec::new() } else { homes };
        let relays: Vec<SocketAddr> =
            homes.iter().filter_map(|home| Some(self.peers.get(home)?.direct_remote()?.at)).collect();
        let presence = &mut self.presence;
        let candidates = presence.gather(&relays);
        let middle = presence.middle();
        let moved = presence.candidates != candidates || presence.told != middle;
        (presence.candidates, presence.told) = (candidates, middle);
        presence.sequence = (presence.sequence + 1).max(unix.0 * 1000);
        let whereabouts = Whereabouts {
            node: self.me.passport.node,
            sequence: presence.sequence,
            tunnel_key: self.crypto.public(),
            candidates: presence.candidates.clone(),
            homes,
            directory: if presence.directory_port == 0 { Vec::new() } else { presence.directory() },
            nat: self.survey.class(),
            issued: unix,
            expires: unix + WHEREABOUTS_LIFE,
        };
        let whereabouts = Signed::new(&whereabouts, &self.network.id, &self.key);
        let contact = Contact { credential: self.me.credential.clone(), whereabouts };
        self.presence.contact = Some(contact.clone());
        self.presence.issue_at = now + WHEREABOUTS_REFRESH;
        self.presence.confirmed.clear();
        if let Ok(place) = contact.verify(&self.network, unix) {
            self.resolver.learn_place(&place, self.now);
        }
        if moved {
            self.search_again();
            if !self.presence.is_nowhere() {
                // Those whose home we are find us by this after their next start.
                self.pass_on(&contact);
            }
        }
    }

    /// Peers with whom we look for a direct path have old candidates of ours.
    fn search_again(&mut self) {
        let now = self.now.instant;
        let searching: Vec<NodeId> =
            self.peers.values().filter(|peer| peer.punch.is_running()).map(Peer::id).collect();
        for node in searching {
            if let Some(peer) = self.peer(node) {
                peer.punch.start(now);
            }
        }
    }

    pub(super) fn on_presence_timeout(&mut self) {
        let now = self.now.instant;
        if self.presence.renew_at <= now {
            let passport = &self.me.passport;
            let life = passport.not_after.since(passport.not_before);
            self.presence.renew_at = now + RENEWAL_CHECK.min(life / 16).max(Duration::from_secs(1));
            self.renew_if_due();
        }
        if self.presence.issue_at <= now {
            self.issue_whereabouts();
            self.publish_whereabouts();
            if self.is_super_peer() {
                self.publish_place_in_directory();
            }
        }
        if self.presence.repeat_at.is_some_and(|at| at <= now) {
            self.publish_whereabouts();
        }
        if self.presence.lease_at <= now {
            self.presence.lease_at = now + LEASE_REFRESH;
            if self.is_super_peer() {
                self.publish_lease_in_directory();
            }
        }
    }

    /// Give the whereabouts to every home that does not have them yet.
    fn publish_whereabouts(&mut self) {
        let homes: Vec<NodeId> = self.homes.ids().collect();
        let behind = homes.into_iter().filter(|home| !self.presence.confirmed.contains(home));
        let behind: Vec<NodeId> = behind.collect();
        self.presence.repeat_at = (!behind.is_empty()).then(|| self.now.instant + REPEAT);
        let contact = self.presence.contact().clone();
        for home in behind {
            self.send(home, &Message::Publish { contact: contact.clone() });
        }
    }

    /// A home keeps our whereabouts.
    pub(super) fn on_published(&mut self, by: NodeId, sequence: u64) {
        if sequence == self.presence.sequence {
            self.presence.confirmed.insert(by);
            self.presence.whereabouts_published = true;
            self.presence.lease_published = true;
        }
    }

    fn publish_place_in_directory(&mut self) {
        let id = self.presence.command_id(false);
        let key = RecordKey::whereabouts(&self.network.id, &self.me.passport.node);
        let value = Record::Whereabouts(self.presence.contact().clone()).encode();
        let command = Command::Publish { id, key, value, life: WHEREABOUTS_LIFE };
        self.outputs.push_back(Output::Command(command));
    }

    fn publish_lease_in_directory(&mut self) {
        let value = Record::Passport(self.me.credential.clone()).encode();
        let life = self.me.passport.not_after.since(self.now.unix).min(LEASE_REFRESH * 2);
        for key in record::keys(&self.network, &self.me) {
            let id = self.presence.command_id(true);
            let command = Command::Publish { id, key, value: value.clone(), life };
            self.outputs.push_back(Output::Command(command));
        }
    }

    /// Our addresses changed, or what stands between us and the others: every mapping in every NAT may be another one. The
    /// homes come first, since what they relay needs to know where we are.
    pub(super) fn on_moved(&mut self) {
        self.on_links_changed_for_streams();
        let now = self.now.instant;
        let (homes, others): (Vec<&Peer>, Vec<&Peer>) = self.peers.values().partition(|peer| peer.is_home);
        let nodes: Vec<NodeId> = homes.into_iter().chain(others).map(Peer::id).collect();
        for node in nodes {
            let Some(peer) = self.peer(node) else { continue };
            peer.on_moved(now);
            if peer.is_active(now) && !peer.is_super_peer() {
                peer.punch.start(now);
            }
            let is_stale = peer.path().is_some() && !peer.has_session();
            if is_stale {
                self.on_path_lost(node);
            } else {
                self.on_paths_timeout(node);
            }
            self.on_dial_timeout(node);
        }
    }

    /// We were away for so long that those whom we talked with until `then` may have given us up, and know nothing of our
    /// sessions any more.
    pub(super) fn on_long_absence(&mut self, then: Instant) {
        let now = self.now.instant;
        let talked =
            self.peers.values().filter(|peer| peer.is_active(then) && !peer.is_home && peer.dial.is_none());
        let talked: Vec<NodeId> = talked.map(Peer::id).collect();
        for node in talked {
            if let Some(peer) = self.peer(node) {
                peer.dial = Some(Dial::new(now));
                self.attempt(node);
            }
        }
    }

    /// Renew the passport when a third of its life is left.
    fn renew_if_due(&mut self) {
        let passport = &self.me.passport;
        let life = passport.not_after.since(passport.not_before);
        if passport.not_after.since(self.now.unix) > life / 3 {
            return;
        }
        if let Some(credential) = self.renew_own() {
            return self.on_renewed(&credential);
        }
        let servers = self.homes.known().filter(|place| place.passport.roles.includes(Roles::LOGIN));
        let servers: Vec<NodeId> = servers.map(|place| place.passport.node).take(LOGIN_SERVERS).collect();
        for server in servers {
            if !self.send(server, &Message::Renew) {
                self.connect(server);
            }
        }
    }

    /// A login server gave us a new passport.
    pub(super) fn on_renewed(&mut self, credential: &Credential) {
        let Ok(member) = credential.verify(&self.network, self.now.unix) else {
            return self.drop(crate::verdict::Drop::BadDocument);
        };
        if member.passport.node != self.me.passport.node || member.passport.serial <= self.me.passport.serial
        {
            return;
        }
        let until = member.passport.not_after;
        let moved = member.passport.address4 != self.me.passport.address4;
        self.me = member;
        self.table_stale |= moved;
        self.outputs.push_back(Output::Persist(Persist::Passport(credential.clone())));
        self.event(Event::Renewed { until });
        self.presence.issue_at = self.now.instant;
        self.presence.lease_at = self.now.instant;
    }

    /// Whether traffic can be expected to flow; told once.
    pub(super) fn is_ready(&self) -> bool {
        let connected = self.is_super_peer() || self.homes.up() > 0;
        connected && self.presence.whereabouts_published
    }

    pub(super) fn announce_ready(&mut self) {
        let ready = self.is_ready();
        if ready && !self.presence.announced_ready {
            self.presence.announced_ready = true;
            self.event(Event::Ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VICTIM: &str = "8.8.8.8:53";
    const OURS: &str = "198.51.100.7:51860";

    fn seen(observer: &str, at: &str) -> Observation {
        Observation { observer: observer.parse().unwrap(), seen: at.parse().unwrap() }
    }

    /// What we would publish when homes answered our probes so, and super peers a survey so.
    fn published(homes: &[Observation], surveyed: &[Observation]) -> Vec<String> {
        let mut presence = Presence::new(Vec::new(), 51861, Instant::default());
        presence.set_local(vec!["192.168.1.9:51860".parse().unwrap()], Instant::default());
        for (at, home) in homes.iter().enumerate() {
            presence.observe(NodeId([at as u8; 32]), *home, Instant::default());
        }
        presence.surveyed(surveyed.to_vec(), Instant::default());
        let candidates = presence.gather(&[]).into_iter();
        let reflexive = candidates.filter(|candidate| candidate.kind == CandidateKind::Reflexive);
        reflexive.map(|candidate| candidate.at.to_string()).collect()
    }

    #[test]
    fn homes_of_one_network_that_lie_alike_publish_no_victim() {
        let liars = [seen("192.88.99.1", VICTIM), seen("192.88.200.2", VICTIM)];
        let honest = seen("203.0.113.1", OURS);
        assert!(published(&liars, &[liars[0], liars[1], honest]).is_empty());
        assert_eq!(published(&[liars[0], honest], &[liars[1], seen("192.0.2.1", OURS)]), [OURS]);
    }

    #[test]
    fn two_of_different_networks_that_agree_are_published() {
        assert_eq!(published(&[seen("192.88.99.1", OURS), seen("203.0.113.1", OURS)], &[]), [OURS]);
    }

    #[test]
    fn a_victim_that_a_survey_alone_names_is_not_published() {
        let apart = [seen("192.88.99.1", VICTIM), seen("203.0.113.1", VICTIM)];
        assert!(published(&[], &apart).is_empty(), "no home sees our socket there");
    }
}
