//! The leases of one block: who gets which address, and when it goes back.
//!
//! Owns: [`Pool`], the working copy of a login server's ledger. Never: the ledger's file, a clock, a passport; the
//! caller hands in the time and persists what comes out.
//!
//! An address that was leased is kept for its holder until `grace` seconds after the end of its last passport,
//! released or not. With a grace longer than any passport lives, nobody meets an address in the hands of two nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::block::{Block, Usable};
use crate::lease::{Lease, LeaseState};

type Holder = [u8; 32];

/// Why an address was not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every address is leased, in grace or reserved.
    #[error("no address of {0} is free: grant this login server another block, or wait for leases to end")]
    Exhausted(Block),
    /// Another node has the address, or it is reserved for an invitation.
    #[error("{0} is taken: choose another address")]
    Taken(Ipv4Addr),
    /// The address is not one that this pool gives.
    #[error("{address} is not an address for nodes in {block}: choose one in that block")]
    Outside {
        /// What was asked for.
        address: Ipv4Addr,
        /// What the pool gives from.
        block: Block,
    },
    /// No invitation keeps the address.
    #[error("{0} is not reserved: make a new invitation for it")]
    NotReserved(Ipv4Addr),
    /// The node holds another address, and a node has one.
    #[error("the node already holds {0}: release it first")]
    Holds(Ipv4Addr),
    /// The node holds nothing here.
    #[error("the node holds no address of {0}: ask for a lease")]
    NotHeld(Block),
    /// The lease would have ended before it began.
    #[error("a lease until {until} has ended at {now} (seconds since 1970): check the clock")]
    Ended {
        /// The end that was asked for.
        until: u64,
        /// The time of the request.
        now: u64,
    },
    /// The block is not part of the network.
    #[error("{block} is not inside the network's prefix {prefix}: grant a block that is")]
    NotInPrefix {
        /// The block.
        block: Block,
        /// The network's prefix.
        prefix: Ipv4Network,
    },
}

/// How the addresses of a pool stand; together they are all that nodes may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Leased to a node whose lease runs.
    pub held: u64,
    /// Ended or released, and kept for the holder.
    pub grace: u64,
    /// Kept for invitations.
    pub reserved: u64,
    /// Open to anyone.
    pub free: u64,
}

/// The addresses of one block and their leases. All times are in seconds since 1970-01-01 UTC.
#[derive(Debug, Clone)]
pub struct Pool {
    block: Block,
    usable: Usable,
    grace: u64,
    /// Every lease that is held or in grace, by address.
    leases: BTreeMap<Ipv4Addr, Lease>,
    /// The one address that a holder gets when it comes again.
    current: BTreeMap<Holder, Ipv4Addr>,
    /// When each leased address goes back.
    frees: BTreeSet<(u64, Ipv4Addr)>,
    /// Kept for invitations; never leased at the same time.
    reserved: BTreeSet<Ipv4Addr>,
}

impl Pool {
    /// Leases and reservations that a pool keeps at most, whatever the size of its block. A lease costs about
    /// 200 bytes in three trees, so that a full pool stays near 200 MB.
    pub const MAX: u64 = 1 << 20;

    /// A pool with nothing leased. `grace`, in seconds, must be longer than any passport lives.
    ///
    /// # Errors
    /// [`PoolError::NotInPrefix`].
    pub fn new(prefix: Ipv4Network, block: Block, grace: u64) -> Result<Self, PoolError> {
        if !block.is_inside(prefix) {
            return Err(PoolError::NotInPrefix { block, prefix });
        }
        Ok(Self {
            block,
            usable: block.usable(prefix),
            grace,
            leases: BTreeMap::new(),
            current: BTreeMap::new(),
            frees: BTreeSet::new(),
            reserved: BTreeSet::new(),
        })
    }

    /// An address for `holder` until `until`: the one that it has or had if that has not gone back; otherwise the
    /// one that its hash points to, so that a network built anew finds its nodes at the same places; otherwise the
    /// next that is free. A lease is never shortened, since the longer passport is out already.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`], [`PoolError::Ended`].
    pub fn lease(&mut self, holder: Holder, now: u64, until: u64) -> Result<Ipv4Addr, PoolError> {
        self.begin(now, until)?;
        let address = match self.current.get(&holder) {
            Some(address) => *address,
            None => self.choose(&holder).ok_or(PoolError::Exhausted(self.block))?,
        };
        self.grant(holder, address, until);
        Ok(address)
    }

    /// That very address for `holder` until `until`. If the holder's last lease of another address has ended or was
    /// released, it moves, and the old address stays in grace.
    ///
    /// # Errors
    /// [`PoolError::Taken`], also for an address that is reserved; [`PoolError::Holds`], [`PoolError::Outside`],
    /// [`PoolError::Ended`], [`PoolError::Exhausted`].
    pub fn lease_pinned(
        &mut self,
        holder: Holder,
        address: Ipv4Addr,
        now: u64,
        until: u64,
    ) -> Result<(), PoolError> {
        self.begin(now, until)?;
        if self.reserved.contains(&address) {
            return Err(PoolError::Taken(address));
        }
        self.check_pin(&holder, address, now)?;
        if !self.leases.contains_key(&address) && self.is_full() {
            return Err(PoolError::Exhausted(self.block));
        }
        self.grant(holder, address, until);
        Ok(())
    }

    /// As [`Pool::lease_pinned`], for the bearer of the invitation that the address is reserved for; the reservation
    /// becomes the lease. Asked again by the same holder, it renews.
    ///
    /// # Errors
    /// [`PoolError::NotReserved`], [`PoolError::Holds`], [`PoolError::Ended`]; the reservation then stays.
    pub fn lease_reserved(
        &mut self,
        holder: Holder,
        address: Ipv4Addr,
        now: u64,
        until: u64,
    ) -> Result<(), PoolError> {
        self.begin(now, until)?;
        if !self.reserved.contains(&address) && self.current.get(&holder) != Some(&address) {
            return Err(PoolError::NotReserved(address));
        }
        self.check_pin(&holder, address, now)?;
        self.reserved.remove(&address);
        self.grant(holder, address, until);
        Ok(())
    }

    /// Prolongs the lease of `holder`, also one that ended but has not gone back.
    ///
    /// # Errors
    /// [`PoolError::NotHeld`], also after a release; [`PoolError::Ended`].
    pub fn renew(&mut self, holder: Holder, now: u64, until: u64) -> Result<Ipv4Addr, PoolError> {
        self.begin(now, until)?;
        let lease = self.lease_of(&holder).filter(|lease| !lease.released);
        let address = lease.ok_or(PoolError::NotHeld(self.block))?.address;
        self.grant(holder, address, until);
        Ok(address)
    }

    /// The holder gives its address up; it goes back after the grace. The lease as it stands comes back, for the
    /// ledger. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`PoolError::NotHeld`].
    pub fn release(&mut self, holder: &Holder) -> Result<Lease, PoolError> {
        let address = self.current.get(holder).copied();
        let lease = address.and_then(|address| self.leases.get_mut(&address));
        let lease = lease.ok_or(PoolError::NotHeld(self.block))?;
        lease.released = true;
        Ok(*lease)
    }

    /// Keeps a free address for an invitation, until [`Pool::unreserve`] or [`Pool::lease_reserved`].
    ///
    /// # Errors
    /// [`PoolError::Taken`], [`PoolError::Outside`], [`PoolError::Exhausted`]. Leases whose grace is over count until
    /// [`Pool::expire`].
    pub fn reserve(&mut self, address: Ipv4Addr) -> Result<(), PoolError> {
        self.check_inside(address)?;
        if !self.is_free(address) {
            return Err(PoolError::Taken(address));
        }
        if self.is_full() {
            return Err(PoolError::Exhausted(self.block));
        }
        self.reserved.insert(address);
        Ok(())
    }

    /// Gives a reserved address back at once; whether it was reserved.
    pub fn unreserve(&mut self, address: Ipv4Addr) -> bool {
        self.reserved.remove(&address)
    }

    /// Takes over a lease from the ledger, in any order and any number of times, or one that another login server
    /// has prolonged; of two of the same address and holder, the one that ends later counts. Call [`Pool::expire`]
    /// when all are in.
    ///
    /// # Errors
    /// [`PoolError::Taken`] if another node has the address or it is reserved; [`PoolError::Outside`],
    /// [`PoolError::Exhausted`].
    pub fn restore(&mut self, lease: Lease) -> Result<(), PoolError> {
        self.check_inside(lease.address)?;
        let known = self.leases.get(&lease.address).copied();
        if known.is_some_and(|known| known.holder != lease.holder) || self.reserved.contains(&lease.address) {
            return Err(PoolError::Taken(lease.address));
        }
        if known.is_none() && self.is_full() {
            return Err(PoolError::Exhausted(self.block));
        }
        let newest = match known {
            Some(known) if known.until > lease.until => known,
            Some(known) if known.until == lease.until => {
                Lease { released: known.released || lease.released, ..lease }
            }
            _ => lease,
        };
        self.put(newest);
        let rank = |lease: &Lease| (!lease.released, lease.until);
        if self.lease_of(&lease.holder).is_none_or(|current| rank(current) < rank(&newest)) {
            self.current.insert(lease.holder, lease.address);
        }
        Ok(())
    }

    /// Takes back what is past its grace, and returns it, to be struck from the ledger. Every deed that is given the
    /// time does so as well; a line that stays in the ledger then does no harm, as a new lease of its address
    /// replaces it.
    pub fn expire(&mut self, now: u64) -> Vec<Lease> {
        let mut expired = Vec::new();
        while let Some(&(free_at, address)) = self.frees.first() {
            if free_at > now {
                break;
            }
            self.frees.pop_first();
            let lease = self.leases.remove(&address).expect("each entry of `frees` is that of a lease");
            if self.current.get(&lease.holder) == Some(&address) {
                self.current.remove(&lease.holder);
            }
            expired.push(lease);
        }
        expired
    }

    /// The lease that `holder` has, running or in grace.
    #[must_use]
    pub fn lease_of(&self, holder: &Holder) -> Option<&Lease> {
        self.leases.get(self.current.get(holder)?)
    }

    /// The lease of `address`, running or in grace.
    #[must_use]
    pub fn lease_at(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(&address)
    }

    /// All leases, running or in grace, by address.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// All reserved addresses, in order.
    pub fn reserved(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.reserved.iter().copied()
    }

    /// The block that the pool gives from.
    #[must_use]
    pub fn block(&self) -> Block {
        self.block
    }

    /// How the addresses stand at `now`. Walks all leases.
    #[must_use]
    pub fn counts(&self, now: u64) -> Counts {
        let mut counts = Counts { reserved: self.reserved.len() as u64, ..Counts::default() };
        for lease in self.leases.values() {
            match lease.state(now, self.grace) {
                LeaseState::Held => counts.held += 1,
                LeaseState::Grace => counts.grace += 1,
                LeaseState::Free => {}
            }
        }
        counts.free = self.usable.count() - counts.held - counts.grace - counts.reserved;
        counts
    }

    /// Refuses a lease that has ended, and takes back what is due.
    fn begin(&mut self, now: u64, until: u64) -> Result<(), PoolError> {
        if until <= now {
            return Err(PoolError::Ended { until, now });
        }
        self.expire(now);
        Ok(())
    }

    /// A free address for a newcomer. After as many steps as there are addresses in use, one is free.
    fn choose(&self, holder: &Holder) -> Option<Ipv4Addr> {
        if self.is_full() {
            return None;
        }
        let digest = crate::hash("frejus/1 address4", holder);
        let seed = u64::from_be_bytes(digest[..8].try_into().expect("eight of 32 bytes"));
        self.usable.iter_from(seed).find(|address| self.is_free(*address))
    }

    /// Whether `holder` may have `address`, reservations aside.
    fn check_pin(&self, holder: &Holder, address: Ipv4Addr, now: u64) -> Result<(), PoolError> {
        self.check_inside(address)?;
        if self.lease_at(address).is_some_and(|lease| lease.holder != *holder) {
            return Err(PoolError::Taken(address));
        }
        match self.lease_of(holder) {
            Some(lease) if lease.address != address && lease.state(now, self.grace) == LeaseState::Held => {
                Err(PoolError::Holds(lease.address))
            }
            _ => Ok(()),
        }
    }

    fn check_inside(&self, address: Ipv4Addr) -> Result<(), PoolError> {
        if self.usable.contains(address) {
            return Ok(());
        }
        Err(PoolError::Outside { address, block: self.block })
    }

    /// Writes the lease down; `address` is free, or was this holder's already.
    fn grant(&mut self, holder: Holder, address: Ipv4Addr, until: u64) {
        let until = self.lease_at(address).map_or(until, |known| known.until.max(until));
        if let Some(left) = self.current.insert(holder, address).filter(|left| *left != address)
            && let Some(lease) = self.leases.get_mut(&left)
        {
            lease.released = true;
        }
        self.put(Lease { address, holder, until, released: false });
    }

    fn put(&mut self, lease: Lease) {
        if let Some(old) = self.leases.insert(lease.address, lease) {
            self.frees.remove(&(old.free_at(self.grace), old.address));
        }
        self.frees.insert((lease.free_at(self.grace), lease.address));
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.leases.contains_key(&address) && !self.reserved.contains(&address)
    }

    fn is_full(&self) -> bool {
        (self.leases.len() + self.reserved.len()) as u64 >= self.usable.count().min(Self::MAX)
    }
}

#[cfg(test)]
mod tests;
