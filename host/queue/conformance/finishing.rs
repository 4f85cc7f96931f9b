//! The ends of attempts and tasks: retry, release, failure, requeue, cancellation.

use super::helpers::*;
use std::time::SystemTime;

pub(super) async fn a_task_goes_from_submit_to_result(queue: &dyn TaskQueue) {
    let before = SystemTime::now();
    create(queue, "one", "echo").await;
    let waiting = get(queue, "one").await;
    let unix = before.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let skew = waiting.submitted_at.0.abs_diff(unix.as_millis() as u64);
    assert!(skew < 60_000, "submitted_at is {skew} ms off");
    assert!(matches!(waiting.state, State::Pending { due_at } if due_at == waiting.submitted_at));
    assert_eq!((waiting.attempt, waiting.finishes), (0, 0));
    assert_eq!((waiting.error, waiting.executed_by), (None, None));

    let leased = lease_one(queue, "echo").await;
    assert_eq!(leased.token.id, name("one"));
    assert_eq!(leased.task_type, name("echo"));
    assert_eq!(leased.attempt, 1);
    assert_eq!(&leased.payload[..], b"payload");
    let running = get(queue, "one").await;
    assert_eq!((running.attempt, running.finishes), (1, 0));
    let State::Running {
        node,
        started_at: begun,
        lease_until,
        cancel_requested,
    } = running.state
    else {
        panic!("{running:?}");
    };
    assert_eq!(node, name("node-1"));
    assert!(lease_until >= begun.after(HOUR));
    assert!(!cancel_requested);

    let answer = finish_one(queue, &leased.token, completed(b"result")).await;
    assert_eq!(answer, Finished::Applied);
    let ended = get(queue, "one").await;
    assert_eq!((ended.attempt, ended.finishes), (1, 1));
    assert_eq!(ended.executed_by, Some(executed_by()));
    assert_eq!(&ended.payload[..], b"payload");
    let State::Completed {
        result,
        started_at,
        finished_at,
    } = ended.state
    else {
        panic!("{ended:?}");
    };
    assert_eq!(&result[..], b"result");
    assert_eq!(started_at, begun);
    assert!(finished_at >= started_at);
    assert!(queue.get(&name("another")).await.unwrap().is_none());
}

pub(super) async fn a_retry_waits_and_keeps_its_error(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    let wait = Duration::from_millis(400);
    finish_one(queue, &token, retry(wait, "first try")).await;
    let waiting = get(queue, "t").await;
    assert!(
        matches!(waiting.state, State::Pending { due_at } if due_at >= waiting.submitted_at.after(wait))
    );
    assert_eq!(waiting.error.as_deref(), Some("first try"));
    assert_eq!((waiting.attempt, waiting.finishes), (1, 0));
    assert_eq!(waiting.executed_by, Some(executed_by()));
    assert!(lease_some(queue, "echo", 1).await.is_empty());
    tokio::time::sleep(wait + Duration::from_millis(50)).await;
    let again = lease_one(queue, "echo").await;
    assert_eq!(again.attempt, 2);
    finish_one(queue, &again.token, completed(b"")).await;
    let ended = get(queue, "t").await;
    assert_eq!((ended.attempt, ended.finishes), (2, 1));
    assert_eq!(ended.error.as_deref(), Some("first try"));
}

pub(super) async fn a_release_costs_no_attempt(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    for _ in 0..3 {
        let leased = lease_one(queue, "echo").await;
        assert_eq!(leased.attempt, 1);
        finish_one(queue, &leased.token, Outcome::Released).await;
        let waiting = get(queue, "t").await;
        assert_eq!((waiting.attempt, waiting.finishes), (0, 0));
        assert_eq!(waiting.state.kind(), StateKind::Pending);
    }
}

pub(super) async fn a_failure_is_kept_and_can_be_requeued(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(Duration::ZERO, "one")).await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, failed("two")).await;
    let dead = get(queue, "t").await;
    let State::Failed {
        started_at,
        finished_at,
    } = dead.state
    else {
        panic!("{dead:?}");
    };
    assert!(started_at.unwrap() <= finished_at);
    assert_eq!((dead.attempt, dead.finishes), (2, 1));
    assert_eq!(dead.error.as_deref(), Some("two"));
    assert_eq!(&dead.payload[..], b"payload");
    assert!(lease_some(queue, "echo", 1).await.is_empty());

    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    let waiting = get(queue, "t").await;
    assert_eq!((waiting.attempt, waiting.finishes), (0, 0));
    assert_eq!(waiting.error.as_deref(), Some("two"));
    let leased = lease_one(queue, "echo").await;
    assert_eq!(leased.attempt, 1);
    finish_one(queue, &leased.token, completed(b"at last")).await;
    assert_eq!(get(queue, "t").await.finishes, 1);
}

pub(super) async fn only_failed_and_cancelled_tasks_are_requeued(queue: &dyn TaskQueue) {
    let requeue = async |id: &str| queue.requeue(&name(id)).await.unwrap();
    assert_eq!(requeue("t").await, Requeue::Unknown);
    create(queue, "t", "echo").await;
    assert_eq!(requeue("t").await, Requeue::Refused(StateKind::Pending));
    let token = lease_one(queue, "echo").await.token;
    assert_eq!(requeue("t").await, Requeue::Refused(StateKind::Running));
    finish_one(queue, &token, completed(b"")).await;
    assert_eq!(requeue("t").await, Requeue::Refused(StateKind::Completed));
    create(queue, "c", "echo").await;
    assert_eq!(queue.cancel(&name("c")).await.unwrap(), Cancel::Cancelled);
    assert_eq!(requeue("c").await, Requeue::Requeued);
    assert_eq!(lease_one(queue, "echo").await.token.id, name("c"));
}

pub(super) async fn a_pending_task_is_cancelled_at_once(queue: &dyn TaskQueue) {
    let cancel = async |id: &str| queue.cancel(&name(id)).await.unwrap();
    assert_eq!(cancel("t").await, Cancel::Unknown);
    create(queue, "t", "echo").await;
    assert_eq!(cancel("t").await, Cancel::Cancelled);
    let ended = get(queue, "t").await;
    assert!(matches!(
        ended.state,
        State::Cancelled {
            started_at: None,
            ..
        }
    ));
    assert_eq!((ended.attempt, ended.finishes), (0, 1));
    assert_eq!(cancel("t").await, Cancel::Ended(StateKind::Cancelled));
    assert_eq!(get(queue, "t").await, ended);
    assert!(lease_some(queue, "echo", 1).await.is_empty());
    create(queue, "u", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(HOUR, "later")).await;
    assert_eq!(cancel("u").await, Cancel::Cancelled);
    let ended = get(queue, "u").await;
    assert!(matches!(
        ended.state,
        State::Cancelled {
            started_at: Some(_),
            ..
        }
    ));
    assert_eq!(ended.error.as_deref(), Some("later"));
}

pub(super) async fn a_running_task_is_cancelled_through_its_holder(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    assert_eq!(renew_one(queue, &token, HOUR).await, Renewal::Held);
    for _ in 0..2 {
        assert_eq!(queue.cancel(&name("t")).await.unwrap(), Cancel::Requested);
        let renewed = renew_one(queue, &token, HOUR).await;
        assert_eq!(renewed, Renewal::CancelRequested);
    }
    let running = get(queue, "t").await;
    assert!(matches!(
        running.state,
        State::Running {
            cancel_requested: true,
            ..
        }
    ));
    let answer = finish_one(queue, &token, Outcome::Cancelled).await;
    assert_eq!(answer, Finished::Applied);
    let ended = get(queue, "t").await;
    assert!(matches!(
        ended.state,
        State::Cancelled {
            started_at: Some(_),
            ..
        }
    ));
    assert_eq!((ended.attempt, ended.finishes), (1, 1));
    // The request ends with the attempt.
    queue.requeue(&name("t")).await.unwrap();
    let again = lease_one(queue, "echo").await.token;
    assert_eq!(renew_one(queue, &again, HOUR).await, Renewal::Held);
}

pub(super) async fn a_task_to_be_cancelled_is_not_retried(queue: &dyn TaskQueue) {
    for (id, outcome) in [
        ("retry", retry(Duration::ZERO, "try again")),
        ("release", Outcome::Released),
    ] {
        create(queue, id, "echo").await;
        let token = lease_one(queue, "echo").await.token;
        queue.cancel(&name(id)).await.unwrap();
        finish_one(queue, &token, outcome).await;
        let ended = get(queue, id).await;
        assert_eq!(ended.state.kind(), StateKind::Cancelled, "{id}");
        assert_eq!(ended.finishes, 1);
        assert!(lease_some(queue, "echo", 1).await.is_empty());
    }
    let error = get(queue, "retry").await.error;
    assert_eq!(error.as_deref(), Some("try again"));
}

pub(super) async fn a_task_to_be_cancelled_may_still_complete_or_fail(queue: &dyn TaskQueue) {
    for (id, outcome, state) in [
        ("well", completed(b"made it"), StateKind::Completed),
        ("badly", failed("broke"), StateKind::Failed),
    ] {
        create(queue, id, "echo").await;
        let token = lease_one(queue, "echo").await.token;
        queue.cancel(&name(id)).await.unwrap();
        finish_one(queue, &token, outcome).await;
        assert_eq!(kind(queue, id).await, state);
        let cancelled = queue.cancel(&name(id)).await.unwrap();
        assert_eq!(cancelled, Cancel::Ended(state));
    }
}
