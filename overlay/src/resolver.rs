//! Two-stage resolution: virtual address, name or node → passport → whereabouts.
//!
//! Owns: what is known about other nodes, for as long as their records say; what is known not to exist, for a few
//! seconds; and the look-ups under way, one per subject however many ask. Each look-up goes to the home super peers and
//! to the table at once; the first valid answer ends it. Never: a record that was not checked, a packet, a peer.

mod lookup;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::document::{
    Credential, FiledMember, FiledPlace, Grants, Member, Network, Place, Roles, Signed, Verified, Whereabouts,
};
use crate::id::{NodeId, Subject};
use crate::limits::{LOOKUPS, MEMBERS};
use crate::node::Source;
use crate::port::{Command, Reply};
use crate::record::Checked;
use crate::timing::{Instant, Now};

use lookup::Lookup;

/// "Nobody" is believed for this long: a node that joins just now is found soon.
const ABSENT: Duration = Duration::from_secs(5);

/// What a question meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Who and where are known.
    Yes(NodeId),
    /// A look-up is under way; [`Output::Done`] ends it.
    Soon,
    /// It was looked for a moment ago, and there is nobody.
    No,
}

/// What the resolver wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask every home super peer.
    Ask {
        /// Comes back in the answer.
        id: u32,
        /// What for.
        subject: Subject,
    },
    /// Ask the table.
    Command(Command),
    /// A look-up is over.
    Done {
        /// What was looked for.
        subject: Subject,
        /// Who it is, if anybody.
        found: Option<Found>,
    },
}

/// What a look-up found, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who.
    pub node: NodeId,
    /// Where the passport came from, and when.
    pub lease: (Source, Duration),
    /// Where the whereabouts came from, and when; `None` if nobody has any.
    pub whereabouts: Option<(Source, Duration)>,
}

/// See the module.
#[derive(Debug)]
pub struct Resolver {
    network: Network,
    members: BTreeMap<NodeId, FiledMember>,
    places: BTreeMap<NodeId, FiledPlace>,
    grants: Grants,
    /// Addresses and names; a node's ID is the key of [`Self::members`].
    subjects: BTreeMap<Subject, NodeId>,
    absent: BTreeMap<Subject, Instant>,
    lookups: BTreeMap<Subject, Lookup>,
    next_id: u32,
    outputs: VecDeque<Output>,
}

impl Resolver {
    /// Nothing known yet. `first_id` makes the IDs of two runs differ.
    #[must_use]
    pub fn new(network: Network, first_id: u32) -> Self {
        Self {
            network,
            members: BTreeMap::new(),
            places: BTreeMap::new(),
            grants: Grants::default(),
            subjects: BTreeMap::new(),
            absent: BTreeMap::new(),
            lookups: BTreeMap::new(),
            next_id: first_id,
            outputs: VecDeque::new(),
        }
    }

    /// Who and where is `subject`? `homes`: how many super peers will be asked.
    pub fn resolve(&mut self, subject: &Subject, homes: usize, now: Now) -> Known {
        if let Some(node) = self.node_of(subject, now)
            && self.is_known(subject, now)
        {
            return Known::Yes(node);
        }
        if self.lookups.contains_key(subject) {
            return Known::Soon;
        }
        if self.absent.get(subject).is_some_and(|until| now.instant < *until) || self.lookups.len() >= LOOKUPS
        {
            return Known::No;
        }
        self.absent.remove(subject);
        let member = self.node_of(subject, now);
        self.look_up(subject, member, homes, now);
        Known::Soon
    }

    /// Look for a newer passport and whereabouts of a node that is known: those will end soon.
    pub fn refresh(&mut self, node: NodeId, homes: usize, now: Now) {
        let subject = Subject::Node(node);
        if !self.lookups.contains_key(&subject) && self.lookups.len() < LOOKUPS {
            self.look_up(&subject, None, homes, now);
        }
    }

    fn look_up(&mut self, subject: &Subject, member: Option<NodeId>, homes: usize, now: Now) {
        self.next_id = self.next_id.wrapping_add(1);
        let lookup = Lookup::new(self.next_id, subject.clone(), member, &self.network.id, homes, now.instant);
        self.lookups.insert(subject.clone(), lookup);
        self.settle(subject, now);
    }

    /// The holder of `subject`, if its passport is known and still valid.
    #[must_use]
    pub fn node_of(&self, subject: &Subject, now: Now) -> Option<NodeId> {
        let node = match subject {
            Subject::Node(node) => node,
            Subject::Address4(_) | Subject::Address6(_) | Subject::Name(_) => self.subjects.get(subject)?,
        };
        self.serial(node, now).map(|_| *node)
    }

    /// Whether a question about `subject` needs no look-up.
    #[must_use]
    pub fn is_known(&self, subject: &Subject, now: Now) -> bool {
        self.node_of(subject, now).is_some_and(|node| self.filed_place(&node, now).is_some())
    }

    /// Serial number of a node's passport, if it is known and still valid.
    #[must_use]
    pub fn serial(&self, node: &NodeId, now: Now) -> Option<u64> {
        self.filed_member(node, now).map(|member| member.serial)
    }

    /// A node's passport, if it is known and still valid.
    #[must_use]
    pub fn member(&self, node: &NodeId, now: Now) -> Option<Verified<Member>> {
        self.filed_member(node, now).map(FiledMember::member)
    }

    /// A node's whereabouts, if they are known and still true.
    #[must_use]
    pub fn place(&self, node: &NodeId, now: Now) -> Option<Verified<Place>> {
        Some(self.members.get(node)?.at(self.filed_place(node, now)?))
    }

    fn filed_member(&self, node: &NodeId, now: Now) -> Option<&FiledMember> {
        self.members.get(node).filter(|member| member.not_after > now.unix)
    }

    fn filed_place(&self, node: &NodeId, now: Now) -> Option<&FiledPlace> {
        self.places.get(node).filter(|place| place.expires > now.unix)
    }

    /// Known nodes whose ID begins with `prefix`.
    pub fn beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = NodeId> + 'a {
        self.members.keys().filter(move |node| node.to_string().starts_with(prefix)).copied()
    }

    /// Known super peers.
    pub fn super_peers(&self, now: Now) -> impl Iterator<Item = Verified<Place>> {
        let serve = self.members.iter().filter(|(_, member)| member.roles.includes(Roles::SUPER_PEER));
        serve.filter_map(move |(node, member)| Some(member.at(self.filed_place(node, now)?)))
    }

    /// What stands in front of the nodes whose whereabouts are known, by the name of the class.
    #[must_use]
    pub fn nat_classes(&self, now: Now) -> BTreeMap<&'static str, usize> {
        let mut classes = BTreeMap::new();
        for place in self.places.values().filter(|place| place.expires > now.unix) {
            *classes.entry(place.nat.name()).or_default() += 1;
        }
        classes
    }

    /// Keep a checked passport, unless a newer one is known.
    pub fn learn_member(&mut self, member: &Verified<Member>, now: Now) {
        let node = member.passport.node;
        if self.members.get(&node).is_some_and(|known| known.serial > member.passport.serial) {
            return;
        }
        match self.members.remove(&node) {
            Some(old) => self.unlist(&old.member()),
            None => self.make_room(now),
        }
        for subject in subjects(member, &self.network) {
            self.absent.remove(&subject);
            if !matches!(subject, Subject::Node(_)) {
                self.subjects.insert(subject, node);
            }
        }
        self.members.insert(node, FiledMember::new(member, &mut self.grants));
    }

    /// Keep checked whereabouts, unless newer ones are known; whether they were news.
    pub fn learn_place(&mut self, place: &Verified<Place>, now: Now) -> bool {
        let node = place.passport.node;
        self.learn_member(&place.member(), now);
        let known = self.places.get(&node).map(|known| known.sequence);
        if known.is_some_and(|known| known >= place.whereabouts.sequence) {
            return false;
        }
        self.places.insert(node, FiledPlace::new(place));
        true
    }

    /// Whereabouts turned out to be wrong: look them up anew next time.
    pub fn forget_place(&mut self, node: &NodeId) {
        self.places.remove(node);
    }

    /// A super peer came up: it may know what is being looked for.
    pub fn ask_again(&mut self) {
        self.outputs.extend(self.lookups.values().map(Lookup::question));
    }

    /// The super peer `from` answered question `id`; nothing of what it says is believed unchecked.
    pub fn handle_answer(
        &mut self,
        from: NodeId,
        id: u32,
        credential: Option<&Credential>,
        whereabouts: Option<Signed<Whereabouts>>,
        now: Now,
    ) {
        let Some(subject) = self.lookups.values().find(|lookup| lookup.id == id).map(|l| l.subject.clone())
        else {
            return;
        };
        let checked =
            credential.and_then(|credential| self.check_answer(credential, whereabouts, &subject, now));
        if let Some(lookup) = self.lookups.get_mut(&subject) {
            lookup.home_answered(from, checked, now.instant);
        }
        self.settle(&subject, now);
    }

    fn check_answer(
        &mut self,
        credential: &Credential,
        whereabouts: Option<Signed<Whereabouts>>,
        subject: &Subject,
        now: Now,
    ) -> Option<(NodeId, bool)> {
        let member = credential.verify(&self.network, now.unix).ok()?;
        let node = member.passport.node;
        if !subjects(&member, &self.network).contains(subject) {
            return None;
        }
        self.learn_member(&member, now);
        if let Some(whereabouts) = whereabouts {
            let contact = crate::document::Contact { credential: credential.clone(), whereabouts };
            if let Ok(place) = contact.verify(&self.network, now.unix) {
                self.learn_place(&place, now);
            }
        }
        Some((node, self.filed_place(&node, now).is_some()))
    }

    /// The table answered.
    pub fn handle_reply(&mut self, reply: &Reply, now: Now) {
        let (Reply::Found { id, .. } | Reply::Finished { id, .. }) = reply else { return };
        let Some((subject, key)) =
            self.lookups.values().find_map(|l| l.key_of(*id).map(|key| (l.subject.clone(), key)))
        else {
            return;
        };
        match reply {
            Reply::Found { value, .. } => {
                let Ok(checked) = crate::record::check(&self.network, &key, value, now.unix) else { return };
                let node = checked.node();
                match checked {
                    Checked::Member(member) => self.learn_member(&member, now),
                    Checked::Place(place) => _ = self.learn_place(&place, now),
                }
                let placed = self.filed_place(&node, now).is_some();
                if let Some(lookup) = self.lookups.get_mut(&subject) {
                    lookup.table_found(node, placed, &self.network.id, now.instant);
                }
            }
            Reply::Finished { .. } | Reply::State { .. } => {
                if let Some(lookup) = self.lookups.get_mut(&subject) {
                    lookup.table_finished(*id);
                }
            }
        }
        self.settle(&subject, now);
    }

    /// Repeat questions, end look-ups that took too long, drop what is no longer true.
    pub fn handle_timeout(&mut self, now: Now) {
        let due: Vec<Subject> = self
            .lookups
            .iter_mut()
            .filter_map(|(subject, lookup)| lookup.handle_timeout(now.instant).then(|| subject.clone()))
            .collect();
        for subject in due {
            self.settle(&subject, now);
        }
    }

    /// What is wanted next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When time matters next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lookups.values().map(Lookup::poll_timeout).min()
    }

    /// Pass on what a look-up wants, and end it if it is over.
    fn settle(&mut self, subject: &Subject, now: Now) {
        let Some(lookup) = self.lookups.get_mut(subject) else { return };
        self.outputs.extend(lookup.drain());
        let Some(found) = lookup.outcome(now.instant) else { return };
        if let Some(lookup) = self.lookups.remove(subject) {
            self.outputs.extend(lookup.cancel());
        }
        if found.is_none() {
            self.absent.insert(subject.clone(), now.instant + ABSENT);
            if self.absent.len() > LOOKUPS {
                self.absent.retain(|_, until| now.instant < *until);
            }
            if self.absent.len() > LOOKUPS {
                self.absent.pop_first();
            }
        }
        self.outputs.push_back(Output::Done { subject: subject.clone(), found });
    }

    /// Make somebody known under an ID that nobody has a key for.
    #[cfg(test)]
    pub(crate) fn plant(&mut self, node: NodeId, member: &Verified<Member>) {
        self.members.insert(node, FiledMember::new(member, &mut self.grants));
    }

    fn make_room(&mut self, now: Now) {
        if self.members.len() < MEMBERS {
            return;
        }
        let stale = |node: &NodeId| self.places.get(node).is_none_or(|p| p.expires <= now.unix);
        let victim =
            self.members.keys().find(|node| stale(node)).or_else(|| self.members.keys().next()).copied();
        let Some((node, member)) = victim.and_then(|node| self.members.remove_entry(&node)) else { return };
        self.places.remove(&node);
        self.unlist(&member.member());
    }

    /// Whoever has taken over an address or a name keeps it.
    fn unlist(&mut self, member: &Member) {
        for subject in subjects(member, &self.network) {
            if self.subjects.get(&subject) == Some(&member.passport.node) {
                self.subjects.remove(&subject);
            }
        }
    }
}

/// Everything a passport is found by.
fn subjects(member: &Member, network: &Network) -> [Subject; 4] {
    let passport = &member.passport;
    [
        Subject::Node(passport.node),
        Subject::Address4(passport.address4),
        Subject::Address6(passport.node.address6(&network.id)),
        Subject::Name(passport.name.clone()),
    ]
}

#[cfg(test)]
mod tests;
