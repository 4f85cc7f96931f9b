//! Waiting for the end of a task, and following it on the way.

use super::DistributedClient;
use crate::proto::distributed::{Task, TaskResponse, TaskStatus};
use std::time::{Duration, Instant};
use tonic::Status;

/// How long one call waits at the node for the end of a task; below the node's own limit.
const WAIT: Duration = Duration::from_secs(30);

/// The least time between two calls for the status of one task.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl DistributedClient {
    /// Submits a task and waits for its end, however long it takes. A task that ends soon takes one call.
    pub async fn submit_and_wait(&mut self, task: Task) -> Result<TaskStatus, Status> {
        let response = self.submit_to_end(task).await?;
        Ok(response.status.unwrap_or_default())
    }

    /// Submits a task, waits for its end, and returns the whole response. Its `status` is set, and has ended.
    pub async fn submit_to_end(&mut self, task: Task) -> Result<TaskResponse, Status> {
        self.submit_and_follow(task, WAIT, |_| {}).await
    }

    /// Submits a task and waits for its end as `submit_to_end` does. Until then, `observe` gets its status
    /// about once in each `interval`, for example to show its `progress`.
    pub async fn submit_and_follow(
        &mut self,
        task: Task,
        interval: Duration,
        mut observe: impl FnMut(&TaskStatus),
    ) -> Result<TaskResponse, Status> {
        let mut response = self.send_task(task, interval.min(WAIT)).await?;
        if !response.status.as_ref().is_some_and(has_ended) {
            // The task takes longer, or the node does not wait.
            if let Some(status) = &response.status {
                observe(status);
            }
            let id = &response.task_id;
            response.status = Some(self.follow_task(id, interval, observe).await?);
        }
        Ok(response)
    }

    /// Waits for the end of a task, however long it takes.
    pub async fn wait_for_task(&mut self, task_id: &str) -> Result<TaskStatus, Status> {
        self.follow_task(task_id, WAIT, |_| {}).await
    }

    /// Waits for the end of a task as `wait_for_task` does. Until then, `observe` gets its status about once in
    /// each `interval`, for example to show its `progress`.
    pub async fn follow_task(
        &mut self,
        task_id: &str,
        interval: Duration,
        mut observe: impl FnMut(&TaskStatus),
    ) -> Result<TaskStatus, Status> {
        loop {
            let called = Instant::now();
            let status = self.task_status(task_id, interval.min(WAIT)).await?;
            if has_ended(&status) {
                return Ok(status);
            }
            observe(&status);
            // The node may allow a shorter wait, or none.
            tokio::time::sleep(POLL_INTERVAL.saturating_sub(called.elapsed())).await;
        }
    }
}

fn has_ended(status: &TaskStatus) -> bool {
    !matches!(status.status.as_str(), "pending" | "running")
}
