//! Names of nodes and of networks: one label of the domain name system each.
//!
//! Owns: [`Label`], what it may look like, and how one is made of whatever a machine is called. Never: a table of
//! names that are taken; it is asked through a predicate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host label in lower case (RFC 1035, section 2.3.1, with the leading digits of RFC 1123, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// Why a text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// There is nothing.
    #[error("a name can't be empty: give it 1 to 63 letters, digits or hyphens")]
    Empty,
    /// It is longer than 63 bytes.
    #[error("a name of {0} bytes is too long: give it 1 to 63 letters, digits or hyphens")]
    TooLong(usize),
    /// It has a character that host names can't have.
    #[error("the name {0:?} has the character {1:?}: use letters a to z, digits and hyphens only")]
    Character(String, char),
    /// A hyphen is the first or the last character.
    #[error("the name {0:?} begins or ends with a hyphen: put a letter or a digit there")]
    Hyphen(String),
}

impl Label {
    /// The longest label, in bytes (RFC 1035, section 2.3.4).
    pub const MAX: usize = 63;

    /// How many numbers [`Label::unique`] tries: as many as a network has addresses by default.
    const ATTEMPTS: u32 = 65_536;

    /// The label that `text` is, in lower case.
    ///
    /// # Errors
    /// [`LabelError`], which says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > Self::MAX {
            return Err(LabelError::TooLong(text.len()));
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(LabelError::Character(text.to_owned(), c));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(LabelError::Hyphen(text.to_owned()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// A label close to a host name: its first label, accents dropped, hyphens for what can't stand; `node` if
    /// nothing is left.
    #[must_use]
    pub fn suggest(host: &str) -> Self {
        let mut text = String::new();
        for c in host.trim().split('.').next().unwrap_or_default().chars().filter(|c| !"'’".contains(*c)) {
            let c = plain(c);
            if c.is_ascii_alphanumeric() {
                text.push(c);
            } else if !text.is_empty() && !text.ends_with('-') {
                text.push('-');
            }
            if text.len() == Self::MAX {
                break;
            }
        }
        let text = text.trim_end_matches('-');
        Self::parse(text).unwrap_or_else(|_| Self("node".to_owned()))
    }

    /// This label if it is not taken, else the first of `LABEL-2`, `LABEL-3`, … that is not; a long label is cut so
    /// that the number fits. `None` once 65,536 are taken.
    #[must_use]
    pub fn unique(&self, mut taken: impl FnMut(&Self) -> bool) -> Option<Self> {
        let numbered = (2..=Self::ATTEMPTS).map(|number| self.with_number(number));
        std::iter::once(self.clone()).chain(numbered).find(|label| !taken(label))
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn with_number(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let room = self.0.len().min(Self::MAX - suffix.len());
        Self(format!("{}{suffix}", self.0[..room].trim_end_matches('-')))
    }
}

/// The letter without its accent, in lower case, for the letters of French, Italian and their neighbours.
fn plain(c: char) -> char {
    match c {
        'à' | 'á' | 'â' | 'ä' | 'ã' | 'å' | 'À' | 'Á' | 'Â' | 'Ä' | 'Ã' | 'Å' => 'a',
        'ç' | 'Ç' => 'c',
        'è' | 'é' | 'ê' | 'ë' | 'È' | 'É' | 'Ê' | 'Ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' | 'Ì' | 'Í' | 'Î' | 'Ï' => 'i',
        'ñ' | 'Ñ' => 'n',
        'ò' | 'ó' | 'ô' | 'ö' | 'õ' | 'Ò' | 'Ó' | 'Ô' | 'Ö' | 'Õ' => 'o',
        'ù' | 'ú' | 'û' | 'ü' | 'Ù' | 'Ú' | 'Û' | 'Ü' => 'u',
        'ÿ' | 'ý' | 'Ÿ' | 'Ý' => 'y',
        other => other.to_ascii_lowercase(),
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;
    fn try_from(text: String) -> Result<Self, LabelError> {
        Self::parse(&text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_checked_and_lower_cased() {
        let longest = "a".repeat(63);
        for (text, label) in
            [("Turin", "turin"), ("3com", "3com"), ("a", "a"), ("a--b", "a--b"), (&longest, &longest)]
        {
            assert_eq!(Label::parse(text).unwrap().as_str(), label);
        }
    }

    #[test]
    fn what_is_no_label_is_told_why() {
        assert_eq!(Label::parse(""), Err(LabelError::Empty));
        assert_eq!(Label::parse(&"a".repeat(64)), Err(LabelError::TooLong(64)));
        assert_eq!(Label::parse("a.b"), Err(LabelError::Character("a.b".into(), '.')));
        assert_eq!(Label::parse("a_b"), Err(LabelError::Character("a_b".into(), '_')));
        assert_eq!(Label::parse("Fréjus"), Err(LabelError::Character("Fréjus".into(), 'é')));
        assert_eq!(Label::parse("a\n"), Err(LabelError::Character("a\n".into(), '\n')));
        for text in ["-", "-a", "a-"] {
            assert_eq!(Label::parse(text), Err(LabelError::Hyphen(text.into())));
        }
    }

    #[test]
    fn a_host_name_becomes_a_label() {
        for (host, label) in [
            ("laptop.example.com", "laptop"),
            ("Frédéric’s MacBook Pro", "frederics-macbook-pro"),
            ("  my_host__2 ", "my-host-2"),
            ("--x--", "x"),
            ("", "node"),
            (".local", "node"),
            ("主机", "node"),
        ] {
            assert_eq!(Label::suggest(host).as_str(), label, "of {host:?}");
        }
    }

    #[test]
    fn taken_names_get_a_number() {
        let label = Label::parse("turin").unwrap();
        assert_eq!(label.unique(|_| false), Some(label.clone()));
        let mut taken = BTreeSet::new();
        for expected in ["turin", "turin-2", "turin-3"] {
            let unique = label.unique(|l| taken.contains(l)).unwrap();
            assert_eq!(unique.as_str(), expected);
            taken.insert(unique);
        }
        assert_eq!(label.unique(|_| true), None);
    }

    #[test]
    fn a_long_name_is_cut_for_its_number() {
        let label = Label::parse(&format!("{}-bc", "a".repeat(60))).unwrap();
        let unique = label.unique(|l| *l == label).unwrap();
        assert_eq!(unique.as_str(), format!("{}-2", "a".repeat(60)));
    }

    proptest! {
        #[test]
        fn whatever_is_suggested_is_a_label(host: String, number in 2..65_536u32) {
            let label = Label::suggest(&host);
            prop_assert_eq!(Label::parse(label.as_str()), Ok(label.clone()));
            let numbered = label.with_number(number);
            prop_assert_eq!(Label::parse(numbered.as_str()), Ok(numbered));
        }

        #[test]
        fn a_label_is_its_own_suggestion(text in "[a-z0-9]([a-z0-9]{0,61}[a-z0-9])?") {
            prop_assert_eq!(Label::suggest(&text), Label::parse(&text).unwrap());
        }
    }
}
