//! Ports in the order in which a NAT gives them out.
//!
//! Owns: [`Window`], and what follows from two ports that were seen before and after.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Ports that are worth a probe each: of a NAT that gave out more meanwhile, too many others have been served.
const WIDEST: u16 = 24;
/// Below it no NAT maps.
const LOWEST: i32 = 1024;

/// Some ports of one address: `first`, and so many more, each `step` further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whose.
    pub ip: IpAddr,
    /// The first.
    pub first: u16,
    /// From one to the next; may be negative.
    pub step: i16,
    /// How many, at most [`Self::MOST`].
    pub count: u8,
}

impl Window {
    /// More are a peer's mischief.
    pub const MOST: u8 = WIDEST as u8;

    /// The ports that come next after one that was seen.
    #[must_use]
    pub fn after(seen: SocketAddr, step: i16, count: u8) -> Self {
        Self { ip: seen.ip(), first: seen.port(), step, count }.shifted(1)
    }

    /// So many steps further.
    #[must_use]
    pub fn shifted(self, steps: u16) -> Self {
        let first = i32::from(self.first) + i32::from(self.step) * i32::from(steps);
        Self { first: wrapped(first), ..self }
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let (first, step) = (i32::from(self.first), i32::from(self.step));
        (0..i32::from(self.count.min(Self::MOST))).map(move |at| wrapped(first + step * at))
    }
}

/// A NAT that reaches one end of its ports goes on at the other.
fn wrapped(port: i32) -> u16 {
    let span = i32::from(u16::MAX) - LOWEST + 1;
    (LOWEST + (port - LOWEST).rem_euclid(span)) as u16
}

/// The ports that were given out between two that were seen, none of them if they are too many, or if the two do not
/// fit the step.
#[must_use]
pub fn between(first: SocketAddr, second: SocketAddr, step: i16) -> Option<Window> {
    let distance = i32::from(second.port()) - i32::from(first.port());
    if first.ip() != second.ip() || step == 0 || distance % i32::from(step) != 0 {
        return None;
    }
    let given = distance / i32::from(step) - 1;
    let count = u8::try_from(given).ok().filter(|count| (1..=Window::MOST).contains(count))?;
    Some(Window::after(first, step, count))
}
