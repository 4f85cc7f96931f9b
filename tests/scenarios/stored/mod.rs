//! What earlier versions have stored: each format as a file in `tests/fixtures`, made by the binary
//! of that version (`make`), opened by today's (`open`). Here is what the files contain.

mod make;
mod open;

use crate::support::{
    node::Node,
    plugins::{guest, showcase, source},
    task,
};
use hostel::{
    plugin::Sample,
    proto::distributed::{Message, Task, TaskStatus},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{collections::HashMap, path::PathBuf};

pub fn trials() -> Vec<Trial> {
    open::trials().into_iter().chain(make::trials()).collect()
}

/// The version of the stored formats.
const VERSION: &str = "v1";

/// The bound on ended tasks that lets a fixture live for ten years, and leases that end soon.
const QUEUE: &str = "keep_ended_ms = 315360000000\nlease_ttl_ms = 2000";

const METADATA: [(&str, &str); 2] = [("key", "value"), ("clé", "two\nlines ☃")];

/// The event that the plugin `rates` has counted, and how often.
const EVENT: (&str, u64) = ("login", 7);

/// The services that a client has registered.
const SERVICE: (&str, &str, &str) = ("web", "front", "10.0.0.1:80");

fn fixture(name: &str) -> PathBuf {
    source().join("tests/fixtures").join(VERSION).join(name)
}

/// Every byte there is.
fn binary() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

/// A payload that keeps the type `busy` busy for ever.
fn endless() -> Vec<u8> {
    [&u32::MAX.to_le_bytes()[..], &binary()].concat()
}

/// The tasks of a fixture, one in every state that a task can be stored in.
fn tasks() -> Vec<Task> {
    let named = |id: &str, task: Task| Task {
        task_id: id.into(),
        ..task
    };
    let metadata = METADATA.map(|(key, value)| (key.into(), value.into()));
    let with_metadata = |task: Task| Task {
        metadata: HashMap::from(metadata.clone()),
        ..task
    };
    let event = format!("{{\"name\":{:?},\"count\":{}}}", EVENT.0, EVENT.1);
    vec![
        named("completed", with_metadata(task("echo", binary()))),
        named("completed-empty", task("echo", "")),
        Task {
            node: "test".into(),
            ..named("completed-node", task("echo", "n"))
        },
        Task {
            label: "gpu".into(),
            ..named("completed-label", task("echo", "l"))
        },
        named("completed-event", task("record-event", event)),
        named("failed", with_metadata(task("trap", binary()))),
        named("failed-again", task("trap", "requeued once")),
        named("cancelled", task("later", "cancelled while it waits")),
        named("cancelled-running", task("busy", endless())),
        named("waiting", with_metadata(task("later", binary()))),
        named("running", with_metadata(task("busy", endless()))),
        Task {
            label: "gpu".into(),
            ..named("queued", task("busy", endless()))
        },
    ]
}

/// A message that asks for an answer.
fn message() -> Message {
    Message {
        from_node: "sender".into(),
        to_node: "room".into(),
        payload: binary().into(),
        message_type: "note".into(),
        message_id: "message-1".into(),
        reply_timeout_ms: 1000,
        ..Message::default()
    }
}

/// Gives a node the plugins of the tasks: `behave` where all of them echo, else such as leave tasks
/// in every state.
fn add_plugins(node: &Node, behave: bool) {
    let all: [(&str, &[&str], &str); 3] = [
        ("echo", &["echo"], hostel::plugin::sample::ECHO),
        ("traps", &["trap", "later"], crate::support::plugins::TRAP),
        ("busy", &["busy"], crate::support::plugins::BUSY),
    ];
    for (name, task_types, handle) in all {
        let handle = if behave { all[0].2 } else { handle };
        let sample = Sample {
            name,
            task_types,
            handle,
            ..Sample::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &guest(&sample));
    }
    node.add_plugin(&showcase("rates"));
}

/// A node that is not started yet, with these settings.
fn prepare(settings: &str, behave: bool) -> Node {
    let mut node = Node::prepare(&[], settings);
    node.set("labels = [\"gpu\"]");
    node.set_in("queue", QUEUE);
    node.set_in("plugin.traps.task.trap", "max_attempts = 2");
    node.set_in("plugin.traps.task.trap", "backoff_initial_ms = 1");
    node.set_in("plugin.traps.task.later", "backoff_initial_ms = 604800000");
    node.set_in("plugin.traps.task.later", "backoff_max_ms = 604800000");
    node.set_in("plugin.busy.task.busy", "timeout_ms = 3600000");
    node.set_in("plugin.busy.task.busy", "max_concurrency = 1");
    add_plugins(&node, behave);
    node
}

/// What a status says that no later version may change.
fn facts(status: &TaskStatus) -> Value {
    json!({
        "id": status.task_id,
        "type": status.task_type,
        "status": status.status,
        "result": status.result.to_vec(),
        "attempts": status.attempts,
        "error": status.error,
        "submitted_at_ms": status.submitted_at_ms,
        "started_at_ms": status.started_at_ms,
        "finished_at_ms": status.finished_at_ms,
        "due_at_ms": status.due_at_ms,
        "finishes": status.finishes,
        "node": status.node_id,
        "plugin": status.plugin,
        "plugin_version": status.plugin_version,
        "target_node": status.target_node,
        "target_label": status.target_label,
    })
}
