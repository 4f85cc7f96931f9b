//! Which tasks are on a page of a list: their numbers, newest first. Reads no task.

use super::options::LabelKind;
use crate::task_queue::Filter;
use hostel_sqlite::StatementError;
use hostel_task::{Name, StateKind};
use rusqlite::{Connection, OptionalExtension, params, types::ValueRef};

/// How many tasks of a group or with a tag are looked at for one page. A page may be short, or empty, because
/// the others do not match the rest of the filter.
const MAX_LABELLED: usize = 10_000;

/// The numbers of a page.
pub(super) struct Selected {
    pub seqs: Vec<i64>,
    /// The next page is before this number.
    pub next: Option<i64>,
}

impl Selected {
    /// Makes a page of `size` out of numbers, of which one more was looked for.
    fn of(mut seqs: Vec<i64>, size: usize) -> Self {
        let more = seqs.len() > size;
        seqs.truncate(size);
        let next = seqs.last().copied().filter(|_| more);
        Self { seqs, next }
    }
}

/// Selects the newest `size` tasks before number `before` that match the filter.
pub(super) fn select(
    conn: &Connection,
    filter: &Filter,
    size: usize,
    before: i64,
) -> Result<Selected, StatementError> {
    let group = filter.group.as_ref().map(|name| (LabelKind::Group, name));
    let tag = filter.tag.as_ref().map(|name| (LabelKind::Tag, name));
    if let Some(first) = group.or(tag) {
        let second = group.and(tag);
        return labelled(conn, filter, (first, second), size, before);
    }
    let seqs = if filter.state.is_none() && filter.task_type.is_none() {
        newest(conn, before, size + 1)?
    } else {
        newest_of(conn, filter, before, size + 1)?
    };
    Ok(Selected::of(seqs, size))
}

type Label<'f> = (LabelKind, &'f Name);

/// Selects tasks with one label or two, which have an index of their own.
fn labelled(
    conn: &Connection,
    filter: &Filter,
    (first, second): (Label<'_>, Option<Label<'_>>),
    size: usize,
    before: i64,
) -> Result<Selected, StatementError> {
    let routes = match &filter.task_type {
        Some(name) => Some(routes_of(conn, name)?),
        None => None,
    };
    let mut other =
        conn.prepare_cached("SELECT 1 FROM label WHERE kind = ?1 AND name = ?2 AND seq = ?3")?;
    let mut statement = conn.prepare_cached(
        "SELECT label.seq, state, type FROM label JOIN task USING (seq)
         WHERE kind = ?1 AND name = ?2 AND label.seq < ?3 ORDER BY label.seq DESC LIMIT ?4",
    )?;
    let max = i64::try_from(MAX_LABELLED).unwrap_or(i64::MAX);
    let (kind, name) = first;
    let mut rows = statement.query(params![kind as i64, name.as_str(), before, max])?;
    let is = |value: ValueRef<'_>, expected: i64| value == ValueRef::Integer(expected);
    let (mut seqs, mut last, mut seen) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        if seqs.len() == size {
            let next = last;
            return Ok(Selected { seqs, next });
        }
        let seq: i64 = row.get(0)?;
        (last, seen) = (Some(seq), seen + 1);
        let (state, route) = (row.get_ref(1)?, row.get_ref(2)?);
        let matches = filter.state.is_none_or(|only| is(state, only as i64))
            && routes
                .as_ref()
                .is_none_or(|routes| routes.iter().any(|&only| is(route, only)));
        let matches = match second {
            Some((kind, name)) if matches => {
                other.exists(params![kind as i64, name.as_str(), seq])?
            }
            _ => matches,
        };
        if matches {
            seqs.push(seq);
        }
    }
    // Unless all of them were seen, there may be more.
    let next = last.filter(|_| seen == MAX_LABELLED);
    Ok(Selected { seqs, next })
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
