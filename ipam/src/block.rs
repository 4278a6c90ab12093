//! A piece of the network's prefix, from which one login server leases.
//!
//! Owns: [`Block`], its division, and which of its addresses a node may hold. Never: who holds them.
//!
//! Two CIDR pieces are either disjoint or one lies in the other, so comparing two blocks settles what two login
//! servers that can't see each other may lease.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use crate::prefix::normalised;

/// A contiguous CIDR piece of a network's prefix; its host bits are zero. Serialised as first address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Ipv4Addr, u8)", into = "(Ipv4Addr, u8)")]
pub struct Block(Ipv4Network);

/// What does not describe a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The prefix length is above 32.
    #[error("{0}/{1} is no address block: take a prefix length of at most 32")]
    Length(Ipv4Addr, u8),
    /// The first address has host bits, so the same block could be written in two ways.
    #[error("{0}/{1} is no address block: clear the bits behind the prefix length")]
    HostBits(Ipv4Addr, u8),
    /// The text is not in CIDR notation.
    #[error("{0:?} is no address block: write it like 10.93.128.0/17")]
    Syntax(String),
}

impl Block {
    /// All of `prefix`.
    #[must_use]
    pub fn whole(prefix: Ipv4Network) -> Self {
        Self(normalised(prefix))
    }

    /// The lower and the upper half; `None` for a single address.
    #[must_use]
    pub fn halves(self) -> Option<(Self, Self)> {
        let length = self.0.prefix() + 1;
        Some((self.nth(length, 0)?, self.nth(length, 1)?))
    }

    /// The `n`-th piece of prefix length `length`, counted from zero; `None` where there is none.
    #[must_use]
    pub fn nth(self, length: u8, n: u32) -> Option<Self> {
        let depth = length.checked_sub(self.0.prefix()).filter(|_| length <= 32)?;
        if u64::from(n) >> depth != 0 {
            return None;
        }
        let offset = u64::from(n) << (32 - length);
        let first = u32::from(self.0.network()) | u32::try_from(offset).expect("n is below 2^depth");
        Some(Self(Ipv4Network::new(first.into(), length).expect("the length is at most 32")))
    }

    /// All pieces of prefix length `length`, in order: disjoint, and together the whole block. Empty if the block
    /// itself is smaller.
    pub fn split(self, length: u8) -> impl Iterator<Item = Self> {
        (0..=u32::MAX).map_while(move |n| self.nth(length, n))
    }

    /// Whether `address` is in the block.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(address)
    }

    /// Whether the whole block lies in `prefix`.
    #[must_use]
    pub fn is_inside(self, prefix: Ipv4Network) -> bool {
        self.0.is_subnet_of(prefix)
    }

    /// Whether the two share no address.
    #[must_use]
    pub fn disjoint(self, other: Self) -> bool {
        !self.0.overlaps(other.0)
    }

    /// The block in CIDR form.
    #[must_use]
    pub fn network(self) -> Ipv4Network {
        self.0
    }

    /// The addresses that a node of a network with this prefix may hold, in order: all of the block but the network
    /// address and the broadcast address of the *prefix* (RFC 922, section 7).
    #[must_use]
    pub fn usable(self, prefix: Ipv4Network) -> Usable {
        let (first, last) = (u32::from(self.0.network()), u32::from(self.0.broadcast()));
        let skip_first = u32::from(self.0.network() == prefix.network());
        let skip_last = u32::from(self.0.broadcast() == prefix.broadcast());
        let usable = (u64::from(first) + u64::from(skip_first))..=u64::from(last.saturating_sub(skip_last));
        if usable.is_empty() {
            return Usable { first: 1, last: 0 };
        }
        Usable { first: first + skip_first, last: last - skip_last }
    }
}

/// The addresses of a block that nodes may hold: a run without gaps, possibly empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    first: u32,
    last: u32,
}

impl Usable {
    /// How many there are.
    #[must_use]
    pub fn count(self) -> u64 {
        (u64::from(self.last) + 1).saturating_sub(u64::from(self.first))
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.range().contains(&u32::from(address))
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Ipv4Addr> {
        self.range().map(Ipv4Addr::from)
    }

    /// Each of them once, beginning at the one that `seed` points to.
    pub(crate) fn iter_from(self, seed: u64) -> impl Iterator<Item = Ipv4Addr> {
        let offset = seed.checked_rem(self.count()).unwrap_or(0);
        let start = self.first.saturating_add(u32::try_from(offset).expect("an offset among u32 addresses"));
        let wrapped = self.first..start;
        (start..=self.last).chain(wrapped).map(Ipv4Addr::from)
    }

    fn range(self) -> RangeInclusive<u32> {
        self.first..=self.last
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Block {
    type Err = BlockError;
    fn from_str(text: &str) -> Result<Self, BlockError> {
        let network: Ipv4Network = text.parse().map_err(|_| BlockError::Syntax(text.to_owned()))?;
        Self::try_from((network.ip(), network.prefix()))
    }
}

impl TryFrom<(Ipv4Addr, u8)> for Block {
    type Error = BlockError;
    fn try_from((first, length): (Ipv4Addr, u8)) -> Result<Self, BlockError> {
        let network = Ipv4Network::new(first, length).map_err(|_| BlockError::Length(first, length))?;
        if network.network() != first {
            return Err(BlockError::HostBits(first, length));
        }
        Ok(Self(network))
    }
}

impl From<Block> for (Ipv4Addr, u8) {
    fn from(block: Block) -> Self {
        (block.0.network(), block.0.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(text: &str) -> Block {
        text.parse().unwrap()
    }

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_ends_of_the_prefix_are_skipped() {
        let prefix = net("10.93.0.0/16");
        let (low, high) = Block::whole(prefix).halves().unwrap();
        assert_eq!(low.usable(prefix).iter().next(), Some(Ipv4Addr::new(10, 93, 0, 1)));
        assert_eq!(low.usable(prefix).iter().last(), Some(Ipv4Addr::new(10, 93, 127, 255)));
        assert_eq!(high.usable(prefix).iter().next(), Some(Ipv4Addr::new(10, 93, 128, 0)));
        assert_eq!(high.usable(prefix).iter().last(), Some(Ipv4Addr::new(10, 93, 255, 254)));
        assert_eq!(low.usable(prefix).count() + high.usable(prefix).count(), 65_534);
    }

    #[test]
    fn a_block_of_one_address_may_have_none_to_give() {
        let prefix = net("10.93.0.0/29");
        assert_eq!(block("10.93.0.0/32").usable(prefix).count(), 0);
        assert_eq!(block("10.93.0.0/32").usable(prefix).iter_from(9).count(), 0);
        assert_eq!(block("10.93.0.3/32").usable(prefix).count(), 1);
        assert_eq!(block("10.93.0.7/32").usable(prefix).count(), 0);
        for single in ["0.0.0.0/32", "255.255.255.255/32"] {
            assert_eq!(block(single).usable(net(single)).count(), 0);
        }
        assert_eq!(block("0.0.0.0/0").usable(net("0.0.0.0/0")).count(), (1 << 32) - 2);
    }

    #[test]
    fn pieces_are_counted_from_zero() {
        let whole = block("10.93.0.0/16");
        assert_eq!(whole.nth(24, 3), Some(block("10.93.3.0/24")));
        assert_eq!(whole.nth(24, 255), Some(block("10.93.255.0/24")));
        assert_eq!(whole.nth(24, 256), None);
        assert_eq!(whole.nth(16, 0), Some(whole));
        assert_eq!(whole.nth(15, 0), None);
        assert_eq!(whole.nth(33, 0), None);
        assert_eq!(block("0.0.0.0/0").nth(32, u32::MAX), Some(block("255.255.255.255/32")));
        assert_eq!(block("10.0.0.1/32").halves(), None);
        assert_eq!(whole.split(15).count(), 0);
    }

    #[test]
    fn a_block_is_written_in_one_way_only() {
        assert_eq!(
            "10.93.0.1/16".parse::<Block>(),
            Err(BlockError::HostBits(Ipv4Addr::new(10, 93, 0, 1), 16))
        );
        assert_eq!("10.93/16x".parse::<Block>(), Err(BlockError::Syntax("10.93/16x".into())));
        let any = Ipv4Addr::UNSPECIFIED;
        assert_eq!(Block::try_from((any, 33)), Err(BlockError::Length(any, 33)));
        assert_eq!(Block::whole(net("10.93.4.7/16")), block("10.93.0.0/16"));
        assert_eq!(block("10.93.0.0/16").to_string(), "10.93.0.0/16");
    }

    #[test]
    fn iteration_from_a_seed_visits_each_address_once() {
        let prefix = net("10.93.0.0/28");
        let usable = Block::whole(prefix).usable(prefix);
        for seed in [0, 1, 13, 14, u64::MAX] {
            let mut visited: Vec<_> = usable.iter_from(seed).collect();
            visited.sort();
            assert_eq!(visited, usable.iter().collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn pieces_are_disjoint_and_cover(address: u32, length in 8..=32u8, depth in 0..=6u8) {
            let whole = Block::whole(Ipv4Network::new(address.into(), length).unwrap());
            let length = (length + depth).min(32);
            let pieces: Vec<_> = whole.split(length).collect();
            for (i, one) in pieces.iter().enumerate() {
                prop_assert!(one.is_inside(whole.network()));
                prop_assert!(pieces[i + 1..].iter().all(|other| one.disjoint(*other) && other.disjoint(*one)));
            }
            let covered: u64 = pieces.iter().map(|piece| 1 << (32 - piece.network().prefix())).sum();
            prop_assert_eq!(covered, 1u64 << (32 - whole.network().prefix()));
        }

        #[test]
        fn an_address_is_in_exactly_one_half(address: u32, length in 0..=31u8) {
            let (low, high) = Block::whole(Ipv4Network::new(address.into(), length).unwrap()).halves().unwrap();
            prop_assert!(low.disjoint(high));
            prop_assert!(low.contains(address.into()) != high.contains(address.into()));
        }

        #[test]
        fn blocks_nest_or_are_disjoint(one: u32, other: u32, a in 8..=32u8, b in 8..=32u8, near: bool) {
            let other = if near { one ^ (other & 0xffff) } else { other };
            let one = Block::whole(Ipv4Network::new(one.into(), a).unwrap());
            let other = Block::whole(Ipv4Network::new(other.into(), b).unwrap());
            let nested = one.is_inside(other.network()) || other.is_inside(one.network());
            prop_assert_eq!(one.disjoint(other), !nested);
        }
    }
}
