//! The calls that read one task, or follow the changes of tasks.

use super::{DistributedClient, watch_tasks::WatchTasks};
use crate::proto::hostel::v1::{
    ExplainTaskRequest, ExplainTaskResponse, GetTaskRequest, GetTaskResponse, WatchTasksRequest,
};
use tonic::Status;

impl DistributedClient {
    /// Returns a task with its submission and its attempts; with its payload and its result if the request says
    /// so.
    pub async fn get_task(&mut self, request: GetTaskRequest) -> Result<GetTaskResponse, Status> {
        self.retry(request, |mut client, request| async move {
            client.tasks.get_task(request).await
        })
        .await
    }

    /// Returns what a task waits for, as the node that answers sees it.
    pub async fn explain_task(&mut self, task_id: &str) -> Result<ExplainTaskResponse, Status> {
        let request = ExplainTaskRequest {
            task_id: task_id.into(),
        };
        self.retry(request, |mut client, request| async move {
            client.tasks.explain_task(request).await
        })
        .await
    }

    /// Follows the changes of tasks from now on, or from the cursor of the request on. If the connection is
    /// lost, they are followed from the latest change on that [`WatchTasks::next`] has returned.
    pub fn watch_tasks(&mut self, request: WatchTasksRequest) -> WatchTasks {
        WatchTasks::new(self.tasks.clone(), self.retry_timeout, request)
    }
}
