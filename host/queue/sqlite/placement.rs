//! Where the pending tasks with options are in the index. Tasks without options are not in it.

use super::{backlog::QueuePosition, encoding::SymbolId};
use hostel_task::{Name, Priority, TaskOptions};
use std::collections::{BTreeSet, HashMap};

/// The place of one pending task.
pub(super) struct Placement {
    pub route: SymbolId,
    pub position: QueuePosition,
    pub priority: Priority,
    pub group: Option<Name>,
    /// By when the first attempt has to begin.
    start_by: Option<i64>,
}

#[derive(Default)]
pub(super) struct Placements {
    by_seq: HashMap<i64, Placement>,
    /// The tasks that have to begin by a time, with that time.
    deadlines: BTreeSet<(i64, i64)>,
}

impl Placement {
    pub fn new(
        route: SymbolId,
        position: QueuePosition,
        options: &TaskOptions,
        start_by: Option<i64>,
    ) -> Self {
        Self {
            route,
            position,
            priority: options.priority,
            group: options.group.clone(),
            start_by,
        }
    }

    fn seq(&self) -> i64 {
        self.position.1
    }
}

impl Placements {
    pub fn insert(&mut self, placement: Placement) {
        let deadline = placement.start_by.map(|time| (time, placement.seq()));
        self.deadlines.extend(deadline);
        self.by_seq.insert(placement.seq(), placement);
    }

    /// Removes a task that is no longer pending; `None` if it has no options.
    pub fn remove(&mut self, seq: i64) -> Option<Placement> {
        if self.by_seq.is_empty() {
            return None;
        }
        let placement = self.by_seq.remove(&seq)?;
        if let Some(time) = placement.start_by {
            self.deadlines.remove(&(time, seq));
        }
        Some(placement)
    }

    /// Returns the place of a pending task; `None` if it has no options.
    pub fn get(&self, seq: i64) -> Option<&Placement> {
        self.by_seq.get(&seq)
    }

    /// Returns the group of a pending task, if it has one.
    pub fn group(&self, seq: i64) -> Option<&Name> {
        self.by_seq.get(&seq)?.group.as_ref()
    }

    /// Whether the first attempt of a task had to begin before `now`.
    pub fn is_late(&self, seq: i64, now: i64) -> bool {
        if self.deadlines.is_empty() {
            return false;
        }
        let start_by = self.by_seq.get(&seq).and_then(|it| it.start_by);
        start_by.is_some_and(|time| time < now)
    }

    /// Returns up to `max` of the tasks that are late.
    pub fn late(&self, now: i64, max: usize) -> Vec<i64> {
        let late = self.deadlines.range(..(now, i64::MIN)).take(max);
        late.map(|&(_, seq)| seq).collect()
    }
}
