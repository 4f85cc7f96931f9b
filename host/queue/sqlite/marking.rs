//! Marking damaged records: the task fails with the error class `corrupt`, and the table `damaged`
//! keeps what its row held. Other tasks are not affected.

use super::{
    damage::Damage,
    encoding::{SymbolId, parse_name, parse_route},
    running::ActiveLease,
    transaction::Transaction,
};
use hostel_runtime::log_limit::LogLimit;
use hostel_sqlite::StatementError;
use hostel_task::{StateKind, TaskId};
use rusqlite::{Connection, OptionalExtension, params};
use std::time::Duration;

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

/// Keeps the columns that are valid. `finishes` becomes 1, whether or not the end was counted before.
const MARK: &str = "UPDATE task SET state = 3, at = ?2, error = ?3, error_class = 'corrupt',
    id = ifnull(?4, id), type = ?5, cancel_asked = 0, finishes = 1,
    fence = CASE WHEN typeof(fence) = 'integer' THEN fence ELSE (seq << 20) + (1 << 19) END,
    attempt = CASE WHEN attempt BETWEEN 0 AND 4294967295 AND typeof(attempt) = 'integer'
        THEN attempt ELSE 0 END,
    losses = CASE WHEN losses BETWEEN 0 AND 4294967295 AND typeof(losses) = 'integer'
        THEN losses ELSE 0 END,
    submitted_at = CASE WHEN typeof(submitted_at) = 'integer' THEN submitted_at ELSE ?2 END,
    started_at = CASE WHEN typeof(started_at) = 'integer' THEN started_at END,
    node = NULL, ran_node = NULL, ran_plugin = NULL, ran_version = NULL, ran_class = NULL
    WHERE seq = ?1";

impl Transaction<'_> {
    /// Marks tasks as corrupt and loads the index again.
    pub fn mark(&mut self, damaged: &[Damage]) -> Result<(), StatementError> {
        self.write_marks(damaged)?;
        self.reload()
    }

    /// Marks a task that the index no longer has as pending or running; `was` is the state that it is
    /// still counted in.
    pub fn mark_taken(
        &mut self,
        damage: Damage,
        route: SymbolId,
        was: StateKind,
    ) -> Result<(), StatementError> {
        let (id, new_route) = self.write_mark(&damage)?;
        self.must_reload |= new_route != route;
        match id {
            Some(id) => self.moved(&id, route, was, StateKind::Failed),
            None => self.index.count(route, Some(was), Some(StateKind::Failed)),
        }
    }

    /// Marks a running task; an error that is not damage to its record is returned.
    pub fn mark_running(
        &mut self,
        id: &TaskId,
        lease: &ActiveLease,
        error: StatementError,
    ) -> Result<(), StatementError> {
        let damage = Damage::of(lease.seq, error)?;
        if self.index.end_lease(id).is_none() {
            // The failed operation changed the index, but not the database.
            return self.mark(&[damage]);
        }
        self.mark_taken(damage, lease.route, StateKind::Running)
    }

    /// Marks tasks without touching the index; in a transaction of its own if none runs.
    pub(super) fn write_marks(&mut self, damaged: &[Damage]) -> Result<(), StatementError> {
        let begins = self.conn.is_autocommit();
        if begins {
            self.conn.execute_batch("BEGIN IMMEDIATE")?;
        }
        for damage in damaged {
            if let (Some(id), _) = self.write_mark(damage)? {
                self.snapshots.push((id, None));
            }
        }
        if begins {
            self.conn.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// Returns the task's id, if it can be read, and its route from now on.
    fn write_mark(
        &mut self,
        damage: &Damage,
    ) -> Result<(Option<TaskId>, SymbolId), StatementError> {
        let Damage { seq, reason } = damage;
        let id = readable(self.conn, "SELECT id FROM task WHERE seq = ?1", *seq);
        let id = id.and_then(|id| parse_name(&id).ok());
        let read = "SELECT text FROM word WHERE word = (SELECT type FROM task WHERE seq = ?1)";
        let route = readable(self.conn, read, *seq).filter(|text| parse_route(text).is_ok());
        let route = self.symbol(route.as_deref().unwrap_or(NO_TYPE))?;
        let new_id = id.is_none().then(|| format!("damaged-{seq}"));
        let marked = params![seq, self.clock.now(), reason, new_id, route];
        self.conn.prepare_cached(KEEP)?.execute([seq])?;
        self.conn.prepare_cached(MARK)?.execute(marked)?;
        if let Some(id) = &id {
            // Its options, which name the key, may be what is damaged.
            let release = "UPDATE unique_key SET open = 0 WHERE id = ?1";
            self.conn.prepare_cached(release)?.execute([id.as_str()])?;
        }
        if let Some(left_out) = MARKED.permit() {
            let task = id.as_ref().map_or("", TaskId::as_str);
            tracing::error!(
                task,
                seq,
                left_out,
                "marked as failed and corrupt: {reason}"
            );
        }
        Ok((id, route))
    }
}

/// Returns a text, or `None` if it cannot be read.
fn readable(conn: &Connection, query: &str, seq: i64) -> Option<String> {
    let mut statement = conn.prepare_cached(query).ok()?;
    let read = statement.query_row([seq], |row| row.get(0)).optional();
    read.ok().flatten()
}
