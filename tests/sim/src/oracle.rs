//! What must be possible between two NAT classes: one table, for the simulator and for the kernel laboratory.
//!
//! Owns: [`CLASSES`], [`Best`] and the matrix. Never: how a path is found.

use frejus_overlay::document::NatClass;

/// The seven classes of the matrix, in its order.
pub const CLASSES: [NatClass; 7] = [
    NatClass::Open,
    NatClass::Firewalled,
    NatClass::FullCone,
    NatClass::AddressRestricted,
    NatClass::PortRestricted,
    NatClass::SymmetricSequential,
    NatClass::SymmetricRandom,
];

/// The best way there is between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// One is public: direct at once.
    Public,
    /// One is public: the other is asked to dial.
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

use Best::{Guessed as G, Learnt as L, Predicted as P, Public as D, Punched as H, Relay as X, Reversed as R};

/// Rows and columns in the order of [`CLASSES`]; symmetric.
const MATRIX: [[Best; 7]; 7] = [
    [D, R, D, R, R, R, R],
    [R, H, D, H, H, P, G],
    [D, D, D, D, D, L, L],
    [R, H, D, H, H, L, L],
    [R, H, D, H, H, P, G],
    [R, P, L, L, P, P, X],
    [R, G, L, L, G, X, X],
];

/// The best way between two classes; `None` for a class outside the matrix.
#[must_use]
pub fn best(one: NatClass, other: NatClass) -> Option<Best> {
    let at = |class| CLASSES.iter().position(|c| *c == class);
    Some(MATRIX[at(one)?][at(other)?])
}

/// Each unordered pair once: 28.
pub fn pairs() -> impl Iterator<Item = (NatClass, NatClass, Best)> {
    (0..CLASSES.len()).flat_map(|row| {
        (row..CLASSES.len()).map(move |column| (CLASSES[row], CLASSES[column], MATRIX[row][column]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_symmetric_and_counts_as_published() {
        for (one, other, way) in pairs() {
            assert_eq!(best(other, one), Some(way));
        }
        let count = |of: &[Best]| pairs().filter(|(_, _, best)| of.contains(best)).count();
        assert_eq!(pairs().count(), 28);
        assert_eq!(count(&[D, R, H, L]), 21);
        assert_eq!(count(&[P]), 3);
        assert_eq!(count(&[G]), 2);
        assert_eq!(count(&[X]), 2);
        assert_eq!(best(NatClass::UdpBlocked, NatClass::Open), None);
    }
}
