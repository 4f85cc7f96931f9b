//! A task type: its name, its handler and its defaults. The rules for it are in `plugin.rs`, which
//! sees all of a plugin's types at once.

use crate::{Handler, Input, Output, Result, Task};
use std::fmt;
use std::time::Duration;

/// A task type and its defaults. Where a default is not set the node's is taken, and the operator's
/// configuration has the last word.
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

/// Tasks submitted as `name` are run by `handler`. The name is 1 to 128 of `A-Z a-z 0-9 . _ : -`
/// and begins with a letter or a digit.
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
        // A plain function has no size, so the box of it allocates nothing.
        run: Box::new(move |payload, task| {
            let payload = H::In::decode(payload)?;
            handler.call(payload, task).encode()
        }),
    }
}

impl TaskType {
    /// One line for those who choose what to submit.
    pub fn description(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    /// How long one attempt may take by the clock on the wall; at least a millisecond.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// How many attempts a task gets, the first included; at least one.
    pub fn attempts(self, attempts: u32) -> Self {
        Self {
            attempts: Some(attempts),
            ..self
        }
    }

    /// The delay before the second attempt, which doubles with each further one, and what it never
    /// exceeds.
    pub fn backoff(self, initial: Duration, max: Duration) -> Self {
        Self {
            backoff: Some((initial, max)),
            ..self
        }
    }

    /// How many tasks of this type one node runs at once; at least one.
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
