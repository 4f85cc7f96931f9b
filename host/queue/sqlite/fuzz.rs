//! The fuzz target of page tokens.

use super::queries::{format_token, parse_token};
use hostel_fuzz::Target;

/// A token that can be read is one that was given out.
pub const SQLITE_PAGE_TOKENS: Target = Target {
    name: "sqlite_page_tokens",
    seeds: || ["p1", "pff", "p7fffffffffffffff"].map(Vec::from).into(),
    check: |bytes| {
        let token = String::from_utf8_lossy(bytes);
        if let Ok(seq) = parse_token(Some(&token)) {
            assert!(seq > 0);
            assert_eq!(format_token(seq), token);
        }
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_sqlite_page_tokens() {
        super::SQLITE_PAGE_TOKENS.run();
    }
}
