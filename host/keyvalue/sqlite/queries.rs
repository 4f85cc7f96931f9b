//! The queries of the readers: values, whether keys exist, pages of keys. Changes nothing.

use crate::{
    key_value::{Bucket, Error, PAGE_KEYS, Page, Values},
    limit,
};
use hostel_config::KeyValueLimits;
use hostel_sqlite::StatementError;
use rusqlite::{Connection, OptionalExtension, params};

/// The inner error is for the caller.
pub(super) fn get(
    conn: &Connection,
    bucket: &Bucket,
    keys: &[String],
    limits: &KeyValueLimits,
) -> Result<Result<Values, Error>, StatementError> {
    let Some(store) = store(conn, bucket)? else {
        return Ok(Ok(vec![None; keys.len()]));
    };
    let mut statement =
        conn.prepare_cached("SELECT value FROM entry WHERE store = ?1 AND key = ?2")?;
    let mut values = Vec::with_capacity(keys.len());
    let mut bytes = 0;
    for key in keys {
        let value: Option<Vec<u8>> = statement
            .query_row(params![store, key], |row| row.get(0))
            .optional()
            .map_err(|error| of_key(key, error.into()))?;
        bytes += value.as_ref().map_or(0, Vec::len);
        // Checked here, so that at most one value too many is in memory.
        if let Err(error) = limit::batch(bytes, limits) {
            return Ok(Err(error));
        }
        values.push(value);
    }
    Ok(Ok(values))
}

/// Adds the key to an error of a damaged value.
fn of_key(key: &str, error: StatementError) -> StatementError {
    if error.is_damage() {
        StatementError::Corrupt(format!("the value of {key:?} cannot be read: {error}"))
    } else {
        error
    }
}

pub(super) fn exists(
    conn: &Connection,
    bucket: &Bucket,
    keys: &[String],
) -> Result<Vec<bool>, StatementError> {
    let Some(store) = store(conn, bucket)? else {
        return Ok(vec![false; keys.len()]);
    };
    let mut statement = conn.prepare_cached("SELECT 1 FROM entry WHERE store = ?1 AND key = ?2")?;
    let found = keys.iter().map(|key| statement.exists(params![store, key]));
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn list(conn: &Connection, bucket: &Bucket, after: u64) -> Result<Page, StatementError> {
    let (Some(store), Ok(after)) = (store(conn, bucket)?, i64::try_from(after)) else {
        return Ok(Page::default());
    };
    let mut statement = conn.prepare_cached(
        "SELECT entry, key FROM entry INDEXED BY entry_store
         WHERE store = ?1 AND entry > ?2 ORDER BY entry LIMIT ?3",
    )?;
    // One more than the page tells whether there is a next one.
    let max = i64::try_from(PAGE_KEYS + 1).unwrap_or(i64::MAX);
    let found = statement.query_map(params![store, after, max], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut found = found.collect::<Result<Vec<_>, _>>()?;
    let more = found.len() > PAGE_KEYS;
    found.truncate(PAGE_KEYS);
    let last = found
        .last()
        .and_then(|(entry, _)| u64::try_from(*entry).ok());
    Ok(Page {
        next: last.filter(|_| more),
        keys: found.into_iter().map(|(_, key)| key).collect(),
    })
}

/// Returns the store's number, if it has entries.
fn store(conn: &Connection, bucket: &Bucket) -> Result<Option<i64>, StatementError> {
    let mut statement = conn.prepare_cached(
        "SELECT store FROM store JOIN plugin USING (plugin)
         WHERE plugin.name = ?1 AND store.name = ?2",
    )?;
    let found = statement.query_row(params![bucket.plugin().as_str(), bucket.store()], |row| {
        row.get(0)
    });
    Ok(found.optional()?)
}
