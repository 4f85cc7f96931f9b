//! Lists, counts, cancels and requeues tasks, for operators.

use super::super::{convert, status::IntoStatus, transport::in_flight};
use crate::{
    proto::hostel::v1::{
        CancelTaskRequest, CancelTaskResponse, CountTasksRequest, CountTasksResponse,
        ListTasksRequest, ListTasksResponse, RequeueTaskRequest, RequeueTaskResponse, TaskCount,
        task_service_server::TaskService,
    },
    queue::{Cancel, Filter, Page},
    scheduler::{Error, TaskScheduler},
};
use prost::Message;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The size of a page if the request does not set one.
const DEFAULT_PAGE_SIZE: u32 = 100;
const MAX_PAGE_SIZE: u32 = 1000;

pub struct TaskServiceImpl {
    pub scheduler: Arc<dyn TaskScheduler>,
    pub max_message_bytes: usize,
}

#[tonic::async_trait]
impl TaskService for TaskServiceImpl {
    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let request = request.into_inner();
        let filter = Filter {
            state: convert::state(&request.status)?,
            task_type: convert::optional_name("task type", &request.task_type)?,
            group: convert::optional_name("group", &request.group)?,
            tag: convert::optional_name("tag", &request.tag)?,
        };
        let size = match request.page_size {
            0 => DEFAULT_PAGE_SIZE,
            given => given.min(MAX_PAGE_SIZE),
        };
        let mut page = Page {
            size: size as usize,
            after: Some(request.page_token).filter(|token| !token.is_empty()),
        };
        loop {
            let listed = self.scheduler.list_tasks(&filter, &page).await;
            let response = convert::listing(listed.map_err(IntoStatus::into_status)?);
            // Task errors can be long, and the page has to fit into one message.
            if response.encoded_len() <= self.max_message_bytes || page.size <= 1 {
                return Ok(in_flight::fit_response(response, reserved));
            }
            page.size /= 2;
        }
    }

    async fn cancel(
        &self,
        request: Request<CancelTaskRequest>,
    ) -> Result<Response<CancelTaskResponse>, Status> {
        let id = convert::name("task id", &request.into_inner().task_id)?;
        let cancelled = self.scheduler.cancel_task(&id).await;
        let outcome = match cancelled.map_err(IntoStatus::into_status)? {
            Cancel::Requested => "asked".into(),
            Cancel::Cancelled => "cancelled".into(),
            Cancel::Unknown => return Err(Error::UnknownTask(id).into_status()),
            Cancel::Ended(state) => state.to_string(),
        };
        Ok(Response::new(CancelTaskResponse { outcome }))
    }

    async fn requeue(
        &self,
        request: Request<RequeueTaskRequest>,
    ) -> Result<Response<RequeueTaskResponse>, Status> {
        let id = convert::name("task id", &request.into_inner().task_id)?;
        let requeued = self.scheduler.requeue_task(&id).await;
        requeued.map_err(IntoStatus::into_status)?;
        Ok(Response::new(RequeueTaskResponse {}))
    }

    async fn count(
        &self,
        _: Request<CountTasksRequest>,
    ) -> Result<Response<CountTasksResponse>, Status> {
        let counted = self.scheduler.count_tasks().await;
        let counts = counted.map_err(IntoStatus::into_status)?.into_iter();
        Ok(Response::new(CountTasksResponse {
            counts: counts
                .map(|((task_type, state), count)| TaskCount {
                    task_type: task_type.to_string(),
                    status: state.to_string(),
                    count,
                })
                .collect(),
        }))
    }
}
