//! The key-value store of one machine: a SQLite file, one thread that writes, two that read. This
//! page wires them and keeps the contract's signatures; what a verb does is in `book` and `look`.

mod book;
mod look;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use self::writer::{Verb, Writer};
use super::{Bucket, Change, Error, KeyValue, Page, Values, limit};
use async_trait::async_trait;
use hostel_config::KeyValueLimits;
use hostel_runtime::health::{Health, Part};
use hostel_sqlite::Reader;
use hostel_task::Name;
use std::path::Path;

pub struct SqliteKeyValue {
    limits: KeyValueLimits,
    writer: Writer,
    // Two, so that a page of keys delays no value.
    values: Reader,
    lists: Reader,
}

impl SqliteKeyValue {
    /// Opens the file, makes it when there is none, and claims it for this process. `Misconfigured`
    /// when another process has it, or when it is not ours to use. Keeps `reserve_bytes` of the
    /// disk for deletions. What is wrong with it later is reported to `health`.
    pub async fn open(
        path: &Path,
        reserve_bytes: u64,
        limits: &KeyValueLimits,
        health: &Health,
    ) -> Result<Self, Error> {
        let database = schema::database(path);
        let claiming = database.clone();
        let claimed = tokio::task::spawn_blocking(move || claiming.claim()).await;
        let lock =
            claimed.map_err(|error| hostel_sqlite::Error::Unavailable(error.to_string()))??;
        let values = Reader::start(health, Part::KeyValue, "keyvalue-reader", &database)?;
        let lists = Reader::start(health, Part::KeyValue, "keyvalue-lists", &database)?;
        Ok(Self {
            limits: limits.clone(),
            writer: Writer::start(
                database,
                reserve_bytes,
                limits.clone(),
                lock,
                health.clone(),
            )
            .await?,
            values,
            lists,
        })
    }
}

#[async_trait]
impl KeyValue for SqliteKeyValue {
    fn bucket(&self, plugin: &Name, store: &str) -> Result<Bucket, Error> {
        limit::bucket(plugin, store, &self.limits)
    }

    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Values, Error> {
        limit::keys(keys.iter().map(String::as_str), &self.limits)?;
        let (bucket, limits) = (bucket.clone(), self.limits.clone());
        let look = move |conn: &_| look::get(conn, &bucket, &keys, &limits);
        self.values.ask::<_, Error>(look).await?
    }

    async fn exists(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<bool>, Error> {
        limit::keys(keys.iter().map(String::as_str), &self.limits)?;
        let bucket = bucket.clone();
        let look = move |conn: &_| look::exists(conn, &bucket, &keys);
        self.values.ask(look).await
    }

    async fn apply(&self, bucket: &Bucket, changes: Vec<Change>) -> Result<(), Error> {
        limit::changes(&changes, &self.limits)?;
        if changes.is_empty() {
            return Ok(());
        }
        self.writer.ask(bucket, Verb::Apply(changes)).await?;
        Ok(())
    }

    async fn increment(&self, bucket: &Bucket, key: String, delta: u64) -> Result<u64, Error> {
        limit::keys([key.as_str()].into_iter(), &self.limits)?;
        let verb = Verb::Increment { key, delta };
        let sum = self.writer.ask(bucket, verb).await?;
        sum.ok_or_else(|| Error::Corrupt("an increment came back without its sum".into()))
    }

    async fn list(&self, bucket: &Bucket, cursor: Option<u64>) -> Result<Page, Error> {
        let bucket = bucket.clone();
        // Entries are numbered from 1.
        let look = move |conn: &_| look::list(conn, &bucket, cursor.unwrap_or(0));
        self.lists.ask(look).await
    }

    async fn close(&self) {
        self.values.close().await;
        self.lists.close().await;
        self.writer.close().await;
    }
}

impl From<hostel_sqlite::Error> for Error {
    fn from(error: hostel_sqlite::Error) -> Self {
        match error {
            hostel_sqlite::Error::Unavailable(reason) => Error::Unavailable {
                reason,
                outcome_unknown: false,
            },
            hostel_sqlite::Error::Corrupt(what) => Error::Corrupt(what),
            hostel_sqlite::Error::Misconfigured(what) => Error::Misconfigured(what),
        }
    }
}
