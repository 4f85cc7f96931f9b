//! `GetTask` and `hostel tasks get`.

use super::*;
use hostel::proto::hostel::v1::{GetTaskRequest, GetTaskResponse};
use tonic::{Code, Status};

async fn read(node: &Node, id: &str) -> Result<GetTaskResponse, Status> {
    let request = GetTaskRequest {
        task_id: id.into(),
        ..GetTaskRequest::default()
    };
    node.client().get_task(request).await
}

pub async fn a_task_is_read_with_its_attempts(on: Backend) {
    let mut node = start(on, "").await;
    let failing = Task {
        max_attempts: 3,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        group: "g".into(),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        ..named("fails", task("trap", "four"))
    };
    let mut client = node.client();
    let ended = client.submit_and_wait(failing.clone()).await.unwrap();
    assert_eq!((&*ended.status, ended.attempts), ("failed", 3));
    let found = read(&node, "fails").await.unwrap();
    assert_eq!(found.status.as_ref(), Some(&ended));
    // The submission comes back as it was given, but for the payload.
    let submission = Task {
        payload: Default::default(),
        ..failing
    };
    assert_eq!(found.submission.as_ref(), Some(&submission));
    assert_eq!((found.payload_bytes, found.result_bytes), (4, 0));
    let numbers: Vec<u32> = found.attempts.iter().map(|it| it.number).collect();
    assert_eq!((numbers, found.attempts_left_out), (vec![1, 2, 3], 0));
    let mut before = ended.submitted_at_ms;
    for attempt in &found.attempts {
        assert_eq!(attempt.outcome, "trap", "{attempt:?}");
        assert!(attempt.error.contains("unreachable"), "{attempt:?}");
        let by = (
            &*attempt.node_id,
            &*attempt.plugin,
            &*attempt.plugin_version,
        );
        assert_eq!(by, ("test", "trap", "1"));
        assert!(before <= attempt.started_at_ms, "{attempt:?}");
        assert!(attempt.started_at_ms <= attempt.ended_at_ms, "{attempt:?}");
        assert!(attempt.peak_memory_bytes > 0, "{attempt:?}");
        before = attempt.ended_at_ms;
    }
    assert_eq!(found.attempts[2].ended_at_ms, ended.finished_at_ms);

    // A requeued task keeps its history, over a restart as well.
    client.requeue_task("fails").await.unwrap();
    client.wait_for_task("fails").await.unwrap();
    node.terminate().await;
    node.restart().await;
    let found = read(&node, "fails").await.unwrap();
    let numbers: Vec<u32> = found.attempts.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [1, 2, 3, 1, 2, 3]);

    let shown = text(node.cli(&["tasks", "get", "fails"]));
    for words in [
        "metadata         k=v\n",
        "payload          4 bytes\n",
        "ATTEMPT  OUTCOME",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(shown.matches("trap 1").count(), 6, "{shown}");
    let shown = json(node.cli(&["tasks", "get", "fails", "--json"]));
    assert_eq!(shown["history"].as_array().unwrap().len(), 6, "{shown}");
    assert_eq!(shown["history"][5]["outcome"], "trap");
    assert_eq!(
        (&shown["attempts"], &shown["max_attempts"]),
        (&3.into(), &3.into())
    );
    assert_eq!(shown["metadata"]["k"], "v");

    let unknown = read(&node, "unknown").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let invalid = read(&node, "a b").await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
}

pub async fn payload_and_result_are_read_on_request(on: Backend) {
    const LARGE: usize = 3 << 20;
    let node = start(on, "").await;
    let mut client = node.client();
    let large = named("large", task("sample", vec![7; LARGE]));
    client.submit_and_wait(large).await.unwrap();
    let get = async |payload, result| {
        let request = GetTaskRequest {
            task_id: "large".into(),
            payload,
            result,
        };
        node.client().get_task(request).await
    };
    for (payload, result) in [(false, false), (true, false), (false, true)] {
        let found = get(payload, result).await.unwrap();
        assert_eq!(found.payload_bytes, LARGE as u64);
        assert_eq!(found.result_bytes, LARGE as u64);
        let read = found.submission.unwrap().payload.len();
        assert_eq!(read, LARGE * usize::from(payload));
        let read = found.status.unwrap().result.len();
        assert_eq!(read, LARGE * usize::from(result));
        let [attempt] = &found.attempts[..] else {
            panic!("{:?}", found.attempts);
        };
        assert_eq!((&*attempt.outcome, &*attempt.error), ("completed", ""));
        assert!(attempt.peak_memory_bytes >= LARGE as u64, "{attempt:?}");
    }
    // Both do not fit into one message.
    let refused = get(true, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().contains("limits.max_message_bytes"),
        "{refused}"
    );

    // The attempt that runs is the last one.
    client.submit_task(endless("runs")).await.unwrap();
    has_status(&node, "runs", "running").await;
    let found = read(&node, "runs").await.unwrap();
    let [attempt] = &found.attempts[..] else {
        panic!("{:?}", found.attempts);
    };
    assert_eq!((&*attempt.outcome, &*attempt.node_id), ("running", "test"));
    assert_eq!((attempt.number, attempt.ended_at_ms), (1, 0));
    client.cancel_task("runs").await.unwrap();
    client.wait_for_task("runs").await.unwrap();
    let found = read(&node, "runs").await.unwrap();
    assert_eq!(found.attempts[0].outcome, "cancelled");
    assert!(found.attempts[0].cpu_us > 0, "{:?}", found.attempts);
}
