//! The calls that act on many tasks, and on task types as a whole.

use super::DistributedClient;
use crate::proto::hostel::v1::{
    ActOnTasksProgress, ActOnTasksRequest, CancelTaskRequest, ListPausedTypesRequest,
    PauseTypeRequest, PausedType, ResumeTypeRequest,
};
use tonic::{Status, Streaming};

impl DistributedClient {
    /// Cancels a task as `cancel_task` does, with a reason, which becomes the error of the cancelled task.
    pub async fn cancel_task_with_reason(
        &mut self,
        task_id: &str,
        reason: &str,
    ) -> Result<String, Status> {
        let request = CancelTaskRequest {
            task_id: task_id.into(),
            reason: reason.into(),
        };
        let response = self
            .retry(request, |mut client, request| async move {
                client.tasks.cancel(request).await
            })
            .await?;
        Ok(response.outcome)
    }

    /// Does the same to many tasks, and returns how far it has come after each step. Read it to the end: a
    /// stream that is dropped stops it. Not retried: what was done before the connection was lost is done.
    pub async fn act_on_tasks(
        &mut self,
        request: ActOnTasksRequest,
    ) -> Result<Streaming<ActOnTasksProgress>, Status> {
        Ok(self.tasks.act_on_tasks(request).await?.into_inner())
    }

    /// Pauses a task type on all nodes that share the queue, or changes the reason of its pause.
    pub async fn pause_type(
        &mut self,
        task_type: &str,
        reason: &str,
    ) -> Result<PausedType, Status> {
        let request = PauseTypeRequest {
            task_type: task_type.into(),
            reason: reason.into(),
        };
        let response = self
            .retry(request, |mut client, request| async move {
                client.types.pause_type(request).await
            })
            .await?;
        Ok(response.paused.unwrap_or_default())
    }

    /// Ends the pause of a task type, and returns whether it was paused.
    pub async fn resume_type(&mut self, task_type: &str) -> Result<bool, Status> {
        let request = ResumeTypeRequest {
            task_type: task_type.into(),
        };
        let response = self
            .retry(request, |mut client, request| async move {
                client.types.resume_type(request).await
            })
            .await?;
        Ok(response.was_paused)
    }

    /// Lists the paused task types.
    pub async fn list_paused_types(&mut self) -> Result<Vec<PausedType>, Status> {
        let request = ListPausedTypesRequest {};
        let response = self
            .retry(request, |mut client, request| async move {
                client.types.list_paused_types(request).await
            })
            .await?;
        Ok(response.paused)
    }
}
