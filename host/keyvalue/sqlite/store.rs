//! The `KeyValue` of one machine: checks the limits of each call, and hands it to the writer or a
//! reader.

use super::{
    queries, schema,
    transaction::Transaction,
    writer::{EntryStore, Writer},
};
use crate::{
    key_value::{Bucket, Change, Error, KeyValue, Page, Values, name_cost},
    limit,
};
use async_trait::async_trait;
use hostel_config::KeyValueLimits;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::{Reader, SyncLevel, WriteCost, WriterOptions};
use hostel_task::Name;
use std::{convert::identity, path::Path};

/// Operations that may wait for the writer, each with its values, and that share a commit.
const BACKLOG: usize = 256;

/// A key-value store in a SQLite file.
pub struct SqliteKeyValue {
    pub(super) limits: KeyValueLimits,
    pub(super) writer: Writer,
    // Two readers, so that a page of keys delays no value.
    values: Reader,
    lists: Reader,
}

impl SqliteKeyValue {
    /// Opens the file, creates it if it is missing, and claims it for this process. Fails with
    /// `Misconfigured` if another process uses the file or this one may not. Keeps `reserve_bytes` of
    /// the disk for deletions. Later faults are reported to `health`.
    pub async fn open(
        path: &Path,
        reserve_bytes: u64,
        limits: &KeyValueLimits,
        health: &Health,
    ) -> Result<Self, Error> {
        let database = schema::database(path);
        let lock = database.claim().await?;
        let values = Reader::start(health, Part::KeyValue, "keyvalue-reader", &database)?;
        let lists = Reader::start(health, Part::KeyValue, "keyvalue-lists", &database)?;
        let options = WriterOptions {
            backlog: BACKLOG,
            max_batch: BACKLOG,
            reserve_bytes,
        };
        let limits = limits.clone();
        let of_writer = limits.clone();
        let open = move |_: &_| {
            let limits = of_writer.clone();
            Ok(EntryStore { limits })
        };
        let (writer, ()) = Writer::start(database, lock, options, health, open).await?;
        Ok(Self {
            limits,
            writer,
            values,
            lists,
        })
    }
}

/// The digits of the largest number.
const MAX_DIGITS: u64 = 20;

/// What an operation costs that adds so many bytes, or only deletes.
fn cost(added: Option<u64>) -> WriteCost {
    WriteCost {
        sync_level: SyncLevel::Full,
        bytes: added.unwrap_or(0),
        adds: added.is_some(),
    }
}

/// How many bytes the changes add at most; `None` if they only delete.
fn added_bytes(bucket: &Bucket, changes: &[Change]) -> Option<u64> {
    let sets = changes.iter().filter_map(|change| match change {
        Change::Set { key, value } => Some(name_cost(key) + value.len() as u64),
        Change::Delete { .. } => None,
    });
    let entries = sets.reduce(|sum, bytes| sum + bytes)?;
    // The store may be new.
    Some(entries + name_cost(bucket.store()))
}

#[async_trait]
impl KeyValue for SqliteKeyValue {
    fn bucket(&self, plugin: &Name, store: &str) -> Result<Bucket, Error> {
        limit::bucket(plugin, store, &self.limits)
    }

    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Values, Error> {
        limit::keys(keys.iter().map(String::as_str), &self.limits)?;
        let (bucket, limits) = (bucket.clone(), self.limits.clone());
        let query = move |conn: &_| queries::get(conn, &bucket, &keys, &limits);
        self.values.query::<_, Error>(query).await?
    }

    async fn exists(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<bool>, Error> {
        limit::keys(keys.iter().map(String::as_str), &self.limits)?;
        let bucket = bucket.clone();
        let query = move |conn: &_| queries::exists(conn, &bucket, &keys);
        self.values.query(query).await
    }

    async fn apply(&self, bucket: &Bucket, changes: Vec<Change>) -> Result<(), Error> {
        limit::changes(&changes, &self.limits)?;
        if changes.is_empty() {
            return Ok(());
        }
        let (bucket, cost) = (bucket.clone(), cost(added_bytes(bucket, &changes)));
        let run = move |tx: &mut Transaction<'_>| tx.apply(&bucket, &changes);
        self.writer.execute(cost, run, identity).await?
    }

    async fn increment(&self, bucket: &Bucket, key: String, delta: u64) -> Result<u64, Error> {
        limit::keys([key.as_str()].into_iter(), &self.limits)?;
        let added = name_cost(&key) + MAX_DIGITS + name_cost(bucket.store());
        let (bucket, cost) = (bucket.clone(), cost(Some(added)));
        let run = move |tx: &mut Transaction<'_>| tx.increment(&bucket, &key, delta);
        self.writer.execute(cost, run, identity).await?
    }

    async fn list(&self, bucket: &Bucket, cursor: Option<u64>) -> Result<Page, Error> {
        let bucket = bucket.clone();
        // Entries are numbered from 1.
        let query = move |conn: &_| queries::list(conn, &bucket, cursor.unwrap_or(0));
        self.lists.query(query).await
    }

    async fn close(&self) {
        self.values.close().await;
        self.lists.close().await;
        self.writer.close().await;
    }
}
