//! Deleting tasks that have ended: in small steps once they were kept for long enough, or because an
//! operator asks for it.

use super::{
    encoding::{SymbolId, millis, parse_name, read_options, state_kind},
    transaction::Transaction,
};
use hostel_sqlite::StatementError;
use hostel_task::{Retention, StateKind, TaskId, TaskOptions};
use rusqlite::{Params, Row, Statement, params};
use std::sync::Arc;

/// A task that is to be purged. What cannot be read of it is `None`.
pub(super) struct Purged {
    pub seq: i64,
    pub task: Option<(TaskId, SymbolId, StateKind)>,
    pub options: Option<Arc<TaskOptions>>,
}

impl Transaction<'_> {
    /// Deletes up to `max` tasks that were kept for long enough, and returns how many.
    pub fn purge(&mut self, retention: &Retention, max: usize) -> Result<usize, StatementError> {
        let now = self.clock.now();
        let mut found = Vec::new();
        for (route, state, until) in self.ended_before(retention, now) {
            if found.len() >= max {
                break;
            }
            let of_state = params![state as i64, route, until, limit(max - found.len())];
            found.extend(purged(&mut self.statements.ended, of_state)?);
        }
        if found.len() < max {
            let own_time = params![now, limit(max - found.len())];
            found.extend(purged(&mut self.statements.kept_ended, own_time)?);
        }
        for task in &found {
            self.delete(task)?;
        }
        if !found.is_empty() {
            self.keep_numbers_unused()?;
        }
        Ok(found.len())
    }

    /// Returns the routes that have ended tasks, with the state and the time before which those have to have
    /// ended to be purged.
    fn ended_before(&self, retention: &Retention, now: i64) -> Vec<(SymbolId, StateKind, i64)> {
        let mut ended = Vec::new();
        for (&symbol, entry) in &self.index.routes {
            for state in Retention::STATES {
                if entry.counts[state as usize] > 0 {
                    let keep = retention.keep(&entry.route.task_type, state);
                    ended.push((symbol, state, now.saturating_sub(millis(keep))));
                }
            }
        }
        ended
    }

    /// Deletes all that is stored of a task.
    pub fn delete(&mut self, Purged { seq, task, options }: &Purged) -> Result<(), StatementError> {
        if let Some(options) = options {
            self.delete_options(*seq, options)?;
        }
        let counted = task.as_ref().is_some_and(|(id, route, state)| {
            self.snapshots.push((id.clone(), None));
            self.index.count(*route, Some(*state), None).is_ok()
        });
        // How a damaged task was counted is not known.
        self.must_reload |= !counted;
        self.statements.delete_task.execute([seq])?;
        self.statements.delete_body.execute([seq])?;
        self.statements.delete_result.execute([seq])?;
        self.statements.delete_attempts.execute([seq])?;
        self.statements.delete_damaged.execute([seq])?;
        Ok(())
    }

    /// Keeps the numbers of purged tasks from being used again: an old token could end a new task.
    pub fn keep_numbers_unused(&mut self) -> Result<(), StatementError> {
        let next = self.index.next_seq;
        self.statements.store_next_seq.execute([next])?;
        Ok(())
    }
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// Runs one of the two statements that select what is purged.
fn purged(
    statement: &mut Statement<'_>,
    params: impl Params,
) -> Result<Vec<Purged>, StatementError> {
    let mut found = Vec::new();
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        found.push(Purged {
            seq: row.get(0)?,
            task: read_ended(row).ok(),
            options: read_options(row.get_ref(4)?).ok().flatten(),
        });
    }
    Ok(found)
}

fn read_ended(row: &Row<'_>) -> Result<(TaskId, SymbolId, StateKind), StatementError> {
    let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    Ok((parse_name(id)?, row.get(1)?, state_kind(row.get(2)?)?))
}
