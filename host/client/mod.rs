//! `DistributedClient`: everything the service can do, from Rust. Reconnects by itself, and its own
//! retries are safe because each submission has an id before it is first sent.

mod options;
mod trouble;

pub use options::{ClientOptions, Error};
pub use trouble::{Trouble, trouble};

use crate::proto::{
    distributed::{
        DiscoverRequest, Message, MessageResponse, Node, RegisterRequest, Task, TaskResponse,
        TaskStatus, TaskStatusRequest, distributed_service_client::DistributedServiceClient,
    },
    hostel::v1::{
        CancelTaskRequest, Component, DrainNodeRequest, GetHealthRequest, GetHealthResponse,
        ListComponentsRequest, ListNodesRequest, ListNodesResponse, ListPluginsRequest,
        ListPluginsResponse, ListTasksRequest, ListTasksResponse, RequeueTaskRequest,
        UndrainNodeRequest, component_service_client::ComponentServiceClient,
        node_service_client::NodeServiceClient, plugin_service_client::PluginServiceClient,
        task_service_client::TaskServiceClient,
    },
};
use hostel_backoff::Backoff;
use options::Bearer;
use std::time::{Duration, Instant};
use tokio_stream::Stream;
use tonic::{
    Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService,
    transport::Channel,
};
use uuid::Uuid;

/// What one answer may hold: as much as any node can be configured to send.
const MAX_MESSAGE: usize = 1 << 30;

/// How long a call that is safe to repeat is repeated while the node cannot be reached, counted from
/// when it was lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// From when on a call that fails has been at work and not on its way.
const AT_WORK: Duration = Duration::from_secs(1);

/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long one call waits for a task's end at the node, below the node's own limit.
const WAIT: Duration = Duration::from_secs(30);

/// The least time between two status calls.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// What all services share: the connection, and the token that goes with every call.
type Link = InterceptedService<Channel, Bearer>;

/// A connection to one node. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct DistributedClient {
    distributed: DistributedServiceClient<Link>,
    tasks: TaskServiceClient<Link>,
    plugins: PluginServiceClient<Link>,
    components: ComponentServiceClient<Link>,
    nodes: NodeServiceClient<Link>,
    patience: Duration,
}

impl DistributedClient {
    /// Connects to a node, such as `http://127.0.0.1:50051`; the scheme may be left out. Fails
    /// when nobody answers now; later the connection is made anew whenever it is lost.
    pub async fn connect(addr: &str) -> anyhow::Result<Self> {
        Ok(Self::connect_with(addr, ClientOptions::new()).await?)
    }

    /// The same to a node that wants TLS, a token or both. With anything said about TLS, an address
    /// without a scheme is https.
    pub async fn connect_with(addr: &str, options: ClientOptions) -> Result<Self, Error> {
        let (endpoint, bearer) = options.resolve(addr)?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Error::unreachable(addr, error))?;
        Ok(Self::over(channel, bearer))
    }

    /// The same without asking whether anybody is there yet.
    pub fn connect_lazy(addr: &str) -> anyhow::Result<Self> {
        Ok(Self::connect_lazy_with(addr, ClientOptions::new())?)
    }

    /// The same to a node that wants TLS, a token or both.
    pub fn connect_lazy_with(addr: &str, options: ClientOptions) -> Result<Self, Error> {
        let (endpoint, bearer) = options.resolve(addr)?;
        Ok(Self::over(endpoint.connect_lazy(), bearer))
    }

    fn over(channel: Channel, bearer: Bearer) -> Self {
        let link = InterceptedService::new(channel, bearer);
        Self {
            distributed: DistributedServiceClient::new(link.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            tasks: TaskServiceClient::new(link.clone()).max_decoding_message_size(MAX_MESSAGE),
            plugins: PluginServiceClient::new(link.clone()).max_decoding_message_size(MAX_MESSAGE),
            components: ComponentServiceClient::new(link.clone())
                .max_decoding_message_size(MAX_MESSAGE),
            nodes: NodeServiceClient::new(link).max_decoding_message_size(MAX_MESSAGE),
            patience: PATIENCE,
        }
    }

    /// How long to repeat a call while the node cannot be reached, counted from when it was lost; zero
    /// for never.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Submits a task and returns its id once the task is durable. An empty id is filled in before
    /// the first try, so that a repeated one cannot make a second task.
    pub async fn submit_task(&mut self, task: Task) -> Result<String, Status> {
        Ok(self.submit(task).await?.task_id)
    }

    /// The same with all that the node says of it: what the task survives, and whether it was there
    /// already.
    pub async fn submit(&mut self, task: Task) -> Result<TaskResponse, Status> {
        self.send_task(task, Duration::ZERO).await
    }

    /// Submits a task and waits, however long it takes, for its end: one call for a task that ends
    /// soon.
    pub async fn submit_and_wait(&mut self, task: Task) -> Result<TaskStatus, Status> {
        let response = self.submit_to_end(task).await?;
        Ok(response.status.unwrap_or_default())
    }

    /// The same with all that the node says of it; `status` is there, and has ended.
    pub async fn submit_to_end(&mut self, task: Task) -> Result<TaskResponse, Status> {
        let mut response = self.send_task(task, WAIT).await?;
        if !response.status.as_ref().is_some_and(has_ended) {
            // It takes longer, or the node is too old to wait.
            response.status = Some(self.wait_for_task(&response.task_id).await?);
        }
        Ok(response)
    }

    async fn send_task(&self, mut task: Task, wait: Duration) -> Result<TaskResponse, Status> {
        if task.task_id.is_empty() {
            task.task_id = Uuid::now_v7().to_string();
        }
        task.wait_ms = ms(wait);
        self.repeat(task, |mut client, task| async move {
            client.distributed.submit_task(task).await
        })
        .await
    }

    /// Where a task stands now.
    pub async fn get_task_status(&mut self, task_id: &str) -> Result<TaskStatus, Status> {
        self.task_status(task_id, Duration::ZERO).await
    }

    /// Waits, however long it takes, for a task's end.
    pub async fn wait_for_task(&mut self, task_id: &str) -> Result<TaskStatus, Status> {
        loop {
            let asked = Instant::now();
            let status = self.task_status(task_id, WAIT).await?;
            if has_ended(&status) {
                return Ok(status);
            }
            // A node may allow less waiting than we ask for, or none.
            tokio::time::sleep(LEAST_WAIT.saturating_sub(asked.elapsed())).await;
        }
    }

    async fn task_status(&self, task_id: &str, wait: Duration) -> Result<TaskStatus, Status> {
        let request = TaskStatusRequest {
            task_id: task_id.into(),
            wait_ms: ms(wait),
        };
        self.repeat(request, |mut client, request| async move {
            client.distributed.get_task_status(request).await
        })
        .await
    }

    /// Asks for the end of a task; "cancelled", "asked", or the state in which it had ended.
    pub async fn cancel_task(&mut self, task_id: &str) -> Result<String, Status> {
        let request = CancelTaskRequest {
            task_id: task_id.into(),
        };
        let response = self
            .repeat(request, |mut client, request| async move {
                client.tasks.cancel(request).await
            })
            .await?;
        Ok(response.outcome)
    }

    /// Makes a failed or cancelled task due again. Not repeated by itself: a second requeue could
    /// meet a task that has failed again since.
    pub async fn requeue_task(&mut self, task_id: &str) -> Result<(), Status> {
        let request = RequeueTaskRequest {
            task_id: task_id.into(),
        };
        self.tasks.requeue(request).await?;
        Ok(())
    }

    pub async fn list_tasks(
        &mut self,
        request: ListTasksRequest,
    ) -> Result<ListTasksResponse, Status> {
        self.repeat(request, |mut client, request| async move {
            client.tasks.list(request).await
        })
        .await
    }

    pub async fn list_plugins(&mut self) -> Result<ListPluginsResponse, Status> {
        self.repeat(ListPluginsRequest {}, |mut client, request| async move {
            client.plugins.list(request).await
        })
        .await
    }

    pub async fn list_components(&mut self) -> Result<Vec<Component>, Status> {
        let request = ListComponentsRequest {};
        let response = self
            .repeat(request, |mut client, request| async move {
                client.components.list(request).await
            })
            .await?;
        Ok(response.components)
    }

    /// The nodes of the cluster, as the node that is asked sees them.
    pub async fn list_nodes(&mut self) -> Result<ListNodesResponse, Status> {
        self.repeat(ListNodesRequest {}, |mut client, request| async move {
            client.nodes.list(request).await
        })
        .await
    }

    /// The health of the node that is asked, with the reasons for what is wrong.
    pub async fn get_health(&mut self) -> Result<GetHealthResponse, Status> {
        self.repeat(GetHealthRequest {}, |mut client, request| async move {
            client.nodes.get_health(request).await
        })
        .await
    }

    /// Asks that a node, not necessarily the one that is asked, take no new task.
    pub async fn drain_node(&mut self, node_id: &str) -> Result<(), Status> {
        let request = DrainNodeRequest {
            node_id: node_id.into(),
        };
        self.repeat(request, |mut client, request| async move {
            client.nodes.drain(request).await
        })
        .await?;
        Ok(())
    }

    /// Lets a drained node take tasks again.
    pub async fn undrain_node(&mut self, node_id: &str) -> Result<(), Status> {
        let request = UndrainNodeRequest {
            node_id: node_id.into(),
        };
        self.repeat(request, |mut client, request| async move {
            client.nodes.undrain(request).await
        })
        .await?;
        Ok(())
    }

    /// Registers a service, or renews it; returns the time to live that was granted.
    pub async fn register(&mut self, request: RegisterRequest) -> Result<Duration, Status> {
        let response = self
            .repeat(request, |mut client, request| async move {
                client.distributed.register(request).await
            })
            .await?;
        Ok(Duration::from_millis(response.ttl_ms))
    }

    pub async fn discover(&mut self, service_name: &str) -> Result<Vec<Node>, Status> {
        let request = DiscoverRequest {
            service_name: service_name.into(),
        };
        let response = self
            .repeat(request, |mut client, request| async move {
                client.distributed.discover(request).await
            })
            .await?;
        Ok(response.nodes)
    }

    /// Sends one message, and with a `reply_timeout_ms` waits for its answer. Not repeated by
    /// itself: a message is delivered at most once.
    pub async fn send_message(&mut self, message: Message) -> Result<MessageResponse, Status> {
        let response = self.distributed.send_message(message).await?;
        Ok(response.into_inner())
    }

    /// Opens a conversation: what goes in is published, what comes out are the responses and the
    /// messages sent to the `from_node` of the first message. A lost connection ends it.
    pub async fn stream_messages(
        &mut self,
        messages: impl Stream<Item = Message> + Send + 'static,
    ) -> Result<Streaming<Message>, Status> {
        let request = Request::new(messages);
        let response = self.distributed.stream_messages(request).await?;
        Ok(response.into_inner())
    }

    /// Makes a call again while the node cannot be reached, for as long as patience lasts. Only
    /// for calls that change nothing when they arrive twice.
    async fn repeat<Q, A, F>(&self, request: Q, call: impl Fn(Self, Q) -> F) -> Result<A, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut lost: Option<Instant> = None;
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            let began = Instant::now();
            let status = match call(self.clone(), request.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if !is_transient(&status) => return Err(status),
                Err(status) => status,
            };
            // While the node was at work on the call it could be reached.
            if began.elapsed() >= AT_WORK && is_lost(&status) && was_reached(&status) {
                lost = None;
                backoff.reset();
            }
            if lost.get_or_insert_with(Instant::now).elapsed() >= self.patience {
                return Err(status);
            }
            // Many clients that lost one node must not come back in step.
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn has_ended(status: &TaskStatus) -> bool {
    !matches!(status.status.as_str(), "pending" | "running")
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether this is no answer, but the end of the connection. In mid-call it arrives as Unknown, or as
/// whatever else, with a transport error for its source.
pub fn is_lost(status: &Status) -> bool {
    let source = std::error::Error::source(status);
    source.is_some_and(|source| source.is::<tonic::transport::Error>())
}

/// Whether the node had the call: it is not one for which there was no connection, or none that lived.
fn was_reached(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let is_dead = error
            .downcast_ref()
            .is_some_and(|error: &hyper::Error| error.is_timeout());
        if error.is::<tonic::ConnectError>() || is_dead {
            return false;
        }
        next = error.source();
    }
    true
}

/// Whether the same call may succeed a little later.
fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Cancelled | Code::Internal => is_lost(status),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_call_that_is_lost_after_a_long_wait_is_repeated() {
        let client = DistributedClient::connect_lazy("127.0.0.1:1").unwrap();
        let client = client.with_patience(AT_WORK);
        let calls = Cell::new(0);
        let answer = client.repeat((), async |_, ()| {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => {
                    tokio::time::sleep(AT_WORK * 3 / 2).await;
                    Err(Status::unavailable("the node is stopping"))
                }
                _ => Ok(Response::new(calls.get())),
            }
        });
        assert_eq!(answer.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn patience_ends() {
        let client = DistributedClient::connect_lazy("127.0.0.1:1").unwrap();
        let client = client.with_patience(Duration::from_millis(200));
        let answer = client.repeat((), async |_, ()| {
            Err::<Response<()>, _>(Status::unavailable("not now"))
        });
        assert_eq!(answer.await.unwrap_err().code(), Code::Unavailable);
    }
}
