//! The attempts of tasks, as the database has them. The attempt that ends a task is in the row of the task, so
//! that a task which completes at its first attempt costs no statement more; all others are in the table
//! `attempts`, the latest of each task.

use super::{
    clock::Clock,
    encoding::{integer, parse_name},
    transaction::Transaction,
};
use crate::task_queue::Finish;
use hostel_runtime::untrusted::clip;
use hostel_sqlite::StatementError;
use hostel_task::{
    AttemptClass, AttemptHistory, AttemptRecord, AttemptUsage, MAX_ATTEMPT_ERROR_BYTES,
    MAX_ATTEMPTS,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The attempts of a task that others have followed, as `read` expects them.
const EARLIER: &str = "SELECT n, number, class, error, started_at, ended_at,
        (SELECT text FROM word WHERE word = node), (SELECT text FROM word WHERE word = plugin),
        (SELECT text FROM word WHERE word = version), cpu_us, peak_memory, log_bytes
    FROM attempts WHERE seq = ?1 ORDER BY n";

/// The attempt that has ended a task.
const LAST: &str = "SELECT NULL, attempt, ran_class, error, started_at, at,
        (SELECT text FROM word WHERE word = ifnull(ran_node, node)),
        (SELECT text FROM word WHERE word = ran_plugin),
        (SELECT text FROM word WHERE word = ran_version), cpu_us, peak_memory, log_bytes
    FROM task WHERE seq = ?1 AND ran_class IS NOT NULL";

impl Transaction<'_> {
    /// Adds an attempt to the table. To be called before the row of the task changes, which says when the
    /// attempt began and where.
    pub fn record_attempt(
        &mut self,
        seq: i64,
        number: u32,
        finish: &Finish,
        now: i64,
    ) -> Result<(), StatementError> {
        let by = finish.executed_by.as_ref();
        if !finish.report.is_recorded(by) {
            return Ok(());
        }
        let by = self.executor_symbols(by)?;
        let (class, usage) = (finish.report.class, finish.report.usage);
        let error = finish.error().filter(|_| class.has_error());
        let error = error.map(|error| clip(error.to_owned(), MAX_ATTEMPT_ERROR_BYTES));
        let values = params![
            seq,
            number,
            class as i64,
            error,
            now,
            by.map(|[node, _, _]| node),
            by.map(|[_, plugin, _]| plugin),
            by.map(|[_, _, version]| version),
            integer(usage.cpu_us),
            integer(usage.peak_memory_bytes),
            integer(usage.log_bytes),
        ];
        let statement = &mut self.statements.record_attempt;
        let count = statement.query_one(values, |row| row.get(0))?;
        self.drop_attempts(seq, count)
    }

    /// Moves the attempt that has ended a task from its row into the table, since the row is used again.
    pub fn move_attempt(&mut self, seq: i64) -> Result<(), StatementError> {
        let statement = &mut self.statements.move_attempt;
        let count = statement.query_one([seq], |row| row.get(0)).optional()?;
        match count {
            Some(count) => self.drop_attempts(seq, count),
            None => Ok(()),
        }
    }

    /// Deletes the attempts of a task that are more than are kept of `count`.
    fn drop_attempts(&mut self, seq: i64, count: i64) -> Result<(), StatementError> {
        let kept = i64::try_from(MAX_ATTEMPTS).unwrap_or(i64::MAX);
        if count > kept {
            self.statements.drop_attempts.execute([seq, count - kept])?;
        }
        Ok(())
    }
}

/// Reads the attempts of a task that have ended.
pub(super) fn history(
    conn: &Connection,
    seq: i64,
    clock: &Clock,
) -> Result<AttemptHistory, StatementError> {
    let mut history: Option<AttemptHistory> = None;
    for query in [EARLIER, LAST] {
        let mut statement = conn.prepare_cached(query)?;
        let mut rows = statement.query([seq])?;
        while let Some(row) = rows.next()? {
            let history = history.get_or_insert_with(|| {
                let left_out = number(row, 0).saturating_sub(1);
                AttemptHistory::after(u32::try_from(left_out).unwrap_or(u32::MAX))
            });
            history.push(read(row, clock));
        }
    }
    Ok(history.unwrap_or_default())
}

/// Reads an attempt. What is damaged of it is left out.
fn read(row: &Row<'_>, clock: &Clock) -> AttemptRecord {
    let text = |column| row.get::<_, Option<String>>(column).ok().flatten();
    let name = |column| text(column).and_then(|text| parse_name(&text).ok());
    let time = |column| clock.to_wall(i64::try_from(number(row, column)).unwrap_or(i64::MAX));
    let class = usize::try_from(number(row, 2)).ok();
    let class = class.and_then(|place| AttemptClass::ALL.get(place).copied());
    AttemptRecord {
        number: u32::try_from(number(row, 1)).unwrap_or(u32::MAX),
        class: class.unwrap_or(AttemptClass::Node),
        error: text(3),
        node: name(6),
        plugin: name(7),
        plugin_version: text(8).map(Into::into),
        started_at: time(4),
        ended_at: time(5),
        usage: AttemptUsage {
            cpu_us: number(row, 9),
            peak_memory_bytes: number(row, 10),
            log_bytes: number(row, 11),
        },
    }
}

/// Returns a number of a row; 0 if there is none.
fn number(row: &Row<'_>, column: usize) -> u64 {
    let stored = row.get::<_, Option<i64>>(column).ok().flatten();
    stored
        .and_then(|stored| u64::try_from(stored).ok())
        .unwrap_or(0)
}
