//! The seed's service: its six calls. The stream has a file of its own.

use super::{convert, status::IntoStatus, stream};
use crate::{
    broker::MessageBroker,
    config,
    discovery::ServiceDiscovery,
    proto::distributed::{
        DiscoverRequest, DiscoverResponse, Message, MessageResponse, RegisterRequest,
        RegisterResponse, Task, TaskResponse, TaskStatus, TaskStatusRequest,
        distributed_service_server::DistributedService,
    },
    scheduler::{Accepted, TaskScheduler},
    task::Name,
};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming};

/// What the calls need.
pub struct DistributedServiceImpl {
    pub node: Name,
    pub discovery: Arc<dyn ServiceDiscovery>,
    pub broker: Arc<dyn MessageBroker>,
    pub scheduler: Arc<dyn TaskScheduler>,
    pub limits: config::Limits,
}

impl DistributedServiceImpl {
    /// How long a call that asks for `wait_ms` may wait.
    fn wait(&self, wait_ms: u64) -> Duration {
        Duration::from_millis(wait_ms).min(self.limits.max_wait)
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
        let name = convert::name("service name", &request.into_inner().service_name)?;
        let found = self.discovery.discover_service(&name).await;
        let services = found.map_err(IntoStatus::into_status)?;
        Ok(Response::new(DiscoverResponse {
            nodes: services.into_iter().map(convert::node).collect(),
        }))
    }

    async fn send_message(
        &self,
        request: Request<Message>,
    ) -> Result<Response<MessageResponse>, Status> {
        let message = convert::message(request.into_inner(), self.limits.submission.payload_bytes)?;
        let (id, topic) = (message.id.clone(), message.topic.clone());
        let published = self.broker.publish(message).await;
        let receivers = published.map_err(IntoStatus::into_status)?;
        Ok(Response::new(MessageResponse {
            success: receivers > 0,
            message: match receivers {
                0 => stream::nobody_listens(&topic),
                1 => "handed to 1 subscriber".into(),
                n => format!("handed to {n} subscribers"),
            },
            message_id: id,
            receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
        }))
    }

    type StreamMessagesStream = stream::Responses;

    async fn stream_messages(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        Ok(Response::new(stream::responses(
            request.into_inner(),
            self.node.clone(),
            self.broker.clone(),
            self.limits.submission.payload_bytes,
            self.limits.subscriber_backlog,
        )))
    }

    async fn submit_task(&self, request: Request<Task>) -> Result<Response<TaskResponse>, Status> {
        let request = request.into_inner();
        let wait = (request.wait_ms > 0).then(|| self.wait(request.wait_ms));
        let task = convert::submission(request, &self.limits.submission)?;
        let task_id = task.id().to_string();
        let submitted = match wait {
            None => self.scheduler.submit_task(task).await.map(|it| (it, None)),
            Some(wait) => self.scheduler.submit_and_wait(task, wait).await,
        };
        let (accepted, status) = submitted.map_err(IntoStatus::into_status)?;
        Ok(Response::new(TaskResponse {
            task_id,
            accepted: true,
            existing: accepted == Accepted::Existing,
            status: status.map(convert::task_status),
        }))
    }

    async fn get_task_status(
        &self,
        request: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskStatus>, Status> {
        let request = request.into_inner();
        let id = convert::name("task id", &request.task_id)?;
        let wait = self.wait(request.wait_ms);
        let found = self.scheduler.get_task_status(&id, wait).await;
        let status = found.map_err(IntoStatus::into_status)?;
        Ok(Response::new(convert::task_status(status)))
    }
}
