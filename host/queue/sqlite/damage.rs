//! Records that do not make sense: metadata that does not parse, a state that there is none of, a
//! value of the wrong type, a page that cannot be read. Such a task is marked as failed, with the
//! class `corrupt`; what its row held is kept in the table `damaged`. Others go on.

use super::{
    board::{Hold, Word, parse_lane, parse_name},
    book::Book,
};
use hostel_runtime::log_limit::LogLimit;
use hostel_sqlite::Fault;
use hostel_task::{StateKind, TaskId};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

/// One task's record, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    pub seq: i64,
    pub reason: String,
}

/// The type of a task whose own cannot be read.
const NO_TYPE: &str = "corrupt";

static MARKED: LogLimit = LogLimit::new(20, Duration::from_secs(10));

const KEEP: &str = "INSERT OR IGNORE INTO damaged (seq, held) SELECT seq,
    'id = ' || quote(id) || ', type = ' || quote(type) || ', state = ' || quote(state)
    || ', at = ' || quote(at) || ', fence = ' || quote(fence) || ', attempt = ' || quote(attempt)
    || ', finishes = ' || quote(finishes) || ', submitted_at = ' || quote(submitted_at)
    || ', started_at = ' || quote(started_at) || ', node = ' || quote(node)
    || ', error = ' || quote(error)
    FROM task WHERE seq = ?1";

/// What can be believed is kept. An ending counts once, unless it had been counted.
const MARK: &str = "UPDATE task SET state = 3, at = ?2, error = ?3, error_class = 'corrupt',
    id = ifnull(?4, id), type = ?5, cancel_asked = 0, finishes = 1,
    fence = CASE WHEN typeof(fence) = 'integer' THEN fence ELSE (seq << 20) + (1 << 19) END,
    attempt = CASE WHEN attempt BETWEEN 0 AND 4294967295 AND typeof(attempt) = 'integer'
        THEN attempt ELSE 0 END,
    losses = CASE WHEN losses BETWEEN 0 AND 4294967295 AND typeof(losses) = 'integer'
        THEN losses ELSE 0 END,
    submitted_at = CASE WHEN typeof(submitted_at) = 'integer' THEN submitted_at ELSE ?2 END,
    started_at = CASE WHEN typeof(started_at) = 'integer' THEN started_at END,
    node = NULL, ran_node = NULL, ran_plugin = NULL, ran_version = NULL
    WHERE seq = ?1";

impl Damage {
    pub fn new(seq: i64, what: impl std::fmt::Display) -> Self {
        Self {
            seq,
            reason: format!("the task's record is damaged: {what}"),
        }
    }

    /// The fault as damage to that record; itself where it is of another kind.
    pub fn of(seq: i64, fault: Fault) -> Result<Self, Fault> {
        match fault.is_damage() {
            true => Ok(Self::new(seq, fault)),
            false => Err(fault),
        }
    }
}

impl Book<'_> {
    /// Marks tasks as corrupt, whatever the board has of them.
    pub fn mark(&mut self, damaged: &[Damage]) -> Result<(), Fault> {
        self.write_marks(damaged)?;
        self.reload()
    }

    /// Marks a task that the board has already let go of; `was` is how it was counted.
    pub fn mark_taken(&mut self, damage: Damage, word: Word, was: StateKind) -> Result<(), Fault> {
        let (id, type_before) = self.write_mark(&damage)?;
        if type_before != word {
            self.must_reload = true;
        }
        match id {
            Some(id) => self.moved(&id, word, was, StateKind::Failed),
            None => self.board.count(word, Some(was), Some(StateKind::Failed)),
        }
    }

    /// The same of a task that runs.
    pub fn mark_held(&mut self, id: &TaskId, hold: &Hold, fault: Fault) -> Result<(), Fault> {
        let damage = Damage::of(hold.seq, fault)?;
        if self.board.running.remove(id).is_none() {
            // What failed had gone further on the board than in the database.
            return self.mark(&[damage]);
        }
        self.mark_taken(damage, hold.lane, StateKind::Running)
    }

    pub(super) fn write_marks(&mut self, damaged: &[Damage]) -> Result<(), Fault> {
        let alone = self.conn.is_autocommit();
        if alone {
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
        }
        for damage in damaged {
            if let (Some(id), _) = self.write_mark(damage)? {
                self.snapshots.push((id, None));
            }
        }
        if alone {
            self.conn.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// Returns the task's id, and its type from now on.
    fn write_mark(&mut self, damage: &Damage) -> Result<(Option<TaskId>, Word), Fault> {
        let Damage { seq, reason } = damage;
        let read = "SELECT id FROM task WHERE seq = ?1";
        let id = readable(self.conn, read, *seq).and_then(|id| parse_name(&id).ok());
        let read = "SELECT text FROM word WHERE word = (SELECT type FROM task WHERE seq = ?1)";
        let lane = readable(self.conn, read, *seq).filter(|text| parse_lane(text).is_ok());
        let word = self.word(lane.as_deref().unwrap_or(NO_TYPE))?;
        let new_id = id.is_none().then(|| format!("damaged-{seq}"));
        self.conn.prepare_cached(KEEP)?.execute([seq])?;
        self.conn.prepare_cached(MARK)?.execute(params![
            seq,
            self.clock.now(),
            reason,
            new_id,
            word
        ])?;
        let task = id.as_ref().map_or("", TaskId::as_str);
        if let Some(left_out) = MARKED.permit() {
            tracing::error!(
                task,
                seq,
                left_out,
                "marked as failed and corrupt: {reason}"
            );
        }
        Ok((id, word))
    }
}

/// A text, where it can be read.
fn readable(conn: &Connection, query: &str, seq: i64) -> Option<String> {
    let read = conn.prepare_cached(query).and_then(|mut statement| {
        statement
            .query_row([seq], |row| row.get::<_, String>(0))
            .optional()
    });
    read.ok().flatten()
}
