//! When a task starts: delays, start times, and deadlines for the first attempt.

use super::helpers::*;

fn after(delay: Duration) -> TaskOptions {
    TaskOptions {
        start: Start::After(delay),
        ..TaskOptions::default()
    }
}

fn at(time: UnixMs) -> TaskOptions {
    TaskOptions {
        start: Start::At(time),
        ..TaskOptions::default()
    }
}

fn start_by(time: UnixMs) -> TaskOptions {
    TaskOptions {
        start_by: Some(time),
        ..TaskOptions::default()
    }
}

/// Options of a task that has to begin so soon.
fn soon(queue: &dyn TaskQueue, time: Duration) -> TaskOptions {
    start_by(queue.now().after(time))
}

/// Expires what is to expire, as the reaper does, and returns how many tasks that were.
async fn expire_all(queue: &dyn TaskQueue, max: usize) -> usize {
    let mut count = 0;
    loop {
        let expired = queue.expire(max).await.unwrap();
        assert!(expired <= max);
        count += expired;
        if expired < max {
            return count;
        }
    }
}

pub(super) async fn a_delayed_task_waits_until_it_is_due(queue: &dyn TaskQueue) {
    let delay = Duration::from_millis(400);
    submit_one(queue, with_options("a", "echo", after(delay))).await;
    let waiting = get(queue, "a").await;
    let due = waiting.submitted_at.after(delay);
    assert_eq!(waiting.state, State::Pending { due_at: due });
    let time = queue.now().after(delay);
    submit_one(queue, with_options("b", "other", at(time))).await;
    let waiting = get(queue, "b").await;
    assert_eq!(due_at(&waiting), Some(time.max(waiting.submitted_at)));
    for task_type in ["echo", "other"] {
        let wait = next_due(queue, task_type).await.unwrap();
        assert!(wait <= delay, "{wait:?}");
        let key = (name(task_type), StateKind::Pending);
        assert_eq!(queue.counts().await.unwrap()[&key], 1);
    }
    submit_one(queue, with_options("far", "echo", after(HOUR))).await;
    submit_one(queue, with_options("far-2", "other", at(time.after(HOUR)))).await;
    pass(delay).await;
    for (id, task_type) in [("a", "echo"), ("b", "other")] {
        assert_eq!(next_due(queue, task_type).await, Some(Duration::ZERO));
        assert_eq!(ids(&lease_some(queue, task_type, 9).await), [id]);
        let wait = next_due(queue, task_type).await.unwrap();
        assert!(wait > HOUR / 2 && wait <= HOUR, "{wait:?}");
    }
}

pub(super) async fn a_start_in_the_past_is_due_now(queue: &dyn TaskQueue) {
    submit_one(queue, with_options("t", "echo", at(UnixMs(1)))).await;
    let waiting = get(queue, "t").await;
    assert_eq!(due_at(&waiting), Some(waiting.submitted_at));
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["t"]);
}

pub(super) async fn a_delayed_task_is_cancelled_and_requeued(queue: &dyn TaskQueue) {
    submit_one(queue, with_options("t", "echo", after(HOUR))).await;
    assert!(lease_some(queue, "echo", 9).await.is_empty());
    assert_eq!(queue.cancel(&name("t")).await.unwrap(), Cancel::Cancelled);
    assert_eq!(next_due(queue, "echo").await, None);
    // A requeued task is due now, and its delay is still part of its content.
    assert_eq!(queue.requeue(&name("t")).await.unwrap(), Requeue::Requeued);
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["t"]);
    let again = with_options("t", "echo", after(HOUR));
    assert_eq!(submit_one(queue, again).await, Submitted::Existing);
}

pub(super) async fn a_task_that_did_not_begin_in_time_fails(queue: &dyn TaskQueue) {
    let time = Duration::from_millis(100);
    let options = soon(queue, time);
    submit_one(queue, with_options("late", "echo", options.clone())).await;
    submit_one(queue, with_options("cancelled", "echo", options)).await;
    let far = soon(queue, HOUR);
    submit_one(queue, with_options("in-time", "echo", far)).await;
    pass(time).await;
    // No lease takes it, even before it has failed.
    assert_eq!(ids(&lease_some(queue, "echo", 9).await), ["in-time"]);
    assert_eq!(kind(queue, "late").await, StateKind::Pending);
    let cancel = queue.cancel(&name("cancelled")).await.unwrap();
    assert_eq!(cancel, Cancel::Cancelled);
    let mut watch = queue.watch();
    assert_eq!(expire_all(queue, 9).await, 1);
    let ended = get(queue, "late").await;
    let State::Failed {
        started_at: None,
        finished_at,
    } = ended.state
    else {
        panic!("{ended:?}");
    };
    assert!(finished_at >= ended.submitted_at.after(time));
    assert_eq!(ended.error_class, Some(ErrorClass::Expired));
    let error = ended.error.as_deref();
    assert_eq!(error, Some("no attempt had begun by start_by_ms"));
    assert_eq!((ended.attempt, ended.finishes), (0, 1));
    assert_eq!(ended.executed_by, None);
    match watch.next().await {
        Some(Changes::Batch(changes)) => {
            let last = changes.last().map(|it| (it.id.as_str(), it.state));
            assert_eq!(last, Some(("late", StateKind::Failed)));
        }
        other => panic!("{other:?}"),
    }
    let counts = queue.counts().await.unwrap();
    assert_eq!(counts[&(name("echo"), StateKind::Failed)], 1);
    assert_eq!(counts.get(&(name("echo"), StateKind::Pending)), None);
    assert_eq!(expire_all(queue, 9).await, 0);
    assert_eq!(next_due(queue, "echo").await, None);
}

pub(super) async fn an_expired_task_is_requeued_without_its_deadline(queue: &dyn TaskQueue) {
    let time = Duration::from_millis(50);
    let options = soon(queue, time);
    for id in ["expired", "cancelled"] {
        submit_one(queue, with_options(id, "echo", options.clone())).await;
    }
    queue.cancel(&name("cancelled")).await.unwrap();
    pass(time).await;
    assert_eq!(expire_all(queue, 9).await, 1);
    for id in ["expired", "cancelled"] {
        assert_eq!(queue.requeue(&name(id)).await.unwrap(), Requeue::Requeued);
        assert_eq!(expire_all(queue, 9).await, 0);
        let waiting = get(queue, id).await;
        assert_eq!(waiting.error_class, None);
        let leased = lease_one(queue, "echo").await;
        assert_eq!(leased.token.id, name(id));
        // The deadline is still part of the content.
        assert_eq!(leased.options.as_deref(), Some(&options));
        let again = with_options(id, "echo", options.clone());
        assert_eq!(submit_one(queue, again).await, Submitted::Existing);
        finish_one(queue, &leased.token, completed(b"")).await;
        assert_eq!(kind(queue, id).await, StateKind::Completed);
    }
}

pub(super) async fn only_the_first_attempt_has_to_begin_in_time(queue: &dyn TaskQueue) {
    // Long enough for one submission and one lease.
    let time = Duration::from_secs(2);
    let outcomes = [
        ("retry", retry(Duration::ZERO, "again")),
        (
            "lost",
            Outcome::Lost {
                after: Duration::ZERO,
                error: "its node died".into(),
            },
        ),
        ("release", Outcome::Released),
    ];
    let options = soon(queue, time);
    let tasks = outcomes
        .iter()
        .map(|(id, _)| with_options(id, "echo", options.clone()));
    create_all(queue, tasks).await;
    let leased = lease_some(queue, "echo", 9).await;
    assert_eq!(leased.len(), 3);
    for (id, outcome) in outcomes {
        let held = leased.iter().find(|leased| leased.token.id == name(id));
        let token = &held.expect("it is leased").token;
        finish_one(queue, token, outcome).await;
    }
    pass(time).await;
    assert_eq!(expire_all(queue, 9).await, 0);
    assert_eq!(lease_some(queue, "echo", 9).await.len(), 3);
}

pub(super) async fn expired_tasks_fail_in_steps(queue: &dyn TaskQueue) {
    let late = |n| with_options(&format!("t{n}"), "echo", start_by(UnixMs(1)));
    create_all(queue, (0..7).map(late)).await;
    assert_eq!(queue.expire(0).await.unwrap(), 0);
    assert_eq!(expire_all(queue, 2).await, 7);
    for n in 0..7 {
        let ended = get(queue, &format!("t{n}")).await;
        assert_eq!(ended.error_class, Some(ErrorClass::Expired), "t{n}");
    }
}

pub(super) async fn a_late_task_gives_its_place_to_no_other(queue: &dyn TaskQueue) {
    let late = start_by(UnixMs(1));
    create_all(queue, [with_options("late", "a", late)]).await;
    for (id, task_type) in [("1", "b"), ("2", "a"), ("3", "b")] {
        tick().await;
        create(queue, id, task_type).await;
    }
    let both = request(&[("a", 9), ("b", 9)], 9, HOUR);
    assert_eq!(ids(&queue.lease(&both).await.unwrap()), ["1", "2", "3"]);
}
