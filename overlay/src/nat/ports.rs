//! How a NAT gives out ports: in sequence or at random.
//!
//! Owns: the judgement over a list of ports in the order in which their mappings were made.

/// How far the next port of a sequence may be, with what other flows took in between.
const NEAR: i32 = 64;

/// Ports in order, judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sequence {
    /// Fewer than three mappings.
    #[default]
    Unknown,
    /// From one to the next, a multiple of this; negative where they count down.
    Step(i32),
    /// At random.
    Random,
}

impl Sequence {
    /// The step of a sequence.
    #[must_use]
    pub const fn step(self) -> Option<i32> {
        match self {
            Self::Step(step) => Some(step),
            Self::Unknown | Self::Random => None,
        }
    }
}

/// Judge ports in the order in which their mappings were made.
///
/// A sequence shows in short steps of one sign. One of a thousand random ports is by chance that near behind the one before;
/// so two such steps are asked for, and a quarter of all: seven random ports pass once in 70,000 tries, three once in
/// a million. The rest may be a lost packet, a wrap at the end of the range, or a super peer that lies.
#[must_use]
pub fn judge(ports: &[u16]) -> Sequence {
    if ports.len() < 3 {
        return Sequence::Unknown;
    }
    let steps: Vec<i32> = ports
        .windows(2)
        .map(|pair| i32::from(pair[1]) - i32::from(pair[0]))
        .filter(|step| *step != 0)
        .collect();
    let up = steps.iter().copied().filter(|step| (1..=NEAR).contains(step));
    let down = steps.iter().copied().filter(|step| (-NEAR..=-1).contains(step));
    let (ups, downs) = (up.clone().count(), down.clone().count());
    let (near, sign) = if ups >= downs { (ups, 1) } else { (downs, -1) };
    if near < 2 || near * 4 < steps.len() {
        return Sequence::Random;
    }
    let steps: Vec<i32> = if sign > 0 { up.collect() } else { down.collect() };
    Sequence::Step(sign * steps.into_iter().fold(0, |gcd, step| greatest_common_divisor(gcd, step.abs())))
}

const fn greatest_common_divisor(mut a: i32, mut b: i32) -> i32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequences_are_found_with_their_step_and_sign() {
        assert_eq!(judge(&[40_000, 40_001, 40_002]), Sequence::Step(1));
        assert_eq!(judge(&[40_010, 40_008, 40_006, 40_002]), Sequence::Step(-2));
        assert_eq!(judge(&[40_000, 40_003, 40_010, 40_011]), Sequence::Step(1), "other flows took some");
        assert_eq!(judge(&[41_022, 41_023, 40_000, 40_001]), Sequence::Step(1), "the range wraps");
        assert_eq!(judge(&[5_000, 5_010, 5_040, 5_060]), Sequence::Step(10));
    }

    #[test]
    fn few_or_scattered_ports_are_no_sequence() {
        assert_eq!(judge(&[40_000, 40_001]), Sequence::Unknown);
        assert_eq!(judge(&[62_244, 26_207, 38_536]), Sequence::Random);
        assert_eq!(judge(&[62_244, 62_250, 38_536, 1_025]), Sequence::Random, "once is chance");
    }

    #[test]
    fn a_lie_in_the_middle_hides_no_sequence() {
        assert_eq!(judge(&[40_000, 999, 40_002, 40_003, 40_004, 12, 40_006, 40_007]), Sequence::Step(1));
    }

    #[test]
    fn random_ports_hardly_ever_pass() {
        let mut state = 7_u64;
        let mut passed = 0;
        for _ in 0..20_000 {
            let ports: Vec<u16> = (0..8)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    1024 + ((state >> 33) % 64_512) as u16
                })
                .collect();
            passed += u32::from(judge(&ports) != Sequence::Random);
        }
        assert!(passed <= 4, "{passed} of 20,000");
    }

    proptest! {
        #[test]
        fn nothing_panics(ports in prop::collection::vec(any::<u16>(), 0..12)) {
            if let Sequence::Step(step) = judge(&ports) {
                prop_assert!(step != 0 && step.abs() <= NEAR);
            }
        }
    }
}
