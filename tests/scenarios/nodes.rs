//! The operator's view of nodes: the list, and drained nodes, which finish their running tasks and
//! lease nothing until they are undrained.

use super::cluster::{self, Shared};
use crate::support::{
    eventually,
    node::Node,
    now_ms,
    plugins::{BUSY, guest, showcase},
    task, trial,
};
use hostel::{
    DistributedClient,
    plugin::TestGuest,
    proto::{distributed::TaskStatus, hostel::v1},
};
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::{Duration, Instant};
use tonic::Code;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "nodes::a_drained_node_leases_nothing",
            a_drained_node_leases_nothing,
        ),
        trial(
            "nodes::the_command_lists_drains_and_undrains",
            the_command_lists_drains_and_undrains,
        ),
        cluster::trial(
            "a_drain_request_survives_a_kill",
            a_drain_request_survives_a_kill,
        ),
        cluster::trial(
            "version_differences_and_stale_views_are_listed",
            version_differences_and_stale_views_are_listed,
        ),
    ]
}

fn busy_plugin(version: &'static str) -> Vec<u8> {
    guest(&TestGuest {
        name: "busy",
        version,
        task_types: &["busy"],
        handle: BUSY,
        ..TestGuest::default()
    })
}

async fn wait_for_state(client: &DistributedClient, id: &str, state: &str) -> TaskStatus {
    eventually(&format!("{id} is {state}"), async || {
        let status = client.clone().get_task_status(id).await.expect("known");
        (status.status == state).then_some(status)
    })
    .await
}

/// Checks that a task is pending for a reason that contains `why`.
async fn assert_waiting(client: &DistributedClient, id: &str, why: &str) {
    let status = client.clone().get_task_status(id).await.expect("known");
    assert_eq!(status.status, "pending", "{status:?}");
    assert_eq!(
        (status.attempts, status.started_at_ms),
        (0, 0),
        "{status:?}"
    );
    assert!(status.waiting_for.contains(why), "{status:?}");
}

/// Waits until a task has run, and checks that it ran once and not before `undrained_at`.
async fn runs_after(client: &DistributedClient, id: &str, undrained_at: u64) {
    let status = client.clone().wait_for_task(id).await.expect("known");
    assert_eq!(status.status, "completed", "{status:?}");
    assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
    assert!(status.started_at_ms >= undrained_at, "{status:?}");
}

/// Waits until a node has logged `times` times that it leases nothing.
async fn wait_until_drained(node: &Node, times: usize) {
    eventually("the node knows that it is drained", async || {
        let count = node.log().matches("takes no new task").count();
        (count == times).then_some(())
    })
    .await;
}

async fn seen(node: &Node, id: &str) -> Option<v1::Node> {
    let listed = node.client().list_nodes().await.expect("a list");
    listed.nodes.into_iter().find(|node| node.id == id)
}

async fn a_drained_node_leases_nothing() {
    let settings = "[plugin.busy.task.busy]\nmax_attempts = 1\n";
    let mut node = Node::prepare(&[&showcase("echo")], settings);
    node.add_wasm("busy.wasm", &busy_plugin("1"));
    node.restart().await;
    let mut client = node.client();
    let running = client.submit_task(task("busy", 3000_u32.to_le_bytes()));
    let running = running.await.unwrap();
    wait_for_state(&client, &running, "running").await;

    for _ in 0..2 {
        client.drain_node("test").await.unwrap();
        assert!(seen(&node, "test").await.expect("this node").drained);
    }
    wait_until_drained(&node, 1).await;
    // The drained node still accepts tasks of its types.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(client.submit_task(task("echo", "on")).await.unwrap());
    }
    let finished = client.wait_for_task(&running).await.unwrap();
    assert_eq!(finished.status, "completed", "{finished:?}");
    assert_eq!((finished.attempts, finished.finishes), (1, 1));
    for id in &waiting {
        assert_waiting(&client, id, "drained").await;
    }

    let undrained_at = now_ms();
    for _ in 0..2 {
        client.undrain_node("test").await.unwrap();
        assert!(!seen(&node, "test").await.expect("this node").drained);
    }
    for id in &waiting {
        runs_after(&client, id, undrained_at).await;
    }

    // A drained node stops as usual, and without etcd it is not drained after a restart.
    client.drain_node("test").await.unwrap();
    wait_until_drained(&node, 2).await;
    let left = client.submit_task(task("echo", "left")).await.unwrap();
    assert!(node.terminate().await.success());
    let restarted_at = now_ms();
    node.restart().await;
    runs_after(&node.client(), &left, restarted_at).await;
}

async fn the_command_lists_drains_and_undrains() {
    let mut node = Node::prepare(&[&showcase("echo")], "[plugins]\nmax_tasks = 7\n").named("one");
    node.set("labels = [\"gpu\", \"eu\"]");
    node.restart().await;
    let hostel = |arguments: &[&str]| node.cli(&[&["nodes"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let table = || text(&hostel(&["list"]).stdout);
    let listed = || {
        let listed = hostel(&["list", "--json"]);
        assert_eq!(text(&listed.stderr), "");
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        listed["nodes"][0].clone()
    };
    for words in ["STATE", "ready", "CAPACITY", " 7 ", "eu,gpu", "echo@"] {
        assert!(table().contains(words), "{words}: {}", table());
    }
    let seen = listed();
    assert_eq!(seen["id"], "one");
    assert_eq!(seen["state"], "ready");
    assert_eq!(seen["capacity"], 7);
    assert_eq!(seen["labels"], serde_json::json!(["eu", "gpu"]));
    assert_eq!(seen["address"], node.address());
    assert_eq!(seen["plugins"][0]["name"], "echo");
    assert_eq!(
        seen["plugins"][0]["sha256"].as_str().map(str::len),
        Some(64)
    );

    for (command, state) in [("drain", "drained"), ("undrain", "ready")] {
        let done = hostel(&[command, "one"]);
        assert!(done.status.success(), "{done:?}");
        assert!(text(&done.stdout).contains("one"), "{done:?}");
        assert_eq!(listed()["state"], state);
        assert!(table().contains(state), "{}", table());
    }
    for command in ["drain", "undrain"] {
        let refused = hostel(&[command, "two"]);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        let errors = text(&refused.stderr);
        assert!(errors.contains("two; known nodes: one"), "{errors}");
        assert_eq!(hostel(&[command, "t/o"]).status.code(), Some(4));
        assert_eq!(hostel(&[command]).status.code(), Some(2));
        let help = text(&hostel(&[command, "--help"]).stdout);
        assert!(help.contains("<NODE>"), "{help}");
    }
    let unknown = node.client().drain_node("two").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn a_drain_request_survives_a_kill() {
    let shared = Shared::start().await;
    // Long enough that waiting for its end would be noticed.
    let ttl = Duration::from_secs(300);
    let a = shared.prepare_with("a", &[], ttl).started().await;
    let mut b = shared
        .prepare_with("b", &[&showcase("echo")], ttl)
        .started()
        .await;
    eventually("a sees b", async || seen(&a, "b").await).await;

    let drained = a.cli(&["nodes", "drain", "b"]);
    assert!(drained.status.success(), "{drained:?}");
    assert!(seen(&a, "b").await.expect("b").drained);
    wait_until_drained(&b, 1).await;
    let echoed = b.client().submit_task(task("echo", "on")).await.unwrap();
    assert_waiting(&b.client(), &echoed, "drained").await;

    b.kill();
    let since = Instant::now();
    b.restart().await;
    assert!(since.elapsed() < ttl / 2, "it takes over its own record");
    wait_until_drained(&b, 2).await;
    assert_waiting(&b.client(), &echoed, "drained").await;
    eventually("a sees b at its new address", async || {
        let node = seen(&a, "b").await?;
        (node.drained && node.address == b.address()).then_some(())
    })
    .await;

    // A stopped node can be undrained.
    assert!(b.terminate().await.success());
    eventually("b is not listed", async || {
        seen(&a, "b").await.is_none().then_some(())
    })
    .await;
    let table = a.cli(&["nodes", "list"]).stdout;
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("Drained and not live: b"), "{table}");
    let listed = a.cli(&["nodes", "list", "--json"]).stdout;
    let listed: Value = serde_json::from_slice(&listed).expect("JSON");
    assert_eq!(listed["drained_absent"][0], "b", "{listed}");
    assert!(listed["stale_since_ms"].is_null(), "{listed}");
    let undrained_at = now_ms();
    let undrained = a.cli(&["nodes", "undrain", "b"]);
    assert!(undrained.status.success(), "{undrained:?}");
    b.restart().await;
    runs_after(&b.client(), &echoed, undrained_at).await;

    // A running node can be drained and undrained.
    a.client().drain_node("b").await.unwrap();
    wait_until_drained(&b, 3).await;
    let echoed = b.client().submit_task(task("echo", "on")).await.unwrap();
    assert_waiting(&b.client(), &echoed, "drained").await;
    let undrained_at = now_ms();
    a.client().undrain_node("b").await.unwrap();
    runs_after(&b.client(), &echoed, undrained_at).await;
}

async fn version_differences_and_stale_views_are_listed() {
    let mut shared = Shared::start().await;
    let ttl = Duration::from_secs(10);
    let mut a = shared.prepare_with("a", &[], ttl);
    let mut b = shared.prepare_with("b", &[], ttl);
    a.add_wasm("busy.wasm", &busy_plugin("1.0.0"));
    b.add_wasm("busy.wasm", &busy_plugin("1.1.0"));
    tokio::join!(a.restart(), b.restart());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    for node in [&a, &b] {
        eventually("both versions are listed", async || {
            let table = text(node.cli(&["nodes", "list"]).stdout);
            let line = "busy: 1.0.0 on a; 1.1.0 on b";
            table.contains(line).then_some(())
        })
        .await;
    }
    b.add_wasm("busy.wasm", &busy_plugin("1.0.0"));
    eventually("the versions are the same", async || {
        let table = text(a.cli(&["nodes", "list"]).stdout);
        (!table.contains("Not the same") && table.contains("\nb ")).then_some(())
    })
    .await;

    shared.etcd.kill();
    let errors = eventually("the list is marked as stale", async || {
        let listed = a.cli(&["nodes", "list", "--json"]);
        assert!(listed.status.success(), "{listed:?}");
        let json: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let nodes = json["nodes"].as_array().expect("an array");
        assert_eq!(nodes.len(), 2, "the last view is listed");
        let listed = a.cli(&["nodes", "list"]);
        let errors = text(listed.stderr);
        (errors.contains("stale") && json["stale_since_ms"].is_u64()).then_some(errors)
    })
    .await;
    println!("{errors}");
    let seen = a.client().list_nodes().await.unwrap();
    assert!(seen.stale && seen.stale_since_ms <= now_ms(), "{seen:?}");
    assert!(seen.stale_since_ms > now_ms() - 300_000, "{seen:?}");
    let refused = a.client().drain_node("b").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    shared.etcd.restart().await;
    eventually("the list is current again", async || {
        let seen = a.client().list_nodes().await.unwrap();
        (!seen.stale && seen.stale_since_ms == 0).then_some(())
    })
    .await;
}
