//! What the cases share: the limits of the store under test, and short names for its calls.

pub use crate::key_value::{Bucket, Change, Error, KeyValue, PAGE_KEYS, name_cost};
use hostel_config::{Config, KeyValueLimits};
use hostel_task::Name;
use std::{fmt::Debug, sync::Arc};

pub type Store = Arc<dyn KeyValue>;

/// The limits that the store under test is opened with, small enough to be reached.
pub fn limits() -> KeyValueLimits {
    KeyValueLimits {
        max_plugin_bytes: 1 << 20,
        max_value_bytes: 64 << 10,
        max_batch_bytes: 128 << 10,
        ..Config::default().keyvalue.limits
    }
}

/// Returns a plugin that no other case and no other run uses.
pub fn plugin() -> Name {
    Name::parse("plugin", &format!("plugin-{:032x}", fastrand::u128(..))).unwrap()
}

pub fn bucket(store: &Store) -> Bucket {
    store.bucket(&plugin(), "store").unwrap()
}

pub fn set(key: &str, value: &[u8]) -> Change {
    Change::Set {
        key: key.into(),
        value: value.into(),
    }
}

pub fn delete(key: &str) -> Change {
    Change::Delete { key: key.into() }
}

pub async fn put(store: &Store, bucket: &Bucket, key: &str, value: &[u8]) {
    store.apply(bucket, vec![set(key, value)]).await.unwrap();
}

pub async fn get(store: &Store, bucket: &Bucket, key: &str) -> Option<Vec<u8>> {
    let values = store.get(bucket, vec![key.into()]).await.unwrap();
    assert_eq!(values.len(), 1);
    values.into_iter().next().unwrap()
}

/// Returns the text of an error for the author of a plugin.
pub fn refusal<T: Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Limit(text) | Error::Invalid(text)) => text,
        other => panic!("{other:?}"),
    }
}
