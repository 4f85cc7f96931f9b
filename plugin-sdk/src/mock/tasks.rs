//! Records what the tasks of a mock host report, and tells them when they are cancelled.

use super::Progress;
use super::node::current;

/// The most bytes of a note that a node keeps.
const MAX_NOTE_BYTES: usize = 256;

/// Outside a node, the report is dropped.
pub(crate) fn progress(done: u64, total: u64, note: &str) {
    let note = &note[..note.floor_char_boundary(MAX_NOTE_BYTES)];
    if let Some(node) = current() {
        node.progress.borrow_mut().push(Progress {
            done,
            total,
            note: note.to_owned(),
        });
    }
}

pub(crate) fn is_cancelled() -> bool {
    current().is_some_and(|node| node.is_cancelled())
}
