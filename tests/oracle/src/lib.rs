//! What must be possible between two NAT classes: one table, for the simulator and for the kernel laboratory.
//!
//! Owns: [`CLASSES`], [`Best`] and the matrix. Depends on nothing, since the two share nothing else. Never: how a path is
//! found.

/// The seven classes of the matrix, in its order, by the words of the command line.
pub const CLASSES: [&str; 7] = [
    "open",
    "firewalled",
    "full-cone",
    "address-restricted",
    "port-restricted",
    "symmetric-sequential",
    "symmetric-random",
];

/// The best way there is between two nodes, as the one that speaks first sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Best {
    /// Everybody reaches the other: direct at once.
    Public,
    /// Everybody reaches the first: the other is asked to dial.
    Reversed,
    /// Both open the hole at once.
    Punched,
    /// As punched; the real port is learnt from the first packet that arrives.
    Learnt,
    /// By predicting the next port.
    Predicted,
    /// By guessing at random.
    Guessed,
    /// Only through a relay.
    Relay,
}

impl Best {
    /// Every way once.
    pub const ALL: [Self; 7] = [D, R, H, L, P, G, X];

    /// Its name in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Learnt => "learnt",
            other => other.method(),
        }
    }

    /// What `frejus peers` calls a path that was found so.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Reversed => "reversed",
            Self::Punched | Self::Learnt => "punched",
            Self::Predicted => "predicted",
            Self::Guessed => "guessed",
            Self::Relay => "relay",
        }
    }

    /// Whether the path is to become direct.
    #[must_use]
    pub const fn is_direct(self) -> bool {
        !matches!(self, Self::Relay)
    }
}

use Best::{Guessed as G, Learnt as L, Predicted as P, Public as D, Punched as H, Relay as X, Reversed as R};

/// Rows and columns in the order of [`CLASSES`]; the row speaks first.
const MATRIX: [[Best; 7]; 7] = [
    [D, R, D, R, R, R, R],
    [D, H, D, H, H, P, G],
    [D, R, D, R, R, R, R],
    [D, H, D, H, H, L, L],
    [D, H, D, H, H, P, G],
    [D, P, D, L, P, P, X],
    [D, G, D, L, G, X, X],
];

/// The best way from a node of class `first` to one of class `other`; `None` for a class outside the matrix.
#[must_use]
pub fn best(first: &str, other: &str) -> Option<Best> {
    let at = |class| CLASSES.iter().position(|c| *c == class);
    Some(MATRIX[at(first)?][at(other)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_two_sides_and_counts_as_published() {
        let mirrored = |best| match best {
            R => D,
            other => other,
        };
        for (row, ways) in MATRIX.iter().enumerate() {
            for (column, way) in ways.iter().enumerate() {
                assert_eq!(mirrored(*way), mirrored(MATRIX[column][row]), "{row} {column}");
            }
        }
        let pairs = || (0..7).flat_map(|row| (row..7).map(move |column| MATRIX[row][column]));
        let count = |of: &[Best]| pairs().filter(|best| of.contains(best)).count();
        assert_eq!(pairs().count(), 28);
        assert_eq!(count(&[D, R, H, L]), 21);
        assert_eq!((count(&[P]), count(&[G]), count(&[X])), (3, 2, 2));
        assert_eq!(best("symmetric-random", "open"), Some(D));
        assert_eq!(best("udp-blocked", "open"), None);
    }
}
