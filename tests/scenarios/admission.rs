//! What a node takes on: only what can run now, whatever other tasks, components and nodes hold; and
//! who is charged when a node dies.

use super::cluster::{self, Shared};
use crate::support::{
    backend::{Backend, on_both_needing},
    eventually,
    node::Node,
    plugins::{BUSY, guest, showcase},
    task, trial, trial_needing,
};
use hostel::{
    plugin::Sample,
    proto::distributed::{Task, TaskStatus},
};
use libtest_mimic::Trial;
use std::time::Duration;

const FOR_EVER: u32 = u32::MAX;

/// How long a dead node is still listed.
const TTL: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "admission::components_take_no_memory_of_tasks",
            components_take_no_memory_of_tasks,
        ),
        trial_needing(
            "admission::limits_are_held_against_the_machine",
            true,
            limits_are_held_against_the_machine,
        ),
        cluster::trial(
            "who_has_no_room_leaves_tasks_to_others",
            who_has_no_room_leaves_tasks_to_others,
        ),
    ];
    trials.extend(on_both_needing(
        "admission::small_tasks_pass_a_large_one_that_has_no_room",
        true,
        small_tasks_pass_a_large_one,
    ));
    trials.extend(on_both_needing(
        "admission::a_large_task_gets_its_turn",
        true,
        a_large_task_gets_its_turn,
    ));
    trials.extend(on_both_needing(
        "admission::a_task_that_kills_its_nodes_fails_alone",
        true,
        a_task_that_kills_its_nodes_fails_alone,
    ));
    trials
}

/// A plugin with one task type, both of that name.
fn plugin(name: &str, handle: &str) -> Vec<u8> {
    guest(&Sample {
        name,
        task_types: &[name],
        handle,
        ..Sample::default()
    })
}

/// Time enough for work without end, for a plugin with one task type.
fn patient(name: &str) -> String {
    format!(
        "[plugin.{name}.limits]\nmax_cpu_ms = 3600000\n\
         [plugin.{name}.task.{name}]\ntimeout_ms = 3600000\nmax_attempts = 2\n\
         backoff_initial_ms = 20\nbackoff_max_ms = 100\n"
    )
}

fn busy_for(task_type: &str, ms: u32) -> Task {
    task(task_type, ms.to_le_bytes())
}

async fn is(node: &Node, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = node.client().get_task_status(id).await.expect("known");
        (status.status == state).then_some(status)
    })
    .await
}

/// A component has all the memory that it may have for as long as it lives.
async fn components_take_no_memory_of_tasks() {
    // Room for one guest in all: it is the tasks', and the component is refused.
    let tight = "[plugins]\nmax_total_memory_bytes = 104857600\n";
    let node = Node::prepare(&[&showcase("rates")], tight);
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
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

    // Room for one of each.
    let wide = "[plugins]\nmax_total_memory_bytes = 134217728\n";
    let node = Node::prepare(&[&showcase("rates")], wide);
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
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

async fn limits_are_held_against_the_machine() {
    let settings = "[plugins]\nmax_total_memory_bytes = 70368744177664\n";
    let node = Node::start(&[], settings).await;
    let log = node.log();
    assert!(
        log.contains("this machine or its cgroup has"),
        "nothing of the total: {log}"
    );
    let settings = "[plugins]\nmax_total_memory_bytes = 268435456\nmax_tasks = 9\n";
    let node = Node::start(&[], settings).await;
    let log = node.log();
    assert!(log.contains("3 of 9 tasks (plugins.max_tasks)"), "{log}");
}

/// A node for small tasks of 20 MiB and large ones of 90 MiB, with 100 MiB for all of them.
async fn sized(on: Backend) -> Node {
    let settings = format!(
        "[plugins]\nmax_total_memory_bytes = 105906176\nmax_component_memory_bytes = 1048576\n\
         [plugins.sandbox]\nmax_memory_bytes = 20971520\n{}{}",
        patient("small"),
        patient("large").replace("limits]\n", "limits]\nmax_memory_bytes = 94371840\n"),
    );
    let node = on.prepare(&[], &settings).await;
    node.add_wasm("small.wasm", &plugin("small", BUSY));
    node.add_wasm("large.wasm", &plugin("large", BUSY));
    node.started().await
}

async fn small_tasks_pass_a_large_one(on: Backend) {
    let node = sized(on).await;
    let mut client = node.client();
    let endless = client.submit_task(busy_for("small", FOR_EVER)).await;
    let endless = endless.expect("accepted");
    is(&node, &endless, "running").await;
    let large = client.submit_task(busy_for("large", 0)).await;
    let large = large.expect("accepted");
    // Longer than its first turn lasts.
    for _ in 0..15 {
        let small = client.submit_and_wait(busy_for("small", 200)).await;
        assert_eq!(small.unwrap().status, "completed");
    }
    let waiting = client.get_task_status(&large).await.expect("known");
    assert_eq!((waiting.status.as_str(), waiting.attempts), ("pending", 0));
    client.cancel_task(&endless).await.expect("asked");
    let ended = client.wait_for_task(&large).await.expect("known");
    assert_eq!((ended.status.as_str(), ended.attempts), ("completed", 1));
}

async fn a_large_task_gets_its_turn(on: Backend) {
    let node = sized(on).await;
    let mut client = node.client();
    // There is always a small one that is due, and one that runs.
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

/// A node leases what it can run, and another has the rest.
async fn who_has_no_room_leaves_tasks_to_others() {
    let shared = Shared::start().await;
    let prepare = |id, bytes: usize| {
        let node = shared.prepare_sharing_tasks(id, &[], TTL);
        let mut node = node;
        node.add_settings(&format!(
            "[plugins]\nmax_total_memory_bytes = {bytes}\n{}",
            patient("busy")
        ));
        node.add_wasm("busy.wasm", &plugin("busy", BUSY));
        node
    };
    // 96 MiB for tasks of 64 MiB, and 768.
    let small = prepare("small", 128 << 20).started().await;
    let mut client = small.client();
    let endless = client.submit_task(busy_for("busy", FOR_EVER)).await;
    let endless = endless.expect("accepted");
    is(&small, &endless, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let id = client.submit_task(busy_for("busy", 0)).await;
        waiting.push(id.expect("accepted"));
    }
    // Time to take them, if it did.
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

/// A guest that says in its node's log that it runs, and is busy then.
fn telling(name: &str) -> Vec<u8> {
    let says = format!("{name} begins");
    let say = format!(
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const {}))",
        says.len()
    );
    guest(&Sample {
        name,
        task_types: &[name],
        handle: &format!("{say} {BUSY}"),
        extra: &format!("(data (i32.const 5000) \"{says}\")"),
        ..Sample::default()
    })
}

fn begun(node: &Node, name: &str) -> usize {
    node.log().matches(&format!("{name} begins")).count()
}

/// Whoever runs the killer is killed. What runs beside it is lost with it, and not for it.
async fn a_task_that_kills_its_nodes_fails_alone(on: Backend) {
    let settings = patient("killer") + &patient("bystander");
    let mut node = on.prepare(&[], &settings).await;
    node.set_in("queue", "lease_ttl_ms = 1000");
    node.add_wasm("killer.wasm", &telling("killer"));
    node.add_wasm("bystander.wasm", &telling("bystander"));
    node.restart().await;
    let mut client = node.client();
    let bystander = client.submit_task(busy_for("bystander", 3000)).await;
    let bystander = bystander.expect("accepted");
    let killer = client.submit_task(busy_for("killer", FOR_EVER)).await;
    let killer = killer.expect("accepted");
    let mut kills = 0;
    loop {
        // As long as neither is suspected, both run.
        let together = kills < 2;
        let ended = eventually("the killer runs or has ended", async || {
            if begun(&node, "killer") > kills && (!together || begun(&node, "bystander") > kills) {
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
        kills = begun(&node, "killer");
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
