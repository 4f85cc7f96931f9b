//! The files around the database: private to the user, and used by one process at a time. The database
//! file itself is never opened here once a connection is open: closing any handle of it would drop
//! SQLite's locks.

use super::{database::Database, error::Error};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Holds the database for this process until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being forked has it open, too, and would
        // hold the lock until it executes its own program.
        let _ = self.0.unlock();
    }
}

impl Database {
    /// Creates the directory and the file if they are missing, and claims them for this process. Fails
    /// with `Misconfigured` if another process uses them or this one may not.
    pub async fn claim(&self) -> Result<Lock, Error> {
        let database = self.clone();
        let claimed = tokio::task::spawn_blocking(move || database.claim_blocking()).await;
        claimed.map_err(|error| Error::unavailable(error.to_string()))?
    }

    fn claim_blocking(&self) -> Result<Lock, Error> {
        let path = &self.path;
        let refused = |what: &str, error: io::Error| {
            Error::Misconfigured(format!("{what} {}: {error}", path.display()))
        };
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(|error| refused("cannot create the directory of", error))?;
        }
        let lock = lock(path)?;
        // SQLite gives its -wal and -shm files the mode of the database.
        private()
            .open(path)
            .and_then(|_| fs::set_permissions(path, Permissions::from_mode(0o600)))
            .map_err(|error| refused("cannot open", error))?;
        Ok(lock)
    }
}

fn lock(path: &Path) -> Result<Lock, Error> {
    let lock_path = with_suffix(path, ".lock");
    let refused = |error: io::Error| {
        Error::Misconfigured(format!("{} cannot be locked: {error}", lock_path.display()))
    };
    let file = private().open(&lock_path).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Misconfigured(format!(
            "{} is in use by another hostel; stop that one, or give this one its own [node] data_dir",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// Appends a suffix to a file name: `queue.db` and `.lock` give `queue.db.lock`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
