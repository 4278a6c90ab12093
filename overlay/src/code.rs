//! The invitation code: one line that lets a machine into a network.
//!
//! Owns: [`Code`] and its text form, `frejus1` and the base32 of `version (1) ‖ postcard ‖ checksum (4)`; the
//! checksum is the beginning of a SHA-256 over what stands before it. Never: whether a code is still good; the
//! login server knows that.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{NetworkId, TunnelKey, base32, hash};
use crate::timing::UnixTime;

/// What every code begins with; the digit is the version of the text form.
const PREFIX: &str = "frejus1";

/// What codes of every version begin with.
const ANY_PREFIX: &str = "frejus";

/// Version of what the base32 holds.
const VERSION: u8 = 1;

/// A mistyped code passes for a good one once in four billion times.
const CHECKSUM: usize = 4;

/// Longest text that is looked at: a full code has 3 doors of 4 IPv6 addresses (3 × (33 + 4 × 20) bytes), a name of
/// 63 bytes and 70 bytes of the rest, hence less than 800 characters; room for line ends that crept in.
const MAX_TEXT: usize = 2048;

/// A login server that takes the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Requests are sealed to it.
    pub tunnel_key: TunnelKey,
    /// Where it listens, UDP; at most [`Code::MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

/// What a newcomer must know, and the secret that lets it in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The network; the genesis that a door sends must hash to it.
    pub network: NetworkId,
    /// Whoever has it may join: never logged, never printed but by [`Code::reveal`].
    pub secret: [u8; 16],
    /// Whom to ask; one to [`Code::MAX_DOORS`].
    pub doors: Vec<Door>,
    /// The network's name, for people and for the default state directory.
    pub network_name: String,
    /// When the login server stops taking it, by the clock of the login server.
    pub expires: UnixTime,
}

/// Why a text is not a code that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It is something else.
    #[error("this is not a frejus code: a code begins with {PREFIX}")]
    NotACode,
    /// It began as a code; characters are missing or wrong.
    #[error("the code is truncated or altered: copy the whole line again")]
    Altered,
    /// A later version of frejus made it.
    #[error("the code was made by a newer frejus: update this one")]
    Newer,
}

impl Code {
    /// Doors in a code, so that one that is down does not keep a newcomer out.
    pub const MAX_DOORS: usize = 3;
    /// Addresses of a door: two a family.
    pub const MAX_ADDRESSES: usize = 4;

    /// The one line to hand over. It holds the secret; doors and addresses beyond the bounds are left out.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut code = self.clone();
        code.doors.truncate(Self::MAX_DOORS);
        for door in &mut code.doors {
            door.addresses.truncate(Self::MAX_ADDRESSES);
        }
        let mut bytes = postcard::to_extend(&code, vec![VERSION]).expect("codes are plain data");
        let sum = checksum(&bytes);
        bytes.extend(sum);
        format!("{PREFIX}{}", base32().encode(&bytes))
    }

    fn is_bounded(&self) -> bool {
        let doors = 1..=Self::MAX_DOORS;
        let addresses = 1..=Self::MAX_ADDRESSES;
        doors.contains(&self.doors.len())
            && self.doors.iter().all(|door| addresses.contains(&door.addresses.len()))
            && frejus_ipam::Label::parse(&self.network_name).is_ok_and(|l| l.as_str() == self.network_name)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Read a code as a person pasted it: blanks, line ends and capitals don't matter.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).take(MAX_TEXT).collect();
        let text = text.to_ascii_lowercase();
        let Some(body) = text.strip_prefix(PREFIX) else { return Err(foreign(&text)) };
        let bytes = base32().decode(body.as_bytes()).map_err(|_| CodeError::Altered)?;
        let (signed, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(CodeError::Altered)?;
        if checksum(signed) != *sum {
            return Err(CodeError::Altered);
        }
        let (version, body) = signed.split_first().ok_or(CodeError::Altered)?;
        if *version != VERSION {
            return Err(CodeError::Newer);
        }
        let (code, rest) = postcard::take_from_bytes::<Self>(body).map_err(|_| CodeError::Altered)?;
        if rest.is_empty() && code.is_bounded() { Ok(code) } else { Err(CodeError::Altered) }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("network", &self.network)
            .field("network_name", &self.network_name)
            .field("doors", &self.doors)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What a text without our prefix is.
fn foreign(text: &str) -> CodeError {
    let version = text.strip_prefix(ANY_PREFIX).and_then(|rest| rest.chars().next());
    match version {
        Some('2'..='9') => CodeError::Newer,
        None if !text.is_empty() && PREFIX.starts_with(text) => CodeError::Altered,
        _ => CodeError::NotACode,
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = hash("frejus/1 code", &[bytes]);
    *digest.first_chunk().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code() -> Code {
        Code {
            network: NetworkId([7; 32]),
            secret: [0xA5; 16],
            doors: vec![Door {
                tunnel_key: TunnelKey([9; 32]),
                addresses: vec!["203.0.113.5:51860".parse().unwrap(), "[2001:db8::5]:51860".parse().unwrap()],
            }],
            network_name: "mymed".to_owned(),
            expires: UnixTime(1_800_000_000),
        }
    }

    #[test]
    fn survives_the_way_over_paper_and_telephone() {
        let text = code().reveal();
        assert!(text.starts_with("frejus1"));
        assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        let wrapped = format!("  {}\r\n {}\n", &text[..40], text[40..].to_uppercase());
        assert_eq!(wrapped.parse::<Code>(), Ok(code()));
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        let text = code().reveal();
        assert_eq!("hello".parse::<Code>(), Err(CodeError::NotACode));
        assert_eq!("".parse::<Code>(), Err(CodeError::NotACode));
        assert_eq!("frejus".parse::<Code>(), Err(CodeError::Altered));
        assert_eq!("frejus1".parse::<Code>(), Err(CodeError::Altered));
        assert_eq!(format!("frejus2{}", &text[7..]).parse::<Code>(), Err(CodeError::Newer));
        assert_eq!(format!("{text}1").parse::<Code>(), Err(CodeError::Altered));
        let mut newer = vec![VERSION + 1, 1, 2, 3];
        newer.extend(checksum(&newer));
        assert_eq!(format!("frejus1{}", base32().encode(&newer)).parse::<Code>(), Err(CodeError::Newer));
    }

    #[test]
    fn a_code_without_a_door_is_none() {
        for doors in [vec![], vec![Door { tunnel_key: TunnelKey([1; 32]), addresses: vec![] }]] {
            assert_eq!(Code { doors, ..code() }.reveal().parse::<Code>(), Err(CodeError::Altered));
        }
        let outside = Code { network_name: "../etc".to_owned(), ..code() };
        assert_eq!(outside.reveal().parse::<Code>(), Err(CodeError::Altered));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_left_out() {
        let mut long = code();
        long.doors = vec![long.doors[0].clone(); 9];
        long.doors[0].addresses = vec![long.doors[0].addresses[0]; 9];
        let read: Code = long.reveal().parse().unwrap();
        assert_eq!(read.doors.len(), Code::MAX_DOORS);
        assert_eq!(read.doors[0].addresses.len(), Code::MAX_ADDRESSES);
        assert!(long.reveal().len() < MAX_TEXT / 2);
    }

    #[test]
    fn debug_keeps_the_secret() {
        let shown = format!("{:?}", code());
        assert!(shown.contains("mymed") && !shown.contains("165") && !shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(at in 7usize..200, to in "[a-z2-7]") {
            let mut text = code().reveal();
            let at = at.min(text.len() - 1);
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert_eq!(text.parse::<Code>(), Err(CodeError::Altered));
        }

        #[test]
        fn a_cut_code_is_noticed(length in 7usize..200) {
            let text = code().reveal();
            prop_assume!(length < text.len());
            prop_assert_eq!(text[..length].parse::<Code>(), Err(CodeError::Altered));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = text.parse::<Code>();
            let _ = format!("frejus1{text}").parse::<Code>();
        }
    }
}
