//! One task in a guest: a fresh instance, the handler's call, and how it ended. Knows nothing of
//! files, names or the catalog.

use super::{
    bindings::task_handler::{self, TaskError},
    gate::{Kind, Room},
    guest::Guest,
    journal::Subject,
    program::{Errand, Program},
    stop::{FailureClass, MAX_ERROR_BYTES, Stop},
};
use bytes::Bytes;
use hostel_runtime::untrusted::clip;
use hostel_task::{AttemptResult, Name, TaskId};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wasmtime::Store;

/// A task for a handler.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: TaskId,
    pub payload: Bytes,
    pub metadata: Arc<BTreeMap<String, String>>,
    /// 1 for the first.
    pub attempt: u32,
    /// Ends the call within some 10 ms.
    pub cancel: CancellationToken,
}

/// How a call ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub ended: AttemptResult,
    /// The kind of failure, where it was one.
    pub class: Option<FailureClass>,
    pub usage: Usage,
}

impl Finished {
    /// The node itself failed while it ran the task; the log says where.
    pub fn node_failed() -> Self {
        Self {
            ended: AttemptResult::Retryable {
                error: "the node failed while it ran the task".into(),
                after: None,
            },
            class: Some(FailureClass::Node),
            usage: Usage::default(),
        }
    }

    /// It has not begun.
    fn stopped(stop: Stop) -> Self {
        Self {
            class: stop.class(),
            ended: stop.into_ended(),
            usage: Usage::default(),
        }
    }

    /// It has not run, or was given up with the node.
    pub(super) fn without_run(ended: AttemptResult) -> Self {
        Self {
            ended,
            class: None,
            usage: Usage::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor.
    pub cpu: Duration,
    /// The most that all linear memories had together.
    pub peak_memory_bytes: usize,
    /// Whether the guest said more than `max_log_bytes`; the rest was dropped.
    pub log_cut_off: bool,
}

impl Program {
    /// Runs a task through `handler`, for at most `timeout`. Without room that was reserved for it, it
    /// waits for some, and the wait is part of that time.
    pub async fn handle(
        &self,
        handler: &task_handler::GuestIndices,
        task_type: &Name,
        max_attempts: u32,
        timeout: Duration,
        call: Call,
        room: Option<Room>,
    ) -> Finished {
        let begun = Instant::now();
        let tenant = match room {
            Some(room) => Ok(self.settle(room)),
            None => self.admit(Kind::Task, timeout, &call.cancel).await,
        };
        let mut tenant = match tenant {
            Ok(tenant) => tenant,
            Err(stop) => return Finished::stopped(stop),
        };
        let metadata: Vec<(&str, &str)> = call
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let task = task_handler::Task {
            id: call.id.as_str(),
            task_type: task_type.as_str(),
            payload: &call.payload,
            metadata: &metadata,
            attempt: call.attempt,
            max_attempts,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let work = async |store: &mut Store<Guest>| {
            let instance = self.pre.instantiate_async(&mut *store).await?;
            let guest = handler.load(&mut *store, &instance)?;
            guest.call_handle(&mut *store, task).await
        };
        let errand = Errand {
            subject: Subject::Task(call.id.clone()),
            timeout,
            since: begun,
            cancel: &call.cancel,
        };
        let result = self.call(&mut tenant, errand, work).await;
        let guest = tenant.store.data();
        let usage = Usage {
            cpu: tenant.cpu(),
            peak_memory_bytes: guest.limiter.peak_memory_bytes(),
            log_cut_off: guest.journal.is_cut_off(),
        };
        let max_result_bytes = self.sandbox.max_result_bytes;
        let result = result.and_then(|returned| match returned {
            Ok(result) if result.len() > max_result_bytes => Err(Stop::Result(max_result_bytes)),
            other => Ok(other),
        });
        let clip = |error| clip(error, MAX_ERROR_BYTES);
        let (class, ended) = match result {
            Ok(Ok(result)) => (None, AttemptResult::Returned(result.into())),
            Ok(Err(TaskError::Retryable(error))) => {
                let after = error.retry_after_ms.map(Duration::from_millis);
                let error = clip(error.message);
                let class = FailureClass::Retryable;
                (Some(class), AttemptResult::Retryable { error, after })
            }
            Ok(Err(TaskError::Permanent(error))) => {
                let error = clip(error);
                (
                    Some(FailureClass::Permanent),
                    AttemptResult::Permanent { error },
                )
            }
            Err(stop) => (stop.class(), stop.into_ended()),
        };
        Finished {
            ended,
            class,
            usage,
        }
    }
}
