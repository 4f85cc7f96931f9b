//! Several nodes that share a queue in Redis: a task can be submitted to any node, runs on a node that
//! can run it, and can be read from every node. Faults are in `faults.rs`.

use super::Shared;
use crate::support::{
    eventually,
    node::Node,
    plugins::{self, BUSY, guest, showcase},
    task,
};
use hostel::{
    plugin::TestGuest,
    proto::distributed::{Task, TaskStatus},
};
use libtest_mimic::Trial;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tonic::{Code, Status};

/// The time after which a dead node is no longer listed.
const TTL: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    vec![
        super::trial(
            "a_task_runs_on_a_node_with_its_plugin",
            a_task_runs_on_a_node_with_its_plugin,
        ),
        super::trial(
            "a_task_runs_on_its_target_node_or_label",
            a_task_runs_on_its_target_node_or_label,
        ),
        super::trial(
            "two_plugin_versions_serve_side_by_side",
            two_plugin_versions_serve_side_by_side,
        ),
        super::trial(
            "a_task_waits_when_its_last_node_leaves",
            a_task_waits_when_its_last_node_leaves,
        ),
        super::trial(
            "a_cluster_wide_concurrency_limit_holds",
            a_cluster_wide_concurrency_limit_holds,
        ),
        super::trial(
            "a_free_place_under_a_limit_is_taken_quickly",
            a_free_place_under_a_limit_is_taken_quickly,
        ),
        super::trial(
            "a_node_at_a_limit_does_not_poll",
            a_node_at_a_limit_does_not_poll,
        ),
    ]
}

async fn node(shared: &Shared, id: &str, plugins: &[&Path]) -> Node {
    shared
        .prepare_sharing_tasks(id, plugins, TTL)
        .started()
        .await
}

/// Submits a task once the node knows a node that can run it.
async fn submit(node: &Node, task: Task) -> String {
    eventually("the task is accepted", async || {
        match node.client().submit_task(task.clone()).await {
            Ok(id) => Some(id),
            // Not announced yet, or announced while it still loads its plugins.
            Err(status) if is_not_yet_known(&status) => None,
            Err(status) => panic!("{status:?}"),
        }
    })
    .await
}

/// Whether a task may only be refused because its node has just started.
fn is_not_yet_known(status: &Status) -> bool {
    [Code::FailedPrecondition, Code::Unavailable].contains(&status.code())
}

/// Returns why a task is refused once all nodes have loaded their plugins.
async fn refusal(node: &Node, task: Task) -> Status {
    eventually("all nodes have loaded their plugins", async || {
        let refused = node.client().submit_task(task.clone()).await.unwrap_err();
        (refused.code() != Code::Unavailable).then_some(refused)
    })
    .await
}

async fn wait_for_end(node: &Node, id: &str) -> TaskStatus {
    node.client().wait_for_task(id).await.expect("known")
}

async fn a_task_runs_on_a_node_with_its_plugin() {
    let shared = Shared::start().await;
    let a = node(&shared, "a", &[&showcase("echo")]).await;
    let b = node(&shared, "b", &[&showcase("text")]).await;
    let c = node(&shared, "c", &[]).await;
    for (task_type, runner) in [("echo", "a"), ("word-count", "b")] {
        for via in [&a, &b, &c] {
            let id = submit(via, task(task_type, "some words")).await;
            for node in [&a, &b, &c] {
                let status = wait_for_end(node, &id).await;
                assert_eq!(status.status, "completed", "{status:?}");
                assert_eq!(status.node_id, runner);
                assert_eq!((status.attempts, status.finishes), (1, 1));
                assert!(!status.result.is_empty());
            }
        }
    }
    let elsewhere = Task {
        node: "c".into(),
        ..task("echo", "")
    };
    let elsewhere = refusal(&a, elsewhere).await;
    assert_eq!(elsewhere.code(), Code::FailedPrecondition);
    assert!(
        elsewhere
            .message()
            .contains("the node c is live, but has no plugin"),
        "{elsewhere:?}"
    );
    let unknown = refusal(&c, task("unknown-type", "")).await;
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    assert!(
        unknown.message().contains("echo, word-count"),
        "{unknown:?}"
    );
    // The reply states the durability.
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
    // A call at one node can wait for a task on another.
    let status = c.client().submit_and_wait(task("echo", "waited for")).await;
    assert_eq!(&status.expect("an end").result[..], b"waited for");
}

async fn a_task_runs_on_its_target_node_or_label() {
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
            let status = wait_for_end(&b, &id).await;
            assert_eq!(status.node_id, runner, "{task:?}");
            assert_eq!(
                (status.target_node, status.target_label),
                (task.node, task.label)
            );
        }
    }
    for (task, known) in [(to_node("c"), "a, b"), (to_label("tpu"), "eu, gpu")] {
        let refused = refusal(&a, task).await;
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(known), "{refused:?}");
        assert!(
            refused.message().contains("is not registered"),
            "{refused:?}"
        );
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

async fn two_plugin_versions_serve_side_by_side() {
    let shared = Shared::start().await;
    let versions = ["1.0.0", "2.0.0"];
    let [old, new] = versions.map(plugins::signing_echo);
    let a = node(&shared, "a", &[&old]).await;
    let b = node(&shared, "b", &[&new]).await;
    for (name, version) in [("a", "1.0.0"), ("b", "2.0.0")] {
        let mut targeted = task("echo", "x");
        targeted.node = name.into();
        let id = submit(&a, targeted).await;
        let status = wait_for_end(&b, &id).await;
        assert_eq!(status.plugin_version, version, "{status:?}");
    }
    // One version is replaced while both serve.
    a.add_wasm(
        old.file_name().expect("a name").to_str().expect("text"),
        &std::fs::read(&new).expect("the plugin"),
    );
    eventually("a runs the new version", async || {
        let mut targeted = task("echo", "x");
        targeted.node = "a".into();
        let id = submit(&b, targeted).await;
        let status = wait_for_end(&b, &id).await;
        (status.plugin_version == "2.0.0").then_some(())
    })
    .await;
}

async fn a_task_waits_when_its_last_node_leaves() {
    let shared = Shared::start().await;
    let a = node(&shared, "a", &[]).await;
    let mut b = node(&shared, "b", &[&showcase("echo")]).await;
    eventually("a has seen what b runs", async || {
        a.client().submit_task(task("echo", "x")).await.ok()
    })
    .await;
    // Drained first, so that the task is pending when the node stops.
    a.client().drain_node("b").await.expect("drained");
    eventually("b leases nothing", async || {
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
    // Tasks that only the stopped node can run are accepted, since it may return.
    let mut client = a.client();
    let to_b = Task {
        node: "b".into(),
        ..task("echo", "to b")
    };
    let late = client.submit_task(to_b).await.expect("accepted");
    let unknown = client.submit_task(task("other", "")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    a.client().undrain_node("b").await.expect("undrained");
    b.restart().await;
    assert_eq!(&wait_for_end(&a, &id).await.result[..], b"later");
    assert_eq!(&wait_for_end(&a, &late).await.result[..], b"to b");
    // If it returns without the plugin, its tasks are rejected.
    std::fs::remove_file(b.path("plugins/echo.wasm")).expect("the plugin");
    eventually("the type is rejected", async || {
        let refused = a.client().submit_task(task("echo", "")).await.err();
        refused.filter(|status| status.code() == Code::FailedPrecondition)
    })
    .await;
}

async fn a_cluster_wide_concurrency_limit_holds() {
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
        let status = wait_for_end(&nodes[1], id).await;
        spans.push((status.started_at_ms, status.finished_at_ms));
    }
    spans.sort_unstable();
    // By the clock of Redis, each task ends before the next one starts.
    assert!(
        spans.windows(2).all(|two| two[0].1 <= two[1].0),
        "{spans:?}"
    );
}

/// Starts two nodes with the task type `busy` and this limit set to 1.
async fn two_limited(shared: &Shared, limit: &str) -> [Node; 2] {
    let sample = TestGuest {
        name: "busy",
        task_types: &["busy"],
        handle: BUSY,
        ..TestGuest::default()
    };
    let started = ["a", "b"].map(|id| {
        let mut node = shared.prepare_sharing_tasks(id, &[], TTL);
        node.add_wasm("busy.wasm", &guest(&sample));
        node.add_settings(&format!("[plugin.busy.task.busy]\n{limit} = 1\n"));
        node.started()
    });
    let [a, b] = started;
    let (a, b) = tokio::join!(a, b);
    [a, b]
}

/// Returns a task that computes for `time` on the named node.
fn busy(time: Duration, node: &str) -> Task {
    let ms = u32::try_from(time.as_millis()).expect("a short time");
    Task {
        node: node.into(),
        ..task("busy", ms.to_le_bytes())
    }
}

async fn a_free_place_under_a_limit_is_taken_quickly() {
    const TASKS: u32 = 20;
    let shared = Shared::start().await;
    let nodes = two_limited(&shared, "max_cluster_concurrency").await;
    for (node, id) in nodes.iter().zip(["a", "b"]) {
        // Both nodes know each other and have run a task.
        let id = submit(&nodes[0], busy(Duration::ZERO, id)).await;
        wait_for_end(node, &id).await;
    }
    let since = Instant::now();
    let mut ids = Vec::new();
    for n in 0..TASKS {
        // In the order of submission, so that each task waits for one on the other node.
        let node = ["a", "b"][n as usize % 2];
        ids.push(submit(&nodes[0], busy(Duration::from_millis(20), node)).await);
    }
    let mut spans = Vec::new();
    for id in &ids {
        let status = wait_for_end(&nodes[1], id).await;
        spans.push((status.started_at_ms, status.finished_at_ms));
    }
    let took = since.elapsed();
    spans.sort_unstable();
    let mut gaps: Vec<u64> = spans.windows(2).map(|two| two[1].0 - two[0].1).collect();
    gaps.sort_unstable();
    let (middle, most) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!(
        "{TASKS} took {took:.1?}; from an end to the next start {middle} ms, at most {most} ms"
    );
    // A node that polled once a second would need half a second for each task.
    assert!(took < Duration::from_millis(250) * TASKS, "{took:?}");
}

async fn a_node_at_a_limit_does_not_poll() {
    for limit in ["max_cluster_concurrency", "max_concurrency"] {
        let shared = Shared::start().await;
        let nodes = two_limited(&shared, limit).await;
        let long = Duration::from_secs(60);
        let mut ids = Vec::new();
        for id in ["a", "b", "a", "b"] {
            ids.push(submit(&nodes[0], busy(long, id)).await);
        }
        let run = usize::from(limit == "max_concurrency") + 1;
        eventually("the limit is used", async || {
            let mut running = 0;
            for id in &ids {
                let status = nodes[0].client().get_task_status(id).await.expect("known");
                running += usize::from(status.status == "running");
            }
            (running == run).then_some(())
        })
        .await;
        let (before, since) = (scripts_run(&shared).await, Instant::now());
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (calls, time) = (scripts_run(&shared).await - before, since.elapsed());
        println!("{limit}: {calls} scripts in {time:.1?}");
        // Leasing, renewing and maintenance run some five scripts a second on each node. A node that
        // polls without a pause would run a hundred.
        assert!(
            calls <= 10 * (time.as_secs() + 1) * 2,
            "{calls} in {time:?}"
        );
    }
}

/// Returns the number of scripts that Redis has run.
async fn scripts_run(shared: &Shared) -> u64 {
    let client = redis::Client::open(shared.redis.url()).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let info: String = info
        .query_async(&mut connection.expect("a connection"))
        .await
        .expect("an answer");
    let calls = info.lines().find_map(|line| {
        let (calls, _) = line
            .strip_prefix("cmdstat_evalsha:calls=")?
            .split_once(',')?;
        calls.parse().ok()
    });
    calls.unwrap_or(0)
}
