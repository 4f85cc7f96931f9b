//! When a task starts, and how often and how long it is tried.

use super::{HOUR_MS, ONE_SLOT, busy, has_status, named, start, status};
use crate::support::{backend::Backend, now_ms, task};
use hostel::proto::distributed::{Priority, Task, TaskStatus};
use tonic::Code;

pub async fn a_task_starts_when_it_is_due(on: Backend) {
    let node = start(on, "").await;
    let mut client = node.client();
    let delayed = Task {
        delay_ms: 800,
        ..named("delayed", task("sample", "a"))
    };
    let at = now_ms() + 800;
    let timed = Task {
        run_at_ms: at,
        ..named("timed", task("sample", "b"))
    };
    let far = Task {
        run_at_ms: now_ms() + HOUR_MS,
        ..named("far", task("sample", "c"))
    };
    for task in [delayed.clone(), timed, far] {
        client.submit_task(task).await.unwrap();
    }
    let waiting = status(&mut client, "far").await;
    assert_eq!((&*waiting.status, waiting.attempts), ("pending", 0));
    let reason = &waiting.waiting_for;
    assert!(reason.starts_with("its first attempt, due in "), "{reason}");
    for id in ["delayed", "timed"] {
        let ended = client.wait_for_task(id).await.unwrap();
        assert_eq!(ended.status, "completed", "{ended:?}");
        let due = if id == "timed" {
            at
        } else {
            ended.submitted_at_ms + 800
        };
        assert!(ended.started_at_ms >= due, "{ended:?}");
    }
    // The delay is compared as it was given.
    assert!(client.submit(delayed.clone()).await.unwrap().existing);
    let other = Task {
        delay_ms: 801,
        ..delayed
    };
    let conflict = client.submit_task(other).await.unwrap_err();
    assert_eq!(conflict.code(), Code::AlreadyExists);
    let past = Task {
        run_at_ms: 1,
        ..named("past", task("sample", "d"))
    };
    let ended = client.submit_and_wait(past).await.unwrap();
    assert_eq!(ended.status, "completed");
}

pub async fn a_task_that_did_not_begin_in_time_fails(on: Backend) {
    let node = start(on, ONE_SLOT).await;
    let mut client = node.client();
    client
        .submit_task(busy("blocker", 10_000_000))
        .await
        .unwrap();
    has_status(&client, "blocker", "running").await;
    let start_by_ms = now_ms() + 300;
    let late = Task {
        start_by_ms,
        ..named("late", task("sample", "a"))
    };
    client.submit_task(late).await.unwrap();
    let failed = client.wait_for_task("late").await.unwrap();
    assert_eq!(
        (&*failed.status, &*failed.error_class),
        ("failed", "expired")
    );
    assert_eq!(failed.error, "no attempt had begun by start_by_ms");
    assert_eq!((failed.attempts, failed.started_at_ms), (0, 0));
    assert_eq!((&*failed.node_id, failed.start_by_ms), ("", start_by_ms));
    assert!(failed.finished_at_ms >= start_by_ms, "{failed:?}");
    // A requeued task may begin at any time.
    client.requeue_task("late").await.unwrap();
    client.cancel_task("blocker").await.unwrap();
    let ended = client.wait_for_task("late").await.unwrap();
    assert_eq!((&*ended.status, &*ended.error_class), ("completed", ""));
}

pub async fn a_task_has_its_own_attempts_and_timeout(on: Backend) {
    let settings = "[plugin.trap.task.trap]\nmax_attempts = 1\n\
                    [plugin.busy.task.busy]\nbackoff_initial_ms = 3600000\nbackoff_max_ms = 3600000\n";
    let node = start(on, settings).await;
    let mut client = node.client();
    let tried = Task {
        max_attempts: 3,
        backoff_initial_ms: 1,
        backoff_max_ms: 2,
        ..task("trap", "")
    };
    let failed = client.submit_and_wait(tried).await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 3));
    assert!(
        failed.error.starts_with("attempt 3 of 3: "),
        "{}",
        failed.error
    );
    let failed = client.submit_and_wait(task("trap", "")).await.unwrap();
    assert_eq!(failed.attempts, 1, "{failed:?}");
    let short = Task {
        timeout_ms: 100,
        max_attempts: 2,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        ..busy("", 10_000_000)
    };
    let failed = client.submit_and_wait(short).await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 2));
    assert!(
        failed.error.contains("its timeout of 100 ms"),
        "{}",
        failed.error
    );
}

pub async fn options_survive_a_kill(on: Backend) {
    let mut node = start(on, ONE_SLOT).await;
    let mut client = node.client();
    let waits = |id: &str| Task {
        delay_ms: 1000,
        start_by_ms: now_ms() + HOUR_MS,
        max_attempts: 2,
        backoff_initial_ms: 1,
        backoff_max_ms: 1,
        priority: Priority::High.into(),
        group: "g".into(),
        tags: vec!["t".into()],
        unique_key: "k".into(),
        ..named(id, task("trap", ""))
    };
    client.submit_task(waits("waits")).await.unwrap();
    client.submit_task(busy("runs", 10_000_000)).await.unwrap();
    let before = status(&mut client, "waits").await;
    node.kill();
    node.restart().await;
    let mut client = node.client();
    let after = status(&mut client, "waits").await;
    let options = |status: TaskStatus| {
        let TaskStatus {
            priority,
            group,
            tags,
            unique_key,
            start_by_ms,
            due_at_ms,
            ..
        } = status;
        (priority, group, tags, unique_key, start_by_ms, due_at_ms)
    };
    if after.status == "pending" {
        assert_eq!(options(after), options(before));
        let answer = client.submit(waits("other")).await.unwrap();
        assert_eq!(answer.task_id, "waits");
    }
    client.cancel_task("runs").await.unwrap();
    let failed = client.wait_for_task("waits").await.unwrap();
    assert_eq!((&*failed.status, failed.attempts), ("failed", 2));
    assert!(failed.error.starts_with("attempt 2 of 2"), "{failed:?}");
}
