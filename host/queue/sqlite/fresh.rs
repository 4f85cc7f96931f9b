//! Tasks that were submitted a moment ago and never leased, kept so that the first lease need not
//! read back what was just written (a third of its work). Bounded, and no loss when it is empty.

use super::row::Metadata;
use bytes::Bytes;
use hostel_task::{Submission, TaskId, UnixMs};
use std::collections::HashMap;

/// Few, since a short payload may hold on to the whole buffer that it arrived in.
const MAX_TASKS: usize = 2048;
const MAX_BYTES: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Fresh {
    tasks: HashMap<i64, FreshTask>,
    bytes: usize,
}

pub(super) struct FreshTask {
    pub id: TaskId,
    pub payload: Bytes,
    pub metadata: Metadata,
    pub submitted_at: UnixMs,
}

impl Fresh {
    pub fn keep(&mut self, seq: i64, task: &Submission, submitted_at: UnixMs) {
        let bytes = self.bytes + task.payload().len();
        if self.tasks.len() < MAX_TASKS && bytes <= MAX_BYTES {
            self.bytes = bytes;
            let task = FreshTask {
                id: task.id().clone(),
                payload: task.payload().clone(),
                metadata: task.metadata().clone(),
                submitted_at,
            };
            self.tasks.insert(seq, task);
        }
    }

    /// Has to be called for every task that stops waiting.
    pub fn take(&mut self, seq: i64) -> Option<FreshTask> {
        let task = self.tasks.remove(&seq)?;
        self.bytes -= task.payload.len();
        Some(task)
    }
}
