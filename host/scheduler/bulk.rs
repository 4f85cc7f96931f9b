//! Submits and reads many tasks with few calls of the queue.

use super::{accepted::Accepted, error::Error, routing::Routing};
use crate::{
    queue::{self, LimitTable, StatusRead, TaskQueue},
    task::{Submission, TaskId},
};
use futures_util::future::join_all;

/// How many tasks of a call are refused at most for their route. Each refusal can name many task types.
const MAX_REFUSED: usize = 16;

/// Stores tasks, and answers the first of them in their order: all, unless too many are refused.
pub(super) async fn submit(
    queue: &dyn TaskQueue,
    routing: &Routing,
    limits: &LimitTable,
    tasks: Vec<Submission>,
) -> Vec<Result<Accepted, Error>> {
    // `None` for each task that the queue answers.
    let mut answers = Vec::with_capacity(tasks.len());
    let mut admitted: Vec<Submission> = Vec::with_capacity(tasks.len());
    let mut refused = 0;
    for task in tasks {
        // Mostly the tasks of a call have one route.
        let is_known = admitted
            .last()
            .is_some_and(|last| last.route() == task.route());
        if !is_known && let Err(error) = routing.admit(task.route()) {
            let answer = Accepted::if_existing(queue, &task, error).await;
            answers.push(Some(answer));
            refused += 1;
            if refused == MAX_REFUSED {
                break;
            }
            continue;
        }
        answers.push(None);
        let pending_limits = limits.pending_limits(&task);
        admitted.push(task.limited(pending_limits));
    }
    let mut stored = store(queue, admitted).await.into_iter();
    let answers = answers.into_iter();
    answers
        .filter_map(|answer| answer.or_else(|| stored.next()))
        .collect()
}

async fn store(queue: &dyn TaskQueue, tasks: Vec<Submission>) -> Vec<Result<Accepted, Error>> {
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id().clone()).collect();
    let submitted = queue.submit(tasks).await;
    let ids = ids.into_iter();
    match submitted {
        Ok(submitted) => {
            let mut submitted = submitted.into_iter();
            ids.map(|id| Accepted::of_answer(id, submitted.next()))
                .collect()
        }
        Err(error) => ids
            .map(|id| Err(Error::of_submission(&id, error.clone())))
            .collect(),
    }
}

/// Reads tasks without their payloads, and results of up to `max_result_bytes`.
pub(super) async fn read(
    queue: &dyn TaskQueue,
    ids: &[TaskId],
    max_result_bytes: usize,
) -> Vec<Result<StatusRead, Error>> {
    join_all(ids.iter().map(|id| read_one(queue, id, max_result_bytes))).await
}

async fn read_one(
    queue: &dyn TaskQueue,
    id: &TaskId,
    max_result_bytes: usize,
) -> Result<StatusRead, Error> {
    let read = queue.get_status(id, max_result_bytes).await;
    let read = read.map_err(queue::Error::as_read_error)?;
    read.ok_or_else(|| Error::UnknownTask(id.clone()))
}
