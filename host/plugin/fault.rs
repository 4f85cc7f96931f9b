//! Why a plugin is refused: texts of one line, bounded in number and length, since what they quote
//! may come from the plugin.

use hostel_runtime::untrusted::{Untrusted, clip};
use std::fmt;

/// Longer texts are cut.
const MAX_BYTES: usize = 1 << 10;
/// Of more faults the first ones are told, and how many more there are.
const MAX_FAULTS: usize = 10;

/// One reason why a plugin is refused: what does not fit and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    text: String,
    may_pass: bool,
}

impl Fault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        let words: Vec<&str> = text.split_whitespace().collect();
        Self {
            text: clip(Untrusted::new(words.join(" ")).to_string(), MAX_BYTES),
            may_pass: false,
        }
    }

    /// One that the same file may be free of at another time.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::new(text)
        }
    }

    pub(super) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The first ones of many, and a last one that counts the rest.
    pub(super) fn first_of(mut faults: Vec<Self>) -> Vec<Self> {
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
    fn a_refusal_is_short_whatever_the_plugin_holds() {
        let faults = (0..10_000).map(|n| Fault::new(format!("imports {n}{}", "x".repeat(5000))));
        let told = Fault::first_of(faults.collect());
        assert_eq!(told.len(), MAX_FAULTS + 1);
        assert_eq!(told[MAX_FAULTS].to_string(), "and 9990 more faults");
        let bytes: usize = told.iter().map(|fault| fault.text.len()).sum();
        assert!(bytes < 11 << 10, "{bytes}");
        let few = vec![Fault::new("a\n\u{1b}[2Jb")];
        assert_eq!(Fault::first_of(few)[0].to_string(), "a \\u{1b}[2Jb");
    }
}
