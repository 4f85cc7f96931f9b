//! What commands print on stdout: columns for people, JSON for programs.

use super::exit::Failure;
use crate::proto::{distributed::TaskStatus, hostel::v1};
use serde_json::{Value, json};
use std::{
    fmt,
    io::{self, Write},
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// One line on stdout; what cannot be written ends the command, without a word when it is because
/// nobody reads on.
pub fn line(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            process::exit(0);
        }
        Failure::node(anyhow::Error::new(error).context("cannot write the output")).report();
        process::exit(1);
    }
}

/// One JSON document, and nothing else on stdout.
pub fn print_json(value: &Value) {
    say!("{value:#}");
}

/// Rows under their heads, as wide as they need to be.
pub fn print_table(heads: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(heads[column].len())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<_> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        say!("{}", cells.join("  ").trim_end());
    };
    line(&mut heads.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// A task without its result, which is the task's own bytes and goes out by itself.
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
        "submitted_at_ms": task.submitted_at_ms,
        "due_at_ms": task.due_at_ms,
        "started_at_ms": task.started_at_ms,
        "finished_at_ms": task.finished_at_ms,
        "node_id": task.node_id,
        "plugin": task.plugin,
        "plugin_version": task.plugin_version,
        "finishes": task.finishes,
    })
}

/// A task with its result as text, where it is text; a program that needs other bytes asks over gRPC.
pub fn task_with_result_json(task: &TaskStatus) -> Value {
    let mut value = task_json(task);
    value["result_bytes"] = task.result.len().into();
    value["result"] = std::str::from_utf8(&task.result).map_or(Value::Null, Value::from);
    value
}

pub fn plugin_json(plugin: &v1::Plugin) -> Value {
    let task_types = plugin.task_types.iter().map(|task_type| {
        json!({
            "name": task_type.name,
            "description": task_type.description,
            "timeout_ms": task_type.timeout_ms,
            "max_attempts": task_type.max_attempts,
            "backoff_initial_ms": task_type.backoff_initial_ms,
            "backoff_max_ms": task_type.backoff_max_ms,
            "max_concurrency": task_type.max_concurrency,
        })
    });
    json!({
        "name": plugin.name,
        "version": plugin.version,
        "description": plugin.description,
        "sha256": plugin.sha256,
        "file": plugin.file,
        "loaded_at_ms": plugin.loaded_at_ms,
        "task_types": task_types.collect::<Vec<_>>(),
    })
}

/// How long ago a time in milliseconds since the epoch was, roughly: `5s`, `3m`, `2h`, `4d`.
pub fn ago(at_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    let seconds = now.saturating_sub(u128::from(at_ms)) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds as people write them.
pub fn duration(ms: u64) -> String {
    format!("{:?}", Duration::from_millis(ms))
}
