//! Stores in memory that behave like a node's: keys come in pages, numbers are decimal text, batches
//! apply completely or not at all. They live as long as the mock host.

use super::node::{NO_HOST, current};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The number of keys of a page; small, so that tests cover several pages.
const PAGE: usize = 100;

type Entries = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub(super) struct Stores(RefCell<BTreeMap<String, Bucket>>);

impl Stores {
    pub fn open(&self, name: &str) -> Bucket {
        self.0.borrow_mut().entry(name.into()).or_default().clone()
    }

    pub fn entries(&self, name: &str) -> Entries {
        self.open(name).0.borrow().clone()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Bucket(Rc<RefCell<Entries>>);

type Result<T> = std::result::Result<T, String>;

// The methods have the signatures of the node's store, although most of them cannot fail here.
impl Bucket {
    pub fn open(name: &str) -> Result<Self> {
        current()
            .map(|node| node.stores.open(name))
            .ok_or_else(|| NO_HOST.into())
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().get(key).cloned())
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        self.0.borrow_mut().insert(key.into(), value.into());
        Ok(())
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.0.borrow_mut().remove(key);
        Ok(())
    }

    pub fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.0.borrow().contains_key(key))
    }

    /// Returns one page of keys. The cursor is the number of keys before it.
    pub fn keys(&self, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>)> {
        let from = cursor.map_or(0, |cursor| usize::try_from(cursor).unwrap_or(usize::MAX));
        let keys = self.0.borrow();
        let page: Vec<_> = keys.keys().skip(from).take(PAGE).cloned().collect();
        let next = from.saturating_add(PAGE);
        Ok((page, (next < keys.len()).then_some(next as u64)))
    }

    pub fn increment(&self, key: &str, delta: u64) -> Result<u64> {
        let value = self.get(key)?.unwrap_or_else(|| b"0".to_vec());
        let number = String::from_utf8(value).ok().and_then(|n| n.parse().ok());
        let number: u64 = number.ok_or("the value is not a number")?;
        let sum = number.checked_add(delta).ok_or("the sum is too large")?;
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        self.0.borrow_mut().extend(entries.iter().cloned());
        Ok(())
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<()> {
        self.0.borrow_mut().retain(|key, _| !keys.contains(key));
        Ok(())
    }
}
