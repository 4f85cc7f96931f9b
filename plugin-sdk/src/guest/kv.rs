//! A store of the node: wasi:keyvalue with the interface that the SDK's `kv.rs` uses.

use super::describes::wasi::keyvalue::{atomics, batch, store};

/// An open store; closed when it is dropped.
pub(crate) struct Bucket(store::Bucket);

type Result<T> = std::result::Result<T, String>;

impl Bucket {
    pub fn open(name: &str) -> Result<Self> {
        store::open(name).map(Self).map_err(text)
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.0.get(key).map_err(text)
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.0.set(key, value).map_err(text)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).map_err(text)
    }

    pub fn exists(&self, key: &str) -> Result<bool> {
        self.0.exists(key).map_err(text)
    }

    pub fn keys(&self, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>)> {
        let page = self.0.list_keys(cursor).map_err(text)?;
        Ok((page.keys, page.cursor))
    }

    pub fn increment(&self, key: &str, delta: u64) -> Result<u64> {
        atomics::increment(&self.0, key, delta).map_err(text)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let found = batch::get_many(&self.0, keys).map_err(text)?;
        Ok(found.into_iter().map(|pair| Some(pair?.1)).collect())
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        batch::set_many(&self.0, entries).map_err(text)
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<()> {
        batch::delete_many(&self.0, keys).map_err(text)
    }
}

fn text(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "there is no such store".to_owned(),
        store::Error::AccessDenied => "access is denied".to_owned(),
        store::Error::Other(why) => why,
    }
}
