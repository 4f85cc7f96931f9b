//! Several nodes that share a queue in Redis: a task goes in anywhere, runs where it can, and is known
//! everywhere. What faults do to them is in `faults.rs`.

use super::cluster::{self, Shared};
use crate::support::{
    eventually,
    node::Node,
    plugins::{self, showcase},
    task,
};
use hostel::proto::distributed::{Task, TaskStatus};
use libtest_mimic::Trial;
use std::{path::Path, time::Duration};
use tonic::Code;

/// How long a dead node is still listed.
const TTL: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    vec![
        cluster::trial(
            "a_task_runs_where_its_plugin_is",
            a_task_runs_where_its_plugin_is,
        ),
        cluster::trial(
            "a_task_may_name_its_node_or_label",
            a_task_may_name_its_node_or_label,
        ),
        cluster::trial(
            "two_versions_serve_side_by_side",
            two_versions_serve_side_by_side,
        ),
        cluster::trial(
            "the_last_node_leaves_and_it_waits",
            the_last_node_leaves_and_it_waits,
        ),
        cluster::trial(
            "a_cluster_limit_holds_over_all_nodes",
            a_cluster_limit_holds_over_all_nodes,
        ),
    ]
}

async fn node(shared: &Shared, id: &str, plugins: &[&Path]) -> Node {
    shared
        .prepare_sharing_tasks(id, plugins, TTL)
        .started()
        .await
}

/// Submitted there, once the node knows of a node that can run it.
async fn submit(node: &Node, task: Task) -> String {
    eventually("the task is accepted", async || {
        match node.client().submit_task(task.clone()).await {
            Ok(id) => Some(id),
            Err(status) if status.code() == Code::FailedPrecondition => None,
            Err(status) => panic!("{status:?}"),
        }
    })
    .await
}

async fn ended(node: &Node, id: &str) -> TaskStatus {
    node.client().wait_for_task(id).await.expect("known")
}

async fn a_task_runs_where_its_plugin_is() {
    let shared = Shared::start().await;
    let a = node(&shared, "a", &[&showcase("echo")]).await;
    let b = node(&shared, "b", &[&showcase("text")]).await;
    let c = node(&shared, "c", &[]).await;
    for (task_type, runner) in [("echo", "a"), ("word-count", "b")] {
        for via in [&a, &b, &c] {
            let id = submit(via, task(task_type, "some words")).await;
            for asked in [&a, &b, &c] {
                let status = ended(asked, &id).await;
                assert_eq!(status.status, "completed", "{status:?}");
                assert_eq!(status.node_id, runner);
                assert_eq!((status.attempts, status.finishes), (1, 1));
                assert!(!status.result.is_empty());
            }
        }
    }
    let unknown = c.client().submit_task(task("nobody-has-it", "")).await;
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert!(
        unknown.message().contains("echo, word-count"),
        "{unknown:?}"
    );
    // What a task survives is said with its acceptance.
    let mut client =
        hostel::proto::distributed::distributed_service_client::DistributedServiceClient::connect(
            format!("http://{}", c.address()),
        )
        .await
        .expect("a connection");
    let accepted = client
        .submit_task(task("echo", "x"))
        .await
        .expect("accepted");
    assert_eq!(accepted.into_inner().durability, "periodic");
    // Who waits at one node hears of the end at another.
    let status = c.client().submit_and_wait(task("echo", "waited for")).await;
    assert_eq!(&status.expect("an end").result[..], b"waited for");
}

async fn a_task_may_name_its_node_or_label() {
    let shared = Shared::start().await;
    let echo = showcase("echo");
    let a = node(&shared, "a", &[&echo]).await;
    let mut b = shared.prepare_sharing_tasks("b", &[&echo], TTL);
    b.set("labels = [\"gpu\", \"eu\"]");
    let b = b.started().await;
    let to_node = |node: &str| Task {
        node: node.into(),
        ..task("echo", "x")
    };
    let to_label = |label: &str| Task {
        label: label.into(),
        ..task("echo", "x")
    };
    for _ in 0..10 {
        for (task, runner) in [
            (to_node("a"), "a"),
            (to_node("b"), "b"),
            (to_label("gpu"), "b"),
        ] {
            let id = submit(&a, task.clone()).await;
            let status = ended(&b, &id).await;
            assert_eq!(status.node_id, runner, "{task:?}");
            assert_eq!(
                (status.target_node, status.target_label),
                (task.node, task.label)
            );
        }
    }
    for (task, known) in [(to_node("c"), "a, b"), (to_label("tpu"), "eu, gpu")] {
        let refused = a.client().submit_task(task).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(known), "{refused:?}");
    }
    let both = Task {
        node: "a".into(),
        ..to_label("gpu")
    };
    let refused = a.client().submit_task(both).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let out = a.cli(&[
        "submit",
        "echo",
        "--payload",
        "hi",
        "--label",
        "gpu",
        "--wait",
    ]);
    assert_eq!(out.stdout, b"hi", "{out:?}");
}

async fn two_versions_serve_side_by_side() {
    let shared = Shared::start().await;
    let versions = ["1.0.0", "2.0.0"];
    let [old, new] = versions.map(plugins::signing_echo);
    let a = node(&shared, "a", &[&old]).await;
    let b = node(&shared, "b", &[&new]).await;
    for (name, version) in [("a", "1.0.0"), ("b", "2.0.0")] {
        let mut targeted = task("echo", "x");
        targeted.node = name.into();
        let id = submit(&a, targeted).await;
        let status = ended(&b, &id).await;
        assert_eq!(status.plugin_version, version, "{status:?}");
    }
    // One of them is replaced while both serve.
    a.add_wasm(
        old.file_name().expect("a name").to_str().expect("text"),
        &std::fs::read(&new).expect("the plugin"),
    );
    eventually("a runs the new version", async || {
        let mut targeted = task("echo", "x");
        targeted.node = "a".into();
        let id = submit(&b, targeted).await;
        let status = ended(&b, &id).await;
        (status.plugin_version == "2.0.0").then_some(())
    })
    .await;
}

async fn the_last_node_leaves_and_it_waits() {
    let shared = Shared::start().await;
    let a = node(&shared, "a", &[]).await;
    let mut b = node(&shared, "b", &[&showcase("echo")]).await;
    // Drained first, so that the task is still there when its node goes.
    submit(&a, task("echo", "x")).await;
    a.client().drain_node("b").await.expect("drained");
    eventually("b takes nothing", async || {
        b.log().contains("takes no new task").then_some(())
    })
    .await;
    let id = submit(&a, task("echo", "later")).await;
    assert!(b.terminate().await.success());
    let why = eventually("it waits for a plugin", async || {
        let status = a.client().get_task_status(&id).await.expect("known");
        assert_eq!(status.status, "pending", "{status:?}");
        status
            .waiting_for
            .contains("plugin")
            .then_some(status.waiting_for)
    })
    .await;
    assert!(why.contains("no live node handles echo"), "{why}");
    a.client().undrain_node("b").await.expect("undrained");
    b.restart().await;
    assert_eq!(&ended(&a, &id).await.result[..], b"later");
}

async fn a_cluster_limit_holds_over_all_nodes() {
    let shared = Shared::start().await;
    let limit = "[plugin.echo.task.echo]\nmax_cluster_concurrency = 1\n";
    let mut nodes = Vec::new();
    for id in ["a", "b"] {
        let mut node = shared.prepare_sharing_tasks(id, &[&showcase("echo")], TTL);
        node.add_settings(limit);
        nodes.push(node.started().await);
    }
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(submit(&nodes[0], task("echo", "x")).await);
    }
    let mut spans = Vec::new();
    for id in &ids {
        let status = ended(&nodes[1], id).await;
        spans.push((status.started_at_ms, status.finished_at_ms));
    }
    spans.sort_unstable();
    // By the clock of Redis, to the millisecond: one ends before the next begins.
    assert!(
        spans.windows(2).all(|two| two[0].1 <= two[1].0),
        "{spans:?}"
    );
}
