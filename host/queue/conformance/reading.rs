//! Reading and purging: pages, filters, counts, watching.

use super::helpers::*;
use bytes::Bytes;

pub(super) async fn a_status_has_no_payload_and_leaves_out_a_large_result(queue: &dyn TaskQueue) {
    const RESULT: usize = 1000;
    for (id, result) in [("large", vec![7; RESULT]), ("empty", Vec::new())] {
        let submitted = queue.submit(vec![task(id, "echo", b"payload")]).await;
        assert_eq!(submitted.unwrap(), [Submitted::Created]);
        let token = lease_one(queue, "echo").await.token;
        finish_one(queue, &token, completed(&result)).await;
    }
    let submitted = queue.submit(vec![task("waits", "echo", b"payload")]).await;
    assert_eq!(submitted.unwrap(), [Submitted::Created]);
    let without_payload = async |id: &str| {
        let payload = Bytes::new();
        let task = get(queue, id).await;
        Some(StatusRead::Task(Task { payload, ..task }))
    };
    let status = async |id: &str, max| queue.get_status(&name(id), max).await.unwrap();
    for is_cached in [true, false] {
        if !is_cached {
            // More than the cache of a backend holds.
            let flood = task("flood", "other", &vec![0; 9 << 20]);
            queue.submit(vec![flood]).await.unwrap();
        }
        for id in ["large", "empty", "waits"] {
            assert_eq!(status(id, RESULT).await, without_payload(id).await, "{id}");
        }
        let bytes = RESULT;
        let too_large = Some(StatusRead::ResultTooLarge { bytes });
        assert_eq!(status("large", RESULT - 1).await, too_large);
        assert_eq!(status("large", 0).await, too_large);
        assert_eq!(status("empty", 0).await, without_payload("empty").await);
        assert_eq!(status("unknown", RESULT).await, None);
    }
}

pub(super) async fn pages_hold_every_task_once(queue: &dyn TaskQueue) {
    let batch = (0..25).map(|n| task_with(&format!("t{n}"), "echo", b"big", &[("n", "1")]));
    queue.submit(batch.collect()).await.unwrap();
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, completed(b"result")).await;
    let newest_first: Vec<Name> = (0..25).rev().map(|n| name(&format!("t{n}"))).collect();
    for size in [1, 7, 25, 26, 1000] {
        let tasks = list_all(queue, &Filter::default(), size).await;
        let listed: Vec<Name> = tasks.iter().map(|task| task.id.clone()).collect();
        assert_eq!(listed, newest_first, "pages of {size}");
    }
    let tasks = list_all(queue, &Filter::default(), 10).await;
    let is_small = |task: &Task| task.payload.is_empty() && task.metadata.is_empty();
    assert!(tasks.iter().all(is_small));
    assert!(matches!(&tasks[24].state, State::Completed { result, .. } if result.is_empty()));
    // A submission between two pages shifts nothing.
    let page = Page {
        size: 10,
        after: None,
    };
    let first = queue.list(&Filter::default(), &page).await.unwrap();
    create(queue, "new", "echo").await;
    let page = Page {
        size: 50,
        after: first.next,
    };
    let rest = queue.list(&Filter::default(), &page).await.unwrap();
    assert_eq!((rest.tasks.len(), rest.next), (15, None));
    assert_eq!(rest.tasks[0].id, newest_first[10]);
}

pub(super) async fn filters_select_by_state_and_type(queue: &dyn TaskQueue) {
    let batch = (0..12).map(|n| task(&format!("t{n}"), ["a", "b", "c"][n % 3], b""));
    queue.submit(batch.collect()).await.unwrap();
    // t0 fails, t3 completes, t6 runs; t9 and all of b and c wait; t1 is cancelled.
    let leased = lease_some(queue, "a", 3).await;
    finish_one(queue, &leased[0].token, failed("no")).await;
    finish_one(queue, &leased[1].token, completed(b"yes")).await;
    queue.cancel(&name("t1")).await.unwrap();
    let list = async |state: Option<StateKind>, task_type: Option<&str>| {
        let filter = Filter {
            state,
            task_type: task_type.map(name),
            ..Filter::default()
        };
        let mut found = Vec::new();
        for task in list_all(queue, &filter, 2).await {
            found.push(task.id.as_str().to_owned());
        }
        found.join(" ")
    };
    use StateKind::{Cancelled, Completed, Failed, Pending, Running};
    assert_eq!(list(Some(Failed), None).await, "t0");
    assert_eq!(list(Some(Completed), None).await, "t3");
    assert_eq!(list(Some(Running), None).await, "t6");
    assert_eq!(list(Some(Cancelled), None).await, "t1");
    assert_eq!(list(Some(Pending), None).await, "t11 t10 t9 t8 t7 t5 t4 t2");
    assert_eq!(list(None, Some("a")).await, "t9 t6 t3 t0");
    assert_eq!(list(Some(Pending), Some("b")).await, "t10 t7 t4");
    assert_eq!(list(Some(Failed), Some("b")).await, "");
    assert_eq!(list(None, Some("unheard-of")).await, "");
}

pub(super) async fn a_bad_page_token_is_refused(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    for token in [
        "",
        "x",
        "-1",
        "99999999999999999999999",
        "p-1",
        "p+1",
        "'; --",
        "☃",
    ] {
        let page = Page {
            size: 1,
            after: Some(token.into()),
        };
        let listed = queue.list(&Filter::default(), &page).await;
        assert!(
            matches!(listed, Err(Error::BadPage)),
            "{token:?}: {listed:?}"
        );
    }
}

pub(super) async fn counts_follow_every_transition(queue: &dyn TaskQueue) {
    let counted = async || {
        let counts = queue.counts().await.unwrap();
        assert!(counts.values().all(|&count| count > 0));
        let words = counts
            .iter()
            .map(|((task_type, state), count)| format!("{task_type} {state} {count}"));
        words.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(counted().await, "");
    for (id, task_type) in [("1", "a"), ("2", "a"), ("3", "b")] {
        create(queue, id, task_type).await;
    }
    assert_eq!(counted().await, "a pending 2, b pending 1");
    let token = lease_one(queue, "a").await.token;
    assert_eq!(counted().await, "a pending 1, a running 1, b pending 1");
    finish_one(queue, &token, failed("no")).await;
    queue.cancel(&name("3")).await.unwrap();
    assert_eq!(counted().await, "a pending 1, a failed 1, b cancelled 1");
    queue.requeue(&name("1")).await.unwrap();
    let leased = lease_some(queue, "a", 2).await;
    finish_one(queue, &leased[0].token, completed(b"")).await;
    finish_one(queue, &leased[1].token, Outcome::Released).await;
    assert_eq!(counted().await, "a pending 1, a completed 1, b cancelled 1");
    queue
        .purge(&Retention::of(Duration::ZERO), 9)
        .await
        .unwrap();
    assert_eq!(counted().await, "a pending 1");
}

pub(super) async fn purge_deletes_ended_tasks(queue: &dyn TaskQueue) {
    let batch = (0..10).map(|n| task(&format!("t{n}"), "echo", b"p"));
    queue.submit(batch.collect()).await.unwrap();
    for leased in lease_some(queue, "echo", 8).await {
        let outcome = match leased.token.id.as_str() {
            "t6" => continue,
            "t5" => failed("no"),
            _ => completed(b"r"),
        };
        finish_one(queue, &leased.token, outcome).await;
    }
    queue.cancel(&name("t9")).await.unwrap();
    // Seven of eight leased have ended, one runs, one waits, one was cancelled.
    assert_eq!(queue.purge(&Retention::of(HOUR), 100).await.unwrap(), 0);
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 0)
            .await
            .unwrap(),
        0
    );
    tick().await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 5)
            .await
            .unwrap(),
        5
    );
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 100)
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 100)
            .await
            .unwrap(),
        0
    );
    let left = list_all(queue, &Filter::default(), 100).await;
    let left: Vec<&str> = left.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(left, ["t8", "t6"]);
    assert!(queue.get(&name("t0")).await.unwrap().is_none());
}

pub(super) async fn a_purged_id_can_be_used_again(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let old = lease_one(queue, "echo").await.token;
    finish_one(queue, &old, completed(b"old")).await;
    tick().await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 1)
            .await
            .unwrap(),
        1
    );
    let other = task("t", "echo", b"other content");
    assert_eq!(submit_one(queue, other).await, Submitted::Created);
    let new = lease_one(queue, "echo").await.token;
    assert_ne!(old.fence, new.fence);
    assert_eq!(
        finish_one(queue, &old, completed(b"old")).await,
        Finished::Stale
    );
    assert_eq!(
        finish_one(queue, &new, completed(b"new")).await,
        Finished::Applied
    );
}

/// Returns the next `count` changes: id, state, and whether a cancellation was requested.
async fn seen(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
        match next.await.expect("a change within 10 s") {
            Some(Changes::Batch(changes)) => seen.extend(changes.iter().map(|change| {
                let asked = if change.cancel_requested {
                    " to be cancelled"
                } else {
                    ""
                };
                format!("{} {}{asked}", change.id, change.state)
            })),
            other => panic!("{other:?}"),
        }
    }
    seen
}

pub(super) async fn watchers_see_every_state(queue: &dyn TaskQueue) {
    create(queue, "before", "other").await;
    let mut watch = queue.watch();
    create(queue, "t", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    queue.cancel(&name("t")).await.unwrap();
    finish_one(queue, &token, failed("no")).await;
    queue.requeue(&name("t")).await.unwrap();
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(Duration::ZERO, "again")).await;
    queue.cancel(&name("t")).await.unwrap();
    assert_eq!(
        seen(&mut watch, 8).await,
        [
            "t pending",
            "t running",
            "t running to be cancelled",
            "t failed",
            "t pending",
            "t running",
            "t pending",
            "t cancelled"
        ]
    );
    // Calls that change nothing publish nothing.
    finish_one(queue, &token, completed(b"stale")).await;
    submit_one(queue, task("t", "echo", b"payload")).await;
    create(queue, "u", "echo").await;
    assert_eq!(seen(&mut watch, 1).await, ["u pending"]);
    // A change is visible when it is published.
    let mut watch = queue.watch();
    let (_, state) = tokio::join!(create(queue, "v", "echo"), async {
        seen(&mut watch, 1).await;
        kind(queue, "v").await
    });
    assert_eq!(state, StateKind::Pending);
}

pub(super) async fn empty_calls_have_empty_answers(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    assert!(queue.submit(vec![]).await.unwrap().is_empty());
    assert!(queue.finish(vec![]).await.unwrap().is_empty());
    assert!(queue.renew(&[], HOUR).await.unwrap().is_empty());
    assert!(
        queue
            .lease(&request(&[], 9, HOUR))
            .await
            .unwrap()
            .is_empty()
    );
    let none = request(&[("echo", 9)], 0, HOUR);
    assert!(queue.lease(&none).await.unwrap().is_empty());
    assert!(
        queue
            .expired(Duration::ZERO, &[], 0)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn concurrent_callers_lose_and_duplicate_nothing(queue: &dyn TaskQueue) {
    const TASKS: usize = 1000;
    let submits = async {
        let one = async |n: usize| {
            let submission = task(&format!("t{n}"), "echo", &n.to_le_bytes());
            assert_eq!(submit_one(queue, submission).await, Submitted::Created);
        };
        futures_util::future::join_all((0..TASKS).map(one)).await;
    };
    let work = async {
        let mut done = 0;
        while done < TASKS {
            let leased = lease_some(queue, "echo", 50).await;
            if leased.is_empty() {
                tick().await;
            }
            let finishes: Vec<Finish> = leased
                .into_iter()
                .map(|leased| {
                    Finish::new(
                        leased.token,
                        completed(&leased.payload),
                        Some(executed_by()),
                    )
                })
                .collect();
            done += finishes.len();
            let answers = queue.finish(finishes).await.unwrap();
            assert!(answers.iter().all(|&answer| answer == Finished::Applied));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        tokio::join!(submits, work)
    })
    .await
    .expect("every task ends");
    for n in 0..TASKS {
        let ended = get(queue, &format!("t{n}")).await;
        assert_eq!((ended.attempt, ended.finishes), (1, 1));
        assert!(
            matches!(ended.state, State::Completed { result, .. } if result[..] == n.to_le_bytes())
        );
    }
}
