//! What was received already: the replay window of one key (RFC 6479).
//!
//! Owns: [`Window`]. A counter enters after its packet proved authentic, never before: a forged one must not move the
//! window. Never: a lock.

/// Counters behind the newest, itself included, that are told apart; older ones are refused. At a million packets a
/// second 8 ms of reordering, as much as the two ways of a path that has just changed differ.
pub const WINDOW: u64 = 8192;

/// One word more than the window has, so that the word being filled never holds what is still told apart.
const WORDS: usize = WINDOW as usize / 64 + 1;

/// One bit a counter, in a ring of words.
#[derive(Clone, Debug)]
pub struct Window {
    newest: u64,
    words: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { newest: 0, words: [0; WORDS] }
    }
}

impl Window {
    /// Whether `counter` is seen for the first time, and not too late; remembers it.
    pub const fn admit(&mut self, counter: u64) -> bool {
        if counter > self.newest {
            self.advance(counter);
        } else if self.newest - counter >= WINDOW {
            return false;
        }
        let word = &mut self.words[(counter / 64 % WORDS as u64) as usize];
        let bit = 1 << (counter % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    const fn advance(&mut self, counter: u64) {
        let (from, to) = (self.newest / 64, counter / 64);
        let fresh = if to - from > WORDS as u64 { WORDS as u64 } else { to - from };
        let mut n = 1;
        while n <= fresh {
            self.words[((from + n) % WORDS as u64) as usize] = 0;
            n += 1;
        }
        self.newest = counter;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_edges_are_exact() {
        let mut window = Window::default();
        assert!(window.admit(0) && !window.admit(0));
        assert!(window.admit(WINDOW + 1));
        assert!(!window.admit(1), "8192 behind the newest");
        assert!(window.admit(2), "8191 behind the newest");
        assert!(!window.admit(2));
        assert!(window.admit(u64::MAX) && !window.admit(u64::MAX));
        assert!(!window.admit(u64::MAX - WINDOW) && window.admit(u64::MAX - WINDOW + 1));
    }

    #[test]
    fn a_leap_of_any_length_forgets_exactly_what_left_the_window() {
        for leap in [1, 63, 64, 65, 8128, 8191, 8192, 8256, 8257, 100_000] {
            let mut window = Window::default();
            for counter in 0..100 {
                assert!(window.admit(counter));
            }
            let newest = 99 + leap;
            assert!(window.admit(newest));
            for counter in 0..newest {
                let seen = counter < 100;
                let late = newest - counter >= WINDOW;
                assert_eq!(window.admit(counter), !seen && !late, "{counter} after a leap of {leap}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set_with_an_edge(counters in prop::collection::vec(0_u64..30_000, 1..400)) {
            let (mut window, mut seen, mut newest) = (Window::default(), BTreeSet::new(), 0);
            for counter in counters {
                let late = counter + WINDOW <= newest;
                prop_assert_eq!(window.admit(counter), !late && seen.insert(counter));
                newest = newest.max(counter);
            }
        }
    }
}
