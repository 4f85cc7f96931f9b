//! What a handler may know about its task besides the payload.

use crate::{Result, TaskError};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// One attempt of a task.
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
    /// The same for all attempts, so it serves as an idempotency key towards other systems.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name that the task was submitted under.
    pub fn task_type(&self) -> &str {
        &self.task_type
    }

    /// What the submitter set for `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let found = self.metadata.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// What the submitter set for `key`, parsed. A value that does not parse is a permanent error
    /// that names the key and the value.
    pub fn metadata_as<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>> {
        self.metadata(key)
            .map(|value| parse("metadata", key, value).map_err(TaskError::permanent))
            .transpose()
    }

    /// All that the submitter set, as pairs of key and value.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.metadata.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many attempts the task gets, the first included.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Whether a retryable error would end the task.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// How long this attempt may take before the node interrupts it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Parses a setting, with a message that names it.
pub(crate) fn parse<T: FromStr<Err: Display>>(
    kind: &str,
    key: &str,
    value: &str,
) -> Result<T, String> {
    value
        .parse()
        .map_err(|error| format!("{kind} `{key}` = {value:?}: {error}"))
}
