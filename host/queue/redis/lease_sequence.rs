//! The lease calls of this queue to one shard: their numbers, their size, and the task types registered
//! there.

use crate::{BatchSize, LeaseRequest, RequestedTypes};
use hostel_task::Name;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// The lease calls to a shard, one after another.
#[derive(Default)]
pub(super) struct LeaseSequence(Mutex<LeaseCall>);

/// The last lease call.
#[derive(Default)]
pub(super) struct LeaseCall {
    /// A call keeps its number until its answer has come. A repeated call is answered with the same
    /// tasks.
    pub number: u64,
    /// Whether the answer of the last call was lost.
    pub unanswered: bool,
    pub types: RegisteredTypes,
    /// The bytes of the next answer.
    pub batch_size: BatchSize,
    /// The average bytes of a record in the last answer.
    record_bytes: usize,
}

/// The most records that a script reads at once, and how many bytes they may be expected to have.
const READ_AT_ONCE: usize = 16;
const READ_BYTES: usize = 1 << 20;

impl LeaseCall {
    /// Returns how many records the next script reads at once. It reads them before it knows their size, and
    /// those beyond the bytes of the answer in vain.
    pub fn read_at_once(&self) -> usize {
        (READ_BYTES / self.record_bytes.max(1)).clamp(1, READ_AT_ONCE)
    }

    /// Records an answer with so many tasks and bytes.
    pub fn record_answer(&mut self, tasks: usize, bytes: usize) {
        if let Some(average) = bytes.checked_div(tasks) {
            self.record_bytes = average;
        }
    }
}

impl LeaseSequence {
    /// Waits until the previous call has ended.
    pub async fn next(&self) -> MutexGuard<'_, LeaseCall> {
        self.0.lock().await
    }
}

/// The task types of this node that a shard knows, and the number under which it knows them.
#[derive(Default)]
pub(super) struct RegisteredTypes {
    number: u64,
    content: Option<(Arc<RequestedTypes>, Name, Vec<Name>)>,
}

impl RegisteredTypes {
    /// Returns the number if the shard knows the types of `request`.
    pub fn number_for(&self, request: &LeaseRequest) -> Option<u64> {
        let (types, node, labels) = self.content.as_ref()?;
        let same = Arc::ptr_eq(types, &request.types)
            && *node == request.node
            && *labels == request.labels;
        same.then_some(self.number)
    }

    /// Returns the number for a registration that is about to be sent.
    pub fn next_number(&mut self) -> u64 {
        self.content = None;
        self.number += 1;
        self.number
    }

    /// Records that the shard knows the types of `request` under the last number.
    pub fn set(&mut self, request: &LeaseRequest) {
        self.content = Some((
            request.types.clone(),
            request.node.clone(),
            request.labels.clone(),
        ));
    }

    /// Records that the shard has forgotten the types.
    pub fn forget(&mut self) {
        self.content = None;
    }
}
