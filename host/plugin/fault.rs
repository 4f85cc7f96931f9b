//! Why a plugin is refused: texts of one line, bounded in number and length, since they may quote the
//! plugin.

use hostel_runtime::untrusted::{Untrusted, clip};
use std::fmt;

/// Longer texts are cut.
const MAX_BYTES: usize = 1 << 10;
/// Of more faults the first are listed and the rest counted.
const MAX_FAULTS: usize = 10;

/// One reason why a plugin is refused: what is wrong and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    text: String,
    may_pass: bool,
}

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        let words: Vec<&str> = text.split_whitespace().collect();
        Self {
            text: clip(Untrusted::new(words.join(" ")).to_string(), MAX_BYTES),
            may_pass: false,
        }
    }

    /// A fault that the same content may not have at another time.
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::new(text)
        }
    }

    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The first of many faults, and a last one that counts the rest.
    pub(crate) fn first_of(mut faults: Vec<Self>) -> Vec<Self> {
        if faults.len() > MAX_FAULTS {
            let more = faults.len() - MAX_FAULTS;
            let may_pass = faults.iter().any(Self::may_pass);
            faults.truncate(MAX_FAULTS);
            faults.push(Self {
                may_pass,
                ..Self::new(format!("and {more} more faults"))
            });
        }
        faults
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_bounded_in_length() {
        let faults = (0..10_000).map(|n| Fault::new(format!("imports {n}{}", "x".repeat(5000))));
        let listed = Fault::first_of(faults.collect());
        assert_eq!(listed.len(), MAX_FAULTS + 1);
        assert_eq!(listed[MAX_FAULTS].to_string(), "and 9990 more faults");
        let bytes: usize = listed.iter().map(|fault| fault.text.len()).sum();
        assert!(bytes < 11 << 10, "{bytes}");
        let few = vec![Fault::new("a\n\u{1b}[2Jb")];
        assert_eq!(Fault::first_of(few)[0].to_string(), "a \\u{1b}[2Jb");
    }
}
