//! What the operator set for this plugin under `[plugin.NAME.config]`. What the submitter of a task
//! set is its metadata, which is [`Task::metadata`](crate::Task::metadata).

use crate::task::parse;
use crate::{Result, TaskError};
use std::fmt::Display;
use std::str::FromStr;

/// The value of `key`, or `None` where the operator set none. An error means that the node could
/// not read its configuration; it is retryable.
///
/// In a native test it is what [`MockHost::config`](crate::mock::MockHost::config) set.
pub fn get(key: &str) -> Result<Option<String>> {
    #[cfg(target_family = "wasm")]
    return crate::guest::config(key);
    #[cfg(not(target_family = "wasm"))]
    return Ok(crate::mock::node::config(key));
}

/// The value of `key`, parsed. A value that does not parse is a retryable error that names the key
/// and the value: the operator can mend it while the task waits.
pub fn get_as<T: FromStr<Err: Display>>(key: &str) -> Result<Option<T>> {
    get(key)?
        .map(|value| parse("config", key, &value).map_err(TaskError::retryable))
        .transpose()
}
