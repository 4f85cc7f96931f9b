//! Translates between wire types and domain types. What a value may be is checked by the constructors of
//! the domain types.

use super::status::IntoStatus;
use crate::{
    broker::Message,
    component,
    config::Limits,
    discovery::{NodeRecord, ServiceInfo},
    health::{Health, Part, Severity},
    plugin::{Generation, Loading, Rejection, TaskType},
    proto::{distributed as wire, hostel::v1, millis},
    queue::Listing,
    scheduler,
    task::{
        ErrorClass, GivenOptions, Name, OptionLimits, Priority, State, Submission,
        SubmissionLimits, Target, Task, TaskOptions, UnixMs, Violations,
    },
};
use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tonic::Status;
use uuid::Uuid;

/// A new id, which sorts by time.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// `id`, or a new id if it is empty.
fn non_empty_or_new(id: String) -> String {
    if id.is_empty() { new_id() } else { id }
}

pub fn name(what: &'static str, given: &str) -> Result<Name, Status> {
    Name::parse(what, given).map_err(IntoStatus::into_status)
}

/// A name that may be empty, which means none.
pub fn optional_name(what: &'static str, given: &str) -> Result<Option<Name>, Status> {
    (!given.is_empty()).then(|| name(what, given)).transpose()
}

/// What a node accepts of one submission.
#[derive(Debug, Clone)]
pub struct TaskLimits {
    pub submission: SubmissionLimits,
    pub options: OptionLimits,
}

impl TaskLimits {
    /// The limits of a node whose plugins may run for `max_timeout`.
    pub fn new(limits: &Limits, max_timeout: Duration) -> Self {
        Self {
            submission: limits.submission(),
            options: limits.options(max_timeout),
        }
    }
}

/// Makes a submission of a task that arrives at the time `now` of the queue, or returns all its faults. An
/// empty id is filled in.
pub fn submission(
    task: wire::Task,
    limits: &TaskLimits,
    now: UnixMs,
) -> Result<Submission, Violations> {
    let mut violations = Violations::default();
    let target = target(&task.node, &task.label, &mut violations);
    let given = GivenOptions {
        delay_ms: task.delay_ms,
        run_at_ms: task.run_at_ms,
        start_by_ms: task.start_by_ms,
        timeout_ms: task.timeout_ms,
        max_attempts: task.max_attempts,
        backoff_initial_ms: task.backoff_initial_ms,
        backoff_max_ms: task.backoff_max_ms,
        result_ttl_ms: task.result_ttl_ms,
        priority: priority(task.priority, &mut violations),
        group: task.group,
        tags: task.tags,
        unique_key: task.unique_key,
        unique_for_ms: task.unique_for_ms,
    };
    let options = TaskOptions::validate(&given, &limits.options, now, &mut violations);
    let id = non_empty_or_new(task.task_id);
    let metadata = task.metadata.into_iter().collect();
    let task = Submission::new(
        &id,
        &task.task_type,
        task.payload,
        metadata,
        &limits.submission,
    );
    match task {
        Ok(task) if violations.is_empty() => Ok(task.to(target).with(options)),
        Ok(_) => Err(violations),
        Err(mut all) => {
            all.0.append(&mut violations.0);
            Err(all)
        }
    }
}

fn target(node: &str, label: &str, violations: &mut Violations) -> Target {
    let node = violations.optional_name("node", "node", node);
    let label = violations.optional_name("label", "label", label);
    match (node, label) {
        (None, None) => Target::Any,
        (Some(node), None) => Target::Node(node),
        (None, Some(label)) => Target::Label(label),
        (Some(_), Some(_)) => {
            violations.refuse("label", "a task names a node or a label, not both");
            Target::Any
        }
    }
}

pub fn priority(given: i32, violations: &mut Violations) -> Priority {
    match wire::Priority::try_from(given) {
        Ok(priority) => priority.into(),
        Err(_) => {
            violations.refuse("priority", format!("there is no priority {given}"));
            Priority::Normal
        }
    }
}

pub fn task_status(status: scheduler::TaskStatus) -> wire::TaskStatus {
    let waiting_for = status.waiting_for.unwrap_or_default();
    let task = status.task;
    let (started_at, finished_at) = times(&task);
    let ran = task.executed_by.as_ref();
    let [target_node, target_label] = match &task.target {
        Target::Any => Default::default(),
        Target::Node(id) => [id.to_string(), String::new()],
        Target::Label(label) => [String::new(), label.to_string()],
    };
    let options = task.options.as_deref();
    let text = |name: Option<&Name>| name.map(Name::to_string).unwrap_or_default();
    wire::TaskStatus {
        priority: wire::Priority::from(options.map_or(Priority::Normal, |it| it.priority)).into(),
        group: text(options.and_then(|it| it.group.as_ref())),
        tags: options.map_or_else(Vec::new, |it| it.tags.iter().map(Name::to_string).collect()),
        unique_key: text(options.and_then(|it| it.unique.as_ref()).map(|it| &it.key)),
        start_by_ms: options.and_then(|it| it.start_by).map_or(0, |time| time.0),
        progress: task.progress.map(|it| wire::TaskProgress {
            done: it.done,
            total: it.total,
            note: it.note,
        }),
        target_node,
        target_label,
        status: task.state.kind().as_str().into(),
        attempts: task.attempt,
        submitted_at_ms: task.submitted_at.0,
        started_at_ms: started_at.0,
        finished_at_ms: finished_at.0,
        due_at_ms: match task.state {
            State::Pending { due_at } => due_at.0,
            _ => 0,
        },
        node_id: match (&task.state, ran) {
            (State::Running { node, .. }, _) => node.to_string(),
            (_, Some(ran)) => ran.node.to_string(),
            _ => String::new(),
        },
        plugin: ran.map(|ran| ran.plugin.to_string()).unwrap_or_default(),
        plugin_version: ran
            .map(|ran| ran.plugin_version.to_string())
            .unwrap_or_default(),
        waiting_for,
        finishes: task.finishes,
        losses: task.losses,
        task_id: task.id.to_string(),
        task_type: task.task_type.to_string(),
        error: task.error.unwrap_or_default(),
        error_class: task.error_class.map_or("", ErrorClass::as_str).into(),
        result: match task.state {
            State::Completed { result, .. } => result,
            _ => Default::default(),
        },
    }
}

/// When the latest attempt began and when the task ended; zero if they did not.
fn times(task: &Task) -> (UnixMs, UnixMs) {
    match task.state {
        State::Pending { .. } => Default::default(),
        State::Running { started_at, .. } => (started_at, UnixMs::default()),
        State::Completed {
            started_at,
            finished_at,
            ..
        } => (started_at, finished_at),
        State::Failed {
            started_at,
            finished_at,
        }
        | State::Cancelled {
            started_at,
            finished_at,
        } => (started_at.unwrap_or_default(), finished_at),
    }
}

pub fn listing(listing: Listing) -> v1::ListTasksResponse {
    let tasks = listing.tasks.into_iter();
    v1::ListTasksResponse {
        tasks: tasks
            .map(|task| task_status(scheduler::TaskStatus::of(task)))
            .collect(),
        next_page_token: listing.next.unwrap_or_default(),
    }
}

pub fn service(request: wire::RegisterRequest) -> Result<ServiceInfo, Status> {
    Ok(ServiceInfo {
        id: name("node id", &request.node_id)?,
        name: name("service name", &request.service_name)?,
        address: request.address,
        metadata: request.metadata.into_iter().collect(),
        ttl: (request.ttl_ms > 0).then(|| Duration::from_millis(request.ttl_ms)),
    })
}

pub fn node(service: ServiceInfo) -> wire::Node {
    wire::Node {
        node_id: service.id.to_string(),
        address: service.address,
        metadata: HashMap::from_iter(service.metadata),
    }
}

/// A message that a client sends.
pub fn message(message: wire::Message, max_payload_bytes: usize) -> Result<Message, Status> {
    let message = Message {
        to: name("to_node", &message.to_node)?,
        id: non_empty_or_new(message.message_id),
        from: message.from_node,
        message_type: message.message_type,
        payload: message.payload,
        in_reply_to: message.in_reply_to,
        // Set by components and nodes only.
        error: String::new(),
        reply_to: None,
    };
    message
        .check(max_payload_bytes)
        .map_err(IntoStatus::into_status)?;
    Ok(message)
}

pub fn delivered(message: Message) -> wire::Message {
    wire::Message {
        from_node: message.from,
        to_node: message.to.to_string(),
        payload: message.payload,
        message_type: message.message_type,
        message_id: message.id,
        in_reply_to: message.in_reply_to,
        error: message.error,
        ..Default::default()
    }
}

pub fn plugin(generation: &Generation) -> v1::Plugin {
    let task_types = generation.task_types.iter();
    v1::Plugin {
        name: generation.name.to_string(),
        version: generation.version.clone(),
        description: generation.description.clone(),
        sha256: generation.sha256.clone(),
        file: file_name(&generation.file),
        loaded_at_ms: unix_ms(generation.loaded_at),
        task_types: task_types.map(|t| task_type(t)).collect(),
    }
}

fn task_type(task_type: &TaskType) -> v1::TaskType {
    v1::TaskType {
        name: task_type.name.to_string(),
        description: task_type.description.clone(),
        timeout_ms: millis(task_type.timeout),
        max_attempts: task_type.retry.max_attempts,
        backoff_initial_ms: millis(task_type.retry.backoff_initial),
        backoff_max_ms: millis(task_type.retry.backoff_max),
        max_concurrency: task_type
            .max_concurrency
            .map_or(0, |max| u32::try_from(max).unwrap_or(u32::MAX)),
    }
}

pub fn rejected(rejection: &Rejection) -> v1::RejectedFile {
    v1::RejectedFile {
        file: file_name(&rejection.file),
        error: rejection.error.clone(),
    }
}

pub fn loading(loading: &Loading) -> v1::LoadingFile {
    let task_types = loading.task_types.iter();
    v1::LoadingFile {
        file: file_name(&loading.file),
        since_ms: unix_ms(loading.since),
        task_types: task_types.map(ToString::to_string).collect(),
    }
}

/// The file name without its directories, which are internal to the node.
fn file_name(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

pub fn component(status: component::Status) -> v1::Component {
    v1::Component {
        id: status.id.to_string(),
        state: status.state.to_string(),
        version: status.version,
        sha256: status.sha256,
        topics: status.topics.iter().map(Name::to_string).collect(),
        since_ms: unix_ms(status.since),
        error: status.error.unwrap_or_default(),
        handled: status.handled,
        failed: status.failed,
        refused: status.refused,
        waiting: status.waiting as u64,
        starts: status.starts,
    }
}

pub fn cluster_node(node: &NodeRecord, drained: bool) -> v1::Node {
    let all = |names: &[Name]| names.iter().map(Name::to_string).collect();
    let plugins = node.plugins.iter().map(|plugin| v1::NodePlugin {
        name: plugin.name.to_string(),
        version: plugin.version.clone(),
        sha256: plugin.sha256.clone(),
    });
    v1::Node {
        id: node.id.to_string(),
        address: node.address.clone(),
        version: node.version.clone(),
        capacity: u32::try_from(node.capacity).unwrap_or(u32::MAX),
        labels: all(&node.labels),
        task_types: node.task_types.iter().map(Name::to_string).collect(),
        plugins: plugins.collect(),
        components: all(&node.components),
        drained,
    }
}

/// The health of a node: every part with its faults.
pub fn health(node: &Name, health: &Health) -> v1::GetHealthResponse {
    let faults = health.faults();
    let part = |part: Part| {
        let own = faults.iter().filter(|((of, _), _)| *of == part);
        let own = own.map(|((_, kind), fault)| v1::Fault {
            kind: (*kind).into(),
            severity: fault.severity.as_str().into(),
            reason: fault.reason.clone(),
            since_ms: unix_ms(fault.since),
        });
        v1::PartHealth {
            name: part.as_str().into(),
            state: health.worst_of(part).map_or("ok", Severity::as_str).into(),
            vital: part.is_vital(),
            faults: own.collect(),
        }
    };
    v1::GetHealthResponse {
        node_id: node.to_string(),
        serving: health.is_serving(),
        parts: Part::ALL.map(part).into(),
    }
}

/// A moment in the past as a wall-clock time.
pub fn unix_ms_of(moment: Instant) -> u64 {
    let now = SystemTime::now();
    unix_ms(now.checked_sub(moment.elapsed()).unwrap_or(now))
}

fn unix_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
