//! Admission: a node leases only tasks for which it has memory, large tasks are not starved, and the
//! death of a node costs only the task that caused it.

use super::cluster::{self, Shared};
use crate::support::{
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    plugins::{BUSY, guest, showcase},
    task, trial, trial_needing,
};
use hostel::{
    plugin::TestGuest,
    proto::distributed::{Task, TaskStatus},
};
use libtest_mimic::Trial;
use std::time::Duration;

const FOR_EVER: u32 = u32::MAX;

/// The time after which a dead node is no longer listed.
const TTL: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "admission::component_memory_is_separate_from_task_memory",
            component_memory_is_separate_from_task_memory,
        ),
        trial_needing(
            "admission::memory_limits_are_compared_with_the_machine",
            true,
            memory_limits_are_compared_with_the_machine,
        ),
        cluster::trial(
            "a_node_without_room_leaves_tasks_to_others",
            a_node_without_room_leaves_tasks_to_others,
        ),
    ];
    trials.extend(on_both_needing(
        "admission::small_tasks_overtake_a_large_one_without_room",
        true,
        small_tasks_overtake_a_large_one_without_room,
    ));
    trials.extend(on_both_needing(
        "admission::a_large_task_is_not_starved",
        true,
        a_large_task_is_not_starved,
    ));
    trials.extend(on_both_needing(
        "admission::a_task_that_kills_its_nodes_fails_alone",
        true,
        a_task_that_kills_its_nodes_fails_alone,
    ));
    trials
}

/// Returns a plugin with one task type of the same name.
fn plugin(name: &str, handle: &str) -> Vec<u8> {
    guest(&TestGuest {
        name,
        task_types: &[name],
        handle,
        ..TestGuest::default()
    })
}

/// Returns settings that allow work without end, for a plugin with one task type.
fn unlimited_time(name: &str) -> String {
    format!(
        "[plugin.{name}.limits]\nmax_cpu_ms = 3600000\n\
         [plugin.{name}.task.{name}]\ntimeout_ms = 3600000\nmax_attempts = 2\n\
         backoff_initial_ms = 20\nbackoff_max_ms = 100\n"
    )
}

fn busy_for(task_type: &str, ms: u32) -> Task {
    task(task_type, ms.to_le_bytes())
}

async fn wait_for_state(node: &Node, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = node.client().get_task_status(id).await.expect("known");
        (status.status == state).then_some(status)
    })
    .await
}

/// A component reserves its memory limit for as long as it lives.
async fn component_memory_is_separate_from_task_memory() {
    // Memory for one guest in all: it belongs to tasks, and the component is rejected.
    let tight = "[plugins]\nmax_total_memory_bytes = 104857600\n";
    let node = Node::prepare(&[&showcase("rates")], tight);
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
    let node = node.started().await;
    let status = node.client().submit_and_wait(task("sample", "x")).await;
    assert_eq!(status.unwrap().status, "completed");
    let listed = node.cli(&["plugins", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for setting in [
        "plugins.sandbox.max_memory_bytes",
        "plugins.max_component_memory_bytes",
    ] {
        assert!(listed.contains(setting), "{listed}");
    }

    // Memory for one task and one component.
    let wide = "[plugins]\nmax_total_memory_bytes = 134217728\n";
    let node = Node::prepare(&[&showcase("rates")], wide);
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
    let node = node.started().await;
    eventually("the component runs", async || {
        let listed = node.cli(&["components", "list"]);
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        (listed.contains("rates") && listed.contains("running")).then_some(())
    })
    .await;
    let status = node.client().submit_and_wait(task("sample", "x")).await;
    assert_eq!(status.unwrap().status, "completed");
}

async fn memory_limits_are_compared_with_the_machine() {
    let settings = "[plugins]\nmax_total_memory_bytes = 70368744177664\n";
    let node = Node::start(&[], settings).await;
    let log = node.log();
    assert!(
        log.contains("this machine or its cgroup has"),
        "the total is not reported: {log}"
    );
    let settings = "[plugins]\nmax_total_memory_bytes = 268435456\nmax_tasks = 9\n";
    let node = Node::start(&[], settings).await;
    let log = node.log();
    assert!(log.contains("3 of 9 tasks (plugins.max_tasks)"), "{log}");
}

/// Starts a node with 100 MiB for tasks, small tasks of 20 MiB and large ones of 90 MiB.
async fn sized(on: Backend) -> Node {
    let settings = format!(
        "[plugins]\nmax_total_memory_bytes = 105906176\nmax_component_memory_bytes = 1048576\n\
         [plugins.sandbox]\nmax_memory_bytes = 20971520\n{}{}",
        unlimited_time("small"),
        unlimited_time("large").replace("limits]\n", "limits]\nmax_memory_bytes = 94371840\n"),
    );
    let node = on.prepare(&[], &settings).await;
    node.add_wasm("small.wasm", &plugin("small", BUSY));
    node.add_wasm("large.wasm", &plugin("large", BUSY));
    node.started().await
}

async fn small_tasks_overtake_a_large_one_without_room(on: Backend) {
    let node = sized(on).await;
    let mut client = node.client();
    let endless = client.submit_task(busy_for("small", FOR_EVER)).await;
    let endless = endless.expect("accepted");
    wait_for_state(&node, &endless, "running").await;
    let large = client.submit_task(busy_for("large", 0)).await;
    let large = large.expect("accepted");
    // For longer than the large task has its first turn.
    for _ in 0..15 {
        let small = client.submit_and_wait(busy_for("small", 200)).await;
        assert_eq!(small.unwrap().status, "completed");
    }
    let waiting = client.get_task_status(&large).await.expect("known");
    assert_eq!((waiting.status.as_str(), waiting.attempts), ("pending", 0));
    client.cancel_task(&endless).await.expect("an answer");
    let ended = client.wait_for_task(&large).await.expect("known");
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
}

async fn a_large_task_is_not_starved(on: Backend) {
    let node = sized(on).await;
    let mut client = node.client();
    // At any time a small task is due and another one runs.
    let small = async || {
        let mut client = node.client();
        loop {
            let small = client.submit_and_wait(busy_for("small", 150)).await;
            assert_eq!(small.unwrap().status, "completed");
        }
    };
    let load = futures_util::future::join_all((0..8).map(|_| small()));
    let large = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let ended = client.submit_and_wait(busy_for("large", 0)).await.unwrap();
        let ended = client.wait_for_task(&ended.task_id).await.expect("known");
        assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
    };
    tokio::select! {
        () = large => {}
        _ = load => unreachable!("the load has no end"),
    }
}

/// A node leases the tasks that it can run; another node runs the others.
async fn a_node_without_room_leaves_tasks_to_others() {
    let shared = Shared::start().await;
    let prepare = |id, bytes: usize| {
        let mut node = shared.prepare_sharing_tasks(id, &[], TTL);
        node.add_settings(&format!(
            "[plugins]\nmax_total_memory_bytes = {bytes}\n{}",
            unlimited_time("busy")
        ));
        node.add_wasm("busy.wasm", &plugin("busy", BUSY));
        node
    };
    // 96 MiB and 768 MiB for tasks of 64 MiB.
    let small = prepare("small", 128 << 20).started().await;
    let mut client = small.client();
    let endless = client.submit_task(busy_for("busy", FOR_EVER)).await;
    let endless = endless.expect("accepted");
    wait_for_state(&small, &endless, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let id = client.submit_task(busy_for("busy", 0)).await;
        waiting.push(id.expect("accepted"));
    }
    // Time in which a node that took too much would lease them.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for id in &waiting {
        let status = client.get_task_status(id).await.expect("known");
        assert_eq!(status.status, "pending", "{status:?}");
    }
    let large = prepare("large", 1024 << 20).started().await;
    for id in &waiting {
        let status = large.client().wait_for_task(id).await.expect("known");
        assert_eq!(
            (status.status.as_str(), status.node_id.as_str()),
            ("completed", "large"),
        );
    }
}

/// Returns a guest that logs the start of an attempt and then computes.
fn logging_guest(name: &str) -> Vec<u8> {
    let text = format!("{name} begins");
    let log = format!(
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const {}))",
        text.len()
    );
    guest(&TestGuest {
        name,
        task_types: &[name],
        handle: &format!("{log} {BUSY}"),
        extra: &format!("(data (i32.const 5000) \"{text}\")"),
        ..TestGuest::default()
    })
}

fn attempts_of(node: &Node, name: &str) -> usize {
    node.log().matches(&format!("{name} begins")).count()
}

/// Every node that runs the killer is killed. The losses are not charged to the other task.
async fn a_task_that_kills_its_nodes_fails_alone(on: Backend) {
    let settings = unlimited_time("killer") + &unlimited_time("bystander");
    let mut node = on.prepare(&[], &settings).await;
    node.set_in("queue", "lease_ttl_ms = 1000");
    node.add_wasm("killer.wasm", &logging_guest("killer"));
    node.add_wasm("bystander.wasm", &logging_guest("bystander"));
    node.restart().await;
    let mut client = node.client();
    let bystander = client.submit_task(busy_for("bystander", 3000)).await;
    let bystander = bystander.expect("accepted");
    let killer = client.submit_task(busy_for("killer", FOR_EVER)).await;
    let killer = killer.expect("accepted");
    let mut kills = 0;
    loop {
        // Both run until the killer is suspected.
        let together = kills < 2;
        let ended = eventually("the killer runs or has ended", async || {
            if attempts_of(&node, "killer") > kills
                && (!together || attempts_of(&node, "bystander") > kills)
            {
                return Some(None);
            }
            let status = node.client().get_task_status(&killer).await.expect("known");
            (status.status == "failed").then_some(Some(status))
        })
        .await;
        if let Some(failed) = ended {
            assert_eq!((failed.attempts, failed.losses), (2, 2), "{failed:?}");
            break;
        }
        kills = attempts_of(&node, "killer");
        node.kill();
        node.restart().await;
    }
    let ended = node
        .client()
        .wait_for_task(&bystander)
        .await
        .expect("known");
    assert_eq!(ended.status, "completed", "{ended:?}");
    assert_eq!((ended.attempts, ended.losses), (1, 2), "{ended:?}");
    assert_eq!(kills, 4);
}
