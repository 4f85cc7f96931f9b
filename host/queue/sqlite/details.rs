//! Reading a task with all that the database has of it. Changes nothing.

use super::{
    attempts,
    clock::Clock,
    queries::{self, Read},
    row::task_query,
};
use crate::details::{ReadLimits, TaskDetails};
use hostel_task::TaskId;
use rusqlite::{Connection, params};

/// Reads a task, its sizes and its attempts.
pub(super) fn get(
    conn: &Connection,
    id: &TaskId,
    limits: ReadLimits,
    clock: &Clock,
) -> Read<TaskDetails> {
    let query = task_query!(
        "CASE WHEN length(payload) <= ?2 THEN payload ELSE x'' END,
         CASE WHEN length(result) <= ?3 THEN result END",
        "LEFT JOIN body USING (seq) LEFT JOIN result USING (seq) WHERE id = ?1"
    );
    let max = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (payload, result) = (max(limits.payload_bytes), max(limits.result_bytes));
    let values = params![id.as_str(), payload, result];
    let task = match queries::read(conn, query, values, id, clock)? {
        Some(Ok(task)) => task,
        None => return Ok(None),
        Some(Err(damage)) => return Ok(Some(Err(damage))),
    };
    let sizes = "SELECT seq, ifnull(length(payload), 0), ifnull(length(result), 0)
        FROM task LEFT JOIN body USING (seq) LEFT JOIN result USING (seq) WHERE id = ?1";
    let mut sizes = conn.prepare_cached(sizes)?;
    let sizes = sizes.query_one([id.as_str()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    let (seq, payload, result): (i64, i64, i64) = sizes?;
    let bytes = |stored: i64| usize::try_from(stored).unwrap_or(0);
    Ok(Some(Ok(TaskDetails {
        task,
        payload_bytes: bytes(payload),
        result_bytes: bytes(result),
        attempts: attempts::history(conn, seq, clock)?,
    })))
}
