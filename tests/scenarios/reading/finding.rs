//! Filters of lists that need a search.

use super::*;
use hostel::proto::hostel::v1::ListTasksRequest;
use std::collections::BTreeSet;
use tonic::Code;

/// Returns the ids of all pages, in the order of their names.
async fn found(node: &Node, mut request: ListTasksRequest) -> String {
    let mut ids = BTreeSet::new();
    request.page_size = 2;
    loop {
        let page = node.client().list_tasks(request.clone()).await.unwrap();
        for task in page.tasks {
            let id = task.task_id.clone();
            assert!(ids.insert(task.task_id), "{id} comes twice");
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return ids.into_iter().collect::<Vec<_>>().join(" ");
        }
    }
}

/// The ids that the command line lists, in the order of their names.
fn listed(node: &Node, arguments: &[&str]) -> String {
    let listed = json(node.cli(&[&["tasks", "list", "--json"], arguments].concat()));
    let ids = listed.as_array().expect("a list").iter();
    let ids: BTreeSet<_> = ids.map(|task| task["task_id"].as_str().unwrap()).collect();
    ids.into_iter().collect::<Vec<_>>().join(" ")
}

pub async fn tasks_are_found_by_what_executed_them(on: Backend) {
    let mut node = start(on, "").await;
    let mut client = node.client();
    for id in ["a", "b"] {
        let ended = client.submit_and_wait(named(id, task("sample", ""))).await;
        assert_eq!(ended.unwrap().status, "completed");
    }
    let failing = Task {
        max_attempts: 1,
        ..named("c", task("trap", ""))
    };
    client.submit_and_wait(failing).await.unwrap();
    node.terminate().await;
    let newer = TestGuest {
        version: "2",
        ..TestGuest::default()
    };
    node.add_wasm("sample.wasm", &guest(&newer));
    node.restart().await;
    let mut client = node.client();
    client
        .submit_and_wait(named("d", task("sample", "")))
        .await
        .unwrap();
    client.submit_task(endless("e")).await.unwrap();
    has_status(&node, "e", "running").await;
    let of = |node: &str, plugin: &str, plugin_version: &str| ListTasksRequest {
        node: node.into(),
        plugin: plugin.into(),
        plugin_version: plugin_version.into(),
        ..ListTasksRequest::default()
    };
    assert_eq!(found(&node, of("test", "", "")).await, "a b c d e");
    assert_eq!(found(&node, of("other", "", "")).await, "");
    assert_eq!(found(&node, of("", "sample", "")).await, "a b d");
    assert_eq!(found(&node, of("", "sample", "1")).await, "a b");
    assert_eq!(found(&node, of("", "", "2")).await, "d");
    let failed = ListTasksRequest {
        status: "failed".into(),
        ..of("test", "", "1")
    };
    assert_eq!(found(&node, failed).await, "c");
    assert_eq!(
        listed(&node, &["--node", "test", "--plugin", "sample"]),
        "a b d"
    );
    assert_eq!(
        listed(&node, &["--plugin-version", "1", "--state", "failed"]),
        "c"
    );
    assert_eq!(
        listed(&node, &["--node", "test", "--state", "running"]),
        "e"
    );
}

pub async fn tasks_are_found_by_time(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let mut submitted = Vec::new();
    for id in ["a", "b", "c"] {
        let ended = client.submit_and_wait(named(id, task("sample", ""))).await;
        submitted.push(ended.unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let later = Task {
        delay_ms: HOUR_MS,
        ..named("open", task("sample", ""))
    };
    client.submit_task(later).await.unwrap();
    let (begin, end) = (submitted[1].submitted_at_ms, submitted[1].finished_at_ms);
    let between = |after, before| ListTasksRequest {
        submitted_after_ms: after,
        submitted_before_ms: before,
        ..ListTasksRequest::default()
    };
    assert_eq!(found(&node, between(begin, 0)).await, "b c open");
    assert_eq!(found(&node, between(0, begin)).await, "a");
    assert_eq!(found(&node, between(begin, begin + 1)).await, "b");
    let finished = |after, before| ListTasksRequest {
        finished_after_ms: after,
        finished_before_ms: before,
        ..ListTasksRequest::default()
    };
    assert_eq!(found(&node, finished(end, 0)).await, "b c");
    assert_eq!(found(&node, finished(0, end)).await, "a");
    assert_eq!(found(&node, finished(1, 0)).await, "a b c");
    assert_eq!(listed(&node, &["--since", "1h"]), "a b c open");
    assert_eq!(listed(&node, &["--until", "1h"]), "");
    assert_eq!(listed(&node, &["--since", &begin.to_string()]), "b c open");
    assert_eq!(listed(&node, &["--until", "2020-01-01T00:00:00Z"]), "");
    assert_eq!(
        listed(&node, &["--finished-since", "1h", "--type", "sample"]),
        "a b c"
    );
    assert_eq!(listed(&node, &["--finished-until", &end.to_string()]), "a");
    let refused = node.cli(&["tasks", "list", "--since", "yesterday"]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("nor how long ago, such as 1h"), "{error}");
}

pub async fn all_faults_of_a_filter_are_reported_at_once(on: Backend) {
    let node = start(on, "").await;
    let request = ListTasksRequest {
        status: "done".into(),
        task_type: "a b".into(),
        group: "/".into(),
        tag: "{}".into(),
        node: "☃".into(),
        plugin: "x".repeat(129),
        submitted_after_ms: 2,
        submitted_before_ms: 2,
        finished_after_ms: u64::MAX,
        finished_before_ms: 1,
        ..ListTasksRequest::default()
    };
    let refused = node.client().list_tasks(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for field in [
        "status: ",
        "task_type: ",
        "group: ",
        "tag: ",
        "node: ",
        "plugin: ",
        "submitted_before_ms: ",
        "finished_before_ms: ",
    ] {
        assert!(refused.message().contains(field), "{field}: {refused}");
    }
    let latest = ListTasksRequest {
        submitted_after_ms: u64::MAX,
        plugin_version: "no version at all".into(),
        ..ListTasksRequest::default()
    };
    assert_eq!(found(&node, latest).await, "");
}
