//! `hostel tasks get`, `explain` and `watch`: one task with its attempts, what it waits for, and the changes of
//! tasks.

use super::{
    connection::ConnectionArgs,
    error::CliError,
    json::{task_json, task_with_result_json},
    output::{duration, print_field, print_json, print_json_line, print_note, print_table},
    task_progress,
};
use crate::{
    proto::hostel::v1::{
        GetTaskRequest, GetTaskResponse, TaskAttempt, TaskChange, WaitReason, WatchTasksRequest,
        wait_reason::Kind,
    },
    task::StateKind,
};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{io, time::Duration};

/// How long a lost node is tried to be reached again.
const RECONNECT: Duration = Duration::from_secs(60);

/// Print the changes of tasks as they happen, until it is interrupted
///
/// Goes on where it stopped if the connection is lost. A note says if changes were missed.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Only changes of tasks of this type
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    task_type: String,
    /// Only changes into this state: pending, running, completed, failed or cancelled
    #[arg(long, visible_alias = "status", value_name = "STATE")]
    state: Option<StateKind>,
    /// Only changes of tasks of this group
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true
    )]
    group: String,
    /// Only changes of this task; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Begin at this cursor, which --json prints with each change
    #[arg(
        long,
        value_name = "CURSOR",
        default_value = "",
        hide_default_value = true
    )]
    cursor: String,
    /// A JSON document a line
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub async fn run(self) -> Result<(), CliError> {
        let client = self.connection.connect().await?;
        let mut changes = client
            .with_retry_timeout(RECONNECT)
            .watch_tasks(WatchTasksRequest {
                cursor: self.cursor,
                task_type: self.task_type,
                status: self
                    .state
                    .map(|state| state.to_string())
                    .unwrap_or_default(),
                group: self.group,
                task_ids: self.ids,
            });
        while let Some(change) = changes.next().await {
            let change = change?;
            if self.json {
                match print_json_line(&change_json(&change)) {
                    Ok(()) => {}
                    // The reader has gone, as in `| head`.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => {
                        return Err(CliError::failed(format!(
                            "cannot write the output: {error}"
                        )));
                    }
                }
            } else if change.resync {
                print_note(format_args!(
                    "changes were missed: list the tasks that you follow"
                ));
            } else {
                print_change(&change);
            }
        }
        Ok(())
    }
}

fn print_change(change: &TaskChange) {
    let mut words = vec![
        time(change.at_ms),
        change.task_id.clone(),
        change.task_type.clone(),
        change.status.clone(),
    ];
    if change.attempt > 0 {
        words.push(format!("attempt {}", change.attempt));
    }
    if !change.node_id.is_empty() {
        words.push(format!("on {}", change.node_id));
    }
    print_line!("{}", words.join("  "));
}

fn change_json(change: &TaskChange) -> Value {
    if change.resync {
        return json!({ "resync": true, "cursor": change.cursor });
    }
    json!({
        "task_id": change.task_id,
        "task_type": change.task_type,
        "status": change.status,
        "at_ms": change.at_ms,
        "attempt": change.attempt,
        "node_id": change.node_id,
        "cursor": change.cursor,
    })
}

/// Prints what a task waits for.
pub async fn explain(connection: &ConnectionArgs, id: &str, json: bool) -> Result<(), CliError> {
    let explained = connection.connect().await?.explain_task(id).await?;
    if json {
        print_json(&json!({
            "task_id": id,
            "status": explained.status,
            "reasons": explained.reasons.iter().map(reason_json).collect::<Vec<_>>(),
            "sentence": explained.sentence,
        }));
    } else {
        print_line!("{}", explained.sentence);
    }
    Ok(())
}

fn reason_json(reason: &WaitReason) -> Value {
    // Newer nodes may return further ones.
    let kind = Kind::try_from(reason.kind).map_or("other", |kind| kind.as_str_name());
    let mut value = json!({ "kind": kind.to_ascii_lowercase(), "text": reason.text });
    let mut add = |name: &str, given: Value, is_given: bool| {
        if is_given {
            value[name] = given;
        }
    };
    add("until_ms", reason.until_ms.into(), reason.until_ms > 0);
    add("attempt", reason.attempt.into(), reason.attempt > 0);
    add("nodes", json!(reason.nodes), !reason.nodes.is_empty());
    add("label", json!(reason.label), !reason.label.is_empty());
    add("group", json!(reason.group), !reason.group.is_empty());
    add("count", reason.count.into(), reason.count > 0);
    add("at_least", reason.at_least.into(), reason.at_least);
    let has_limit = !reason.limit.is_empty();
    add("limit", json!(reason.limit), has_limit);
    add("limit_value", reason.limit_value.into(), has_limit);
    let has_room = reason.needed_bytes > 0;
    add("needed_bytes", reason.needed_bytes.into(), has_room);
    add("free_bytes", reason.free_bytes.into(), has_room);
    value
}

/// Prints a task with its attempts, with `wait` once it has ended.
pub async fn get(
    connection: &ConnectionArgs,
    id: &str,
    wait: bool,
    json: bool,
) -> Result<(), CliError> {
    let mut client = connection.connect().await?;
    if wait {
        task_progress::wait(&mut client, id).await?;
    }
    let request = GetTaskRequest {
        task_id: id.into(),
        payload: false,
        result: json,
    };
    let task = client.get_task(request).await?;
    if json {
        print_json(&details_json(&task));
        return Ok(());
    }
    let status = task.status.clone().unwrap_or_default();
    let value = task_json(&status);
    let fields = value.as_object().into_iter().flatten();
    for (name, value) in fields {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => print_field(name, text),
            Value::Array(_) if status.tags.is_empty() => {}
            Value::Array(_) => print_field(name, &status.tags.join(", ")),
            Value::Null => {}
            Value::Object(_) => {
                let progress = status.progress.as_ref().map(task_progress::text);
                print_field(name, &progress.unwrap_or_default());
            }
            other if *other == 0 => {}
            other => print_field(name, &other.to_string()),
        }
    }
    let submission = task.submission.unwrap_or_default();
    let mut metadata: Vec<_> = submission.metadata.iter().collect();
    metadata.sort_unstable();
    for (key, value) in metadata {
        print_field("metadata", &format!("{key}={value}"));
    }
    print_field("payload", &format!("{} bytes", task.payload_bytes));
    if status.status == "completed" {
        print_field("result", &format!("{} bytes", task.result_bytes));
    }
    print_attempts(&task.attempts, task.attempts_left_out);
    Ok(())
}

fn print_attempts(attempts: &[TaskAttempt], left_out: u32) {
    if attempts.is_empty() {
        return;
    }
    print_line!("");
    if left_out > 0 {
        print_line!("{left_out} earlier attempts are not shown");
    }
    let rows: Vec<_> = attempts.iter().map(attempt_row).collect();
    let heads = [
        "ATTEMPT", "OUTCOME", "NODE", "PLUGIN", "BEGAN", "TOOK", "CPU", "MEMORY", "LOG", "ERROR",
    ];
    print_table(&heads, &rows);
}

fn attempt_row(attempt: &TaskAttempt) -> Vec<String> {
    let took = attempt.ended_at_ms.checked_sub(attempt.started_at_ms);
    let used = |text: String| {
        let is_known = attempt.cpu_us > 0 || attempt.peak_memory_bytes > 0;
        if is_known { text } else { String::new() }
    };
    let line = attempt.error.lines().next().unwrap_or_default();
    vec![
        attempt.number.to_string(),
        attempt.outcome.clone(),
        attempt.node_id.clone(),
        format!("{} {}", attempt.plugin, attempt.plugin_version)
            .trim()
            .into(),
        time(attempt.started_at_ms),
        took.map(duration).unwrap_or_default(),
        used(format!("{:?}", Duration::from_micros(attempt.cpu_us))),
        used(format!("{} KiB", attempt.peak_memory_bytes.div_ceil(1024))),
        used(format!("{} B", attempt.log_bytes)),
        line.chars().take(80).collect(),
    ]
}

/// A task as JSON with its result, what is known of its submission, and its attempts.
fn details_json(task: &GetTaskResponse) -> Value {
    let mut value = task_with_result_json(&task.status.clone().unwrap_or_default());
    let submission = task.submission.clone().unwrap_or_default();
    value["metadata"] = json!(submission.metadata);
    for (name, ms) in [
        ("delay_ms", submission.delay_ms),
        ("run_at_ms", submission.run_at_ms),
        ("timeout_ms", submission.timeout_ms),
        ("max_attempts", submission.max_attempts.into()),
        ("backoff_initial_ms", submission.backoff_initial_ms),
        ("backoff_max_ms", submission.backoff_max_ms),
        ("result_ttl_ms", submission.result_ttl_ms),
        ("unique_for_ms", submission.unique_for_ms),
    ] {
        value[name] = ms.into();
    }
    value["payload_bytes"] = task.payload_bytes.into();
    value["result_bytes"] = task.result_bytes.into();
    value["history"] = task.attempts.iter().map(attempt_json).collect();
    value["history_left_out"] = task.attempts_left_out.into();
    value
}

fn attempt_json(attempt: &TaskAttempt) -> Value {
    json!({
        "number": attempt.number,
        "outcome": attempt.outcome,
        "node_id": attempt.node_id,
        "plugin": attempt.plugin,
        "plugin_version": attempt.plugin_version,
        "started_at_ms": attempt.started_at_ms,
        "ended_at_ms": attempt.ended_at_ms,
        "error": attempt.error,
        "cpu_us": attempt.cpu_us,
        "peak_memory_bytes": attempt.peak_memory_bytes,
        "log_bytes": attempt.log_bytes,
    })
}

/// Formats a time in RFC 3339, in UTC.
fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().map(Timestamp::from_millisecond);
    time.and_then(Result::ok)
        .map_or_else(|| ms.to_string(), |time| time.to_string())
}
