//! Which tasks are on a page of a list: their numbers, newest first. Reads no task.

use super::options::LabelKind;
use crate::task_queue::Filter;
use hostel_sqlite::StatementError;
use hostel_task::{Name, StateKind};
use rusqlite::{Connection, OptionalExtension, params, types::ValueRef};
use std::collections::BinaryHeap;

/// How many tasks of a group or with a tag are looked at for one page, which takes some milliseconds. A page
/// may be short, or empty, because the others do not match the rest of the filter.
const MAX_LABELLED: usize = 5_000;

/// The numbers of a page.
#[derive(Default)]
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

/// Selects the newest `size` tasks before number `before` that match the filter by state, type, group and tag.
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

/// The numbers of one state and route, which the index has in order: those that were read and not taken, with
/// the newest last.
struct List {
    state: StateKind,
    route: i64,
    read: Vec<i64>,
    /// There are none but those that were read.
    is_over: bool,
}

/// Takes the newest of all lists, one after the other. Each list is read a few numbers at a time, so that many
/// lists cost little more than one.
fn newest_of(
    conn: &Connection,
    filter: &Filter,
    before: i64,
    max: usize,
) -> Result<Vec<i64>, StatementError> {
    let mut lists = lists(conn, filter)?;
    let mut statement = conn.prepare_cached(
        "SELECT seq FROM task INDEXED BY task_state WHERE state = ?1 AND type = ?2 AND seq < ?3
         ORDER BY seq DESC LIMIT ?4",
    )?;
    let step = max.min(8 + 2 * max / lists.len().max(1));
    let mut refill = |list: &mut List, before: i64| -> Result<Option<i64>, StatementError> {
        if list.read.is_empty() && !list.is_over {
            let limit = i64::try_from(step).unwrap_or(i64::MAX);
            let values = params![list.state as i64, list.route, before, limit];
            let found = statement.query_map(values, |row| row.get(0))?;
            list.read = found.collect::<Result<_, _>>()?;
            list.read.reverse();
            list.is_over = list.read.len() < step;
        }
        Ok(list.read.pop())
    };
    let mut firsts = BinaryHeap::new();
    for (place, list) in lists.iter_mut().enumerate() {
        let first = refill(list, before)?;
        firsts.extend(first.map(|first| (first, place)));
    }
    let mut seqs = Vec::new();
    while let Some((first, place)) = firsts.pop() {
        seqs.push(first);
        if seqs.len() == max {
            break;
        }
        let next = refill(&mut lists[place], first)?;
        firsts.extend(next.map(|next| (next, place)));
    }
    Ok(seqs)
}

/// Returns the lists of the tasks that a filter by state and type selects.
fn lists(conn: &Connection, filter: &Filter) -> Result<Vec<List>, StatementError> {
    let only = match &filter.task_type {
        Some(name) => Some(routes_of(conn, name)?),
        None => None,
    };
    let states = StateKind::ALL
        .into_iter()
        .filter(|&state| filter.state.is_none_or(|only| only == state));
    let mut lists = Vec::new();
    for state in states {
        let routes = match &only {
            Some(routes) => routes.clone(),
            None => routes_in(conn, state)?,
        };
        lists.extend(routes.into_iter().map(|route| List {
            state,
            route,
            read: Vec::new(),
            is_over: false,
        }));
    }
    Ok(lists)
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
    // '@' is before the target, and 'A' is the next character.
    let mut statement = conn.prepare_cached(
        "SELECT word FROM word WHERE text = ?1
         UNION ALL SELECT word FROM word WHERE text > ?1 || '@' AND text < ?1 || 'A'",
    )?;
    let routes = statement.query_map([task_type.as_str()], |row| row.get(0))?;
    Ok(routes.collect::<Result<_, _>>()?)
}
