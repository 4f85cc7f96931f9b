//! The description of a database file: where it is, what marks it, and what its tables are.

use std::path::PathBuf;

/// A database file of this node.
#[derive(Debug, Clone)]
pub struct Database {
    /// The path of the file.
    pub path: PathBuf,
    /// The section of the configuration that names the file.
    pub section: &'static str,
    /// What the file holds, for logs and errors.
    pub what: &'static str,
    /// `PRAGMA application_id`, which marks the file.
    pub application: i64,
    /// The schema that this build writes, in `PRAGMA user_version`.
    pub version: i64,
    /// The SQL that creates the schema `version`.
    pub create: &'static str,
    /// The SQL that makes each older version the next one, from 1 on.
    pub migrations: &'static [&'static str],
    /// Pragmas of the connection that writes. `auto_vacuum` takes effect on a new file only.
    pub tuning: &'static str,
}
