//! Reads a task with its submission and its attempts within a budget. Payload and result are read only once
//! their sizes are reserved.

use super::error::Error;
use crate::{
    budget::{Budget, Reservation},
    queue::{self, ReadLimits, TaskDetails},
    task::TaskId,
};

/// What a task takes without its payload and its result: metadata, errors and attempts.
const DETAILS_BYTES: usize = 128 << 10;

/// Which parts of a task to read, and how much of them.
#[derive(Debug, Clone, Copy)]
pub struct DetailsRequest {
    /// Whether to read the payload.
    pub payload: bool,
    /// Whether to read the result.
    pub result: bool,
    /// The most bytes of both together.
    pub max_bytes: usize,
}

/// A task with its submission and its attempts.
#[derive(Debug)]
pub struct TaskRead {
    /// The task, with its payload and its result as far as they were requested.
    pub details: TaskDetails,
    /// What it waits for; `None` unless it is pending.
    pub waiting_for: Option<String>,
    /// The memory of all that.
    pub reservation: Reservation,
}

/// Calls `read` with what it may return, until what was requested fits.
pub(super) async fn read_details<F>(
    budget: &Budget,
    id: &TaskId,
    request: DetailsRequest,
    read: impl Fn(ReadLimits) -> F,
) -> Result<(TaskDetails, Reservation), Error>
where
    F: Future<Output = Result<Option<TaskDetails>, queue::Error>>,
{
    let mut limits = ReadLimits::default();
    loop {
        let bytes = limits.payload_bytes + limits.result_bytes;
        // The reservation of the read before was given back.
        let reservation = budget.reserve(DETAILS_BYTES + bytes).await;
        let details = read(limits).await.map_err(queue::Error::as_read_error)?;
        let details = details.ok_or_else(|| Error::UnknownTask(id.clone()))?;
        let needed = ReadLimits {
            payload_bytes: details.payload_bytes * usize::from(request.payload),
            result_bytes: details.result_bytes * usize::from(request.result),
        };
        let has_payload = needed.payload_bytes <= limits.payload_bytes;
        if has_payload && needed.result_bytes <= limits.result_bytes {
            return Ok((details, reservation));
        }
        let bytes = needed.payload_bytes.saturating_add(needed.result_bytes);
        if bytes > request.max_bytes {
            return Err(Error::TooLarge {
                id: id.clone(),
                bytes,
                max_bytes: request.max_bytes,
            });
        }
        limits = needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{State, Target, Task, UnixMs};
    use bytes::Bytes;
    use std::{cell::RefCell, future::ready};

    const PAYLOAD: usize = 3000;
    const RESULT: usize = 5000;

    fn id() -> TaskId {
        TaskId::parse("id", "a").unwrap()
    }

    /// What a queue answers for a task with a payload and a result of these sizes.
    fn answer(limits: ReadLimits) -> Result<Option<TaskDetails>, queue::Error> {
        let part = |size: usize, max: usize| -> Bytes {
            vec![0; if size <= max { size } else { 0 }].into()
        };
        Ok(Some(TaskDetails {
            task: Task {
                id: id(),
                task_type: id(),
                target: Target::Any,
                payload: part(PAYLOAD, limits.payload_bytes),
                metadata: Default::default(),
                options: None,
                submitted_at: UnixMs(0),
                state: State::Completed {
                    result: part(RESULT, limits.result_bytes),
                    started_at: UnixMs(0),
                    finished_at: UnixMs(0),
                },
                attempt: 1,
                error: None,
                error_class: None,
                executed_by: None,
                progress: None,
                losses: 0,
                finishes: 1,
            },
            payload_bytes: PAYLOAD,
            result_bytes: RESULT,
            attempts: Default::default(),
        }))
    }

    async fn read(request: DetailsRequest) -> (Result<usize, Error>, Vec<ReadLimits>) {
        let (budget, id, reads) = (Budget::new(1 << 20), id(), RefCell::new(Vec::new()));
        let found = read_details(&budget, &id, request, |limits| {
            reads.borrow_mut().push(limits);
            ready(answer(limits))
        });
        let bytes = found.await.map(|(details, _)| details.task.bytes());
        (bytes, reads.into_inner())
    }

    #[tokio::test]
    async fn only_what_is_requested_is_read_and_only_if_it_fits() {
        let request = |payload, result, max_bytes| DetailsRequest {
            payload,
            result,
            max_bytes,
        };
        let (bytes, reads) = read(request(false, false, 0)).await;
        assert_eq!((bytes.unwrap(), reads.len()), (0, 1));
        let (bytes, reads) = read(request(true, false, PAYLOAD)).await;
        assert_eq!((bytes.unwrap(), reads.len()), (PAYLOAD, 2));
        assert_eq!(reads[1].result_bytes, 0);
        let (bytes, _) = read(request(true, true, PAYLOAD + RESULT)).await;
        assert_eq!(bytes.unwrap(), PAYLOAD + RESULT);
        let (refused, reads) = read(request(true, true, PAYLOAD + RESULT - 1)).await;
        let too_large = PAYLOAD + RESULT;
        assert!(matches!(refused, Err(Error::TooLarge { bytes, .. }) if bytes == too_large));
        assert_eq!(reads.len(), 1);
    }
}
