//! The queries of the readers: one task, or a page of tasks; and the comparison of a submission with its
//! task, which the writer makes too. Changes nothing.

use super::{
    clock::Clock,
    damage::Damage,
    encoding::{write_metadata, write_options},
    listing::{self, Selected},
    row::{self, task_query},
    search,
};
use crate::{
    error::Error,
    status_read::StatusRead,
    task_queue::{Filter, Listing, Submitted},
};
use hostel_sqlite::StatementError;
use hostel_task::{State, Submission, Task, TaskId};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// The largest page.
const MAX_PAGE: usize = 1000;

/// A task, or the damage of its record.
pub(super) type Read<T> = Result<Option<Result<T, Damage>>, StatementError>;

pub(super) fn get(conn: &Connection, id: &TaskId, clock: &Clock) -> Read<Task> {
    let query = task_query!(
        "payload, result",
        "LEFT JOIN body USING (seq) LEFT JOIN result USING (seq) WHERE id = ?1"
    );
    read(conn, query, params![id.as_str()], id, clock)
}

/// Reads a task without its payload, and with its result unless that has more than `max_result_bytes`.
pub(super) fn get_status(
    conn: &Connection,
    id: &TaskId,
    max_result_bytes: usize,
    clock: &Clock,
) -> Read<StatusRead> {
    let query = task_query!(
        "x'', CASE WHEN length(result) <= ?2 THEN result END",
        "LEFT JOIN body USING (seq) LEFT JOIN result USING (seq) WHERE id = ?1"
    );
    let max = i64::try_from(max_result_bytes).unwrap_or(i64::MAX);
    let task = match read(conn, query, params![id.as_str(), max], id, clock)? {
        Some(Ok(task)) => task,
        None => return Ok(None),
        Some(Err(damage)) => return Ok(Some(Err(damage))),
    };
    // An empty result may be one that was left out.
    if matches!(&task.state, State::Completed { result, .. } if result.is_empty()) {
        let bytes = conn
            .prepare_cached(
                "SELECT length(result) FROM task JOIN result USING (seq) WHERE id = ?1",
            )?
            .query_row([id.as_str()], |row| row.get::<_, Option<i64>>(0))
            .optional()?;
        let bytes = bytes
            .flatten()
            .and_then(|bytes| usize::try_from(bytes).ok());
        if let Some(bytes) = bytes.filter(|&bytes| bytes > max_result_bytes) {
            return Ok(Some(Ok(StatusRead::ResultTooLarge { bytes })));
        }
    }
    Ok(Some(Ok(StatusRead::Task(task))))
}

/// Compares a submission with the stored task of its id; `None` if there is none.
pub(super) fn compare(
    conn: &Connection,
    task: &Submission,
) -> Result<Option<Submitted>, StatementError> {
    // A stored payload of another length is not read.
    let mut same = conn.prepare_cached(
        "SELECT type IS (SELECT word FROM word WHERE text = ?2) AND metadata IS ?3
             AND CASE WHEN length(payload) = length(?4) THEN payload = ?4 ELSE 0 END
             AND options IS ?5
         FROM task LEFT JOIN body USING (seq) LEFT JOIN task_options USING (seq) WHERE id = ?1",
    )?;
    let (id, route) = (task.id().as_str(), task.route().to_string());
    let metadata = write_metadata(task.metadata());
    let options = task.options().map(|options| write_options(options));
    let values = params![id, route, metadata, &task.payload()[..], options];
    let same = same.query_row(values, |row| row.get(0)).optional()?;
    Ok(same.map(|same| {
        if same {
            Submitted::Existing
        } else {
            Submitted::Conflict
        }
    }))
}

/// Reads the task that `query` selects.
pub(super) fn read(
    conn: &Connection,
    query: &str,
    params: impl rusqlite::Params,
    id: &TaskId,
    clock: &Clock,
) -> Read<Task> {
    let mut statement = conn.prepare_cached(query)?;
    let mut rows = statement.query(params)?;
    let read = match rows.next() {
        Ok(row) => row.map(|row| row::task(row, clock)).transpose(),
        Err(error) => Err(error.into()),
    };
    let Err(error) = read else { return read };
    // A page of the file cannot be read; the index may still know the task's number.
    let seq = conn
        .prepare_cached("SELECT seq FROM task WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0));
    match seq.optional()? {
        Some(seq) => Ok(Some(Err(Damage::of(seq, error)?))),
        None => Err(error),
    }
}

/// Parses a page token: the last sequence number of the page before.
pub(super) fn parse_token(token: Option<&str>) -> Result<i64, Error> {
    let Some(token) = token else {
        return Ok(i64::MAX);
    };
    let digits = token.strip_prefix('p').ok_or(Error::BadPage)?;
    match i64::from_str_radix(digits, 16) {
        Ok(seq) if seq > 0 && format_token(seq) == token => Ok(seq),
        _ => Err(Error::BadPage),
    }
}

pub(super) fn format_token(seq: i64) -> String {
    format!("p{seq:x}")
}

/// Returns the newest `size` tasks before number `before` that match the filter, and the records that
/// cannot be read.
pub(super) fn list(
    conn: &Connection,
    clock: &Clock,
    filter: &Filter,
    size: usize,
    before: i64,
) -> Result<(Listing, Vec<Damage>), StatementError> {
    let size = size.clamp(1, MAX_PAGE);
    let Selected { seqs, next } = if filter.needs_search() {
        search::select(conn, clock, filter, size, before)?
    } else {
        listing::select(conn, filter, size, before)?
    };
    let (mut tasks, mut damaged) = (Vec::with_capacity(seqs.len()), Vec::new());
    let mut statement = conn.prepare_cached(task_query!(
        "x'', NULL",
        "LEFT JOIN body USING (seq) WHERE seq = ?1"
    ))?;
    for &seq in &seqs {
        let mut rows = statement.query([seq])?;
        let read = match rows.next() {
            Ok(row) => row.map(|row| row::task(row, clock)).transpose(),
            Err(error) => Err(error.into()),
        };
        match read.or_else(|error| Damage::of(seq, error).map(|damage| Some(Err(damage))))? {
            Some(Ok(task)) => tasks.push(Task {
                metadata: Arc::default(),
                ..task
            }),
            Some(Err(damage)) => damaged.push(damage),
            None => {}
        }
    }
    let next = next.map(format_token);
    Ok((Listing { tasks, next }, damaged))
}
