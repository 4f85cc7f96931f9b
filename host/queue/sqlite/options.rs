//! What the database has of tasks with options: the options as given, the time by which the first attempt has
//! to begin, and the group and the tags to find the task by. Tasks without options have none of it.

use super::{
    damage::Damage,
    encoding::{millis, parse_name, read_current_options, write_options},
    transaction::Transaction,
};
use hostel_sqlite::StatementError;
use hostel_task::{Name, Start, StateKind, TaskId, TaskOptions};
use rusqlite::params;
use std::sync::Arc;

/// What a label is, in the column `kind` of the table `label`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelKind {
    Group = 0,
    Tag = 1,
}

/// The error of a task that did not begin in time.
const EXPIRED: &str = "no attempt had begun by start_by_ms";

fn labels(options: &TaskOptions) -> impl Iterator<Item = (LabelKind, &Name)> {
    let group = options.group.iter().map(|group| (LabelKind::Group, group));
    group.chain(options.tags.iter().map(|tag| (LabelKind::Tag, tag)))
}

impl Transaction<'_> {
    /// Returns when a task that is submitted at `now` is due, and by when it has to begin.
    pub fn times(&self, options: &TaskOptions, now: i64) -> (i64, Option<i64>) {
        let due = match options.start {
            Start::Now => now,
            Start::After(delay) => now.saturating_add(millis(delay)),
            Start::At(time) => self.clock.to_queue(time).max(now),
        };
        let start_by = options.start_by.map(|time| self.clock.to_queue(time));
        (due, start_by)
    }

    /// Stores the options of a new task, except for its unique key.
    pub fn store_options(
        &mut self,
        seq: i64,
        options: &TaskOptions,
        start_by: Option<i64>,
    ) -> Result<(), StatementError> {
        let values = params![seq, write_options(options), start_by];
        self.statements.insert_options.execute(values)?;
        for (kind, name) in labels(options) {
            let values = params![kind as i64, name.as_str(), seq];
            self.statements.insert_label.execute(values)?;
        }
        if let Some(keep) = options.result_ttl {
            self.statements.set_keep.execute([seq, millis(keep)])?;
        }
        Ok(())
    }

    /// Reads the options of a task that has some.
    pub fn read_options(&mut self, seq: i64) -> Result<Arc<TaskOptions>, StatementError> {
        let options = self.find_options(seq)?;
        options.ok_or_else(|| StatementError::Corrupt(format!("task number {seq} has no options")))
    }

    /// Reads the options of a task that may have some.
    pub fn find_options(&mut self, seq: i64) -> Result<Option<Arc<TaskOptions>>, StatementError> {
        let mut rows = self.statements.options.query([seq])?;
        match rows.next()? {
            Some(row) => read_current_options(row.get_ref(0)?, row.get_ref(1)?),
            None => Ok(None),
        }
    }

    /// Deletes what is stored of the options of a purged task.
    pub fn delete_options(
        &mut self,
        seq: i64,
        options: &TaskOptions,
    ) -> Result<(), StatementError> {
        for (kind, name) in labels(options) {
            let values = params![kind as i64, name.as_str(), seq];
            self.statements.delete_label.execute(values)?;
        }
        self.statements.delete_options.execute([seq])?;
        Ok(())
    }

    /// Ends up to `max` pending tasks that did not begin in time, and returns how many.
    pub fn expire(&mut self, max: usize) -> Result<usize, StatementError> {
        let now = self.clock.now();
        let late = self.index.placements.late(now, max);
        for &seq in &late {
            let Some(placement) = self.index.placements.remove(seq) else {
                continue;
            };
            let (route, group) = (placement.route, placement.group.as_ref());
            let entry = self.index.route_mut(route)?;
            // It was never leased, so it was never lost.
            entry.remove(placement.position, 0, placement.priority, group);
            let task_type = entry.route.task_type.clone();
            self.index.submit_cache.remove(seq);
            match self.expire_one(seq, &task_type, now) {
                Ok(id) => {
                    self.moved(&id, route, StateKind::Pending, StateKind::Failed)?;
                    self.describe_change(0, None, group);
                }
                Err(error) => {
                    self.mark_taken(Damage::of(seq, error)?, route, StateKind::Pending)?;
                }
            }
        }
        Ok(late.len())
    }

    fn expire_one(
        &mut self,
        seq: i64,
        task_type: &Name,
        now: i64,
    ) -> Result<TaskId, StatementError> {
        let expired = params![seq, now, EXPIRED];
        let id: String = self
            .statements
            .expire
            .query_one(expired, |row| row.get(0))?;
        let id = parse_name(&id)?;
        let options = self.read_options(seq)?;
        self.release_key(&id, task_type, &options, now)?;
        Ok(id)
    }
}
