//! Cancelling, requeuing and purging tasks.

use super::{
    damage::Damage,
    encoding::{SymbolId, parse_name, read_options, state_kind},
    transaction::Transaction,
};
use crate::task_queue::{Cancel, Requeue};
use hostel_sqlite::StatementError;
use hostel_task::{StateKind, TaskId, TaskOptions};
use rusqlite::{Row, Statement};
use std::sync::Arc;

/// A stored task.
struct Found {
    seq: i64,
    route: SymbolId,
    state: StateKind,
    at: i64,
    losses: u32,
}

impl Transaction<'_> {
    pub fn cancel(&mut self, id: &TaskId) -> Result<Cancel, StatementError> {
        let Some(task) = self.find(id)? else {
            return Ok(Cancel::Unknown);
        };
        let Found { seq, route, .. } = task;
        match task.state {
            StateKind::Pending => {
                let Some(options) = self.options_or_mark(seq)? else {
                    return Ok(Cancel::Ended(StateKind::Failed));
                };
                let position = (task.at, seq);
                self.index.remove_pending(route, position, task.losses)?;
                self.index.submit_cache.remove(seq);
                let now = self.clock.now();
                self.statements.cancel.execute([seq, now])?;
                if let Some(options) = options {
                    let task_type = self.index.route_mut(route)?.route.task_type.clone();
                    self.release_key(id, &task_type, &options, now)?;
                }
                self.moved(id, route, StateKind::Pending, StateKind::Cancelled)?;
                Ok(Cancel::Cancelled)
            }
            StateKind::Running => {
                let lease = self.index.running.get_mut(id);
                let lease = lease.ok_or_else(|| {
                    StatementError::Corrupt(format!("task {id} runs without a lease"))
                })?;
                if !std::mem::replace(&mut lease.cancel_requested, true) {
                    self.statements.request_cancel.execute([seq])?;
                    let task_type = self.index.route_mut(route)?.route.task_type.clone();
                    self.changed(id, task_type, StateKind::Running);
                    if let Some(change) = self.changes.last_mut() {
                        change.cancel_requested = true;
                    }
                }
                Ok(Cancel::Requested)
            }
            ended => Ok(Cancel::Ended(ended)),
        }
    }

    pub fn requeue(&mut self, id: &TaskId) -> Result<Requeue, StatementError> {
        let Some(task) = self.find(id)? else {
            return Ok(Requeue::Unknown);
        };
        if !matches!(task.state, StateKind::Failed | StateKind::Cancelled) {
            return Ok(Requeue::Refused(task.state));
        }
        let Some(options) = self.options_or_mark(task.seq)? else {
            return Ok(Requeue::Refused(StateKind::Failed));
        };
        let now = self.clock.now();
        self.statements.requeue.execute([task.seq, now])?;
        if let Some(options) = &options {
            self.statements.clear_start_by.execute([task.seq])?;
            if let Some(unique) = &options.unique {
                let task_type = self.index.route_mut(task.route)?.route.task_type.clone();
                self.retake_key(task.seq, id, &task_type, unique, now)?;
            }
        }
        let (position, options) = ((now, task.seq), options.as_deref());
        self.index
            .insert_pending(task.route, position, 0, options, None)?;
        self.moved(id, task.route, task.state, StateKind::Pending)?;
        Ok(Requeue::Requeued)
    }

    /// Deletes up to `max` tasks that ended at or before `until`, or whose own time is over, and returns how
    /// many.
    pub fn purge(&mut self, until: i64, max: usize) -> Result<usize, StatementError> {
        let mut found = purged(&mut self.statements.ended, until, max)?;
        let rest = max - found.len();
        if rest > 0 {
            let now = self.clock.now();
            found.extend(purged(&mut self.statements.kept_ended, now, rest)?);
        }
        for Purged { seq, task, options } in &found {
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
            self.statements.delete_damaged.execute([seq])?;
        }
        if !found.is_empty() {
            // If a number were used twice, an old token could end a new task.
            let next = self.index.next_seq;
            self.statements.store_next_seq.execute([next])?;
        }
        Ok(found.len())
    }

    /// Reads the options of a task that may have some. A task whose options cannot be read is marked, and
    /// is `None`.
    fn options_or_mark(
        &mut self,
        seq: i64,
    ) -> Result<Option<Option<Arc<TaskOptions>>>, StatementError> {
        match self.find_options(seq) {
            Ok(options) => Ok(Some(options)),
            Err(error) => {
                let damage = Damage::of(seq, error)?;
                self.mark(&[damage])?;
                Ok(None)
            }
        }
    }

    fn find(&mut self, id: &TaskId) -> Result<Option<Found>, StatementError> {
        // A damaged record is marked, and can be read after that.
        for _ in 0..2 {
            let mut rows = self.statements.find.query([id.as_str()])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let seq = row.get(0)?;
            let found = read_found(row, seq);
            drop(rows);
            let damage = match found {
                Ok(found) if self.index.routes.contains_key(&found.route) => {
                    return Ok(Some(found));
                }
                Ok(found) => Damage::new(seq, format!("its type is {}", found.route)),
                Err(error) => Damage::of(seq, error)?,
            };
            self.mark(&[damage])?;
        }
        Err(StatementError::Corrupt(format!("task {id} cannot be read")))
    }
}

/// A task that is to be purged. What cannot be read of it is `None`.
struct Purged {
    seq: i64,
    task: Option<(TaskId, SymbolId, StateKind)>,
    options: Option<Arc<TaskOptions>>,
}

/// Runs one of the two statements that select what is purged.
fn purged(
    statement: &mut Statement<'_>,
    until: i64,
    max: usize,
) -> Result<Vec<Purged>, StatementError> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    let mut rows = statement.query([until, max])?;
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

fn read_found(row: &Row<'_>, seq: i64) -> Result<Found, StatementError> {
    Ok(Found {
        seq,
        route: row.get(1)?,
        state: state_kind(row.get(2)?)?,
        at: row.get(3)?,
        losses: row.get(4)?,
    })
}
