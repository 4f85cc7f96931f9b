//! The attributes of a task.

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
