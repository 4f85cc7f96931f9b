//! `DistributedClient`: the Rust client of a node. It reconnects by itself. Its retries are safe, because each
//! submission has an id before it is first sent.

mod actions;
mod options;
mod retry;
mod schedules;
mod submit_many;
mod task_reads;
mod tls_error;
mod types;
mod waiting;
mod watch_tasks;

pub use options::{ClientOptions, Error};
pub use retry::is_connection_lost;
pub use submit_many::SubmitMany;
pub use tls_error::TlsError;
pub use watch_tasks::WatchTasks;

use crate::proto::{
    distributed::{
        DiscoverRequest, Message, MessageResponse, Node, RegisterRequest, Task, TaskResponse,
        TaskStatus, TaskStatusRequest, distributed_service_client::DistributedServiceClient,
    },
    hostel::v1::{
        Component, DrainNodeRequest, GetHealthRequest, GetHealthResponse, ListComponentsRequest,
        ListNodesRequest, ListNodesResponse, ListPluginsRequest, ListPluginsResponse,
        ListTasksRequest, ListTasksResponse, RequeueTaskRequest, UndrainNodeRequest,
        component_service_client::ComponentServiceClient, node_service_client::NodeServiceClient,
        plugin_service_client::PluginServiceClient, schedule_service_client::ScheduleServiceClient,
        task_service_client::TaskServiceClient, type_service_client::TypeServiceClient,
    },
    millis,
};
use hostel_backoff::Backoff;
use options::{AuthChannel, Bearer};
use retry::{BACKOFF, is_transient, was_reached};
use std::time::{Duration, Instant};
use tokio_stream::Stream;
use tonic::{
    Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService,
    transport::Channel,
};
use uuid::Uuid;

/// The largest response: the most that a node can be configured to send.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// How long a call that is safe to repeat is retried by default, counted from the loss of the node.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// A call that is lost after this time may have reached the node.
const REACHED_AFTER: Duration = Duration::from_secs(1);

/// How long a node may take to show that it can be reached.
const PROBE: Duration = Duration::from_secs(5);

/// A connection to one node. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct DistributedClient {
    distributed: DistributedServiceClient<AuthChannel>,
    tasks: TaskServiceClient<AuthChannel>,
    plugins: PluginServiceClient<AuthChannel>,
    components: ComponentServiceClient<AuthChannel>,
    nodes: NodeServiceClient<AuthChannel>,
    schedules: ScheduleServiceClient<AuthChannel>,
    types: TypeServiceClient<AuthChannel>,
    retry_timeout: Duration,
}

impl DistributedClient {
    /// Connects to a node, such as `http://127.0.0.1:50051`; the scheme may be left out. Fails if no node
    /// answers now. Later, a lost connection is made again.
    pub async fn connect(addr: &str) -> anyhow::Result<Self> {
        Ok(Self::connect_with(addr, ClientOptions::new()).await?)
    }

    /// Connects to a node that requires TLS, a token or both. With TLS options, an address without a scheme
    /// is https.
    pub async fn connect_with(addr: &str, options: ClientOptions) -> Result<Self, Error> {
        let (endpoint, bearer) = options.resolve(addr)?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Error::unreachable(addr, error))?;
        Ok(Self::over(channel, bearer))
    }

    /// Returns a client that connects with its first call.
    pub fn connect_lazy(addr: &str) -> anyhow::Result<Self> {
        Ok(Self::connect_lazy_with(addr, ClientOptions::new())?)
    }

    /// Returns a client that connects with its first call, to a node that requires TLS, a token or both.
    pub fn connect_lazy_with(addr: &str, options: ClientOptions) -> Result<Self, Error> {
        let (endpoint, bearer) = options.resolve(addr)?;
        Ok(Self::over(endpoint.connect_lazy(), bearer))
    }

    fn over(channel: Channel, bearer: Bearer) -> Self {
        let channel = InterceptedService::new(channel, bearer);
        Self {
            distributed: DistributedServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            tasks: TaskServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            plugins: PluginServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            components: ComponentServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            nodes: NodeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            schedules: ScheduleServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            types: TypeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
            retry_timeout: RETRY_TIMEOUT,
        }
    }

    /// Sets how long to retry a call while the node cannot be reached, counted from its loss; zero for never.
    /// The default is 30 s.
    pub fn with_retry_timeout(mut self, retry_timeout: Duration) -> Self {
        self.retry_timeout = retry_timeout;
        self
    }

    /// Submits a task and returns its id once the task is durable. An empty id is filled in before the first
    /// attempt, so that a retry cannot create a second task.
    pub async fn submit_task(&mut self, task: Task) -> Result<String, Status> {
        Ok(self.submit(task).await?.task_id)
    }

    /// Submits a task and returns the whole response: what the task survives, and whether it existed.
    pub async fn submit(&mut self, task: Task) -> Result<TaskResponse, Status> {
        self.send_task(task, Duration::ZERO).await
    }

    /// Submits tasks on one stream, as fast as the node takes them. [`SubmitMany::next`] returns the answer to
    /// each once it is durable or refused. If the connection is lost, tasks without an answer are submitted
    /// again; empty ids are filled in before that, so that this cannot create a second task.
    pub fn submit_many(&mut self, tasks: impl Stream<Item = Task> + Send + 'static) -> SubmitMany {
        let client = self.tasks.clone();
        SubmitMany::new(client, self.retry_timeout, Box::pin(tasks), false)
    }

    /// Submits tasks as `submit_many` does. [`SubmitMany::next`] also returns the end of each accepted task.
    pub fn submit_many_to_end(
        &mut self,
        tasks: impl Stream<Item = Task> + Send + 'static,
    ) -> SubmitMany {
        let client = self.tasks.clone();
        SubmitMany::new(client, self.retry_timeout, Box::pin(tasks), true)
    }

    async fn send_task(&self, mut task: Task, wait: Duration) -> Result<TaskResponse, Status> {
        if task.task_id.is_empty() {
            task.task_id = Uuid::now_v7().to_string();
        }
        task.wait_ms = millis(wait);
        self.retry(task, |mut client, task| async move {
            client.distributed.submit_task(task).await
        })
        .await
    }

    /// Returns the status of a task now.
    pub async fn get_task_status(&mut self, task_id: &str) -> Result<TaskStatus, Status> {
        self.task_status(task_id, Duration::ZERO).await
    }

    async fn task_status(&self, task_id: &str, wait: Duration) -> Result<TaskStatus, Status> {
        let request = TaskStatusRequest {
            task_id: task_id.into(),
            wait_ms: millis(wait),
        };
        self.retry(request, |mut client, request| async move {
            client.distributed.get_task_status(request).await
        })
        .await
    }

    /// Cancels a task. Returns "cancelled"; "asked" if it runs and its handler is being interrupted; or the
    /// state in which it had ended before.
    pub async fn cancel_task(&mut self, task_id: &str) -> Result<String, Status> {
        self.cancel_task_with_reason(task_id, "").await
    }

    /// Makes a failed or cancelled task pending again. Not retried: the task may have failed again since.
    pub async fn requeue_task(&mut self, task_id: &str) -> Result<(), Status> {
        let request = RequeueTaskRequest {
            task_id: task_id.into(),
        };
        self.tasks.requeue(request).await?;
        Ok(())
    }

    /// Lists one page of tasks.
    pub async fn list_tasks(
        &mut self,
        request: ListTasksRequest,
    ) -> Result<ListTasksResponse, Status> {
        self.retry(request, |mut client, request| async move {
            client.tasks.list(request).await
        })
        .await
    }

    /// Lists the plugins of the node.
    pub async fn list_plugins(&mut self) -> Result<ListPluginsResponse, Status> {
        self.retry(ListPluginsRequest {}, |mut client, request| async move {
            client.plugins.list(request).await
        })
        .await
    }

    /// Lists the components of the node.
    pub async fn list_components(&mut self) -> Result<Vec<Component>, Status> {
        let request = ListComponentsRequest {};
        let response = self
            .retry(request, |mut client, request| async move {
                client.components.list(request).await
            })
            .await?;
        Ok(response.components)
    }

    /// Lists the nodes of the cluster, as seen by the node that answers.
    pub async fn list_nodes(&mut self) -> Result<ListNodesResponse, Status> {
        self.retry(ListNodesRequest {}, |mut client, request| async move {
            client.nodes.list(request).await
        })
        .await
    }

    /// Returns the health of the node that answers, with the reasons for its faults.
    pub async fn get_health(&mut self) -> Result<GetHealthResponse, Status> {
        self.retry(GetHealthRequest {}, |mut client, request| async move {
            client.nodes.get_health(request).await
        })
        .await
    }

    /// Drains a node of the cluster: it takes no new task.
    pub async fn drain_node(&mut self, node_id: &str) -> Result<(), Status> {
        let request = DrainNodeRequest {
            node_id: node_id.into(),
        };
        self.retry(request, |mut client, request| async move {
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
        self.retry(request, |mut client, request| async move {
            client.nodes.undrain(request).await
        })
        .await?;
        Ok(())
    }

    /// Registers a service, or renews it. Returns the time to live that was granted.
    pub async fn register(&mut self, request: RegisterRequest) -> Result<Duration, Status> {
        let response = self
            .retry(request, |mut client, request| async move {
                client.distributed.register(request).await
            })
            .await?;
        Ok(Duration::from_millis(response.ttl_ms))
    }

    /// Returns the instances of a service.
    pub async fn discover(&mut self, service_name: &str) -> Result<Vec<Node>, Status> {
        let request = DiscoverRequest {
            service_name: service_name.into(),
        };
        let response = self
            .retry(request, |mut client, request| async move {
                client.distributed.discover(request).await
            })
            .await?;
        Ok(response.nodes)
    }

    /// Sends one message, and with a `reply_timeout_ms` waits for the answer. Not retried: a message is
    /// delivered at most once.
    pub async fn send_message(&mut self, message: Message) -> Result<MessageResponse, Status> {
        let response = self.distributed.send_message(message).await?;
        Ok(response.into_inner())
    }

    /// Opens a stream that publishes `messages`, and returns the responses to them and the messages that others
    /// send to the `from_node` and the `topics` of the first message. A lost connection ends it.
    pub async fn stream_messages(
        &mut self,
        messages: impl Stream<Item = Message> + Send + 'static,
    ) -> Result<Streaming<Message>, Status> {
        let request = Request::new(messages);
        let response = self.distributed.stream_messages(request).await?;
        Ok(response.into_inner())
    }

    /// Retries a call while the node cannot be reached, until the retry timeout. Only for calls that have no
    /// further effect when they arrive twice.
    async fn retry<Q, A, F>(&self, request: Q, call: impl Fn(Self, Q) -> F) -> Result<A, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut lost: Option<Instant> = None;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let start = Instant::now();
            let status = match call(self.clone(), request.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if !is_transient(&status) => return Err(status),
                Err(status) => status,
            };
            if lost.get_or_insert_with(Instant::now).elapsed() >= self.retry_timeout {
                return Err(status);
            }
            let was_long = start.elapsed() >= REACHED_AFTER
                && is_connection_lost(&status)
                && was_reached(&status);
            tokio::time::sleep(backoff.next_delay()).await;
            // If the node is back, it is not lost while it works on the next call.
            if was_long && self.answers().await {
                lost = None;
                backoff.reset();
            }
        }
    }

    /// Whether the node answers a short call; a refusal is an answer.
    async fn answers(&self) -> bool {
        let mut distributed = self.distributed.clone();
        let call = distributed.get_task_status(TaskStatusRequest::default());
        match tokio::time::timeout(PROBE, call).await {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => status.code() != Code::Unavailable && !is_connection_lost(&status),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tonic::Code;

    #[tokio::test]
    async fn a_call_that_is_lost_after_a_long_wait_is_retried() {
        let client = DistributedClient::connect_lazy("127.0.0.1:1").unwrap();
        let client = client.with_retry_timeout(REACHED_AFTER);
        let calls = Cell::new(0);
        let answer = client.retry((), async |_, ()| {
            calls.set(calls.get() + 1);
            match calls.get() {
                1 => {
                    tokio::time::sleep(REACHED_AFTER * 3 / 2).await;
                    Err(Status::unavailable("the node is stopping"))
                }
                _ => Ok(Response::new(calls.get())),
            }
        });
        assert_eq!(answer.await.unwrap(), 2);
    }

    /// A proxy accepts connections and closes them after a while, because it does not reach the node.
    #[tokio::test]
    async fn retries_end_though_something_accepts_connections() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((connection, _)) = proxy.accept().await {
                tokio::spawn(async move {
                    tokio::time::sleep(REACHED_AFTER * 3 / 2).await;
                    drop(connection);
                });
            }
        });
        let client = DistributedClient::connect_lazy(&address).unwrap();
        let mut client = client.with_retry_timeout(REACHED_AFTER);
        assert!(client.submit_task(Task::default()).await.is_err());
    }

    #[tokio::test]
    async fn retries_end_at_the_timeout() {
        let client = DistributedClient::connect_lazy("127.0.0.1:1").unwrap();
        let client = client.with_retry_timeout(Duration::from_millis(200));
        let answer = client.retry((), async |_, ()| {
            Err::<Response<()>, _>(Status::unavailable("not now"))
        });
        assert_eq!(answer.await.unwrap_err().code(), Code::Unavailable);
    }
}
