//! What every SQLite file of a node needs, whoever keeps what in it: claiming the file, connections
//! that know whose it is, a thread that reads, space kept free, files kept small, and words for what
//! goes wrong. Knows no table.

mod connection;
mod fault;
mod file;
mod foreign;
mod reader;
mod receive;
mod space;
mod thread;
mod upkeep;

pub use fault::Fault;
pub use file::Lock;
pub use reader::Reader;
pub use receive::{Received, receive};
pub use space::Space;
pub use thread::Thread;
pub use upkeep::{Upkeep, fold};

use std::path::PathBuf;

/// A database file of ours, as those who use it see it.
#[derive(Debug, Clone)]
pub struct Database {
    pub path: PathBuf,
    /// The section of the configuration that names the file.
    pub section: &'static str,
    /// What is kept in it, for the log.
    pub what: &'static str,
    /// Marks the file, in `PRAGMA application_id`.
    pub application: i64,
    /// What this build writes, in `PRAGMA user_version`.
    pub version: i64,
    /// What `version` consists of.
    pub create: &'static str,
    /// What makes each older version the next one, from 1 on.
    pub migrations: &'static [&'static str],
    /// Set on the connection that writes; `auto_vacuum` among them takes effect on a new file only.
    pub tuning: &'static str,
}

/// What the database could not do, by what can be done about it. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Try again later.
    Unavailable(String),
    /// What is stored does not make sense; an operator has to look.
    Corrupt(String),
    /// A setting has to change.
    Misconfigured(String),
}

impl Error {
    pub fn closed() -> Self {
        Self::Unavailable("it has been closed".into())
    }
}
