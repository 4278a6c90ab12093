//! One look-up: the questions under way for one subject, and when it is over.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Found, Output};
use crate::id::{NetworkId, NodeId, RecordKey, Subject};
use crate::node::Source;
use crate::port::{Command, CommandId};
use crate::timing::Instant;

/// When the home is asked again: a datagram was lost. RFC 8489 waits 500 ms; the tunnel's round trip is known
/// to be short.
const REPEAT: [Duration; 4] = [
    Duration::from_millis(400),
    Duration::from_millis(1000),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
];
/// Nothing after this long is nothing.
const LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) id: u32,
    pub(super) subject: Subject,
    begun: Instant,
    repeats: usize,
    /// Homes that were asked, and those that answered: a repeated question gets a second answer from some.
    homes: usize,
    answered: BTreeSet<NodeId>,
    lease: Option<(NodeId, Source, Duration)>,
    whereabouts: Option<(Source, Duration)>,
    /// The walks for the passport and for the whereabouts, while they last.
    walks: [Option<(CommandId, RecordKey)>; 2],
    outputs: VecDeque<Output>,
}

const LEASE: usize = 0;
const WHEREABOUTS: usize = 1;

impl Lookup {
    /// Ask everybody at once. `known`: the node, if its passport is known already.
    pub(super) fn new(
        id: u32,
        subject: Subject,
        known: Option<NodeId>,
        network: &NetworkId,
        homes: usize,
        now: Instant,
    ) -> Self {
        let mut lookup = Self {
            id,
            subject,
            begun: now,
            repeats: 0,
            homes,
            answered: BTreeSet::new(),
            lease: known.map(|node| (node, Source::Cache, Duration::ZERO)),
            whereabouts: None,
            walks: [None, None],
            outputs: VecDeque::new(),
        };
        lookup.ask();
        match (known, &lookup.subject) {
            (Some(node), _) => lookup.walk(WHEREABOUTS, RecordKey::whereabouts(network, &node)),
            (None, Subject::Node(node)) => {
                let node = *node;
                lookup.walk(LEASE, RecordKey::passport(network, &Subject::Node(node)));
                lookup.walk(WHEREABOUTS, RecordKey::whereabouts(network, &node));
            }
            (None, subject) => {
                let key = RecordKey::passport(network, subject);
                lookup.walk(LEASE, key);
            }
        }
        lookup
    }

    fn ask(&mut self) {
        if self.homes > 0 {
            self.outputs.push_back(Output::Ask { id: self.id, subject: self.subject.clone() });
        }
    }

    fn walk(&mut self, which: usize, key: RecordKey) {
        let id = u64::from(self.id) << 1 | which as u64;
        self.walks[which] = Some((id, key));
        self.outputs.push_back(Output::Command(Command::Lookup { id, key }));
    }

    /// The key that walk `id` of ours looks for.
    pub(super) fn key_of(&self, id: CommandId) -> Option<RecordKey> {
        self.walks.iter().flatten().find(|(walk, _)| *walk == id).map(|(_, key)| *key)
    }

    /// A home answered: who, and whether the whereabouts are known with it.
    pub(super) fn home_answered(&mut self, from: NodeId, found: Option<(NodeId, bool)>, now: Instant) {
        if self.answered.len() < self.homes {
            self.answered.insert(from);
        }
        if let Some((node, placed)) = found {
            self.found(node, placed, Source::SuperPeer, now);
        }
    }

    /// The table found something.
    pub(super) fn table_found(&mut self, node: NodeId, placed: bool, network: &NetworkId, now: Instant) {
        self.found(node, placed, Source::Dht, now);
        if self.walks[WHEREABOUTS].is_none() && self.whereabouts.is_none() {
            self.walk(WHEREABOUTS, RecordKey::whereabouts(network, &node));
        }
    }

    fn found(&mut self, node: NodeId, placed: bool, source: Source, now: Instant) {
        let elapsed = now.since(self.begun);
        // Of two with a valid passport for one subject, the one that can be reached is meant.
        if placed && self.whereabouts.is_none() && self.lease.is_some_and(|(known, ..)| known != node) {
            self.lease = None;
        }
        self.lease.get_or_insert((node, source, elapsed));
        if placed {
            self.whereabouts.get_or_insert((source, elapsed));
        }
    }

    /// A walk of the table is over.
    pub(super) fn table_finished(&mut self, id: CommandId) {
        for walk in &mut self.walks {
            if walk.is_some_and(|(of, _)| of == id) {
                *walk = None;
            }
        }
    }

    /// Whether anything changed with time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout() <= now;
        if due && self.repeats < REPEAT.len() {
            self.ask();
        }
        // Woken late, we ask once for all that was missed.
        while self.repeats < REPEAT.len() && self.poll_timeout() <= now {
            self.repeats += 1;
        }
        due
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.begun + REPEAT.get(self.repeats).copied().unwrap_or(LIMIT)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Output> + use<> {
        std::mem::take(&mut self.outputs).into_iter()
    }

    /// Walks that nobody needs any more.
    pub(super) fn cancel(&self) -> impl Iterator<Item = Output> + use<> {
        let walks = self.walks;
        walks.into_iter().flatten().map(|(id, _)| Output::Command(Command::Cancel { id }))
    }

    /// `None`: not over yet.
    #[expect(clippy::option_option, reason = "over or not, and found or not, are two questions")]
    pub(super) fn outcome(&self, now: Instant) -> Option<Option<Found>> {
        let exhausted = self.answered.len() >= self.homes && self.walks == [None, None];
        if self.whereabouts.is_none() && !exhausted && now.since(self.begun) < LIMIT {
            return None;
        }
        Some(self.lease.map(|(node, source, elapsed)| Found {
            node,
            lease: (source, elapsed),
            whereabouts: self.whereabouts,
        }))
    }
}
