//! Where plugins keep what has to outlive them: keys and values in named stores. The contract that
//! every engine keeps, and the one place that chooses an engine. Knows nothing of guests; how these
//! verbs look through `wasi:keyvalue` is `plugin`'s.
//!
//! Verbs take batches, because engines pay per round trip or per fsync and not per key. Answers come
//! in the order of the questions.

mod limit;
mod sqlite;

pub use sqlite::SqliteKeyValue;

use async_trait::async_trait;
use hostel_runtime::health::Health;
use hostel_task::Name;
use std::sync::Arc;

/// How many keys `list` returns at most.
pub const PAGE_KEYS: usize = 1000;

/// What a plugin is charged for every key, beside the bytes of key and value: about what it costs
/// on disk that there is one.
pub const KEY_COST_BYTES: u64 = 64;

/// A value for each key, `None` where there is none.
pub type Values = Vec<Option<Vec<u8>>>;

#[async_trait]
pub trait KeyValue: Send + Sync {
    /// Names a store of `plugin`'s. Any name will do, the empty one included, as long as it is no
    /// longer than allowed.
    fn bucket(&self, plugin: &Name, store: &str) -> Result<Bucket, Error>;

    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Values, Error>;

    /// Whether each key is there.
    async fn exists(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<bool>, Error>;

    /// Makes all changes in their order, or none. On return they are as durable as the engine makes
    /// anything; who stops waiting before does not know.
    async fn apply(&self, bucket: &Bucket, changes: Vec<Change>) -> Result<(), Error>;

    /// Adds to a number, and returns the sum once that is durable. A number is stored as its decimal
    /// digits, so `get` and `set` read and write it as text; a key that is not there counts as 0.
    /// `Invalid` when the value is no number or the sum is beyond 64 bits: then nothing has changed.
    async fn increment(&self, bucket: &Bucket, key: String, delta: u64) -> Result<u64, Error>;

    /// Keys, a page at a time, in no particular order: from the first, or from the `next` of the
    /// page before. A key that is there from the first page to the last is listed once, whatever
    /// happens to others meanwhile.
    async fn list(&self, bucket: &Bucket, cursor: Option<u64>) -> Result<Page, Error>;

    /// Writes out what is pending and lets go of the engine. Later calls are `Unavailable`.
    async fn close(&self);
}

/// Opens the engine that the configuration names. It reports what is wrong with it to `health`.
pub async fn open(
    keyvalue: &hostel_config::KeyValue,
    health: &Health,
) -> Result<Arc<dyn KeyValue>, Error> {
    match &keyvalue.backend {
        hostel_config::KeyValueBackend::Sqlite {
            path,
            reserve_bytes,
        } => {
            let limits = &keyvalue.limits;
            let opened = SqliteKeyValue::open(path, *reserve_bytes, limits, health).await?;
            Ok(Arc::new(opened))
        }
    }
}

/// A plugin's store, whose name means nothing to other plugins. It is there while it holds a key.
/// Made by `KeyValue::bucket` alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    plugin: Name,
    store: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set { key: String, value: Vec<u8> },
    Delete { key: String },
}

impl Change {
    pub fn key(&self) -> &str {
        match self {
            Change::Set { key, .. } | Change::Delete { key } => key,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub keys: Vec<String>,
    /// Present when there may be more.
    pub next: Option<u64>,
}

/// Why a verb did nothing, by what the caller can do about it. `Limit` and `Invalid` speak to the
/// author of the plugin, the others to the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Try again later. When `outcome_unknown`, the change may or may not have been made.
    #[error("the key-value store is unavailable: {reason}")]
    Unavailable {
        reason: String,
        outcome_unknown: bool,
    },
    /// Ask for less, keep less, or have the setting that it names raised.
    #[error("{0}")]
    Limit(String),
    /// What was asked for makes no sense for what is stored.
    #[error("{0}")]
    Invalid(String),
    /// What is stored does not make sense; an operator has to look.
    #[error("the key-value store is corrupt: {0}")]
    Corrupt(String),
    /// A setting has to change.
    #[error("the key-value store cannot be opened: {0}")]
    Misconfigured(String),
}
