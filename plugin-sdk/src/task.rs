//! The attributes of a task, and what a handler reports of it.

#[cfg(target_family = "wasm")]
use crate::guest::tasks as host;
#[cfg(not(target_family = "wasm"))]
use crate::mock::tasks as host;
use crate::{Result, TaskError};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// One attempt of a task, without its payload.
#[derive(Clone, Debug)]
pub struct Task {
    pub(crate) id: String,
    pub(crate) task_type: String,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) timeout: Duration,
}

impl Task {
    /// Returns the id of the task. It is the same for all attempts, so it can be the idempotency key
    /// of calls to other systems.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the type of the task.
    pub fn task_type(&self) -> &str {
        &self.task_type
    }

    /// Returns the metadata that the submitter set for `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let found = self.metadata.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the parsed metadata of `key`, or `None` if the submitter has not set it.
    ///
    /// # Errors
    ///
    /// Returns a permanent error that names the key and the value if the value cannot be parsed.
    pub fn metadata_as<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>> {
        self.metadata(key)
            .map(|value| parse("metadata", key, value).map_err(TaskError::permanent))
            .transpose()
    }

    /// Returns all metadata as pairs of key and value.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.metadata.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the number of this attempt, starting with 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the number of attempts of the task, including the first.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Returns `true` if a retryable error would fail the task.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// Returns the time after which the node interrupts this attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reports how far this attempt has come: `done` of `total`, in any unit; a total of 0 is not known. The
    /// node keeps the first 256 bytes of the note. Clients see the latest report; it is cheap to report more
    /// often than that, since the node stores one at most every second.
    ///
    /// In a native test, [`MockHost::progress`](crate::mock::MockHost::progress) returns the reports.
    pub fn progress(&self, done: u64, total: u64, note: impl AsRef<str>) {
        host::progress(done, total, note.as_ref());
    }

    /// Returns `true` once a cancellation of the task was requested, or another node may run it.
    ///
    /// A handler that calls this now and then has a moment to stop by itself (`plugins.cancel_grace_ms`, a
    /// second by default) before the node interrupts it; a handler that never does is interrupted at once.
    /// After this has returned `true`, an error of any kind ends a task that is to be cancelled as cancelled,
    /// and a result completes it.
    ///
    /// In a native test, [`MockHost::cancel_after`](crate::mock::MockHost::cancel_after) decides.
    pub fn is_cancelled(&self) -> bool {
        host::is_cancelled()
    }
}

/// Parses a value; the error names its kind, key and text.
pub(crate) fn parse<T: FromStr<Err: Display>>(
    kind: &str,
    key: &str,
    value: &str,
) -> Result<T, String> {
    value
        .parse()
        .map_err(|error| format!("{kind} `{key}` = {value:?}: {error}"))
}
