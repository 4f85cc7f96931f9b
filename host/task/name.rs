//! Names that users choose, and the one rule for all of them. Every id, type, plugin, node and topic is
//! validated here before it is used in a key, a path or a label.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, sync::Arc};

/// A valid name: 1 to 128 of `A-Z a-z 0-9 . _ : -`, beginning with a letter or a digit.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The id of a task, which is its idempotency key.
pub type TaskId = Name;

/// Why a name was refused. `what` is the kind of name, such as "task type".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It has no characters.
    #[error("{what} is empty")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// It has more than [`Name::MAX_BYTES`] bytes.
    #[error("{what} has {length} bytes; at most {} are allowed", Name::MAX_BYTES)]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// It has a character that names may not have.
    #[error("{what} {given:?} has {found:?}; only letters, digits and . _ : - are allowed")]
    Character {
        /// What was to be named.
        what: &'static str,
        /// The whole text.
        given: String,
        /// The character.
        found: char,
    },
    /// It begins with a character that only later ones may be.
    #[error("{what} {given:?} does not begin with a letter or a digit")]
    Start {
        /// What was to be named.
        what: &'static str,
        /// The whole text.
        given: String,
    },
}

impl Name {
    /// The largest length in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Validates `given`; `what` is the kind of name in the error.
    pub fn parse(what: &'static str, given: &str) -> Result<Self, InvalidName> {
        if given.is_empty() {
            return Err(InvalidName::Empty { what });
        }
        if given.len() > Self::MAX_BYTES {
            let length = given.len();
            return Err(InvalidName::TooLong { what, length });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if let Some(found) = given.chars().find(|&c| !allowed(c)) {
            let given = given.to_owned();
            return Err(InvalidName::Character { what, given, found });
        }
        if !given.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let given = given.to_owned();
            return Err(InvalidName::Start { what, given });
        }
        Ok(Self(given.into()))
    }

    /// Lists names for an error: the first thirty, and how many more there are. An error travels in a
    /// header, whose size clients limit.
    pub fn list(names: &[Self]) -> String {
        const LISTED: usize = 30;
        let listed: Vec<_> = names.iter().take(LISTED).map(Self::as_str).collect();
        let listed = listed.join(", ");
        match names.len().saturating_sub(LISTED) {
            0 => listed,
            more => format!("{listed} and {more} more"),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(given: String) -> Result<Self, InvalidName> {
        Self::parse("name", &given)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_valid() {
        for good in [
            "a",
            "echo",
            "word-count",
            "order:4711",
            "7f.v2",
            &"x".repeat(128),
        ] {
            assert_eq!(Name::parse("name", good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |given: &str| Name::parse("task type", given).unwrap_err().to_string();
        assert_eq!(error(""), "task type is empty");
        assert!(error(&"x".repeat(129)).contains("129 bytes; at most 128"));
        for bad in ["a b", "a/b", "a{b}", "a\0", "ä", "a\n"] {
            assert!(error(bad).contains("only letters"), "{bad:?}");
        }
        assert!(error("-a").contains("does not begin"));
        assert!(error("../etc").contains("only letters"));
    }
}
