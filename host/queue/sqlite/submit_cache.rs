//! A cache of tasks that were submitted recently and never leased, so that the first lease does not
//! read back what was just written (a third of its work). Bounded; a task that is not in it is read
//! from the database.

use super::encoding::Metadata;
use bytes::Bytes;
use hostel_task::{Submission, TaskId, UnixMs};
use std::collections::HashMap;

/// Few, since a short payload may keep the whole buffer alive that it arrived in.
const MAX_TASKS: usize = 2048;
const MAX_BYTES: usize = 8 << 20;

#[derive(Default)]
pub(super) struct SubmitCache {
    tasks: HashMap<i64, CachedTask>,
    bytes: usize,
}

pub(super) struct CachedTask {
    pub id: TaskId,
    pub payload: Bytes,
    pub metadata: Metadata,
    pub submitted_at: UnixMs,
}

impl SubmitCache {
    /// Adds a task, unless the cache is full.
    pub fn insert(&mut self, seq: i64, task: &Submission, submitted_at: UnixMs) {
        let bytes = self.bytes + task.payload().len();
        if self.tasks.len() < MAX_TASKS && bytes <= MAX_BYTES {
            self.bytes = bytes;
            let task = CachedTask {
                id: task.id().clone(),
                payload: task.payload().clone(),
                metadata: task.metadata().clone(),
                submitted_at,
            };
            self.tasks.insert(seq, task);
        }
    }

    /// Removes a task. Has to be called for every task that is leased or cancelled.
    pub fn remove(&mut self, seq: i64) -> Option<CachedTask> {
        let task = self.tasks.remove(&seq)?;
        self.bytes -= task.payload.len();
        Some(task)
    }
}
