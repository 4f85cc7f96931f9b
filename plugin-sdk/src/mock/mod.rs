//! A host for native tests: runs handlers and the component as the sandbox does, from bytes to bytes,
//! with a given task, configuration and listeners, stores in memory and a captured log. It has none
//! of the sandbox's limits, and no queue: whether a failed attempt is tried again is the node's
//! affair. Tasks are run here; the component is driven in `component.rs`.

mod component;
pub(crate) mod kv;
pub(crate) mod messaging;
pub(crate) mod node;

use crate::{Plugin, Result, Task};
use node::Node;
use std::rc::Rc;
use std::time::Duration;

/// Runs the tasks and the component of one plugin. What is set before a run holds for all runs after
/// it.
///
/// Code that panics panics through here; in the node it would be a failed attempt, or the end of
/// the component's instance.
pub struct MockHost {
    node: Rc<Node>,
    task: Task,
    sender: String,
}

/// A line that was logged through the `log` or the `tracing` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: log::Level,
    /// The module that logged, or the target that it named.
    pub target: String,
    pub message: String,
}

/// A message that the plugin sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub to: String,
    pub message_type: String,
    pub payload: Vec<u8>,
}

impl MockHost {
    /// A host without configuration, for tasks without metadata in their first of 5 attempts, with
    /// a timeout of 60 s. Panics if a node would refuse the plugin.
    pub fn new(plugin: Plugin) -> Self {
        if let Err(faults) = plugin.check() {
            panic!("the node would refuse this plugin:\n{faults}");
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

    /// Sets what [`config::get`](crate::config::get) answers for `key`.
    pub fn config(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node
            .config
            .borrow_mut()
            .insert(key.into(), value.into());
        self
    }

    /// Sets the id of the tasks; it is `mock-task` otherwise.
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

    /// Runs tasks as attempt number `attempt`, from 1, of `max`.
    pub fn attempt(mut self, attempt: u32, max: u32) -> Self {
        self.task.attempt = attempt;
        self.task.max_attempts = max;
        self
    }

    /// Sets what a handler reads as its timeout. Nothing interrupts it here.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.task.timeout = timeout;
        self
    }

    /// Runs one task, from the bytes of its payload to the bytes of its result.
    pub fn run(&self, task_type: &str, payload: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let task = Task {
            task_type: task_type.to_owned(),
            ..self.task.clone()
        };
        self.node
            .inside(|| self.node.plugin.run(payload.into(), &task))
    }

    /// What the runs so far have logged, in order.
    pub fn logs(&self) -> Vec<LogLine> {
        self.node.logs.borrow().clone()
    }
}

#[cfg(test)]
mod component_tests;
#[cfg(test)]
mod tests;
