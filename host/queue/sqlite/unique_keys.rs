//! Unique keys: which task of a type has a key, until when at least, and whether it is open.

use super::{
    encoding::{millis, parse_name},
    queries,
    transaction::Transaction,
};
use crate::task_queue::Submitted;
use hostel_sqlite::StatementError;
use hostel_task::{Name, Submission, TaskId, TaskOptions, Unique};
use rusqlite::{OptionalExtension, params};

impl Transaction<'_> {
    /// Returns the answer to a submission that makes no task, because of what is stored: the task of its
    /// id, or the one of its unique key.
    pub fn stored_answer(
        &mut self,
        task: &Submission,
        now: i64,
    ) -> Result<Option<Submitted>, StatementError> {
        if let Some(answer) = queries::compare(self.conn, task)? {
            return Ok(Some(answer));
        }
        let Some(unique) = task.options().and_then(|options| options.unique.as_ref()) else {
            return Ok(None);
        };
        let holder = self.holder_of(task.task_type(), &unique.key, now)?;
        let other = holder.filter(|holder| holder != task.id());
        Ok(other.map(Submitted::Duplicate))
    }

    /// Returns the task that has a key.
    fn holder_of(
        &mut self,
        task_type: &Name,
        key: &Name,
        now: i64,
    ) -> Result<Option<TaskId>, StatementError> {
        let values = params![task_type.as_str(), key.as_str(), now];
        let holder = &mut self.statements.key_holder;
        let holder = holder.query_row(values, |row| row.get::<_, String>(0));
        let holder = holder.optional()?;
        holder.map(|id| parse_name(&id)).transpose()
    }

    /// Gives a task that was submitted at `submitted_at` its key.
    pub fn take_key(
        &mut self,
        id: &TaskId,
        task_type: &Name,
        unique: &Unique,
        submitted_at: i64,
    ) -> Result<(), StatementError> {
        let time = unique.time.map_or(0, millis);
        let until = submitted_at.saturating_add(time);
        let (task_type, key) = (task_type.as_str(), unique.key.as_str());
        let values = params![task_type, key, id.as_str(), until];
        self.statements.take_key.execute(values)?;
        Ok(())
    }

    /// Gives a requeued task its key again, unless another task has it.
    pub fn retake_key(
        &mut self,
        seq: i64,
        id: &TaskId,
        task_type: &Name,
        unique: &Unique,
        now: i64,
    ) -> Result<(), StatementError> {
        let holder = self.holder_of(task_type, &unique.key, now)?;
        if holder.is_some_and(|holder| holder != *id) {
            return Ok(());
        }
        let submitted_at = &mut self.statements.submitted_at;
        let submitted_at = submitted_at.query_row([seq], |row| row.get(0))?;
        self.take_key(id, task_type, unique, submitted_at)
    }

    /// Takes the key from a task that has ended, if it has one; at the earliest when its time is over.
    pub fn release_key(
        &mut self,
        id: &TaskId,
        task_type: &Name,
        options: &TaskOptions,
        now: i64,
    ) -> Result<(), StatementError> {
        let Some(unique) = &options.unique else {
            return Ok(());
        };
        let (task_type, key) = (task_type.as_str(), unique.key.as_str());
        let is_over = params![task_type, key, id.as_str(), now];
        if self.statements.delete_key.execute(is_over)? == 0 {
            let values = params![task_type, key, id.as_str()];
            self.statements.close_key.execute(values)?;
        }
        Ok(())
    }

    /// Deletes up to `max` keys whose task has ended and whose time is over, and returns how many.
    pub fn purge_keys(&mut self, max: usize) -> Result<usize, StatementError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let over = params![self.clock.now(), max];
        Ok(self.statements.purge_keys.execute(over)?)
    }
}
