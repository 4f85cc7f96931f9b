//! `SubmitMany`: many tasks on one stream, which survives the loss of its connection. What is unanswered is
//! kept and submitted again under the same ids; what is accepted is followed by its id. Both are bounded.

use super::{
    options::AuthChannel,
    retry::{BACKOFF, may_reopen},
};
use crate::proto::{
    distributed::Task,
    hostel::v1::{
        SubmitManyRequest, SubmitManyResponse, submit_many_response::Event,
        task_service_client::TaskServiceClient,
    },
};
use hostel_backoff::Backoff;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::pending,
    pin::Pin,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};
use uuid::Uuid;

/// The most tasks without an answer, and the most bytes of them before no further task is taken.
const MAX_UNANSWERED: usize = 4096;
const MAX_UNANSWERED_BYTES: usize = 16 << 20;

/// The most accepted tasks whose ends are awaited.
const MAX_UNENDED: usize = 100_000;

/// How many requests may wait for the connection.
const REQUESTS: usize = 64;

type Tasks = Pin<Box<dyn Stream<Item = Task> + Send>>;

/// The answers to the tasks of `DistributedClient::submit_many`.
pub struct SubmitMany {
    client: TaskServiceClient<AuthChannel>,
    retry_timeout: Duration,
    results: bool,
    /// `None` once all tasks were taken.
    tasks: Option<Tasks>,
    next_position: u64,
    /// Tasks without an answer, by position.
    unanswered: BTreeMap<u64, Task>,
    unanswered_bytes: usize,
    /// The ids of accepted tasks whose ends are awaited, by position.
    unended: BTreeMap<u64, String>,
    connection: Option<Connection>,
    /// Since when the connection is lost.
    lost: Option<Instant>,
    backoff: Backoff,
    is_over: bool,
}

/// One stream to the node.
struct Connection {
    /// `None` once everything was sent.
    requests: Option<mpsc::Sender<SubmitManyRequest>>,
    responses: Streaming<SubmitManyResponse>,
    /// The positions of our tasks, by their positions on this stream.
    positions: HashMap<u64, u64>,
    sent: u64,
    /// The positions of our tasks that were sent on an earlier stream.
    again: VecDeque<u64>,
}

/// What happens next on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "each is made once and moved on at once; a box would be an allocation for each task"
)]
enum Step {
    Response(Result<Option<SubmitManyResponse>, Status>),
    /// There is room for a request about a task that was sent before.
    Again,
    /// There is room for a request, and this is the next task, if there is one.
    Task(Option<Task>),
    /// Everything was sent.
    Close,
}

impl SubmitMany {
    pub(super) fn new(
        client: TaskServiceClient<AuthChannel>,
        retry_timeout: Duration,
        tasks: Tasks,
        results: bool,
    ) -> Self {
        Self {
            client,
            retry_timeout,
            results,
            tasks: Some(tasks),
            next_position: 0,
            unanswered: BTreeMap::new(),
            unanswered_bytes: 0,
            unended: BTreeMap::new(),
            connection: None,
            lost: None,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            is_over: false,
        }
    }

    /// Returns the next answer, or the next end of a task. The position in it counts the tasks from 0.
    /// Returns `None` after the last one, or after an error: the node does not take the stream, or it could
    /// not be reached until the retry timeout. Tasks are taken and sent only during this call. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<SubmitManyResponse, Status>> {
        while !self.is_over {
            match self.advance().await {
                Ok(Some(response)) => return Some(Ok(response)),
                Ok(None) => self.is_over = true,
                Err(status) => {
                    self.connection = None;
                    if let Err(status) = self.wait_to_retry(status).await {
                        self.is_over = true;
                        return Some(Err(status));
                    }
                }
            }
        }
        None
    }

    /// How many of the tasks that were taken have no answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many accepted tasks have not ended yet, as far as it is known.
    pub fn unended(&self) -> usize {
        self.unended.len()
    }

    /// Waits for the next response. Returns `None` when everything is done.
    async fn advance(&mut self) -> Result<Option<SubmitManyResponse>, Status> {
        loop {
            if self.connection.is_none() {
                self.connection = Some(self.open().await?);
            }
            match self.step().await {
                Step::Response(Err(status)) => return Err(status),
                Step::Response(Ok(Some(response))) => {
                    if let Some(response) = self.received(response) {
                        return Ok(Some(response));
                    }
                }
                Step::Response(Ok(None)) if self.is_done() => return Ok(None),
                Step::Response(Ok(None)) => {
                    return Err(Status::unavailable(
                        "the node ended the stream before every task was answered",
                    ));
                }
                Step::Again => self.send_again(),
                Step::Task(Some(task)) => self.send_next(task),
                Step::Task(None) => self.tasks = None,
                Step::Close => {
                    if let Some(connection) = &mut self.connection {
                        connection.requests = None;
                    }
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.tasks.is_none() && self.unanswered.is_empty() && self.unended.is_empty()
    }

    async fn open(&self) -> Result<Connection, Status> {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let mut client = self.client.clone();
        let responses = client.submit_many(ReceiverStream::new(receiver)).await?;
        let again = self.unended.keys().chain(self.unanswered.keys());
        Ok(Connection {
            requests: Some(requests),
            responses: responses.into_inner(),
            positions: HashMap::new(),
            sent: 0,
            again: again.copied().collect(),
        })
    }

    async fn step(&mut self) -> Step {
        let has_room = self.unanswered.len() < MAX_UNANSWERED
            && self.unanswered_bytes < MAX_UNANSWERED_BYTES
            && self.unended.len() < MAX_UNENDED;
        let Some(connection) = &mut self.connection else {
            return Step::Response(Ok(None));
        };
        let tasks = &mut self.tasks;
        let may_send = has_room || tasks.is_none() || !connection.again.is_empty();
        let requests = connection.requests.as_ref();
        let is_again = !connection.again.is_empty();
        let send = async {
            // This is the only sender, so the room stays. Without a receiver, the responses say why.
            match requests {
                Some(requests) if requests.reserve().await.is_ok() => {}
                _ => pending().await,
            }
            match tasks {
                _ if is_again => Step::Again,
                Some(tasks) => Step::Task(tasks.next().await),
                None => Step::Close,
            }
        };
        tokio::select! {
            response = connection.responses.message() => Step::Response(response),
            step = send, if may_send => step,
        }
    }

    /// Takes note of a response, and returns it if it is news.
    fn received(&mut self, mut response: SubmitManyResponse) -> Option<SubmitManyResponse> {
        self.lost = None;
        self.backoff.reset();
        let connection = self.connection.as_mut()?;
        let position = *connection.positions.get(&response.position)?;
        let is_last = match response.event.as_ref()? {
            Event::Accepted(_) => {
                self.answered(position)?;
                if self.results {
                    self.unended.insert(position, response.task_id.clone());
                }
                !self.results
            }
            Event::Refused(_) => {
                self.answered(position)?;
                true
            }
            Event::Ended(_) | Event::Unread(_) => {
                self.unended.remove(&position)?;
                true
            }
        };
        if is_last && let Some(connection) = &mut self.connection {
            connection.positions.remove(&response.position);
        }
        response.position = position;
        Some(response)
    }

    fn answered(&mut self, position: u64) -> Option<()> {
        let task = self.unanswered.remove(&position)?;
        self.unanswered_bytes -= task.payload.len();
        Some(())
    }

    /// Sends a task that may have been answered on an earlier stream.
    fn send_again(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let Some(position) = connection.again.pop_front() else {
            return;
        };
        let request = if let Some(id) = self.unended.get(&position) {
            SubmitManyRequest {
                follow: id.clone(),
                ..SubmitManyRequest::default()
            }
        } else if let Some(task) = self.unanswered.get(&position) {
            SubmitManyRequest {
                task: Some(task.clone()),
                ..SubmitManyRequest::default()
            }
        } else {
            return;
        };
        self.send(position, request);
    }

    fn send_next(&mut self, mut task: Task) {
        if task.task_id.is_empty() {
            task.task_id = Uuid::now_v7().to_string();
        }
        let position = self.next_position;
        self.next_position += 1;
        self.unanswered_bytes += task.payload.len();
        self.unanswered.insert(position, task.clone());
        let request = SubmitManyRequest {
            task: Some(task),
            ..SubmitManyRequest::default()
        };
        self.send(position, request);
    }

    fn send(&mut self, position: u64, request: SubmitManyRequest) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.positions.insert(connection.sent, position);
        connection.sent += 1;
        let request = SubmitManyRequest {
            results: self.results,
            ..request
        };
        // There was room before. Without a receiver the task is sent again on the next stream.
        if let Some(requests) = &connection.requests {
            let _ = requests.try_send(request);
        }
    }

    /// Waits before the next attempt to connect. Returns the status if it is not to be retried.
    async fn wait_to_retry(&mut self, status: Status) -> Result<(), Status> {
        let lost = *self.lost.get_or_insert_with(Instant::now);
        if !may_reopen(&status) || lost.elapsed() >= self.retry_timeout {
            return Err(status);
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
        Ok(())
    }
}
