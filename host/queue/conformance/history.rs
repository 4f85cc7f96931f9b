//! The attempts of a task, and what else is read of one task.

use super::helpers::*;
use crate::details::{ReadLimits, TaskDetails};
use bytes::Bytes;
use hostel_task::{
    AttemptClass, AttemptRecord, AttemptReport, AttemptUsage, MAX_ATTEMPT_ERROR_BYTES, MAX_ATTEMPTS,
};

const USAGE: AttemptUsage = AttemptUsage {
    cpu_us: 1234,
    peak_memory_bytes: 5 << 30,
    log_bytes: 67,
};

async fn details(queue: &dyn TaskQueue, id: &str) -> TaskDetails {
    let found = queue.get_details(&name(id), ReadLimits::default()).await;
    found.unwrap().unwrap_or_else(|| panic!("{id} is unknown"))
}

async fn history(queue: &dyn TaskQueue, id: &str) -> Vec<AttemptRecord> {
    let attempts = details(queue, id).await.attempts;
    assert_eq!(attempts.left_out(), 0);
    attempts.latest().cloned().collect()
}

/// Ends the next attempt of a task of the type echo.
async fn attempt(queue: &dyn TaskQueue, class: AttemptClass, outcome: Outcome) {
    let token = lease_one(queue, "echo").await.token;
    let was_lost = class == AttemptClass::Lost;
    let finish = Finish {
        token,
        outcome,
        executed_by: (!was_lost).then(executed_by),
        report: AttemptReport {
            class,
            usage: if was_lost {
                AttemptUsage::default()
            } else {
                USAGE
            },
        },
    };
    let answers = queue.finish(vec![finish]).await.unwrap();
    assert_eq!(answers, [Finished::Applied]);
    tick().await;
}

fn lost(error: &str) -> Outcome {
    Outcome::Lost {
        after: Duration::ZERO,
        error: error.into(),
    }
}

/// Number, class and error of each attempt.
fn words(history: &[AttemptRecord]) -> Vec<String> {
    let words = history.iter().map(|attempt| {
        let error = attempt.error.as_deref().unwrap_or("-");
        format!("{} {} {error}", attempt.number, attempt.class.as_str())
    });
    words.collect()
}

pub(super) async fn each_attempt_is_in_the_history(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    assert!(history(queue, "t").await.is_empty());
    attempt(queue, AttemptClass::Timeout, retry(Duration::ZERO, "slow")).await;
    assert_eq!(words(&history(queue, "t").await), ["1 timeout slow"]);
    attempt(queue, AttemptClass::Lost, lost("its node died")).await;
    attempt(queue, AttemptClass::Released, Outcome::Released).await;
    // The attempt that runs has not ended.
    let running = lease_one(queue, "echo").await;
    assert_eq!(history(queue, "t").await.len(), 3);
    finish_one(queue, &running.token, failed("no")).await;
    tick().await;
    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    attempt(queue, AttemptClass::Completed, completed(b"yes")).await;
    let all = history(queue, "t").await;
    assert_eq!(
        words(&all),
        [
            "1 timeout slow",
            "2 lost its node died",
            "2 released -",
            "2 permanent no",
            "1 completed -"
        ]
    );
    let mut before = UnixMs(0);
    for attempt in &all {
        assert!(
            before <= attempt.started_at && attempt.started_at <= attempt.ended_at,
            "{all:?}"
        );
        before = attempt.ended_at;
        assert_eq!(attempt.node, Some(name("node-1")), "{attempt:?}");
        let ran = attempt.class != AttemptClass::Lost;
        let by = executed_by();
        assert_eq!(attempt.plugin, ran.then_some(by.plugin), "{attempt:?}");
        assert_eq!(attempt.plugin_version, ran.then_some(by.plugin_version));
    }
    let usages: Vec<_> = all.iter().map(|attempt| attempt.usage).collect();
    let unknown = AttemptUsage::default();
    assert_eq!(usages, [USAGE, unknown, USAGE, unknown, USAGE]);
    let task = details(queue, "t").await.task;
    let State::Completed { started_at, .. } = task.state else {
        panic!("{task:?}");
    };
    assert_eq!(started_at, all[4].started_at);
}

pub(super) async fn the_reason_of_a_cancellation_outlives_a_requeue(queue: &dyn TaskQueue) {
    let cancel = async |reason: &str| {
        let action = Action::Cancel(Some(reason.into()));
        queue.act(&action, &[name("t")]).await.unwrap()
    };
    let requeue = async || queue.requeue(&name("t")).await.unwrap();
    create(queue, "t", "echo").await;
    attempt(queue, AttemptClass::Timeout, retry(Duration::ZERO, "slow")).await;
    // Between two attempts: what executed the latest one is still known.
    assert_eq!(cancel("not now").await, [Acted::Done]);
    assert_eq!(requeue().await, Requeue::Requeued);
    let task = get(queue, "t").await;
    assert_eq!(task.error.as_deref(), Some("not now"));
    assert_eq!(task.executed_by, Some(executed_by()));
    assert_eq!(words(&history(queue, "t").await), ["1 timeout slow"]);
    // An attempt that is cancelled has no error of its own; one that failed gets the reason.
    for (class, outcome) in [
        (AttemptClass::Cancelled, Outcome::Cancelled),
        (AttemptClass::Retryable, retry(Duration::ZERO, "again")),
        (AttemptClass::Lost, lost("its node died")),
    ] {
        let token = lease_one(queue, "echo").await.token;
        assert_eq!(cancel("why").await, [Acted::Requested]);
        let report = AttemptReport {
            class,
            usage: AttemptUsage::default(),
        };
        let finish = Finish {
            report,
            ..Finish::new(token, outcome, None)
        };
        assert_eq!(
            queue.finish(vec![finish]).await.unwrap(),
            [Finished::Applied]
        );
        tick().await;
        assert_eq!(get(queue, "t").await.error.as_deref(), Some("why"));
        assert_eq!(requeue().await, Requeue::Requeued);
        assert_eq!(get(queue, "t").await.error.as_deref(), Some("why"));
    }
    let all = words(&history(queue, "t").await);
    let expected = [
        "1 timeout slow",
        "1 cancelled -",
        "1 retryable why",
        "1 lost its node died",
    ];
    assert_eq!(all, expected);
}

pub(super) async fn the_first_attempt_is_in_the_history_however_it_ends(queue: &dyn TaskQueue) {
    for (id, class, outcome, expected) in [
        (
            "a",
            AttemptClass::Completed,
            completed(b""),
            "1 completed -",
        ),
        ("b", AttemptClass::Trap, failed("trap"), "1 trap trap"),
        (
            "c",
            AttemptClass::Cancelled,
            Outcome::Cancelled,
            "1 cancelled -",
        ),
        ("d", AttemptClass::Lost, failed("lost"), "1 lost lost"),
    ] {
        create(queue, id, "echo").await;
        attempt(queue, class, outcome).await;
        assert_eq!(words(&history(queue, id).await), [expected], "{id}");
    }
    // What was cancelled before it began has no attempt, and a lease that was given back unused is none.
    create(queue, "e", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    let released = queue.finish(vec![Finish::released(token)]).await.unwrap();
    assert_eq!(released, [Finished::Applied]);
    queue.cancel(&name("e")).await.unwrap();
    assert!(history(queue, "e").await.is_empty());
    // A retry that becomes a cancellation keeps its own class.
    create(queue, "f", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    queue.cancel(&name("f")).await.unwrap();
    finish_one(queue, &token, retry(Duration::ZERO, "again")).await;
    assert_eq!(kind(queue, "f").await, StateKind::Cancelled);
    assert_eq!(words(&history(queue, "f").await), ["1 retryable again"]);
}

pub(super) async fn a_stale_or_repeated_finish_adds_no_attempt(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let first = lease_one(queue, "echo").await.token;
    for _ in 0..3 {
        finish_one(queue, &first, retry(Duration::ZERO, "again")).await;
    }
    let second = lease_one(queue, "echo").await.token;
    finish_one(queue, &first, completed(b"late")).await;
    for _ in 0..3 {
        finish_one(queue, &second, completed(b"result")).await;
    }
    let all = words(&history(queue, "t").await);
    assert_eq!(all, ["1 retryable again", "2 completed -"]);
}

pub(super) async fn the_latest_attempts_are_kept_and_the_others_counted(queue: &dyn TaskQueue) {
    const ATTEMPTS: usize = MAX_ATTEMPTS + 9;
    create(queue, "t", "echo").await;
    let long = "e".repeat(4 * MAX_ATTEMPT_ERROR_BYTES);
    for _ in 1..ATTEMPTS {
        let token = lease_one(queue, "echo").await.token;
        finish_one(queue, &token, retry(Duration::ZERO, &long)).await;
    }
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, failed(&long)).await;
    let found = details(queue, "t").await;
    let kept = found.attempts.latest().len();
    assert!((MAX_ATTEMPTS / 2..=MAX_ATTEMPTS).contains(&kept), "{kept}");
    assert_eq!(kept + found.attempts.left_out() as usize, ATTEMPTS);
    let last = found.attempts.latest().last().unwrap();
    assert_eq!(
        (last.number as usize, last.class),
        (ATTEMPTS, AttemptClass::Permanent)
    );
    for attempt in found.attempts.latest() {
        let error = attempt.error.as_deref().unwrap_or_default();
        assert!(error.starts_with("eee") && error.len() <= MAX_ATTEMPT_ERROR_BYTES);
    }
    // The task has the whole error.
    assert_eq!(found.task.error.as_deref(), Some(&*long));
    // A task that gets the id of a purged one begins with an empty history.
    tick().await;
    assert_eq!(
        queue
            .purge(&Retention::of(Duration::ZERO), 9)
            .await
            .unwrap(),
        1
    );
    create(queue, "t", "echo").await;
    assert!(history(queue, "t").await.is_empty());
}

pub(super) async fn details_have_sizes_and_what_fits(queue: &dyn TaskQueue) {
    let submission = task_with("t", "echo", b"payload", &[("k", "v")]).with(in_group("g"));
    assert_eq!(submit_one(queue, submission).await, Submitted::Created);
    let read = async |payload_bytes, result_bytes| {
        let limits = ReadLimits {
            payload_bytes,
            result_bytes,
        };
        let found = queue.get_details(&name("t"), limits).await;
        found.unwrap().expect("a known task")
    };
    let waiting = read(0, 0).await;
    assert_eq!((waiting.payload_bytes, waiting.result_bytes), (7, 0));
    assert!(waiting.task.payload.is_empty());
    assert_eq!(waiting.task.metadata["k"], "v");
    let group = waiting
        .task
        .options
        .as_ref()
        .and_then(|it| it.group.clone());
    assert_eq!(group, Some(name("g")));
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, completed(b"a result")).await;
    for (limits, payload, result) in [
        ((7, 8), &b"payload"[..], &b"a result"[..]),
        ((6, 8), &b""[..], &b"a result"[..]),
        ((7, 7), &b"payload"[..], &b""[..]),
        ((0, 0), &b""[..], &b""[..]),
    ] {
        let found = read(limits.0, limits.1).await;
        assert_eq!((found.payload_bytes, found.result_bytes), (7, 8));
        let State::Completed { result: stored, .. } = &found.task.state else {
            panic!("{found:?}");
        };
        assert_eq!((&found.task.payload[..], &stored[..]), (payload, result));
    }
    let whole = read(99, 99).await.task;
    assert_eq!(whole, get(queue, "t").await);
    assert_eq!(whole.payload, Bytes::from_static(b"payload"));
    let unknown = name("unknown");
    let found = queue.get_details(&unknown, ReadLimits::default()).await;
    assert_eq!(found.unwrap(), None);
}
