//! How single values are stored in columns, and read back. Runs no statement.

use bytes::Bytes;
use hostel_sqlite::StatementError;
use hostel_task::{Name, Priority, Progress, Route, StateKind, TaskOptions, UnixMs};
use rusqlite::types::ValueRef;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The number that stands for a text in the table `word`: a route, a node, a plugin or its version.
pub(super) type SymbolId = i64;

pub(super) type Metadata = Arc<BTreeMap<String, String>>;

pub(super) fn ms(time: UnixMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A count, which columns have with a sign.
pub(super) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn state_kind(stored: i64) -> Result<StateKind, StatementError> {
    let state = usize::try_from(stored).ok();
    let state = state.and_then(|number| StateKind::ALL.get(number).copied());
    state.ok_or_else(|| StatementError::Corrupt(format!("there is no state {stored}")))
}

pub(super) fn parse_name(stored: &str) -> Result<Name, StatementError> {
    Name::parse("a stored name", stored).map_err(|error| StatementError::Corrupt(error.to_string()))
}

pub(super) fn parse_route(stored: &str) -> Result<Route, StatementError> {
    Route::parse(stored)
        .ok_or_else(|| StatementError::Corrupt(format!("{stored:?} is not a task type")))
}

pub(super) fn write_metadata(metadata: &BTreeMap<String, String>) -> Option<String> {
    if metadata.is_empty() {
        return None;
    }
    // A map of strings always has a JSON form.
    serde_json::to_string(metadata).ok()
}

pub(super) fn read_metadata(stored: ValueRef<'_>) -> Result<Metadata, StatementError> {
    let Some(json) = stored.as_str_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(Metadata::default());
    };
    let metadata = serde_json::from_str(json).map_err(|error| {
        StatementError::Corrupt(format!("its metadata does not parse: {error}"))
    })?;
    Ok(Arc::new(metadata))
}

/// Returns the text of options. Equal options have equal texts, in every version.
pub(super) fn write_options(options: &TaskOptions) -> String {
    // Options always have a JSON form.
    serde_json::to_string(options).unwrap_or_default()
}

pub(super) fn read_options(
    stored: ValueRef<'_>,
) -> Result<Option<Arc<TaskOptions>>, StatementError> {
    let Some(json) = stored.as_str_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(None);
    };
    let options = serde_json::from_str(json)
        .map_err(|error| StatementError::Corrupt(format!("its options do not parse: {error}")))?;
    Ok(Some(Arc::new(options)))
}

pub(super) fn write_progress(progress: &Progress) -> String {
    // Numbers and a text always have a JSON form.
    serde_json::to_string(progress).unwrap_or_default()
}

/// Returns a stored progress, or `None` if it cannot be read: nothing depends on it, so it does not count as
/// damage to the task.
pub(super) fn read_progress(stored: ValueRef<'_>) -> Option<Progress> {
    serde_json::from_str(stored.as_str().ok()?).ok()
}

/// Reads options that may have been given another priority since.
pub(super) fn read_current_options(
    stored: ValueRef<'_>,
    priority: ValueRef<'_>,
) -> Result<Option<Arc<TaskOptions>>, StatementError> {
    let options = read_options(stored)?;
    let Some(number) = priority.as_i64_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(options);
    };
    let priority = usize::try_from(number).ok();
    let priority = priority.and_then(|number| Priority::ALL.get(number).copied());
    let priority = priority
        .ok_or_else(|| StatementError::Corrupt(format!("there is no priority {number}")))?;
    let mut options = options.unwrap_or_default();
    Arc::make_mut(&mut options).priority = priority;
    Ok(Some(options))
}

pub(super) fn read_bytes(stored: ValueRef<'_>) -> Result<Bytes, StatementError> {
    let bytes = stored.as_blob_or_null().map_err(rusqlite::Error::from)?;
    Ok(bytes.map(Bytes::copy_from_slice).unwrap_or_default())
}
