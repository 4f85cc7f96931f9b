//! What operators do to many tasks: reasons of cancellations, purging, priorities, running now.

use super::helpers::*;
use crate::task_queue::MAX_ACTED;

/// Does one thing to tasks by their ids.
async fn act(queue: &dyn TaskQueue, action: Action, ids: &[&str]) -> Vec<Acted> {
    let ids: Vec<Name> = ids.iter().map(|id| name(id)).collect();
    queue.act(&action, &ids).await.unwrap()
}

fn cancel(reason: &str) -> Action {
    Action::Cancel((!reason.is_empty()).then(|| reason.into()))
}

pub(super) async fn each_task_of_a_batch_has_its_answer(queue: &dyn TaskQueue) {
    assert!(act(queue, Action::Purge, &[]).await.is_empty());
    for id in ["ended", "failed", "runs"] {
        create(queue, id, "echo").await;
    }
    for leased in lease_some(queue, "echo", 3).await {
        match leased.token.id.as_str() {
            "ended" => finish_one(queue, &leased.token, completed(b"r")).await,
            "failed" => finish_one(queue, &leased.token, failed("no")).await,
            _ => Finished::Applied,
        };
    }
    create(queue, "waits", "echo").await;
    let all = ["waits", "absent", "runs", "ended", "failed", "waits"];
    use Acted::{Done, Refused, Requested, Unknown};
    use StateKind::{Cancelled, Completed, Failed, Pending, Running};
    let high = Action::SetPriority(Priority::High);
    for action in [high, Action::RunNow] {
        let others = [Done, Unknown, Refused(Running), Refused(Completed)];
        let expected = [&others[..], &[Refused(Failed), Done]].concat();
        assert_eq!(act(queue, action.clone(), &all).await, expected, "{action}");
    }
    let expected = [
        Done,
        Unknown,
        Requested,
        Refused(Completed),
        Refused(Failed),
        Refused(Cancelled),
    ];
    assert_eq!(act(queue, cancel(""), &all).await, expected);
    let expected = [
        Done,
        Unknown,
        Refused(Running),
        Refused(Completed),
        Done,
        Refused(Pending),
    ];
    assert_eq!(act(queue, Action::Requeue, &all).await, expected);
    let expected = [
        Refused(Pending),
        Unknown,
        Refused(Running),
        Done,
        Refused(Pending),
        Refused(Pending),
    ];
    assert_eq!(act(queue, Action::Purge, &all).await, expected);
    assert_eq!(queue.get(&name("ended")).await.unwrap(), None);
}

pub(super) async fn the_reason_of_a_cancellation_is_the_error_of_the_task(queue: &dyn TaskQueue) {
    create(queue, "waits", "other").await;
    assert_eq!(
        act(queue, cancel("not needed"), &["waits"]).await,
        [Acted::Done]
    );
    let cancelled = get(queue, "waits").await;
    assert_eq!(cancelled.state.kind(), StateKind::Cancelled);
    assert_eq!(cancelled.error.as_deref(), Some("not needed"));
    // One that runs ends in several ways; the first reason counts.
    for (id, outcome) in [
        ("cancelled", Outcome::Cancelled),
        ("tried-again", retry(Duration::ZERO, "again")),
        ("released", Outcome::Released),
    ] {
        create(queue, id, "echo").await;
        let token = lease_one(queue, "echo").await.token;
        for reason in ["Gründe\n☃", "too late"] {
            assert_eq!(act(queue, cancel(reason), &[id]).await, [Acted::Requested]);
        }
        assert_eq!(get(queue, id).await.error, None, "{id}");
        finish_one(queue, &token, outcome).await;
        let ended = get(queue, id).await;
        assert_eq!(ended.state.kind(), StateKind::Cancelled, "{id}");
        assert_eq!(ended.error.as_deref(), Some("Gründe\n☃"), "{id}");
    }
    // It is no error of a task that ends in another way, nor of one that is cancelled later.
    create(queue, "completes", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    act(queue, cancel("why"), &["completes"]).await;
    finish_one(queue, &token, completed(b"r")).await;
    assert_eq!(get(queue, "completes").await.error, None);
    act(queue, Action::Requeue, &["released"]).await;
    let token = lease_one(queue, "echo").await.token;
    assert_eq!(
        act(queue, cancel(""), &["released"]).await,
        [Acted::Requested]
    );
    finish_one(queue, &token, failed("its own")).await;
    assert_eq!(
        get(queue, "released").await.error.as_deref(),
        Some("its own")
    );
}

pub(super) async fn purged_tasks_leave_nothing_behind(queue: &dyn TaskQueue) {
    let options = TaskOptions {
        tags: [name("red")].into(),
        result_ttl: Some(HOUR),
        ..in_group("g")
    };
    let ids: Vec<String> = (0..MAX_ACTED).map(|n| format!("t{n}")).collect();
    let tasks = ids
        .iter()
        .map(|id| with_options(id, "echo", options.clone()));
    create_all(queue, tasks).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let all_done = vec![Acted::Done; MAX_ACTED];
    assert_eq!(act(queue, cancel("gone"), &ids).await, all_done);
    assert_eq!(act(queue, Action::Purge, &ids).await, all_done);
    assert_eq!(act(queue, Action::Purge, &ids[..1]).await, [Acted::Unknown]);
    let filter = Filter {
        group: Some(name("g")),
        ..Filter::default()
    };
    assert!(list_all(queue, &filter, 100).await.is_empty());
    assert!(queue.counts().await.unwrap().is_empty());
    // The id is free, and has a new fence.
    let again = with_options("t0", "echo", TaskOptions::default());
    assert_eq!(submit_one(queue, again).await, Submitted::Created);
    assert_eq!(lease_one(queue, "echo").await.attempt, 1);
}

pub(super) async fn a_priority_can_be_changed_while_a_task_waits(queue: &dyn TaskQueue) {
    create_all(
        queue,
        (0..6).map(|n| task(&format!("t{n}"), "echo", b"payload")),
    )
    .await;
    create_all(queue, [with_options("g", "echo", in_group("g"))]).await;
    let high = || Action::SetPriority(Priority::High);
    let low = Action::SetPriority(Priority::Low);
    assert_eq!(act(queue, high(), &["t4", "g"]).await, [Acted::Done; 2]);
    assert_eq!(act(queue, low, &["t0"]).await, [Acted::Done]);
    let priority = async |id: &str| get(queue, id).await.options.map(|it| it.priority);
    assert_eq!(priority("t4").await, Some(Priority::High));
    assert_eq!(priority("g").await, Some(Priority::High));
    assert_eq!(priority("t0").await, Some(Priority::Low));
    assert_eq!(priority("t1").await, None);
    let listed = list_all(queue, &Filter::default(), 10).await;
    let listed = listed.iter().filter(|task| {
        let options = task.options.as_deref();
        options.is_some_and(|it| it.priority == Priority::High)
    });
    assert_eq!(listed.count(), 2);
    // The submission is the same as before.
    let again = task("t4", "echo", b"payload");
    assert_eq!(submit_one(queue, again).await, Submitted::Existing);
    // The two of high priority come before the others.
    let leased = lease_some(queue, "echo", 3).await;
    let mut first: Vec<&str> = ids(&leased);
    first.retain(|id| ["t4", "g"].contains(id));
    assert_eq!(first.len(), 2, "{leased:?}");
    for leased in &leased {
        let is_high = ["t4", "g"].contains(&leased.token.id.as_str());
        let options = leased.options.as_deref().cloned().unwrap_or_default();
        assert_eq!(options.priority == Priority::High, is_high, "{leased:?}");
        // It keeps the priority when it is tried again.
        finish_one(queue, &leased.token, retry(Duration::ZERO, "again")).await;
    }
    assert_eq!(priority("t4").await, Some(Priority::High));
    // And when it is requeued.
    act(queue, cancel(""), &["t4"]).await;
    act(queue, Action::Requeue, &["t4"]).await;
    assert_eq!(priority("t4").await, Some(Priority::High));
    // All of them can be leased, each once.
    let mut left: Vec<Name> = Vec::new();
    for leased in lease_some(queue, "echo", 10).await {
        left.push(leased.token.id);
    }
    left.sort();
    left.dedup();
    assert_eq!(left.len(), 7);
}

pub(super) async fn a_task_that_waits_for_its_time_can_run_now(queue: &dyn TaskQueue) {
    let delayed = TaskOptions {
        start: Start::After(HOUR),
        ..in_group("g")
    };
    create_all(queue, [with_options("delayed", "echo", delayed)]).await;
    create(queue, "tried", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(HOUR, "much later")).await;
    assert_eq!(lease_some(queue, "echo", 9).await.len(), 0);
    let both = ["delayed", "tried"];
    assert_eq!(act(queue, Action::RunNow, &both).await, [Acted::Done; 2]);
    assert_eq!(next_due(queue, "echo").await, Some(Duration::ZERO));
    let task = get(queue, "tried").await;
    assert!(
        due_at(&task) < Some(queue.now().after(HOUR / 2)),
        "{task:?}"
    );
    assert_eq!(task.error.as_deref(), Some("much later"));
    // One that is due already keeps its place.
    create(queue, "due", "echo").await;
    let before = due_at(&get(queue, "due").await);
    tick().await;
    assert_eq!(act(queue, Action::RunNow, &["due"]).await, [Acted::Done]);
    assert_eq!(due_at(&get(queue, "due").await), before);
    tick().await;
    let leased = lease_some(queue, "echo", 9).await;
    let mut leased = ids(&leased);
    leased.sort_unstable();
    assert_eq!(leased, ["delayed", "due", "tried"]);
}

pub(super) async fn a_suspect_can_be_hastened(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    for _ in 0..2 {
        let token = lease_one(queue, "echo").await.token;
        let lost = Outcome::Lost {
            after: Duration::ZERO,
            error: "its node died".into(),
        };
        finish_one(queue, &token, lost).await;
        tick().await;
    }
    let token = lease_one(queue, "echo").await.token;
    finish_one(queue, &token, retry(HOUR, "later")).await;
    let high = Action::SetPriority(Priority::High);
    assert_eq!(act(queue, high, &["t"]).await, [Acted::Done]);
    assert_eq!(act(queue, Action::RunNow, &["t"]).await, [Acted::Done]);
    tick().await;
    let leased = lease_one(queue, "echo").await;
    assert!(leased.suspect);
    finish_one(queue, &leased.token, completed(b"")).await;
    assert_eq!(lease_some(queue, "echo", 9).await.len(), 0);
}

pub(super) async fn ended_tasks_are_kept_by_type_and_state(queue: &dyn TaskQueue) {
    let times = |completed, failed, cancelled| KeepTimes {
        completed,
        failed,
        cancelled,
    };
    for (id, task_type) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        create(queue, id, task_type).await;
    }
    let mut leased = lease_some(queue, "a", 2).await;
    leased.extend(lease_some(queue, "b", 1).await);
    create(queue, "a3", "a").await;
    create(queue, "b2", "b").await;
    for leased in leased {
        let outcome = match leased.token.id.as_str() {
            "a2" => failed("no"),
            _ => completed(b"r"),
        };
        finish_one(queue, &leased.token, outcome).await;
    }
    act(queue, cancel(""), &["a3", "b2"]).await;
    tick().await;
    let left = async || {
        let mut left = Vec::new();
        for task in list_all(queue, &Filter::default(), 10).await {
            left.push(task.id.to_string());
        }
        left.sort();
        left.join(" ")
    };
    let zero = Duration::ZERO;
    let general = times(zero, HOUR, HOUR);
    let own = [(name("b"), times(HOUR, HOUR, zero))];
    let retention = Retention::new(general, own.into());
    assert_eq!(queue.purge(&retention, 9).await.unwrap(), 2);
    assert_eq!(left().await, "a2 a3 b1");
    assert_eq!(queue.purge(&retention, 9).await.unwrap(), 0);
    let failed_only = Retention::new(times(HOUR, zero, HOUR), [].into());
    assert_eq!(queue.purge(&failed_only, 9).await.unwrap(), 1);
    assert_eq!(left().await, "a3 b1");
    // A requeued task is kept from its next end on.
    act(queue, Action::Requeue, &["a3"]).await;
    assert_eq!(queue.purge(&Retention::of(zero), 9).await.unwrap(), 1);
    assert_eq!(left().await, "a3");
}
