//! Lists, reads, explains, counts, cancels and requeues tasks, for operators. `submit_many` has the stream that
//! submits tasks, `act_on_tasks` the one that does the same to many, and `watch_tasks` the one of their changes.

use super::{
    super::{
        convert::{self, TaskLimits},
        read_convert,
        status::{self, IntoStatus},
        transport::in_flight,
    },
    act_on_tasks::{self, STEPS},
    submit_many::{self, Budgets, Setup, TRACKED_BUDGET_BYTES},
    watch_tasks::{self, STREAM_BYTES},
};
use crate::{
    budget::Budget,
    config,
    proto::hostel::v1::{
        ActOnTasksRequest, CancelTaskRequest, CancelTaskResponse, CountTasksRequest,
        CountTasksResponse, ExplainTaskRequest, ExplainTaskResponse, GetTaskRequest,
        GetTaskResponse, ListTasksRequest, ListTasksResponse, RequeueTaskRequest,
        RequeueTaskResponse, SubmitManyRequest, TaskCount, WatchTasksRequest,
        task_service_server::TaskService,
    },
    queue::{Cancel, Page},
    scheduler::{DetailsRequest, Error, TaskScheduler},
    task::parse_reason,
};
use prost::Message;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The size of a page if the request does not set one.
const DEFAULT_PAGE_SIZE: u32 = 100;
const MAX_PAGE_SIZE: u32 = 1000;

/// The service over the scheduler of a node.
pub struct TaskServiceImpl {
    scheduler: Arc<dyn TaskScheduler>,
    limits: config::Limits,
    task_limits: TaskLimits,
    /// Ends streams, which would otherwise outlive the server.
    end: CancellationToken,
    /// The budget for the tasks that streams track.
    tracked: Budget,
    /// One permit for each step of an action on many tasks.
    steps: Arc<Semaphore>,
}

impl TaskServiceImpl {
    pub fn new(
        scheduler: Arc<dyn TaskScheduler>,
        limits: config::Limits,
        task_limits: TaskLimits,
        end: CancellationToken,
    ) -> Self {
        Self {
            scheduler,
            limits,
            task_limits,
            end,
            tracked: Budget::new(TRACKED_BUDGET_BYTES),
            steps: Arc::new(Semaphore::new(STEPS)),
        }
    }
}

#[tonic::async_trait]
impl TaskService for TaskServiceImpl {
    type SubmitManyStream = submit_many::Responses;
    type ActOnTasksStream = act_on_tasks::Responses;

    async fn submit_many(
        &self,
        mut request: Request<Streaming<SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        let share = in_flight::share_of(&request);
        let share = share.as_ref();
        // There is no share without a server.
        let of = |of_share: Option<&Budget>, bytes| {
            of_share.cloned().unwrap_or_else(|| Budget::new(bytes))
        };
        let setup = Setup {
            scheduler: self.scheduler.clone(),
            limits: self.task_limits.clone(),
            end: self.end.clone(),
            auth: request.extensions_mut().remove(),
            arrived: in_flight::request_memory(&mut request),
            received: of(
                share.map(|share| &share.received),
                self.limits.max_received_bytes,
            ),
            budgets: Budgets {
                tracked: self.tracked.clone(),
                waiting: of(
                    share.map(|share| &share.waiting),
                    self.limits.max_unsent_bytes,
                ),
                max_message_bytes: self.limits.max_message_bytes,
            },
        };
        let responses = submit_many::responses(request.into_inner(), setup);
        Ok(in_flight::stream_response(responses))
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let request = request.into_inner();
        let filter = read_convert::filter(&request)?;
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
            if response.encoded_len() <= self.limits.max_message_bytes || page.size <= 1 {
                return Ok(in_flight::fit_response(response, reserved));
            }
            page.size /= 2;
        }
    }

    async fn get_task(
        &self,
        request: Request<GetTaskRequest>,
    ) -> Result<Response<GetTaskResponse>, Status> {
        let budget = in_flight::share_of(&request).map(|share| share.unsent.clone());
        let request = request.into_inner();
        let id = convert::name("task id", &request.task_id)?;
        let parts = DetailsRequest {
            payload: request.payload,
            result: request.result,
            max_bytes: self.limits.max_message_bytes,
        };
        let read = self.scheduler.get_task(&id, parts, budget).await;
        let (response, reserved) = read_convert::task_read(read.map_err(IntoStatus::into_status)?);
        let max = self.limits.max_message_bytes;
        let bytes = response.encoded_len();
        if bytes > max {
            let too_large = Error::TooLarge {
                id,
                bytes,
                max_bytes: max,
            };
            return Err(too_large.into_status());
        }
        Ok(in_flight::fit_response(response, Some(reserved)))
    }

    type WatchTasksStream = watch_tasks::Responses;

    async fn watch_tasks(
        &self,
        mut request: Request<WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let auth = request.extensions_mut().remove();
        let waiting = in_flight::share_of(&request).map(|share| share.waiting.clone());
        // There is no share without a server.
        let waiting = waiting.unwrap_or_else(|| Budget::new(self.limits.max_unsent_bytes));
        let memory = waiting.try_reserve(STREAM_BYTES);
        let setup = watch_tasks::Setup {
            scheduler: self.scheduler.clone(),
            end: self.end.clone(),
            auth,
            memory: memory.ok_or_else(status::no_room_for_stream)?,
        };
        let responses = watch_tasks::responses(request.into_inner(), setup)?;
        Ok(in_flight::stream_response(responses))
    }

    async fn explain_task(
        &self,
        request: Request<ExplainTaskRequest>,
    ) -> Result<Response<ExplainTaskResponse>, Status> {
        let id = convert::name("task id", &request.into_inner().task_id)?;
        let explained = self.scheduler.explain_task(&id).await;
        let explained = explained.map_err(IntoStatus::into_status)?;
        Ok(Response::new(read_convert::explanation(explained)))
    }

    async fn cancel(
        &self,
        request: Request<CancelTaskRequest>,
    ) -> Result<Response<CancelTaskResponse>, Status> {
        let request = request.into_inner();
        let id = convert::name("task id", &request.task_id)?;
        let reason = parse_reason(&request.reason).map_err(status::invalid)?;
        let cancelled = self.scheduler.cancel_task(&id, reason).await;
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

    async fn act_on_tasks(
        &self,
        mut request: Request<ActOnTasksRequest>,
    ) -> Result<Response<Self::ActOnTasksStream>, Status> {
        let setup = act_on_tasks::Setup {
            scheduler: self.scheduler.clone(),
            end: self.end.clone(),
            auth: request.extensions_mut().remove(),
            memory: in_flight::request_memory(&mut request),
            steps: self.steps.clone(),
        };
        let responses = act_on_tasks::responses(request.into_inner(), setup)?;
        Ok(in_flight::stream_response(responses))
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
