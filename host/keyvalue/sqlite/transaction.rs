//! The changes of the key-value store, each within a transaction that the writer has begun. Keeps the
//! usage of each plugin up to date, so that it never has to be summed up.

use super::schema::charged;
use crate::{
    key_value::{Bucket, Change, Error, name_cost},
    limit,
};
use hostel_config::KeyValueLimits;
use hostel_sqlite::{OperationError, StatementError};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Why one operation is rolled back.
type Failure = OperationError<Error>;

pub(super) struct Transaction<'c> {
    pub conn: &'c Connection,
    pub limits: KeyValueLimits,
    /// Why the disk has no room for what this transaction adds.
    pub refusal: Option<Arc<str>>,
}

/// The account of one plugin and one of its stores, while they are changed.
struct Account<'a> {
    conn: &'a Connection,
    bucket: &'a Bucket,
    limits: &'a KeyValueLimits,
    plugin: i64,
    store: i64,
    /// What the plugin was charged before.
    before: i64,
    now: i64,
    /// The store may have no entry in the end.
    may_be_empty: bool,
}

impl Transaction<'_> {
    /// The inner error says that the disk has no room; nothing was changed.
    pub fn apply(&self, bucket: &Bucket, changes: &[Change]) -> Result<Result<(), Error>, Failure> {
        let is_set = |change: &Change| matches!(change, Change::Set { .. });
        if let Some(error) = self.refused().filter(|_| changes.iter().any(is_set)) {
            return Ok(Err(error));
        }
        let mut account = Account::open(self.conn, bucket, &self.limits)?;
        for change in changes {
            match change {
                Change::Set { key, value } => account.set(key, value)?,
                Change::Delete { key } => account.delete(key)?,
            }
        }
        account.close()?;
        Ok(Ok(()))
    }

    /// Returns the sum. The inner error says that the disk has no room; nothing was changed.
    pub fn increment(
        &self,
        bucket: &Bucket,
        key: &str,
        delta: u64,
    ) -> Result<Result<u64, Error>, Failure> {
        if let Some(error) = self.refused() {
            return Ok(Err(error));
        }
        let mut account = Account::open(self.conn, bucket, &self.limits)?;
        let number = match account.value(key)? {
            None => 0,
            Some(value) => number(&value).ok_or_else(|| {
                invalid(format!(
                    "the value of {key:?} is not a number: only decimal digits from 0 to {} can be \
                     incremented",
                    u64::MAX
                ))
            })?,
        };
        let sum = number.checked_add(delta).ok_or_else(|| {
            invalid(format!(
                "{key:?} is {number}, and {delta} more would be beyond {}",
                u64::MAX
            ))
        })?;
        account.set(key, sum.to_string().as_bytes())?;
        account.close()?;
        Ok(Ok(sum))
    }

    fn refused(&self) -> Option<Error> {
        self.refusal.as_ref().map(|reason| Error::Unavailable {
            reason: reason.to_string(),
            outcome_unknown: false,
        })
    }
}

fn invalid(what: String) -> Failure {
    OperationError::Rejected(Error::Invalid(what))
}

/// Parses decimal digits; `parse` alone would accept a sign.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

impl<'a> Account<'a> {
    /// Creates the plugin and the store if they are missing; `close` deletes an empty store.
    fn open(
        conn: &'a Connection,
        bucket: &'a Bucket,
        limits: &'a KeyValueLimits,
    ) -> Result<Self, Failure> {
        let known = conn
            .prepare_cached(
                "SELECT plugin, CASE WHEN typeof(bytes) = 'integer' AND bytes >= 0 THEN bytes END
                 FROM plugin WHERE name = ?1",
            )?
            .query_row([bucket.plugin().as_str()], |row| {
                Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .optional()?;
        let (plugin, before) = match known {
            Some((plugin, Some(bytes))) => (plugin, bytes),
            Some((plugin, None)) => (plugin, recounted(conn, plugin)?),
            None => {
                let mut insert =
                    conn.prepare_cached("INSERT INTO plugin (name, bytes) VALUES (?1, 0)")?;
                (insert.insert([bucket.plugin().as_str()])?, 0)
            }
        };
        let found = conn
            .prepare_cached("SELECT store FROM store WHERE plugin = ?1 AND name = ?2")?
            .query_row(params![plugin, bucket.store()], |row| row.get(0))
            .optional()?;
        let store = match found {
            Some(store) => store,
            None => conn
                .prepare_cached("INSERT INTO store (plugin, name) VALUES (?1, ?2)")?
                .insert(params![plugin, bucket.store()])?,
        };
        Ok(Self {
            conn,
            bucket,
            limits,
            plugin,
            store,
            before,
            now: before
                + if found.is_none() {
                    cost(bucket.store())
                } else {
                    0
                },
            may_be_empty: found.is_none(),
        })
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let found = self
            .conn
            .prepare_cached("SELECT value FROM entry WHERE store = ?1 AND key = ?2")?
            .query_row(params![self.store, key], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// Returns the entry's number and the length of its value.
    fn find(&self, key: &str) -> Result<Option<(i64, i64)>, Failure> {
        let found = self
            .conn
            .prepare_cached("SELECT entry, length(value) FROM entry WHERE store = ?1 AND key = ?2")?
            .query_row(params![self.store, key], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
        Ok(found.optional()?)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
        match self.find(key)? {
            Some((entry, length)) => {
                self.conn
                    .prepare_cached("UPDATE entry SET value = ?2 WHERE entry = ?1")?
                    .execute(params![entry, value])?;
                self.now -= length;
            }
            None => {
                self.conn
                    .prepare_cached("INSERT INTO entry (store, key, value) VALUES (?1, ?2, ?3)")?
                    .execute(params![self.store, key, value])?;
                self.now += cost(key);
            }
        }
        self.now += bytes(value.len());
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Failure> {
        if let Some((entry, length)) = self.find(key)? {
            self.conn
                .prepare_cached("DELETE FROM entry WHERE entry = ?1")?
                .execute([entry])?;
            self.now -= cost(key) + length;
            self.may_be_empty = true;
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), Failure> {
        // An empty store is not visible and would only take space.
        if self.may_be_empty {
            let deleted = self
                .conn
                .prepare_cached(
                    "DELETE FROM store WHERE store = ?1
                     AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.store = ?1)",
                )?
                .execute([self.store])?;
            if deleted > 0 {
                self.now -= cost(self.bucket.store());
            }
        }
        let now = u64::try_from(self.now).map_err(|_| {
            let plugin = self.bucket.plugin();
            StatementError::Corrupt(format!("plugin {plugin} stores {} bytes", self.now))
        })?;
        // A plugin that stores too much since the limit was lowered may still shrink.
        if self.now > self.before {
            limit::usage(self.bucket.plugin(), now, self.limits)
                .map_err(OperationError::Rejected)?;
        }
        if self.now != self.before {
            self.conn
                .prepare_cached("UPDATE plugin SET bytes = ?2 WHERE plugin = ?1")?
                .execute([self.plugin, self.now])?;
        }
        Ok(())
    }
}

/// Counts what a plugin stores, because its account is damaged.
fn recounted(conn: &Connection, plugin: i64) -> rusqlite::Result<i64> {
    let bytes = conn
        .prepare_cached(concat!("SELECT ", charged!("?1")))?
        .query_row([plugin], |row| row.get(0))?;
    tracing::error!(
        plugin,
        bytes,
        "the damaged account of a plugin was counted again"
    );
    conn.prepare_cached("UPDATE plugin SET bytes = ?2 WHERE plugin = ?1")?
        .execute([plugin, bytes])?;
    Ok(bytes)
}

/// What a plugin is charged for a store, or for a key besides its value.
fn cost(name: &str) -> i64 {
    i64::try_from(name_cost(name)).unwrap_or(i64::MAX)
}

/// Nothing in memory is longer than an `i64` can count.
fn bytes(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
