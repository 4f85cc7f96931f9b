//! Reads the settings of this plugin from `[plugin.NAME.config]`, which the operator writes. The
//! submitter of a task sets its metadata instead: [`Task::metadata`](crate::Task::metadata).

use crate::task::parse;
use crate::{Result, TaskError};
use std::fmt::Display;
use std::str::FromStr;

/// Returns the value of `key`, or `None` if the operator has not set it.
///
/// In a native test, [`MockHost::config`](crate::mock::MockHost::config) sets the value.
///
/// # Errors
///
/// Returns a retryable error if the node cannot read its configuration.
pub fn get(key: &str) -> Result<Option<String>> {
    #[cfg(target_family = "wasm")]
    return crate::guest::config(key);
    #[cfg(not(target_family = "wasm"))]
    return Ok(crate::mock::node::config(key));
}

/// Returns the parsed value of `key`, or `None` if the operator has not set it.
///
/// # Errors
///
/// Returns a retryable error that names the key and the value if the value cannot be parsed: the
/// operator can correct it while the task waits.
pub fn get_as<T: FromStr<Err: Display>>(key: &str) -> Result<Option<T>> {
    get(key)?
        .map(|value| parse("config", key, &value).map_err(TaskError::retryable))
        .transpose()
}
