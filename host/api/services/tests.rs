//! What a service does around its call of an engine.

use super::tasks::TaskServiceImpl;
use crate::{
    proto::hostel::v1::{CancelTaskRequest, task_service_server::TaskService},
    queue::{Cancel, Counts, Durability, Filter, Listing, Page},
    scheduler::{Accepted, Error, TaskScheduler, TaskStatus, WaitOptions},
    task::{Submission, TaskId},
};
use async_trait::async_trait;
use std::sync::Arc;
use tonic::{Code, Request};

/// A scheduler that knows no task and takes none.
struct NoTasks;

#[async_trait]
impl TaskScheduler for NoTasks {
    async fn submit_task(&self, _: Submission) -> Result<Accepted, Error> {
        Err(Error::Full)
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    async fn submit_and_wait(
        &self,
        _: Submission,
        _: &WaitOptions,
    ) -> Result<(Accepted, Option<TaskStatus>), Error> {
        Err(Error::Full)
    }

    async fn get_task_status(&self, id: &TaskId, _: &WaitOptions) -> Result<TaskStatus, Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn cancel_task(&self, _: &TaskId) -> Result<Cancel, Error> {
        Ok(Cancel::Unknown)
    }

    async fn requeue_task(&self, id: &TaskId) -> Result<(), Error> {
        Err(Error::UnknownTask(id.clone()))
    }

    async fn list_tasks(&self, _: &Filter, _: &Page) -> Result<Listing, Error> {
        Ok(Listing::default())
    }

    async fn count_tasks(&self) -> Result<Counts, Error> {
        Ok(Counts::new())
    }
}

#[tokio::test]
async fn cancelling_an_unknown_task_is_not_found() {
    let service = TaskServiceImpl {
        scheduler: Arc::new(NoTasks),
        max_message_bytes: 1 << 20,
    };
    let task_id = "gone".into();
    let request = Request::new(CancelTaskRequest { task_id });
    let status = service.cancel(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}
