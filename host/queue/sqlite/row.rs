//! How values of `task` are written in rows, and read back. No statement is run here.

use super::board::{parse_lane, parse_name};
use crate::{
    sqlite::Fault,
    task::{Lane, Ran, State, StateKind, Task, UnixMs},
};
use bytes::Bytes;
use rusqlite::{Row, types::ValueRef};
use std::{collections::BTreeMap, sync::Arc};

pub(super) type Metadata = Arc<BTreeMap<String, String>>;

/// A query for what `task` reads. `$bulk` gives payload and result, `$rest` follows `FROM task`.
macro_rules! task_query {
    ($bulk:literal, $rest:literal) => {
        concat!(
            "SELECT id, (SELECT text FROM word WHERE word = type), state, at, attempt, finishes,
                cancel_asked, submitted_at, started_at,
                (SELECT text FROM word WHERE word = node),
                (SELECT text FROM word WHERE word = ran_node),
                (SELECT text FROM word WHERE word = ran_plugin),
                (SELECT text FROM word WHERE word = ran_version), error, metadata, ",
            $bulk,
            " FROM task ",
            $rest
        )
    };
}
pub(super) use task_query;

pub(super) fn ms(time: UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn unix_ms(stored: i64) -> UnixMs {
    UnixMs(u64::try_from(stored).unwrap_or(0))
}

pub(super) fn state_kind(stored: i64) -> Result<StateKind, Fault> {
    let state = usize::try_from(stored)
        .ok()
        .and_then(|number| StateKind::ALL.get(number));
    state
        .copied()
        .ok_or_else(|| Fault::Corrupt(format!("a task is in state {stored}")))
}

pub(super) fn write_metadata(metadata: &BTreeMap<String, String>) -> Option<String> {
    if metadata.is_empty() {
        return None;
    }
    // A map of strings always has a JSON form.
    serde_json::to_string(metadata).ok()
}

pub(super) fn read_metadata(stored: ValueRef<'_>) -> Result<Metadata, Fault> {
    let Some(json) = stored.as_str_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(Metadata::default());
    };
    let metadata = serde_json::from_str(json)
        .map_err(|error| Fault::Corrupt(format!("a task's metadata: {error}")))?;
    Ok(Arc::new(metadata))
}

pub(super) fn read_bytes(stored: ValueRef<'_>) -> Result<Bytes, Fault> {
    let bytes = stored.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(bytes.map(Bytes::copy_from_slice).unwrap_or_default())
}

/// Reads a row of a `task_query`.
pub(super) fn task(row: &Row<'_>) -> Result<Task, Fault> {
    let id = parse_name(text(row, 0)?.unwrap_or_default())?;
    let kind = state_kind(row.get(2)?)?;
    let at = unix_ms(row.get(3)?);
    let started_at = row.get::<_, Option<i64>>(8)?.map(unix_ms);
    let missing = |what: &str| Fault::Corrupt(format!("task {id} is {kind} but has no {what}"));
    let state = match kind {
        StateKind::Pending => State::Pending { due_at: at },
        StateKind::Running => State::Running {
            node: parse_name(text(row, 9)?.ok_or_else(|| missing("node"))?)?,
            started_at: started_at.ok_or_else(|| missing("start"))?,
            lease_until: at,
            cancel_asked: row.get(6)?,
        },
        StateKind::Completed => State::Completed {
            result: read_bytes(row.get_ref(16)?)?,
            started_at: started_at.ok_or_else(|| missing("start"))?,
            finished_at: at,
        },
        StateKind::Failed => State::Failed {
            started_at,
            finished_at: at,
        },
        StateKind::Cancelled => State::Cancelled {
            started_at,
            finished_at: at,
        },
    };
    let Lane { task_type, target } = parse_lane(text(row, 1)?.unwrap_or_default())?;
    Ok(Task {
        task_type,
        target,
        payload: read_bytes(row.get_ref(15)?)?,
        metadata: read_metadata(row.get_ref(14)?)?,
        submitted_at: unix_ms(row.get(7)?),
        state,
        attempt: row.get(4)?,
        error: text(row, 13)?.map(str::to_owned),
        error_class: None,
        ran: ran(row)?,
        finishes: row.get(5)?,
        id,
    })
}

fn ran(row: &Row<'_>) -> Result<Option<Ran>, Fault> {
    match (text(row, 10)?, text(row, 11)?, text(row, 12)?) {
        (Some(node), Some(plugin), Some(version)) => Ok(Some(Ran {
            node: parse_name(node)?,
            plugin: parse_name(plugin)?,
            plugin_version: version.into(),
        })),
        _ => Ok(None),
    }
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, Fault> {
    let value = row.get_ref(column)?;
    Ok(value.as_str_or_null().map_err(rusqlite::Error::from)?)
}
