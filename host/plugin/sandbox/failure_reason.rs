//! Why a call failed, in the guest's own words: its last critical log record, else the head and the
//! tail of its stderr. The message is in the head if a stack trace follows it, as in JavaScript and
//! Go, and in the tail if the trace comes first, as in Python. Bounded in bytes.

use hostel_runtime::untrusted::{Untrusted, clip};
use std::{collections::VecDeque, mem};

const MAX_CRITICAL_BYTES: usize = 3 << 10;
const MAX_HEAD_BYTES: usize = 1 << 10;
const MAX_TAIL_BYTES: usize = 2 << 10;

/// The reason that one call has given so far. All of it is printable.
#[derive(Debug, Default)]
pub struct FailureReason {
    critical: Option<String>,
    head: Vec<String>,
    head_bytes: usize,
    tail: VecDeque<String>,
    tail_bytes: usize,
    left_out: bool,
}

impl FailureReason {
    /// Takes a critical log record as the reason.
    pub fn critical(&mut self, message: &str) {
        // Cut before it is escaped: the record may fill the guest's memory, and escapes are longer.
        let head = &message[..message.floor_char_boundary(MAX_CRITICAL_BYTES)];
        let mut printable = Untrusted::new(head).block(0).to_string();
        if head.len() < message.len() {
            printable.push('…');
        }
        let mut printable = clip(printable, MAX_CRITICAL_BYTES);
        printable.shrink_to_fit();
        self.critical = Some(printable);
    }

    /// Adds a line of stderr, unless it is Rust's hint at backtraces, which guests do not have.
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

    /// Takes the reason, which may have several lines.
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

    fn reason(stderr: &str) -> String {
        let mut reason = FailureReason::default();
        stderr.lines().for_each(|line| reason.stderr(line));
        reason.take().unwrap()
    }

    #[test]
    fn a_traceback_keeps_its_frames_and_its_message() {
        let traceback = "Traceback (most recent call last):\n  File \"app.py\", line 7, in handle\n    \
                         raise ValueError(\"no such currency\")\nValueError: no such currency";
        assert_eq!(reason(traceback), traceback);
    }

    #[test]
    fn a_long_text_keeps_its_head_and_its_tail() {
        let frames: String = (0..1000).map(|n| format!("\tat frame{n}\n")).collect();
        let text = reason(&format!("Error: boom\n{frames}main.go:7"));
        assert!(text.starts_with("Error: boom\n\tat frame0\n"), "{text}");
        assert!(text.ends_with("\tat frame999\nmain.go:7"), "{text}");
        assert!(text.contains("\n…\n"), "{text}");
        assert!(text.len() < 4 << 10, "{}", text.len());
        let one_line = reason(&format!("{}\n{}", "x".repeat(1 << 20), "y".repeat(1 << 20)));
        assert!(one_line.len() < 4 << 10, "{}", one_line.len());
    }

    #[test]
    fn a_long_critical_record_takes_no_more_memory_than_its_limit() {
        for (letter, len) in [("\x1b", 1 << 20), ("é", MAX_CRITICAL_BYTES), ("x", 1 << 20)] {
            let mut reason = FailureReason::default();
            reason.critical(&letter.repeat(len));
            let critical = reason.take().unwrap();
            assert!(critical.capacity() <= MAX_CRITICAL_BYTES, "{letter:?}");
            assert!(critical.len() > MAX_CRITICAL_BYTES - 10, "{letter:?}");
            assert!(critical.ends_with('…'), "{letter:?}");
        }
        let mut reason = FailureReason::default();
        let longest = "x".repeat(MAX_CRITICAL_BYTES);
        reason.critical(&longest);
        assert_eq!(reason.take(), Some(longest));
    }

    #[test]
    fn a_critical_record_takes_precedence_over_stderr() {
        let mut reason = FailureReason::default();
        reason.stderr("progress");
        reason.critical("panicked at src/lib.rs:1:2: left != right\n  left: 2\x1b[2J\n right: 3");
        let critical = reason.take().unwrap();
        assert!(critical.starts_with("panicked at"), "{critical}");
        assert!(
            critical.ends_with("left: 2\\u{1b}[2J\n right: 3"),
            "{critical}"
        );
        assert_eq!(reason.take(), None);
    }
}
