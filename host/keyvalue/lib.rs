//! Keys and values of plugins that outlive their guests: the contract of a backend, the limits of a
//! call, and the SQLite backend. How `wasi:keyvalue` maps to it is in `plugin`.

#[cfg(feature = "conformance")]
pub mod conformance;
mod key_value;
mod limit;
mod open;
mod sqlite;

pub use key_value::{
    Bucket, Change, Error, KEY_COST_BYTES, KeyValue, PAGE_KEYS, Page, Values, name_cost,
};
pub use open::open;
pub use sqlite::SqliteKeyValue;
