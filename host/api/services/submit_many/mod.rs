//! `SubmitMany`: gathers the tasks of a stream into batches, stores one while the next is gathered, answers
//! each task, and sends the ends. All of it happens while the client takes responses: a client that does
//! not read sends nothing more either. What has no room in the queue waits, and so does the client.

mod answers;
mod batch;
mod results;

pub use results::{Budgets, TRACKED_BUDGET_BYTES};

use super::stream::revoked;
use crate::{
    api::{
        convert::{self, TaskLimits},
        security::auth::{AuthContext, WatchedContext},
        status::{self, IntoStatus},
    },
    budget::{Budget, SharedReservation},
    proto::hostel::v1::{SubmitManyRequest, SubmitManyResponse},
    scheduler::{Accepted, Error, TaskScheduler},
    task::{Name, Submission, TaskId, Violations},
};
use batch::{Batch, MAX_TASKS, Payloads};
use futures_util::{FutureExt, future::BoxFuture};
use hostel_backoff::Backoff;
use results::{Large, Results};
use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How many tasks are invalid at most before the responses that say so are sent.
const MAX_INVALID: usize = 16;

/// How many tasks are tried at once while the queue is full.
const PROBE: usize = 16;

/// The delay before tasks are tried again: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

pub type Responses = Pin<Box<dyn Stream<Item = Result<SubmitManyResponse, Status>> + Send>>;

/// What a stream needs of its node and its call.
pub struct Setup {
    pub scheduler: Arc<dyn TaskScheduler>,
    pub limits: TaskLimits,
    /// Ends with the server.
    pub end: CancellationToken,
    /// The token that admitted the stream, if tokens are required.
    pub auth: Option<AuthContext>,
    /// The memory of the request that was received last, if it is large.
    pub arrived: SharedReservation,
    /// The budget for requests.
    pub received: Budget,
    pub budgets: Budgets,
}

/// One stream's side of the conversation.
struct Conversation<S> {
    setup: Setup,
    auth: Option<WatchedContext>,
    /// `None` once the client has closed its side.
    incoming: Option<S>,
    /// Whether the first request was received, which says whether to send results.
    has_begun: bool,
    next_position: u64,
    payloads: Payloads,
    gathering: Batch,
    storing: Batch,
    attempt: Option<BoxFuture<'static, Vec<Result<Accepted, Error>>>>,
    /// How many of the tasks in `storing` the attempt has, or the next one.
    attempted: usize,
    /// When to try again.
    retry_at: Option<Instant>,
    backoff: Backoff,
    ready: VecDeque<SubmitManyResponse>,
    results: Option<Results>,
    /// Why the stream ends early, once the attempt is answered.
    ending: Option<Status>,
}

/// The next event of a conversation.
#[expect(
    clippy::large_enum_variant,
    reason = "each is made once and moved on at once; a box would be an allocation for each request"
)]
enum Turn {
    Answers(Vec<Result<Accepted, Error>>),
    Request(Option<Result<SubmitManyRequest, Status>>),
    Due(Vec<(u64, TaskId)>),
    Retry,
    End(Status),
}

/// The responses of a new conversation.
pub fn responses<S>(incoming: S, mut setup: Setup) -> Responses
where
    S: Stream<Item = Result<SubmitManyRequest, Status>> + Unpin + Send + 'static,
{
    let mut conversation = Conversation {
        auth: setup.auth.take().map(AuthContext::watch),
        setup,
        incoming: Some(incoming),
        has_begun: false,
        next_position: 0,
        payloads: Payloads::default(),
        gathering: Batch::default(),
        storing: Batch::default(),
        attempt: None,
        attempted: MAX_TASKS,
        retry_at: None,
        backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
        ready: VecDeque::new(),
        results: None,
        ending: None,
    };
    Box::pin(async_stream::stream! {
        loop {
            while let Some(response) = conversation.ready.pop_front() {
                yield Ok(response);
            }
            if let Some((response, _memory)) = conversation.next_large().await {
                yield Ok(response);
                continue;
            }
            match conversation.outcome() {
                None => conversation.turn().await,
                Some(Ok(())) => break,
                Some(Err(status)) => {
                    yield Err(status);
                    break;
                }
            }
        }
    })
}

impl<S> Conversation<S>
where
    S: Stream<Item = Result<SubmitManyRequest, Status>> + Unpin,
{
    /// How the stream ends, if it does now.
    fn outcome(&mut self) -> Option<Result<(), Status>> {
        if self.attempt.is_some() {
            return None;
        }
        if let Some(status) = self.ending.take() {
            return Some(Err(status));
        }
        let is_stored = self.gathering.is_empty() && self.storing.is_empty();
        let is_sent = self.results.as_ref().is_none_or(Results::is_empty);
        (self.incoming.is_none() && is_stored && is_sent).then_some(Ok(()))
    }

    /// Ends the stream early.
    fn end(&mut self, status: Status) {
        self.incoming = None;
        self.ending.get_or_insert(status);
    }

    /// Waits for the next event, and acts on it.
    async fn turn(&mut self) {
        self.attempt();
        if !self.ready.is_empty() {
            return;
        }
        match self.next_turn().await {
            Turn::Answers(answers) => self.answered(answers),
            Turn::Request(request) => self.gather(request),
            Turn::Due(due) => self.read(due).await,
            Turn::Retry => self.retry_at = None,
            Turn::End(status) => self.end(status),
        }
        // Before responses are sent, so that the queue works meanwhile.
        self.attempt();
    }

    async fn next_turn(&mut self) -> Turn {
        let may_read = self.may_read();
        let is_open = self.ending.is_none();
        let Self {
            setup,
            auth,
            incoming,
            attempt,
            retry_at,
            results,
            ..
        } = self;
        tokio::select! {
            biased;
            answers = or_never(attempt.as_mut()) => Turn::Answers(answers),
            () = setup.end.cancelled(), if is_open => Turn::End(status::stopping()),
            () = revoked(auth), if is_open => Turn::End(status::revoked()),
            request = next(incoming), if may_read => Turn::Request(request),
            () = or_never(retry_at.map(sleep_until)), if is_open => Turn::Retry,
            due = next_ends(results), if is_open => Turn::Due(due),
        }
    }

    /// Whether there is room for another request.
    fn may_read(&mut self) -> bool {
        let gathered = self.gathering.len();
        let results = self.results.as_mut();
        self.incoming.is_some()
            && self.gathering.has_room()
            && results.is_none_or(|results| results.has_room(gathered))
    }

    /// Takes in a request, and those that have arrived with it.
    fn gather(&mut self, mut request: Option<Result<SubmitManyRequest, Status>>) {
        let before = self.ready.len();
        loop {
            match request {
                Some(Ok(request)) => self.take_in(request),
                Some(Err(status)) => return self.end(status),
                None => {
                    self.incoming = None;
                    return;
                }
            }
            if self.ready.len() - before >= MAX_INVALID || !self.may_read() {
                return;
            }
            let next = next(&mut self.incoming).now_or_never();
            let Some(next) = next else {
                return;
            };
            request = next;
        }
    }

    fn take_in(&mut self, request: SubmitManyRequest) {
        let own = self.setup.arrived.take();
        let SubmitManyRequest {
            task,
            results,
            follow,
        } = request;
        if !std::mem::replace(&mut self.has_begun, true) && results {
            let scheduler = self.setup.scheduler.clone();
            let budgets = self.setup.budgets.clone();
            self.results = Some(Results::new(scheduler, budgets));
        }
        if task.is_none() && follow.is_empty() {
            return;
        }
        let position = self.next_position;
        self.next_position += 1;
        let Some(mut task) = task else {
            return self.follow(position, follow);
        };
        task.payload = self.payloads.own(task.payload);
        let id = task.task_id.clone();
        match convert::submission(task, &self.setup.limits, self.setup.scheduler.now()) {
            Ok(task) => {
                let budget = &self.setup.received;
                self.gathering.push((position, task), own, budget);
            }
            Err(invalid) => self.refuse(position, id, invalid),
        }
    }

    /// Sends the end of a task that was accepted before.
    fn follow(&mut self, position: u64, id: String) {
        let refused = match (&mut self.results, Name::parse("follow", &id)) {
            (Some(results), Ok(id)) => {
                results.follow([(position, id)]);
                results.stored(position, Accepted::Existing);
                return;
            }
            (None, _) => "follow needs a stream with results".to_owned(),
            (_, Err(error)) => error.to_string(),
        };
        let mut violations = Violations::default();
        violations.refuse("follow", refused);
        self.refuse(position, id, violations);
    }

    fn refuse(&mut self, position: u64, id: String, invalid: Violations) {
        let status = invalid.clone().into_status();
        let refusal = answers::invalid(position, id, invalid, &status);
        self.ready.push_back(refusal);
    }

    /// Begins to store the next tasks, if there are any and none is being stored.
    fn attempt(&mut self) {
        if self.attempt.is_some() || self.retry_at.is_some() || self.ending.is_some() {
            return;
        }
        if self.storing.is_empty() {
            if self.gathering.is_empty() {
                return;
            }
            self.storing = std::mem::take(&mut self.gathering);
            self.attempted = MAX_TASKS;
            if let Some(results) = &mut self.results {
                let tasks = self.storing.iter();
                results.follow(tasks.map(|(position, task)| (*position, task.id().clone())));
            }
        }
        let tasks = self.storing.iter().take(self.attempted);
        let tasks: Vec<Submission> = tasks.map(|(_, task)| task.clone()).collect();
        self.attempted = tasks.len();
        let scheduler = self.setup.scheduler.clone();
        let mut attempt = async move { scheduler.submit_many(tasks).await }.boxed();
        match (&mut attempt).now_or_never() {
            None => self.attempt = Some(attempt),
            Some(answers) => self.answered(answers),
        }
    }

    /// Answers the first of the tasks that were attempted. Those that may be accepted soon stay.
    fn answered(&mut self, answers: Vec<Result<Accepted, Error>>) {
        self.attempt = None;
        let durability = self.setup.scheduler.durability().as_str();
        let (mut kept, mut is_full, mut must_split) = (Vec::new(), false, false);
        let answered = self.storing.take(answers.len());
        let count = answered.len();
        for ((position, task), answer) in answered.into_iter().zip(answers) {
            match answer {
                Ok(accepted) => {
                    let response = answers::accepted(position, task.id(), &accepted, durability);
                    self.ready.push_back(response);
                    if let Some(results) = &mut self.results {
                        results.stored(position, accepted);
                    }
                }
                Err(error) if error.passes_soon() => {
                    is_full = true;
                    kept.push((position, task));
                }
                Err(error) if error.is_outage() => self.end(error.into_status()),
                // The fault may be that of one task.
                Err(Error::Queue(_)) if self.attempted > 1 => {
                    must_split = true;
                    kept.push((position, task));
                }
                Err(error) => {
                    let refusal = answers::refused(position, task.id(), &error.into_status());
                    self.ready.push_back(refusal);
                    if let Some(results) = &mut self.results {
                        results.refused(position);
                    }
                }
            }
        }
        if kept.len() < count || !is_full {
            self.backoff.reset();
        }
        let is_split = self.attempted == 1 && !is_full;
        self.attempted = match (must_split || is_split, is_full) {
            (true, _) => 1,
            (false, true) => PROBE,
            (false, false) => MAX_TASKS,
        };
        if is_full {
            self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        }
        self.storing.put_back(kept);
        if self.storing.is_empty() {
            // Releases its memory.
            self.storing = Batch::default();
        }
    }

    /// Reads tasks that may have ended.
    async fn read(&mut self, due: Vec<(u64, TaskId)>) {
        let Some(results) = &mut self.results else {
            return;
        };
        match results.read(due).await {
            Ok(responses) => self.ready.extend(responses),
            Err(status) => self.end(status),
        }
    }

    /// The next response with a large result, with its memory. The responses before it were taken.
    async fn next_large(&mut self) -> Option<Large> {
        let results = self.results.as_mut()?;
        results.responses_taken();
        while self.ending.is_none()
            && let Some(large) = results.take_large()
        {
            let read = tokio::select! {
                read = results.read_large(large) => read,
                () = self.setup.end.cancelled() => Err(status::stopping()),
            };
            match read {
                Ok(None) => {}
                Ok(Some(response)) => return Some(response),
                Err(status) => {
                    self.incoming = None;
                    self.ending.get_or_insert(status);
                }
            }
        }
        None
    }
}

/// Waits for the next request, for ever if there is none.
async fn next<S: Stream + Unpin>(incoming: &mut Option<S>) -> Option<S::Item> {
    match incoming {
        Some(incoming) => incoming.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for tasks that may have ended, for ever without results.
async fn next_ends(results: &mut Option<Results>) -> Vec<(u64, TaskId)> {
    match results {
        Some(results) => results.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for `future`, for ever if there is none.
async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
