//! What a submission is refused for.

use super::{HOUR_MS, start};
use crate::support::{backend::Backend, eventually, plugins::guest, task};
use hostel::{
    plugin::TestGuest,
    proto::{distributed::Task, hostel::v1::ListTasksRequest},
};
use std::{collections::BTreeSet, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The fields that a refusal names in its details.
fn violations(refused: &Status) -> BTreeSet<String> {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let details = refused.get_details_bad_request().expect("a bad request");
    let violations = details.field_violations.into_iter();
    violations
        .map(|violation| {
            let text = refused.message();
            assert!(
                text.contains(&violation.description),
                "{text}: {violation:?}"
            );
            violation.field
        })
        .collect()
}

pub async fn all_faults_are_reported_at_once(on: Backend) {
    let settings = "[limits]\nmax_delay_ms = 1000\nmax_attempts = 3\nmax_keep_ms = 1000\n\
                    [plugins]\nmax_timeout_ms = 1000\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let wrong = Task {
        task_id: "a b".into(),
        task_type: "-".into(),
        node: "n n".into(),
        delay_ms: 1001,
        start_by_ms: 1,
        timeout_ms: 1001,
        max_attempts: 4,
        backoff_initial_ms: u64::MAX,
        backoff_max_ms: 1,
        result_ttl_ms: 1001,
        priority: 77,
        group: "g g".into(),
        tags: (0..9).map(|n| format!("tag {n}")).collect(),
        unique_key: "k k".into(),
        unique_for_ms: 1001,
        metadata: [(String::new(), "v".into())].into(),
        ..Task::default()
    };
    let refused = client.submit_task(wrong).await.unwrap_err();
    let expected = [
        "task_id",
        "task_type",
        "node",
        "delay_ms",
        "start_by_ms",
        "timeout_ms",
        "max_attempts",
        "backoff_initial_ms",
        "backoff_max_ms",
        "result_ttl_ms",
        "priority",
        "group",
        "tags",
        "unique_key",
        "unique_for_ms",
        "metadata",
    ];
    assert_eq!(violations(&refused), expected.map(String::from).into());
    for (task, field) in [
        (
            Task {
                delay_ms: 1,
                run_at_ms: 1,
                ..task("sample", "")
            },
            "run_at_ms",
        ),
        (
            Task {
                run_at_ms: u64::MAX,
                ..task("sample", "")
            },
            "run_at_ms",
        ),
        (
            Task {
                start_by_ms: u64::MAX,
                ..task("sample", "")
            },
            "start_by_ms",
        ),
        (
            Task {
                unique_for_ms: 1,
                ..task("sample", "")
            },
            "unique_for_ms",
        ),
        (
            Task {
                node: "a".into(),
                label: "b".into(),
                ..task("sample", "")
            },
            "label",
        ),
    ] {
        let refused = client.submit_task(task).await.unwrap_err();
        assert_eq!(violations(&refused), [field.to_owned()].into());
    }
    // What is at its limit is accepted.
    let most = Task {
        delay_ms: 1000,
        timeout_ms: 1000,
        max_attempts: 3,
        result_ttl_ms: 1000,
        tags: (0..8).map(|n| format!("tag{n}")).collect(),
        unique_key: "k".into(),
        unique_for_ms: 1000,
        ..task("sample", "")
    };
    let ended = client.submit_and_wait(most).await.unwrap();
    assert_eq!(ended.status, "completed");
    // A name that cannot be one is refused in filters, too.
    let request = ListTasksRequest {
        tag: "a b".into(),
        ..ListTasksRequest::default()
    };
    let refused = client.list_tasks(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

pub async fn a_full_queue_says_when_to_try_again(on: Backend) {
    let node = on.prepare(&[], "").await;
    let mut node = node;
    node.add_wasm("sample.wasm", &guest(&TestGuest::default()));
    node.set_in("queue", "max_open_tasks = 1");
    let node = node.started().await;
    let mut client = node.client();
    let delayed = || Task {
        delay_ms: HOUR_MS,
        ..task("sample", "")
    };
    client.submit_task(delayed()).await.unwrap();
    let full = eventually("the queue is full", async || {
        client.clone().submit_task(delayed()).await.err()
    })
    .await;
    assert_eq!(full.code(), Code::ResourceExhausted);
    let info = full.get_details_retry_info().expect("a retry info");
    assert_eq!(info.retry_delay, Some(Duration::from_secs(1)));
}
