//! `ExplainTask` and `hostel tasks explain`.

use super::*;
use hostel::proto::hostel::v1::{ExplainTaskResponse, WaitReason, wait_reason::Kind};
use tonic::Code;

async fn explain(node: &Node, id: &str) -> ExplainTaskResponse {
    node.client()
        .explain_task(id)
        .await
        .expect("an explanation")
}

fn kinds(explained: &ExplainTaskResponse) -> Vec<Kind> {
    explained.reasons.iter().map(WaitReason::kind).collect()
}

/// Waits until the task waits for this first, and returns the reason.
async fn waits_for(node: &Node, id: &str, kind: Kind) -> WaitReason {
    eventually(&format!("{id} waits for {kind:?}"), async || {
        let explained = explain(node, id).await;
        let first = explained.reasons.into_iter().next();
        first.filter(|first| first.kind() == kind)
    })
    .await
}

pub async fn a_waiting_task_is_explained(on: Backend) {
    let limits = "[plugin.busy.task.busy]\nmax_cluster_concurrency = 1\n";
    let node = start(on, &format!("{ONE_SLOT}{limits}")).await;
    let mut client = node.client();
    client.submit_task(endless("runs")).await.unwrap();
    has_status(&node, "runs", "running").await;
    let running = explain(&node, "runs").await;
    assert!(running.reasons.is_empty(), "{running:?}");
    assert_eq!(running.sentence, "runs runs on test, as attempt 1.");

    let delayed = Task {
        delay_ms: HOUR_MS,
        ..named("later", task("sample", ""))
    };
    client.submit_task(delayed).await.unwrap();
    let due = waits_for(&node, "later", Kind::NotDue).await;
    let status = client.get_task_status("later").await.unwrap();
    assert_eq!(due.until_ms, status.due_at_ms);
    assert!(status.waiting_for.starts_with("its first attempt, due in "));

    // The first of the group waits for a slot, and the others for those before them.
    for n in 0..3 {
        let grouped = Task {
            group: "g".into(),
            ..named(&format!("g{n}"), task("sample", ""))
        };
        client.submit_task(grouped).await.unwrap();
    }
    let slot = explain(&node, "g0").await;
    assert_eq!(slot.status, "pending");
    let status = client.get_task_status("g0").await.unwrap();
    assert!(status.waiting_for.contains("a free slot"), "{status:?}");
    let behind = waits_for(&node, "g2", Kind::Behind).await;
    assert_eq!(
        (behind.count, &*behind.group, behind.at_least),
        (2, "g", false)
    );

    client.submit_task(endless("limited")).await.unwrap();
    let reached = waits_for(&node, "limited", Kind::LimitReached).await;
    assert_eq!(
        (&*reached.limit, reached.limit_value, reached.count),
        ("max_cluster_concurrency", 1, 1)
    );

    client.drain_node("test").await.unwrap();
    let drained = waits_for(&node, "g0", Kind::Drained).await;
    assert_eq!(drained.nodes, ["test"]);
    let shown = text(node.cli(&["tasks", "explain", "g2"]));
    for words in [
        "g2 waits for a node that is not drained: test could run it, and is drained",
        "; and for its turn: 2 tasks of its group g come first.",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let shown = json(node.cli(&["tasks", "explain", "later", "--json"]));
    assert_eq!(shown["reasons"][0]["kind"], "not_due", "{shown}");
    assert_eq!(shown["reasons"][0]["until_ms"], due.until_ms);
    assert_eq!(shown["reasons"][1]["nodes"], serde_json::json!(["test"]));
    client.undrain_node("test").await.unwrap();

    client.cancel_task("later").await.unwrap();
    let ended = explain(&node, "later").await;
    assert_eq!((&*ended.status, ended.reasons.len()), ("cancelled", 0));
    assert_eq!(ended.sentence, "later has ended: cancelled.");
    let unknown = client.explain_task("unknown").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let invalid = client.explain_task("a b").await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
}

pub async fn a_task_at_its_limits_is_explained(on: Backend) {
    let limits = "[plugin.busy.task.busy.group]\nmax_concurrency = 1\n\
                  [plugin.sample.task.sample]\nmax_rate = \"1/d\"\n";
    let node = start(on, limits).await;
    let mut client = node.client();
    let grouped = |id: &str| Task {
        group: "g".into(),
        ..endless(id)
    };
    client.submit_task(grouped("runs")).await.unwrap();
    has_status(&node, "runs", "running").await;
    client.submit_task(grouped("limited")).await.unwrap();
    let reached = waits_for(&node, "limited", Kind::LimitReached).await;
    assert_eq!(
        (&*reached.limit, &*reached.group, reached.limit_value),
        ("max_concurrency", "g", 1)
    );
    let words = "room within max_concurrency = 1 of its group g: 1 such tasks run";
    assert_eq!(reached.text, words);

    client.submit_and_wait(task("sample", "")).await.unwrap();
    let rated = named("rated", task("sample", ""));
    client.submit_task(rated).await.unwrap();
    let rate = waits_for(&node, "rated", Kind::LimitReached).await;
    assert_eq!((&*rate.limit, &*rate.group), ("max_rate", ""));
    assert!(rate.until_ms > 0, "{rate:?}");
    let words = "max_rate = 1/d, which allows the next task in ";
    assert!(rate.text.starts_with(words), "{rate:?}");

    // The pause comes first, and its reason is in the words.
    client.pause_type("sample", "repairs").await.unwrap();
    let paused = waits_for(&node, "rated", Kind::Paused).await;
    assert_eq!(paused.text, "the end of the pause of sample (repairs)");
    assert!(kinds(&explain(&node, "rated").await).contains(&Kind::LimitReached));
    let status = client.get_task_status("rated").await.unwrap();
    assert_eq!(status.waiting_for, paused.text);
}

pub async fn a_task_without_its_plugin_is_explained(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let failing = Task {
        max_attempts: 2,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        ..named("again", task("trap", ""))
    };
    client.submit_and_wait(failing).await.unwrap();
    let delayed = |id: &str, task_type: &str| Task {
        delay_ms: HOUR_MS,
        ..named(id, task(task_type, ""))
    };
    client
        .submit_task(delayed("orphan", "sample"))
        .await
        .unwrap();
    std::fs::remove_file(node.plugins_dir().join("sample.wasm")).unwrap();
    waits_for(&node, "orphan", Kind::NoPlugin).await;
    let explained = explain(&node, "orphan").await;
    assert_eq!(kinds(&explained), [Kind::NoPlugin, Kind::NotDue]);
    let first =
        "orphan waits for a plugin: no live node handles sample now; and for its first attempt";
    assert!(explained.sentence.starts_with(first), "{explained:?}");
    let status = client.get_task_status("orphan").await.unwrap();
    assert_eq!(status.waiting_for, explained.reasons[0].text);
}
