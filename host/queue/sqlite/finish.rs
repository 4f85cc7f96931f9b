//! Finishing attempts: `task::transition` has decided the outcome, and this applies it. The one
//! exception: a task whose cancellation was requested is not tried again.

use super::{
    encoding::{SymbolId, integer, millis},
    running::ActiveLease,
    transaction::{Transaction, group_of},
};
use crate::{
    task_cache,
    task_queue::{Finish, Finished},
};
use hostel_sqlite::StatementError;
use hostel_task::{ExecutedBy, Outcome, StateKind};
use rusqlite::params;

impl Transaction<'_> {
    pub fn finish(&mut self, finishes: &[Finish]) -> Result<Vec<Finished>, StatementError> {
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(finishes.len());
        for finish in finishes {
            let Some(lease) = self.index.lease_of(&finish.token).cloned() else {
                answers.push(Finished::Stale);
                continue;
            };
            answers.push(match self.finish_one(finish, &lease, now) {
                Ok(()) => Finished::Applied,
                Err(error) => {
                    self.mark_running(&finish.token.id, &lease, error)?;
                    Finished::Corrupt
                }
            });
        }
        Ok(answers)
    }

    fn finish_one(
        &mut self,
        finish: &Finish,
        lease: &ActiveLease,
        now: i64,
    ) -> Result<(), StatementError> {
        let (mut state, mut at, error) = match &finish.outcome {
            Outcome::Completed { .. } => (StateKind::Completed, now, None),
            Outcome::Failed { error } => (StateKind::Failed, now, Some(error)),
            Outcome::Cancelled => (StateKind::Cancelled, now, None),
            Outcome::Retry { after, error } | Outcome::Lost { after, error } => {
                let due = now.saturating_add(millis(*after));
                (StateKind::Pending, due, Some(error))
            }
            Outcome::Released => (StateKind::Pending, now, None),
        };
        if lease.cancel_requested && state == StateKind::Pending {
            (state, at) = (StateKind::Cancelled, now);
        }
        // Its row has room for the attempt that ends the task.
        let is_last = state.is_terminal()
            && !matches!(finish.outcome, Outcome::Released | Outcome::Lost { .. });
        if !is_last {
            self.record_attempt(lease.seq, lease.attempt, finish, now)?;
        }
        let ends = i64::from(state.is_terminal());
        let (seq, kind) = (lease.seq, state as i64);
        let attempts_before = lease.attempt.saturating_sub(1);
        let mut losses = lease.losses;
        match &finish.outcome {
            Outcome::Released => {
                let released = params![seq, kind, at, attempts_before, ends];
                self.statements.release.execute(released)?;
            }
            Outcome::Lost { .. } => {
                losses += 1;
                let lost = params![seq, kind, at, attempts_before, ends, error];
                self.statements.lose.execute(lost)?;
            }
            _ => {
                let by = self.executor_symbols(finish.executed_by.as_ref())?;
                let last = is_last.then_some(finish.report);
                self.statements.finish.execute(params![
                    seq,
                    kind,
                    at,
                    lease.attempt,
                    ends,
                    error,
                    by.map(|[node, _, _]| node),
                    by.map(|[_, plugin, _]| plugin),
                    by.map(|[_, _, version]| version),
                    last.map(|it| it.class as i64),
                    last.map(|it| integer(it.usage.cpu_us)),
                    last.map(|it| integer(it.usage.peak_memory_bytes)),
                    last.map(|it| integer(it.usage.log_bytes)),
                ])?;
            }
        }
        if let Outcome::Completed { result } = &finish.outcome
            && !result.is_empty()
        {
            let result = params![seq, &result[..]];
            self.statements.insert_result.execute(result)?;
        }
        if let Some(reason) = &lease.cancel_reason
            && state == StateKind::Cancelled
        {
            self.statements.set_error.execute(params![seq, &**reason])?;
        }
        let id = &finish.token.id;
        self.index.end_lease(id);
        let options = lease.options.as_deref();
        if state == StateKind::Pending {
            self.index
                .insert_pending(lease.route, (at, seq), losses, options, None)?;
        } else if let Some(options) = options {
            let task_type = self.index.route_mut(lease.route)?.route.task_type.clone();
            self.release_key(id, &task_type, options, now)?;
        }
        self.moved(id, lease.route, StateKind::Running, state)?;
        let node = finish.executed_by.as_ref().map(|by| &by.node);
        let group = group_of(lease.options.as_deref());
        self.describe_change(lease.attempt, node, group);
        let before = self.task_cache.get(id);
        // The cache may not have seen a cancellation, whose reason is the error, or progress.
        let is_known = !lease.cancel_requested && !lease.has_progress;
        let before = before.filter(|before| before.attempt == lease.attempt && is_known);
        let finished_at = self.clock.to_wall(now);
        let ended = before.and_then(|before| task_cache::ended(&before, finish, finished_at));
        if let Some(ended) = ended {
            self.known(ended);
        }
        Ok(())
    }

    /// Returns the symbols of node, plugin and version.
    pub fn executor_symbols(
        &mut self,
        executed_by: Option<&ExecutedBy>,
    ) -> Result<Option<[SymbolId; 3]>, StatementError> {
        let Some(by) = executed_by else {
            return Ok(None);
        };
        Ok(Some([
            self.symbol(by.node.as_str())?,
            self.symbol(by.plugin.as_str())?,
            self.symbol(&by.plugin_version)?,
        ]))
    }
}
