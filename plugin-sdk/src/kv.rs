//! Durable state: key-value stores on the node's disk, which outlive an instance. The node sets the
//! limits of keys and values.
//!
//! ```
//! # use hostel_sdk::prelude::*;
//! # fn handler(_: ()) -> Result<()> {
//! let store = kv::open("visits")?;
//! store.set("ann", Json([1, 2]))?;
//! let visits: Option<Json<Vec<u8>>> = store.get("ann")?;
//! assert_eq!(visits, Some(Json(vec![1, 2])));
//! assert_eq!(store.increment("total", 2)?, 2);
//! # Ok(()) }
//! # let plugin = hostel_sdk::Plugin::new("p", "1", "").with(task("t", handler));
//! # MockHost::new(plugin).run("t", "").unwrap();
//! ```

use crate::{Input, Output, Result, TaskError};

#[cfg(target_family = "wasm")]
use crate::guest::kv::Bucket;
#[cfg(not(target_family = "wasm"))]
use crate::mock::kv::Bucket;

/// Opens the plugin's store of that name. The store is created by its first write. Handlers and the
/// component of a plugin share its stores; other plugins cannot access them.
///
/// # Errors
///
/// Returns a retryable error if the node cannot open the store.
pub fn open(name: &str) -> Result<Store> {
    let bucket = Bucket::open(name).map_err(|why| {
        TaskError::retryable(format!("kv store `{name}` cannot be opened: {why}"))
    })?;
    Ok(Store {
        name: name.to_owned(),
        bucket,
    })
}

/// An open store.
///
/// A change is on disk when its method returns `Ok`. Errors are retryable if the node could not read
/// or write, and permanent if a stored value cannot be decoded as the requested type.
pub struct Store {
    name: String,
    bucket: Bucket,
}

impl Store {
    /// Returns the decoded value of `key`, or `None` if there is none.
    pub fn get<T: Input>(&self, key: &str) -> Result<Option<T>> {
        let value = self.located(key, self.bucket.get(key))?;
        value.map(|value| self.decoded(key, value)).transpose()
    }

    /// Stores `value` under `key`.
    pub fn set(&self, key: &str, value: impl Output) -> Result<()> {
        self.located(key, self.bucket.set(key, &value.encode()?))
    }

    /// Deletes `key`. Deleting a missing key succeeds.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.located(key, self.bucket.delete(key))
    }

    /// Returns `true` if `key` has a value.
    pub fn exists(&self, key: &str) -> Result<bool> {
        self.located(key, self.bucket.exists(key))
    }

    /// Returns all keys, in no particular order.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let (keys, next) = self.located("", self.bucket.keys(cursor))?;
            all.extend(keys);
            if next.is_none() {
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// Adds `delta` to a number atomically and returns the sum. A missing key counts as 0. The number
    /// can be read with [`get`](Self::get) as `Json<u64>`.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64> {
        self.located(key, self.bucket.increment(key, delta))
    }

    /// Returns the values in the order of the keys.
    pub fn get_many<T: Input>(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Option<T>>> {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        let values = self.located("", self.bucket.get_many(&keys))?;
        let decoded = |(key, value): (&String, Option<Vec<u8>>)| {
            value.map(|value| self.decoded(key, value)).transpose()
        };
        keys.iter().zip(values).map(decoded).collect()
    }

    /// Stores all entries or, on an error, none.
    pub fn set_many(
        &self,
        entries: impl IntoIterator<Item = (impl Into<String>, impl Output)>,
    ) -> Result<()> {
        let encoded = |(key, value)| Ok((Into::into(key), Output::encode(value)?));
        let entries = entries
            .into_iter()
            .map(encoded)
            .collect::<Result<Vec<_>>>()?;
        self.located("", self.bucket.set_many(&entries))
    }

    /// Deletes all keys or, on an error, none.
    pub fn delete_many(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> Result<()> {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        self.located("", self.bucket.delete_many(&keys))
    }

    fn decoded<T: Input>(&self, key: &str, value: Vec<u8>) -> Result<T> {
        T::decode(value).map_err(|error| {
            let place = self.place(key);
            TaskError::permanent(format!("{place} has a value of another type: {error}"))
        })
    }

    /// Adds the store and the key to an error.
    fn located<T>(&self, key: &str, result: Result<T, String>) -> Result<T> {
        result.map_err(|why| TaskError::retryable(format!("{}: {why}", self.place(key))))
    }

    fn place(&self, key: &str) -> String {
        match key {
            "" => format!("kv store `{}`", self.name),
            key => format!("kv store `{}`, key {key:?}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, Plugin, mock::MockHost, task};

    /// Runs a test as the handler of a task.
    fn run_in_handler(test: fn() -> Result<()>) -> Result<Vec<u8>> {
        let plugin = Plugin::new("p", "1", "").with(task("test", move |()| test()));
        MockHost::new(plugin).run("test", "")
    }

    #[test]
    fn values_are_decoded_as_the_requested_type() {
        let done = run_in_handler(|| {
            let store = open("a")?;
            assert_eq!(store.get::<String>("k")?, None);
            store.set("k", "x")?;
            assert_eq!(store.get::<Vec<u8>>("k")?, Some(b"x".to_vec()));
            assert!(store.exists("k")?);
            assert_eq!(open("b")?.get::<String>("k")?, None);
            let error = store.get::<Json<u8>>("k").unwrap_err();
            assert!(error.is_permanent());
            let start = "kv store `a`, key \"k\" has a value of another type: the payload is not the expected JSON";
            assert!(error.message().starts_with(start), "{error}");
            store.delete("k")?;
            store.delete("k")?;
            assert!(!store.exists("k")?);
            Ok(())
        });
        assert_eq!(done, Ok(Vec::new()));
    }

    #[test]
    fn get_many_keeps_the_order_of_the_keys() {
        let done = run_in_handler(|| {
            let store = open("a")?;
            store.set_many((0..2500).map(|n: u32| (format!("k{n}"), Json(n))))?;
            assert_eq!(store.keys()?.len(), 2500);
            let some = store.get_many::<Json<u32>>(["k7", "none", "k2"])?;
            assert_eq!(some, [Some(Json(7)), None, Some(Json(2))]);
            store.delete_many((1..2500).map(|n| format!("k{n}")))?;
            assert_eq!(store.keys()?, ["k0"]);
            Ok(())
        });
        assert_eq!(done, Ok(Vec::new()));
    }

    #[test]
    fn increment_adds_to_a_number() {
        let done = run_in_handler(|| {
            let store = open("a")?;
            assert_eq!((store.increment("n", 3)?, store.increment("n", 4)?), (3, 7));
            assert_eq!(store.get("n")?, Some(Json(7)));
            store.set("text", "x")?;
            assert!(store.increment("text", 1).is_err());
            store.set("most", Json(u64::MAX))?;
            assert!(store.increment("most", 1).is_err());
            Ok(())
        });
        assert_eq!(done, Ok(Vec::new()));
    }

    #[test]
    fn opening_a_store_needs_a_host() {
        let error = open("a").err().map(|error| error.message().to_owned());
        let message = "kv store `a` cannot be opened: this code is not run by a MockHost";
        assert_eq!(error.as_deref(), Some(message));
    }
}
