//! What the limits of a task type, or of one of its groups, count now: for those who ask why a task waits.

use hostel_task::{Name, Rate};
use std::time::Duration;

/// A task type or one of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageScope {
    /// The type.
    pub task_type: Name,
    /// One of its groups; `None` for the type itself.
    pub group: Option<Name>,
    /// The node whose tasks are counted besides.
    pub node: Name,
    /// Its rate, if it has one.
    pub rate: Option<Rate>,
}

/// How much of its limits a task type or a group uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many of its tasks run on all nodes.
    pub running: usize,
    /// How many of them run on the node; `None` if the backend does not count that.
    pub on_node: Option<usize>,
    /// How long until its rate allows the next task: zero if it allows one now, or if there is no rate.
    pub wait: Duration,
}
