//! The key-value store of one machine: a SQLite file, one thread that writes, two that read.

mod queries;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

pub use store::SqliteKeyValue;
