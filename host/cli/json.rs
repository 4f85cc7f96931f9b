//! Tasks as the JSON that several commands print.

use crate::{
    proto::distributed::{Priority as WirePriority, TaskStatus},
    task::Priority,
};
use serde_json::{Value, json};

/// A task as JSON without its result.
pub fn task_json(task: &TaskStatus) -> Value {
    json!({
        "task_id": task.task_id,
        "task_type": task.task_type,
        "status": task.status,
        "attempts": task.attempts,
        "error": task.error,
        "error_class": task.error_class,
        "waiting_for": task.waiting_for,
        "target_node": task.target_node,
        "target_label": task.target_label,
        "priority": priority(task.priority),
        "group": task.group,
        "tags": task.tags,
        "unique_key": task.unique_key,
        "start_by_ms": task.start_by_ms,
        "submitted_at_ms": task.submitted_at_ms,
        "due_at_ms": task.due_at_ms,
        "started_at_ms": task.started_at_ms,
        "finished_at_ms": task.finished_at_ms,
        "node_id": task.node_id,
        "plugin": task.plugin,
        "plugin_version": task.plugin_version,
        "finishes": task.finishes,
        "losses": task.losses,
        "progress": task.progress.as_ref().map(|it| json!({
            "done": it.done,
            "total": it.total,
            "note": it.note,
        })),
    })
}

/// The name of a priority. Newer nodes may return further ones.
pub fn priority(number: i32) -> String {
    let known = WirePriority::try_from(number).map(Priority::from);
    known.map_or_else(|_| number.to_string(), |priority| priority.to_string())
}

/// A task as JSON with its result, which is `null` unless it is UTF-8.
pub fn task_with_result_json(task: &TaskStatus) -> Value {
    let mut value = task_json(task);
    value["result_bytes"] = task.result.len().into();
    value["result"] = std::str::from_utf8(&task.result).map_or(Value::Null, Value::from);
    value
}
