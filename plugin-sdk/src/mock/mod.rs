//! A host for native tests. It runs handlers and the component on bytes, as the sandbox does, with a
//! configurable task, configuration and listeners, stores in memory and a captured log. It has no
//! limits and no queue, so it does not retry failed attempts. This file runs tasks; `component.rs`
//! has the methods for components.

mod component;
pub(crate) mod kv;
pub(crate) mod messaging;
pub(crate) mod node;
pub(crate) mod tasks;

use crate::{Plugin, Result, Task};
use node::Node;
use std::rc::Rc;
use std::time::Duration;

/// Runs the tasks and the component of one plugin. Settings apply to all later runs.
///
/// A panic in the plugin's code unwinds through these methods. In a node, it would fail the attempt or
/// end the instance of the component.
pub struct MockHost {
    node: Rc<Node>,
    task: Task,
    sender: String,
}

/// A record that was logged through the `log` or the `tracing` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The level of the record.
    pub level: log::Level,
    /// The module that logged the record, or the target that it set.
    pub target: String,
    /// The formatted message.
    pub message: String,
}

/// A message that the plugin sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The destination: a component, a node or a topic.
    pub to: String,
    /// The type of the message; may be empty.
    pub message_type: String,
    /// The encoded payload.
    pub payload: Vec<u8>,
}

/// A report of a task about how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How much is done.
    pub done: u64,
    /// How much there is to do; 0 if that is not known.
    pub total: u64,
    /// The note, cut as a node cuts it.
    pub note: String,
}

impl MockHost {
    /// Creates a host without configuration. Its tasks have no metadata, are in the first of 5
    /// attempts, and have a timeout of 60 s.
    ///
    /// # Panics
    ///
    /// Panics if a node would reject the plugin.
    pub fn new(plugin: Plugin) -> Self {
        if let Err(faults) = plugin.check() {
            panic!("a node would reject this plugin:\n{faults}");
        }
        Self {
            node: Rc::new(Node::new(plugin)),
            task: Task {
                id: "mock-task".to_owned(),
                task_type: String::new(),
                metadata: Vec::new(),
                attempt: 1,
                max_attempts: 5,
                timeout: Duration::from_secs(60),
            },
            sender: "mock-sender".to_owned(),
        }
    }

    /// Sets the value that [`config::get`](crate::config::get) returns for `key`.
    pub fn config(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node
            .config
            .borrow_mut()
            .insert(key.into(), value.into());
        self
    }

    /// Sets the id of the tasks. The default is `mock-task`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.task.id = id.into();
        self
    }

    /// Sets one metadata entry of the tasks.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.task.metadata.retain(|(other, _)| *other != key);
        self.task.metadata.push((key, value.into()));
        self
    }

    /// Sets the number of the attempt, starting with 1, and the number of attempts.
    pub fn attempt(mut self, attempt: u32, max: u32) -> Self {
        self.task.attempt = attempt;
        self.task.max_attempts = max;
        self
    }

    /// Cancels each task after it has called [`Task::is_cancelled`] this many times: the calls after that
    /// return `true`. By default no task is cancelled. The mock host never interrupts a handler.
    pub fn cancel_after(self, calls: u32) -> Self {
        self.node.cancel_after.set(Some(calls));
        self
    }

    /// Sets the timeout that a handler reads. The mock host never interrupts a handler.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.task.timeout = timeout;
        self
    }

    /// Runs one task and returns its encoded result.
    ///
    /// # Errors
    ///
    /// Returns the error of decoding, of the handler or of encoding.
    pub fn run(&self, task_type: &str, payload: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let task = Task {
            task_type: task_type.to_owned(),
            ..self.task.clone()
        };
        self.node.cancel_checks.set(0);
        self.node
            .enter(|| self.node.plugin.run(payload.into(), &task))
    }

    /// Returns what the tasks have reported so far, in order. A node keeps the latest report of each attempt.
    pub fn progress(&self) -> Vec<Progress> {
        self.node.progress.borrow().clone()
    }

    /// Returns the records that were logged so far, in order.
    pub fn logs(&self) -> Vec<LogLine> {
        self.node.logs.borrow().clone()
    }
}

#[cfg(test)]
mod component_tests;
#[cfg(test)]
mod tests;
