//! Keeps what must outlive an instance: stores of keys and values, on the node's disk. What a
//! change means and how large things may be is the node's affair.
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

/// The plugin's store of that name, made when it is first written to. Handlers and the component of
/// a plugin share its stores; other plugins do not see them.
pub fn open(name: &str) -> Result<Store> {
    let bucket = Bucket::open(name).map_err(|why| {
        TaskError::retryable(format!("kv store `{name}` cannot be opened: {why}"))
    })?;
    Ok(Store {
        name: name.to_owned(),
        bucket,
    })
}

/// An open store. A change that returned without an error is on disk. An error is retryable when
/// the node could not read or write, and permanent when a value has not the form asked for.
pub struct Store {
    name: String,
    bucket: Bucket,
}

impl Store {
    pub fn get<T: Input>(&self, key: &str) -> Result<Option<T>> {
        let value = self.told(key, self.bucket.get(key))?;
        value.map(|value| self.decoded(key, value)).transpose()
    }

    pub fn set(&self, key: &str, value: impl Output) -> Result<()> {
        self.told(key, self.bucket.set(key, &value.encode()?))
    }

    /// A key that is not there is no error.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.told(key, self.bucket.delete(key))
    }

    pub fn exists(&self, key: &str) -> Result<bool> {
        self.told(key, self.bucket.exists(key))
    }

    /// All keys, in no order that can be relied on.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let (keys, next) = self.told("", self.bucket.keys(cursor))?;
            all.extend(keys);
            if next.is_none() {
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// Adds to a number, atomically, and returns the sum; a key that is not there counts as 0. Read
    /// it with [`get`](Self::get) as `Json<u64>`.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64> {
        self.told(key, self.bucket.increment(key, delta))
    }

    /// The values in the order of the keys.
    pub fn get_many<T: Input>(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Option<T>>> {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        let values = self.told("", self.bucket.get_many(&keys))?;
        let decoded = |(key, value): (&String, Option<Vec<u8>>)| {
            value.map(|value| self.decoded(key, value)).transpose()
        };
        keys.iter().zip(values).map(decoded).collect()
    }

    /// All of them or none.
    pub fn set_many(
        &self,
        entries: impl IntoIterator<Item = (impl Into<String>, impl Output)>,
    ) -> Result<()> {
        let encoded = |(key, value)| Ok((Into::into(key), Output::encode(value)?));
        let entries = entries
            .into_iter()
            .map(encoded)
            .collect::<Result<Vec<_>>>()?;
        self.told("", self.bucket.set_many(&entries))
    }

    /// All of them or none.
    pub fn delete_many(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> Result<()> {
        let keys: Vec<_> = keys.into_iter().map(Into::into).collect();
        self.told("", self.bucket.delete_many(&keys))
    }

    fn decoded<T: Input>(&self, key: &str, value: Vec<u8>) -> Result<T> {
        T::decode(value).map_err(|error| {
            let place = self.place(key);
            TaskError::permanent(format!("{place} holds something else: {error}"))
        })
    }

    /// Says in which store, and with which key, something went wrong.
    fn told<T>(&self, key: &str, done: Result<T, String>) -> Result<T> {
        done.map_err(|why| TaskError::retryable(format!("{}: {why}", self.place(key))))
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

    /// Runs a test where a node would run a handler.
    fn inside(test: fn() -> Result<()>) -> Result<Vec<u8>> {
        let plugin = Plugin::new("p", "1", "").with(task("test", move |()| test()));
        MockHost::new(plugin).run("test", "")
    }

    #[test]
    fn values_come_back_as_what_is_asked_for() {
        let done = inside(|| {
            let store = open("a")?;
            assert_eq!(store.get::<String>("k")?, None);
            store.set("k", "x")?;
            assert_eq!(store.get::<Vec<u8>>("k")?, Some(b"x".to_vec()));
            assert!(store.exists("k")?);
            assert_eq!(open("b")?.get::<String>("k")?, None);
            let error = store.get::<Json<u8>>("k").unwrap_err();
            assert!(error.is_permanent());
            let start = "kv store `a`, key \"k\" holds something else: the payload is not as due";
            assert!(error.message().starts_with(start), "{error}");
            store.delete("k")?;
            store.delete("k")?;
            assert!(!store.exists("k")?);
            Ok(())
        });
        assert_eq!(done, Ok(Vec::new()));
    }

    #[test]
    fn many_are_in_the_order_of_their_keys() {
        let done = inside(|| {
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
    fn numbers_add_up() {
        let done = inside(|| {
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
    fn without_a_host_there_is_no_store() {
        let error = open("a").err().map(|error| error.message().to_owned());
        let message = "kv store `a` cannot be opened: no MockHost runs this";
        assert_eq!(error.as_deref(), Some(message));
    }
}
