//! What operators do to tasks: cancelling, requeuing, purging, changing the priority, running now.

use super::{
    damage::Damage,
    encoding::{SymbolId, state_kind},
    purge::Purged,
    transaction::{Transaction, group_of},
};
use hostel_sqlite::StatementError;
use hostel_task::{Acted, Action, Priority, StateKind, TaskId, TaskOptions};
use rusqlite::{Row, params};
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
    /// Does the same to each task.
    pub fn act(&mut self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, StatementError> {
        let mut acted = Vec::with_capacity(ids.len());
        for id in ids {
            acted.push(self.act_on(action, id)?);
        }
        if *action == Action::Purge && acted.contains(&Acted::Done) {
            self.keep_numbers_unused()?;
        }
        Ok(acted)
    }

    fn act_on(&mut self, action: &Action, id: &TaskId) -> Result<Acted, StatementError> {
        let Some(task) = self.find(id)? else {
            return Ok(Acted::Unknown);
        };
        if !action.is_for(task.state) {
            return Ok(Acted::Refused(task.state));
        }
        match action {
            Action::Cancel(reason) if task.state == StateKind::Running => {
                self.request_cancel(id, &task, reason.as_ref())
            }
            Action::Cancel(reason) => self.cancel_pending(id, &task, reason.as_deref()),
            Action::Requeue => self.requeue(id, &task),
            Action::Purge => self.purge_one(id, &task),
            Action::SetPriority(priority) => self.set_priority(id, &task, *priority),
            Action::RunNow => self.run_now(id, &task),
        }
    }

    fn cancel_pending(
        &mut self,
        id: &TaskId,
        task: &Found,
        reason: Option<&str>,
    ) -> Result<Acted, StatementError> {
        let &Found { seq, route, .. } = task;
        let Some(options) = self.options_or_mark(seq)? else {
            return Ok(Acted::Refused(StateKind::Failed));
        };
        let position = (task.at, seq);
        self.index.remove_pending(route, position, task.losses)?;
        self.index.submit_cache.remove(seq);
        let now = self.clock.now();
        self.statements.cancel.execute(params![seq, now, reason])?;
        if let Some(options) = &options {
            let task_type = self.index.route_mut(route)?.route.task_type.clone();
            self.release_key(id, &task_type, options, now)?;
        }
        self.moved(id, route, StateKind::Pending, StateKind::Cancelled)?;
        self.describe_change(0, None, group_of(options.as_deref()));
        Ok(Acted::Done)
    }

    fn request_cancel(
        &mut self,
        id: &TaskId,
        task: &Found,
        reason: Option<&Arc<str>>,
    ) -> Result<Acted, StatementError> {
        let lease = self.index.running.get_mut(id);
        let lease = lease
            .ok_or_else(|| StatementError::Corrupt(format!("task {id} runs without a lease")))?;
        if !std::mem::replace(&mut lease.cancel_requested, true) {
            lease.cancel_reason = reason.cloned();
            let (attempt, options) = (lease.attempt, lease.options.clone());
            let values = params![task.seq, reason.map(|reason| &**reason)];
            self.statements.request_cancel.execute(values)?;
            let task_type = self.index.route_mut(task.route)?.route.task_type.clone();
            self.changed(id, task_type, StateKind::Running);
            self.describe_change(attempt, None, group_of(options.as_deref()));
            if let Some(change) = self.changes.last_mut() {
                change.cancel_requested = true;
            }
        }
        Ok(Acted::Requested)
    }

    fn requeue(&mut self, id: &TaskId, task: &Found) -> Result<Acted, StatementError> {
        let Some(options) = self.options_or_mark(task.seq)? else {
            return Ok(Acted::Refused(StateKind::Failed));
        };
        let now = self.clock.now();
        self.move_attempt(task.seq)?;
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
        self.describe_change(0, None, group_of(options));
        Ok(Acted::Done)
    }

    fn purge_one(&mut self, id: &TaskId, task: &Found) -> Result<Acted, StatementError> {
        // What cannot be read of the options goes with the task.
        let options = self.find_options(task.seq).ok().flatten();
        self.delete(&Purged {
            seq: task.seq,
            task: Some((id.clone(), task.route, task.state)),
            options,
        })?;
        Ok(Acted::Done)
    }

    fn set_priority(
        &mut self,
        id: &TaskId,
        task: &Found,
        priority: Priority,
    ) -> Result<Acted, StatementError> {
        let &Found { seq, at, .. } = task;
        let values = [seq, priority as i64];
        self.statements.set_priority.execute(values)?;
        // It has the priority of the submission.
        self.index.submit_cache.remove(seq);
        self.index
            .move_pending(task.route, (at, seq), at, task.losses, Some(priority))?;
        self.snapshots.push((id.clone(), None));
        Ok(Acted::Done)
    }

    fn run_now(&mut self, id: &TaskId, task: &Found) -> Result<Acted, StatementError> {
        let &Found { seq, at, route, .. } = task;
        let now = self.clock.now();
        // One that is due keeps its place.
        if at > now {
            self.statements.set_at.execute([seq, now])?;
            self.index
                .move_pending(route, (at, seq), now, task.losses, None)?;
            let task_type = self.index.route_mut(route)?.route.task_type.clone();
            self.changed(id, task_type, StateKind::Pending);
            let group = self.index.placements.group(seq).cloned();
            self.describe_change(0, None, group.as_ref());
        }
        Ok(Acted::Done)
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

fn read_found(row: &Row<'_>, seq: i64) -> Result<Found, StatementError> {
    Ok(Found {
        seq,
        route: row.get(1)?,
        state: state_kind(row.get(2)?)?,
        at: row.get(3)?,
        losses: row.get(4)?,
    })
}
