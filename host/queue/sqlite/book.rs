//! The queue's verbs, each within a transaction that the writer has begun: database and board
//! change together. Begins and commits nothing, answers nobody. After a fault the board may be
//! ahead of the database, and the writer loads it anew.

use super::{
    board::{self, Board, Hold, Word, parse_name},
    clock::Clock,
    damage::Damage,
    row::{read_bytes, read_metadata, write_metadata},
    statements::Statements,
};
use crate::{
    Change, Expired, LeaseToken, Leased, Renewal, Submitted, Want,
    recent::{self, Recent, Snapshot},
};
use hostel_sqlite::Fault;
use hostel_task::{Lane, Name, StateKind, Submission, Task, TaskId, UnixMs, is_suspect};
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
    pub(super) clock: Arc<Clock>,
    /// Why there is no room for the new tasks of this transaction.
    pub refusal: Option<Arc<str>>,
    /// The board may not agree with the database any more, though nothing failed.
    pub(super) must_reload: bool,
    max_open: usize,
}

impl<'c> Book<'c> {
    pub fn open(
        conn: &'c Connection,
        max_open: usize,
        recent: Arc<Recent>,
        clock: Arc<Clock>,
    ) -> Result<Self, Fault> {
        let mut book = Self {
            conn,
            statements: Statements::prepare(conn)?,
            board: Board::default(),
            changes: Vec::new(),
            snapshots: Vec::new(),
            recent,
            clock,
            refusal: None,
            must_reload: false,
            max_open,
        };
        book.reload()?;
        Ok(book)
    }

    /// For a transaction that begins anew.
    pub fn forget_changes(&mut self) {
        self.changes.clear();
        self.snapshots.clear();
    }

    /// Makes the board follow the database again. Records that do not make sense are marked.
    pub fn reload(&mut self) -> Result<(), Fault> {
        self.must_reload = false;
        // Once for what is damaged, and once more for what that hid.
        for _ in 0..3 {
            let (board, damaged) = Board::load(self.conn)?;
            let before = std::mem::replace(&mut self.board, board);
            self.board.keep_lanes(before);
            if damaged.is_empty() {
                return Ok(());
            }
            self.write_marks(&damaged)?;
        }
        Err(Fault::Corrupt(
            "damaged tasks stay so, whatever is written".into(),
        ))
    }

    /// The inner `Err` says why there is no room for them.
    pub fn submit(
        &mut self,
        tasks: &[Submission],
    ) -> Result<Result<Vec<Submitted>, Arc<str>>, Fault> {
        if let Some(reason) = self.refusal.clone() {
            let known = self.known_already(tasks)?;
            return Ok(known.ok_or(reason));
        }
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            answers.push(self.submit_one(task, now)?);
        }
        Ok(Ok(answers))
    }

    /// The answers where no task is new.
    fn known_already(&mut self, tasks: &[Submission]) -> Result<Option<Vec<Submitted>>, Fault> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let lane = task.lane().to_string();
            // A lane without a number has no task.
            let word = self.board.words.get(lane.as_str()).copied().unwrap_or(0);
            let metadata = write_metadata(task.metadata());
            answers.push(self.compare(task, word, metadata.as_deref())?);
        }
        Ok(answers.into_iter().collect())
    }

    fn submit_one(&mut self, task: &Submission, now: i64) -> Result<Submitted, Fault> {
        let submitted_at = self.clock.shown(now);
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
        self.board.lane(word)?.wait((now, seq), 0);
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
        let now = self.clock.now();
        let until = now.saturating_add(millis(want.ttl));
        let (leased_at, lease_until) = (self.clock.shown(now), self.clock.shown(until));
        let taken = self.board.take_due(want, now);
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let node = self.word(want.node.as_str())?;
        let mut leased = Vec::with_capacity(taken.len());
        for (word, seq) in taken {
            let (task, fence, losses, submitted_at) = match self.read_waiting(seq, word) {
                Ok(read) => read,
                Err(fault) => {
                    self.mark_taken(Damage::of(seq, fault)?, word, StateKind::Pending)?;
                    continue;
                }
            };
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
                losses,
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

    /// The task as it will be once leased, its new fence and its losses so far; when it was submitted,
    /// if it has never been leased and that is known without a look.
    fn read_waiting(
        &mut self,
        seq: i64,
        word: Word,
    ) -> Result<(Leased, i64, u32, Option<UnixMs>), Fault> {
        let task_type = self.board.lane(word)?.key.task_type.clone();
        if let Some(fresh) = self.board.fresh.take(seq) {
            let fence = first_fence(seq) + 1;
            let leased = Leased {
                token: token(fresh.id, fence),
                task_type,
                payload: fresh.payload,
                metadata: fresh.metadata,
                attempt: 1,
                suspect: false,
            };
            return Ok((leased, fence, 0, Some(fresh.submitted_at)));
        }
        let mut rows = self.statements.waiting.query([seq])?;
        let row = rows
            .next()?
            .ok_or_else(|| Fault::Corrupt(format!("task number {seq} is gone")))?;
        let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let (fence, losses) = (row.get::<_, i64>(2)? + 1, row.get(5)?);
        let leased = Leased {
            token: token(parse_name(id)?, fence),
            task_type,
            payload: read_bytes(row.get_ref(4)?)?,
            metadata: read_metadata(row.get_ref(3)?)?,
            attempt: row.get::<_, u32>(1)?.saturating_add(1),
            suspect: is_suspect(losses),
        };
        Ok((leased, fence, losses, None))
    }

    pub fn renew(&mut self, held: &[LeaseToken], ttl: Duration) -> Result<Vec<Renewal>, Fault> {
        let until = self.clock.now().saturating_add(millis(ttl));
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
        let now = self.clock.now();
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
                losses: hold.losses,
                cancel_asked: hold.cancel_asked,
            })
        });
        Ok(expired.take(max).collect())
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

    pub(super) fn changed(&mut self, id: &TaskId, task_type: Name, state: StateKind) {
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

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn token(id: TaskId, fence: i64) -> LeaseToken {
    // Fences begin above 0 and are counted up.
    let fence = fence.unsigned_abs();
    LeaseToken { id, fence }
}
