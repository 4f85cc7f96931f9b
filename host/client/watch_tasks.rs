//! `WatchTasks`: the changes of tasks, which survive the loss of the connection by their cursor.

use super::{
    options::AuthChannel,
    retry::{BACKOFF, may_reopen},
};
use crate::proto::hostel::v1::{
    TaskChange, WatchTasksRequest, task_service_client::TaskServiceClient,
};
use hostel_backoff::Backoff;
use std::time::{Duration, Instant};
use tonic::{Status, Streaming};

/// The changes of `DistributedClient::watch_tasks`.
pub struct WatchTasks {
    client: TaskServiceClient<AuthChannel>,
    retry_timeout: Duration,
    /// With the cursor to go on from.
    request: WatchTasksRequest,
    stream: Option<Streaming<TaskChange>>,
    /// Since when the connection is lost.
    lost: Option<Instant>,
    backoff: Backoff,
    is_over: bool,
}

impl WatchTasks {
    pub(super) fn new(
        client: TaskServiceClient<AuthChannel>,
        retry_timeout: Duration,
        request: WatchTasksRequest,
    ) -> Self {
        Self {
            client,
            retry_timeout,
            request,
            stream: None,
            lost: None,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            is_over: false,
        }
    }

    /// Returns the next change, or one with `resync` if changes were missed. Returns `None` after an error: the
    /// node refuses the stream, or it could not be reached until the retry timeout. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<TaskChange, Status>> {
        while !self.is_over {
            match self.advance().await {
                Ok(change) if change.task_id.is_empty() && !change.resync => {}
                Ok(change) => return Some(Ok(change)),
                Err(status) => {
                    self.stream = None;
                    if let Err(status) = self.wait_to_retry(status).await {
                        self.is_over = true;
                        return Some(Err(status));
                    }
                }
            }
        }
        None
    }

    /// The cursor behind what was returned so far; empty before the first message of the node.
    pub fn cursor(&self) -> &str {
        &self.request.cursor
    }

    /// Waits for the next message.
    async fn advance(&mut self) -> Result<TaskChange, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let opened = self.client.watch_tasks(self.request.clone()).await?;
                self.stream.insert(opened.into_inner())
            }
        };
        let message = stream.message().await?;
        let message = message
            .ok_or_else(|| Status::unavailable("the node has ended the stream of changes"))?;
        self.lost = None;
        self.backoff.reset();
        if !message.cursor.is_empty() {
            self.request.cursor.clone_from(&message.cursor);
        }
        Ok(message)
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
