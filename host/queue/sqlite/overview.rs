//! What the writer last committed, in short: counts and the next due time of every type. Read
//! without asking the writer, who may be waiting for a disk. The lock is held for microseconds.

use super::board::Board;
use crate::{
    queue::{Counts, Want, WantedType},
    task::{Lane, Name, StateKind},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Overview(Mutex<HashMap<Lane, Line>>);

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
                lines.insert(lane.key.clone(), line);
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (lane, line) in &*self.lines() {
            for state in StateKind::ALL {
                let count = line.counts[state as usize];
                if count > 0 {
                    *counts.entry((lane.task_type.clone(), state)).or_insert(0) += count;
                }
            }
        }
        counts
    }

    /// The earliest due time of what `want` could take.
    pub fn next_due(&self, want: &Want) -> Option<i64> {
        let lines = self.lines();
        let running_of = |task_type: &Name| -> u64 {
            let of_type = lines
                .iter()
                .filter(|(lane, _)| lane.task_type == *task_type);
            let running = of_type.map(|(_, line)| line.counts[StateKind::Running as usize]);
            running.sum()
        };
        let is_full = |wanted: &WantedType| {
            let max = wanted.max_in_cluster;
            max.is_some_and(|max| running_of(&wanted.task_type) >= max as u64)
        };
        let types = want.types.iter().filter(|wanted| !is_full(wanted));
        types
            .flat_map(|wanted| want.lanes(&wanted.task_type))
            .filter_map(|lane| lines.get(&lane)?.next_due)
            .min()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Lane, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
