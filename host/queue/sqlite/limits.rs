//! The limits in the queue's file that are set at run time: a table of their own, which the queue's writer
//! changes.

use super::{queue::SqliteQueue, transaction::Transaction};
use crate::{
    error::Error,
    limit_store::{LimitStore, MAX_LIMITS, PutLimits, StoredLimits, decode, encode},
};
use async_trait::async_trait;
use hostel_sqlite::{StatementError, SyncLevel, WriteCost};
use hostel_task::{GivenLimits, LimitScope};
use rusqlite::{Connection, OptionalExtension};
use std::{convert::identity, sync::Arc};

fn version(conn: &Connection) -> Result<i64, StatementError> {
    let sql = "SELECT version FROM type_limit_version";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn read(conn: &Connection, known: i64) -> Result<Option<StoredLimits>, StatementError> {
    let version = version(conn)?;
    if version == known {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached("SELECT scope, limits FROM type_limit")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
    Ok(Some(decode(version.unsigned_abs(), rows.into_iter())))
}

impl Transaction<'_> {
    /// The inner error is the reason why the disk has no room for them.
    fn put_limits(
        &self,
        scope: &str,
        limits: Option<&str>,
        expected: i64,
    ) -> Result<Result<PutLimits, Arc<str>>, StatementError> {
        if version(self.conn)? != expected {
            return Ok(Ok(PutLimits::Changed));
        }
        if let Some(limits) = limits {
            if let Some(reason) = &self.refusal {
                return Ok(Err(Arc::clone(reason)));
            }
            let find = "SELECT 1 FROM type_limit WHERE scope = ?1";
            let mut find = self.conn.prepare_cached(find)?;
            let found: Option<i64> = find.query_row([scope], |row| row.get(0)).optional()?;
            let sql = "SELECT count(*) FROM type_limit";
            let count: i64 = self.conn.query_row(sql, [], |row| row.get(0))?;
            if found.is_none() && usize::try_from(count).unwrap_or(usize::MAX) >= MAX_LIMITS {
                return Ok(Ok(PutLimits::Full));
            }
            let sql = "INSERT OR REPLACE INTO type_limit (scope, limits) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute([scope, limits])?;
        } else {
            let sql = "DELETE FROM type_limit WHERE scope = ?1";
            self.conn.prepare_cached(sql)?.execute([scope])?;
        }
        let sql = "UPDATE type_limit_version SET version = version + 1 RETURNING version";
        let mut statement = self.conn.prepare_cached(sql)?;
        let version: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(Ok(PutLimits::Stored(version.unsigned_abs())))
    }
}

#[async_trait]
impl LimitStore for SqliteQueue {
    async fn limits(&self, known: u64) -> Result<Option<StoredLimits>, Error> {
        // No version is as large as the largest number.
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        self.tasks
            .query::<_, Error>(move |conn: &Connection| read(conn, known))
            .await
    }

    async fn put_limits(
        &self,
        scope: &LimitScope,
        limits: &GivenLimits,
        expected: u64,
    ) -> Result<PutLimits, Error> {
        let text = encode(limits)?;
        let cost = WriteCost {
            sync_level: SyncLevel::Full,
            bytes: text.len() as u64,
            adds: true,
        };
        let (scope, is_empty) = (scope.to_string(), limits.is_empty());
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        let run = move |tx: &mut Transaction<'_>| {
            let limits = (!is_empty).then_some(text.as_str());
            tx.put_limits(&scope, limits, expected)
        };
        let put = self.writer.execute(cost, run, identity).await?;
        put.map_err(|reason| Error::Full {
            reason: reason.to_string(),
        })
    }
}
