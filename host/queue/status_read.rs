//! `StatusRead`: a task without its payload, as far as the memory reserved for it allows.

use bytes::Bytes;
use hostel_task::{State, Task};

/// The outcome of `TaskQueue::get_status`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is made once and moved on at once; a box would be an allocation for each read"
)]
pub enum StatusRead {
    /// The task, with an empty payload.
    Task(Task),
    /// The result was not read: it is larger than requested, and has this many bytes.
    ResultTooLarge {
        /// The size of the result.
        bytes: usize,
    },
}

impl StatusRead {
    /// The outcome for a task that is in memory.
    pub(super) fn of(mut task: Task, max_result_bytes: usize) -> Self {
        if let State::Completed { result, .. } = &task.state
            && result.len() > max_result_bytes
        {
            return Self::ResultTooLarge {
                bytes: result.len(),
            };
        }
        task.payload = Bytes::new();
        Self::Task(task)
    }
}
