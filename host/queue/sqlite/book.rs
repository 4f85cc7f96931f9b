//! The queue's verbs, each within a transaction that the writer has begun: database and board
//! change together. Begins and commits nothing, answers nobody. After a fault the board may be
//! ahead of the database, and the writer loads it anew.

use super::{
    board::{self, Board, Hold, Word, parse_name},
    row::{ms, read_bytes, read_metadata, state_kind, write_metadata},
    statements::Statements,
};
use crate::{
    queue::{
        Cancel, Change, Expired, LeaseToken, Leased, Renewal, Requeue, Submitted, Want, now,
        recent::{self, Recent, Snapshot},
    },
    sqlite::Fault,
    task::{Lane, Name, StateKind, Submission, Task, TaskId, UnixMs},
};
use rusqlite::{Connection, OptionalExtension, params};
use std::{sync::Arc, time::Duration};

pub(super) struct Book<'c> {
    pub conn: &'c Connection,
    pub statements: Statements<'c>,
    pub board: Board,
    /// What the running transaction changes, for the watchers.
    pub changes: Vec<Change>,
    /// What the running transaction makes of the tasks it changes: one entry at least for each.
    pub snapshots: Vec<Snapshot>,
    /// As of the transaction before.
    pub(super) recent: Arc<Recent>,
    max_open: usize,
}

impl<'c> Book<'c> {
    pub fn open(conn: &'c Connection, max_open: usize, recent: Arc<Recent>) -> Result<Self, Fault> {
        Ok(Self {
            conn,
            statements: Statements::prepare(conn)?,
            board: Board::load(conn)?,
            changes: Vec::new(),
            snapshots: Vec::new(),
            recent,
            max_open,
        })
    }

    /// For a transaction that begins anew.
    pub fn forget_changes(&mut self) {
        self.changes.clear();
        self.snapshots.clear();
    }

    /// Makes the board follow the database again.
    pub fn reload(&mut self) -> Result<(), Fault> {
        self.board = Board::load(self.conn)?;
        Ok(())
    }

    pub fn submit(&mut self, tasks: &[Submission]) -> Result<Vec<Submitted>, Fault> {
        let now = now();
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            answers.push(self.submit_one(task, now)?);
        }
        Ok(answers)
    }

    fn submit_one(&mut self, task: &Submission, now: UnixMs) -> Result<Submitted, Fault> {
        let submitted_at = now;
        let now = ms(now);
        let word = self.lane_word(task.lane())?;
        let metadata = write_metadata(task.metadata());
        if self.board.open >= self.max_open {
            return Ok(self
                .compare(task, word, metadata.as_deref())?
                .unwrap_or(Submitted::Full));
        }
        let seq = self.board.next_seq;
        let id = task.id().as_str();
        let inserted =
            self.statements
                .insert_task
                .execute(params![seq, id, word, now, first_fence(seq)])?;
        if inserted == 0 {
            return self
                .compare(task, word, metadata.as_deref())?
                .ok_or_else(|| Fault::Corrupt(format!("the id {id} is taken and not taken")));
        }
        self.statements
            .insert_body
            .execute(params![seq, metadata, &task.payload()[..]])?;
        self.board.next_seq += 1;
        self.board.count(word, None, Some(StateKind::Pending))?;
        self.board.lane(word)?.pending.insert((now, seq));
        self.board.fresh.keep(seq, task, submitted_at);
        self.changed(task.id(), task.task_type().clone(), StateKind::Pending);
        self.known(recent::submitted(task, submitted_at));
        Ok(Submitted::Created)
    }

    /// Whether a task of that id exists and is the same.
    fn compare(
        &mut self,
        task: &Submission,
        word: Word,
        metadata: Option<&str>,
    ) -> Result<Option<Submitted>, Fault> {
        let same = self
            .statements
            .same_task
            .query_row(
                params![task.id().as_str(), word, metadata, &task.payload()[..]],
                |row| row.get::<_, bool>(0),
            )
            .optional()?;
        Ok(same.map(|same| match same {
            true => Submitted::Existing,
            false => Submitted::Conflict,
        }))
    }

    pub fn lease(&mut self, want: &Want) -> Result<Vec<Leased>, Fault> {
        let now = now();
        let lease_until = now.after(want.ttl);
        let (until, leased_at) = (ms(lease_until), now);
        let now = ms(now);
        let taken = self.board.take_due(want, now);
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let node = self.word(want.node.as_str())?;
        let mut leased = Vec::with_capacity(taken.len());
        for (word, seq) in taken {
            let (task, fence, submitted_at) = self.read_waiting(seq, word)?;
            self.statements
                .lease
                .execute(params![seq, until, fence, task.attempt, now, node])?;
            let hold = Hold {
                seq,
                fence,
                lane: word,
                attempt: task.attempt,
                lease_until: until,
                cancel_asked: false,
            };
            let id = task.token.id.clone();
            self.changed(&id, task.task_type.clone(), StateKind::Running);
            self.board.running.insert(id, hold);
            let (from, to) = (Some(StateKind::Pending), Some(StateKind::Running));
            self.board.count(word, from, to)?;
            if let Some(submitted_at) = submitted_at {
                let node = want.node.clone();
                let target = self.board.lane(word)?.key.target.clone();
                let times = [submitted_at, leased_at, lease_until];
                self.known(recent::first_leased(&task, target, node, times));
            }
            leased.push(task);
        }
        Ok(leased)
    }

    /// The task as it will be once leased, and its new fence; when it was submitted, if it has
    /// never been leased and that is known without a look.
    fn read_waiting(
        &mut self,
        seq: i64,
        word: Word,
    ) -> Result<(Leased, i64, Option<UnixMs>), Fault> {
        let task_type = self.board.lane(word)?.key.task_type.clone();
        if let Some(fresh) = self.board.fresh.take(seq) {
            let fence = first_fence(seq) + 1;
            let leased = Leased {
                token: token(fresh.id, fence),
                task_type,
                payload: fresh.payload,
                metadata: fresh.metadata,
                attempt: 1,
            };
            return Ok((leased, fence, Some(fresh.submitted_at)));
        }
        let mut rows = self.statements.waiting.query([seq])?;
        let row = rows
            .next()?
            .ok_or_else(|| Fault::Corrupt(format!("task number {seq} is gone")))?;
        let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let fence = row.get::<_, i64>(2)? + 1;
        let leased = Leased {
            token: token(parse_name(id)?, fence),
            task_type,
            payload: read_bytes(row.get_ref(4)?)?,
            metadata: read_metadata(row.get_ref(3)?)?,
            attempt: row.get::<_, u32>(1)?.saturating_add(1),
        };
        Ok((leased, fence, None))
    }

    pub fn renew(&mut self, held: &[LeaseToken], ttl: Duration) -> Result<Vec<Renewal>, Fault> {
        let until = ms(now().after(ttl));
        let mut answers = Vec::with_capacity(held.len());
        for token in held {
            let Some(hold) = self.board.held(token) else {
                answers.push(Renewal::Lost);
                continue;
            };
            hold.lease_until = until;
            self.snapshots.push((token.id.clone(), None));
            answers.push(match hold.cancel_asked {
                true => Renewal::CancelAsked,
                false => Renewal::Held,
            });
            self.statements.renew.execute([hold.seq, until])?;
        }
        Ok(answers)
    }

    /// Only looks, and only at the board.
    pub fn expired(&mut self, except: &[Name], max: usize) -> Result<Vec<Expired>, Fault> {
        let now = ms(now());
        let mut late: Vec<_> = self
            .board
            .running
            .iter()
            .filter(|(_, hold)| hold.lease_until < now)
            .collect();
        late.sort_unstable_by_key(|(_, hold)| (hold.lease_until, hold.seq));
        let lanes = &self.board.lanes;
        let expired = late.into_iter().filter_map(|(id, hold)| {
            let task_type = &lanes.get(&hold.lane)?.key.task_type;
            (!except.contains(task_type)).then(|| Expired {
                token: token(id.clone(), hold.fence),
                task_type: task_type.clone(),
                attempt: hold.attempt,
                cancel_asked: hold.cancel_asked,
            })
        });
        Ok(expired.take(max).collect())
    }

    pub fn cancel(&mut self, id: &TaskId) -> Result<Cancel, Fault> {
        let Some((seq, word, state, at)) = self.find(id)? else {
            return Ok(Cancel::Unknown);
        };
        match state {
            StateKind::Pending => {
                self.board.lane(word)?.pending.remove(&(at, seq));
                self.board.fresh.take(seq);
                self.statements.cancel.execute([seq, ms(now())])?;
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
        let Some((seq, word, state, _)) = self.find(id)? else {
            return Ok(Requeue::Unknown);
        };
        if !matches!(state, StateKind::Failed | StateKind::Cancelled) {
            return Ok(Requeue::Refused(state));
        }
        let now = ms(now());
        self.statements.requeue.execute([seq, now])?;
        self.board.lane(word)?.pending.insert((now, seq));
        self.moved(id, word, state, StateKind::Pending)?;
        Ok(Requeue::Requeued)
    }

    /// Forgets up to `max` tasks that ended at or before `until`.
    pub fn purge(&mut self, until: i64, max: usize) -> Result<usize, Fault> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let found: Vec<(i64, Word, i64, String)> = self
            .statements
            .ended
            .query_map([until, max], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<Result<_, _>>()?;
        for &(seq, word, state, ref id) in &found {
            self.snapshots.push((parse_name(id)?, None));
            self.statements.delete_task.execute([seq])?;
            self.statements.delete_body.execute([seq])?;
            self.statements.delete_result.execute([seq])?;
            self.board.count(word, Some(state_kind(state)?), None)?;
        }
        if !found.is_empty() {
            // A number that is given out twice could let an old token end a new task.
            let next = self.board.next_seq;
            self.statements.keep_next_seq.execute([next])?;
            self.shrink(found.len())?;
        }
        Ok(found.len())
    }

    /// Gives free pages back to the disk in small steps, once they are a good part of the file:
    /// some are soon used again, and moving pages is work.
    fn shrink(&mut self, purged: usize) -> Result<(), Fault> {
        let number = |pragma: &str| self.conn.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let (free, all) = (
            number("PRAGMA freelist_count")?,
            number("PRAGMA page_count")?,
        );
        if free > 256 && free > all / 4 {
            let pages = (2 * purged).max(256);
            // Each step moves one page.
            let mut vacuum = self
                .conn
                .prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        Ok(())
    }

    fn find(&mut self, id: &TaskId) -> Result<Option<(i64, Word, StateKind, i64)>, Fault> {
        let found = self
            .statements
            .find
            .query_row([id.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some((seq, word, state, at)) = found else {
            return Ok(None);
        };
        Ok(Some((seq, word, state_kind(state)?, at)))
    }

    /// Counts the step and tells of it.
    pub(super) fn moved(
        &mut self,
        id: &TaskId,
        word: Word,
        from: StateKind,
        to: StateKind,
    ) -> Result<(), Fault> {
        self.board.count(word, Some(from), Some(to))?;
        let task_type = self.board.lane(word)?.key.task_type.clone();
        self.changed(id, task_type, to);
        Ok(())
    }

    /// What the task is now, where that is known at no cost.
    pub(super) fn known(&mut self, task: Task) {
        let task = Arc::new(task);
        match self.snapshots.last_mut() {
            // The step that led here has just been noted without it.
            Some((id, unknown @ None)) if *id == task.id => *unknown = Some(task),
            _ => self.snapshots.push((task.id.clone(), Some(task))),
        }
    }

    fn changed(&mut self, id: &TaskId, task_type: Name, state: StateKind) {
        self.snapshots.push((id.clone(), None));
        self.changes.push(Change::new(id.clone(), task_type, state));
    }

    /// The number of a text that repeats.
    pub(super) fn word(&mut self, text: &str) -> Result<Word, Fault> {
        if let Some(&word) = self.board.words.get(text) {
            return Ok(word);
        }
        let word = 1 + self.board.words.values().max().copied().unwrap_or(0);
        self.statements.insert_word.execute(params![word, text])?;
        self.board.words.insert(text.into(), word);
        Ok(word)
    }

    fn lane_word(&mut self, key: &Lane) -> Result<Word, Fault> {
        let word = self.word(&key.to_string())?;
        self.board
            .lanes
            .entry(word)
            .or_insert_with(|| board::Lane::new(key.clone()));
        Ok(word)
    }
}

/// Each task has 2^20 fences of its own, so that one which is purged and submitted again never sees
/// an old one.
fn first_fence(seq: i64) -> i64 {
    seq << 20
}

fn token(id: TaskId, fence: i64) -> LeaseToken {
    // Fences begin above 0 and are counted up.
    let fence = fence.unsigned_abs();
    LeaseToken { id, fence }
}
