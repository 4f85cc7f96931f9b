//! A task type: its name, its handler and its defaults. `plugin.rs` checks all task types of a plugin
//! together.

use crate::{Handler, Input, Output, Result, Task};
use std::fmt;
use std::time::Duration;

/// A task type and its defaults. Defaults that are not set are the node's. The operator's
/// configuration overrides both.
pub struct TaskType {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) run: Box<Run>,
}

pub(crate) type Run = dyn Fn(Vec<u8>, &Task) -> Result<Vec<u8>>;

/// Creates a task type whose tasks are run by `handler`. The name has 1 to 128 characters of
/// `A-Z a-z 0-9 . _ : -` and starts with a letter or a digit.
pub fn task<Shape, H>(name: &'static str, handler: H) -> TaskType
where
    H: Handler<Shape, In: Input, Out: Output> + 'static,
{
    TaskType {
        name,
        description: "",
        timeout: None,
        attempts: None,
        backoff: None,
        concurrency: None,
        // A function item has no size, so boxing it allocates nothing.
        run: Box::new(move |payload, task| {
            let payload = H::In::decode(payload)?;
            handler.call(payload, task).encode()
        }),
    }
}

impl TaskType {
    /// Sets the description, one line of text.
    pub fn description(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    /// Sets the timeout of one attempt in wall-clock time; at least a millisecond.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Sets the number of attempts of a task, including the first; at least one.
    pub fn attempts(self, attempts: u32) -> Self {
        Self {
            attempts: Some(attempts),
            ..self
        }
    }

    /// Sets the longest delay before the second attempt, which doubles for each further attempt, and its
    /// upper bound; at most 7 days. The delay itself is random, from nothing to the longest.
    pub fn backoff(self, initial: Duration, max: Duration) -> Self {
        Self {
            backoff: Some((initial, max)),
            ..self
        }
    }

    /// Sets the number of tasks of this type that one node runs at the same time; at least one.
    pub fn concurrency(self, concurrency: u32) -> Self {
        Self {
            concurrency: Some(concurrency),
            ..self
        }
    }
}

impl fmt::Debug for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskType")
            .field("name", &self.name)
            .field("description", &self.description)
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
