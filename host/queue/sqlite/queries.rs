//! The queries of the readers: one task, or a page of tasks; and the comparison of a submission with its
//! task, which the writer makes too. Changes nothing.

use super::{
    clock::Clock,
    damage::Damage,
    encoding::write_metadata,
    row::{self, task_query},
};
use crate::{
    error::Error,
    status_read::StatusRead,
    task_queue::{Filter, Listing, Submitted},
};
use hostel_sqlite::StatementError;
use hostel_task::{Name, State, StateKind, Submission, Task, TaskId};
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
         FROM task LEFT JOIN body USING (seq) WHERE id = ?1",
    )?;
    let (id, route) = (task.id().as_str(), task.route().to_string());
    let metadata = write_metadata(task.metadata());
    let values = params![id, route, metadata, &task.payload()[..]];
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
fn read(
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
    let mut seqs = if filter.state.is_none() && filter.task_type.is_none() {
        newest(conn, before, size + 1)?
    } else {
        newest_of(conn, filter, before, size + 1)?
    };
    let more = seqs.len() > size;
    seqs.truncate(size);
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
    let last = seqs.last().filter(|_| more);
    let next = last.map(|&seq| format_token(seq));
    Ok((Listing { tasks, next }, damaged))
}

fn newest(conn: &Connection, before: i64, max: usize) -> Result<Vec<i64>, StatementError> {
    let mut statement =
        conn.prepare_cached("SELECT seq FROM task WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2")?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let seqs = statement.query_map([before, max], |row| row.get(0))?;
    Ok(seqs.collect::<Result<_, _>>()?)
}

/// The index orders the numbers of one state and route: each such list gives its newest, and the newest
/// of those are the page.
fn newest_of(
    conn: &Connection,
    filter: &Filter,
    before: i64,
    max: usize,
) -> Result<Vec<i64>, StatementError> {
    let only = match &filter.task_type {
        Some(name) => Some(routes_of(conn, name)?),
        None => None,
    };
    let states = StateKind::ALL
        .into_iter()
        .filter(|&state| filter.state.is_none_or(|only| only == state));
    let mut statement = conn.prepare_cached(
        "SELECT seq FROM task INDEXED BY task_state WHERE state = ?1 AND type = ?2 AND seq < ?3
         ORDER BY seq DESC LIMIT ?4",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let mut seqs: Vec<i64> = Vec::new();
    for state in states {
        let routes = match &only {
            Some(routes) => routes.clone(),
            None => routes_in(conn, state)?,
        };
        for route in routes {
            let found = statement
                .query_map(params![state as i64, route, before, limit], |row| {
                    row.get(0)
                })?;
            for seq in found {
                seqs.push(seq?);
            }
        }
    }
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    seqs.truncate(max);
    Ok(seqs)
}

/// Returns the routes of the tasks in `state`, with one step in the index for each.
fn routes_in(conn: &Connection, state: StateKind) -> Result<Vec<i64>, StatementError> {
    let mut next = conn.prepare_cached(
        "SELECT type FROM task INDEXED BY task_state WHERE state = ?1 AND type > ?2
         ORDER BY type LIMIT 1",
    )?;
    let mut routes: Vec<i64> = Vec::new();
    loop {
        let last = routes.last().copied().unwrap_or(0);
        let found = next
            .query_row([state as i64, last], |row| row.get(0))
            .optional()?;
        match found {
            Some(route) => routes.push(route),
            None => return Ok(routes),
        }
    }
}

/// Returns the routes of a type: one without a target, and one for each target that was ever used with
/// it.
fn routes_of(conn: &Connection, task_type: &Name) -> Result<Vec<i64>, StatementError> {
    let mut statement = conn.prepare_cached(
        "SELECT word FROM word WHERE text = ?1 OR substr(text, 1, ?2) = ?1 || '@'",
    )?;
    let with_at = i64::try_from(task_type.as_str().len() + 1).unwrap_or(i64::MAX);
    let routes = statement.query_map(params![task_type.as_str(), with_at], |row| row.get(0))?;
    Ok(routes.collect::<Result<_, _>>()?)
}
