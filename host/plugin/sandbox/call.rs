//! One task in a guest: a fresh instance, the call of its handler, and the outcome. Knows nothing of
//! files, names or the catalog.

use super::{
    admission::{GuestKind, Permit},
    bindings::task_handler::{self, TaskError},
    call_error::{CallError, FailureClass, MAX_ERROR_BYTES},
    guest_log::Subject,
    linked_plugin::{CallContext, LinkedPlugin},
    observer::AttemptObserver,
    store_state::StoreState,
};
use bytes::Bytes;
use hostel_runtime::untrusted::clip;
use hostel_task::{AttemptResult, AttemptUsage, MAX_RETRY_DELAY, Name, TaskId};
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
    /// The task's id.
    pub id: TaskId,
    /// The payload.
    pub payload: Bytes,
    /// The metadata of the submission.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// Counted from 1.
    pub attempt: u32,
    /// The number of attempts of the task, if not that of its type.
    pub max_attempts: Option<u32>,
    /// How long the attempt may take, if not as long as the type says.
    pub timeout: Option<Duration>,
    /// Ends the call within some 10 ms, and the grace of its observer.
    pub cancel: CancellationToken,
    /// Serves `hostel:plugin/tasks`; without it, nothing is reported.
    pub observer: Option<Arc<dyn AttemptObserver>>,
}

/// How a call ended and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// How the attempt ended.
    pub ended: AttemptResult,
    /// The class of the failure, if it was one.
    pub class: Option<FailureClass>,
    /// What the guest used.
    pub usage: Usage,
}

impl CallOutcome {
    /// The outcome of a call during which the node itself failed; the log says where.
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

    /// The outcome of a call that was not admitted.
    fn not_admitted(error: CallError) -> Self {
        Self {
            class: error.class(),
            ended: error.into_ended(),
            usage: Usage::default(),
        }
    }

    /// The outcome of a call that has not run, or was given up together with the node.
    pub(crate) fn without_run(ended: AttemptResult) -> Self {
        Self {
            ended,
            class: None,
            usage: Usage::default(),
        }
    }
}

/// What a call used of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// The largest sum of all linear memories.
    pub peak_memory_bytes: usize,
    /// What the guest logged, in bytes, up to `max_log_bytes`.
    pub log_bytes: usize,
    /// Whether the guest logged more than `max_log_bytes`; the rest was dropped.
    pub log_cut_off: bool,
}

impl From<Usage> for AttemptUsage {
    fn from(usage: Usage) -> Self {
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        Self {
            cpu_us: u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
            peak_memory_bytes: bytes(usage.peak_memory_bytes),
            log_bytes: bytes(usage.log_bytes),
        }
    }
}

impl LinkedPlugin {
    /// Runs a task through `handler`, for at most `timeout`. Without a `permit` it waits for one, and
    /// the wait is part of that time.
    pub async fn handle(
        &self,
        handler: &task_handler::GuestIndices,
        task_type: &Name,
        max_attempts: u32,
        timeout: Duration,
        call: Call,
        permit: Option<Permit>,
    ) -> CallOutcome {
        let since = Instant::now();
        let admitted = self.admit(GuestKind::Task, permit, timeout, &call.cancel);
        let mut admitted = match admitted.await {
            Ok(admitted) => admitted,
            Err(error) => return CallOutcome::not_admitted(error),
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
        let work = async |store: &mut Store<StoreState>| {
            let instance = self.pre.instantiate_async(&mut *store).await?;
            let guest = handler.load(&mut *store, &instance)?;
            guest.call_handle(&mut *store, task).await
        };
        let context = CallContext {
            subject: Subject::Task(call.id.clone()),
            timeout,
            since,
            cancel: &call.cancel,
            observer: call.observer.as_ref(),
        };
        let result = self.call(&mut admitted, context, work).await;
        let state = admitted.store.data();
        let usage = Usage {
            cpu: admitted.cpu(),
            peak_memory_bytes: state.limiter.peak_memory_bytes(),
            log_bytes: state.log.bytes(),
            log_cut_off: state.log.is_cut_off(),
        };
        let max_result_bytes = self.sandbox.max_result_bytes;
        let result = result.and_then(|returned| match returned {
            Ok(result) if result.len() > max_result_bytes => {
                Err(CallError::Result(max_result_bytes))
            }
            other => Ok(other),
        });
        let clip = |error| clip(error, MAX_ERROR_BYTES);
        let (class, ended) = match result {
            Ok(Ok(result)) => (None, AttemptResult::Returned(result.into())),
            Ok(Err(TaskError::Retryable(error))) => {
                let after = error.retry_after_ms.map(retry_delay);
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
            Err(error) => (error.class(), error.into_ended()),
        };
        CallOutcome {
            ended,
            class,
            usage,
        }
    }
}

/// The delay that a guest requests, up to the longest one.
fn retry_delay(requested_ms: u64) -> Duration {
    Duration::from_millis(requested_ms).min(MAX_RETRY_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_delays_its_task_by_a_week_at_most() {
        assert_eq!(retry_delay(1), Duration::from_millis(1));
        assert_eq!(retry_delay(u64::MAX), MAX_RETRY_DELAY);
    }
}
