//! Attempts that end from outside: the node stops, or the task is cancelled, requeued or timed out; and
//! tasks that wait for the concurrency limit of their type.

use crate::support::{
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::{BUSY, TRAP, guest, showcase},
    task,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::{
        distributed::{Task, TaskStatus},
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};
use tonic::Code;

pub fn trials() -> Vec<Trial> {
    [
        on_both("drain::a_stop_loses_nothing", a_graceful_stop_loses_no_task),
        on_both(
            "drain::a_cancellation_interrupts_a_running_attempt",
            a_cancellation_interrupts_a_running_attempt,
        ),
        on_both(
            "drain::a_requeued_dead_letter_runs_again",
            a_requeued_dead_letter_runs_again,
        ),
        on_both(
            "drain::a_timeout_ends_the_attempt",
            a_timeout_ends_the_attempt,
        ),
        on_both(
            "drain::a_task_type_keeps_its_concurrency_limit",
            a_task_type_keeps_its_concurrency_limit,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A number of milliseconds that never pass.
const FOR_EVER: u32 = u32::MAX;

/// Settings that allow work without end.
const UNLIMITED_TIME: &str = "[plugin.busy.limits]\nmax_cpu_ms = 3600000\n\
    [plugin.busy.task.busy]\ntimeout_ms = 3600000\nmax_attempts = 1\n";

/// Returns a plugin that computes for the time in the payload and then returns the payload.
fn busy_plugin(version: &str, handle: &str) -> Vec<u8> {
    guest(&TestGuest {
        name: "busy",
        version,
        task_types: &["busy"],
        handle,
        ..TestGuest::default()
    })
}

fn busy_for(ms: u32) -> Task {
    task("busy", ms.to_le_bytes())
}

/// Starts a node with version 1 of that plugin.
async fn busy_node(on: Backend, settings: &str) -> Node {
    let mut node = on.prepare(&[&showcase("echo")], settings).await;
    node.add_wasm("busy.wasm", &busy_plugin("1", BUSY));
    node.restart().await;
    node
}

async fn wait_for_state(client: &DistributedClient, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = client.clone().get_task_status(id).await.expect("known");
        (status.status == state).then_some(status)
    })
    .await
}

async fn a_graceful_stop_loses_no_task(on: Backend) {
    let mut node = busy_node(on, UNLIMITED_TIME).await;
    let mut client = node.client();
    let mut short = Vec::new();
    let mut endless = Vec::new();
    for _ in 0..3 {
        short.push(client.submit_task(busy_for(1500)).await.unwrap());
        endless.push(client.submit_task(busy_for(FOR_EVER)).await.unwrap());
    }
    // Two further calls that wait for the end of their task.
    let waits = |id: &str, ms| {
        let task = Task {
            task_id: id.into(),
            ..busy_for(ms)
        };
        let mut client = node.client();
        tokio::spawn(async move { client.submit_and_wait(task).await })
    };
    let answered = waits("short", 1500);
    let cut_off = waits("endless", FOR_EVER);
    short.push("short".into());
    endless.push("endless".into());
    for id in &endless {
        eventually("it is known", async || {
            client.clone().get_task_status(id).await.ok()
        })
        .await;
        wait_for_state(&client, id, "running").await;
    }

    // A client that submits until a call fails.
    let stopping = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn({
        let (mut client, stopping) = (node.client(), stopping.clone());
        async move {
            let mut acknowledged = Vec::new();
            loop {
                let during = stopping.load(SeqCst);
                let number = acknowledged.len();
                match client.submit_task(task("echo", number.to_string())).await {
                    Ok(id) => acknowledged.push((id, during)),
                    Err(status) => return (acknowledged, status),
                }
            }
        }
    });
    node.request_stop();
    stopping.store(true, SeqCst);
    // These tasks end within the drain time of 10 s, and the node still answers.
    for id in &short {
        let status = client.wait_for_task(id).await.unwrap();
        assert_eq!(status.status, "completed", "{status:?}");
    }
    let status = node.wait_for_exit().await;
    assert_eq!(status.code(), Some(0), "{status}:\n{}", node.log());
    // No waiting call was cut off.
    assert!(!node.log().contains("were cut off"), "{}", node.log());
    let answered = answered.await.unwrap().unwrap();
    assert_eq!(answered.status, "completed", "{answered:?}");
    // The task was accepted nevertheless; it ends below.
    let cut_off = cut_off.await.unwrap().unwrap_err();
    assert_ne!(cut_off.code(), Code::FailedPrecondition, "{cut_off}");
    let (acknowledged, end) = submitting.await.unwrap();
    assert_ne!(end.code(), Code::FailedPrecondition, "{end}");
    let during = acknowledged.iter().filter(|(_, during)| *during).count();
    println!("drain: {during} tasks accepted while the node stopped");
    assert!(during > 0, "nothing was submitted while the node stopped");

    // The next version finishes the remaining tasks. A released attempt is not counted: these tasks
    // have only one.
    let echoes = TestGuest::default().handle;
    node.add_wasm("busy.wasm", &busy_plugin("2", echoes));
    node.restart().await;
    let mut client = node.client();
    for (ids, version) in [(&short, "1"), (&endless, "2")] {
        for id in ids {
            let status = client.wait_for_task(id).await.unwrap();
            assert_eq!(status.status, "completed", "{status:?}");
            assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
            assert_eq!(status.plugin_version, version, "{status:?}");
        }
    }
    for (number, (id, _)) in acknowledged.iter().enumerate() {
        let status = client.wait_for_task(id).await.unwrap();
        assert_eq!(status.status, "completed", "{status:?}");
        assert_eq!(status.result, number.to_string().as_bytes());
        assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
    }
    let status = node.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}:\n{}", node.log());
}

async fn a_cancellation_interrupts_a_running_attempt(on: Backend) {
    let settings = format!("{UNLIMITED_TIME}max_concurrency = 1\n");
    let node = busy_node(on, &settings).await;
    let mut client = node.client();
    let running = client.submit_task(busy_for(FOR_EVER)).await.unwrap();
    wait_for_state(&client, &running, "running").await;
    let waiting = client.submit_task(busy_for(0)).await.unwrap();

    assert_eq!(client.cancel_task(&waiting).await.unwrap(), "cancelled");
    let status = client.get_task_status(&waiting).await.unwrap();
    assert_eq!(status.status, "cancelled");
    assert_eq!((status.attempts, status.finishes), (0, 1), "{status:?}");
    assert_eq!(status.started_at_ms, 0);

    // The guest never yields, and its timeout is an hour away.
    assert_eq!(client.cancel_task(&running).await.unwrap(), "asked");
    let status = wait_for_state(&client, &running, "cancelled").await;
    assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
    assert!(status.result.is_empty());
    assert_eq!(client.cancel_task(&running).await.unwrap(), "cancelled");
    let again = client.get_task_status(&running).await.unwrap();
    assert_eq!(again, status);

    // Its place is free, and a cancelled task can be requeued.
    client.requeue_task(&waiting).await.unwrap();
    let status = client.wait_for_task(&waiting).await.unwrap();
    assert_eq!(status.status, "completed", "{status:?}");
    assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
    assert_eq!(client.cancel_task(&waiting).await.unwrap(), "completed");
    let refused = client.requeue_task(&waiting).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let unknown = client.cancel_task("nobody").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
}

async fn a_requeued_dead_letter_runs_again(on: Backend) {
    let settings = "[plugin.busy.task.busy]\nmax_attempts = 3\n\
        backoff_initial_ms = 1\nbackoff_max_ms = 1\n";
    let node = busy_node(on, settings).await;
    node.add_wasm("busy.wasm", &busy_plugin("2", TRAP));
    let mut client = node.client();
    eventually("the broken version serves", async || {
        let list = node.client().list_plugins().await.unwrap();
        list.plugins.iter().any(|p| p.version == "2").then_some(())
    })
    .await;
    let failed = client.submit_and_wait(busy_for(0)).await.unwrap();
    assert_eq!(failed.status, "failed");
    assert_eq!((failed.attempts, failed.finishes), (3, 1), "{failed:?}");
    assert!(failed.error.contains("attempt 3 of 3"), "{failed:?}");
    assert_eq!(failed.plugin_version, "2");

    node.add_wasm("busy.wasm", &busy_plugin("3", BUSY));
    eventually("the fixed version serves", async || {
        let list = node.client().list_plugins().await.unwrap();
        list.plugins.iter().any(|p| p.version == "3").then_some(())
    })
    .await;
    let id = failed.task_id;
    client.requeue_task(&id).await.unwrap();
    let status = client.wait_for_task(&id).await.unwrap();
    assert_eq!(status.status, "completed", "{status:?}");
    assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
    assert_eq!(status.result, &0_u32.to_le_bytes()[..]);
    assert_eq!(status.plugin_version, "3");
}

async fn a_timeout_ends_the_attempt(on: Backend) {
    let settings = "[plugin.busy.task.busy]\ntimeout_ms = 200\nmax_attempts = 2\n\
        backoff_initial_ms = 1\nbackoff_max_ms = 1\n";
    let node = busy_node(on, settings).await;
    let mut client = node.client();
    let failed = client.submit_and_wait(busy_for(FOR_EVER)).await.unwrap();
    assert_eq!(failed.status, "failed");
    assert_eq!((failed.attempts, failed.finishes), (2, 1), "{failed:?}");
    assert!(failed.error.contains("attempt 2 of 2"), "{failed:?}");
    assert!(failed.error.contains("timeout"), "{failed:?}");
    assert!(
        failed.finished_at_ms >= failed.started_at_ms + 200,
        "{failed:?}"
    );
    // Other tasks are not affected.
    let echoed = client.submit_and_wait(task("echo", "on")).await.unwrap();
    assert_eq!(echoed.status, "completed");
}

async fn a_task_type_keeps_its_concurrency_limit(on: Backend) {
    let settings = format!("{UNLIMITED_TIME}max_concurrency = 2\n");
    let node = busy_node(on, &settings).await;
    let mut client = node.client();
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(client.submit_task(busy_for(FOR_EVER)).await.unwrap());
    }
    // No task ends by itself, so the running ones are those that were admitted.
    while !open.is_empty() {
        let expected = open.len().min(2);
        let running = eventually("the limit is used", async || {
            let running = running_ids(&node).await;
            assert!(running.len() <= 2, "{running:?}");
            (running.len() == expected).then_some(running)
        })
        .await;
        // Tasks of other types overtake the waiting ones.
        for _ in 0..20 {
            let echoed = client.submit_and_wait(task("echo", "by")).await.unwrap();
            assert_eq!(echoed.status, "completed");
            assert_eq!(running_ids(&node).await, running);
        }
        assert_eq!(client.cancel_task(&running[0]).await.unwrap(), "asked");
        wait_for_state(&client, &running[0], "cancelled").await;
        open.retain(|id| *id != running[0]);
    }
}

/// Returns the ids of the running busy tasks in order.
async fn running_ids(node: &Node) -> Vec<String> {
    let request = ListTasksRequest {
        status: "running".into(),
        task_type: "busy".into(),
        ..ListTasksRequest::default()
    };
    let listed = node.client().list_tasks(request).await.unwrap();
    let mut ids: Vec<_> = listed.tasks.into_iter().map(|task| task.task_id).collect();
    ids.sort_unstable();
    ids
}
