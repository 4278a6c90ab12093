//! The login server: it makes codes, burns them, and issues and renews passports.
//!
//! Owns: [`LoginServer`], a state machine without input or output; whatever changes comes out as [`Entry`]s, to be on
//! disk before the answer is sent. Never: a code's secret (only its hash), the network key, who may ask for what
//! beyond the code (a renewal is asked for inside a tunnel, which tells who asks).

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use frejus_ipam::{Block, Label, Lease, Pool, PoolError};

pub use entry::{Digest, Entry, Holder, Terms};

use crate::document::{CLOCK_SKEW, Credential, Grant, Invalid, Network, Passport, Roles, Signed};
use crate::id::NodeId;
use crate::node::{Failed, Invitation};
use crate::timing::UnixTime;
use crate::wire::enrol::{Refusal, Request};

/// Codes that are open or remembered at once; at 200 bytes each, two megabytes.
const MAX_INVITATIONS: usize = 10_000;

/// A code that has ended is remembered for so long, so that whoever tries it late is told why it fails.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// A code lives no longer: it is a key that somebody may find.
const MAX_CODE_LIFE: Duration = Duration::from_secs(366 * 86_400);

/// Room between the end of the last passport and the moment when its address is given to another, on top of a
/// passport's whole life: for clocks that differ.
const GRACE: Duration = Duration::from_secs(86_400);

/// Host names are no longer (RFC 1035, section 2.3.4).
const MAX_WISH: usize = 255;

/// Serials are at least the time in these units: 256 passports a second, for as long as it takes.
const SERIAL_SHIFT: u32 = 8;

/// A passport younger than this part of its life is handed out again instead of a new one, so that repeated requests
/// cost neither a signature more nor a write to disk.
const FRESH: u32 = 10;

/// A code that was made.
#[derive(Clone)]
struct Invited {
    terms: Terms,
    used: BTreeSet<NodeId>,
}

impl Invited {
    fn is_open(&self, now: UnixTime) -> bool {
        now < self.terms.expires && !self.is_used_up()
    }

    fn is_used_up(&self) -> bool {
        self.used.len() as u64 >= u64::from(self.terms.uses)
    }
}

/// A login server: its grant, its key and its ledger.
pub struct LoginServer {
    network: Network,
    grant: Grant,
    signed_grant: Signed<Grant>,
    key: SigningKey,
    pool: Pool,
    invitations: BTreeMap<Digest, Invited>,
    holders: BTreeMap<NodeId, Holder>,
    names: BTreeMap<Label, NodeId>,
    last_serial: u64,
}

/// What a deed gives the asker, and the lines to persist before it is sent.
pub type Issued = (Credential, Vec<Entry>);

impl LoginServer {
    /// The login server that `grant` makes of the node with `key`, with the ledger as it was persisted, in any order.
    ///
    /// # Errors
    /// What is wrong with the grant: [`Invalid::Subject`] if it is another node's. Its validity is not checked
    /// here, for want of a clock.
    pub fn new(
        network: Network,
        grant: Signed<Grant>,
        key: SigningKey,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, Invalid> {
        let said = grant.open(&network.id, &network.genesis.key)?;
        if said.node.0 != key.verifying_key().to_bytes() {
            return Err(Invalid::Subject);
        }
        let grace = (network.genesis.passport_life() + GRACE).as_secs();
        let pool = Pool::new(network.genesis.prefix4, Block::whole(said.block), grace)
            .map_err(|_| Invalid::Overreach)?;
        let mut server = Self {
            network,
            grant: said,
            signed_grant: grant,
            key,
            pool,
            invitations: BTreeMap::new(),
            holders: BTreeMap::new(),
            names: BTreeMap::new(),
            last_serial: 0,
        };
        server.restore(entries);
        Ok(server)
    }

    /// Make a code with this secret. Its pinned name and address are kept for it until it ends.
    ///
    /// # Errors
    /// [`Failed::NameTaken`], [`Failed::AddressTaken`]; [`Failed::Senseless`] says what is wrong with the request.
    pub fn invite(
        &mut self,
        invitation: &Invitation,
        secret: [u8; 16],
        now: UnixTime,
    ) -> Result<Vec<Entry>, Failed> {
        let mut entries = self.expire(now);
        let terms = self.terms(invitation, now)?;
        if let Some(name) = &terms.name
            && (self.names.contains_key(name) || self.promised(None, now).contains(name))
        {
            return Err(Failed::NameTaken(name.to_string()));
        }
        let digest = Digest::of(&self.network.id, &secret);
        if self.invitations.contains_key(&digest) {
            return Err(Failed::Senseless("this secret was used before: draw another".to_owned()));
        }
        if let Some(address) = terms.address {
            self.pool.reserve(address).map_err(|e| unreservable(&e, address))?;
        }
        self.invitations.insert(digest, Invited { terms: terms.clone(), used: BTreeSet::new() });
        entries.push(Entry::Invitation(digest, terms));
        Ok(entries)
    }

    /// Let the asker in if its code is good. Asked again by the same node with the same code, the answer is the same
    /// and no use is counted. The request's signature has been checked.
    ///
    /// # Errors
    /// [`Refusal`], for the asker.
    pub fn enrol(&mut self, request: &Request, now: UnixTime) -> Result<Issued, Refusal> {
        let mut entries = self.expire(now);
        let digest = Digest::of(&self.network.id, &request.secret);
        let invited = self.invitations.get(&digest).ok_or(Refusal::UnknownCode)?.clone();
        check_clock(request.time, now)?;
        let again = invited.used.contains(&request.node);
        if again && let Some((credential, more)) = self.renew(&request.node, now) {
            entries.extend(more);
            return Ok((credential, entries));
        }
        if invited.is_used_up() && !again {
            return Err(Refusal::UsedCode);
        }
        if now >= invited.terms.expires {
            return Err(Refusal::ExpiredCode);
        }
        entries.extend(self.admit(request, digest, &invited.terms, now)?);
        let holder = self.holders.get(&request.node).ok_or(Refusal::Full)?;
        Ok((self.credential(holder).ok_or(Refusal::Full)?, entries))
    }

    /// A passport for a node that has one, or had one until a short while ago; the same one if that is fresh. `None`
    /// if the node is not enrolled here. Whoever calls this has authenticated the node.
    pub fn renew(&mut self, node: &NodeId, now: UnixTime) -> Option<Issued> {
        let mut entries = self.expire(now);
        let holder = self.holders.get(node)?.clone();
        let life = holder.until.since(holder.issued);
        if now >= holder.issued && now.since(holder.issued) < life / FRESH && now < holder.until {
            return Some((self.credential(&holder)?, entries));
        }
        self.pool.renew(node.0, now.0, self.end(now).0).ok()?;
        let (credential, more) = self.issue(*node, holder.name, holder.roles, now);
        entries.extend(more);
        Some((credential, entries))
    }

    /// A passport for the login server itself: how a founder gets its first one.
    ///
    /// # Errors
    /// [`Failed::NameTaken`]; [`Failed::Senseless`] if the grant does not allow the roles or has no address.
    pub fn issue_own(&mut self, name: &Label, roles: Roles, now: UnixTime) -> Result<Issued, Failed> {
        let mut entries = self.expire(now);
        let node = self.grant.node;
        if !self.grant.roles.includes(roles) {
            return Err(Failed::Senseless(format!("the grant does not allow {roles:?}")));
        }
        if self.is_taken(name, &node) || self.promised(None, now).contains(name) {
            return Err(Failed::NameTaken(name.to_string()));
        }
        let until = self.end(now).0;
        self.pool.lease(node.0, now.0, until).map_err(|e| Failed::Senseless(e.to_string()))?;
        let (credential, more) = self.issue(node, name.clone(), roles, now);
        entries.extend(more);
        Ok((credential, entries))
    }

    /// Forget what is over: codes, leases past their grace and the names that went with them. Every deed does so as
    /// well; called about once an hour where nothing else happens.
    pub fn expire(&mut self, now: UnixTime) -> Vec<Entry> {
        let mut entries = Vec::new();
        for lease in self.pool.expire(now.0) {
            entries.push(Entry::LeaseGone(lease.address));
            if self.pool.lease_of(&lease.holder).is_none()
                && let Some(holder) = self.holders.remove(&NodeId(lease.holder))
            {
                self.names.remove(&holder.name);
                entries.push(Entry::HolderGone(holder.node));
            }
        }
        for (digest, invited) in self.invitations.iter_mut().filter(|(_, i)| now >= i.terms.expires) {
            if let Some(address) = invited.terms.address.take() {
                self.pool.unreserve(address);
                entries.push(Entry::Invitation(*digest, invited.terms.clone()));
            }
        }
        let gone = |invited: &Invited| now >= invited.terms.expires + REMEMBERED;
        let forgotten = self.invitations.extract_if(.., |_, invited| gone(invited));
        entries.extend(forgotten.map(|(digest, _)| Entry::InvitationGone(digest)));
        entries
    }

    /// The grant that this server issues by.
    #[must_use]
    pub const fn grant(&self) -> &Signed<Grant> {
        &self.signed_grant
    }

    /// The network that this server enrols for.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The name of an enrolled node.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> Option<&Label> {
        self.holders.get(node).map(|holder| &holder.name)
    }

    fn restore(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut leases = BTreeMap::new();
        let mut uses: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Invitation(digest, terms) => {
                    self.invitations.insert(digest, Invited { terms, used: BTreeSet::new() });
                }
                Entry::Use(digest, node) => _ = uses.entry(digest).or_default().insert(node),
                Entry::InvitationGone(digest) => {
                    self.invitations.remove(&digest);
                    uses.remove(&digest);
                }
                Entry::Holder(holder) => _ = self.holders.insert(holder.node, holder),
                Entry::HolderGone(node) => _ = self.holders.remove(&node),
                Entry::Lease(lease) => _ = leases.insert(lease.address, lease),
                Entry::LeaseGone(address) => _ = leases.remove(&address),
            }
        }
        for lease in leases.into_values() {
            if let Err(error) = self.pool.restore(lease) {
                tracing::warn!(%error, "a lease of the ledger is not of this grant's block");
            }
        }
        for (digest, used) in uses {
            if let Some(invited) = self.invitations.get_mut(&digest) {
                invited.used = used;
            }
        }
        self.index();
    }

    /// What follows from the rows: reservations, names, the last serial. A holder without a lease was being
    /// forgotten, or being enrolled, when the power failed: its code is still good.
    fn index(&mut self) {
        self.holders.retain(|node, _| self.pool.lease_of(&node.0).is_some());
        self.names = self.holders.values().map(|holder| (holder.name.clone(), holder.node)).collect();
        self.last_serial = self.holders.values().map(|holder| holder.serial).max().unwrap_or(0);
        for invited in self.invitations.values_mut() {
            if invited.is_used_up() {
                invited.terms.address = None;
            } else if let Some(address) = invited.terms.address
                && let Err(error) = self.pool.reserve(address)
            {
                tracing::warn!(%error, "an address of the ledger can't be kept for its code");
            }
        }
    }

    /// The request as terms, if it makes sense.
    fn terms(&self, invitation: &Invitation, now: UnixTime) -> Result<Terms, Failed> {
        let senseless = |why: &str| Err(Failed::Senseless(why.to_owned()));
        let Invitation { roles, uses, life, name, address } = invitation;
        if roles.includes(Roles::LOGIN) {
            return senseless("a login server needs a grant, not a code");
        }
        if roles.names().is_empty() || !self.grant.roles.includes(*roles) {
            return senseless("this login server may not make nodes of that role");
        }
        if *uses == 0 {
            return senseless("a code must be good for one use or more");
        }
        if *uses > 1 && (name.is_some() || address.is_some()) {
            return senseless("a code for several nodes can't fix a name or an address");
        }
        if life.as_secs() == 0 || *life > MAX_CODE_LIFE {
            return senseless("a code must live between a second and a year");
        }
        if self.invitations.len() >= MAX_INVITATIONS {
            return senseless("too many codes are open: let some of them expire");
        }
        let name = name.as_deref().map(Label::parse).transpose();
        let name = name.map_err(|error| Failed::Senseless(error.to_string()))?;
        Ok(Terms { roles: *roles, uses: *uses, expires: now + *life, name, address: *address })
    }

    /// Make a member of the asker and count the use.
    fn admit(
        &mut self,
        request: &Request,
        digest: Digest,
        terms: &Terms,
        now: UnixTime,
    ) -> Result<Vec<Entry>, Refusal> {
        let name = self.name_for(request, &digest, terms, now)?;
        let left = self.lease_for(&request.node, terms, now)?;
        let known = self.holders.get(&request.node);
        let roles = known.map_or(terms.roles, |known| known.roles.with(terms.roles));
        let (_, mut entries) = self.issue(request.node, name, roles, now);
        entries.extend(left.map(Entry::Lease));
        if let Some(invited) = self.invitations.get_mut(&digest) {
            invited.used.insert(request.node);
            invited.terms.address = None;
        }
        entries.push(Entry::Use(digest, request.node));
        Ok(entries)
    }

    /// The name that the asker gets: the pinned one, the one it has, or the one it would like, numbered if taken.
    fn name_for(
        &self,
        request: &Request,
        digest: &Digest,
        terms: &Terms,
        now: UnixTime,
    ) -> Result<Label, Refusal> {
        if let Some(pinned) = &terms.name {
            let promised = self.promised(Some(digest), now);
            let clash = self.is_taken(pinned, &request.node) || promised.contains(pinned);
            return if clash { Err(Refusal::NameTaken(pinned.to_string())) } else { Ok(pinned.clone()) };
        }
        if let Some(known) = self.holders.get(&request.node) {
            return Ok(known.name.clone());
        }
        let wish = request.name.as_deref().unwrap_or_default();
        if wish.len() > MAX_WISH {
            return Err(Refusal::BadName(wish.to_owned()));
        }
        let wish = Label::suggest(wish);
        let promised = self.promised(None, now);
        let free = wish.unique(|label| self.is_taken(label, &request.node) || promised.contains(label));
        free.ok_or_else(|| Refusal::NameTaken(wish.to_string()))
    }

    /// Lease the pinned address, the one that the node has, or any. A pinned address wins over one that the node
    /// has, since whoever made the code said so; the lease that the node then left comes back, for the ledger.
    fn lease_for(&mut self, node: &NodeId, terms: &Terms, now: UnixTime) -> Result<Option<Lease>, Refusal> {
        let until = self.end(now).0;
        let mut left = None;
        let leased = match terms.address {
            Some(address) => {
                if self.pool.lease_of(&node.0).is_some_and(|lease| lease.address != address) {
                    left = self.pool.release(&node.0).ok();
                }
                self.pool.lease_reserved(node.0, address, now.0, until)
            }
            None => self.pool.lease(node.0, now.0, until).map(|_| ()),
        };
        leased.map_err(|error| {
            tracing::error!(%error, "no lease for a newcomer");
            Refusal::Full
        })?;
        Ok(left)
    }

    /// A new passport for a node whose lease stands.
    fn issue(&mut self, node: NodeId, name: Label, roles: Roles, now: UnixTime) -> Issued {
        let serial = (self.last_serial + 1).max(now.0 << SERIAL_SHIFT);
        self.last_serial = serial;
        let holder = Holder { node, name, roles, serial, issued: now, until: self.end(now) };
        if let Some(old) = self.holders.insert(node, holder.clone()) {
            self.names.remove(&old.name);
        }
        self.names.insert(holder.name.clone(), node);
        let credential = self.credential(&holder).expect("the caller has leased an address");
        let lease = *self.pool.lease_of(&node.0).expect("the caller has leased an address");
        (credential, vec![Entry::Lease(lease), Entry::Holder(holder)])
    }

    /// The passport that `holder` describes; signing is deterministic, so it is the same each time.
    fn credential(&self, holder: &Holder) -> Option<Credential> {
        let passport = Passport {
            node: holder.node,
            name: holder.name.to_string(),
            roles: holder.roles,
            address4: self.pool.lease_of(&holder.node.0)?.address,
            routes: Vec::new(),
            serial: holder.serial,
            not_before: holder.issued,
            not_after: holder.until,
            issuer: self.grant.node,
        };
        let passport = Signed::new(&passport, &self.network.id, &self.key);
        Some(Credential { grant: self.signed_grant.clone(), passport })
    }

    /// When a passport of today ends.
    fn end(&self, now: UnixTime) -> UnixTime {
        (now + self.network.genesis.passport_life()).min(self.grant.not_after)
    }

    /// Whether a node other than `node` is called that.
    fn is_taken(&self, name: &Label, node: &NodeId) -> bool {
        self.names.get(name).is_some_and(|holder| holder != node)
    }

    /// The names that open codes, `but` aside, keep for their users.
    fn promised(&self, but: Option<&Digest>, now: UnixTime) -> BTreeSet<Label> {
        let open = self.invitations.iter().filter(|(digest, i)| Some(*digest) != but && i.is_open(now));
        open.filter_map(|(_, invited)| invited.terms.name.clone()).collect()
    }
}

fn check_clock(theirs: UnixTime, ours: UnixTime) -> Result<(), Refusal> {
    if theirs.since(ours).max(ours.since(theirs)) <= CLOCK_SKEW {
        return Ok(());
    }
    let signed = |time: UnixTime| i64::try_from(time.0).unwrap_or(i64::MAX);
    Err(Refusal::Clock { ahead_s: signed(theirs) - signed(ours) })
}

fn unreservable(error: &PoolError, address: Ipv4Addr) -> Failed {
    match error {
        PoolError::Taken(_) => Failed::AddressTaken(address),
        other => Failed::Senseless(other.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
