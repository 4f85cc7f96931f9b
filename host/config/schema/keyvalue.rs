//! `[keyvalue]`

use super::super::{
    group::{self, inline, kinds, settings},
    setting::{GIB, KIB, MIB, bytes, number, path},
};
use std::path::PathBuf;

settings! {
    /// What plugins store through wasi:keyvalue.
    struct KeyValue {
        /// `kind`, with the settings of that kind.
        backend: KeyValueBackend = inline();
        /// Limits that hold for every kind.
        limits: KeyValueLimits = inline();
    }
}

kinds! {
    /// Where keys and values are kept: "sqlite" is a file of this node.
    enum KeyValueBackend {
        /// In a file of this node.
        Sqlite(SqliteKeyValue) = "sqlite";
    }
}

settings! {
    /// Settings of the key-value store of kind "sqlite".
    struct SqliteKeyValue {
        /// The database file. By default kv.db in data_dir.
        path: PathBuf = path().default_with(|dirs| dirs.data.join("kv.db")).example("kv.db");

        /// Disk space that is reserved, in a file beside the database, for deletions; at most an
        /// eighth of the file system. Values are refused before it is used. 0 reserves nothing.
        reserve_bytes: u64 = bytes(0..=64 * GIB as u64).default(4 * MIB as u64);
    }
}

settings! {
    /// Limits on what plugins store.
    struct KeyValueLimits {
        /// Size of what a plugin keeps: all values, the keys and the names of its stores twice, since
        /// they are indexed, and 64 bytes for each key and each store.
        max_plugin_bytes: u64 = bytes(0..=KIB as u64 * GIB as u64).default(64 * MIB as u64);

        /// Size of a value.
        max_value_bytes: usize = bytes(0..=64 * MIB).default(MIB);

        /// Length of a key.
        max_key_bytes: usize = bytes(1..=64 * KIB).default(512);

        /// Length of the name of a store.
        max_store_name_bytes: usize = bytes(1..=64 * KIB).default(128);

        /// Number of keys that one call may read or change.
        max_batch_keys: usize = number(1..=100_000).default(1000);

        /// Size of all values that one call reads or writes together. At least max_value_bytes.
        max_batch_bytes: usize = bytes(0..=GIB).default(4 * MIB);
    }
}
