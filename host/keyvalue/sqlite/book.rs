//! Changing: what the writer does within a transaction. Counts what each plugin keeps as it goes, so
//! that nobody ever has to add it up. Decides when nothing is committed; that is `writer`'s.

use crate::{Bucket, Change, Error, KEY_COST_BYTES, limit};
use hostel_config::KeyValueLimits;
use hostel_sqlite::Fault;
use rusqlite::{Connection, OptionalExtension, params};

/// Why one operation has to be taken back.
pub(super) enum Stop {
    /// The caller's to mend.
    Refused(Error),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Stop::Fault(error.into())
    }
}

/// One plugin's account and store while they are changed.
struct Account<'a> {
    conn: &'a Connection,
    bucket: &'a Bucket,
    limits: &'a KeyValueLimits,
    plugin: i64,
    store: i64,
    /// What the plugin kept before.
    before: i64,
    now: i64,
    /// The store may be left without an entry.
    may_be_empty: bool,
}

pub(super) fn apply(
    conn: &Connection,
    bucket: &Bucket,
    changes: &[Change],
    limits: &KeyValueLimits,
) -> Result<(), Stop> {
    let mut account = Account::open(conn, bucket, limits)?;
    for change in changes {
        match change {
            Change::Set { key, value } => account.set(key, value)?,
            Change::Delete { key } => account.delete(key)?,
        }
    }
    account.close()
}

/// Returns the sum.
pub(super) fn increment(
    conn: &Connection,
    bucket: &Bucket,
    key: &str,
    delta: u64,
    limits: &KeyValueLimits,
) -> Result<u64, Stop> {
    let invalid = |what: String| Stop::Refused(Error::Invalid(what));
    let mut account = Account::open(conn, bucket, limits)?;
    let number = match account.value(key)? {
        None => 0,
        Some(value) => number(&value).ok_or_else(|| {
            invalid(format!(
                "the value of {key:?} is no number: decimal digits from 0 to {} can be \
                 incremented, and nothing else",
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
    Ok(sum)
}

/// Stricter than `parse`, which takes a sign.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

impl<'a> Account<'a> {
    /// Makes what is missing; `close` removes the store again when nothing was put in.
    fn open(
        conn: &'a Connection,
        bucket: &'a Bucket,
        limits: &'a KeyValueLimits,
    ) -> Result<Self, Stop> {
        let known = conn
            .prepare_cached(
                "SELECT plugin, CASE WHEN typeof(bytes) = 'integer' AND bytes >= 0 THEN bytes END
                 FROM plugin WHERE name = ?1",
            )?
            .query_row([bucket.plugin.as_str()], |row| {
                Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .optional()?;
        let (plugin, before) = match known {
            Some((plugin, Some(bytes))) => (plugin, bytes),
            Some((plugin, None)) => (plugin, recounted(conn, plugin)?),
            None => {
                let mut insert =
                    conn.prepare_cached("INSERT INTO plugin (name, bytes) VALUES (?1, 0)")?;
                (insert.insert([bucket.plugin.as_str()])?, 0)
            }
        };
        let found = conn
            .prepare_cached("SELECT store FROM store WHERE plugin = ?1 AND name = ?2")?
            .query_row(params![plugin, bucket.store], |row| row.get(0))
            .optional()?;
        let store = match found {
            Some(store) => store,
            None => conn
                .prepare_cached("INSERT INTO store (plugin, name) VALUES (?1, ?2)")?
                .insert(params![plugin, bucket.store])?,
        };
        Ok(Self {
            conn,
            bucket,
            limits,
            plugin,
            store,
            before,
            now: before,
            may_be_empty: found.is_none(),
        })
    }

    fn value(&self, key: &str) -> Result<Option<Vec<u8>>, Stop> {
        let found = self
            .conn
            .prepare_cached("SELECT value FROM entry WHERE store = ?1 AND key = ?2")?
            .query_row(params![self.store, key], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// The entry's number and the length of its value.
    fn find(&self, key: &str) -> Result<Option<(i64, i64)>, Stop> {
        let found = self
            .conn
            .prepare_cached("SELECT entry, length(value) FROM entry WHERE store = ?1 AND key = ?2")?
            .query_row(params![self.store, key], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
        Ok(found.optional()?)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Stop> {
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

    fn delete(&mut self, key: &str) -> Result<(), Stop> {
        if let Some((entry, length)) = self.find(key)? {
            self.conn
                .prepare_cached("DELETE FROM entry WHERE entry = ?1")?
                .execute([entry])?;
            self.now -= cost(key) + length;
            self.may_be_empty = true;
        }
        Ok(())
    }

    fn close(self) -> Result<(), Stop> {
        let now = u64::try_from(self.now).map_err(|_| {
            let plugin = &self.bucket.plugin;
            Fault::Corrupt(format!("plugin {plugin} keeps {} bytes", self.now))
        })?;
        // Who keeps too much since the limit was lowered may still keep less.
        if self.now > self.before {
            limit::usage(&self.bucket.plugin, now, self.limits).map_err(Stop::Refused)?;
        }
        if self.now != self.before {
            self.conn
                .prepare_cached("UPDATE plugin SET bytes = ?2 WHERE plugin = ?1")?
                .execute([self.plugin, self.now])?;
        }
        // An empty store would be forgotten by everybody but the disk.
        if self.may_be_empty {
            self.conn
                .prepare_cached(
                    "DELETE FROM store WHERE store = ?1
                     AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.store = ?1)",
                )?
                .execute([self.store])?;
        }
        Ok(())
    }
}

/// What a plugin keeps, where its account is damaged.
fn recounted(conn: &Connection, plugin: i64) -> rusqlite::Result<i64> {
    let bytes = conn
        .prepare_cached(
            "SELECT ifnull(sum(length(key) + ?2 + length(value)), 0)
             FROM entry JOIN store USING (store) WHERE plugin = ?1",
        )?
        .query_row([plugin, cost("")], |row| row.get(0))?;
    tracing::error!(plugin, bytes, "a damaged account has been counted anew");
    conn.prepare_cached("UPDATE plugin SET bytes = ?2 WHERE plugin = ?1")?
        .execute([plugin, bytes])?;
    Ok(bytes)
}

/// What a key is charged whatever its value.
fn cost(key: &str) -> i64 {
    bytes(key.len()).saturating_add_unsigned(KEY_COST_BYTES)
}

/// Nothing in memory is longer than this holds.
fn bytes(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
