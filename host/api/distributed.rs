//! The seed's service: its six calls. The stream has a file of its own.

use super::{
    convert, in_flight,
    status::{self, IntoStatus},
    stream,
};
use crate::{
    broker,
    budget::Budget,
    component::{Router, Taken, Unanswered, Undelivered},
    config,
    discovery::ServiceDiscovery,
    proto::distributed::{
        DiscoverRequest, DiscoverResponse, Message, MessageResponse, RegisterRequest,
        RegisterResponse, Task, TaskResponse, TaskStatus, TaskStatusRequest,
        distributed_service_server::DistributedService,
    },
    scheduler::{Accepted, Patience, TaskScheduler},
};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What the calls need.
pub struct DistributedServiceImpl {
    pub discovery: Arc<dyn ServiceDiscovery>,
    pub router: Arc<Router>,
    /// Ends streams and waits, which would otherwise outlive the server.
    pub end: CancellationToken,
    pub scheduler: Arc<dyn TaskScheduler>,
    pub limits: config::Limits,
}

impl DistributedServiceImpl {
    /// How a call that asks for `wait_ms` may wait, and what its answer counts in.
    fn wait<T>(&self, wait_ms: u64, request: &mut Request<T>) -> Patience {
        // A result is no larger than the message that it fits into.
        let most = self.limits.max_payload_bytes + self.limits.max_message_bytes;
        Patience {
            time: Duration::from_millis(wait_ms).min(self.limits.max_wait),
            end: self.end.clone(),
            received: in_flight::received(request),
            room: in_flight::share_of(request).map(|share| (share.unsent.clone(), most)),
        }
    }
}

#[tonic::async_trait]
impl DistributedService for DistributedServiceImpl {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let service = convert::service(request.into_inner())?;
        let granted = self.discovery.register_service(service).await;
        let ttl = granted.map_err(IntoStatus::into_status)?;
        Ok(Response::new(RegisterResponse {
            success: true,
            cluster_id: self.discovery.cluster_id().into(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn discover(
        &self,
        request: Request<DiscoverRequest>,
    ) -> Result<Response<DiscoverResponse>, Status> {
        let room = in_flight::room(&request).await;
        let name = convert::name("service name", &request.into_inner().service_name)?;
        let found = self.discovery.discover_service(&name).await;
        let services = found.map_err(IntoStatus::into_status)?;
        let response = DiscoverResponse {
            nodes: services.into_iter().map(convert::node).collect(),
        };
        match self.limits.max_message_bytes {
            max if response.encoded_len() > max => Err(status::too_large(max)),
            _ => Ok(in_flight::built(response, room)),
        }
    }

    async fn send_message(
        &self,
        mut request: Request<Message>,
    ) -> Result<Response<MessageResponse>, Status> {
        let received = in_flight::received(&mut request);
        let share = in_flight::share_of(&request);
        let request = request.into_inner();
        let timeout = Duration::from_millis(request.reply_timeout_ms).min(self.limits.max_wait);
        let message = convert::message(request, self.limits.max_payload_bytes)?;
        if self.router.is_id(&message.from) {
            let from = convert::name("from_node", &message.from)?;
            return Err(Taken(from).into_status());
        }
        let message_id = message.id.clone();
        let response = if timeout.is_zero() {
            sent(self.router.send(message).await)?
        } else {
            answered(self.router.request(message, timeout).await)?
        };
        drop(received);
        let response = MessageResponse {
            message_id,
            ..response
        };
        let Some(share) = share else {
            return Ok(Response::new(response));
        };
        // The reply is here already. Waiting with it would hold what no budget counts.
        match share.unsent.try_reserve(response.encoded_len()) {
            Some(room) => Ok(in_flight::answer(response, Some(Arc::new(room)))),
            None => Err(status::unread()),
        }
    }

    type StreamMessagesStream = stream::Responses;

    async fn stream_messages(
        &self,
        mut request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        let pass = request.extensions_mut().remove();
        let waiting = in_flight::share_of(&request).map(|share| share.waiting.clone());
        // Without a server there is no one to share with.
        let waiting = waiting.unwrap_or_else(|| Budget::new(self.limits.max_unsent_bytes));
        Ok(Response::new(stream::responses(
            request.into_inner(),
            self.router.clone(),
            self.end.clone(),
            pass,
            self.limits.max_payload_bytes,
            self.limits.subscriber_backlog,
            waiting,
        )))
    }

    async fn submit_task(
        &self,
        mut request: Request<Task>,
    ) -> Result<Response<TaskResponse>, Status> {
        let wait_ms = request.get_ref().wait_ms;
        let how = self.wait(wait_ms, &mut request);
        let request = request.into_inner();
        let task = convert::submission(request, &self.limits.submission())?;
        let task_id = task.id().to_string();
        let submitted = match wait_ms {
            0 => self.scheduler.submit_task(task).await.map(|it| (it, None)),
            _ => self.scheduler.submit_and_wait(task, &how).await,
        };
        let (accepted, status) = submitted.map_err(IntoStatus::into_status)?;
        let room = status.as_ref().and_then(|status| status.room.clone());
        let response = TaskResponse {
            task_id,
            accepted: true,
            existing: accepted == Accepted::Existing,
            status: status.map(convert::task_status),
            durability: self.scheduler.durability().as_str().into(),
        };
        Ok(in_flight::answer(response, room))
    }

    async fn get_task_status(
        &self,
        mut request: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskStatus>, Status> {
        let id = convert::name("task id", &request.get_ref().task_id)?;
        let wait = self.wait(request.get_ref().wait_ms, &mut request);
        let found = self.scheduler.get_task_status(&id, &wait).await;
        let status = found.map_err(IntoStatus::into_status)?;
        let room = status.room.clone();
        Ok(in_flight::answer(convert::task_status(status), room))
    }
}

/// What the sender of a message is told.
fn sent(sent: Result<usize, Undelivered>) -> Result<MessageResponse, Status> {
    let receivers = match sent {
        Ok(receivers) => receivers,
        Err(error) => return unsent(error),
    };
    Ok(MessageResponse {
        success: true,
        message: match receivers {
            1 => "handed to 1 receiver".into(),
            n => format!("handed to {n} receivers"),
        },
        receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
        ..MessageResponse::default()
    })
}

/// What the maker of a request is told.
fn answered(answer: Result<broker::Message, Unanswered>) -> Result<MessageResponse, Status> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unanswered::Undelivered(error)) => return unsent(error),
        Err(error @ Unanswered::Timeout { .. }) => {
            return Ok(MessageResponse {
                message: error.to_string(),
                receivers: 1,
                ..MessageResponse::default()
            });
        }
    };
    Ok(MessageResponse {
        success: answer.error.is_empty(),
        message: match answer.error.is_empty() {
            true => format!("answered by {}", answer.from),
            false => answer.error.clone(),
        },
        receivers: 1,
        reply: Some(convert::delivered(answer)),
        ..MessageResponse::default()
    })
}

fn unsent(error: Undelivered) -> Result<MessageResponse, Status> {
    Ok(MessageResponse {
        message: stream::why(error)?,
        ..MessageResponse::default()
    })
}
