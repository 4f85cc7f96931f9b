//! What the writer last committed, in short: counts and the next due time of every type. Read
//! without asking the writer, who may be waiting for a disk. The lock is held for microseconds.

use super::board::Board;
use crate::{Counts, Want, WantedType};
use hostel_task::{Lane, Name, StateKind};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Overview(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    counts: HashMap<Lane, [u64; 5]>,
    /// When the first task is due, and the first suspect, of the lanes in which one waits.
    due: HashMap<Lane, [Option<i64>; 2]>,
}

impl Overview {
    /// Takes over what changed on the board; called after a commit.
    pub fn update(&self, board: &mut Board) {
        let mut lines = self.lines();
        for word in board.touched.drain() {
            if let Some(lane) = board.lanes.get(&word) {
                let due = [false, true].map(|suspect| lane.first(suspect).map(|(due, _)| due));
                match due {
                    [None, None] => drop(lines.due.remove(&lane.key)),
                    due => drop(lines.due.insert(lane.key.clone(), due)),
                }
                lines.counts.insert(lane.key.clone(), lane.counts);
            }
        }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (lane, counts_of) in &self.lines().counts {
            for state in StateKind::ALL {
                let count = counts_of[state as usize];
                if count > 0 {
                    *counts.entry((lane.task_type.clone(), state)).or_insert(0) += count;
                }
            }
        }
        counts
    }

    /// The earliest due time of what `want` could take.
    pub fn next_due(&self, want: &Want) -> Option<i64> {
        self.lines().first(want, true).map(|(due, _)| due)
    }

    /// The type of the oldest task, of those due by `now`, that `want` has not the room for.
    pub fn passed_by(&self, want: &Want, now: i64) -> Option<Name> {
        let lines = self.lines();
        let first = lines.first(want, false).filter(|&(due, _)| due <= now);
        first.map(|(_, lane)| lane.task_type.clone())
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// The lane of the first task that is wanted and does, or does not, fit into the room; and when that
    /// is due. A type of which as many run as may run is left out.
    fn first(&self, want: &Want, fits: bool) -> Option<(i64, &Lane)> {
        let waiting = self.due.iter().filter_map(|(lane, &[due, suspect])| {
            let due = due
                .into_iter()
                .chain(suspect.filter(|_| want.suspect))
                .min()?;
            let wanted = want.of_lane(lane)?;
            let may_run = want.left_of(&lane.task_type, wanted) > 0
                && wanted.needs.fits_in(want.room) == fits
                && !self.is_full(&lane.task_type, wanted);
            may_run.then_some((due, lane))
        });
        waiting.min_by_key(|&(due, _)| due)
    }

    fn is_full(&self, task_type: &Name, wanted: &WantedType) -> bool {
        wanted.max_in_cluster.is_some_and(|max| {
            let of_type = self.counts.iter();
            let of_type = of_type.filter(|(lane, _)| lane.task_type == *task_type);
            let running = of_type.map(|(_, counts)| counts[StateKind::Running as usize]);
            running.sum::<u64>() >= max as u64
        })
    }
}
