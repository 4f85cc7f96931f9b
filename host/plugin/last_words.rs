//! Why a call failed, in the guest's own words: its last record of level critical, else the head and
//! the tail of what it wrote to stderr. The head has the message where a stack trace follows it, as
//! in JavaScript and Go, the tail has it where the trace comes first, as in Python. Bounded in bytes.

use hostel_runtime::untrusted::{Untrusted, clip};
use std::{collections::VecDeque, mem};

const MAX_CRITICAL_BYTES: usize = 3 << 10;
const MAX_HEAD_BYTES: usize = 1 << 10;
const MAX_TAIL_BYTES: usize = 2 << 10;

/// What one call has said of its failure so far. All of it is printable.
#[derive(Debug, Default)]
pub struct LastWords {
    critical: Option<String>,
    head: Vec<String>,
    head_bytes: usize,
    tail: VecDeque<String>,
    tail_bytes: usize,
    left_out: bool,
}

impl LastWords {
    /// A record of level critical says why the call is about to fail.
    pub fn critical(&mut self, message: &str) {
        let message = Untrusted::new(message).block(0).to_string();
        self.critical = Some(clip(message, MAX_CRITICAL_BYTES));
    }

    /// A line of stderr. Rust's advice on how to see a backtrace helps nobody here.
    pub fn stderr(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        let line = clip(Untrusted::new(line).block(0).to_string(), MAX_HEAD_BYTES);
        if self.tail.is_empty() && self.head_bytes + line.len() <= MAX_HEAD_BYTES {
            self.head_bytes += line.len() + 1;
            self.head.push(line);
            return;
        }
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(line);
        while self.tail_bytes > MAX_TAIL_BYTES
            && let Some(dropped) = self.tail.pop_front()
        {
            self.tail_bytes -= dropped.len() + 1;
            self.left_out = true;
        }
    }

    /// All of it, in as many lines as it has. Nothing is left behind.
    pub fn take(&mut self) -> Option<String> {
        let Self {
            critical,
            mut head,
            tail,
            left_out,
            ..
        } = mem::take(self);
        if critical.is_some() {
            return critical;
        }
        head.extend(left_out.then(|| "…".to_owned()));
        head.extend(tail);
        (!head.is_empty()).then(|| head.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(stderr: &str) -> String {
        let mut words = LastWords::default();
        stderr.lines().for_each(|line| words.stderr(line));
        words.take().unwrap()
    }

    #[test]
    fn a_traceback_keeps_its_frames_and_its_message() {
        let traceback = "Traceback (most recent call last):\n  File \"app.py\", line 7, in handle\n    \
                         raise ValueError(\"no such currency\")\nValueError: no such currency";
        assert_eq!(heard(traceback), traceback);
    }

    #[test]
    fn a_long_text_keeps_its_head_and_its_tail() {
        let frames: String = (0..1000).map(|n| format!("\tat frame{n}\n")).collect();
        let words = heard(&format!("Error: boom\n{frames}main.go:7"));
        assert!(words.starts_with("Error: boom\n\tat frame0\n"), "{words}");
        assert!(words.ends_with("\tat frame999\nmain.go:7"), "{words}");
        assert!(words.contains("\n…\n"), "{words}");
        assert!(words.len() < 4 << 10, "{}", words.len());
        let one_line = heard(&format!("{}\n{}", "x".repeat(1 << 20), "y".repeat(1 << 20)));
        assert!(one_line.len() < 4 << 10, "{}", one_line.len());
    }

    #[test]
    fn a_critical_record_is_the_reason() {
        let mut words = LastWords::default();
        words.stderr("progress");
        words.critical("panicked at src/lib.rs:1:2: left != right\n  left: 2\x1b[2J\n right: 3");
        let reason = words.take().unwrap();
        assert!(reason.starts_with("panicked at"), "{reason}");
        assert!(reason.ends_with("left: 2\\u{1b}[2J\n right: 3"), "{reason}");
        assert_eq!(words.take(), None);
    }
}
