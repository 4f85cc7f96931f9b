//! Stored formats of earlier versions: the binary of that version creates the files in
//! `tests/fixtures` (`make`), and the current one opens them (`open`). This file defines their content.

mod make;
mod open;

use crate::support::{
    node::Node,
    plugins::{guest, showcase, source},
    task,
};
use hostel::{
    plugin::TestGuest,
    proto::distributed::{Message, Task, TaskStatus},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{collections::HashMap, path::PathBuf};

pub fn trials() -> Vec<Trial> {
    open::trials().into_iter().chain(make::trials()).collect()
}

/// The version of the stored formats that `make` creates, and those whose databases `open` opens.
const VERSION: &str = "v2";
const VERSIONS: [&str; 2] = [FIRST, VERSION];

/// The version whose fixtures of servers `open` opens.
const FIRST: &str = "v1";

/// Settings that keep ended tasks for ten years and make leases short.
const QUEUE: &str = "keep_completed_ms = 315360000000\nkeep_failed_ms = 315360000000\n\
    keep_cancelled_ms = 315360000000\nlease_ttl_ms = 2000";

const METADATA: [(&str, &str); 2] = [("key", "value"), ("clé", "two\nlines ☃")];

/// The event that the plugin `rates` has counted, and its count.
const EVENT: (&str, u64) = ("login", 7);

/// The service that a client has registered: its name, node id and address.
const SERVICE: (&str, &str, &str) = ("web", "front", "10.0.0.1:80");

fn fixture(version: &str, name: &str) -> PathBuf {
    source().join("tests/fixtures").join(version).join(name)
}

/// Returns every byte value.
fn binary() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

/// Returns a payload that makes a `busy` task run without end.
fn endless() -> Vec<u8> {
    [&u32::MAX.to_le_bytes()[..], &binary()].concat()
}

/// Returns the tasks of a fixture, one for every state that is stored.
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

/// Returns a message that requests an answer.
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

/// Adds the plugins of the tasks. If `behave` is set, all of them return the payload; otherwise they
/// leave tasks in every state.
fn add_plugins(node: &Node, behave: bool) {
    let all: [(&str, &[&str], &str); 3] = [
        ("echo", &["echo"], hostel::plugin::test_guest::ECHO),
        ("traps", &["trap", "later"], crate::support::plugins::TRAP),
        ("busy", &["busy"], crate::support::plugins::BUSY),
    ];
    for (name, task_types, handle) in all {
        let handle = if behave { all[0].2 } else { handle };
        let sample = TestGuest {
            name,
            task_types,
            handle,
            ..TestGuest::default()
        };
        node.add_wasm(&format!("{name}.wasm"), &guest(&sample));
    }
    node.add_plugin(&showcase("rates"));
}

/// Prepares a node with these settings.
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

/// Returns the fields of a status that a later version must not change.
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
