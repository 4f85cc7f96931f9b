//! Logs failed attempts at a bounded rate for each task type.

use crate::{
    log_limit::LogLimit,
    plugin::{FailureClass, Handler},
    task::{Name, Outcome, TaskId},
    untrusted::{Untrusted, clip},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How many failures of one type are logged in each interval.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(60);
/// The record of the task keeps more of the error.
const MAX_ERROR_BYTES: usize = 1 << 10;
/// With more types than this, all limits start again.
const MAX_TYPES: usize = 4096;

/// The log limit of each task type.
#[derive(Default)]
pub struct FailureLog {
    limits: Mutex<HashMap<Name, Arc<LogLimit>>>,
}

impl FailureLog {
    /// Logs that an attempt failed, of so many, and the outcome for its task.
    pub fn report(
        &self,
        handler: &Handler,
        task: &TaskId,
        (attempt, max_attempts): (u32, u32),
        class: FailureClass,
        outcome: &Outcome,
    ) {
        let (after, error) = match outcome {
            Outcome::Retry { after, error } => (Some(after), error),
            Outcome::Failed { error } => (None, error),
            // The reaper logs lost attempts.
            Outcome::Completed { .. }
            | Outcome::Cancelled
            | Outcome::Released
            | Outcome::Lost { .. } => return,
        };
        let Some(left_out) = self.limit(&handler.task_type.name).permit() else {
            return;
        };
        let what = match after {
            Some(after) => format!("an attempt failed and is retried in {after:.1?}"),
            None => "a task failed".to_owned(),
        };
        let more = match left_out {
            0 => String::new(),
            count => format!(" (and {count} earlier failures of this type were not logged)"),
        };
        let error = clip(error.clone(), MAX_ERROR_BYTES);
        tracing::warn!(
            %task,
            task_type = %handler.task_type.name,
            plugin = %handler.generation.name,
            version = handler.generation.version,
            attempt,
            max_attempts,
            class = class.as_str(),
            "{what}{more}: {}",
            Untrusted::new(error)
        );
    }

    fn limit(&self, task_type: &Name) -> Arc<LogLimit> {
        let mut limits = self.limits.lock();
        if limits.len() >= MAX_TYPES && !limits.contains_key(task_type) {
            limits.clear();
        }
        let limit = limits
            .entry(task_type.clone())
            .or_insert_with(|| Arc::new(LogLimit::new(BURST, INTERVAL)));
        limit.clone()
    }
}
