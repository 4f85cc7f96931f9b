//! How far an attempt has come, as its handler reports it.

use serde::{Deserialize, Serialize};

/// The most bytes that a note has. A longer one is cut between two characters.
pub const MAX_NOTE_BYTES: usize = 256;

/// How far an attempt has come. All of it is the handler's own word: `done` may be above `total`, and the
/// note may have any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done, in a unit of the handler's choice.
    pub done: u64,
    /// How much there is to do, in the same unit; 0 if that is not known.
    pub total: u64,
    /// What the handler says of it; may be empty.
    pub note: String,
}

impl Progress {
    /// Makes a progress, and cuts the note to `MAX_NOTE_BYTES`.
    pub fn new(done: u64, total: u64, note: &str) -> Self {
        Self {
            done,
            total,
            note: cut(note).to_owned(),
        }
    }

    /// Takes over what `new` would make of these values, and returns whether that is a change. Allocates
    /// only for a note that is longer than any before.
    pub fn update(&mut self, done: u64, total: u64, note: &str) -> bool {
        let note = cut(note);
        if (self.done, self.total, self.note.as_str()) == (done, total, note) {
            return false;
        }
        (self.done, self.total) = (done, total);
        self.note.clear();
        self.note.push_str(note);
        true
    }
}

fn cut(note: &str) -> &str {
    &note[..note.floor_char_boundary(MAX_NOTE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(Progress::new(1, 2, "short").note, "short");
        let long = "é".repeat(MAX_NOTE_BYTES);
        assert_eq!(Progress::new(1, 2, &long).note, "é".repeat(128));
        let odd = format!("a{long}");
        let cut = Progress::new(1, 2, &odd).note;
        assert_eq!(cut.len(), MAX_NOTE_BYTES - 1);
        assert!(odd.starts_with(&cut));
    }

    #[test]
    fn an_update_says_whether_anything_changed() {
        let mut progress = Progress::new(1, 2, "a");
        assert!(!progress.update(1, 2, "a"));
        for (done, total, note) in [(2, 2, "a"), (2, 3, "a"), (2, 3, "b"), (2, 3, "")] {
            assert!(progress.update(done, total, note));
            assert_eq!(progress, Progress::new(done, total, note));
        }
        let long = "x".repeat(1000);
        assert!(progress.update(2, 3, &long));
        // What is cut away is no difference.
        assert!(!progress.update(2, 3, &"x".repeat(2000)));
    }

    #[test]
    fn what_is_stored_says_the_same() {
        for progress in [
            Progress::default(),
            Progress::new(u64::MAX, u64::MAX, "\u{1b}[2J \"quoted\" 日本"),
        ] {
            let stored = serde_json::to_string(&progress).unwrap();
            assert_eq!(serde_json::from_str::<Progress>(&stored).unwrap(), progress);
        }
    }
}
