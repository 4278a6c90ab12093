//! A model of the directory: what super peers keep for everybody, behind the port of `overlay::port`.
//!
//! Owns: [`Directory`] and its [`Mode`]s. The real table keeps a record at the 20 nodes nearest to its key; the
//! worlds here have fewer servers than that, so each of them is asked and keeps everything. Never: libp2p, which
//! can't live in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use frejus_overlay::document::Network;
use frejus_overlay::id::{NodeId, RecordKey};
use frejus_overlay::port::{Command, CommandId, Reply};
use frejus_overlay::record;
use frejus_overlay::timing::{Instant, UnixTime};

use crate::dice::Dice;
use crate::internet::HostId;

/// How the directory behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// As it should.
    Honest,
    /// Keeps the first record of a key for ever.
    Stale,
    /// Each server fails to answer with this probability.
    Lossy(f64),
    /// Answers with forgeries, and the reader's own check does not catch them: the node must.
    Lying,
}

#[derive(Clone, Debug)]
struct Kept {
    value: Vec<u8>,
    sequence: u64,
    until: Instant,
}

/// The directory of one world.
#[derive(Clone, Debug)]
pub struct Directory {
    /// How it behaves.
    pub mode: Mode,
    /// One way through the table: two or three hops.
    pub delay: Duration,
    network: Network,
    names: BTreeMap<NodeId, HostId>,
    servers: BTreeMap<HostId, BTreeMap<RecordKey, Kept>>,
    neighbours: BTreeMap<HostId, BTreeSet<HostId>>,
    cancelled: BTreeSet<(HostId, CommandId)>,
    /// Forgeries handed out so far.
    pub lies: u64,
    dice: Dice,
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Who.
    pub host: HostId,
    /// When.
    pub now: Instant,
    /// Its calendar.
    pub unix: UnixTime,
}

impl Directory {
    /// Without servers yet.
    #[must_use]
    pub const fn new(network: Network, dice: Dice) -> Self {
        Self {
            mode: Mode::Honest,
            delay: Duration::from_millis(100),
            network,
            names: BTreeMap::new(),
            servers: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            lies: 0,
            dice,
        }
    }

    /// `node` runs on `host`.
    pub fn introduce(&mut self, node: NodeId, host: HostId) {
        self.names.insert(node, host);
    }

    /// `host` begins to serve, with nothing kept.
    pub fn serve(&mut self, host: HostId) {
        self.servers.insert(host, BTreeMap::new());
    }

    /// `host` is gone, with all it kept.
    pub fn leave(&mut self, host: HostId) {
        self.servers.remove(&host);
        self.neighbours.remove(&host);
    }

    /// Whether the reply to this command is still wanted; a cancelled one is not.
    #[must_use]
    pub fn is_wanted(&self, host: HostId, reply: &Reply) -> bool {
        match reply {
            Reply::Found { id, .. } | Reply::Finished { id, .. } => !self.cancelled.contains(&(host, *id)),
            Reply::State { .. } => true,
        }
    }

    /// Carry out a command; `reaches` says whether two hosts can exchange packets. Replies come with their delay.
    pub fn command(
        &mut self,
        asker: Asker,
        command: Command,
        reaches: impl Fn(HostId, HostId) -> bool,
    ) -> Vec<(Duration, Reply)> {
        match command {
            Command::Cancel { id } => {
                self.cancelled.insert((asker.host, id));
                Vec::new()
            }
            Command::Neighbours(nodes) => {
                let known = nodes.iter().filter_map(|(node, _)| self.names.get(node).copied());
                self.neighbours.insert(asker.host, known.collect());
                let servers = self.in_reach(asker.host, reaches);
                let server = self.servers.contains_key(&asker.host);
                let peers = servers.iter().filter(|host| **host != asker.host).count();
                vec![(self.delay / 2, Reply::State { server, peers })]
            }
            Command::Lookup { id, key } => {
                let servers = self.in_reach(asker.host, reaches);
                self.look_up(asker, id, &key, &servers)
            }
            Command::Publish { id, key, value, life } => {
                let servers = self.in_reach(asker.host, reaches);
                let ok = self.store(asker, &key, &value, life, &servers);
                vec![(self.delay, Reply::Finished { id, ok })]
            }
        }
    }

    /// A walk begins at a neighbour and finds every server that this one reaches.
    fn in_reach(&self, host: HostId, reaches: impl Fn(HostId, HostId) -> bool) -> Vec<HostId> {
        let mut found = BTreeSet::new();
        let own = self.servers.contains_key(&host).then_some(host);
        let first = self.neighbours.get(&host).into_iter().flatten().copied();
        let mut border: Vec<HostId> = first
            .filter(|there| self.servers.contains_key(there) && reaches(host, *there))
            .chain(own)
            .collect();
        while let Some(at) = border.pop() {
            if found.insert(at) {
                let next = self.servers.keys().filter(|there| reaches(at, **there) && reaches(host, **there));
                border.extend(next.copied());
            }
        }
        found.into_iter().collect()
    }

    fn answers(&mut self) -> bool {
        match self.mode {
            Mode::Lossy(loss) => !self.dice.chance(loss),
            Mode::Honest | Mode::Stale | Mode::Lying => true,
        }
    }

    fn store(
        &mut self,
        asker: Asker,
        key: &RecordKey,
        value: &[u8],
        life: Duration,
        servers: &[HostId],
    ) -> bool {
        let mut stored = false;
        for server in servers {
            if !self.answers() {
                continue;
            }
            let Ok(checked) = record::check(&self.network, key, value, asker.unix) else { continue };
            let kept = self.servers.get_mut(server).expect("a server in reach");
            let until = asker.now + life.min(checked.expires_in(asker.unix));
            let old = kept.get(key).filter(|old| old.until > asker.now);
            let newer = old.is_none_or(|old| checked.sequence() >= old.sequence);
            if newer && !(old.is_some() && self.mode == Mode::Stale) {
                let sequence = checked.sequence();
                kept.insert(*key, Kept { value: value.to_vec(), sequence, until });
            }
            stored |= newer;
        }
        stored
    }

    fn look_up(
        &mut self,
        asker: Asker,
        id: CommandId,
        key: &RecordKey,
        servers: &[HostId],
    ) -> Vec<(Duration, Reply)> {
        let mut values = BTreeSet::new();
        for server in servers {
            if !self.answers() {
                continue;
            }
            let kept = self.servers.get(server).and_then(|records| records.get(key));
            values.extend(kept.filter(|kept| kept.until > asker.now).map(|kept| kept.value.clone()));
        }
        if self.mode == Mode::Lying {
            values = self.forge(key);
        } else {
            values.retain(|value| record::check(&self.network, key, value, asker.unix).is_ok());
        }
        let ok = !values.is_empty();
        let found = values.into_iter().map(|value| (self.delay, Reply::Found { id, value }));
        found.chain([(self.delay + self.delay / 2, Reply::Finished { id, ok })]).collect()
    }

    /// Noise, other nodes' records, and altered ones.
    fn forge(&mut self, key: &RecordKey) -> BTreeSet<Vec<u8>> {
        let noise: [u8; 300] = self.dice.bytes();
        let mut forgeries = BTreeSet::from([noise.to_vec(), Vec::new(), vec![1; 4000]]);
        let honest: Vec<(RecordKey, Vec<u8>)> =
            self.servers.values().flatten().map(|(at, kept)| (*at, kept.value.clone())).take(16).collect();
        for (at, mut value) in honest {
            if at == *key {
                let bit = self.dice.below(value.len() as u64 * 8) as usize;
                value[bit / 8] ^= 1 << (bit % 8);
            }
            forgeries.insert(value);
        }
        self.lies += forgeries.len() as u64;
        forgeries
    }
}
