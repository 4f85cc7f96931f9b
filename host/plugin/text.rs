//! What becomes of text from a guest before anybody reads it.

use std::{borrow::Cow, fmt::Write};

/// Longer texts of errors are cut.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// `text` in one line of a log: what ends a line, moves a cursor or turns the direction of writing
/// is spelled out, so that a guest cannot forge lines of the node's.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unprintable(c) {
            // Writing to a string does not fail.
            let _ = write!(printable, "{}", c.escape_default());
        } else {
            printable.push(c);
        }
    }
    Cow::Owned(printable)
}

pub fn is_unprintable(c: char) -> bool {
    let line = matches!(c, '\u{2028}' | '\u{2029}');
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || line || direction
}

/// Cuts `text` to what an error may have, between two characters.
pub fn clip(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        let end = (0..=MAX_ERROR_BYTES - 3)
            .rev()
            .find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_harm_is_spelled_out() {
        assert!(matches!(printable("schön 日本 {}"), Cow::Borrowed(_)));
        assert_eq!(printable("a\n2026 ERROR b"), "a\\n2026 ERROR b");
        assert_eq!(printable("\u{1b}[31m\u{9b}\0"), "\\u{1b}[31m\\u{9b}\\u{0}");
        assert_eq!(printable("\u{202e}\u{2028}"), "\\u{202e}\\u{2028}");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(clip("short".into()), "short");
        let cut = clip("é".repeat(3000));
        assert!(cut.len() <= MAX_ERROR_BYTES && cut.ends_with("é…"));
    }
}
