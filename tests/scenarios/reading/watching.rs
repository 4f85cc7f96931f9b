//! `WatchTasks` and `hostel tasks watch`.

use super::*;
use crate::support::{DEADLINE, ledger, node::hostel};
use hostel::proto::hostel::v1::{
    TaskChange, WatchTasksRequest, task_service_client::TaskServiceClient,
};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};
use tonic::{Code, Status, Streaming};

/// One stream, of which the test receives each message itself.
struct Raw(Streaming<TaskChange>);

impl Raw {
    async fn open(node: &Node, request: WatchTasksRequest) -> Self {
        let mut client = TaskServiceClient::new(ledger::channel(node.address()));
        let stream = client.watch_tasks(request).await;
        Self(stream.expect("a stream").into_inner())
    }

    async fn from(node: &Node, cursor: &str) -> Self {
        let cursor = cursor.into();
        let request = WatchTasksRequest {
            cursor,
            ..WatchTasksRequest::default()
        };
        Self::open(node, request).await
    }

    async fn message(&mut self) -> Result<TaskChange, Status> {
        let message = tokio::time::timeout(DEADLINE, self.0.message());
        let message = message.await.expect("a message");
        message.map(|message| message.expect("a stream that goes on"))
    }

    /// The next message that is more than a cursor.
    async fn next(&mut self) -> TaskChange {
        loop {
            let message = self.message().await.unwrap();
            if !message.task_id.is_empty() || message.resync {
                return message;
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<TaskChange> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.push(self.next().await);
        }
        changes
    }
}

/// The next task that ends, with its state.
async fn ended(stream: &mut Raw) -> (String, String) {
    loop {
        let change = stream.next().await;
        if !["pending", "running"].contains(&&*change.status) {
            return (change.task_id, change.status);
        }
    }
}

/// Begins a stream, and returns it with its first cursor.
async fn begin(node: &Node) -> (Raw, String) {
    let mut stream = Raw::from(node, "").await;
    let first = stream.message().await.unwrap();
    assert!(first.task_id.is_empty() && !first.resync, "{first:?}");
    (stream, first.cursor)
}

/// The states of a task, in the order of the changes.
fn states<'c>(changes: &'c [TaskChange], id: &str) -> Vec<&'c str> {
    let of_task = changes.iter().filter(|change| change.task_id == id);
    of_task.map(|change| &*change.status).collect()
}

/// Whether these are the states of a task that completes at its first attempt. One that begins to run as it is
/// submitted is not pending before. A lease may be given back unused if something else wakes the worker meanwhile.
fn is_complete(states: &[&str]) -> bool {
    let mut begun = states.strip_prefix(&["pending"]).unwrap_or(states);
    while let Some(rest) = begun.strip_prefix(&["running", "pending"]) {
        begun = rest;
    }
    begun == ["running", "completed"]
}

async fn run_some(node: &Node, ids: impl Iterator<Item = usize>) {
    for id in ids {
        let sample = named(&format!("t{id}"), task("sample", ""));
        let ended = node.client().submit_and_wait(sample).await.unwrap();
        assert_eq!(ended.status, "completed");
    }
}

pub async fn changes_survive_a_reconnect(on: Backend) {
    let node = start(on, "").await;
    let (mut stream, _) = begin(&node).await;
    run_some(&node, 0..5).await;
    let mut changes = Vec::new();
    while !changes.iter().any(|it: &TaskChange| it.task_id == "t2") {
        changes.push(stream.next().await);
    }
    drop(stream);
    run_some(&node, 5..10).await;
    // From each cursor on, what follows comes again, and nothing else.
    let cursor = &changes.last().unwrap().cursor;
    let mut stream = Raw::from(&node, cursor).await;
    while states(&changes, "t9").last() != Some(&"completed") {
        let change = stream.next().await;
        assert!(!change.resync, "{change:?}");
        changes.push(change);
    }
    for id in 0..10 {
        let states = states(&changes, &format!("t{id}"));
        assert!(is_complete(&states), "t{id}: {states:?}");
    }
    for change in &changes {
        assert_eq!(change.task_type, "sample");
        assert!(change.at_ms > 0 && !change.cursor.is_empty(), "{change:?}");
        if change.status == "pending" && change.attempt > 0 {
            // A lease that was given back.
            continue;
        }
        let ran = change.status != "pending";
        assert_eq!(change.attempt, u32::from(ran), "{change:?}");
        assert_eq!(change.node_id, if ran { "test" } else { "" }, "{change:?}");
    }
    let middle = changes.len() / 2;
    let mut stream = Raw::from(&node, &changes[middle].cursor).await;
    let again = stream.take(changes.len() - middle - 1).await;
    assert_eq!(again, changes[middle + 1..]);

    for cursor in ["x", "p1", "☃"] {
        let mut stream = Raw::from(&node, cursor).await;
        let refused = stream.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{cursor}: {refused}");
    }
}

pub async fn changes_pass_a_filter(on: Backend) {
    let node = start(on, "").await;
    let of = |request: WatchTasksRequest| Raw::open(&node, request);
    let mut by_type = of(WatchTasksRequest {
        task_type: "trap".into(),
        ..WatchTasksRequest::default()
    })
    .await;
    let mut by_state = of(WatchTasksRequest {
        status: "completed".into(),
        ..WatchTasksRequest::default()
    })
    .await;
    let mut by_group = of(WatchTasksRequest {
        group: "g".into(),
        ..WatchTasksRequest::default()
    })
    .await;
    let mut by_id = of(WatchTasksRequest {
        task_ids: vec!["c".into(), "unknown".into()],
        ..WatchTasksRequest::default()
    })
    .await;
    for stream in [&mut by_type, &mut by_state, &mut by_group, &mut by_id] {
        // The first message says from where on changes are sent.
        assert!(stream.message().await.unwrap().task_id.is_empty());
    }
    let mut client = node.client();
    client
        .submit_and_wait(named("a", task("sample", "")))
        .await
        .unwrap();
    let failing = Task {
        max_attempts: 1,
        ..named("b", task("trap", ""))
    };
    client.submit_and_wait(failing).await.unwrap();
    let grouped = Task {
        group: "g".into(),
        ..named("c", task("sample", ""))
    };
    client.submit_and_wait(grouped).await.unwrap();
    let pair = |id: &str, status: &str| (id.to_owned(), status.to_owned());
    assert_eq!(ended(&mut by_type).await, pair("b", "failed"));
    assert_eq!(ended(&mut by_state).await, pair("a", "completed"));
    assert_eq!(ended(&mut by_state).await, pair("c", "completed"));
    assert_eq!(ended(&mut by_group).await, pair("c", "completed"));
    assert_eq!(ended(&mut by_id).await, pair("c", "completed"));
    let too_many = WatchTasksRequest {
        task_ids: vec!["a".into(); 1001],
        status: "done".into(),
        ..WatchTasksRequest::default()
    };
    let mut client = TaskServiceClient::new(ledger::channel(node.address()));
    let refused = client.watch_tasks(too_many).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for field in ["task_ids: 1001", "status: "] {
        assert!(refused.message().contains(field), "{refused}");
    }
}

pub async fn a_restart_is_followed_or_reported(on: Backend) {
    let mut node = start(on, "").await;
    let (stream, cursor) = begin(&node).await;
    drop(stream);
    run_some(&node, 0..1).await;
    node.terminate().await;
    node.restart().await;
    let mut stream = Raw::from(&node, &cursor).await;
    let first = stream.next().await;
    match on {
        // The record of changes is in memory.
        Backend::Embedded => assert!(first.resync, "{first:?}"),
        Backend::Shared => {
            let mut changes = vec![first];
            while states(&changes, "t0").last() != Some(&"completed") {
                changes.push(stream.next().await);
            }
            assert!(is_complete(&states(&changes, "t0")), "{changes:?}");
        }
    }
    run_some(&node, 1..2).await;
    let mut changes = Vec::new();
    while states(&changes, "t1").last() != Some(&"completed") {
        changes.push(stream.next().await);
    }
    assert!(is_complete(&states(&changes, "t1")), "{changes:?}");
}

pub async fn changes_are_followed_on_another_node() {
    let shared = Shared::start().await;
    let prepared = |id: &str| {
        let node = Node::prepare(&[], &shared.settings()).named(id);
        add_plugins(&node);
        node
    };
    let mut a = prepared("a").started().await;
    let b = prepared("b").started().await;
    let (stream, cursor) = begin(&a).await;
    drop(stream);
    run_some(&a, 0..3).await;
    a.kill();
    run_some(&b, 3..6).await;
    let mut stream = Raw::from(&b, &cursor).await;
    let mut changes = Vec::new();
    let has_ended = |changes: &[TaskChange], id: usize| {
        states(changes, &format!("t{id}")).last() == Some(&"completed")
    };
    while !(0..6).all(|id| has_ended(&changes, id)) {
        let change = stream.next().await;
        assert!(!change.resync, "{change:?}");
        changes.push(change);
    }
    for id in 0..6 {
        let states = states(&changes, &format!("t{id}"));
        assert!(is_complete(&states), "t{id}: {states:?}");
    }
}

pub async fn changes_on_the_command_line(on: Backend) {
    let node = start(on, "").await;
    let (stream, cursor) = begin(&node).await;
    drop(stream);
    run_some(&node, 0..2).await;
    let arguments = [
        "tasks",
        "watch",
        "--json",
        "--type",
        "sample",
        "--status",
        "completed",
        "--cursor",
        &cursor,
    ];
    let mut child = hostel()
        .env("HOSTEL_SERVER", node.address())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("hostel runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let line = lines.next().expect("a line").expect("text");
        let change: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(change["status"], "completed", "{line}");
        seen.push(change["task_id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(seen, ["t0", "t1"]);
    let _ = child.kill();
    let _ = child.wait();
    let refused = node.cli(&["tasks", "watch", "--cursor", "x"]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let refused = node.cli(&["tasks", "watch", "--state", "done"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

pub async fn the_client_goes_on_after_a_lost_connection(on: Backend) {
    let mut node = start(on, "").await;
    let (stream, cursor) = begin(&node).await;
    drop(stream);
    let mut client = node.client().with_retry_timeout(DEADLINE);
    let mut watch = client.watch_tasks(WatchTasksRequest {
        cursor,
        status: "completed".into(),
        ..WatchTasksRequest::default()
    });
    let mut next = async || {
        let next = tokio::time::timeout(DEADLINE, watch.next()).await;
        let change = next.expect("a change").expect("no end");
        change.expect("a node that comes back")
    };
    run_some(&node, 0..1).await;
    assert_eq!(next().await.task_id, "t0");
    let address = node.address().to_owned();
    node.terminate().await;
    node.set_listen(&address);
    node.restart().await;
    if on == Backend::Embedded {
        // The record of changes was in memory.
        assert!(next().await.resync);
    }
    run_some(&node, 1..2).await;
    let change = next().await;
    assert_eq!(
        (&*change.task_id, change.resync),
        ("t1", false),
        "{change:?}"
    );
}
