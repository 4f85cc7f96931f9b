//! The functions that the node calls: implementations of the generated traits for every plugin.
//! Payloads are moved and never copied, since they may have megabytes.

use super::describes::exports::hostel::plugin::manifest;
use super::handles_tasks::exports::hostel::plugin::task_handler;
use super::is_component::exports::hostel::plugin::{component, message_handler};
use super::{PluginSource, millis, prepare};
use crate::component::Instance;
use crate::{Message, Result, Task, TaskError, TaskType, messaging};
use std::cell::RefCell;
use std::time::Duration;

impl<T: PluginSource> manifest::Guest for T {
    fn describe() -> manifest::Description {
        prepare();
        let plugin = T::plugin();
        manifest::Description {
            name: plugin.name.to_owned(),
            version: plugin.version.to_owned(),
            description: plugin.description.to_owned(),
            task_types: plugin.task_types.iter().map(describe).collect(),
            topics: plugin.topics().iter().map(|&topic| topic.into()).collect(),
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

impl<T: PluginSource> task_handler::Guest for T {
    fn handle(task: task_handler::Task) -> Result<Vec<u8>, task_handler::TaskError> {
        prepare();
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

thread_local! {
    /// The component between `start` and `stop`. The node's calls never overlap.
    static COMPONENT: RefCell<Option<Box<dyn Instance>>> = const { RefCell::new(None) };
}

impl<T: PluginSource> component::Guest for T {
    fn start() -> Result<(), String> {
        prepare();
        let instance = T::plugin().start().map_err(text)?;
        COMPONENT.set(Some(instance));
        Ok(())
    }

    fn stop() -> Result<(), String> {
        match COMPONENT.take() {
            Some(mut instance) => instance.end().map_err(text),
            None => Ok(()),
        }
    }
}

impl<T: PluginSource> message_handler::Guest for T {
    fn on_message(message: message_handler::Message) -> Result<Option<Vec<u8>>, String> {
        let payload = message.payload;
        let message = Message {
            id: message.id,
            sender: message.sender,
            to: message.to,
            message_type: message.message_type,
            in_reply_to: message.in_reply_to,
        };
        COMPONENT.with_borrow_mut(|component| match component {
            Some(instance) => instance.receive(payload, &message).map_err(text),
            None => Err("the component has not been started".to_owned()),
        })
    }
}

/// Converts an error into text: the errors of messages have no variants. `hostel.wit` defines the
/// prefix of permanent errors.
fn text(error: TaskError) -> String {
    messaging::as_answer(&error)
}
