//! What a call that reads a task asks for, and what it returns.

use crate::{
    budget::{Budget, Reservation, SharedReservation},
    task::Task,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How a call waits for the end of a task, and which budgets it counts in.
#[derive(Debug, Clone, Default)]
pub struct WaitOptions {
    /// How long to wait.
    pub time: Duration,
    /// Ends the wait early, as if the time were over.
    pub end: CancellationToken,
    /// The memory of the submission. Released once the task is stored, before the wait.
    pub received: SharedReservation,
    /// The budget in which the result is reserved before it is read.
    pub budget: Option<Budget>,
}

/// The status of a task.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// The task, without its payload.
    pub task: Task,
    /// What it waits for; `None` unless it is pending.
    pub waiting_for: Option<String>,
    /// The memory of the result, reserved in the budget of `WaitOptions`; `None` if the result is tiny.
    pub reservation: Option<Arc<Reservation>>,
}

impl TaskStatus {
    /// The status of a task without what it waits for, on no budget's account.
    pub fn of(task: Task) -> Self {
        Self {
            task,
            waiting_for: None,
            reservation: None,
        }
    }
}
