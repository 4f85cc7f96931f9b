//! The sandbox's side: the generated bindings, and between them and the SDK's own types. Built for
//! wasm only. It holds no decisions, since native tests do not come through here.

use crate::{Plugin, Result, Task, TaskError, TaskType, logger};
use bindings::exports::hostel::plugin::{manifest, task_handler};
use bindings::wasi::config::store;
use bindings::wasi::logging::logging;
use std::time::Duration;

/// Generated from `wit/hostel.wit`.
#[allow(missing_docs, unsafe_op_in_unsafe_fn, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        world: "plugin",
        path: "../wit",
        pub_export_macro: true,
        generate_all,
    });
}

pub use bindings::export;

/// Where the exports get the plugin from: `plugin!` implements it in the author's crate.
pub trait Source {
    fn plugin() -> Plugin;
}

impl<T: Source> manifest::Guest for T {
    fn describe() -> manifest::Description {
        logger::install();
        let plugin = T::plugin();
        manifest::Description {
            name: plugin.name.to_owned(),
            version: plugin.version.to_owned(),
            description: plugin.description.to_owned(),
            task_types: plugin.task_types.iter().map(describe).collect(),
            topics: Vec::new(),
        }
    }
}

fn describe(task_type: &TaskType) -> manifest::TaskType {
    let (initial, max) = task_type.backoff.unzip();
    manifest::TaskType {
        name: task_type.name.to_owned(),
        description: task_type.description.to_owned(),
        timeout_ms: task_type.timeout.map(millis),
        max_attempts: task_type.attempts,
        backoff_initial_ms: initial.map(millis),
        backoff_max_ms: max.map(millis),
        max_concurrency: task_type.concurrency,
    }
}

impl<T: Source> task_handler::Guest for T {
    fn handle(task: task_handler::Task) -> Result<Vec<u8>, task_handler::TaskError> {
        logger::install();
        // Moved, never copied: the payload may be megabytes.
        let payload = task.payload;
        let task = Task {
            id: task.id,
            task_type: task.task_type,
            metadata: task.metadata,
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            timeout: Duration::from_millis(task.timeout_ms),
        };
        T::plugin().run(payload, &task).map_err(error)
    }
}

fn error(error: TaskError) -> task_handler::TaskError {
    match error {
        TaskError::Permanent { message } => task_handler::TaskError::Permanent(message),
        TaskError::Retryable {
            message,
            retry_after,
        } => task_handler::TaskError::Retryable(task_handler::RetryableError {
            message,
            retry_after_ms: retry_after.map(millis),
        }),
    }
}

pub(crate) fn config(key: &str) -> Result<Option<String>> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(why) | store::Error::Io(why)) = error;
        TaskError::retryable(format!("config `{key}` cannot be read: {why}"))
    })
}

pub(crate) fn log(record: &log::Record<'_>) {
    let level = match record.level() {
        log::Level::Error => logging::Level::Error,
        log::Level::Warn => logging::Level::Warn,
        log::Level::Info => logging::Level::Info,
        log::Level::Debug => logging::Level::Debug,
        log::Level::Trace => logging::Level::Trace,
    };
    match record.args().as_str() {
        Some(message) => logging::log(level, record.target(), message),
        None => logging::log(level, record.target(), &record.args().to_string()),
    }
}

/// The contract counts in whole milliseconds; what is too long for it is for ever.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
