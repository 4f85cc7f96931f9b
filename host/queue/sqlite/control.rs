//! What people ask of tasks, and forgetting them: the verbs of `book` that neither hand out work nor
//! take it back.

use super::{
    board::{Word, parse_name},
    book::Book,
    damage::Damage,
    row::state_kind,
};
use crate::{Cancel, Requeue};
use hostel_sqlite::Fault;
use hostel_task::{StateKind, TaskId};
use rusqlite::Row;

impl Book<'_> {
    pub fn cancel(&mut self, id: &TaskId) -> Result<Cancel, Fault> {
        let Some((seq, word, state, at, losses)) = self.find(id)? else {
            return Ok(Cancel::Unknown);
        };
        match state {
            StateKind::Pending => {
                self.board.lane(word)?.leave((at, seq), losses);
                self.board.fresh.take(seq);
                self.statements.cancel.execute([seq, self.clock.now()])?;
                self.moved(id, word, state, StateKind::Cancelled)?;
                Ok(Cancel::Cancelled)
            }
            StateKind::Running => {
                let asked_before = match self.board.running.get_mut(id) {
                    Some(hold) => std::mem::replace(&mut hold.cancel_asked, true),
                    None => return Err(Fault::Corrupt(format!("task {id} runs unheld"))),
                };
                if !asked_before {
                    self.statements.ask_cancel.execute([seq])?;
                    let task_type = self.board.lane(word)?.key.task_type.clone();
                    self.changed(id, task_type, StateKind::Running);
                    if let Some(change) = self.changes.last_mut() {
                        change.cancel_asked = true;
                    }
                }
                Ok(Cancel::Asked)
            }
            ended => Ok(Cancel::Ended(ended)),
        }
    }

    pub fn requeue(&mut self, id: &TaskId) -> Result<Requeue, Fault> {
        let Some((seq, word, state, _, _)) = self.find(id)? else {
            return Ok(Requeue::Unknown);
        };
        if !matches!(state, StateKind::Failed | StateKind::Cancelled) {
            return Ok(Requeue::Refused(state));
        }
        let now = self.clock.now();
        self.statements.requeue.execute([seq, now])?;
        self.board.lane(word)?.wait((now, seq), 0);
        self.moved(id, word, state, StateKind::Pending)?;
        Ok(Requeue::Requeued)
    }

    /// Forgets up to `max` tasks that ended at or before `until`.
    pub fn purge(&mut self, until: i64, max: usize) -> Result<usize, Fault> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let mut found: Vec<(i64, Option<Found>)> = Vec::new();
        let mut rows = self.statements.ended.query([until, max])?;
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, read_ended(row).ok()));
        }
        drop(rows);
        for (seq, task) in &found {
            // A damaged one goes like the others; what it counted as is found out anew.
            let counted = task.as_ref().is_some_and(|(id, word, state)| {
                self.snapshots.push((id.clone(), None));
                self.board.count(*word, Some(*state), None).is_ok()
            });
            self.must_reload |= !counted;
            self.statements.delete_task.execute([seq])?;
            self.statements.delete_body.execute([seq])?;
            self.statements.delete_result.execute([seq])?;
            self.statements.delete_damaged.execute([seq])?;
        }
        if !found.is_empty() {
            // A number that is given out twice could let an old token end a new task.
            let next = self.board.next_seq;
            self.statements.keep_next_seq.execute([next])?;
        }
        Ok(found.len())
    }

    /// Number, type and state of a task, its time, and its losses.
    fn find(&mut self, id: &TaskId) -> Result<Option<(i64, Word, StateKind, i64, u32)>, Fault> {
        for _ in 0..2 {
            let mut rows = self.statements.find.query([id.as_str()])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let seq = row.get(0)?;
            let found = read_found(row);
            drop(rows);
            match found {
                Ok((word, state, at, losses)) if self.board.lanes.contains_key(&word) => {
                    return Ok(Some((seq, word, state, at, losses)));
                }
                Ok((word, ..)) => self.mark(&[Damage::new(seq, format!("its type is {word}"))])?,
                Err(fault) => self.mark(&[Damage::of(seq, fault)?])?,
            }
        }
        Err(Fault::Corrupt(format!("task {id} cannot be read")))
    }
}

/// Id, type and state of an ended task.
type Found = (TaskId, Word, StateKind);

fn read_ended(row: &Row<'_>) -> Result<Found, Fault> {
    let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    Ok((parse_name(id)?, row.get(1)?, state_kind(row.get(2)?)?))
}

fn read_found(row: &Row<'_>) -> Result<(Word, StateKind, i64, u32), Fault> {
    let state = state_kind(row.get(2)?)?;
    Ok((row.get(1)?, state, row.get(3)?, row.get(4)?))
}
