//! The limit of a call and of a stream: the same service with the same server settings, which answers
//! SubmitTask, SendMessage and StreamMessages at once.

use hostel::{
    Config, config,
    proto::distributed::{
        DiscoverRequest, DiscoverResponse, Message, MessageResponse, RegisterRequest,
        RegisterResponse, Task, TaskResponse, TaskStatus, TaskStatusRequest,
        distributed_service_server::{DistributedService, DistributedServiceServer},
    },
};
use std::{net::SocketAddr, pin::Pin, time::Duration};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

struct Echo;

#[tonic::async_trait]
impl DistributedService for Echo {
    async fn submit_task(&self, request: Request<Task>) -> Result<Response<TaskResponse>, Status> {
        Ok(Response::new(TaskResponse {
            task_id: request.into_inner().task_id,
            accepted: true,
            ..TaskResponse::default()
        }))
    }

    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn discover(
        &self,
        _: Request<DiscoverRequest>,
    ) -> Result<Response<DiscoverResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn send_message(
        &self,
        request: Request<Message>,
    ) -> Result<Response<MessageResponse>, Status> {
        Ok(Response::new(MessageResponse {
            success: true,
            reply: Some(request.into_inner()),
            ..MessageResponse::default()
        }))
    }

    type StreamMessagesStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn stream_messages(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        let answers = request.into_inner().map(|message| {
            Ok(Message {
                message_type: "response".into(),
                ..message?
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_task_status(
        &self,
        _: Request<TaskStatusRequest>,
    ) -> Result<Response<TaskStatus>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Announces the address and serves until the parent process has ended.
pub async fn serve(announce: fn(SocketAddr)) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    announce(listener.local_addr().expect("an address"));
    // As in the node: an answer in two packets must not wait for an acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let orphaned = async {
        let _ = tokio::task::spawn_blocking(crate::child::orphaned).await;
    };
    server(&Config::default().limits)
        .add_service(DistributedServiceServer::new(Echo))
        .serve_with_incoming_shutdown(incoming, orphaned)
        .await
        .expect("a server");
}

/// Returns a tonic server with the limits of a node.
fn server(limits: &config::Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.max_streams_per_connection)
        .concurrency_limit_per_connection(limits.max_requests_per_connection)
        .timeout(limits.request_timeout + limits.max_wait)
        .max_connection_age(limits.max_connection_age)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
}
