//! The schema of the database file.

use hostel_sqlite::Database;
use std::path::Path;

/// The SQL of what the plugin of number `$plugin` is charged; `name_cost` charges the same. `length` of a
/// text would be in characters, up to the first that is NUL.
macro_rules! charged {
    ($plugin:literal) => {
        concat!(
            "ifnull((SELECT sum(2 * octet_length(name) + 64) FROM store
                WHERE store.plugin = ",
            $plugin,
            "), 0) + ifnull((SELECT sum(2 * octet_length(key) + 64 + length(value))
                FROM store JOIN entry USING (store) WHERE store.plugin = ",
            $plugin,
            "), 0)"
        )
    };
}
pub(super) use charged;

/// From 1 to 2: names of stores are charged, and keys twice. Version 1 charged a key and its value once,
/// and 64 bytes.
const SECOND: &str = concat!("UPDATE plugin SET bytes = ", charged!("plugin.plugin"));

/// An entry keeps its number as long as its key exists; `list` is ordered by it, through `entry_store`.
const CREATE: &str = "
CREATE TABLE plugin (
    plugin INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL          -- what all its stores and entries are charged
);
CREATE TABLE store (
    store INTEGER PRIMARY KEY,
    plugin INTEGER NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (plugin, name)           -- there while it has entries
);
CREATE TABLE entry (
    entry INTEGER PRIMARY KEY,
    store INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (store, key)
);
CREATE INDEX entry_store ON entry (store);
-- For people with a shell; hostel itself does not read it.
CREATE VIEW entries AS SELECT
    plugin.name AS plugin, store.name AS store, entry.key, length(value) AS bytes, entry.value
FROM entry JOIN store USING (store) JOIN plugin USING (plugin);
";

/// Everything acknowledged has to survive the loss of power.
const TUNING: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = OFF;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16384;
PRAGMA journal_size_limit = 67108864;
";

pub(super) fn database(path: &Path) -> Database {
    Database {
        path: path.to_owned(),
        section: "[keyvalue]",
        what: "key-value store",
        application: 0x486F_6B76, // "Hokv"
        version: 2,
        create: CREATE,
        migrations: &[SECOND],
        tuning: TUNING,
    }
}
