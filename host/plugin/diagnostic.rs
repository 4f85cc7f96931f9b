//! Why a plugin is refused: texts of one line, bounded in number and length, since they may quote the
//! plugin.

use hostel_runtime::untrusted::{Untrusted, clip};
use std::fmt;

/// Longer texts are cut.
const MAX_BYTES: usize = 1 << 10;
/// Of more errors the first are listed and the rest counted.
const MAX_LISTED: usize = 10;

/// One reason why a plugin is refused: what is wrong and what to do, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    text: String,
    may_pass: bool,
}

impl Diagnostic {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        let words: Vec<&str> = text.split_whitespace().collect();
        Self {
            text: clip(Untrusted::new(words.join(" ")).to_string(), MAX_BYTES),
            may_pass: false,
        }
    }

    /// A diagnostic that the same content may not have at another time.
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::new(text)
        }
    }

    pub(crate) fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The first of many diagnostics, and a last one that counts the rest.
    pub(crate) fn first_of(mut diagnostics: Vec<Self>) -> Vec<Self> {
        if diagnostics.len() > MAX_LISTED {
            let more = diagnostics.len() - MAX_LISTED;
            let may_pass = diagnostics.iter().any(Self::may_pass);
            diagnostics.truncate(MAX_LISTED);
            diagnostics.push(Self {
                may_pass,
                ..Self::new(format!("and {more} more errors"))
            });
        }
        diagnostics
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_bounded_in_length() {
        let diagnostics =
            (0..10_000).map(|n| Diagnostic::new(format!("imports {n}{}", "x".repeat(5000))));
        let listed = Diagnostic::first_of(diagnostics.collect());
        assert_eq!(listed.len(), MAX_LISTED + 1);
        assert_eq!(listed[MAX_LISTED].to_string(), "and 9990 more errors");
        let bytes: usize = listed.iter().map(|diagnostic| diagnostic.text.len()).sum();
        assert!(bytes < 11 << 10, "{bytes}");
        let few = vec![Diagnostic::new("a\n\u{1b}[2Jb")];
        assert_eq!(Diagnostic::first_of(few)[0].to_string(), "a \\u{1b}[2Jb");
    }
}
