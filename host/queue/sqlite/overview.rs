//! What the writer last committed, in short: counts and the next due time of every type. Read
//! without asking the writer, who may be waiting for a disk. The lock is held for microseconds.

use super::board::Board;
use crate::{
    queue::Counts,
    task::{Name, StateKind},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Overview(Mutex<HashMap<Name, Line>>);

#[derive(Debug, Default, Clone, Copy)]
struct Line {
    counts: [u64; 5],
    next_due: Option<i64>,
}

impl Overview {
    /// Takes over what changed on the board; called after a commit.
    pub fn update(&self, board: &mut Board) {
        let mut lines = self.lines();
        for word in board.touched.drain() {
            if let Some(lane) = board.lanes.get(&word) {
                let line = Line {
                    counts: lane.counts,
                    next_due: lane.pending.first().map(|&(due, _)| due),
                };
                lines.insert(lane.task_type.clone(), line);
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (name, line) in &*self.lines() {
            for state in StateKind::ALL {
                let count = line.counts[state as usize];
                if count > 0 {
                    counts.insert((name.clone(), state), count);
                }
            }
        }
        counts
    }

    /// The earliest due time among `types`.
    pub fn next_due(&self, types: &[Name]) -> Option<i64> {
        let lines = self.lines();
        types
            .iter()
            .filter_map(|name| lines.get(name)?.next_due)
            .min()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Name, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
