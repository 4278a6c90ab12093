//! A control message in parts, for paths that take less than the longest message.
//!
//! Owns: the parts' layout, `2 ‖ number (2, big endian) ‖ place (1) ‖ count (1) ‖ bytes`, where a whole message has its
//! version in front; and [`Assembly`], bounded, in which they come together. Never: what the message says, or a timer: a
//! message of which a part was lost makes room for later ones, and whoever sent it says it again.

use std::collections::VecDeque;

/// First byte.
const PART: u8 = 2;
/// Bytes in front of a part's share.
const HEADER: usize = 5;
/// Parts of one message: the longest message (1232 bytes) over the narrowest path (576 bytes outside leave 447 each).
const MAX_PARTS: usize = 4;
/// Messages of one peer that wait for a part; with [`MAX_PARTS`] of 1227 bytes each 20 KiB at the worst.
const MAX_WAITING: usize = 4;

/// One part, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The message's.
    number: u16,
    place: usize,
    count: usize,
    share: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads a part; `None` if it is none, such as a whole message.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let [PART, high, low, place, count, share @ ..] = bytes else { return None };
        let (place, count) = (usize::from(*place), usize::from(*count));
        let is_sound =
            (2..=MAX_PARTS).contains(&count) && place < count && share.len() <= super::control::MAX;
        is_sound.then_some(Self { number: u16::from_be_bytes([*high, *low]), place, count, share })
    }
}

/// Cuts `message` into parts of at most `room` bytes, header included. `number` tells the messages of one sender apart.
///
/// None at all if it would take more than four.
#[must_use]
pub fn split(message: &[u8], room: usize, number: u16) -> Vec<Vec<u8>> {
    let share = room.saturating_sub(HEADER).max(1);
    let count = message.len().div_ceil(share);
    let Some(total) = u8::try_from(count).ok().filter(|total| usize::from(*total) <= MAX_PARTS) else {
        return Vec::new();
    };
    let [high, low] = number.to_be_bytes();
    let part = |(place, share): (u8, &[u8])| [&[PART, high, low, place, total], share].concat();
    (0..total).zip(message.chunks(share)).map(part).collect()
}

#[derive(Debug)]
struct Waiting {
    number: u16,
    shares: [Option<Vec<u8>>; MAX_PARTS],
    count: usize,
}

/// Messages of one peer of which parts have come.
#[derive(Debug, Default)]
pub struct Assembly(VecDeque<Waiting>);

impl Assembly {
    /// A part has come; the message, if it was the last that lacked.
    pub fn add(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        let same = |waiting: &Waiting| waiting.number == part.number && waiting.count == part.count;
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            if self.0.len() == MAX_WAITING {
                self.0.pop_front();
            }
            self.0.push_back(Waiting { number: part.number, shares: Default::default(), count: part.count });
            self.0.len() - 1
        });
        let waiting = &mut self.0[at];
        waiting.shares[part.place] = Some(part.share.to_vec());
        if waiting.shares[..waiting.count].iter().any(Option::is_none) {
            return None;
        }
        self.0.remove(at).map(|done| done.shares.into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::control::MAX;

    proptest! {
        #[test]
        fn what_was_cut_comes_together_in_any_order(
            message in prop::collection::vec(any::<u8>(), 500..=MAX), room in 400_usize..450, turned: bool, number: u16,
        ) {
            let mut parts = split(&message, room, number);
            prop_assert!((2..=MAX_PARTS).contains(&parts.len()));
            prop_assert!(parts.iter().all(|part| part.len() <= room));
            if turned {
                parts.reverse();
            }
            let mut assembly = Assembly::default();
            let whole: Vec<_> =
                parts.iter().filter_map(|part| assembly.add(&Part::decode(part).unwrap())).collect();
            prop_assert_eq!(whole, [message]);
            prop_assert!(assembly.0.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..99)) {
            let mut assembly = Assembly::default();
            for mut bytes in parts {
                if let Some(first) = bytes.first_mut() {
                    *first = PART;
                }
                if let Some(part) = Part::decode(&bytes) {
                    _ = assembly.add(&part);
                }
                prop_assert!(assembly.0.len() <= MAX_WAITING);
            }
        }
    }

    #[test]
    fn what_is_no_part_is_none() {
        for bytes in
            [&[][..], &[1, 0, 0, 0, 2], &[2, 0, 0, 0], &[2, 0, 0, 2, 2], &[2, 0, 0, 0, 1], &[2, 0, 0, 0, 5]]
        {
            assert_eq!(Part::decode(bytes), None, "{bytes:?}");
        }
        assert!(Part::decode(&[2, 0, 0, 1, 2]).is_some());
        assert!(split(&[0; 1232], 200, 1).is_empty(), "more parts than anybody takes");
    }
}
