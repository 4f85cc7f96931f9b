//! How values of `task` are written in rows, and read back. No statement is run here.

use super::{
    board::{parse_lane, parse_name},
    clock::Clock,
    damage::Damage,
};
use bytes::Bytes;
use hostel_sqlite::Fault;
use hostel_task::{ErrorClass, Lane, Ran, State, StateKind, Task, UnixMs};
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
            ", seq, error_class, losses FROM task ",
            $rest
        )
    };
}
pub(super) use task_query;

pub(super) fn ms(time: UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) fn state_kind(stored: i64) -> Result<StateKind, Fault> {
    let state = usize::try_from(stored)
        .ok()
        .and_then(|number| StateKind::ALL.get(number));
    state
        .copied()
        .ok_or_else(|| Fault::Corrupt(format!("there is no state {stored}")))
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
        .map_err(|error| Fault::Corrupt(format!("its metadata does not parse: {error}")))?;
    Ok(Arc::new(metadata))
}

pub(super) fn read_bytes(stored: ValueRef<'_>) -> Result<Bytes, Fault> {
    let bytes = stored.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(bytes.map(Bytes::copy_from_slice).unwrap_or_default())
}

/// Reads a row of a `task_query`; what is wrong with it where it makes no sense.
pub(super) fn task(row: &Row<'_>, clock: &Clock) -> Result<Result<Task, Damage>, Fault> {
    match read(row, clock) {
        Ok(task) => Ok(Ok(task)),
        Err(fault) => Ok(Err(Damage::of(row.get(17)?, fault)?)),
    }
}

fn read(row: &Row<'_>, clock: &Clock) -> Result<Task, Fault> {
    let id = parse_name(text(row, 0)?.unwrap_or_default())?;
    let kind = state_kind(row.get(2)?)?;
    let at = clock.shown(row.get(3)?);
    let started_at = row.get::<_, Option<i64>>(8)?;
    let started_at = started_at.map(|at| clock.shown(at));
    let error_class = text(row, 18)?.map(|_| ErrorClass::Corrupt);
    let missing = |what: &str| Fault::Corrupt(format!("it is {kind} but has no {what}"));
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
    let (mut payload, mut metadata) = (
        read_bytes(row.get_ref(15)?),
        read_metadata(row.get_ref(14)?),
    );
    if error_class.is_some() {
        // What is damaged is known, and may be here.
        payload = payload.or_else(|_| Ok(Bytes::new()));
        metadata = metadata.or_else(|_| Ok(Metadata::default()));
    }
    Ok(Task {
        task_type,
        target,
        payload: payload?,
        metadata: metadata?,
        submitted_at: clock.shown(row.get(7)?),
        state,
        attempt: row.get(4)?,
        error: text(row, 13)?.map(str::to_owned),
        error_class,
        ran: ran(row)?,
        losses: row.get(19)?,
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
