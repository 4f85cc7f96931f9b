//! `DistributedService`: services, messages and tasks. `stream` has the conversation of `StreamMessages`.

use super::{
    super::{
        convert,
        status::{self, IntoStatus},
        transport::in_flight,
    },
    stream,
};
use crate::{
    broker,
    budget::Budget,
    component::{DeliveryError, IdTaken, RequestError, Router},
    config,
    discovery::ServiceDiscovery,
    proto::{
        distributed::{
            DiscoverRequest, DiscoverResponse, Message, MessageResponse, RegisterRequest,
            RegisterResponse, Task, TaskResponse, TaskStatus, TaskStatusRequest,
            distributed_service_server::DistributedService,
        },
        millis,
    },
    scheduler::{Accepted, TaskScheduler, WaitOptions},
};
use prost::Message as _;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The service over the engines of a node.
pub struct DistributedServiceImpl {
    pub discovery: Arc<dyn ServiceDiscovery>,
    pub router: Arc<Router>,
    /// Ends streams and waits, which would otherwise outlive the server.
    pub end: CancellationToken,
    pub scheduler: Arc<dyn TaskScheduler>,
    pub limits: config::Limits,
    pub task_limits: convert::TaskLimits,
}

impl DistributedServiceImpl {
    /// The wait of a call that requests `wait_ms`, and the budgets of its request and response.
    fn wait_options<T>(&self, wait_ms: u64, request: &mut Request<T>) -> WaitOptions {
        WaitOptions {
            time: Duration::from_millis(wait_ms).min(self.limits.max_wait),
            end: self.end.clone(),
            received: in_flight::request_memory(request),
            budget: in_flight::share_of(request).map(|share| share.unsent.clone()),
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
            ttl_ms: millis(ttl),
        }))
    }

    async fn discover(
        &self,
        request: Request<DiscoverRequest>,
    ) -> Result<Response<DiscoverResponse>, Status> {
        let reserved = in_flight::reserve_response(&request).await;
        let name = convert::name("service name", &request.into_inner().service_name)?;
        let max = self.limits.max_message_bytes;
        let found = self.discovery.discover_service(&name, max).await;
        let services = found.map_err(IntoStatus::into_status)?;
        let response = DiscoverResponse {
            nodes: services.into_iter().map(convert::node).collect(),
        };
        if response.encoded_len() > max {
            return Err(status::response_too_large(max));
        }
        Ok(in_flight::fit_response(response, reserved))
    }

    async fn send_message(
        &self,
        mut request: Request<Message>,
    ) -> Result<Response<MessageResponse>, Status> {
        let received = in_flight::request_memory(&mut request);
        let share = in_flight::share_of(&request);
        let request = request.into_inner();
        let timeout = Duration::from_millis(request.reply_timeout_ms).min(self.limits.max_wait);
        let message = convert::message(request, self.limits.max_payload_bytes)?;
        if self.router.is_id(&message.from) {
            let from = convert::name("from_node", &message.from)?;
            return Err(IdTaken(from).into_status());
        }
        let message_id = message.id.clone();
        let response = if timeout.is_zero() {
            sent(self.router.send(message).await)?
        } else {
            let pending = self.router.request(message).await;
            // The message is with its receiver: a wait must not hold up what others send.
            received.clear();
            answered(match pending {
                Ok(pending) => pending.wait(timeout).await,
                Err(error) => Err(error.into()),
            })?
        };
        let response = MessageResponse {
            message_id,
            ..response
        };
        let Some(share) = share else {
            return Ok(Response::new(response));
        };
        // The reply is in memory already. Waiting for the budget would keep it there uncounted.
        match share.unsent.try_reserve(response.encoded_len()) {
            Some(reservation) => Ok(in_flight::response(response, Some(Arc::new(reservation)))),
            None => Err(status::unread_responses()),
        }
    }

    type StreamMessagesStream = stream::Responses;

    async fn stream_messages(
        &self,
        mut request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        let auth = request.extensions_mut().remove();
        let waiting = in_flight::share_of(&request).map(|share| share.waiting.clone());
        // There is no share without a server.
        let waiting = waiting.unwrap_or_else(|| Budget::new(self.limits.max_unsent_bytes));
        Ok(in_flight::stream_response(stream::responses(
            request.into_inner(),
            self.router.clone(),
            self.end.clone(),
            auth,
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
        let wait = self.wait_options(wait_ms, &mut request);
        let request = request.into_inner();
        let task = convert::submission(request, &self.task_limits, self.scheduler.now());
        let task = task.map_err(IntoStatus::into_status)?;
        let id = task.id().clone();
        let submitted = match wait_ms {
            0 => self.scheduler.submit_task(task).await.map(|it| (it, None)),
            _ => self.scheduler.submit_and_wait(task, &wait).await,
        };
        let (accepted, status) = submitted.map_err(IntoStatus::into_status)?;
        let reservation = status
            .as_ref()
            .and_then(|status| status.reservation.clone());
        let existing = accepted != Accepted::New;
        let task_id = match accepted {
            Accepted::New | Accepted::Existing => id,
            Accepted::Duplicate(other) => other,
        };
        let response = TaskResponse {
            task_id: task_id.to_string(),
            accepted: true,
            existing,
            status: status.map(convert::task_status),
            durability: self.scheduler.durability().as_str().into(),
        };
        Ok(in_flight::response(response, reservation))
    }

    async fn get_task_status(
        &self,
        mut request: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskStatus>, Status> {
        let id = convert::name("task id", &request.get_ref().task_id)?;
        let wait = self.wait_options(request.get_ref().wait_ms, &mut request);
        let found = self.scheduler.get_task_status(&id, &wait).await;
        let status = found.map_err(IntoStatus::into_status)?;
        let reservation = status.reservation.clone();
        let response = convert::task_status(status);
        Ok(in_flight::response(response, reservation))
    }
}

/// The response to a message that was sent.
fn sent(sent: Result<usize, DeliveryError>) -> Result<MessageResponse, Status> {
    let receivers = match sent {
        Ok(receivers) => receivers,
        Err(error) => return undelivered(error),
    };
    Ok(MessageResponse {
        success: true,
        message: match receivers {
            1 => "delivered to 1 receiver".into(),
            n => format!("delivered to {n} receivers"),
        },
        receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
        ..MessageResponse::default()
    })
}

/// The response to a message with a reply timeout.
fn answered(answer: Result<broker::Message, RequestError>) -> Result<MessageResponse, Status> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(RequestError::Undelivered(error)) => return undelivered(error),
        Err(error @ RequestError::Timeout { .. }) => {
            return Ok(MessageResponse {
                message: error.to_string(),
                receivers: 1,
                ..MessageResponse::default()
            });
        }
    };
    Ok(MessageResponse {
        success: answer.error.is_empty(),
        message: if answer.error.is_empty() {
            format!("answered by {}", answer.from)
        } else {
            answer.error.clone()
        },
        receivers: 1,
        reply: Some(convert::delivered(answer)),
        ..MessageResponse::default()
    })
}

fn undelivered(error: DeliveryError) -> Result<MessageResponse, Status> {
    Ok(MessageResponse {
        message: stream::reason(error)?,
        ..MessageResponse::default()
    })
}
