//! Translates what is read of tasks for operators: filters, a task with its attempts, changes, and why a task
//! waits.

use super::{convert, status::IntoStatus};
use crate::{
    budget::Reservation,
    proto::{distributed as wire, hostel::v1, millis},
    queue::{Filter, LoggedChange, TaskDetails, TimeRange},
    scheduler::{Explanation, TaskRead, TaskStatus, WaitReason},
    task::{
        AttemptRecord, Name, Start, State, StateKind, Target, Task, TaskOptions, UnixMs, Violations,
    },
};
use tonic::Status;
use v1::wait_reason::Kind;

/// Makes a filter of a request, or returns all its faults.
pub fn filter(request: &v1::ListTasksRequest) -> Result<Filter, Status> {
    let mut violations = Violations::default();
    let state = state(&request.status, &mut violations);
    let submitted = range(
        "submitted_before_ms",
        (request.submitted_after_ms, request.submitted_before_ms),
        &mut violations,
    );
    let finished = range(
        "finished_before_ms",
        (request.finished_after_ms, request.finished_before_ms),
        &mut violations,
    );
    let version = Some(request.plugin_version.as_str()).filter(|version| !version.is_empty());
    let mut name = |field: &'static str, what: &'static str, given: &str| {
        violations.optional_name(field, what, given)
    };
    let filter = Filter {
        state,
        task_type: name("task_type", "task type", &request.task_type),
        group: name("group", "group", &request.group),
        tag: name("tag", "tag", &request.tag),
        node: name("node", "node", &request.node),
        plugin: name("plugin", "plugin", &request.plugin),
        plugin_version: version.map(Into::into),
        submitted,
        finished,
    };
    checked(filter, violations)
}

/// Parses a state; empty means every state.
pub fn state(given: &str, violations: &mut Violations) -> Option<StateKind> {
    let parsed = (!given.is_empty()).then(|| given.parse::<StateKind>())?;
    let parsed = parsed.map_err(|error| violations.refuse("status", error));
    parsed.ok()
}

/// Returns a value, unless fields of its request are wrong.
pub fn checked<T>(value: T, violations: Violations) -> Result<T, Status> {
    if violations.is_empty() {
        Ok(value)
    } else {
        Err(violations.into_status())
    }
}

fn range(
    field: &'static str,
    (after, before): (u64, u64),
    violations: &mut Violations,
) -> TimeRange {
    if before != 0 && before <= after {
        violations.refuse(
            field,
            "the range of times is empty: it ends before it begins",
        );
    }
    let bound = |ms: u64| (ms != 0).then_some(UnixMs(ms));
    TimeRange {
        from: bound(after),
        until: bound(before),
    }
}

/// A task with its attempts, and the memory that is reserved for it.
pub fn task_read(read: TaskRead) -> (v1::GetTaskResponse, Reservation) {
    let TaskDetails {
        task,
        payload_bytes,
        result_bytes,
        attempts,
    } = read.details;
    let ended = attempts.latest().map(attempt);
    let response = v1::GetTaskResponse {
        submission: Some(submission(&task)),
        payload_bytes: payload_bytes as u64,
        result_bytes: result_bytes as u64,
        attempts: ended.chain(running_attempt(&task)).collect(),
        attempts_left_out: attempts.left_out(),
        status: Some(convert::task_status(TaskStatus {
            waiting_for: read.waiting_for,
            ..TaskStatus::of(task)
        })),
    };
    (response, read.reservation)
}

/// The submission of a task, as a client would repeat it.
fn submission(task: &Task) -> wire::Task {
    let none = TaskOptions::default();
    let options = task.options.as_deref().unwrap_or(&none);
    let (delay_ms, run_at_ms) = match options.start {
        Start::Now => (0, 0),
        Start::After(delay) => (millis(delay), 0),
        Start::At(time) => (0, time.0),
    };
    let [node, label] = match &task.target {
        Target::Any => Default::default(),
        Target::Node(id) => [id.to_string(), String::new()],
        Target::Label(label) => [String::new(), label.to_string()],
    };
    let metadata = task.metadata.iter();
    let unique = options.unique.as_ref();
    wire::Task {
        task_id: task.id.to_string(),
        task_type: task.task_type.to_string(),
        payload: task.payload.clone(),
        metadata: metadata.map(|(k, v)| (k.clone(), v.clone())).collect(),
        node,
        label,
        delay_ms,
        run_at_ms,
        start_by_ms: options.start_by.map_or(0, |time| time.0),
        timeout_ms: options.timeout.map_or(0, millis),
        max_attempts: options.max_attempts.unwrap_or(0),
        backoff_initial_ms: options.backoff_initial.map_or(0, millis),
        backoff_max_ms: options.backoff_max.map_or(0, millis),
        result_ttl_ms: options.result_ttl.map_or(0, millis),
        priority: wire::Priority::from(options.priority).into(),
        group: text(options.group.as_ref()),
        tags: options.tags.iter().map(Name::to_string).collect(),
        unique_key: text(unique.map(|unique| &unique.key)),
        unique_for_ms: unique.and_then(|unique| unique.time).map_or(0, millis),
        ..wire::Task::default()
    }
}

fn attempt(attempt: &AttemptRecord) -> v1::TaskAttempt {
    v1::TaskAttempt {
        number: attempt.number,
        node_id: text(attempt.node.as_ref()),
        plugin: text(attempt.plugin.as_ref()),
        plugin_version: attempt.plugin_version.as_deref().unwrap_or_default().into(),
        started_at_ms: attempt.started_at.0,
        ended_at_ms: attempt.ended_at.0,
        outcome: attempt.class.as_str().into(),
        error: attempt.error.clone().unwrap_or_default(),
        cpu_us: attempt.usage.cpu_us,
        peak_memory_bytes: attempt.usage.peak_memory_bytes,
        log_bytes: attempt.usage.log_bytes,
    }
}

/// The attempt that runs, if one does.
fn running_attempt(task: &Task) -> Option<v1::TaskAttempt> {
    let State::Running {
        node, started_at, ..
    } = &task.state
    else {
        return None;
    };
    Some(v1::TaskAttempt {
        number: task.attempt,
        node_id: node.to_string(),
        started_at_ms: started_at.0,
        outcome: "running".into(),
        ..v1::TaskAttempt::default()
    })
}

pub fn change(logged: LoggedChange) -> v1::TaskChange {
    let change = logged.change;
    v1::TaskChange {
        task_id: change.id.to_string(),
        task_type: change.task_type.to_string(),
        status: change.state.to_string(),
        at_ms: logged.at.0,
        attempt: change.attempt,
        node_id: text(change.node.as_ref()),
        cursor: logged.cursor,
        resync: false,
    }
}

pub fn explanation(explanation: Explanation) -> v1::ExplainTaskResponse {
    v1::ExplainTaskResponse {
        status: explanation.state.to_string(),
        reasons: explanation.reasons.into_iter().map(reason).collect(),
        sentence: explanation.sentence,
    }
}

fn reason(reason: WaitReason) -> v1::WaitReason {
    let text_of_reason = reason.to_string();
    let of = |kind: Kind| v1::WaitReason {
        kind: kind.into(),
        text: text_of_reason,
        ..v1::WaitReason::default()
    };
    match reason {
        WaitReason::NotDue { until, attempt, .. } => v1::WaitReason {
            until_ms: until.0,
            attempt,
            ..of(Kind::NotDue)
        },
        WaitReason::Paused { .. } => of(Kind::Paused),
        WaitReason::NoPlugin { .. } => of(Kind::NoPlugin),
        WaitReason::PluginLoading { node } => v1::WaitReason {
            nodes: vec![node.to_string()],
            ..of(Kind::PluginLoading)
        },
        WaitReason::NoTarget { target, .. } => match target {
            Target::Any => of(Kind::NoTarget),
            Target::Node(node) => v1::WaitReason {
                nodes: vec![node.to_string()],
                ..of(Kind::NoTarget)
            },
            Target::Label(label) => v1::WaitReason {
                label: label.to_string(),
                ..of(Kind::NoTarget)
            },
        },
        WaitReason::Drained { nodes } => v1::WaitReason {
            nodes: nodes.iter().map(Name::to_string).collect(),
            ..of(Kind::Drained)
        },
        WaitReason::LimitReached {
            limit,
            group,
            value,
            count,
        } => v1::WaitReason {
            limit: limit.into(),
            group: text(group.as_ref()),
            limit_value: value,
            count,
            ..of(Kind::LimitReached)
        },
        WaitReason::RateReached { group, until, .. } => v1::WaitReason {
            limit: "max_rate".into(),
            group: text(group.as_ref()),
            until_ms: until.0,
            ..of(Kind::LimitReached)
        },
        WaitReason::Behind {
            count,
            at_least,
            group,
        } => v1::WaitReason {
            count,
            at_least,
            group: text(group.as_ref()),
            ..of(Kind::Behind)
        },
        WaitReason::NoRoom {
            node,
            needed_bytes,
            free_bytes,
        } => v1::WaitReason {
            nodes: vec![node.to_string()],
            needed_bytes,
            free_bytes,
            ..of(Kind::NoRoom)
        },
        WaitReason::Suspect { losses } => v1::WaitReason {
            count: losses.into(),
            ..of(Kind::Suspect)
        },
        WaitReason::StartExpired => of(Kind::StartExpired),
        WaitReason::Slot => of(Kind::Slot),
    }
}

fn text(name: Option<&Name>) -> String {
    name.map(Name::to_string).unwrap_or_default()
}
