//! A cache of tasks that were submitted recently and never leased, so that the first lease does not
//! read back what was just written (a third of its work). Bounded; a task that is not in it is read
//! from the database.

use super::encoding::Metadata;
use bytes::Bytes;
use hostel_task::{Submission, TaskId, TaskOptions, UnixMs};
use std::{collections::HashMap, sync::Arc};

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
    pub options: Option<Arc<TaskOptions>>,
    pub submitted_at: UnixMs,
    /// The size of the submission.
    bytes: usize,
}

impl SubmitCache {
    /// Adds a task, unless the cache is full.
    pub fn insert(&mut self, seq: i64, task: &Submission, submitted_at: UnixMs) {
        let bytes = task.bytes();
        if self.tasks.len() < MAX_TASKS && self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            let task = CachedTask {
                id: task.id().clone(),
                payload: task.payload().clone(),
                metadata: task.metadata().clone(),
                options: task.options().cloned(),
                submitted_at,
                bytes,
            };
            self.tasks.insert(seq, task);
        }
    }

    /// Removes a task. Has to be called for every task that is leased, cancelled or expired.
    pub fn remove(&mut self, seq: i64) -> Option<CachedTask> {
        let task = self.tasks.remove(&seq)?;
        self.bytes -= task.bytes;
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_task::SubmissionLimits;
    use std::collections::BTreeMap;

    #[test]
    fn metadata_counts_in_the_size_of_the_cache() {
        let limits = SubmissionLimits {
            payload_bytes: 0,
            metadata_entries: 1,
            metadata_bytes: MAX_BYTES,
        };
        let task = |bytes| {
            let metadata = BTreeMap::from([("k".to_owned(), "v".repeat(bytes))]);
            Submission::new("a", "echo", Bytes::new(), metadata, &limits).unwrap()
        };
        let mut cache = SubmitCache::default();
        let large = task(MAX_BYTES / 2);
        for seq in 0..3 {
            cache.insert(seq, &large, UnixMs(0));
        }
        // The second one does not fit beside the first, with what each takes besides.
        assert_eq!((cache.tasks.len(), cache.bytes), (1, large.bytes()));
        assert!(cache.remove(0).is_some());
        assert_eq!(cache.bytes, 0);
    }
}
