//! The basic use: add plugins, submit tasks, and read their results.

use crate::support::{
    backend::{Backend, on_both},
    plugins::showcase,
    task,
};
use hostel::proto::distributed::{Task, distributed_service_client::DistributedServiceClient};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        on_both("first_task::a_result_is_returned", a_result_is_returned),
        on_both(
            "first_task::a_submission_can_wait_for_its_result",
            a_submission_can_wait_for_its_result,
        ),
        on_both(
            "first_task::the_id_is_the_idempotency_key",
            the_id_is_the_idempotency_key,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn a_result_is_returned(on: Backend) {
    let node = on.start(&[&showcase("echo"), &showcase("text")], "").await;
    let mut client = node.client();
    // The backend is the one that the name of the trial states.
    let own_queue = node.path("data/queue.db").exists();
    assert_eq!(own_queue, on == Backend::Embedded);
    // A node with a shared queue reports that its key-value store is not shared.
    let reported = node
        .log()
        .contains("each node has a key-value store of its own");
    assert_eq!(reported, on == Backend::Shared, "{}", node.log());

    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(echoed.status, "completed");
    assert_eq!(echoed.result, "over".as_bytes());
    assert_eq!((echoed.attempts, echoed.finishes), (1, 1));
    assert_eq!(echoed.plugin, "echo");
    assert_eq!(echoed.node_id, "test");
    assert!(echoed.submitted_at_ms <= echoed.started_at_ms);
    assert!(echoed.started_at_ms <= echoed.finished_at_ms);

    let words = task("word-count", "one two two");
    let counted = client.submit_and_wait(words).await.unwrap();
    let counted: serde_json::Value = serde_json::from_slice(&counted.result).unwrap();
    assert_eq!(counted["words"], 3);
    assert_eq!(counted["top"][0]["word"], "two");

    let unknown = client.submit_task(task("nothing", "")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::FailedPrecondition);
    assert!(unknown.message().contains("echo, word-count"), "{unknown}");
}

async fn a_submission_can_wait_for_its_result(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = DistributedServiceClient::connect(format!("http://{}", node.address()))
        .await
        .unwrap();
    let named = |payload: &str, wait_ms| Task {
        task_id: "order:1".into(),
        wait_ms,
        ..task("echo", payload)
    };
    let answer = client.submit_task(named("a", 60_000)).await.unwrap();
    let answer = answer.into_inner();
    assert!(answer.accepted && !answer.existing);
    let status = answer.status.unwrap();
    assert_eq!(status.status, "completed");
    assert_eq!((&*status.task_id, &*status.result), ("order:1", &b"a"[..]));
    assert_eq!((status.attempts, status.finishes), (1, 1));

    // The status of an ended task comes at once, from memory or from the database.
    let mut node = node;
    for restart in [false, true] {
        if restart {
            node.restart().await;
            client = DistributedServiceClient::connect(format!("http://{}", node.address()))
                .await
                .unwrap();
        }
        let again = client.submit_task(named("a", 60_000)).await.unwrap();
        let again = again.into_inner();
        assert!(again.accepted && again.existing);
        assert_eq!(again.status.unwrap(), status);
        // A call that does not wait gets no status, and the wait is not part of the content.
        let bare = client
            .submit_task(named("a", 0))
            .await
            .unwrap()
            .into_inner();
        assert!(bare.existing && bare.status.is_none());
        let other = client.submit_task(named("b", 60_000)).await.unwrap_err();
        assert_eq!(other.code(), tonic::Code::AlreadyExists);
        node.terminate().await;
    }
}

async fn the_id_is_the_idempotency_key(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    let named = |payload: &str| Task {
        task_id: "order:1".into(),
        ..task("echo", payload)
    };
    let first = client.submit_and_wait(named("a")).await.unwrap();
    let again = client.submit_and_wait(named("a")).await.unwrap();
    assert_eq!(first, again);
    let other = client.submit_task(named("b")).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::AlreadyExists);
}
