//! What the cases share: short names for calls of a queue, and for the values that they take.

pub use crate::{
    error::Error,
    lease_request::{LeaseRequest, RequestedType, RequestedTypes},
    status_read::StatusRead,
    task_queue::{
        Cancel, Filter, Finish, Finished, LeaseToken, Leased, Page, Renew, Renewal, Requeue,
        Submitted, TaskQueue,
    },
    watch::{Changes, Watch},
};
use bytes::Bytes;
pub use hostel_task::{
    Acted, Action, ErrorClass, ExecutedBy, KeepTimes, Name, Outcome, Priority, Progress, Resources,
    Retention, Start, State, StateKind, Submission, SubmissionLimits, Target, Task, TaskId,
    TaskOptions, Unique, UnixMs,
};
use std::collections::BTreeMap;
pub use std::{sync::Arc, time::Duration};

/// How many open tasks the queue under test admits.
pub const MAX_OPEN_TASKS: usize = 3000;

pub const HOUR: Duration = Duration::from_secs(3600);

/// A valid name.
pub fn name(given: &str) -> Name {
    Name::parse("name", given).unwrap()
}

/// A submission without metadata.
pub fn task(id: &str, task_type: &str, payload: &[u8]) -> Submission {
    task_with(id, task_type, payload, &[])
}

/// A submission with these pairs of metadata.
pub fn task_with(id: &str, task_type: &str, payload: &[u8], pairs: &[(&str, &str)]) -> Submission {
    let limits = SubmissionLimits {
        payload_bytes: 1 << 24,
        metadata_entries: 64,
        metadata_bytes: 1 << 16,
    };
    let metadata: BTreeMap<String, String> = pairs
        .iter()
        .map(|&(key, value)| (key.into(), value.into()))
        .collect();
    let payload = Bytes::copy_from_slice(payload);
    Submission::new(id, task_type, payload, metadata, &limits).unwrap()
}

/// A submission with options.
pub fn with_options(id: &str, task_type: &str, options: TaskOptions) -> Submission {
    task(id, task_type, b"payload").with(options)
}

/// The options of a task of a group.
pub fn in_group(group: &str) -> TaskOptions {
    TaskOptions {
        group: Some(name(group)),
        ..TaskOptions::default()
    }
}

/// The options of a task of a priority.
pub fn of_priority(priority: Priority) -> TaskOptions {
    TaskOptions {
        priority,
        ..TaskOptions::default()
    }
}

/// A request of node-1, which has the labels gpu and eu, for up to so many tasks of each type.
pub fn request(types: &[(&str, usize)], max: usize, ttl: Duration) -> LeaseRequest {
    LeaseRequest {
        node: name("node-1"),
        labels: vec![name("gpu"), name("eu")],
        types: types
            .iter()
            .map(|&(task_type, max)| (name(task_type), limits(max, 1)))
            .collect::<RequestedTypes>()
            .into(),
        remaining: BTreeMap::new(),
        only: None,
        available: Resources::UNLIMITED,
        max,
        allow_suspect: true,
        ttl,
    }
}

/// The limits of a type whose tasks take `mib` MiB of memory each.
pub fn limits(max: usize, mib: usize) -> RequestedType {
    let needs = Resources {
        memory_bytes: mib << 20,
        pool_slots: 1,
    };
    RequestedType::unlimited(max, needs)
}

/// Sets the cluster-wide concurrency limit of a type.
pub fn limited(mut request: LeaseRequest, task_type: &str, max: usize) -> LeaseRequest {
    let types = Arc::make_mut(&mut request.types);
    types
        .get_mut(&name(task_type))
        .unwrap()
        .max_cluster_concurrency = Some(max);
    request
}

pub fn executed_by() -> ExecutedBy {
    ExecutedBy {
        node: name("node-1"),
        plugin: name("plugin-1"),
        plugin_version: "1.2.3+build 4".into(),
    }
}

pub async fn submit_one(queue: &dyn TaskQueue, submission: Submission) -> Submitted {
    let mut answers = queue.submit(vec![submission]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

/// Submits new tasks together.
pub async fn create_all(queue: &dyn TaskQueue, tasks: impl IntoIterator<Item = Submission>) {
    let answers = queue.submit(tasks.into_iter().collect()).await.unwrap();
    let is_new = |answer: &Submitted| *answer == Submitted::Created;
    assert!(answers.iter().all(is_new), "{answers:?}");
}

pub async fn create(queue: &dyn TaskQueue, id: &str, task_type: &str) {
    let answer = submit_one(queue, task(id, task_type, b"payload")).await;
    assert_eq!(answer, Submitted::Created, "{id}");
}

pub async fn lease_some(queue: &dyn TaskQueue, task_type: &str, max: usize) -> Vec<Leased> {
    let request = request(&[(task_type, max)], max, HOUR);
    queue.lease(&request).await.unwrap()
}

pub async fn lease_one(queue: &dyn TaskQueue, task_type: &str) -> Leased {
    let mut leased = lease_some(queue, task_type, 1).await;
    leased.pop().expect("a task is due")
}

/// Finishes one attempt.
pub async fn finish_one(queue: &dyn TaskQueue, token: &LeaseToken, outcome: Outcome) -> Finished {
    let finish = Finish::new(token.clone(), outcome, Some(executed_by()));
    let answers = queue.finish(vec![finish]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

/// Renews one lease without new progress.
pub async fn renew_one(queue: &dyn TaskQueue, token: &LeaseToken, ttl: Duration) -> Renewal {
    let answers = queue.renew(&[token.clone().into()], ttl).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

pub async fn get(queue: &dyn TaskQueue, id: &str) -> Task {
    let found = queue.get(&name(id)).await.unwrap();
    found.unwrap_or_else(|| panic!("{id} is unknown"))
}

pub async fn kind(queue: &dyn TaskQueue, id: &str) -> StateKind {
    get(queue, id).await.state.kind()
}

pub fn completed(result: &[u8]) -> Outcome {
    Outcome::Completed {
        result: Bytes::copy_from_slice(result),
    }
}

pub fn failed(error: &str) -> Outcome {
    Outcome::Failed {
        error: error.into(),
    }
}

pub fn retry(after: Duration, error: &str) -> Outcome {
    let error = error.into();
    Outcome::Retry { after, error }
}

/// Ends attempts of the task `id` in every way after which it is tried again, and asserts that two leases are
/// enough for it each time: it keeps its place beside the tasks that wait.
pub async fn is_leased_soon_again(queue: &dyn TaskQueue, id: &str) {
    let lost = Outcome::Lost {
        after: Duration::ZERO,
        error: "its node died".into(),
    };
    for outcome in [
        Some(retry(Duration::ZERO, "again")),
        Some(Outcome::Released),
        Some(lost),
        Some(failed("no")),
        None,
    ] {
        let leased = lease_some(queue, "echo", 2).await;
        let again = leased.iter().find(|task| task.token.id == name(id));
        let again = again.unwrap_or_else(|| panic!("{outcome:?}: {leased:?}"));
        let Some(outcome) = outcome else { continue };
        let is_failure = matches!(outcome, Outcome::Failed { .. });
        finish_one(queue, &again.token, outcome).await;
        if is_failure {
            let requeued = queue.requeue(&name(id)).await.unwrap();
            assert_eq!(requeued, Requeue::Requeued);
        }
        tick().await;
    }
}

pub fn ids(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(|task| task.token.id.as_str()).collect()
}

/// Waits until the next millisecond, so that two due times differ.
pub async fn tick() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

pub async fn list_all(queue: &dyn TaskQueue, filter: &Filter, size: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut after = None;
    loop {
        let listing = queue.list(filter, &Page { size, after }).await.unwrap();
        assert!(listing.tasks.len() <= size);
        tasks.extend(listing.tasks);
        after = listing.next;
        if after.is_none() {
            return tasks;
        }
    }
}

/// Returns how long until the next task of the type is due.
pub async fn next_due(queue: &dyn TaskQueue, task_type: &str) -> Option<Duration> {
    let request = request(&[(task_type, 1)], 1, HOUR);
    queue.next_due(&request).await.unwrap()
}

/// Waits until `time` has passed by the clock of the queue, and a little longer.
pub async fn pass(time: Duration) {
    tokio::time::sleep(time + Duration::from_millis(50)).await;
}

/// Returns the due time of a pending task.
pub fn due_at(task: &Task) -> Option<UnixMs> {
    match task.state {
        State::Pending { due_at } => Some(due_at),
        _ => None,
    }
}
