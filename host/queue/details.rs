//! `TaskDetails`: everything that a backend has of one task, with its payload and its result as far as the
//! memory reserved for them allows; and where a pending task waits.

use hostel_task::{AttemptHistory, Task};

/// The largest payload and result that a read returns; 0 returns none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadLimits {
    /// The largest payload in bytes.
    pub payload_bytes: usize,
    /// The largest result in bytes.
    pub result_bytes: usize,
}

/// A task and its attempts, as they were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDetails {
    /// The task with its metadata. A payload or a result that is larger than requested is empty.
    pub task: Task,
    /// The size of the payload.
    pub payload_bytes: usize,
    /// The size of the result; 0 without one.
    pub result_bytes: usize,
    /// The attempts that have ended.
    pub attempts: AttemptHistory,
}

/// Where a pending task waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// How many tasks of its route, its priority and its group come before it. Of a suspect, how many
    /// suspects.
    pub ahead: usize,
    /// Whether there are more of them than were counted.
    pub is_more: bool,
    /// Its first attempt had to begin before now.
    pub is_expired: bool,
}
