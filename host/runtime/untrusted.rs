//! Text of guests, clients, files and other nodes, made printable: characters that move a cursor, end a
//! line, change the direction of writing or are invisible are escaped. Records and responses keep such
//! text unchanged; this type is for logs and terminals.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    path::Path,
};

/// Text of any origin. Its `Display` is a single printable line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted<'a>(Cow<'a, str>);

impl<'a> Untrusted<'a> {
    /// Wraps a text.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// Wraps a path, which may contain any character except zero.
    pub fn path(path: &'a Path) -> Self {
        Self(path.to_string_lossy())
    }

    /// Returns the text with its lines. Each line after the first is indented by `indent` spaces, so
    /// that it cannot be mistaken for a line of the surrounding output.
    pub fn block(&self, indent: usize) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| {
            for (number, line) in self.0.split('\n').enumerate() {
                let line = line.strip_suffix('\r').unwrap_or(line);
                if number > 0 {
                    write!(f, "\n{:indent$}", "")?;
                }
                escape(f, line, |c| c != '\t' && is_unprintable(c))?;
            }
            Ok(())
        })
    }
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, &self.0, is_unprintable)
    }
}

/// A writer that escapes everything into a single printable line for `W`.
pub struct OneLine<W>(pub W);

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(&mut self.0, text, is_unprintable)
    }
}

fn escape(out: &mut impl Write, text: &str, is_escaped: impl Fn(char) -> bool) -> fmt::Result {
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
        out.write_str(&rest[..at])?;
        write!(out, "{}", c.escape_default())?;
        rest = &rest[at + c.len_utf8()..];
    }
    out.write_str(rest)
}

/// Whether `c` is a control character, a line separator, or a Unicode format character (category Cf),
/// such as direction marks, joiners, zero-width spaces and tags.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Shortens `text` to `max_bytes` at a character boundary; an ellipsis replaces the rest.
pub fn clip(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        Untrusted::new(text).to_string()
    }

    #[test]
    fn only_harmful_characters_are_escaped() {
        assert_eq!(line("schön 日本 {} \\n"), "schön 日本 {} \\n");
        assert_eq!(line("a\n2026 ERROR b"), "a\\n2026 ERROR b");
        assert_eq!(
            line("\u{1b}[31m\u{9b}\0\u{7f}"),
            "\\u{1b}[31m\\u{9b}\\u{0}\\u{7f}"
        );
        assert_eq!(
            line("\u{202e}\u{2028}\u{200b}"),
            "\\u{202e}\\u{2028}\\u{200b}"
        );
        assert_eq!(line("\u{e0041}\u{feff}\t"), "\\u{e0041}\\u{feff}\\t");
    }

    #[test]
    fn escaped_characters_are_escaped_by_std_too() {
        // The standard library also escapes unassigned characters and wide spaces.
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let escaped_by_std = c.escape_debug().count() > 1;
            assert!(escaped_by_std || !is_unprintable(c), "{c:?}");
        }
    }

    #[test]
    fn a_block_keeps_and_indents_its_lines() {
        let text = Untrusted::new("one\n\ttwo\r\nforged\u{85}\u{1b}[2J");
        let block = text.block(2).to_string();
        assert_eq!(block, "one\n  \ttwo\n  forged\\u{85}\\u{1b}[2J");
        assert_eq!(Untrusted::new("one").block(2).to_string(), "one");
    }

    #[test]
    fn the_writer_escapes_into_one_line() {
        let mut out = OneLine(String::new());
        let (lines, hidden) = ("a\nb", "\u{202e}");
        write!(out, "{lines} {hidden:?}").unwrap();
        assert_eq!(out.0, "a\\nb \"\\u{202e}\"");
    }

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clip("short".into(), 5), "short");
        let cut = clip("é".repeat(3000), 4096);
        assert!(cut.len() <= 4096 && cut.ends_with("é…"));
    }
}
