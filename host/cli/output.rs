//! The output of commands: tables and lines for people, JSON for programs, results as raw bytes; the commands
//! decide what is in it. Only this file of the command line writes to stdout and stderr; it escapes
//! unprintable characters, so that no text can move the cursor of a terminal or forge a line.

use crate::untrusted::{Untrusted, is_unprintable};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Prints `text` as a single line on stdout.
pub fn print_line(text: fmt::Arguments<'_>) {
    write_out(Untrusted::new(text.to_string()));
}

/// Prints a text with all of its lines on stdout. Only for the program's own texts.
pub fn print_lines(text: fmt::Arguments<'_>) {
    write_out(Untrusted::new(text.to_string()).block(0));
}

/// Prints a name and its value; further lines of the value are indented below the first.
pub fn print_field(name: &str, value: &str) {
    let value = Untrusted::new(value.trim_end());
    write_out(format_args!("{name:16} {}", value.block(17)));
}

/// Ends the process if stdout cannot be written; silently if its reader has gone (`| head`).
#[expect(
    clippy::disallowed_methods,
    reason = "a command has nothing to drain, and its output is the last thing it does"
)]
fn write_out(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            process::exit(0);
        }
        print_error(&format!("cannot write the output: {error}"));
        process::exit(1);
    }
}

/// Prints `text` as a single line on stderr.
pub fn print_note(text: fmt::Arguments<'_>) {
    write_err(Untrusted::new(text.to_string()));
}

/// Prints `text` as a single line on stderr if that is a terminal.
pub fn print_hint(text: fmt::Arguments<'_>) {
    if io::stderr().is_terminal() {
        print_note(text);
    }
}

/// Prints the error of a command on stderr; further lines are indented.
pub fn print_error(message: &str) {
    write_err(format_args!(
        "hostel: {}",
        Untrusted::new(message.trim_end()).block(2)
    ));
}

/// Writes a line on stderr. There is nowhere to report that it cannot be written.
fn write_err(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints exactly these bytes on stdout, or printable text if that is a terminal.
pub fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        writeln!(out, "{}", Untrusted::new(text).block(0))
    } else {
        out.write_all(bytes)
    };
    written
        .and_then(|()| out.flush())
        .context("cannot write the result")
}

/// Prints a JSON document on stdout.
pub fn print_json(value: &Value) {
    write_out(printable_json(&format!("{value:#}")));
}

/// Prints a JSON document on a single line on stdout. For commands that go on afterwards: a reader that has
/// gone is an error.
pub fn print_json_line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", printable_json(&value.to_string()))?;
    out.flush()
}

/// Escapes the unprintable characters in the strings of a JSON document. Outside of strings JSON has
/// none except line breaks.
fn printable_json(document: &str) -> String {
    let mut printable = String::with_capacity(document.len());
    for c in document.chars() {
        if c == '\n' || !is_unprintable(c) {
            printable.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(printable, "\\u{unit:04x}");
        }
    }
    printable
}

/// Prints a table whose columns are as wide as their content.
pub fn print_table(heads: &[&str], rows: &[Vec<String>]) {
    let printable = |cell: &String| Untrusted::new(cell).to_string();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(printable).collect())
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(heads[column].len())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        print_line!("{}", cells.join("  ").trim_end());
    };
    line(&mut heads.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// A progress bar on stderr if that is a terminal, without colours.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows a bar of how much of a file is read, or a spinner if its size is not known.
    pub fn new(total_bytes: Option<u64>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        let template = match total_bytes {
            Some(_) => "{bar:30} {percent}% read; {msg}",
            None => "{spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Moves the bar.
    pub fn read(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Shows a text beside the bar. Only for the program's own texts.
    pub fn show(&self, text: impl FnOnce() -> String) {
        if !self.0.is_hidden() {
            self.0.set_message(text());
        }
    }

    /// Hides the bar while something else is printed.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        if self.0.is_hidden() {
            return print();
        }
        self.0.suspend(print)
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// A bar on stderr of how far a task has come, without colours. Nothing is drawn before the first progress.
pub struct TaskBar(ProgressBar);

impl TaskBar {
    /// Makes a bar; `None` if stderr is no terminal.
    pub fn on_terminal() -> Option<Self> {
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(None, target);
        (!bar.is_hidden()).then_some(Self(bar))
    }

    /// Shows a progress, of which a total of 0 is not known, and a text of any origin, cut to the width of the
    /// terminal.
    pub fn show(&self, done: u64, total: u64, text: &str) {
        let template = match total {
            0 => "{spinner} {wide_msg}",
            _ => "{bar:30} {percent}% {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        if total > 0 {
            self.0.set_length(total);
            self.0.set_position(done.min(total));
        }
        self.0.set_message(Untrusted::new(text).to_string());
        self.0.tick();
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Formats the time since `at_ms`, in milliseconds since the epoch: `5s`, `3m`, `2h`, `4d`.
pub fn ago(at_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    let seconds = now.saturating_sub(u128::from(at_ms)) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a duration in milliseconds, such as `1.5s`.
pub fn duration(ms: u64) -> String {
    format!("{:?}", Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn printable_json_is_the_same_document() {
        let value = json!({ "a\u{1b}\n\t": ["\u{9b}2J", "\u{202e}\u{7f}\u{e0041}", "日本 é \\u"] });
        let printed = printable_json(&format!("{value:#}"));
        assert!(
            !printed.replace('\n', "").contains(is_unprintable),
            "{printed}"
        );
        assert!(printed.contains("\\u009b2J") && printed.contains("\\u202e\\u007f\\udb40\\udc41"));
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }
}
